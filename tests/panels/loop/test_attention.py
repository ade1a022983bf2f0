"""Attention: shares by hand and against plain sums, bounded columns that lose nothing, and honest absences."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopviz.panels import LANGUAGES, PANELS, Focus, figure_json
from loopviz.panels.loop.attention import POSITIONS, ROWS, SLOTS, most_attended, shown_steps
from loopviz.trace import Trace, encode_floats
from tests.panels.cases import looped, wire_size

panel = PANELS["attention"]


def attended(tokens=8, **meta):
    return looped(tokens, **{"extras": ("attention",), **meta})


def drawn(trace, **focus):
    return figure_json(panel.figure(trace, Focus(**focus)))


def record(trace, at, layer, weights, slots=None, change=None, block=0):
    """Give frame ``at`` these weights ``[N][t + 1]`` in one layer of a block."""
    found = trace.frames[at]["blocks"][block]
    seen = found["attention"]["layers"][layer]
    seen["weights"] = encode_floats(np.array(weights))
    if slots is not None:
        seen["slots"] = encode_floats(np.array(slots))
    if change is not None:
        seen["change"] = change
    found["n_steps"] = len(weights)


def close(per_cent):
    """Two digits, from 16 bits."""
    return pytest.approx(per_cent, rel=0.06, abs=0.02)


def small():
    """Three tokens, two steps, two slots, two heads."""
    trace = attended(3, max_steps=2, slots=2, strategy="fixed_count")
    for frame, text in zip(trace.frames, (" The", " cat", "<b>"), strict=True):
        frame["text"] = text
    record(trace, 2, 0, [[0.5, 0.25, 0.25], [0.75, 0.25, 0.0]], [[1.0, 0.0], [0.4, 0.6]], [[None, None], [0.25, 0.5]])
    return trace


def test_maps_by_hand():
    above, heads, slots = drawn(small())["data"]
    assert above["x"] == ["0 The", "1 cat", "2 &lt;b&gt;"]
    assert above["y"] == heads["y"] == slots["y"] == ["1", "2"]
    assert above["z"] == [[50, 25, 25], [75, 25, 0]]
    assert heads["x"] == ["0", "1"]
    assert heads["z"] == [[None, None], [25, 50]]
    assert slots["x"] == ["0", "1"]
    assert slots["z"] == [[100, 0], [40, 60]]
    assert "most to 0 “The” (75 %)" in drawn(small())["layout"]["title"]["text"]
    said = panel.summary(small(), Focus())
    assert "at loop step 2 it attends most to 0 “The” (75 %), 1 “cat” (25 %)" in said
    assert "37.5 % of a head's attention moved" in said


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), tokens=st.integers(1, 60), steps=st.integers(1, 40))
def test_the_columns_kept_are_the_most_attended_and_the_rest_is_in_the_last(seed, tokens, steps):
    trace = attended(tokens, prompt_tokens=1, max_steps=steps, strategy="fixed_count")
    weights = np.random.default_rng(seed).dirichlet(np.full(tokens, 0.2), size=steps)
    record(trace, tokens - 1, 0, weights)
    above = drawn(trace)["data"][0]
    rows = [int(step) - 1 for step in above["y"]]
    assert rows == sorted(set(rows))
    assert len(rows) == min(steps, ROWS)
    assert {0, steps - 1} <= set(rows)
    kept = [int(name.split()[0]) for name in above["x"] if name != "all others"]
    assert kept == sorted(kept)
    assert len(kept) <= POSITIONS
    left = [p for p in range(tokens) if p not in kept]
    assert ("all others" in above["x"]) == bool(left)
    totals = weights[rows].sum(0)
    if left:
        assert min(totals[kept]) >= max(totals[left]) - 2e-3 * steps, "16 bits blur what is nearly equal"
    for row, shares in zip(rows, above["z"], strict=True):
        assert shares[: len(kept)] == [close(100 * weights[row, p]) for p in kept]
        if left:
            assert shares[-1] == pytest.approx(100 * weights[row, left].sum(), rel=0.06, abs=0.5)


def test_ties_keep_the_earlier_position():
    assert most_attended(np.full((2, 6), 1 / 6), 3) == [0, 1, 2]


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 500])
def test_rows_are_bounded(count):
    steps = shown_steps(count)
    assert steps == sorted(set(steps))
    assert len(steps) == min(count, ROWS)
    assert not count or (steps[0], steps[-1]) == (1, count)


def test_heads_that_do_not_fit_are_averaged_and_the_liveliest_stay():
    trace = attended(2, max_steps=16, strategy="fixed_count", prompt_tokens=1)
    change = [[None] * 64] + [[h / 100 for h in range(64)]] * 15
    record(trace, 1, 0, [[0.5, 0.5]] * 16, change=change)
    heads = drawn(trace)["data"][1]
    kept = [int(name) for name in heads["x"][:-1]]
    assert heads["x"][-1] == "all others"
    assert kept == list(range(64 - len(kept), 64))
    assert heads["z"][0] == [None] * (len(kept) + 1)
    assert heads["z"][1][-1] == close(np.mean(range(64 - len(kept))))


def test_slots_that_do_not_fit_are_added_up():
    trace = attended(2, max_steps=2, slots=20, strategy="fixed_count", prompt_tokens=1)
    record(trace, 1, 0, [[0.5, 0.5]] * 2, slots=[[0.05] * 20] * 2)
    slots = drawn(trace)["data"][2]
    assert slots["x"] == [*map(str, range(SLOTS - 1)), "15+"]
    assert slots["z"][0] == [close(5)] * (SLOTS - 1) + [close(25)]


@pytest.mark.parametrize(
    ("meta", "maps"),
    [
        ({}, 3),
        ({"attention_mode": "serial"}, 2),
        ({"kv_mode": "merge_strategy"}, 2),
        ({"slots": 1}, 2),
    ],
)
def test_slots_are_shown_where_several_are_read_at_once(meta, maps):
    assert len(drawn(attended(**meta))["data"]) == maps


@pytest.mark.parametrize(("layer", "shown"), [(None, 2), (2, 2), (3, 3), (5, 2), (0, 2)])
def test_the_layer_in_focus_or_the_blocks_first(layer, shown):
    trace = attended(3, blocks=[(2, 3)], prompt_tokens=1, max_steps=1, strategy="fixed_count")
    record(trace, 2, 0, [[1.0, 0.0, 0.0]])
    record(trace, 2, 1, [[0.0, 1.0, 0.0]])
    figure = drawn(trace, layer=layer)
    assert figure["data"][0]["z"] == [[100, 0, 0] if shown == 2 else [0, 100, 0]]
    choice = figure["layout"]["meta"]["choices"]["layer"]
    assert choice["value"] == shown
    assert [value for value, _ in choice["options"]] == [2, 3]
    assert f"layer {shown}" in figure["layout"]["title"]["text"]


def test_the_block_selected_is_the_block_shown():
    trace = attended(2, blocks=[(0, 1), (3, 4)], prompt_tokens=1, max_steps=1, strategy="fixed_count")
    record(trace, 1, 0, [[1.0, 0.0]], block=0)
    record(trace, 1, 0, [[0.0, 1.0]], block=1)
    assert drawn(trace, block=0)["data"][0]["z"] == [[100, 0]]
    assert drawn(trace, block=1)["data"][0]["z"] == [[0, 100]]


@pytest.mark.parametrize(("step", "row"), [(1, 0), (2, 1), (3, None)])
def test_the_step_pointed_at_is_outlined_if_it_ran(step, row):
    shape = drawn(small(), step=step)["layout"]["shapes"][0]
    assert shape["visible"] == (row is not None)
    if row is not None:
        assert (shape["y0"], shape["y1"]) == (row - 0.5, row + 0.5)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_attention_not_recorded_is_said_on_screen(lang):
    trace, words = attended(extras=()), panel.TEXTS[lang]
    notice = drawn(trace, lang=lang)["layout"]["annotations"][0]
    assert notice["visible"]
    assert re.sub(r"<br>| ", "", notice["text"]) == words["not_recorded"].replace(" ", "")
    assert panel.summary(trace, Focus(lang=lang)) == words["not_recorded"]


@pytest.mark.parametrize(("steps", "limit"), [(4, 1100), (16, 2900)])
def test_a_token_is_small_on_the_wire_however_long_the_text(steps, limit):
    trace = attended(300, max_steps=steps, strategy="fixed_count", slots=4, blocks=[(2, 2)])
    for at in (100, 200, 299):
        before = Trace(trace.meta, trace.frames[:at])
        assert wire_size(panel.patch(before, trace.frames[at], Focus())) <= limit
