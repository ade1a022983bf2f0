"""What an exit gate chose, in loop steps."""

from __future__ import annotations

import pytest

from loopviz.trace.exits import read_out_step, steps_needed

CHOSE = {"p": [0.5, 0.25, 0.25], "cdf": [0.5, 0.75, 1.0], "read_out": 2}
WEIGHTED = {**CHOSE, "read_out": None}


def test_a_token_is_read_out_at_one_step_or_at_all_by_their_weights():
    assert read_out_step(CHOSE) == 2
    assert read_out_step(WEIGHTED) == pytest.approx(0.5 + 2 * 0.25 + 3 * 0.25)
    assert read_out_step({**WEIGHTED, "p": [0.5, None, 0.5]}) == pytest.approx(2), (
        "a number that was none counts nothing"
    )


def test_what_a_token_needed_is_summed_over_its_blocks():
    ungated = {"n_steps": 4, "gate": None}
    assert steps_needed([{"n_steps": 3, "gate": CHOSE}, ungated]) == 6
    assert steps_needed([{"n_steps": 3, "gate": WEIGHTED}]) == pytest.approx(1.75)
    assert steps_needed([ungated, ungated]) is None, "no gate chose anything"
    assert steps_needed([]) is None, "nor where nothing loops"
