"""A run in a few numbers: what an exit gate chose is said beside how many loops ran."""

from __future__ import annotations

import pytest

from loopviz.engine import summarize
from tests.panels.cases import looped
from tests.panels.loop.test_exit_gate import READ, P, gated


def test_the_step_that_a_gate_read_out_is_said_beside_the_loops():
    [block] = summarize(gated()).blocks
    assert (block.mean_steps, block.max_steps) == (3, 3), "all loops ran"
    assert block.mean_read_out == sum(READ) / 3


def test_where_all_steps_are_read_out_it_is_their_mean_by_weight():
    [block] = summarize(gated(exit_selection="gate_weighted")).blocks
    assert block.mean_read_out == pytest.approx(sum(r * p for each in P for r, p in enumerate(each, 1)) / 3)


def test_only_tokens_that_a_gate_spoke_of_are_counted():
    trace = gated()
    trace.frames[0]["blocks"][0]["gate"] = None
    assert summarize(trace).blocks[0].mean_read_out == sum(READ[1:]) / 2
    assert summarize(looped(tokens=3)).blocks[0].mean_read_out is None, "without a gate there is nothing to say"
