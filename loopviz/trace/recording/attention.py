"""What every loop step attends to: from the queries and keys a step's attention read to a Frame's numbers.

The hook keeps references to the queries and to the cache's earlier keys, and copies the pass's own keys, which a later
step may overwrite. Weights are computed after the pass, a few tokens at a time, in float32:
``A_r[h] = softmax(q_r[h] K_r^T * scaling)``, the attention's own formula.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from loopviz.model.interrupt import check
from loopviz.trace.metrics import halves, plain, wide
from loopviz.trace.packed import encode_halves

if TYPE_CHECKING:
    from loopviz.model import AttentionRead, LoopBlock, LoopStep
    from loopviz.trace.schema import Attention, LayerAttention

MAX_WEIGHTS = 2**23  # numbers of one layer's and step's weights computed at once (heads x tokens x keys)


@dataclass(frozen=True)
class _Kept:
    """One layer's read of one step: the earlier tokens' keys ``[K, past * held, D]`` by reference, the own copied."""

    read: AttentionRead
    earlier: Tensor
    own: Tensor  # [K, T * own, D]


class AttentionRecorder:
    """Keeps what the attention inside blocks reads during a pass, and turns it into Frames' ``attention``.

    Args:
        blocks: of the model.
    """

    def __init__(self, blocks: list[LoopBlock]) -> None:
        self._blocks = blocks
        self._kept: dict[int, list[_Kept | None]] = {}  # by layer, step after step; None: left out

    def clear(self) -> None:
        """Forget the pass."""
        self._kept.clear()

    def take(self, event: LoopStep) -> None:
        """Keep what a step read (a loop hook's work)."""
        for layer in self._blocks[event.block].layers:
            read = event.attention(layer)
            if read is None:
                self._kept.setdefault(layer, []).append(None)
                continue
            past = read.past * read.held
            keys = read.keys[0]
            self._kept.setdefault(layer, []).append(_Kept(read, keys[:, :past], keys[:, past:].clone()))

    def columns(self, block: int, start: int, stop: int) -> list[Attention | None]:
        """The block's ``attention`` for each of the pass's tokens ``start .. stop - 1``; None where it was skipped."""
        spec = self._blocks[block]
        kept = [self._kept.get(layer, []) for layer in spec.layers]
        some = next((step.read for steps in kept for step in steps if step is not None), None)
        if some is None:
            return [None] * (stop - start)
        tokens: list[Attention] = [{"layers": []} for _ in range(start, stop)]
        for steps in kept:
            for frame, seen in zip(tokens, _layer(steps, some, spec.slots, start, stop), strict=True):
                frame["layers"].append(seen)
        return [*tokens]


def _layer(
    steps: list[_Kept | None], read: AttentionRead, slots: int, start: int, stop: int
) -> Iterator[LayerAttention]:
    """One layer's entry for each token; ``read``: any of the block's in this pass; ``slots``: those the layer owns."""
    heads, past, device = read.query.shape[1], read.past, read.query.device
    widest = max((kept.read.keys.shape[2] for kept in steps if kept is not None), default=1)
    size = max(1, MAX_WEIGHTS // (heads * widest))
    for first in range(start, stop, size):
        last = min(first + size, stop)
        weights, shares, changes = [], [], []
        before: Tensor | None = None
        for kept in steps:
            check()
            if kept is None:
                weights.append(torch.zeros(last - first, past + last, device=device))
                shares.append(torch.zeros(last - first, slots, device=device))
                changes.append([[None] * heads] * (last - first))
                continue
            by_column = attention_weights(kept.read, kept.earlier, kept.own, first, last)  # [H, C, S']
            here = _by_position(kept.read, by_column)  # [H, C, past + last]
            weights.append(here.mean(0))
            shares.append(_by_slot(kept.read, by_column.mean(0), slots))
            if before is None:
                changes.append([[None] * heads] * (last - first))
            else:
                changes.append(plain((0.5 * (here - before).abs().sum(-1)).T))  # [C][H]
            before = here
        packed_weights = halves(torch.stack(weights, dim=1))  # [C, N, past + last]
        packed_shares = halves(torch.stack(shares, dim=1))  # [C, N, slots]
        for c in range(last - first):
            yield {
                "weights": encode_halves(packed_weights[c, :, : past + first + c + 1]),
                "slots": encode_halves(packed_shares[c]),
                "change": [list(step[c]) for step in changes],
            }


def attention_weights(read: AttentionRead, earlier: Tensor, own: Tensor, first: int, last: int) -> Tensor:
    """Attention of the pass's tokens ``first .. last - 1`` over their keys, float32 ``[H, C, past * held + last * own]``.

    Args:
        read: what was read; its mask and layout count.
        earlier: keys of earlier tokens, ``[K, past * held, D]``.
        own: keys of the pass's tokens, ``[K, T * own, D]``.
        first, last: the tokens, counted from the pass's first.
    """
    C, seen, start = last - first, last * read.own, read.past * read.held
    query = wide(read.query[0, :, first:last])  # [H, C, D]
    H, K = query.shape[0], own.shape[0]
    grouped = query.reshape(K, H // K * C, -1)  # the query heads of one key head, all against its keys
    keys = [wide(part).transpose(1, 2) for part in (earlier, own[:, :seen]) if part.shape[1]]  # [K, D, .]
    scores = torch.cat([torch.bmm(grouped, part) for part in keys], dim=-1).view(H, C, -1) * read.scaling
    if read.mask is not None:
        mask = read.mask[0, :, first:last, : start + seen]  # [1, C, S']
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + wide(mask)
    elif read.query.shape[2] > 1:
        token = torch.arange(last, device=scores.device)
        later = (token[None, :] > token[first:, None]).repeat_interleave(read.own, dim=1)  # [C, last * own]
        scores[..., start:].masked_fill_(later, -torch.inf)
    return scores.softmax(-1)


def _by_position(read: AttentionRead, weights: Tensor) -> Tensor:
    """Sums a position's slots: ``[..., past * held + n * own] -> [..., past + n]``."""
    start = read.past * read.held
    parts = ((weights[..., :start], read.held), (weights[..., start:], read.own))
    return torch.cat([part.unflatten(-1, (-1, each)).sum(-1) for part, each in parts if part.shape[-1]], dim=-1)


def _by_slot(read: AttentionRead, weights: Tensor, slots: int) -> Tensor:
    """Sums a slot's positions: ``[C, past * held + n * own] -> [C, slots]``."""
    start = read.past * read.held
    shares = weights.new_zeros(weights.shape[0], slots)
    if read.slot is not None:
        shares[:, read.slot] = weights.sum(-1)
        return shares
    for part, each in ((weights[:, :start], read.held), (weights[:, start:], read.own)):
        if part.shape[-1]:
            shares[:, :each] += part.unflatten(-1, (-1, each)).sum(1)
    return shares
