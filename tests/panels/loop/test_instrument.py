"""The instrument check: exact values against an independent simulation, and a real run of glassbox against both."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopviz.engine import StreamSettings, run
from loopviz.panels import Focus, apply, figure_json
from loopviz.panels.loop import instrument as panel
from loopviz.trace import Trace
from loopviz.train import glassbox
from tests.panels.cases import looped


@pytest.fixture(scope="module")
def built():
    return glassbox.build(), glassbox.make_tokenizer()


def traced(built, prompt="abz 9", **fields) -> Trace:
    model, tokenizer = built
    settings = StreamSettings(max_new_tokens=3)
    return run(model.with_loop(**fields), tokenizer, prompt, settings, model_name=panel.MODEL)


def test_the_rate_is_the_builders():
    assert panel.RATE == glassbox.RATE
    assert glassbox.make_tokenizer().unk_token_id == panel.UNKNOWN


@given(rate=st.floats(0.05, 0.99), step=st.integers(1, 24))
def test_exact_gap_is_that_of_the_walk(rate, step):
    """Two orthogonal unit vectors, walked from the first towards the second."""
    states = [np.array([1.0, 0.0], dtype=np.longdouble)]
    for _ in range(step):
        states.append(rate * states[-1] + (1 - rate) * np.array([0.0, 1.0], dtype=np.longdouble))
    new, old = states[-1], states[-2]
    sine = (new[0] * old[1] - new[1] * old[0]) / np.sqrt((new @ new) * (old @ old))
    assert panel.exact_gap(rate, step) == pytest.approx(float(1 - np.sqrt(1 - sine * sine)), rel=1e-6, abs=1e-15)


@pytest.mark.parametrize("damping", [1.0, 0.5])
def test_a_real_run_agrees(built, damping):
    trace = traced(built, loop_damping=damping, loop_count=12)
    for at, frame in enumerate(trace.frames):
        data = figure_json(panel.figure(trace, Focus(token=at)))["data"]
        if frame["token_id"] == panel.UNKNOWN:
            assert all(line["y"] == [] for line in data)
            continue
        gaps = zip(data[panel.EXACT_GAP]["y"], data[panel.GAP]["y"], strict=True)
        assert all(abs(exact - measured) < 1e-6 for exact, measured in gaps)
        rates = data[panel.MEASURED_RATE]["y"]
        assert len(rates) == 11
        assert rates == pytest.approx([panel.exact_rate(damping)] * 11, abs=1e-4)
        said = panel.summary(trace, Focus(token=at))
        assert f"{panel.exact_rate(damping):.4f}" in said


def test_a_wrong_measurement_is_seen(built):
    trace = traced(built, loop_count=6)
    trace.frames[0]["blocks"][0]["steps"]["cosine"][2] -= 0.01
    assert "0.01" in figure_json(panel.figure(trace, Focus(token=0)))["layout"]["title"]["text"]


@pytest.mark.parametrize("focus", [Focus(), Focus(token=1), Focus(token=3), Focus(token=99)])
def test_the_law_on_a_real_run(built, focus):
    trace = traced(built)
    shown, grown = figure_json(panel.figure(Trace(trace.meta), focus)), Trace(trace.meta)
    for frame in trace.frames:
        apply(shown, json.loads(json.dumps(panel.patch(grown, frame, focus), allow_nan=False)))
        grown.append(frame)
    assert shown == figure_json(panel.figure(trace, focus))


def test_where_nothing_is_known_it_says_so(built):
    assert not panel.applies(looped().meta)
    for trace in (looped(), traced(built, loop_injection="none"), traced(built, loop_layers=None)):
        for lang in ("en", "zh"):
            shown = figure_json(panel.figure(trace, Focus(lang=lang)))
            assert shown["data"] == []
            assert shown["layout"]["annotations"][0]["visible"]
            assert panel.summary(trace, Focus(lang=lang))
            # A24: a dead end has a way out, which a page makes a button of
            assert shown["layout"]["meta"]["act"] == {"label": panel.TEXTS[lang]["act"], "model": panel.MODEL}


def test_a24_where_answers_are_known_no_other_model_is_offered(built):
    assert "act" not in panel.data(traced(built), Focus())["layout"]["meta"]
