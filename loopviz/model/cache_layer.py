"""One layer's part of a :class:`~loopviz.model.cache.LoopCache`: a buffer for keys and one for values, and who writes where.

Per physical layer one buffer `[B, K, capacity, slots, D]` for keys and one for values, grown geometrically and written in
place. A token's slots lie side by side: serial attention reads one slot as a strided view, parallel decode reads a
contiguous prefix, and no decode step copies the past. Plain layers and merge mode have one slot. K/V of 8 bits (`kv_cache_dtype`) have
two more buffers of the same layout, for their scales; what is read of them is made of both each time
(:mod:`loopviz.model.kept_kv`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from .block import LoopBlock
from .kept_kv import EXACT, as_kept, check_device, restored, rounded
from .merges import merge_step

SMALLEST_CAPACITY = 64  # tokens; the first allocation of a buffer


@dataclass(frozen=True)
class LayerOccupancy:
    """What one physical layer holds: tokens in each existing slot, bytes in use and bytes allocated (all rows).

    `entry`: bytes of one token in one slot, of all rows: 2 D K numbers, and the scales of those that are kept in 8 bits.
    """

    layer: int
    slots: list[int]
    bytes_used: int
    bytes_allocated: int
    entry: int


class LoopCacheLayer(CacheLayerMixin):
    """One physical layer's K/V: buffers `[B, K, capacity, slots, D]`, `length` tokens of them in use.

    `block` is `None` for a layer outside the loops; `kept` is what its K/V are kept in. Of those in 8 bits `keys` and `values` are
    the bits, int8, and `key_scales` and `value_scales` `[B, K, capacity, slots, 1]`.
    """

    is_sliding = False
    is_croppable = True

    def __init__(self, block: LoopBlock | None = None) -> None:
        super().__init__()
        self.block = block
        # A plain Llama's K/V reach attention as a DynamicCache lays them out, one dense tensor a pass: a strided view of
        # them is the same numbers on another BLAS path, and then not transformers' result bit for bit.
        self.dense = block is None
        self.kept = EXACT
        self.key_scales: Tensor | None = None
        self.value_scales: Tensor | None = None
        self.length = 0  # tokens that earlier passes left
        self._end_pass()

    def _end_pass(self) -> None:
        self.step = 0  # r; 0 outside a block's step
        self.n_tokens = 0  # T of the running pass
        self.active: Tensor | None = None  # [B] bool; None = all rows run
        self.ran: list[list[int]] | None = None  # by row, the steps this layer ran; None: every row runs every step
        self.merged: tuple[Tensor, Tensor] | None = None  # running merge of the pass's K, V
        self.graph: tuple[tuple[Tensor, Tensor], ...] = ()  # parallel under autograd: the pass's K, V by slot

    # -- shape ---------------------------------------------------------------------------------------------------------

    @property
    def _loop(self) -> LoopBlock:
        """The block, asked for only where the layer is in one."""
        assert self.block is not None
        return self.block

    @property
    def _runs(self) -> list[list[int]]:
        """`ran`, asked for only under a chooser."""
        assert self.ran is not None
        return self.ran

    @property
    def slots(self) -> int:
        """Slots that exist (0 before the first pass)."""
        return self.keys.shape[3] if self.is_initialized else 0

    @property
    def slot(self) -> int:
        """Slot of the running step, `(r - 1) mod V`."""
        return self._slot_of(self.step) if self.step else 0

    @property
    def slots_written(self) -> int:
        """Slots the running pass has written, the running step's included; under a chooser up to the last such slot."""
        if self.ran is not None:
            return 1 + max((self._slot_of(r) for steps in self.ran for r in steps), default=-1)
        return min(self.step, self._loop.slots)

    def _slot_of(self, step: int) -> int:
        return (step - 1) % self._loop.slots

    def begin_step(self, step: int, active: Tensor | None, ran: list[bool] | None) -> None:
        """Route what comes to step `step` (1-based).

        Args:
            active: `[B]` bool, the rows that run; `None` = all.
            ran: the same by row, where a chooser says which layers run; `None` without one.
        """
        self.step, self.active = step, active
        if ran is not None:
            for steps, runs in zip(self._runs, ran, strict=True):
                if runs:
                    steps.append(step)

    def unwritten(self) -> Tensor | None:
        """Of the slots before `slots_written` those that a running row has not written, `[B, slots]`; `None`: none.

        Only a chooser leaves such gaps.
        """
        if self.ran is None:
            return None
        written = [{self._slot_of(r) for r in steps} for steps in self.ran]
        gaps = [
            # a row that leaves this step out gets no result from it, and must not be left without any key: nan has a
            # gradient of nan
            [slot not in held and steps[-1:] == [self.step] for slot in range(self.slots_written)]
            for held, steps in zip(written, self.ran, strict=True)
        ]
        return torch.tensor(gaps, device=self.device) if any(map(any, gaps)) else None

    def own_slots(self, n_tokens: int, graph: bool) -> int:
        """Slots of the pass's own `n_tokens` tokens that a parallel step's keys contain (earlier tokens: all slots).

        Only the written ones where the keys can be cut there; a multi-token pass over a past reads the buffer in one
        piece and masks the rest.
        """
        return self.slots_written if graph or n_tokens == 1 or self.length == 0 else self.slots

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        check_device(self.kept, self.device)
        slots = self.block.written_slots if self.block is not None else 1

        def empty(x: Tensor, width: int, dtype: torch.dtype) -> Tensor:
            # zeros: a masked, unwritten slot must not hold a nan
            return torch.zeros(*x.shape[:2], 0, slots, width, dtype=dtype, device=x.device)

        numbers = self.dtype if self.kept == EXACT else torch.int8
        self.keys, self.values = (empty(x, x.shape[3], numbers) for x in (key_states, value_states))
        if self.kept != EXACT:
            self.key_scales, self.value_scales = (empty(x, 1, torch.float32) for x in (key_states, value_states))
        self.is_initialized = True

    @property
    def _buffers(self) -> list[Tensor]:
        """All of one layout."""
        return [x for x in (self.keys, self.values, self.key_scales, self.value_scales) if x is not None]

    def _change(self, change: Callable[[Tensor], Tensor]) -> None:
        """Put another buffer in the place of each."""
        self.keys, self.values, *scales = map(change, self._buffers)
        if scales:
            self.key_scales, self.value_scales = scales

    def read(self, cut: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Keys and values of the part of the buffers that `cut` gives, as attention reads them: views, but of 8 bits."""
        keys, values = cut(self.keys), cut(self.values)
        if self.key_scales is None or self.value_scales is None:
            return keys, values
        keys = restored(keys, cut(self.key_scales), self.kept, self.dtype)
        return keys, restored(values, cut(self.value_scales), self.kept, self.dtype)

    def as_kept(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """K, V `[B, K, T, D]` as they would be read if this layer had kept them."""
        return as_kept(k, self.kept), as_kept(v, self.kept)

    def _reserve(self, n_tokens: int, slots: int) -> None:
        """Make room for `n_tokens` tokens in `slots` slots; a new slot starts with each token's latest K/V."""
        B, K, capacity, held, _ = self.keys.shape
        if n_tokens <= capacity and slots <= held:
            return
        if n_tokens > capacity:
            capacity = max(n_tokens, 2 * capacity, SMALLEST_CAPACITY)
        slots = max(slots, held)

        def grown(old: Tensor) -> Tensor:
            # A buffer made under inference_mode could not be written to by a later pass outside of it.
            with torch.inference_mode(False):
                new = old.new_zeros(B, K, capacity, slots, old.shape[-1])
            new[:, :, : self.length, :held] = old[:, :, : self.length]
            # Slots fill in order and are never left with a gap, so the last existing one holds the latest step.
            new[:, :, : self.length, held:] = old[:, :, : self.length, held - 1 : held]
            return new

        self._change(grown)

    # -- one pass ------------------------------------------------------------------------------------------------------

    def begin_pass(self) -> None:
        """The slots the pass will write exist before its first step: earlier tokens hold their latest K/V in new ones."""
        if self.length == 0:
            self.reset()  # buffers that a crop emptied may have been another batch's
        elif self.block is not None:
            self._reserve(self.length, self.block.written_slots)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Keep the pass's K, V `[B, K, T, D]` and return all the keys and values this step attends to."""
        k, v = key_states, value_states
        past, seen = self.length, self.length + k.shape[2]
        self._store(k, v)
        if self.block is None:
            self.length = seen
        if self.block is not None and self.block.parallel:
            return self._every_slot(past, k.shape[2])
        if self.kept != EXACT:  # the pass's own tokens too as those who come later will find them
            return self.read(lambda x: x.select(3, self.slot).narrow(2, 0, seen))
        if past == 0:
            return k.contiguous(), v.contiguous()  # dense too, whatever the projections left
        slot = self.slot
        keys, values = self.keys.select(3, slot), self.values.select(3, slot)
        if k.requires_grad or v.requires_grad:
            return torch.cat((keys.narrow(2, 0, past), k), dim=2), torch.cat((values.narrow(2, 0, past), v), dim=2)
        keys, values = keys.narrow(2, 0, seen), values.narrow(2, 0, seen)
        return (keys.contiguous(), values.contiguous()) if self.dense else (keys, values)

    def _every_slot(self, past: int, n_tokens: int) -> tuple[Tensor, Tensor]:
        """Keys and values of a parallel step, `[B, K, past * slots + T * own, D]`, a token's slots side by side."""
        own = self.own_slots(n_tokens, graph=False)
        if past == 0:
            return self.read(lambda x: x[:, :, :n_tokens, :own].flatten(2, 3))
        end = past * self.slots + n_tokens * own
        return self.read(lambda x: x.flatten(2, 3).narrow(2, 0, end))

    def _store(self, k: Tensor, v: Tensor) -> None:
        """Write the pass's K, V into the running slot (and into the running merge)."""
        if not self.is_initialized:
            self.lazy_initialization(k, v)
        n_tokens = k.shape[2]
        self.n_tokens = n_tokens
        self._reserve(self.length + n_tokens, self.block.written_slots if self.block is not None else 1)
        k, v = k.detach(), v.detach()
        self._write(k, v, self.slot, self.active)
        if self.block is not None and self.block.kv_mode == "merge_strategy":
            self._merge(k, v)

    def _write(self, k: Tensor, v: Tensor, slot: int, rows: Tensor | None) -> None:
        if self.kept == EXACT and rows is None:  # of nearly every token; as below
            for buffer, new in ((self.keys, k), (self.values, v)):
                buffer.select(3, slot).narrow(2, self.length, new.shape[2]).copy_(new)
            return
        made = [k, v]
        if self.kept != EXACT:
            (keys, key_scales), (values, value_scales) = rounded(k, self.kept), rounded(v, self.kept)
            made = [keys, values, key_scales, value_scales]
        for buffer, new in zip(self._buffers, made, strict=True):
            place = buffer.select(3, slot).narrow(2, self.length, new.shape[2])  # [B, K, T, D]
            if rows is None:
                place.copy_(new)
            else:
                place[rows] = new[rows]

    def _merge(self, k: Tensor, v: Tensor) -> None:
        if self.ran is not None:
            self._merge_by_runs(k, v)
            return
        old, name, alpha = self.merged, self._loop.merge, self._loop.ema_alpha
        before: tuple[Tensor | None, Tensor | None] = old or (None, None)
        k, v = (merge_step(name, m, x, self.step, alpha) for m, x in zip(before, (k, v), strict=True))
        if self.active is not None:
            assert old is not None  # in a first step every row runs
            keep = self.active[:, None, None, None]
            k, v = torch.where(keep, k, old[0]), torch.where(keep, v, old[1])
        self.merged = k, v

    def _merge_by_runs(self, k: Tensor, v: Tensor) -> None:
        """As `_merge`, where rows have run this layer differently often: rows of one number of runs at a time."""
        name, alpha, merged = self._loop.merge, self._loop.ema_alpha, self.merged or (k, v)
        running = [row for row, steps in enumerate(self._runs) if steps[-1:] == [self.step]]
        for runs in sorted({len(self._runs[row]) for row in running}):
            rows = torch.tensor([row for row in running if len(self._runs[row]) == runs], device=k.device)
            parts = [
                merge_step(name, None if runs == 1 else m[rows], x[rows], runs, alpha)
                for m, x in zip(merged, (k, v), strict=True)
            ]
            merged = merged[0].index_copy(0, rows, parts[0]), merged[1].index_copy(0, rows, parts[1])
        self.merged = merged

    def keep_passed_by(self, k: Tensor, v: Tensor) -> None:
        """Keep K, V `[B, K, T, D]`, made of the state that passed this layer by, for the rows that never ran it."""
        rows = torch.tensor([not steps for steps in self._runs], device=k.device)
        if not self.is_initialized:
            self.lazy_initialization(k, v)
        self.n_tokens = k.shape[2]
        self._reserve(self.length + self.n_tokens, self._loop.written_slots)
        for slot in range(self.slots):
            self._write(k, v, slot, rows)
        if self.merged is not None:
            where = rows[:, None, None, None]
            self.merged = torch.where(where, k, self.merged[0]), torch.where(where, v, self.merged[1])

    def step_kv(self) -> tuple[Tensor, Tensor]:
        """K, V that the running step wrote for the pass's tokens: views `[B, K, T, D]`, copies of those in 8 bits."""
        tokens = slice(self.length, self.length + self.n_tokens)
        return self.read(lambda x: x[:, :, tokens, self.slot])

    def end_block(self, steps: Tensor) -> None:
        """Close the pass's loop: merge, or fill the slots that a row did not reach with its latest K/V.

        Args:
            steps: `[B]`, N of each row.
        """
        if self.merged is not None:
            self._write(*self.merged, slot=0, rows=None)
        elif self.slots > 1:
            tokens = slice(self.length, self.length + self.n_tokens)
            for row, n in enumerate(steps.tolist()):
                if self.ran is not None:
                    self._fill_gaps(row, tokens)
                elif n < self.slots:
                    for buffer in self._buffers:
                        buffer[row, :, tokens, n:] = buffer[row, :, tokens, n - 1 : n]
        self.length += self.n_tokens
        self._end_pass()

    def _fill_gaps(self, row: int, tokens: slice) -> None:
        """A row's slots that this layer did not write in the pass get its latest K/V."""
        held = {self._slot_of(r) for r in self._runs[row]}
        gaps = [slot for slot in range(self.slots) if slot not in held]
        if held and gaps:
            latest = self._slot_of(self._runs[row][-1])
            for buffer in self._buffers:
                buffer[row, :, tokens, gaps] = buffer[row, :, tokens, latest : latest + 1].clone()

    def roll_back(self, length: int, slots: int) -> None:
        """Hold what was held before an interrupted pass: the first `length` tokens in `slots` slots."""
        if length == 0:
            self.reset()
            return
        self.length = length
        if self.slots > slots:
            self._change(lambda x: x[:, :, :, :slots].clone())
        self._end_pass()

    # -- what transformers asks ----------------------------------------------------------------------------------------

    def get_seq_length(self) -> int:
        return self.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_max_length(self) -> int:
        return -1

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last `-tokens_to_remove` tokens (a number <= 0, as transformers' caches take it)."""
        if tokens_to_remove > 0:
            raise ValueError(
                f"tokens_to_remove={tokens_to_remove}: must be <= 0 (minus the number of tokens to drop from the end)"
            )
        self.length = max(self.length + tokens_to_remove, 0)

    def reset(self) -> None:
        # what transformers' own layers hold before the first pass; is_initialized says that there is nothing to read
        self.keys = self.values = None  # type: ignore[assignment]
        self.key_scales = self.value_scales = None
        self.is_initialized = False
        self.length = 0
        self._end_pass()

    def _pick(self, change: Any) -> None:
        if self.is_initialized:
            with torch.inference_mode(False), torch.no_grad():  # as in _reserve
                self._change(change)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self._pick(lambda x: x.index_select(0, beam_idx.to(x.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._pick(lambda x: x.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: Tensor) -> None:
        self._pick(lambda x: x[indices])

    def occupancy(self, layer: int) -> LayerOccupancy:
        if not self.is_initialized:
            return LayerOccupancy(layer, [0], 0, 0, 0)
        B, K, _, slots, _ = self.keys.shape
        entry = B * K * sum(x.shape[-1] * x.element_size() for x in self._buffers)
        allocated = sum(x.nbytes for x in self._buffers)
        return LayerOccupancy(layer, [self.length] * slots, entry * self.length * slots, allocated, entry)
