"""Stages: each names code that is there, tensors with the axes it says, and numbers that hold."""

from __future__ import annotations

import importlib
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loopviz.anatomy import stages
from loopviz.anatomy.llama import rotary_frequencies, rotate, rotation
from tests.anatomy.test_probe import KINDS, model_of, probed


@pytest.mark.parametrize("stage", stages.STAGES, ids=lambda stage: stage.name)
def test_a_stage_names_code_that_is_there_and_stages_before_it(stage):
    module, _, name = stage.code.partition(":")
    found = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    assert callable(found)
    before = [each.name for each in stages.STAGES[: stages.STAGES.index(stage)]]
    assert set(stage.reads) <= set(before)


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
        for stage in stages.STAGES:
            shape = stages.shape_of(stage, run)
            assert shape == {axis: sizes.get(axis, len(run.visible)) for axis in shape}
            assert all(map(math.isfinite, stages.facts(stage, run).values()))


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
    said = stages.step_facts(step, 0.6)
    assert said["change"] == pytest.approx(float((step.state - step.previous).norm() / step.state.norm()))
    assert said["wanted_added_norm"] * 0.6 == pytest.approx(float((step.state - step.previous).norm()))
    assert said["entered_cosine"] < 0.999
