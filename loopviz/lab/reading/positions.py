"""Loss by place in the context: what a model makes of what it has read, and what becomes of it beyond its training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from loopviz.lab.reading.full_pass import nats
from loopviz.model import LoopLlamaForCausalLM
from loopviz.model.interrupt import check
from loopviz.ttt import TTTForCausalLM

FIRST = 16  # predictions of the first group; every further group is as long as all before it


@dataclass(frozen=True)
class PositionsResult:
    """A text in windows that share no token, by how many tokens of its window a prediction has read.

    Attributes:
        length: tokens a window.
        until: end of each group of places, ascending: group g has the predictions that have read more than `until[g - 1]`
            tokens (0 for the first) and at most `until[g]`.
        loss: nats a token, of each group.
        tokens: predicted tokens of each group.
        mean: nats a token, of all.
        inner_lr_scale: factor on a TTT model's inner learning rate, 0: it learned nothing; `None`: not a TTT model.
    """

    length: int
    until: tuple[int, ...]
    loss: tuple[float, ...]
    tokens: tuple[int, ...]
    mean: float
    inner_lr_scale: float | None = None


def groups(length: int) -> tuple[int, ...]:
    """Ends of the groups of a window: 16, 32, 64 ..., and the window's."""
    ends = [FIRST]
    while ends[-1] < length:
        ends.append(2 * ends[-1])
    return (*ends[:-1], length)


@torch.no_grad()
def evaluate_positions(
    model: LoopLlamaForCausalLM | TTTForCausalLM,
    ids: np.ndarray,
    length: int,
    batch: int,
    inner_lr_scale: float = 1.0,
) -> PositionsResult:
    """Loss of a text by place in the window.

    Args:
        model: put into eval mode; a looped one runs its own number of loops.
        ids: `[n]` tokens; what is left after the last whole window is not measured.
        length: tokens a window; it may be longer than what the model was trained at.
        batch: windows of 256 tokens a pass; longer ones are fewer.
        inner_lr_scale: of a TTT model.

    Raises:
        ValueError: the text is shorter than a window, or another model is given a factor.
    """
    learns = isinstance(model, TTTForCausalLM)
    if inner_lr_scale != 1 and not learns:
        raise ValueError(f"inner_lr_scale={inner_lr_scale}: only a TTT model has an inner learning rate; leave it out")
    if len(ids) <= length:
        raise ValueError(f"length={length}: the text has only {len(ids)} tokens, and one window needs {length + 1}")
    more = {"inner_lr_scale": inner_lr_scale} if learns else {}
    n = (len(ids) - 1) // length
    starts, rows = np.arange(n) * length, max(1, batch * 256 // length)
    total = torch.zeros(length, dtype=torch.float64)
    model.eval()
    for i in range(0, n, rows):
        check()
        read = np.stack([ids[start : start + length + 1] for start in starts[i : i + rows]]).astype(np.int64)
        tokens = torch.from_numpy(read).to(model.device)
        hidden = model.model(tokens[:, :-1], use_cache=False, **more).last_hidden_state
        total += nats(model, hidden, tokens[:, 1:]).sum(0).cpu()
    until = groups(length)
    parts = [total[start:end] for start, end in zip((0, *until), until, strict=False)]
    return PositionsResult(
        length,
        until,
        tuple((part.sum() / (n * len(part))).item() for part in parts),
        tuple(n * len(part) for part in parts),
        (total.sum() / (n * length)).item(),
        inner_lr_scale if learns else None,
    )


def measure_positions(
    model: LoopLlamaForCausalLM | TTTForCausalLM, ids: np.ndarray, lengths: Sequence[int], trained: int, batch: int
) -> list[PositionsResult]:
    """Windows of each length that the text has room for; of a TTT model, those of its training once more without learning.

    Args:
        lengths: tokens a window, ascending.
        trained: tokens a window in training.
        batch: windows of 256 tokens a pass.
    """
    found = [evaluate_positions(model, ids, length, batch) for length in lengths if length < len(ids)]
    if lengths and isinstance(model, TTTForCausalLM):
        found.append(evaluate_positions(model, ids, trained, batch, inner_lr_scale=0.0))
    return found
