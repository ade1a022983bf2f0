"""The exit gate: columns, dots and words are what the frames say, at the run's threshold and at any other."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loopviz.panels import PANELS, Focus, figure_json
from loopviz.panels.loop.exit_gate import BARS, COLUMN, CURVE, DOTS, LINE, MAP, read_out
from loopviz.trace import Trace
from tests.panels.cases import looped, wild_traces
from tests.panels.test_law import fold
from tests.trace.synthetic import change_loop, random_frames

panel = PANELS["exit_gate"]
P = ([0.5, 0.25, 0.25], [0.125, 0.125, 0.75], [0.0, 1.0, 0.0])
CDF = ([0.5, 0.75, 1.0], [0.125, 0.25, 1.0], [0.0, 1.0, 1.0])
READ = (2, 3, 2)  # by a threshold of 0.6


def gated(**meta) -> Trace:
    """Three tokens of three steps, of which the gate says P; the run's threshold is 0.6."""
    meta = {"strategy": "fixed_count", "max_steps": 3, "exit_selection": "gate", "exit_threshold": 0.6, **meta}
    trace = looped(tokens=3, **meta)
    for frame, p, cdf, step in zip(trace.frames, P, CDF, READ, strict=True):
        mixed = meta["exit_selection"] == "gate_weighted"
        frame["blocks"][0]["gate"] = {"p": list(p), "cdf": list(cdf), "read_out": None if mixed else step}
        frame["text"] = f"t{frame['index']}"
    return trace


def drawn(trace, **focus):
    return figure_json(panel.figure(trace, Focus(**focus)))


def test_a_column_is_what_the_gate_said_of_a_token_and_its_dot_where_it_was_read_out():
    figure = drawn(gated(), token=1)
    assert figure["data"][MAP]["x"] == figure["data"][DOTS]["x"] == ["0 t0", "1 t1", "2 t2"]
    assert figure["data"][MAP]["z"] == [list(p) for p in P]
    assert figure["data"][DOTS]["y"] == list(READ)
    assert figure["data"][BARS]["y"] == P[1]
    assert figure["data"][CURVE]["y"] == CDF[1]
    line, column = (figure["layout"]["shapes"][i] for i in (LINE, COLUMN))
    assert (line["y0"], line["y1"], line["visible"]) == (0.6, 0.6, True)
    assert (column["x0"], column["x1"]) == (0.5, 1.5)


@pytest.mark.parametrize(
    ("threshold", "steps"), [(0.0, [1, 1, 1]), (0.5, [1, 3, 2]), (0.51, [2, 3, 2]), (1.0, [3, 3, 2])]
)
def test_another_threshold_shows_what_it_would_have_chosen(threshold, steps):
    figure = drawn(gated(), threshold=threshold)
    assert figure["data"][DOTS]["y"] == steps
    assert figure["layout"]["shapes"][LINE]["y0"] == threshold
    assert figure["layout"]["meta"]["choices"]["threshold"]["value"] == threshold
    mean, share = sum(steps) / 3, 100 * (1 - sum(steps) / 9)
    assert (
        f"q = {threshold:g}: read out at step {mean:.2f} on average (3 tokens); {share:.0f} %"
        in figure["layout"]["title"]["text"]
    )
    assert figure["layout"]["meta"]["act"]["exit_threshold"] == threshold, "and a button runs with it"


def test_the_runs_own_threshold_needs_no_new_run():
    assert "act" not in drawn(gated())["layout"]["meta"]
    assert "act" not in drawn(gated(), threshold=0.6)["layout"]["meta"]
    assert drawn(gated())["layout"]["meta"]["choices"]["threshold"] == {
        "label": "Threshold q",
        "range": [0.0, 1.0, 0.01],
        "value": 0.6,
    }


@pytest.mark.parametrize(
    ("lang", "what", "one"),
    [
        ("en", "read out at step 2.33 on average (3 tokens); 22 % of the loop steps were not needed", "step 3 of 3"),
        ("zh", "3 个词元平均在第 2.33 步读出；22 % 的循环步不需要", "第 3 步（共 3 步）"),
    ],
)
def test_the_words_count_what_was_not_needed(lang, what, one):
    title = drawn(gated(), token=1, lang=lang)["layout"]["title"]["text"]
    said = panel.summary(gated(), Focus(token=1, lang=lang))
    for words in (what, one):
        assert words in title
        assert words in said


def test_weights_choose_no_step_until_a_threshold_is_tried():
    trace = gated(exit_selection="gate_weighted")
    figure = drawn(trace, token=0)
    assert figure["data"][DOTS]["y"] == [1.75, 2.625, 2.0], "the mean steps by the weights"
    assert figure["layout"]["shapes"][LINE]["visible"] is False
    assert "all steps were read out, by their probabilities (3 tokens)" in figure["layout"]["title"]["text"]
    assert "on average step 1.75 of 3" in panel.summary(trace, Focus(token=0))
    assert drawn(trace, threshold=0.5)["data"][DOTS]["y"] == [1, 3, 2]


def test_the_outline_is_around_the_selected_tokens_own_column():
    trace = gated()
    trace.frames[0]["blocks"][0]["gate"] = None  # asked for only from the second token on
    figure = drawn(trace, token=1)
    assert figure["data"][MAP]["x"] == ["1 t1", "2 t2"]
    column = figure["layout"]["shapes"][COLUMN]
    assert (column["x0"], column["x1"], column["visible"]) == (-0.5, 0.5, True)
    assert drawn(trace, token=0)["layout"]["shapes"][COLUMN]["visible"] is False
    assert "2 tokens" in figure["layout"]["title"]["text"]


def test_a_run_without_a_gate_says_so_and_offers_no_slider():
    figure = drawn(looped(tokens=4))
    assert "No gate chose in this run" in figure["layout"]["annotations"][0]["text"].replace("<br>", " ")
    assert "choices" not in figure["layout"]["meta"]
    assert "No gate chose" in panel.summary(looped(tokens=4), Focus())
    assert not panel.tells_of(looped().meta)
    assert panel.tells_of(gated().meta)


@pytest.mark.parametrize(("lang", "said"), [("en", "what it said was not kept"), ("zh", "但它所说的没有保留")])
def test_a_recording_that_did_not_keep_what_the_gate_said_is_told_apart_from_a_run_without_one(lang, said):
    trace = gated()
    for frame in trace.frames:
        frame["blocks"][0]["gate"] = None  # as a file before version 6 is read
    assert said in panel.summary(trace, Focus(lang=lang))
    assert said in drawn(trace, lang=lang)["layout"]["annotations"][0]["text"].replace(
        "<br>", " " if lang == "en" else ""
    )


def test_what_was_recorded_and_what_the_numbers_say_are_the_same_step():
    trace = looped(tokens=40, exit_selection="gate", exit_threshold=0.7, max_steps=6)
    blocks = [block for frame in trace.frames for block in frame["blocks"]]
    assert len({read_out(block, None) for block in blocks}) > 2
    assert all(read_out(block, 0.7) == read_out(block, None) for block in blocks)


class Looked(dict):
    """A frame that counts how often it is looked at."""

    times = 0

    def __getitem__(self, key):
        Looked.times += 1
        return super().__getitem__(key)


def test_a_long_run_is_looked_at_once_a_token_however_many_thresholds_are_tried():
    """Its tokens were counted anew for each that came: under a ninth threshold, and before every column."""
    trying = [None, *(n / 20 for n in range(20))]

    def looks(tokens: int) -> int:
        whole = looped(tokens=tokens, exit_selection="gate", exit_threshold=0.7, max_steps=4)
        frames = [Looked(frame) for frame in whole.frames]
        for frame in frames[::5]:
            frame["blocks"][0]["gate"] = None  # so that columns are fewer than tokens
        trace, Looked.times = Trace(whole.meta, frames[:1]), 0
        for frame in frames[1:]:
            for at, threshold in enumerate(trying):
                panel.patch(trace, frame, Focus(threshold=threshold, token=None if at % 2 else 0))
            trace.append(frame)
        return Looked.times

    assert looks(80) < 2.5 * looks(40)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(wild_traces(), st.none() | st.floats(0, 1), st.none() | st.integers(0, 8), st.integers(1, 3))
def test_law_holds_at_every_threshold(trace, threshold, token, together):
    focus = Focus(threshold=threshold, token=token)
    assert fold(panel, trace, focus, together) == figure_json(panel.figure(trace, focus))


@pytest.mark.parametrize("focus", [Focus(), Focus(token=5), Focus(threshold=0.3)], ids=["newest", "fixed", "other"])
def test_law_holds_where_the_threshold_is_changed_while_a_run_is_made(focus):
    trace = looped(tokens=1, exit_selection="gate", exit_threshold=0.4)
    change_loop(trace.meta, 7, max_steps=11, count=11, exit_threshold=0.9)
    change_loop(trace.meta, 12, exit_selection="last")
    changed = Trace(trace.meta, random_frames(5, trace.meta, 16))
    assert fold(panel, changed, focus) == figure_json(panel.figure(changed, focus))
    assert changed.frames[13]["blocks"][0]["gate"] is None
