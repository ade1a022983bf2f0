"""Who is shown beside the selected token: one more token is one more edit, and gives what drawing anew would."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from loopviz.panels import Focus
from loopviz.panels.kit import around


def frames(count):
    return [{"index": i} for i in range(count)]


def indices(found):
    return [frame["index"] for frame in found]


def test_they_are_the_last_before_the_newest_or_those_around_a_chosen_one():
    assert indices(around.others(frames(20), Focus(), 4)) == [15, 16, 17, 18]
    assert indices(around.others(frames(20), Focus(token=10), 4)) == [8, 9, 11, 12]
    assert indices(around.others(frames(20), Focus(token=0), 4)) == [1, 2, 3, 4]
    assert indices(around.others(frames(20), Focus(token=19), 4)) == [17, 18]
    assert around.others([], Focus(), 4) == around.others(frames(1), Focus(), 4) == []


@given(tokens=st.integers(0, 40), token=st.none() | st.integers(0, 45), count=st.integers(1, 9))
def test_places_filled_one_after_the_other_hold_those_that_are_shown(tokens, token, count):
    focus, there, held = Focus(token=token), frames(tokens), {}
    for at, frame in enumerate(there):
        joins = around.coming(there[:at], frame, focus, count)
        if joins is not None:
            place = around.place(joins["index"], focus, count)
            assert 0 <= place < count
            held[place] = joins
    found = around.others(there, focus, count)
    assert sorted(indices(held.values())) == indices(found)
    assert {around.place(frame["index"], focus, count): frame for frame in found} == held
