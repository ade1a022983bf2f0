"""How much of a measurement is done, where its rows are long or cost very different times."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

from loopviz.model import LoopLlamaForCausalLM

T = TypeVar("T")


class Progress:
    """Parts of known cost, gone through one after the other.

    Args:
        total: the sum of all parts' costs, in any unit.
    """

    def __init__(self, total: float) -> None:
        self.total, self.done = total, 0.0

    def part(self, cost: float, steps: Generator[float, None, T]) -> Generator[float, None, T]:
        """Go through one part; returns (`yield from`) what it returns.

        Args:
            cost: its share of `total`.
            steps: yields how much of itself is done, in 0..1.

        Yields:
            How much of the whole is done, in 0..1.
        """
        try:
            while True:
                share = next(steps)
                yield min(1.0, (self.done + cost * share) / self.total)
        except StopIteration as end:
            self.done += cost
            return end.value
        finally:
            steps.close()


def drained(steps: Generator[float, None, T]) -> T:
    """What a part returns, for who does not ask how far it is."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def layer_calls(model: LoopLlamaForCausalLM, loops: int | None = None) -> int:
    """Layers that a pass runs, at `loops` steps of every block (None: at the most a block may run)."""
    blocks = model.config.loop_blocks()
    return model.config.num_hidden_layers + sum(
        ((block.max_steps if loops is None else loops) - 1) * (block.b - block.a + 1) for block in blocks
    )
