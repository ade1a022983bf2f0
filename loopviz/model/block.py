"""One looped block with every setting resolved: what cache, criteria, choosers and model read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loopviz.loop_fields import NO_CHOOSER as NO_CHOOSER
from loopviz.loop_fields import LoopSettings


@dataclass(frozen=True)
class LoopBlock(LoopSettings):
    """One looped block `[a, b]` with every setting resolved for it: those of the table `loopviz.loop_fields.LoopSettings`.

    (`LoopLlamaConfig` says what they mean.) Attributes of its own:
        index: of the block, from 0.
        a, b: its first and last physical layer.
        slots: V; 1 in `merge_strategy` mode.
    """

    index: int
    a: int
    b: int

    @property
    def layers(self) -> range:
        """The physical layers of the block, `a..b` inclusive."""
        return range(self.a, self.b + 1)

    @property
    def dynamic(self) -> bool:
        """Whether the number of steps depends on the input."""
        return self.strategy == "dynamic_stop"

    @property
    def max_steps(self) -> int:
        """Steps after which the block stops at the latest."""
        return self.max_count if self.dynamic else self.count

    @property
    def written_slots(self) -> int:
        """KV slots a pass fills: under `fixed_count` with `loop_count < V` the later slots stay empty."""
        return self.slots if self.dynamic else min(self.slots, self.count)

    @property
    def parallel(self) -> bool:
        """Whether a step attends to every slot (otherwise to one)."""
        return self.kv_mode == "virtual_layers" and self.attention_mode == "parallel"

    @property
    def norms_steps(self) -> bool:
        """Whether s_r, r >= 1, is normed already: the model's final norm is part of every step."""
        return self.final_norm == "every_step"

    @property
    def chosen(self) -> bool:
        """Whether a chooser says which layers run in a step (otherwise all do)."""
        return self.chooser != NO_CHOOSER


def enters_normed(blocks: Sequence[LoopBlock], index: int) -> bool:
    """Whether the e of a block is normed already: a block just before it left it so."""
    block, before = blocks[index], blocks[index - 1] if index else None
    return before is not None and before.b + 1 == block.a and before.final_norm != "none"


def starts_normed(blocks: Sequence[LoopBlock], index: int) -> bool:
    """Whether the s_0 of a block is normed already: it starts from e, and that is."""
    return blocks[index].init == "entry" and enters_normed(blocks, index)
