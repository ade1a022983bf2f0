"""How much a loop step changes the keys: ``cos(K_r, K_{r-1})`` of what each step wrote for a token.

Where a chooser left the layer out of a step, that step has none, and the next one is compared with the last that ran.
"""

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
        self._kept: dict[int, list[Tensor | None]] = {}  # by layer, step after step: [T, K * D]; None: left out

    def clear(self) -> None:
        """Forget the pass."""
        self._kept.clear()

    def take(self, event: LoopStep) -> None:
        """Keep the keys a step wrote (a loop hook's work)."""
        for layer in self._blocks[event.block].layers:
            wrote = event.kv(layer)
            # A copy also where flatten() would not need one.
            keys = None if wrote is None else wrote[0][0].transpose(0, 1).flatten(1).clone()
            self._kept.setdefault(layer, []).append(keys)

    def columns(self, block: int, start: int, stop: int) -> list[list[list[float | None]]]:
        """The block's ``key_cosine`` for each of the pass's tokens ``start .. stop - 1``."""
        tokens: list[list[list[float | None]]] = [[] for _ in range(start, stop)]
        for layer in self._blocks[block].layers:
            steps = self._kept.get(layer)
            if steps is None:  # the block was skipped
                continue
            ran = [r for r, keys in enumerate(steps) if keys is not None]
            columns: list[list[float | None]] = [[None] * len(steps) for _ in tokens]
            if len(ran) > 1:
                keys = torch.stack([keys[start:stop] for keys in steps if keys is not None], dim=1)  # [C, runs, K * D]
                cosines = metrics.plain(metrics.cosine(keys[:, 1:], keys[:, :-1]))  # [C][runs - 1]
                for column, found in zip(columns, cosines, strict=True):
                    for r, value in zip(ran[1:], found, strict=True):
                        column[r] = value
            for frame, column in zip(tokens, columns, strict=True):
                frame.append(column)
        return tokens
