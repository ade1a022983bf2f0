"""Chunk: the tokens of one pass sorted into mini-batches, row by row.

A row's mini-batches begin at multiples of M of its own tokens: padding is no token, and rows may stand at different places. So a
pass is laid out three times:

* as given, `[B, T]`, padding anywhere;
* **packed**, `[B, P]`: each row's real tokens moved to the left. The whole model runs on these;
* as a **grid**, `[B, G]`: the first part of every row up to the end of its running mini-batch side by side, then whole
  mini-batches of M columns, then what is left. Where rows stand at the same place it is the packed one.

Columns without a token compute something and write nothing: their inner learning rate is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Part:
    """A mini-batch, or a part of one, in the grid.

    Attributes:
        start, stop: columns of the grid.
        closing: rows that finish their mini-batch here: all (`True`), none (`False`), or one by one.
    """

    start: int
    stop: int
    closing: bool | tuple[bool, ...]


class Chunk:
    """The layout of one pass.

    Args:
        offsets: tokens each row has read before, `[B]`.
        n_tokens: T, columns of the pass.
        size: M, tokens a mini-batch.
        real: `[B, T]` bool, True where the token is not padding; `None` when all are.
        device: of the pass.

    Attributes:
        counts: real tokens of each row.
        parts: of the grid, in order.
        slots: place in the mini-batch of each column of the grid, `[1 or B, G]`.
        valid: columns of the grid that hold a token, `[B, G]`; `None` when all do.
        begun: whether some row is inside a mini-batch when the pass begins.
    """

    def __init__(
        self, offsets: Sequence[int], n_tokens: int, size: int, real: Tensor | None, device: torch.device
    ) -> None:
        self.offsets, self.n_tokens, self.real, self._device = list(offsets), n_tokens, real, device
        self.counts = [n_tokens] * len(self.offsets) if real is None else real.sum(1).tolist()
        starts = [offset % size for offset in self.offsets]
        first = [min(count, size - start) for count, start in zip(self.counts, starts, strict=True)]
        rest = [count - head for count, head in zip(self.counts, first, strict=True)]
        self.begun = any(starts)
        self.width = max(max(self.counts), 1)  # P
        head = max(max(first), 1)
        self.columns = head + max(rest)  # G
        self.parts = self._parts(head, size, [s + f == size for s, f in zip(starts, first, strict=True)], rest)
        aligned = real is None and len(set(starts)) == 1
        rows = torch.tensor([starts[:1] if aligned else starts, first[:1] if aligned else first], device=device)
        start, length = rows[0, :, None], rows[1, :, None]  # [1 or B, 1]
        column = torch.arange(self.columns, device=device)
        self.slots = torch.where(column < head, start + column, column - head) % size
        self.valid: Tensor | None = None
        self._index: Tensor | None = None
        self._back: Tensor | None = None
        if not aligned:
            self._lay_out(head, column, start, length)

    def _parts(self, head: int, size: int, closes: list[bool], rest: list[int]) -> list[Part]:
        parts = [Part(0, head, _same(closes))]
        for index, start in enumerate(range(head, self.columns, size), 1):
            closing = _same([left >= index * size for left in rest])
            parts.append(Part(start, min(start + size, self.columns), closing))
        return parts

    def _lay_out(self, head: int, column: Tensor, start: Tensor, length: Tensor) -> None:
        """Where each column of the grid finds its token among the packed ones, and back."""
        count = torch.tensor(self.counts, device=self._device)[:, None]
        token = torch.where(column < head, column, column - head + length)  # [B, G] of the packed
        valid = (token < count) & ((column >= head) | (column < length))
        self.valid = None if bool(valid.all()) else valid
        packed = torch.arange(self.width, device=self._device)
        back = torch.where(packed < length, packed, packed - length + head)
        if not torch.equal(back, packed.expand_as(back)):
            self._index, self._back = token.clamp(max=self.width - 1), back.clamp(max=self.columns - 1)

    # -- given and packed ----------------------------------------------------------------------------------------------

    @cached_property
    def _order(self) -> Tensor | None:
        """The columns of each row with its real ones first, `[B, P]`."""
        if self.real is None:
            return None
        return self.real.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, : self.width]

    @cached_property
    def rank(self) -> Tensor:
        """How many of a row's tokens in this pass came before each given column, itself included, `[B, T]`."""
        if self.real is None:
            return torch.arange(1, self.n_tokens + 1, device=self._device).expand(len(self.offsets), -1)
        return self.real.cumsum(1)

    def pack(self, x: Tensor) -> Tensor:
        """`[B, T, ...] -> [B, P, ...]`."""
        return x if self._order is None else _gather(x, self._order, 1)

    def silent(self, packed: Tensor) -> Tensor:
        """Padding is 0 in it, whatever it was: what is silenced by a factor of 0 stays NaN where it was NaN. `[B, P, ...]`"""
        if self.real is None:
            return packed
        token = torch.arange(self.width, device=packed.device)
        padding = token >= torch.tensor(self.counts, device=packed.device)[:, None]  # [B, P]
        return packed.masked_fill(padding[(...,) + (None,) * (packed.ndim - 2)], 0)

    def unpack(self, x: Tensor) -> Tensor:
        """`[B, P, ...] -> [B, T, ...]`: padding repeats the last token before it, and is 0 before the first.

        So the last column of a row that is padded on the right says what follows its text.
        """
        if self.real is None:
            return x
        y = _gather(x, (self.rank - 1).clamp(min=0), 1)
        return y * (self.rank > 0).view(*self.rank.shape, *[1] * (y.ndim - 2)).to(y.dtype)

    # -- packed and grid -----------------------------------------------------------------------------------------------

    def to_grid(self, x: Tensor) -> Tensor:
        """`[B, H, P, ...] -> [B, H, G, ...]`."""
        return x if self._index is None else _gather(x, self._index, 2)

    def from_grid(self, x: Tensor) -> Tensor:
        """`[B, H, G, ...] -> [B, H, P, ...]`."""
        return x if self._back is None else _gather(x, self._back, 2)

    # -- for those who watch -------------------------------------------------------------------------------------------

    @property
    def positions(self) -> Tensor:
        """How many of its row's tokens came before each given column's, `[B, T]`; of padding, that of the token before."""
        return torch.tensor(self.offsets, device=self._device)[:, None] + (self.rank - 1).clamp(min=0)

    def as_given(self, x: Tensor) -> Tensor:
        """`[B, H, G, ...] -> [B, H, T, ...]`, with 0 where there is padding."""
        x = self.from_grid(x)
        if self.real is None:
            return x
        y = _gather(x, (self.rank - 1).clamp(min=0), 2)
        return y.masked_fill(~self.real.view(len(y), 1, -1, *[1] * (y.ndim - 3)), 0)

    def tokens(self) -> Tensor:
        """The given column of each column of the grid, `[B, G]`; -1 where there is none."""
        B = len(self.offsets)
        given = torch.arange(self.n_tokens, device=self._device).expand(B, -1) if self._order is None else self._order
        found = self.to_grid(given[:, None])[:, 0]
        return found if self.valid is None else found.masked_fill(~self.valid, -1)


def _same(values: list[bool]) -> bool | tuple[bool, ...]:
    return values[0] if len(set(values)) == 1 else tuple(values)


def _gather(x: Tensor, index: Tensor, dim: int) -> Tensor:
    """x with its tokens (dimension `dim`) picked by row, `index` `[B, N]`."""
    shape = [len(index)] + [1] * (x.ndim - 1)
    shape[dim] = index.shape[1]
    wanted = list(x.shape)
    wanted[dim] = index.shape[1]
    return x.gather(dim, index.view(shape).expand(wanted))
