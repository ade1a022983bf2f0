"""Every combination of control values is a run's settings, or a refusal beside the control it is about."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as hs

from loopviz.app import controls as st
from loopviz.app.controls.examples import OFFERED
from loopviz.app.texts import LANGUAGES, text
from loopviz.model import LoopLlamaConfig
from tests.model.tiny import build
from tests.trace.synthetic import random_trace

ROOT = Path(__file__).resolve().parents[3]
MODEL = build()
LAYERS = MODEL.config.num_hidden_layers


def _legal(control: st.Control) -> hs.SearchStrategy[Any]:
    if control.kind == "choice":
        return hs.sampled_from(control.choices)
    if control.kind == "flag":
        return hs.booleans()
    if control.kind == "name":
        return hs.just("some-model")
    if control.name in ("block_start", "block_end"):
        return hs.integers(0, LAYERS + 1)
    if control.kind == "long":
        return hs.text(max_size=20)
    if control.kind == "whole":
        return hs.integers(int(control.low), int(min(control.high, 40)))
    return hs.floats(control.low, control.high)


LEGAL = hs.fixed_dictionaries({control.name: _legal(control) for control in st.CONTROLS})
WILD = hs.one_of(
    hs.none(), hs.booleans(), hs.integers(), hs.floats(), hs.text(max_size=8), hs.lists(hs.integers(), max_size=2)
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(LEGAL)
def test_legal_values_run_or_are_refused_beside_a_control_that_acts(values: dict[str, Any]) -> None:
    cleaned, problems = st.clean(values)
    assert not problems
    refused = st.check_loop(cleaned, MODEL)
    for problem in refused:
        assert problem.control in st.BY_NAME
        assert st.why_off(problem.control, cleaned) is None, f"a control that is off was blamed: {problem}"
        assert problem.reason
    if not refused:
        (block,) = MODEL.with_loop(**st.loop_fields(cleaned)).config.loop_blocks()
        # what acts is what was asked for
        assert (block.a, block.b) == (values["block_start"], values["block_end"])
        assert block.strategy == values["loop_strategy"]
        assert block.kv_mode == values["kv_cache_mode"]
        assert block.damping == values["loop_damping"]
        if block.dynamic:
            assert block.floor == values["min_loop_count"]
            assert block.max_steps == values["max_loop_count"]
        else:
            assert block.max_steps == values["loop_count"]


@settings(max_examples=100, deadline=None)
@given(LEGAL)
def test_sampling_settings_are_the_engine_s(values: dict[str, Any]) -> None:
    from loopviz.engine import StreamSettings

    cleaned, _ = st.clean(values)
    made = StreamSettings(**st.stream_fields(cleaned))
    assert made.do_sample is not values["greedy"]
    assert made.max_new_tokens == values["max_new_tokens"]
    assert made.template == values["template"]
    assert made.input == (values["input"] if values["template"] == "alpaca" else "")
    if made.do_sample:
        assert (made.temperature, made.top_k, made.seed) == (values["temperature"], values["top_k"], values["seed"])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    LEGAL,
    hs.dictionaries(hs.sampled_from([c.name for c in st.CONTROLS]), WILD, max_size=6),
    hs.sampled_from([*LANGUAGES]),
)
def test_whatever_is_sent_is_cleaned_or_refused_by_name(
    values: dict[str, Any], wild: dict[str, Any], lang: str
) -> None:
    cleaned, problems = st.clean(values | wild, lang)
    assert {problem.control for problem in problems} <= wild.keys()
    assert cleaned.keys() == st.BY_NAME.keys()
    assert not st.clean(cleaned, lang)[1], "what was cleaned is clean"
    for name, value in cleaned.items():
        control = st.BY_NAME[name]
        if control.kind in ("whole", "number"):
            assert math.isfinite(value)
            assert control.low <= value <= control.high


@pytest.mark.parametrize(
    ("change", "control", "said"),
    [
        ({"block_end": LAYERS}, "block_end", f"layer {LAYERS} is not in a {LAYERS}-layer model"),
        ({"block_start": LAYERS, "block_end": LAYERS}, "block_start", "is not in"),
        ({"block_start": 2, "block_end": 1}, "block_start", "comes after"),
        ({"loop_count": 20}, "loop_count", "max_loop_count=10"),
        ({"loop_strategy": "dynamic_stop", "virtual_layer_count": 6}, "virtual_layer_count", "min_loop_count=5"),
        ({"loop_strategy": "dynamic_stop", "min_loop_count": 20}, "max_loop_count", "min_loop_count=20"),
        ({"loop_injection": "linear"}, "loop_injection", "not trained"),
        ({"loop_norm": True}, "loop_norm", "not trained"),
    ],
)
def test_contradictions_are_told_where_they_are(change: dict[str, Any], control: str, said: str) -> None:
    values = st.defaults() | {"block_start": 1, "block_end": 2} | change
    (problem,) = st.check_loop(st.clean(values)[0], MODEL)
    assert problem.control == control
    assert said in problem.reason


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None, "0.9", 1, [0.5], 10**400])
def test_thresholds_that_are_none(value: Any) -> None:
    for name in ("cosine_threshold", "kl_threshold", "temperature", "merge_ema_alpha"):
        if value == 1 and name in ("kl_threshold", "temperature"):
            continue  # 10 nats; a temperature
        _, problems = st.clean(st.defaults() | {name: value})
        assert [problem.control for problem in problems] == [name]


@pytest.mark.parametrize(
    ("prompt", "wrong"), [("", True), (" \n\t", True), (None, True), ("a" * 20_001, True), ("a", False)]
)
def test_prompts(prompt: Any, wrong: bool) -> None:
    assert bool(st.check_prompt(prompt)) is wrong


def test_sliders_start_at_the_manual_s_thresholds() -> None:
    fields = st.loop_fields(st.defaults())
    assert fields["cosine_threshold"] == pytest.approx(0.95, abs=1e-12)
    assert fields["kl_threshold"] == pytest.approx(0.01, abs=1e-12)


@given(hs.floats(-6, -0.1))
def test_the_log_slider_keeps_its_precision(exponent: float) -> None:
    gap = 1 - st.cosine_of(exponent)
    assert 0 < st.cosine_of(exponent) <= 1
    assert gap == pytest.approx(10**exponent, rel=0.06)


def test_reasons_for_being_off_are_worded_in_both_languages() -> None:
    reasons = {f"off.{need.why}" for control in st.CONTROLS for need in control.needs}
    assert len(reasons) == 13
    assert all(text(lang, reason) for lang in LANGUAGES for reason in reasons)


@settings(max_examples=60, deadline=None)
@given(hs.integers(1, 40), hs.integers(0, 60), hs.integers(0, 60))
def test_a_plain_model_gets_a_block_in_its_middle_whatever_stood_there(layers: int, start: int, end: int) -> None:
    """A1: a former model's block that happened to fit stayed, and was about the worst there is."""
    config = build(num_hidden_layers=1).config
    config.num_hidden_layers = layers
    before = st.defaults() | {"block_start": start, "block_end": end}
    after = before | st.suit_model(before, config)
    assert 0 <= after["block_start"] <= after["block_end"] < layers
    assert after == before | {"block_start": layers // 3, "block_end": max(layers // 3, layers // 2 - 1)}


def test_a_looped_model_brings_its_own_loop() -> None:
    loop = {
        "loop_layers": (1, 2),
        "loop_strategy": "dynamic_stop",
        "min_loop_count": 3,
        "max_loop_count": 8,
        "virtual_layer_count": 2,
        "loop_damping": 0.5,
        "loop_injection": "add",
        "cosine_threshold": 0.999,
    }
    model = build(loop)
    values = st.defaults() | st.suit_model(st.defaults(), model.config)
    fields = st.loop_fields(st.clean(values)[0])
    assert {name: fields[name] for name in loop if name != "cosine_threshold"} == {
        name: value for name, value in loop.items() if name != "cosine_threshold"
    }
    assert fields["cosine_threshold"] == pytest.approx(0.999)
    assert not st.check_loop(st.clean(values)[0], model)


def test_to_let_a_loop_stop_by_itself_is_one_click() -> None:
    """Whatever number of slots a model's fixed count came with, the switch to dynamic_stop fits."""
    from loopviz.model import LoopLlamaConfig

    config = LoopLlamaConfig(
        num_hidden_layers=4, loop_layers=(1, 2), loop_count=8, virtual_layer_count=8, min_loop_count=2
    )
    values = st.defaults() | {"block_start": 1, "block_end": 2}
    values |= st.suit_model(values, config)
    assert (values["virtual_layer_count"], values["min_loop_count"]) == (8, 2)
    assert st.fitted(values) == {}, "a fixed count has no such rule"
    values["loop_strategy"] = "dynamic_stop"
    assert st.fitted(values) == {"virtual_layer_count": 2}
    values |= st.fitted(values)
    assert LoopLlamaConfig(num_hidden_layers=4, **st.loop_fields(values)).loop_blocks()[0].slots == 2
    assert st.fitted(values | {"kv_cache_mode": "merge_strategy", "virtual_layer_count": 9}) == {}


def test_what_people_register_by_name_can_be_chosen():
    """researcher, extension points: the page's lists were kept by hand."""
    from loopviz.app.controls.face import face
    from loopviz.app.page import page_data
    from loopviz.app.sessions.models import ModelRoom
    from loopviz.model import CHOOSERS, CRITERIA, MERGES, register_layer_chooser, register_merge

    assert set(st.BY_NAME["layer_chooser"].choices) == {"none", *CHOOSERS}
    assert set(st.BY_NAME["convergence_criterion"].choices) <= set(CRITERIA)
    assert st.choices(st.BY_NAME["merge_strategy"]) == ("ema", "average", "last"), "what measurements alone use is not"
    register_layer_chooser("mine")(lambda ctx: ctx.all_layers())
    register_merge("ours")(lambda merged, new, step, alpha: new)
    try:
        values = {**st.defaults(), "layer_chooser": "mine", "kv_cache_mode": "merge_strategy", "merge_strategy": "ours"}
        assert st.clean(values) == (values, [])
        assert st.loop_fields(values)["layer_chooser"] == "mine"
        assert face(st.BY_NAME["layer_chooser"], values, [], "zh")["choices"][-1] == ("mine", "mine")
        assert face(st.BY_NAME["layer_threshold"], values, [], "en")["interactive"]
        told = page_data("compare", ModelRoom("m"))
        assert told["texts"]["en"]["layer_chooser.mine"] == told["texts"]["zh"]["merge_strategy.ours"].replace(
            "ours", "mine"
        )
        assert "mine" in next(c["choices"] for c in told["controls"] if c["name"] == "layer_chooser")
    finally:
        del CHOOSERS["mine"], MERGES["ours"]
    assert {problem.control for problem in st.clean(values)[1]} == {"layer_chooser", "merge_strategy"}


def test_the_threshold_is_off_without_a_chooser_and_its_words_are_the_choosers():
    from loopviz.app.controls.face import face

    control = st.BY_NAME["layer_threshold"]
    off = face(control, st.defaults(), [], "en")
    assert (off["interactive"], off["info"]) == (False, "Off: only used with a layer chooser.")
    infos = {
        face(control, {**st.defaults(), "layer_chooser": name}, [], "en")["info"]
        for name in ("influence", "difficulty")
    }
    assert len(infos) == 2


@pytest.mark.parametrize(("name", "value"), [("loop_injection", "linear"), ("loop_norm", True)])
def test_a24_the_model_a_refusal_offers_has_what_is_lacking(name: str, value: Any) -> None:
    cleaned, _ = st.clean(st.defaults() | {"block_start": 1, "block_end": 2, "loop_damping": 0.5, name: value})
    (problem,) = st.check_loop(cleaned, MODEL)
    assert (problem.control, problem.model) == (name, st.HAS[name])
    offered = LoopLlamaConfig.from_pretrained(ROOT / "assets" / "models" / problem.model)
    assert st.brought(offered)[name] == value


def test_a_gate_is_refused_where_none_was_learned_and_gives_way_to_a_model_without_one() -> None:
    cleaned, _ = st.clean(st.defaults() | {"block_start": 1, "block_end": 2, "exit_selection": "gate"})
    (problem,) = st.check_loop(cleaned, MODEL)
    assert (problem.control, problem.model) == ("exit_selection", "")
    found, gave = st.suited(cleaned, MODEL.config, ["exit_selection"])
    assert (found["exit_selection"], gave) == ("last", {"exit_selection": "gate"})


def test_slots_may_be_more_than_least_loops_where_the_unreached_hold_the_latest() -> None:
    values = st.defaults() | {"loop_strategy": "dynamic_stop", "min_loop_count": 1, "virtual_layer_count": 5}
    assert st.fitted(values)["virtual_layer_count"] == 1
    assert st.fitted({**values, "unreached_slots": "latest"}) == {}


def test_a24_every_model_a_refusal_offers_is_one_of_the_list() -> None:
    assert set(st.HAS.values()) <= set(OFFERED)


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_precision_says_what_the_server_has_and_what_each_costs(lang: str) -> None:
    from loopviz.app.controls.face import face

    control = st.BY_NAME["precision"]
    info = {name: face(control, {**st.defaults(), "precision": name}, [], lang)["info"] for name in control.choices}
    assert len({*info.values()}) == len(control.choices) == 5
    assert info["server"].endswith(info["exact"]), "as a server has them that says nothing"
    other = face(control, st.defaults(), [], lang, server="int8")["info"]
    assert other.endswith(info["int8"])
    assert "int8" in other
    costs = text(lang, "precision.info")
    assert [name for name, said in info.items() if costs in said] == ["half", "int8", "auto"], "exact costs nothing"


@pytest.mark.parametrize(
    ("dtype", "precision"),
    [("float32", "exact"), ("float16", "half"), ("bfloat16", "half"), ("int8", "int8"), ("", "server")],
)
def test_a_run_is_taken_over_in_the_precision_that_it_was_made_in(dtype: str, precision: str) -> None:
    meta = random_trace(3, 2).meta
    if dtype:
        meta["provenance"] = {"dtype": dtype}
    assert st.of_run(meta)[0]["precision"] == precision
