"""What attention sees as its cache where gradients flow from step to step through the keys of a pass (parallel attention)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .cache_layer import LoopCacheLayer


class StepSlots:
    """What one layer's attention sees as its cache in one parallel step under autograd: graph tensors, out of place.

    Its `update` may be called again when a checkpointed layer is recomputed, long after the pass: it then gives the
    same keys and values from the K/V it was made with, and records nothing.
    """

    def __init__(self, layer: LoopCacheLayer) -> None:
        self.layer = layer
        self.prior, self.slot = layer.graph, layer.slot
        self.active = layer.active if layer.ran is not None else None
        self.past: tuple[Tensor, ...] = ()
        if layer.length:
            self.past = tuple(x[:, :, : layer.length].flatten(2, 3) for x in (layer.keys, layer.values))
        self.recorded = False

    def update(self, k: Tensor, v: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        """As `LoopCacheLayer.update`, from the pass's own graph tensors."""
        slots = self._slots(k, v)
        if not self.recorded:
            self.recorded = True
            self.layer._store(k, v)
            self.layer.graph = slots
        own = tuple(torch.stack(x, dim=3).flatten(2, 3) for x in zip(*slots, strict=True))  # [B, K, T * slots, D]
        if not self.past:
            return own
        return tuple(torch.cat(pair, dim=2) for pair in zip(self.past, own, strict=True))

    def _slots(self, k: Tensor, v: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
        """The pass's K, V by slot with this step's in theirs; a slot that every row left out holds zeros, masked."""
        gaps = ((torch.zeros_like(k), torch.zeros_like(v)),) * (self.slot - len(self.prior))
        if self.active is not None and self.slot < len(self.prior):
            keep = self.active[:, None, None, None]
            k, v = (torch.where(keep, x, old) for x, old in zip((k, v), self.prior[self.slot], strict=True))
        return (*self.prior[: self.slot], *gaps, (k, v), *self.prior[self.slot + 1 :])
