"""Which texts of a comparison are written together, in passes that they share, and what they hold while they are.

Only texts are: every row is what its configuration writes alone, but for rounding. Times are measured alone afterwards
(:meth:`loopviz.lab.tasks.compare.Comparison.events`), for what a shared pass takes is nobody's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from loopviz.engine.many import AT_ONCE
from loopviz.engine.work import NOTHING, Shape, Work, decoding

if TYPE_CHECKING:
    from loopviz.lab.comparison.sides import Side

HELD = 128 * 2**20  # bytes of keys and values of texts that are written together; one that has more is written alone


def held(shape: Shape, prompt: int, new: int) -> float:
    """Bytes of keys and values that a text holds while it is written."""
    return decoding(shape, new, past=prompt).kv


def fits(texts: Sequence[Side], side: Side, prompt: int, new: int) -> bool:
    """Whether one more text may be written together with others of the same model."""
    if not texts:
        return True
    if not side.shares or len(texts) >= AT_ONCE:
        return False
    return sum(held(one.shape, prompt, new) for one in (*texts, side)) <= HELD


def beside(shapes: Sequence[Shape], prompt: int, new: int) -> Work:
    """What texts hold, at most, that are written together; each alone is counted elsewhere."""
    each = [decoding(shape, new, past=prompt) for shape in shapes]
    if len(each) < 2:
        return NOTHING
    states, logits = (
        sum(sorted((getattr(one, name) for one in each), reverse=True)[:AT_ONCE]) for name in ("states", "logits")
    )
    return Work(kv=min(HELD, sum(one.kv for one in each)), states=states, logits=logits)
