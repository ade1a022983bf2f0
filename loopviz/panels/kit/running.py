"""Sums over a trace that grows: each frame is looked at once, however often a figure is asked for."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from loopviz.trace.trace import Trace

Frame = Mapping[str, Any]
S = TypeVar("S")


@dataclass
class _Memory(Generic[S]):
    """Where the fold over one trace stands: ``value`` after ``frames`` frames, and what one more would make of it."""

    value: S
    frames: int = 0
    last: Frame | None = None
    peeked: tuple[Frame, S] | None = None


@dataclass(frozen=True)
class Growing:
    """Whole numbers that grow at the end, as the value of a fold: each value is the beginning of a list that later ones share.

    Args:
        numbers: of this value the first `count`; what stands after them is later values'.
        count: how many.
    """

    numbers: list[int]
    count: int

    def __getitem__(self, index: int) -> int:
        if not 0 <= index < self.count:
            raise IndexError(index)
        return self.numbers[index]

    def added(self, number: int) -> Growing:
        """With one more; nothing is copied unless another value grew from this one before."""
        numbers = self.numbers if len(self.numbers) == self.count else self.numbers[: self.count]
        numbers.append(number)
        return Growing(numbers, self.count + 1)


@dataclass
class Running(Generic[S]):
    """A fold over the frames of a trace, kept as long as the trace lives.

    The value is the same with and without the memory: ``step`` is pure and values are never changed in place. A frame
    that was folded is not looked at again, so frames must not be edited once they are in a trace.

    Args:
        start: ``start(meta, block)``, the value of the empty trace.
        step: ``step(value, meta, block, frame)``, the value with one more frame.
    """

    start: Callable[[Mapping[str, Any], int], S]
    step: Callable[[S, Mapping[str, Any], int, Frame], S]
    _kept: dict[int, tuple[weakref.ref[Trace], dict[int, _Memory[S]]]] = field(default_factory=dict)

    def over(self, trace: Trace, block: int) -> S:
        """The value for ``block`` over all frames of ``trace``."""
        return self._at(trace, block).value

    def after(self, trace: Trace, block: int, frame: Frame) -> S:
        """The value with ``frame``, the next one of ``trace``, as well."""
        memory = self._at(trace, block)
        if memory.peeked is None or memory.peeked[0] is not frame:
            memory.peeked = frame, self.step(memory.value, trace.meta, block, frame)
        return memory.peeked[1]

    def around(self, trace: Trace, block: int, frame: Frame) -> Callable[[int], S]:
        """The value by how many frames there are: those of ``trace``, or ``frame``, the next one, as well: for a ``patch``."""
        had, values = len(trace.frames), (self.over(trace, block), self.after(trace, block, frame))
        return lambda count: values[count - had]

    def _at(self, trace: Trace, block: int) -> _Memory[S]:
        """The memory of ``trace`` and ``block``, brought up to its last frame."""
        frames, blocks = trace.frames, self._blocks(trace)
        memory = blocks.get(block)
        if (
            memory is None
            or len(frames) < memory.frames
            or (memory.frames and frames[memory.frames - 1] is not memory.last)
        ):
            memory = blocks[block] = _Memory(self.start(trace.meta, block))
        for frame in frames[memory.frames :]:
            peeked = memory.peeked
            if peeked is not None and peeked[0] is frame:
                memory.value = peeked[1]
            else:
                memory.value = self.step(memory.value, trace.meta, block, frame)
            memory.frames, memory.last, memory.peeked = memory.frames + 1, frame, None
        return memory

    def _blocks(self, trace: Trace) -> dict[int, _Memory[S]]:
        """The memories of ``trace``, by block. A trace has no hash: it is told by its address, as long as it lives."""
        at, kept = id(trace), self._kept
        if at not in kept:
            kept[at] = weakref.ref(trace, lambda _: kept.pop(at, None)), {}
        return kept[at][1]
