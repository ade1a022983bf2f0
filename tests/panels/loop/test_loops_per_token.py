"""Loops per token: bars, counts and savings, counted by hand."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopviz.figures import theme
from loopviz.panels import LANGUAGES, PANELS, Focus, figure_json
from loopviz.panels.loop.loops_per_token import BARS, COUNTS, HERE, MEAN, layer_passes
from loopviz.trace import Trace
from tests.panels.cases import looped, smollm2, wild_traces, wire_size

panel = PANELS["loops_per_token"]


def ran(steps, reasons=None, **meta):
    """A trace of a block of layers 2-3 of 6 that took ``steps`` loops at each token."""
    trace = looped(tokens=len(steps), **meta)
    for frame, n, reason in zip(trace.frames, steps, reasons or ["cosine"] * len(steps), strict=True):
        frame["blocks"][0].update(n_steps=n, stop_reason=reason)
    return trace


def drawn(trace, **focus):
    return figure_json(panel.figure(trace, Focus(**focus)))


def test_a_bar_a_token_in_the_colour_of_why_it_stopped():
    reasons = ["cosine", "kl", "max", "count", "acceleration", "cosine"]
    figure = drawn(ran([2, 3, 6, 4, 5, 1], reasons))
    bars = {}
    for trace in figure["data"][: len(BARS)]:
        for x, y in zip(trace["x"], trace["y"], strict=True):
            bars[x] = (y, trace["marker"]["color"])
    kinds = [*reasons[:4], "other", "cosine"]
    assert bars == {
        i: (n, theme.COLOURS[f"stop_{k}"]) for i, (n, k) in enumerate(zip([2, 3, 6, 4, 5, 1], kinds, strict=True))
    }
    assert figure["data"][BARS["other"]]["customdata"] == ["acceleration"]


def test_counts_and_mean_by_hand():
    figure = drawn(ran([2, 2, 6, 4, 2], ["cosine", "kl", "max", "kl", "kl"]))
    assert figure["data"][COUNTS["cosine"]]["x"] == [0, 0, 1, 0, 0, 0, 0]
    assert figure["data"][COUNTS["kl"]]["x"] == [0, 0, 2, 0, 1, 0, 0]
    assert figure["data"][COUNTS["max"]]["x"] == [0, 0, 0, 0, 0, 0, 1]
    assert figure["layout"]["shapes"][MEAN]["y0"] == pytest.approx(16 / 5)
    assert "3.20 loops on average (dotted), 5 tokens" in figure["layout"]["title"]["text"]


def test_layer_passes_saved_by_hand():
    """6 layers, block of 2, at most 6 steps: always looping to the end is 6 + 5 * 2 = 16 layer passes a token.

    Tokens of 2, 6 and 3 steps save 4 * 2, 0 and 3 * 2.
    """
    trace = ran([2, 6, 3])
    assert layer_passes(trace.meta, 0, 3, 2 * 11) == (14, 48)
    assert "14 of 48 layer passes saved (29.2 %)" in drawn(trace)["layout"]["title"]["text"]


def test_a_fixed_count_saves_nothing_and_says_so():
    trace = looped(strategy="fixed_count")
    title = drawn(trace)["layout"]["title"]["text"]
    assert "nothing to save" in title
    assert "%" not in title


def runs_of(block, layer):
    """Steps that a layer of a token's block ran."""
    if block["layers_run"]:
        return sum(layer in ran for ran in block["layers_run"])
    return block["n_steps"]


def test_layers_left_out_and_tokens_skipped_are_saved_work():
    """Under a fixed count too: 3 steps of 2 layers; one token leaves a layer out twice, the next skips the block."""
    trace = looped(tokens=2, strategy="fixed_count", max_steps=3, chooser="influence")
    first, second = (frame["blocks"][0] for frame in trace.frames)
    first.update(n_steps=3, layers_run=[[2, 3], [3], [3]], stop_reason="count")
    second.update(n_steps=0, layers_run=[], stop_reason="influence")
    figure = drawn(trace)
    assert "8 of 20 layer passes saved (40.0 %)" in figure["layout"]["title"]["text"]
    counts = [sum(column) for column in zip(*(figure["data"][place]["x"] for place in COUNTS.values()), strict=True)]
    assert counts == [1, 0, 0, 1]


@settings(max_examples=40, deadline=None)
@given(wild_traces())
def test_what_was_saved_and_what_was_run_make_the_whole(trace):
    """Run, counted layer by layer: every layer once, and a block's layers once more for every further step."""
    meta, tokens = trace.meta, len(trace)
    run = 0
    for frame in trace.frames:
        for layer in range(meta["shape"]["layers"]):
            times = [runs_of(b, layer) for b in frame["blocks"] if b["layers"][0] <= layer <= b["layers"][1]]
            run += times[0] if times else 1
    saved, every = 0, tokens * meta["shape"]["layers"]
    for block in range(len(meta["blocks"])):
        a, b = meta["blocks"][block]["layers"]
        runs = sum(runs_of(frame["blocks"][block], layer) for frame in trace.frames for layer in range(a, b + 1))
        part, every = layer_passes(meta, block, tokens, runs)
        saved += part
    assert saved + run == every


@given(st.lists(st.integers(1, 6), min_size=1, max_size=30))
@settings(max_examples=30, deadline=None)
def test_every_token_is_counted_once(steps):
    figure = drawn(ran(steps))
    counts = [sum(column) for column in zip(*(figure["data"][place]["x"] for place in COUNTS.values()), strict=True)]
    room = min(6, 4 if max(steps) <= 4 else 8)
    assert counts == [steps.count(n) for n in range(room + 1)]


def test_more_loops_than_announced_are_shown_and_make_room():
    figure = drawn(ran([2, 9]))
    assert figure["layout"]["yaxis"]["range"][1] > 9
    assert [sum(c) for c in zip(*(figure["data"][i]["x"] for i in COUNTS.values()), strict=True)] == [
        *(0, 0, 1),
        *[0] * 6,
        1,
    ]


def test_the_recorder_off_changes_nothing():
    on, off = looped(), looped(record="off")
    for frame, other in zip(on.frames, off.frames, strict=True):
        frame["text"] = other["text"]
        for name in ("n_steps", "stop_reason"):
            other["blocks"][0][name] = frame["blocks"][0][name]
    assert drawn(on) == drawn(off)


def test_the_selected_bar_is_outlined_and_a_click_on_another_selects_it():
    trace = ran([2, 6, 3])
    figure = drawn(trace, token=1)
    outline = figure["layout"]["shapes"][HERE]
    assert (outline["x0"], outline["x1"], outline["y0"], outline["y1"]) == (0.5, 1.5, 0, 6)
    assert outline["line"]["color"] == theme.SELECTED
    assert figure["layout"]["meta"]["select"] == {"token": "x"}
    for place in COUNTS.values():
        assert figure["data"][place]["meta"]["select"] == {}
    assert not drawn(trace, token=7)["layout"]["shapes"][HERE]["visible"]


def test_a_fixed_selection_stays_while_the_sums_go_on():
    trace, focus = looped(tokens=20), Focus(token=2)
    for at in range(3, 20):
        ops = panel.patch(Trace(trace.meta, trace.frames[:at]), trace.frames[at], focus)
        moved = {tuple(op["path"][:3]) for op in ops if op["op"] == "set"}
        assert ("layout", "shapes", HERE) not in moved
        assert not moved & {("data", place, name) for place in BARS.values() for name in ("x", "y", "text")}


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_sentence_counts_as_the_figure_does(lang):
    said = panel.summary(ran([2, 6, 3]), Focus(token=1, lang=lang))
    for part in ("3.67", "14", "48", "29.2 %"):
        assert part in said


def test_a_token_is_small_on_the_wire():
    trace = smollm2()
    sizes = [
        wire_size(panel.patch(Trace(trace.meta, trace.frames[:n]), trace.frames[n], Focus())) for n in (1, 60, 300, 511)
    ]
    assert max(sizes) <= 1000
    assert max(sizes) <= 1.3 * sizes[1], "what a token costs does not grow with the text"


def test_a_criterions_name_is_shown_as_characters():
    figure = drawn(ran([2], ["<i>"]))
    assert "<i>" not in json.dumps([figure["data"][BARS["other"]]["customdata"], figure["layout"]["title"]])
