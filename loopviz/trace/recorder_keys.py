"""How much a loop step changes the keys: ``cos(K_r, K_{r-1})`` of what each step wrote for a token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from loopviz.trace import metrics

if TYPE_CHECKING:
    from loopviz.model import LoopBlock, LoopStep


class KeyRecorder:
    """Copies the keys each step writes (a later step may overwrite the slot), and compares them after the pass.

    Args:
        blocks: of the model.
    """

    def __init__(self, blocks: list[LoopBlock]) -> None:
        self._blocks = blocks
        self._kept: dict[int, list[Tensor]] = {}  # by layer, step after step: [T, K * D]

    def clear(self) -> None:
        """Forget the pass."""
        self._kept.clear()

    def take(self, event: LoopStep) -> None:
        """Keep the keys a step wrote (a loop hook's work)."""
        for layer in self._blocks[event.block].layers:
            keys, _ = event.kv(layer)
            # A copy also where flatten() would not need one.
            self._kept.setdefault(layer, []).append(keys[0].transpose(0, 1).flatten(1).clone())

    def columns(self, block: int, start: int, stop: int) -> list[list[list[float | None]]]:
        """The block's ``key_cosine`` for each of the pass's tokens ``start .. stop - 1``."""
        tokens: list[list[list[float | None]]] = [[] for _ in range(start, stop)]
        for layer in self._blocks[block].layers:
            keys = torch.stack([step[start:stop] for step in self._kept[layer]], dim=1)  # [C, N, K * D]
            cosines = metrics.plain(metrics.cosine(keys[:, 1:], keys[:, :-1]))  # [C][N - 1]
            for frame, column in zip(tokens, cosines, strict=True):
                frame.append([None, *column])
        return tokens
