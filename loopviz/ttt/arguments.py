"""What a pass is given: refused by name, or brought into one form."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from loopviz.checks import FieldError

from .cache import TTTCache
from .chunk import Chunk
from .configuration import TTTConfig

OF_THE_LOSS = ("num_items_in_batch", "ignore_index", "shift_labels")  # that transformers' loss takes


def refuse(config: TTTConfig, kwargs: dict[str, Any]) -> None:
    """What the published code ignores or fails at, and whatever nobody knows."""
    if kwargs.pop("output_attentions", None) or getattr(config, "output_attentions", False):
        raise ValueError(
            "output_attentions=True: a TTT layer has no attention; what stands in its place is the dual form's matrix, "
            "InnerStep.dual_matrices() of a hook (model.register_inner_hook)"
        )
    if kwargs.pop("position_ids", None) is not None:
        raise ValueError(
            "position_ids: a TTT model counts every row's tokens by itself; leave them out, and say what is padding by "
            "attention_mask"
        )
    unknown = [name for name, value in kwargs.items() if value is not None]
    if unknown:
        raise ValueError(f"{unknown[0]}={kwargs[unknown[0]]!r:.60}: a TTT model takes no such argument; leave it out")


def text_sizes(name: str, given: Tensor, ndim: int) -> tuple[int, int]:
    """B and T of `input_ids` `[B, T]`, or of `inputs_embeds` `[B, T, C]`."""
    if given.ndim != ndim or 0 in given.shape:
        wanted = "[B, T]" if ndim == 2 else "[B, T, C]"
        raise ValueError(f"{name} of shape {list(given.shape)}: must be {wanted}, with a row and a token at least")
    return given.shape[0], given.shape[1]


def check_labels(labels: Tensor | None, given: Tensor | None, logits_to_keep: int | Tensor) -> None:
    """Before a pass, which a cache remembers: labels are of its tokens, and the loss needs all their logits."""
    if labels is None or given is None:
        return
    if labels.shape != given.shape[:2]:
        raise ValueError(
            f"labels of shape {list(labels.shape)}: must be {list(given.shape[:2])}, one for every token of this pass"
        )
    if isinstance(logits_to_keep, Tensor) or logits_to_keep:
        raise ValueError(
            f"logits_to_keep={logits_to_keep!r:.60}: labels need the logits of all tokens; leave out one of the two"
        )


def real_tokens(mask: Tensor | None, rows: int, tokens: int, before: int) -> Tensor | None:
    """`[B, T]` bool of the pass's real tokens, or `None` when none is padding."""
    if mask is None:
        return None
    if mask.ndim != 2 or mask.shape[0] != rows or mask.shape[1] not in (tokens, before + tokens):
        also = f", or [{rows}, {before + tokens}] with what the cache has read" if before else ""
        raise ValueError(
            f"attention_mask of shape {list(mask.shape)}: must be [{rows}, {tokens}], a value for every token of this "
            f"pass{also}"
        )
    real = mask[:, mask.shape[1] - tokens :].bool()
    return None if bool(real.all()) else real


def lr_scale(
    given: float | Tensor | None, cache: TTTCache | None, chunk: Chunk, rows: int, tokens: int
) -> Tensor | None:
    """Factor on each packed token's inner learning rate, `[B, P]`, or `None` for 1."""
    if given is None:
        given = 1.0 if cache is None else cache.inner_lr_scale
    if not isinstance(given, Tensor) and given == 1:
        return None
    try:
        scale = torch.as_tensor(given, device=chunk.slots.device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise FieldError("inner_lr_scale", given, "finite_not_negative") from error
    if not scale.is_floating_point():
        scale = scale.float()
    if scale.ndim and scale.shape != (rows, tokens):
        raise ValueError(f"inner_lr_scale of shape {list(scale.shape)}: must be a number, or [{rows}, {tokens}]")
    if not bool((torch.isfinite(scale) & (scale >= 0)).all()):
        raise FieldError("inner_lr_scale", given, "finite_not_negative")
    return chunk.pack(scale.expand(rows, tokens))
