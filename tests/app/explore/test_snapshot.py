"""What the page says over a run, and which panels a run brings with it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from loopviz.app import controls as st
from loopviz.app.controls.about import about_loop
from loopviz.app.explore import snapshot
from loopviz.app.texts import LANGUAGES
from loopviz.panels import PANELS, Focus
from loopviz.trace import EXTRAS, Trace
from loopviz.trace.plausible import check_frames_sense, check_meta_sense
from loopviz.trace.schema import check_meta
from tests.trace.synthetic import change_loop, random_trace


@pytest.mark.parametrize(
    ("lang", "words"), [("en", "layers chosen by influence (≥ 0.25)"), ("zh", "层由 influence 选择（≥ 0.25）")]
)
def test_a_run_with_a_chooser_of_layers_says_so_and_brings_its_panel(lang, words):
    told = snapshot.title(random_trace(1, 3, chooser="influence", layer_threshold=0.25), lang)
    assert words in told["about"]
    assert told["brings"] == ["layers_run"]
    assert not snapshot.usual(PANELS["layers_run"])
    without = snapshot.title(random_trace(1, 3), lang)
    assert without["brings"] == []
    assert "influence" not in without["about"]


def test_a_chooser_set_during_a_run_brings_the_panel_from_then_on():
    trace = random_trace(1, 8)
    change_loop(trace.meta, 5, chooser="difficulty", layer_threshold=0.5)
    early = Trace(trace.meta, trace.frames[:5])
    assert snapshot.picture(early, Focus(), {})["brings"] == []
    assert snapshot.picture(trace, Focus(), {})["brings"] == ["layers_run"]


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("strategy", ["fixed_count", "dynamic_stop"])
def test_a_block_of_one_layer_is_no_range(lang: str, strategy: str) -> None:
    values = st.defaults() | {"block_start": 3, "block_end": 3, "loop_strategy": strategy}
    said = about_loop([st.block_of(values)], lang)[0]
    assert "3–3" not in said
    assert "3" in said
    wide = about_loop([st.block_of(values | {"block_end": 4})], lang)[0]
    assert "3–4" in wide


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_run_that_keeps_8_bits_says_so(lang: str) -> None:
    said = about_loop([st.block_of(st.defaults() | {"kv_cache_dtype": "int8"})], lang)
    exact = about_loop([st.block_of(st.defaults())], lang)
    assert "int8" in " ".join(said)
    assert "exact" not in " ".join(exact)
    assert said[1].startswith(exact[1])


# -- L7 trace_unknown_attention_mode ---------------------------------------------------------------------------------------


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where in a meta something stands that is neither list nor mapping."""
    if isinstance(value, (dict, list)):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(part, (*path, key))
    else:
        yield path


def _drawn(meta: dict[str, Any], frames: list[Any]) -> str:
    """What becomes of a stranger's meta: refused by name, or drawn in every language and its settings taken over."""
    try:
        check_meta(meta)
        check_meta_sense(meta)
        check_frames_sense(frames, meta)
    except ValueError as error:
        return str(error)
    trace = Trace(meta, frames)
    for lang in LANGUAGES:
        snapshot.picture(trace, Focus(lang=lang, token=2), PANELS)
    st.of_run(meta)
    return "drawn"


def test_l7_every_field_of_a_stranger_s_meta_is_refused_by_name_or_can_be_drawn() -> None:
    made = random_trace(5, 5, blocks=[(0, 1)], extras=EXTRAS, strategy="dynamic_stop")
    refused = set()
    for path in _leaves(made.meta):
        for value in ("sideways", "", -1, 2**40, 0.5, None, True):
            meta = copy.deepcopy(made.meta)
            place = meta
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = value
            told = _drawn(meta, made.frames)
            if value == "sideways" and told != "drawn":
                assert str([key for key in path if isinstance(key, str)][-1]) in told, "named"
                refused.add(path[-1])
    assert {"attention_mode", "kv_mode", "strategy", "injection", "version"} <= refused
    for key in made.meta["settings"]:
        meta = copy.deepcopy(made.meta)
        del meta["settings"][key]
        assert _drawn(meta, made.frames) == "drawn"


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_run_says_what_its_model_was_held_in_where_that_is_not_float32(lang: str) -> None:
    trace = random_trace(2, 3)
    plain = snapshot.about(trace.meta, lang)
    for dtype, said in (("float32", False), ("float16", True), ("int8", True)):
        trace.meta["provenance"] = {"device": "cpu", "dtype": dtype}
        found = snapshot.about(trace.meta, lang)
        assert (dtype in found, found == plain) == (said, not said)
