"""The part of a plane that paths fill, and names in it: by hand, and for anything."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopviz.figures import labels
from loopviz.panels.kit import view

share = st.floats(0, 1)
point = st.tuples(share, share)


def test_the_view_is_what_is_shown_and_some_room():
    ranges = view.fitted(np.array([[0.0, 5.0, -1.0], [1.0, 5.0, 1.0]]))
    assert ranges[0] == pytest.approx((-0.12, 1.12))
    assert ranges[1] == pytest.approx((4.99, 5.01)), "what hardly spans anything is not blown up"
    assert ranges[2] == pytest.approx((-1.24, 1.24))


def test_shares_are_of_the_view():
    assert view.shares(((-1, 1), (0, 4), (0, 9)), [[0, 1, 5], [1, 4, 5]]) == [(0.5, 0.25), (1, 1)]


def boxes(path, names, free):
    """What each name that is shown takes, centred over its point."""
    wide = [view.LETTER[0] * labels.columns(name) for name in names]
    return [
        (x - w / 2, x + w / 2, y, y + view.LETTER[1]) for (x, y), w, one in zip(path, wide, free, strict=True) if one
    ]


def meet(one, other):
    return one[0] < other[1] and other[0] < one[1] and one[2] < other[3] and other[2] < one[3]


@settings(max_examples=100, deadline=None)
@given(path=st.lists(point, min_size=2, max_size=20))
def test_b7_the_numbers_on_a_path_never_cover_each_other_nor_leave_the_plot(path):
    names = ["", *map(str, range(1, len(path) - 1)), ""]
    free = view.apart(path, names)
    assert not free[0]
    assert not free[-1]
    taken = boxes(path, names, free)
    assert not any(meet(a, b) for a, b in combinations(taken, 2))
    assert all(left >= 0 and right <= 1 and low >= 0 and high <= 1 for left, right, low, high in taken)


def test_b7_points_far_apart_all_bear_their_numbers():
    path = [(0.1, 0.1), (0.3, 0.3), (0.5, 0.5), (0.7, 0.7), (0.9, 0.9)]
    assert view.apart(path, ["", "1", "2", "3", ""]) == [False, True, True, True, False]
