"""Figures of tables: intervals as the arms of marks."""

from __future__ import annotations

import math

from loopviz.figures.table_figures import arms


def test_a_mark_without_an_interval_takes_none_from_the_others() -> None:
    """Perplexity drew none at all as soon as one point had none."""
    drawn = arms([2.0, 3.0, None, 5.0], [1.5, None, 1.0, math.nan], [3.0, None, 4.0, 6.0])
    assert drawn["array"] == [1.0, 0.0, 0.0, 0.0]
    assert drawn["arrayminus"] == [0.5, 0.0, 0.0, 0.0]
    assert drawn["symmetric"] is False


def test_an_interval_that_rounding_has_put_beside_its_value_has_no_negative_arm() -> None:
    drawn = arms([2.0], [2.0 + 1e-12], [3.0], thickness=2)
    assert drawn["arrayminus"] == [0.0]
    assert drawn["thickness"] == 2


def test_where_there_is_no_interval_at_all_there_are_no_arms() -> None:
    assert arms([1.0, 2.0], [None, math.nan], [None, 3.0]) == {"visible": False}
    assert arms([], [], []) == {"visible": False}
