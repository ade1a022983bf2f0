"""LoopCache: the KV cache of a LoopLlama, for every way of keeping the loops' keys and values.

What a layer holds, and how it is written, is in :mod:`loopviz.model.cache_layer`.

The model announces what it does (`begin_pass`, `begin_chosen`, `begin_step`, `end_block`, `end_pass`); in between
transformers' own attention calls `update(k, v, layer_idx)` and knows nothing of loops.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.cache_utils import Cache

from loopviz.loop_fields import kept_by_layer

from .block import LoopBlock
from .cache_layer import LayerOccupancy, LoopCacheLayer
from .configuration import LAYOUT_FIELDS, LoopLlamaConfig
from .kept_kv import EXACT


@dataclass(frozen=True)
class KVOccupancy:
    """Exact content of a cache, in bytes over all rows and layers.

    Attributes:
        layers: one record per physical layer.
        bytes_used: `2 * D * K * itemsize` for every token in every slot held; of K/V in 8 bits `2 * K * (D + 4)`, scales included.
        bytes_allocated: size of the buffers.
        bytes_plain: what a plain Llama would hold for the same tokens, exact as the model computes them, as the next.
        bytes_unrolled: what a fully unrolled one would hold: `L + sum over blocks (N - 1)(b - a + 1)` layers, each
            token with the N its own pass ran.
    """

    layers: list[LayerOccupancy]
    bytes_used: int
    bytes_allocated: int
    bytes_plain: int
    bytes_unrolled: int


class LoopCache(Cache):
    """The KV cache of a LoopLlama (also of a plain one, with one slot everywhere).

    Keys are stored after RoPE; lengths are in tokens, never slots. K/V of earlier passes carry no gradient.

    Args:
        config: of the model the cache is for; it fixes the layout (`loop_layers`, `kv_cache_mode`, V, `kv_cache_dtype`).

    Attributes:
        current_forward_loop_step: steps the last pass ran (the most over rows and blocks); 0 before the first pass.
        loop_steps: per block, `[B]`, N of each row in the last pass.
        stop_reasons: per block, per row, why it stopped.
    """

    def __init__(self, config: LoopLlamaConfig) -> None:
        self.n_layers = config.num_hidden_layers
        super().__init__(layers=[LoopCacheLayer() for _ in range(self.n_layers)])
        self._set_blocks(config.loop_blocks())
        self._forget()

    def _forget(self) -> None:
        self.current_forward_loop_step = 0
        self.loop_steps: list[Tensor] = []
        self.stop_reasons: list[list[str]] = []
        # Per pass: T, and [B] layer entries that one of its tokens would hold unrolled; with their sums over rows.
        self._entries: list[tuple[int, Tensor]] = []
        self._row_tokens = self._row_entries = 0

    def _count(self, n_tokens: int, entries: Tensor, sign: int = 1) -> None:
        self._row_tokens += sign * n_tokens * len(entries)
        self._row_entries += sign * n_tokens * int(entries.sum())

    def _set_blocks(self, blocks: list[LoopBlock]) -> None:
        """Take over the settings; those that do not decide the layout may differ from pass to pass."""
        self.blocks = blocks
        looped = {index: block for block in blocks for index in block.layers}
        kept = kept_by_layer([(block.a, block.b, block.kv_dtype) for block in blocks], self.n_layers)
        for index, layer in enumerate(self.layers):
            layer.block, layer.dense, layer.kept = looped.get(index), not blocks, kept[index]

    # -- the running pass ----------------------------------------------------------------------------------------------

    def begin_pass(self, blocks: list[LoopBlock]) -> None:
        """Start a forward pass under these settings.

        Raises:
            ValueError: they need another layout than the tokens already held have.
        """
        if self.get_seq_length() > 0 and _layout(blocks) != _layout(self.blocks):
            raise ValueError(
                f"past_key_values: this cache holds {self.get_seq_length()} tokens in the layout "
                f"{_describe(self.blocks)}, but the model now needs {_describe(blocks)} "
                f"({', '.join(LAYOUT_FIELDS)} decide it). Start with a new cache, or set these fields back"
            )
        if _layout(blocks) != _layout(self.blocks):
            self.reset()
        self._set_blocks(blocks)
        self._before = [(layer.length, layer.slots) for layer in self.layers]
        for layer in self.layers:
            layer.begin_pass()

    def begin_chosen(self, block: LoopBlock, batch: int) -> None:
        """Start a block of which a chooser says, row by row, which layers run in each step."""
        for index in block.layers:
            self.layers[index].ran = [[] for _ in range(batch)]

    def begin_step(self, block: LoopBlock, step: int, active: Tensor | None, ran: Tensor | None = None) -> None:
        """Route the K/V of the block's layers to step `step` (1-based).

        Args:
            active: `[B]` bool, the rows that run; `None` = all.
            ran: `[B, n]` bool, the rows that run each layer of the block, where a chooser says so.
        """
        columns = [None] * len(block.layers) if ran is None else ran.T.tolist()
        for j, (index, rows) in enumerate(zip(block.layers, columns, strict=True)):
            layer = self.layers[index]
            if rows is not None and ran is not None:
                active, layer.device = None if all(rows) else ran[:, j], ran.device
            layer.begin_step(step, active, rows)

    def end_block(self, block: LoopBlock, steps: Tensor) -> None:
        """Close a block's loop; `steps` `[B]` is N of each row."""
        for index in block.layers:
            self.layers[index].end_block(steps)

    def end_pass(
        self,
        n_tokens: int,
        batch: int,
        steps: list[Tensor],
        reasons: list[list[str]],
        layers_run: list[Tensor | None] | None = None,
    ) -> None:
        """Record what the pass ran.

        Args:
            steps, reasons: per block, `[B]` steps and why they ended.
            layers_run: per block, `[R, B, n]` bool, the layers each step ran, where a chooser said so.
        """
        self.loop_steps, self.stop_reasons = steps, reasons
        self.current_forward_loop_step = max((int(n.max()) for n in steps), default=1)
        entries = torch.full((batch,), self.n_layers)
        for block, n, ran in zip(self.blocks, steps, layers_run or [None] * len(steps), strict=True):
            runs = n.cpu() * len(block.layers) if ran is None else ran.cpu().sum((0, 2))
            entries += runs - len(block.layers)
        self._entries.append((n_tokens, entries))
        self._count(n_tokens, entries)

    def abort_pass(self) -> None:
        """Forget what an interrupted pass wrote."""
        for layer, (length, slots) in zip(self.layers, self._before, strict=True):
            layer.roll_back(length, slots)

    def parallel_mask(
        self, block: LoopBlock, mask: Tensor | None, n_tokens: int, graph: bool, layer: int | None = None
    ) -> Tensor | None:
        """Attention mask of the running parallel step, from the one by token.

        Args:
            layer: of the block; `None` where all its layers have written the same slots (no chooser).
            mask: `[B, 1, T, past + T]`, bool (True = visible) or additive float; `None` where a single new token sees
                everything.

        Returns:
            `[B, 1, T, past * slots + T * own]`: key (slot, p) is visible to query q iff p <= q, p is not padding, and
            the slot has been written.
        """
        one = self.layers[block.a if layer is None else layer]
        past, written, gaps = one.length, one.slots_written, one.unwritten()
        if mask is None and gaps is None:
            return None
        if mask is None:
            mask = torch.ones(1, 1, n_tokens, past + n_tokens, dtype=torch.bool, device=gaps.device)
        if gaps is not None:
            mask = mask.expand(len(gaps), *mask.shape[1:])
        held = one.slots or block.written_slots
        own = written if graph or n_tokens == 1 or past == 0 else held
        before = mask[..., :past].repeat_interleave(held, dim=-1)
        now = mask[..., past:, None].expand(*mask.shape[:-1], n_tokens, own)
        if own > written:
            now = _hidden(now, torch.arange(own, device=mask.device) >= written)
        if gaps is not None:
            now = _hidden(now, F.pad(gaps, (0, own - written))[:, None, None, None])
        return torch.cat((before, now.flatten(-2)), dim=-1)

    # -- what transformers asks ----------------------------------------------------------------------------------------

    def reset(self) -> None:
        super().reset()
        self._forget()

    def crop(self, tokens_to_remove: int) -> None:
        super().crop(tokens_to_remove)
        left = -tokens_to_remove
        while left > 0 and self._entries:
            n_tokens, entries = self._entries.pop()
            self._count(min(n_tokens, left), entries, sign=-1)
            if n_tokens > left:
                self._entries.append((n_tokens - left, entries))
            left -= n_tokens

    def _pick_rows(self, change: Any) -> None:
        self._entries = [(n, change(entries)) for n, entries in self._entries]
        self._row_tokens = self._row_entries = 0
        for n_tokens, entries in self._entries:
            self._count(n_tokens, entries)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        super().reorder_cache(beam_idx)
        self._pick_rows(lambda x: x.index_select(0, beam_idx.cpu()))

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        self._pick_rows(lambda x: x.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self._pick_rows(lambda x: x[indices.cpu()])

    def occupancy(self) -> KVOccupancy:
        """Exact content by layer and slot, beside what a plain and a fully unrolled Llama would hold."""
        layers = [layer.occupancy(index) for index, layer in enumerate(self.layers)]
        entry = 0  # bytes of one token of one row in one slot of one layer
        if self.layers[0].is_initialized:
            _, K, _, _, D = self.layers[0].keys.shape
            entry = 2 * D * K * self.layers[0].dtype.itemsize
        return KVOccupancy(
            layers=layers,
            bytes_used=sum(layer.bytes_used for layer in layers),
            bytes_allocated=sum(layer.bytes_allocated for layer in layers),
            bytes_plain=entry * self._row_tokens * self.n_layers,
            bytes_unrolled=entry * self._row_entries,
        )


def _hidden(mask: Tensor, where: Tensor) -> Tensor:
    """An attention mask, bool or additive, that shows nothing where `where` holds."""
    return mask.masked_fill(where, False if mask.dtype == torch.bool else torch.finfo(mask.dtype).min)


def check_fits(cache: Cache, config: LoopLlamaConfig, embeds: Tensor) -> None:
    """Refuse a cache that holds the tokens of something else, before a pass writes anything.

    Args:
        cache: any of transformers' caches.
        config: of the model that is given it.
        embeds: what enters the pass, `[B, T, H]`.

    Raises:
        ValueError: another number of layers, rows, KV heads, head width, dtype or device, by name.
    """
    layers = getattr(cache, "layers", [])
    if isinstance(cache, LoopCache) and len(layers) != config.num_hidden_layers:
        raise ValueError(
            f"past_key_values: made for a model of {len(layers)} layers, and this one has {config.num_hidden_layers}; "
            "every model needs a cache of its own"
        )
    held = next((layer for layer in layers if getattr(layer, "is_initialized", False) and layer.get_seq_length()), None)
    if held is None or not isinstance(held.keys, Tensor) or held.keys.ndim < 4:
        return
    keys, B = held.keys, embeds.shape[0]
    K, D = config.num_key_value_heads, config.head_dim
    there = {"rows": keys.shape[0], "KV heads": keys.shape[1], "numbers a head": keys.shape[-1], "device": keys.device}
    here = {"rows": B, "KV heads": K, "numbers a head": D, "device": embeds.device}
    if not torch.is_autocast_enabled(embeds.device.type):
        there["dtype"] = held.dtype if isinstance(cache, LoopCache) else keys.dtype  # not of the bits that are kept
        here["dtype"] = embeds.dtype
    for name, value in there.items():
        if value != here[name]:
            raise ValueError(
                f"past_key_values: holds {held.get_seq_length()} tokens with {name} = {value}, and this pass has "
                f"{name} = {here[name]}; start with a new cache" + (_ROWS if name == "rows" else "")
            )


_ROWS = ", or choose its rows (batch_select_indices, batch_repeat_interleave)"


def _layout(blocks: list[LoopBlock]) -> list[tuple]:
    return [(block.a, block.b, block.kv_mode, block.slots, block.kv_dtype) for block in blocks]


def _describe(blocks: list[LoopBlock]) -> str:
    parts = [
        f"loop_layers=({b.a}, {b.b}), kv_cache_mode={b.kv_mode!r}"
        + (f", virtual_layer_count={b.slots}" if b.kv_mode == "virtual_layers" else "")
        + (f", kv_cache_dtype={b.kv_dtype!r}" if b.kv_dtype != EXACT else "")
        for b in blocks
    ]
    return "[" + "; ".join(parts or ["loop_layers=None"]) + "]"
