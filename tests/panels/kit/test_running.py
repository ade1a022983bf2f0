"""A fold over a growing trace: every frame once, the same value as without memory, gone with its trace."""

from __future__ import annotations

import gc

import pytest

from loopviz.panels.kit.running import Growing, Running
from loopviz.trace import Trace
from tests.panels.cases import looped


def counting():
    """A fold that notes the frames it was shown, and its notes."""
    seen: list[int] = []

    def step(value, meta, block, frame):
        seen.append(frame["index"])
        return (*value, frame["index"])

    return Running(lambda meta, block: (), step), seen


def test_every_frame_is_looked_at_once():
    running, seen = counting()
    whole, trace = looped(tokens=8), Trace(looped().meta)
    for frame in whole.frames:
        assert running.after(trace, 0, frame) == tuple(range(len(trace) + 1))
        assert running.over(trace, 0) == tuple(range(len(trace)))
        trace.append(frame)
    assert running.over(trace, 0) == tuple(range(8))
    assert seen == list(range(8))


def test_a_frame_looked_ahead_at_is_not_taken_for_the_one_that_came():
    running, _ = counting()
    trace, other = looped(tokens=3), looped(tokens=4)
    running.after(trace, 0, {**other.frames[3], "index": 99})
    trace.append(other.frames[3])
    assert running.over(trace, 0) == (0, 1, 2, 3)


def test_blocks_and_traces_are_apart():
    running, _ = counting()
    one, other = looped(tokens=3), looped(tokens=5)
    assert [len(running.over(trace, block)) for trace in (one, other) for block in (0, 1)] == [3, 3, 5, 5]


def test_a_trace_that_begins_again_is_folded_again():
    running, _ = counting()
    trace = looped(tokens=6)
    assert len(running.over(trace, 0)) == 6
    trace.frames = trace.frames[:2]
    assert running.over(trace, 0) == (0, 1)


def test_numbers_that_grow_are_each_value_s_own_and_are_not_copied():
    first = Growing([0], 1)
    second = first.added(5)
    other = first.added(7)  # another frame came than the one that was looked ahead at
    third = second.added(6)
    assert third.numbers is second.numbers
    assert [[value[i] for i in range(value.count)] for value in (first, second, other, third)] == [
        [0],
        [0, 5],
        [0, 7],
        [0, 5, 6],
    ]
    with pytest.raises(IndexError):
        second[2]


def test_nothing_is_kept_of_a_trace_that_is_gone():
    running, _ = counting()
    trace = looped(tokens=3)
    running.over(trace, 0)
    assert running._kept
    del trace
    gc.collect()
    assert not running._kept
