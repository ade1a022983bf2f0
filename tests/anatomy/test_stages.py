"""Stages: each names code that is there, tensors with the axes it says, and numbers that hold."""

from __future__ import annotations

import importlib
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loopviz.anatomy import stages
from loopviz.anatomy.llama import rotary_frequencies, rotate, rotation
from loopviz.anatomy.other_stages import OTHERS
from loopviz.anatomy.stage_list import ALL
from loopviz.anatomy.way import Traits, way
from loopviz.loop_fields import INITS, KV_DTYPES, NORM_PLACEMENTS, QK_NORMS
from tests.anatomy.test_probe import KINDS, PLAIN, model_of, probed
from tests.model import tiny

EVERY = (*ALL, *OTHERS)
BRANCH = {"norm_attended", "norm_down"}
# What the run of a layer that ends a loop has of stages that a plain Llama has not, by kind of model.
MORE = {
    "norms on the branches": BRANCH,
    "norms on the stream": {"norm_stream", "norm_result"},
    "no norms before": BRANCH,
    "heads normed": {"norm_query", "norm_key"},
    "all heads normed": {"norm_query", "norm_key"},
    "scaled": {"scaled"},
    "int8": {"rounded"},
    "fp8, parallel": {"rounded"},
    "int8, merged": {"rounded"},
    "steps normed": {"step_norm"},
    "steps normed to the end": {"step_norm"},
    "normed once": {"left_norm"},
    "from noise": set(),
    "from zeros": set(),
    "gate": {"read_out"},
    "gate at the end": {"read_out"},
    "gate of normed steps": {*BRANCH, "step_norm", "read_out"},
    "gate, then a norm": {"norm_stream", "norm_result", "read_out", "left_norm"},
    "weighted normed steps": {"step_norm", "read_out"},
    "weighted at the end": {"read_out"},
    "what it would say decides": set(),
    "normed steps decide": {"step_norm"},
    "chosen layers of normed steps": {"step_norm"},
}
LESS = {  # ... and has not of its own
    "no norms before": {"norm", "norm_mlp"},
    "steps normed to the end": {"final_norm"},
    "gate at the end": {"final_norm"},
    "gate of normed steps": {"final_norm"},
    "weighted normed steps": {"final_norm"},
    "weighted at the end": {"final_norm"},
    "normed steps decide": {"final_norm"},
}


@pytest.mark.parametrize("kind", PLAIN)
def test_a_plain_llama_s_layers_have_the_stages_that_they_always_had(kind: str) -> None:
    model = model_of(kind)
    found = probed(model, 4, 0)
    for run in found.layers:
        assert stages.stages_of(found, run, model.config) == ALL


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in PLAIN])
def test_a_stage_is_listed_where_the_model_has_it_and_nowhere_else(kind: str) -> None:
    model = model_of(kind)
    found = probed(model, 4, 0)
    plain, last = {stage.name for stage in ALL}, found.last_run(0)
    assert last is not None
    names = [stage.name for stage in stages.stages_of(found, last, model.config)]
    assert len(names) == len(set(names))
    assert set(names) - plain == MORE[kind]
    assert plain - set(names) == LESS.get(kind, set())
    first = next(run for run in found.layers if run.block == 0)
    ending = {"step_norm", "read_out", "left_norm"} if first.normed_step is None else {"read_out", "left_norm"}
    told = {stage.name for stage in stages.stages_of(found, first, model.config)}
    assert told - plain == MORE[kind] - ending | ({"start"} if "loop_init" in KINDS[kind] else set())


def test_layers_of_one_model_that_keep_differently_have_each_its_own_stages() -> None:
    model = tiny.build({**tiny.TWO, "kv_cache_dtype": ["exact", "int8"]}).double()
    found = probed(model, 4, 0)
    rounds = {
        run.layer: "rounded" in {stage.name for stage in stages.stages_of(found, run, model.config)}
        for run in found.layers
    }
    assert rounds == {0: False, 1: False, 2: True, 3: True}


TRAITS = st.builds(
    Traits,
    placement=st.sampled_from(NORM_PLACEMENTS),
    qk_norm=st.sampled_from(QK_NORMS),
    kept=st.sampled_from(KV_DTYPES),
    start=st.sampled_from(INITS),
    exit=st.sampled_from(["", "gate", "weighted"]),
    **{
        name: st.booleans()
        for name, field in Traits.__dataclass_fields__.items()
        if field.default in (True, False) and isinstance(field.default, bool)
    },
)


@given(traits=TRAITS)
def test_any_way_is_of_stages_that_a_page_knows_each_after_what_it_reads(traits: Traits) -> None:
    found: list[Any] = list(way(traits))
    assert set(found) <= set(EVERY)
    names = [stage.name for stage in found]
    assert len(names) == len(set(names))
    for place, stage in enumerate(found):
        if stage.name in ("head", "final_norm") and not {*stage.reads} & {*names}:
            continue  # it reads what another layer ends with
        assert not stage.reads or {*stage.reads} & {*names[:place]}, stage.key


def test_no_two_stages_have_one_key_and_all_are_some_layer_s() -> None:
    assert len({stage.key for stage in EVERY}) == len(EVERY)


@pytest.mark.parametrize("stage", EVERY, ids=lambda stage: stage.key)
def test_a_stage_names_code_that_is_there_and_stages_before_it(stage):
    module, _, name = stage.code.partition(":")
    found = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    assert callable(found)
    names = {each.name for each in EVERY}
    assert set(stage.reads) <= names - {stage.name}


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_have_the_axes_that_are_said_and_facts_are_finite(kind):
    model = model_of(kind)
    found, config = probed(model, 4, 0), model.config
    sizes = {
        "H": config.hidden_size,
        "N": config.num_attention_heads,
        "K": config.num_key_value_heads,
        "D": config.head_dim,
        "F": config.intermediate_size,
    }
    for run in found.layers:
        for stage in stages.layer_stages(found, run, config):
            shape = stages.shape_of(stage, run)
            assert shape == {axis: sizes.get(axis, len(run.visible)) for axis in shape}
            said = stages.facts(stage, run)
            # out of zeros there is no share and no angle
            assert all(map(math.isfinite, said.values())) or not bool(run.state.any())


def test_facts_by_hand():
    model = model_of("parallel")
    found = probed(model, 4, 0)
    run = found.layer_run(1, 2)
    assert run is not None
    norm = stages.facts(stages.BY_NAME["norm"], run)
    x = run.state.tolist()
    assert norm["rms"] == pytest.approx(math.sqrt(sum(v * v for v in x) / len(x)))
    assert norm["std"] == pytest.approx(math.sqrt(norm["rms"] ** 2 - norm["mean"] ** 2))
    assert norm["layer_norm_cosine"] == pytest.approx(norm["std"] / norm["rms"])
    between = stages.facts(stages.BY_NAME["between"], run)
    after, before = run.between, run.state
    wanted = math.degrees(math.acos(float(after @ before / after.norm() / before.norm())))
    assert between["degrees"] == pytest.approx(wanted)
    assert between["ratio"] == pytest.approx(float((after - before).norm() / before.norm()))
    attention = stages.facts(stages.BY_NAME["weights"], run)
    positions, _ = run.columns()
    own = sum(float(run.weights[:, i].mean()) for i, place in enumerate(positions.tolist()) if place == found.position)
    assert attention["itself"] == pytest.approx(own)
    assert attention["seen"] == int(run.visible.sum())
    mixed = stages.facts(stages.BY_NAME["mixed"], run)
    assert mixed["difference"] < 1e-12 < mixed["largest"]
    product = stages.facts(stages.BY_NAME["product"], run)
    squares = sorted((v * v for v in run.product.tolist()), reverse=True)
    half = int(product["half"])
    assert sum(squares[: half - 1]) < sum(squares) / 2 <= sum(squares[:half])
    swish = stages.facts(stages.BY_NAME["swish"], run)
    assert swish["beta_1"] == pytest.approx(float(run.swish.norm()))


def test_a_state_of_zeros_has_no_angle_and_raises_nothing():
    zero = torch.zeros(8, dtype=torch.float64)
    assert math.isnan(stages.moves(zero, torch.ones(8))["degrees"])
    assert stages.norm_facts(zero)["rms"] == 0


@given(seed=st.integers(0, 999), query_at=st.integers(0, 120), key_at=st.integers(0, 120), shift=st.integers(0, 400))
def test_a_score_depends_on_distance_alone(seed, query_at, key_at, shift):
    config, random = model_of("plain").config, torch.Generator().manual_seed(seed)
    query, key = torch.randn(2, config.head_dim, generator=random, dtype=torch.float64)
    frequencies = rotary_frequencies(config).double()

    def turned(x, place):
        angle = (torch.tensor([place]).double()[:, None] * frequencies).repeat(1, 2)
        return rotate(x[None], angle.cos(), angle.sin())[0]

    said = stages.score_by_distance(query, key, config, torch.tensor([query_at - key_at]))
    for moved in (0, shift):
        score = turned(query, query_at + moved) @ turned(key, key_at + moved) * config.head_dim**-0.5
        torch.testing.assert_close(said[0], score, rtol=1e-9, atol=1e-9)


def test_keys_are_turned_back_to_what_the_projection_gave():
    model = model_of("serial")
    found = probed(model, 4, 0)
    run = found.layer_run(1, 3)
    assert run is not None
    positions, _ = run.columns()
    own = stages.unturned(run.keys, positions, model.config)[:, positions == found.position][:, -1]
    torch.testing.assert_close(own, run.key, rtol=1e-6, atol=1e-6)  # the model's angles are float32
    cos, _ = rotation(rotary_frequencies(model.config), torch.tensor([found.position]))
    half = model.config.head_dim // 2
    torch.testing.assert_close(
        stages.angles(model.config, found.position).cos(), cos[0, :half].double(), atol=1e-6, rtol=0
    )


def test_a_loop_step_around_the_layers():
    model = model_of("injected")
    found = probed(model, 4, 0)
    (step,) = [each for each in found.steps if each.step == 2]
    said = stages.step_facts(step, found)
    assert said["change"] == pytest.approx(float((step.state - step.previous).norm() / step.state.norm()))
    assert said["wanted_added_norm"] * 0.6 == pytest.approx(float((step.state - step.previous).norm()))
    assert said["entered_cosine"] < 0.999
    assert said["damping"] == 0.6
    assert not {"zeros", "random", "normed", "leaves"} & said.keys()


def test_what_is_said_of_a_loop_step_that_starts_elsewhere_ends_in_a_norm_or_has_a_gate() -> None:
    found = probed(model_of("from zeros"), 4, 0)
    first, second, *_ = [stages.step_facts(step, found) for step in found.steps]
    assert first["zeros"] == first["wanted_state_norm"] == 0
    assert "zeros" not in second
    found = probed(model_of("from noise"), 4, 0)
    assert stages.step_facts(found.steps[0], found)["random"] == pytest.approx(
        float(found.steps[0].previous.std(correction=0))
    )
    found = probed(model_of("gate of normed steps"), 4, 0)
    said, last = [stages.step_facts(step, found) for step in found.steps], found.last_run(0)
    assert [each["normed"] for each in said] == pytest.approx([float(step.state.norm()) for step in found.steps])
    assert last is not None
    assert last.exits is not None
    assert [each["leaves"] for each in said] == pytest.approx(last.exits.tolist())
    assert said[-1]["left"] == pytest.approx(1)


def test_facts_of_other_stages_by_hand() -> None:
    model = model_of("int8")
    found = probed(model, 4, 0)
    run = found.layers[1]
    assert run.turned_key is not None
    assert run.kept_key is not None
    said = stages.facts(next(stage for stage in OTHERS if stage.key == "rounded.int8"), run)
    worst = max(
        abs(a - b) for a, b in zip(run.turned_key.flatten().tolist(), run.kept_key.flatten().tolist(), strict=True)
    )
    assert said["key_off"] == pytest.approx(worst / float(run.turned_key.abs().max()))
    assert 0 < said["key_off"] <= 0.5 / 127 * 1.01
    model = model_of("norms on the branches")
    run = probed(model, 4, 0).layers[1]
    between = stages.facts(stages.BY_NAME["between"], run)
    assert run.normed_attended is not None
    assert between["added_norm"] == pytest.approx(float(run.normed_attended.norm()))
    model = model_of("heads normed")
    run = probed(model, 4, 0).layers[1]
    said = stages.facts(next(stage for stage in OTHERS if stage.name == "norm_query"), run)
    sizes = [math.sqrt(sum(v * v for v in head) / len(head)) for head in run.query.tolist()]
    assert (said["least"], said["largest"]) == (pytest.approx(min(sizes)), pytest.approx(max(sizes)))
