"""Key similarity: means counted by hand and by a slow reading, and that they do not depend on how they were summed."""

from __future__ import annotations

import json
import math
import re
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopviz.panels import LANGUAGES, PANELS, Focus, apply, figure_json
from loopviz.panels.loop.key_similarity import CELLS, RUNNING, means, shown_steps
from loopviz.trace import Trace
from tests.panels.cases import looped, wire_size

panel = PANELS["key_similarity"]


def keyed(tokens=8, **meta):
    return looped(tokens, **{"extras": ("keys",), **meta})


def drawn(trace, **focus):
    return figure_json(panel.figure(trace, Focus(**focus)))


def powers(values):
    """As drawn: powers of ten, None where there is nothing."""
    return [None if v is None else pytest.approx(math.log10(max(v, 1e-8)), abs=0.006) for v in values]


def test_both_maps_by_hand():
    trace = keyed(2, blocks=[(2, 3)], max_steps=3)
    for frame, columns in zip(
        trace.frames, ([[None, 0.9, 0.99], [None, 0.5, 0.75]], [[None, 0.7], [None, 1.0]]), strict=True
    ):
        frame["blocks"][0] |= {"key_cosine": columns, "n_steps": len(columns[0])}
    here, mean = drawn(trace)["data"]
    assert here["x"] == mean["x"] == ["2", "3"]
    assert (here["y0"], here["dy"]) == (2, 1)
    assert here["z"] == [powers([0.3, None]), powers([0.0, None])]
    assert mean["z"] == [powers([(0.1 + 0.3) / 2, 0.01]), powers([(0.5 + 0) / 2, 0.25])]
    title = drawn(trace)["layout"]["title"]["text"]
    assert "mean of up to 2 tokens" in title
    assert "at most 0.25 on average, layer 3" in title, "the last step of this token is its second"


def test_the_mean_ends_at_the_selected_token():
    trace = keyed(6)
    alone = Trace(trace.meta, trace.frames[:3])
    assert drawn(trace, token=2)["data"] == drawn(alone)["data"]


def test_undefined_cosines_count_nowhere():
    trace = keyed(3, blocks=[(0, 0)], max_steps=2, strategy="fixed_count")
    for frame, value in zip(trace.frames, (0.5, None, 0.9), strict=True):
        frame["blocks"][0]["key_cosine"] = [[None, value]]
    assert drawn(trace)["data"][1]["z"] == [powers([(0.5 + 0.1) / 2])]
    assert drawn(trace, token=1)["data"][0]["z"] == [[None]]


@settings(max_examples=60, deadline=None)
@given(
    columns=st.lists(
        st.lists(st.none() | st.floats(-1, 1), min_size=1, max_size=5).map(lambda c: [None, *c[1:]]),
        min_size=1,
        max_size=12,
    )
)
def test_means_of_any_run(columns):
    trace = keyed(len(columns), blocks=[(0, 0)], max_steps=5)
    for frame, column in zip(trace.frames, columns, strict=True):
        frame["blocks"][0] |= {"key_cosine": [column], "n_steps": len(column)}
    (found,) = means(RUNNING.over(trace, 0), trace.meta["blocks"][0]["max_steps"])
    for r in range(5):
        values = [1 - column[r] for column in columns if r < len(column) and column[r] is not None]
        assert found[r] == (pytest.approx(statistics.fmean(values), abs=1e-12) if values else None)


@pytest.mark.parametrize("layers", [1, 5, 30, 80])
@pytest.mark.parametrize("max_steps", [1, 2, 4, 16, 64])
def test_columns_are_bounded_and_end_at_the_last_step(layers, max_steps):
    steps = shown_steps({"layers": [3, 2 + layers], "room": max_steps})
    assert steps == sorted(set(steps))
    assert len(steps) * layers <= max(CELLS, 2 * layers)
    if max_steps > 1:
        assert (steps[0], steps[-1]) == (2, max_steps)
    else:
        assert steps == []


@pytest.mark.parametrize("lang", LANGUAGES)
def test_what_was_not_recorded_is_said_on_screen(lang):
    words = panel.TEXTS[lang]
    for trace, said in ((keyed(extras=()), "not_recorded"), (keyed(max_steps=1, strategy="fixed_count"), "one_step")):
        notice = drawn(trace, lang=lang)["layout"]["annotations"][0]
        assert notice["visible"]
        assert re.sub(r"<br>| ", "", notice["text"]) == words[said].replace(" ", "")
        assert panel.summary(trace, Focus(lang=lang)) == words[said]


def test_the_block_selected_is_the_block_shown():
    trace = keyed(blocks=[(0, 1), (3, 5)])
    here = drawn(trace, block=1)["data"][0]
    assert (here["y0"], len(here["z"])) == (3, 3)
    wanted = trace.frames[-1]["blocks"][1]["key_cosine"][2]
    steps = [int(x) for x in here["x"]]
    assert here["z"][2] == powers([1 - wanted[r - 1] if r <= len(wanted) else None for r in steps])


def test_law_over_a_long_run_and_few_bytes():
    trace = keyed(150, blocks=[(10, 14)], layers=30, max_steps=4, strategy="fixed_count")
    shown, grown, sizes = figure_json(panel.figure(Trace(trace.meta), Focus())), Trace(trace.meta), []
    for frame in trace.frames:
        ops = panel.patch(grown, frame, Focus())
        apply(shown, json.loads(json.dumps(ops)))
        sizes.append(wire_size(ops))
        grown.append(frame)
    assert shown == figure_json(panel.figure(trace, Focus()))
    assert max(sizes) <= 500


def test_the_summary_names_the_layer_that_moves_most():
    trace = keyed(1, blocks=[(2, 3)], max_steps=3, strategy="fixed_count", prompt_tokens=1)
    trace.frames[0]["blocks"][0]["key_cosine"] = [[None, 0.9, 0.99], [None, 0.5, 0.995]]
    said = panel.summary(trace, Focus())
    assert "step 2 0.5 (layer 3)" in said
    assert "step 3 0.01 (layer 2)" in said
