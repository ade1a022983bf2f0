"""The exit lens: a mid-loop state continued through the real coda."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import LlamaModel
from transformers.masking_utils import create_causal_mask

from .block import starts_normed
from .cache import LoopCache
from .interrupt import check, within_operations
from .kept_kv import check_without_gradients
from .lean_layers import LeanLayers, lean_layers, run_layer

if TYPE_CHECKING:
    from .block import LoopBlock
    from .configuration import LoopLlamaConfig


class _CodaView:
    """A finished pass's cache as the coda's attention saw it before it wrote: read only, rows repeated as needed."""

    is_compileable = False

    def __init__(self, cache: LoopCache, past: int, repeats: int) -> None:
        self.cache, self.repeats, self.past = cache, repeats, past

    def get_query_offset(self, layer_idx: int = 0) -> int:
        return self.past

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        return self.past + query_length, 0

    def update(self, k: Tensor, v: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        layer = self.cache.layers[layer_idx]
        k, v = layer.as_kept(k, v)
        if self.past == 0:
            return k, v
        keys, values = layer.read(lambda x: x[:, :, : self.past, 0])
        if self.repeats > 1:
            keys, values = (x.repeat(self.repeats, 1, 1, 1) for x in (keys, values))
        return torch.cat((keys, k), dim=2), torch.cat((values, v), dim=2)


def exit_states(
    model: LlamaModel,
    blocks: Sequence[LoopBlock],
    states: Tensor,
    cache: LoopCache | None,
    attention_mask: Tensor | None,
    position_ids: Tensor | None,
) -> Tensor:
    """Normed last hidden states `[R, B, T, H]` that the coda makes of states `[R, B, T, H]` of the last block.

    Args:
        model: a `LoopLlamaModel`.
        blocks: its looped blocks.

    Raises:
        ValueError: the model has no looped block; gradients are recorded, and the cache rounds what it keeps.
    """
    if not blocks:
        raise ValueError("loop_layers=None: a plain Llama has no loop to exit from")
    if cache is not None:
        check_without_gradients([block.kv_dtype for block in blocks])
    R, B, T, _ = states.shape
    coda = range(blocks[-1].b + 1, model.config.num_hidden_layers)
    if not coda and blocks[-1].norms_steps:
        return states
    states = _entering(model, blocks[-1], coda, states)
    past = 0 if cache is None else cache.get_seq_length() - T
    if position_ids is None:
        position_ids = (torch.arange(T, device=states.device) + past).unsqueeze(0)
    side_by_side = T == 1 and past > 0 and model.config._attn_implementation in ("sdpa", "eager")
    if cache is not None and side_by_side and (attention_mask is None or attention_mask.ndim == 2):
        # One new token: its steps stand side by side as queries, so that the past is read once and not R times.
        mask = _steps_mask(model, states, past, attention_mask)
        hidden = states[:, :, 0].transpose(0, 1)  # [B, R, H]
        hidden = _run(model, coda, hidden, mask, position_ids.expand(-1, R), _CodaView(cache, past, 1))
        return hidden.transpose(0, 1).unsqueeze(2)  # [R, B, 1, H]
    view = None if cache is None else _CodaView(cache, past, R)
    hidden = states.flatten(0, 1)  # [R * B, T, H]
    if position_ids.shape[0] > 1:
        position_ids = position_ids.repeat(R, 1)
    mask = create_causal_mask(
        config=model.config,
        inputs_embeds=hidden,
        attention_mask=None if attention_mask is None else attention_mask.repeat(R, *[1] * (attention_mask.ndim - 1)),
        past_key_values=view,
        position_ids=position_ids,
    )
    return _run(model, coda, hidden, mask, position_ids, view).unflatten(0, (R, B))


def normed_states(model: LlamaModel, blocks: Sequence[LoopBlock], index: int, states: Tensor) -> Tensor:
    """What the head reads of a block's states in the direct lens: normed, but never twice.

    Args:
        model: a `LoopLlamaModel`.
        blocks: its looped blocks.
        index: of the block.
        states: s_0..s_N, `[N + 1, ..., H]`.
    """
    first, others = starts_normed(blocks, index), blocks[index].norms_steps
    if first == others:
        return states if first else model.norm(states)
    parts = (states[:1], first), (states[1:], others)
    return torch.cat([part if normed else model.norm(part) for part, normed in parts])


def _entering(model: LlamaModel, block: LoopBlock, coda: range, states: Tensor) -> Tensor:
    """States of the last block as the coda takes them."""
    return model.norm(states) if coda and block.final_norm == "last_step" else states


def last_hidden(
    model: LlamaModel,
    block: LoopBlock,
    state: Tensor,
    cache: LoopCache | None,
    mask: Tensor | None,
    real: Tensor | None,
    layer_kwargs: Mapping[str, Any],
    lean: LeanLayers | None,
) -> Tensor:
    """What the head would read of each row's last real token if the loop of a running pass stopped now, `[B, H]`.

    Nothing is written: the coda's layers see the earlier tokens that the cache holds, and the pass's own as they would be.

    Args:
        model: a `LoopLlamaModel`.
        block: its last one, whose loop runs.
        state: s_r, `[B, T, H]`.
        cache: of the pass, whose coda has not run yet.
        mask: of the pass, as plain layers take it.
        real: `[B, T]` bool of the pass's real tokens; `None`: all.
        layer_kwargs: what the pass gives to every layer.
        lean: what runs them, where they are not called as modules.
    """
    coda = range(block.b + 1, model.config.num_hidden_layers)
    hidden = _entering(model, block, coda, state)
    view = None if cache is None or not coda else _CodaView(cache, cache.layers[coda[0]].get_seq_length(), 1)
    for index in coda:
        check()
        hidden = run_layer(model.layers[index], hidden, mask, view, layer_kwargs, lean)
    rows = torch.arange(len(hidden), device=hidden.device)
    places = torch.arange(hidden.shape[1], device=hidden.device)
    last = places[-1:].expand(len(rows)) if real is None else (real * places).argmax(-1)
    hidden = hidden[rows, last]
    return hidden if block.norms_steps and not coda else model.norm(hidden)


def _steps_mask(model: LlamaModel, states: Tensor, past: int, attention_mask: Tensor | None) -> Tensor:
    """`[B or 1, 1, R, past + R]`: a step of one new token sees the real earlier tokens and itself, no other step."""
    R, device = states.shape[0], states.device
    if attention_mask is None:
        before = torch.ones(1, 1, 1, past, dtype=torch.bool, device=device)
    else:
        before = attention_mask[:, None, None, :past].bool()
    before = before.expand(-1, -1, R, -1)
    own = torch.eye(R, dtype=torch.bool, device=device).expand(before.shape[0], 1, R, R)
    visible = torch.cat((before, own), dim=-1)
    if model.config._attn_implementation == "sdpa":
        return visible
    lowest = torch.finfo(states.dtype).min
    return torch.zeros(visible.shape, dtype=states.dtype, device=device).masked_fill_(~visible, lowest)


def _run(
    model: LlamaModel,
    layers: range,
    hidden: Tensor,
    mask: Tensor | None,
    position_ids: Tensor,
    view: _CodaView | None,
) -> Tensor:
    embeddings = model.rotary_emb(hidden, position_ids=position_ids)
    given = {"position_ids": position_ids, "position_embeddings": embeddings}
    lean = lean_layers(model.training, hidden, given)
    with within_operations(hidden.shape[:-1].numel()):
        for index in layers:
            check()
            hidden = run_layer(model.layers[index], hidden, mask, view, given, lean)
    return model.norm(hidden)


def direct_lens_misleads(config: LoopLlamaConfig, trained: LoopLlamaConfig) -> bool:
    """Whether the direct lens shows words that the model would not say: layers follow the last block that know no loop.

    Args:
        config: of the loop as it is run.
        trained: as the checkpoint has it; a block that it loops itself was made for its loop.
    """
    blocks = config.loop_blocks()
    if not blocks or blocks[-1].b == config.num_hidden_layers - 1:
        return False
    return [(block.a, block.b) for block in blocks] != [(block.a, block.b) for block in trained.loop_blocks()]
