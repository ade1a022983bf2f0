"""What is drawn of a long teaching."""

from __future__ import annotations

import pytest

from loopviz.app.teach import pictures
from loopviz.app.teach.pictures import MOST_POINTS, thinned


@pytest.mark.parametrize("n", [0, 1, MOST_POINTS, MOST_POINTS + 1, 2 * MOST_POINTS, 100_000])
def test_a_curve_has_so_many_points_at_most_and_its_last_one(n: int) -> None:
    found = thinned(range(n))
    assert len(found) <= MOST_POINTS
    assert len(found) == n or len(found) > MOST_POINTS / 2 - 1
    assert [*found][-1:] == [*range(n)][-1:]


def test_every_curve_of_the_loss_is_thinned() -> None:
    """Measured after every step, 100,000 points of what is held out were drawn and sent, several times a second."""
    steps = [(n, 1.0, 2) for n in range(5_000)]
    measured = [(n, (1, 2), (3.0, 2.0)) for n in range(5_000)]
    drawn = pictures.loss("en", steps, measured, 5_000, 2)
    assert [len(curve["y"]) <= MOST_POINTS for curve in drawn["data"]] == [True, True]
