"""From any model to any other: the run is what the controls show, and they show what the rule says.

The rule, written down here a second time and from the models' own files: every control that the visitor did not touch
holds what the model brings; what was touched stays, unless this model cannot have it.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as hs

from loopviz.app import controls as st
from loopviz.app.controls.examples import OFFERED
from loopviz.app.controls.presets import PRESETS
from loopviz.app.explore.run import Registry
from loopviz.app.explore.service import Service
from loopviz.app.sessions.models import ModelRoom
from loopviz.engine.local import LocalEngine as Loaded
from loopviz.model.checkpoints.load import load_checkpoint
from tests.app.page_double import unwire
from tests.conftest import make_llama, make_tokenizer

ASSETS = Path(__file__).resolve().parents[3] / "assets" / "models"
BUNDLED = ("stories-loop", "stories-noinject", "arrows-loop", "glassbox")
PLAIN = {"plain-4": 4, "plain-30": 30}  # layers; Llamas never made to loop, the second as deep as SmolLM2
MODELS = (*BUNDLED, *PLAIN)

# What a visitor may have set: nothing; counts past a model's bound; what only some models can have; a preset.
TOUCHED: Mapping[str, dict[str, Any]] = {
    "nothing": {},
    "loops": {"loop_count": 12, "loop_damping": 0.5, "max_new_tokens": 1},
    "bound": {"loop_strategy": "dynamic_stop", "max_loop_count": 3},
    "slots": {"loop_strategy": "dynamic_stop", "kv_cache_mode": "virtual_layers", "virtual_layer_count": 6},
    "deep": {"block_start": 2, "block_end": 3, "loop_norm": True, "loop_injection": "linear"},
    "preset": dict(next(preset for preset in PRESETS if preset.name == "kl").values),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Loaded]:
    """All six, loaded as the page loads them."""
    found = {}
    for name in MODELS:
        place = name
        if name in PLAIN:
            folder = tmp_path_factory.mktemp(name)
            model = make_llama(num_hidden_layers=PLAIN[name], hidden_size=16, intermediate_size=16)
            model.save_pretrained(folder)
            make_tokenizer().save_pretrained(folder)
            place = str(folder)
        checkpoint = load_checkpoint(place)
        found[name] = Loaded(name, checkpoint.model, checkpoint.tokenizer)
    return found


def own(name: str) -> dict[str, Any]:
    """What a model brings, read from its own file."""
    usual = {c.name: c.default for c in st.CONTROLS if c.group in ("loop", "kv", "step")}
    if name in PLAIN:
        start, end = {4: (1, 1), 30: (10, 14)}[PLAIN[name]]
        return usual | {"block_start": start, "block_end": end}
    config = json.loads((ASSETS / name / "config.json").read_text())
    same = {key: config[key] for key in usual if key in config and not key.endswith("_threshold")}
    found = usual | same | {"block_start": config["loop_layers"][0], "block_end": config["loop_layers"][1]}
    if config["kv_cache_mode"] == "merge_strategy":
        found["min_loop_count"] = config.get("min_loop_count", 1)
        found["virtual_layer_count"] = usual["virtual_layer_count"]
    assert (config["cosine_threshold"], config["kl_threshold"]) == (0.95, 0.01), "the sliders' own places"
    return found


def can_have(name: str, control: str, value: Any) -> bool:
    """Whether a model can have a value at all."""
    if control in ("block_start", "block_end"):
        layers = PLAIN.get(name) or json.loads((ASSETS / name / "config.json").read_text())["num_hidden_layers"]
        return bool(value < layers)
    weights = {"loop_norm": {"stories-loop", "arrows-loop"}, "loop_injection": {"glassbox"}}
    return value in (False, "none", "add") or name in weights.get(control, MODELS)


def rule(name: str, touched: Mapping[str, Any]) -> dict[str, Any]:
    """The controls of `BROUGHT` for a model after `touched`; of what depends on another, only what TOUCHED comes to."""
    kept = {key: value for key, value in touched.items() if key in st.BROUGHT and can_have(name, key, value)}
    found = own(name) | kept
    if "block_end" not in kept:
        found["block_end"] = max(found["block_end"], found["block_start"])
    if found["loop_strategy"] == "fixed_count":
        found["max_loop_count"] = max(found["max_loop_count"], found["loop_count"])
    else:
        if "virtual_layer_count" in kept:  # there are so many slots: each is written at least once
            found["min_loop_count"] = max(found["min_loop_count"], found["virtual_layer_count"])
            found["max_loop_count"] = max(found["max_loop_count"], found["min_loop_count"])
        found["min_loop_count"] = min(found["min_loop_count"], found["max_loop_count"])
        if found["kv_cache_mode"] == "virtual_layers":
            found["virtual_layer_count"] = min(found["virtual_layer_count"], found["min_loop_count"])
    return found


class PageDouble:
    """What the page keeps of its controls: their values, whose they are, and what the visitor touched."""

    def __init__(self, models: dict[str, Loaded]) -> None:
        self.held: set[str] = set()
        self.room = ModelRoom("stories-loop", load=lambda name, progress, local: models[name])
        self.service = Service(self.room, Registry(), every=0)
        self.values = st.defaults() | {st.SUITS: ""}
        self.touched: set[str] = set()
        self.gave: dict[str, Any] = {}

    @property
    def named(self) -> dict[str, Any]:
        return self.values | {st.TOUCHED: tuple(self.touched), st.GAVE: self.gave}

    def choose(self, model: str) -> None:
        self.values["model"] = model

    def touch(self, **values: Any) -> None:
        self.values |= values
        self.touched |= values.keys()
        self.values |= st.fitted(st.clean(self.values)[0], self.touched)

    def arrive(self) -> None:
        """The model is there: what `ExplorePage._suit` says is put into the controls."""
        self.room.get(self.values["model"])
        found = self.service.suited(self.named)
        if found is not None:
            changes, self.gave = found
            self.touched -= self.gave.keys()
            self.values |= changes | {st.SUITS: self.values["model"]}

    def run(self) -> dict[str, Any]:
        """Press Run; the run's meta."""
        prompt = OFFERED["stories-loop"].examples[0] if self.values["model"] in PLAIN else ""
        prompt = prompt or OFFERED[self.values["model"]].examples[0]
        values = self.named | {"max_new_tokens": 1}
        messages = [unwire(text) for text in self.service.run(prompt, values, "en", "me")]
        assert messages[-1]["kind"] != "status", messages[-1]["text"]
        (run,) = self.service.registry.of_session("me")
        return run.trace.meta


def fields_of(meta: Mapping[str, Any]) -> dict[str, Any]:
    """The loop fields of a run's meta as a form's are."""
    return {**meta["loop"], "loop_layers": tuple(meta["loop"]["loop_layers"])}


def shown(page: PageDouble) -> dict[str, Any]:
    return {name: page.values[name] for name in st.BROUGHT}


@pytest.mark.parametrize("touched", TOUCHED)
@pytest.mark.parametrize("when", ["before it arrives", "after it has arrived"])
@pytest.mark.parametrize("pair", list(itertools.permutations(MODELS, 2)), ids="-to-".join)
def test_every_model_after_every_other(
    models: dict[str, Loaded], pair: tuple[str, str], when: str, touched: str
) -> None:
    """A1, A2 and case_model_switch: 4 of 4 switches kept the former model's settings."""
    page = PageDouble(models)
    page.choose(pair[0])
    page.arrive()
    assert shown(page) == rule(pair[0], {})
    page.touch(**TOUCHED[touched])
    page.choose(pair[1])
    if when == "after it has arrived":
        page.arrive()
    meta = page.run()
    page.arrive()  # what the page asks for as the run begins
    wanted = {key: value for key, value in page.values.items() if key in page.touched}
    assert meta["model"] == pair[1]
    assert fields_of(meta).items() >= st.loop_fields(page.values).items(), "the run is what the controls show"
    assert shown(page) == rule(pair[1], TOUCHED[touched]), "which is what the rule says"
    lost = {key for key, value in TOUCHED[touched].items() if key in st.BROUGHT and shown(page)[key] != value}
    assert lost == page.gave.keys(), "what gave way says so"
    assert wanted.items() >= {k: v for k, v in TOUCHED[touched].items() if k not in lost}.items()


@pytest.mark.parametrize("order", list(itertools.permutations(("stories-loop", "glassbox", "plain-30"))), ids="-".join)
def test_a_long_way_round_leaves_nothing_behind(models: dict[str, Loaded], order: tuple[str, ...]) -> None:
    page = PageDouble(models)
    for name in (*order, *reversed(order)):
        page.choose(name)
        page.arrive()
        assert shown(page) == rule(name, {})
    page.touch(loop_count=20)
    for name in (*order, *reversed(order)):
        page.choose(name)
        page.arrive()
        assert shown(page) == rule(name, {"loop_count": 20})


def test_set_loops_12_press_run_it_runs_12(models: dict[str, Loaded]) -> None:
    """A2: it ran 8, and the controls jumped to 8."""
    page = PageDouble(models)
    page.choose("stories-loop")
    page.touch(loop_count=12, max_loop_count=20)
    assert page.run()["blocks"][0]["max_steps"] == 12
    page.arrive()
    assert (page.values["loop_count"], page.values["max_loop_count"]) == (12, 20)


def test_what_gave_way_does_not_come_back_to_haunt(models: dict[str, Loaded]) -> None:
    """Layers 20..25 on a deep model, then a shallow one, then the deep one: its middle, not the shallow one's block."""
    page = PageDouble(models)
    page.choose("plain-30")
    page.arrive()
    page.touch(block_start=20, block_end=25)
    page.choose("stories-loop")
    page.arrive()
    assert page.gave == {"block_start": 20, "block_end": 25}
    page.choose("plain-30")
    page.arrive()
    assert shown(page) == rule("plain-30", {})
    assert page.gave == {}


def test_a_run_that_waits_for_its_model_takes_what_is_set_meanwhile(models: dict[str, Loaded]) -> None:
    """It runs with what the controls show as it starts."""
    page, gate = PageDouble(models), threading.Event()

    def load(name: str, progress: Any, local: bool) -> Loaded:
        gate.wait(10)
        return models[name]

    page.room._load = load
    page.choose("stories-loop")
    stream = page.service.run("Once upon a time", page.named | {"max_new_tokens": 1}, "en", "me")
    next(stream)  # it waits
    page.touch(loop_count=3, max_new_tokens=1)
    assert page.service.steer(page.named, "en", "me") == (None, {})
    page.choose("plain-4")
    page.service.steer(page.named, "en", "me")
    gate.set()
    assert unwire(list(stream)[-1])["end"] == "length"
    (run,) = page.service.registry.of_session("me")
    assert run.trace.meta["model"] == "plain-4"
    assert run.trace.meta["blocks"][0]["max_steps"] == 3
    assert shown(page) != rule("plain-4", {"loop_count": 3})
    page.arrive()
    assert shown(page) == rule("plain-4", {"loop_count": 3})


def _legal(control: st.Control) -> hs.SearchStrategy[Any]:
    if control.kind == "choice":
        return hs.sampled_from(control.choices)
    if control.kind == "flag":
        return hs.booleans()
    if control.kind == "whole":
        return hs.integers(int(control.low), int(min(control.high, 64)))
    return hs.floats(control.low, control.high)


FORMS = hs.fixed_dictionaries({name: _legal(st.BY_NAME[name]) for name in st.BROUGHT})


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(FORMS, hs.sets(hs.sampled_from(st.BROUGHT)), hs.sampled_from(MODELS))
def test_whatever_was_set_a_model_that_arrives_can_run(
    models: dict[str, Loaded], form: dict[str, Any], touched: set[str], name: str
) -> None:
    model = models[name].model
    before = st.defaults() | form
    after, gave = st.suited(before, model.config, touched)
    assert st.check_loop(after, model) == []
    assert gave == {key: before[key] for key in touched if after[key] != before[key]}, "what was touched, or says so"
    assert gave.keys() <= touched
    assert st.suited(after, model.config, touched - gave.keys()) == (after, {}), "to arrive twice changes nothing"
