"""What the page says over a run, and which panels a run brings with it."""

from __future__ import annotations

import pytest

from loopviz.app import drawing
from loopviz.app import settings as st
from loopviz.app.texts import LANGUAGES
from loopviz.panels import PANELS, Focus
from loopviz.trace import Trace
from tests.trace.synthetic import change_loop, random_trace


@pytest.mark.parametrize(
    ("lang", "words"), [("en", "layers chosen by influence (≥ 0.25)"), ("zh", "层由 influence 选择（≥ 0.25）")]
)
def test_a_run_with_a_chooser_of_layers_says_so_and_brings_its_panel(lang, words):
    told = drawing.title(random_trace(1, 3, chooser="influence", layer_threshold=0.25), lang)
    assert words in told["about"]
    assert told["brings"] == ["layers_run"]
    assert not drawing.usual(PANELS["layers_run"])
    without = drawing.title(random_trace(1, 3), lang)
    assert without["brings"] == []
    assert "influence" not in without["about"]


def test_a_chooser_set_during_a_run_brings_the_panel_from_then_on():
    trace = random_trace(1, 8)
    change_loop(trace.meta, 5, chooser="difficulty", layer_threshold=0.5)
    early = Trace(trace.meta, trace.frames[:5])
    assert drawing.picture(early, Focus(), {})["brings"] == []
    assert drawing.picture(trace, Focus(), {})["brings"] == ["layers_run"]


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("strategy", ["fixed_count", "dynamic_stop"])
def test_a_block_of_one_layer_is_no_range(lang: str, strategy: str) -> None:
    values = st.defaults() | {"block_start": 3, "block_end": 3, "loop_strategy": strategy}
    said = drawing.about_loop([st.block_of(values)], lang)[0]
    assert "3–3" not in said
    assert "3" in said
    wide = drawing.about_loop([st.block_of(values | {"block_end": 4})], lang)[0]
    assert "3–4" in wide
