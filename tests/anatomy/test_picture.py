"""What is shown of a probed token is the probe's: every number, its window said, two loop steps side by side."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from loopviz.anatomy import picture, stages
from loopviz.anatomy.picture import beside, distances, largest_of, layer_picture
from loopviz.anatomy.stage_list import ALL, BETAS, STAGES
from tests.anatomy.test_probe import KINDS, model_of, probed


@pytest.mark.parametrize("kind", KINDS)
def test_every_tensor_is_the_probe_s(kind):
    model = model_of(kind)
    found = probed(model, 4, 0)
    for run in found.layers:
        shown = layer_picture(found, run, model)
        own = stages.layer_stages(found, run, model.config)
        assert shown.stages == tuple(stage.key for stage in stages.stages_of(found, run, model.config))
        assert shown.facts.keys() == shown.shapes.keys() == {stage.name for stage in own}
        assert {name for stage in own for name in stage.drawn} <= shown.tensors.keys()
        assert (shown.layer, shown.block, shown.step) == (run.layer, -1 if run.block is None else run.block, run.step)
        for stage in own:
            for name in stage.tensors:
                if name == "visible":
                    assert list(shown.columns.visible) == run.visible.tolist()
                    continue
                wanted = getattr(run, name).numpy()
                if name in ("keys", "values"):
                    wanted = wanted[:, [shown.columns.places[i] for i in shown.columns.keys]]
                np.testing.assert_array_equal(shown.tensors[name], wanted.astype(np.float32))
            assert shown.facts[stage.name].keys() == stages.facts(stage, run).keys()
        assert shown.columns.share == pytest.approx([1] * run.scores.shape[0])
        positions, slots = run.columns()
        assert (shown.columns.positions, shown.columns.slots) == (tuple(positions.tolist()), tuple(slots.tolist()))


def test_what_stands_beside_a_stage_is_computed_of_the_same_tensors():
    model = model_of("parallel")
    found = probed(model, 4, 0)
    run = found.layer_run(1, 2)
    assert run is not None
    shown = layer_picture(found, run, model)
    x = run.state.double()
    by_hand = (x - x.mean()) / (x - x.mean()).pow(2).mean().sqrt()
    np.testing.assert_allclose(shown.tensors["layer_norm"], by_hand.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(shown.tensors["gain"], model.model.layers[1].input_layernorm.weight.detach().numpy())
    for beta in BETAS:
        u = run.gate.double().numpy()
        np.testing.assert_allclose(shown.tensors[f"swish_{beta:g}"], u / (1 + np.exp(-beta * u)), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(shown.tensors["swish_1"], shown.tensors["swish"], rtol=1e-5, atol=1e-6)


def test_a_long_text_is_windowed_and_it_is_said(monkeypatch: pytest.MonkeyPatch):
    """The first columns, where attention rests, and the last before the token; of keys and values fewer."""
    for name, value in {"FIRST": 1, "LATER": 1, "LEAST_COLUMNS": 4, "MOST_COLUMNS": 4, "MOST_KEYS": 1}.items():
        monkeypatch.setattr(picture, name, value)
    model = model_of("parallel")
    found = probed(model, 1, 3)
    run = found.layer_run(1, 2)
    assert run is not None
    shown = layer_picture(found, run, model)
    assert shown.columns.total == run.keys.shape[1] > 4
    assert shown.columns.seen == int(run.visible.sum())
    places = list(shown.columns.places)
    last = int(run.visible.nonzero().max())
    assert places == [0, last - 1, last, last + 1]
    assert shown.columns.visible[:3] == tuple(run.visible[places[:3]].tolist())
    assert not shown.columns.visible[3]  # it comes later
    np.testing.assert_array_equal(shown.tensors["weights"], run.weights[:, places].float().numpy())
    assert shown.columns.share == pytest.approx(run.weights[:, places].sum(-1).tolist())
    assert all(0 < share < 1 for share in shown.columns.share)
    kept = [places[i] for i in shown.columns.keys]
    np.testing.assert_array_equal(shown.tensors["keys"], run.keys[:, kept].float().numpy())


def test_a_wide_vector_is_narrowed_by_the_largest_of_neighbours():
    assert largest_of(np.array([1.0, -3.0, 2.0, 0.5, -0.25], np.float32), 2).tolist() == [-3.0, 2.0, -0.25]


def test_two_loop_steps_side_by_side():
    model = model_of("serial")
    found = probed(model, 4, 0)
    a, b = found.layer_run(1, 1), found.layer_run(1, 3)
    assert a is not None
    assert b is not None
    for stage in STAGES:
        pair = beside(found, a, b, model.config).stages[stage.name]
        x, y = (getattr(run, stage.tensors[0]).double().flatten() for run in (a, b))
        if x.shape != y.shape:
            assert pair is None
            continue
        assert pair is not None
        assert pair[0] == pytest.approx(float(x @ y / x.norm() / y.norm()))
        assert pair[1] == pytest.approx(float((x - y).norm() / x.norm()))
    assert all(
        pair is None or pair == (pytest.approx(1.0), 0.0) for pair in beside(found, a, a, model.config).stages.values()
    )


def test_of_two_loop_steps_only_what_both_have_is_compared() -> None:
    """A start is the first step's alone."""
    model = model_of("from noise")
    found = probed(model, 4, 0)
    first, second = found.layer_run(1, 1), found.layer_run(1, 2)
    assert first is not None
    assert second is not None
    assert "start" in layer_picture(found, first, model).facts
    for a, b in ((first, second), (second, first)):
        pairs = beside(found, a, b, model.config).stages
        assert "start" not in pairs
        assert "state" in pairs


@pytest.mark.parametrize("kind", ["serial", "heads normed", "all heads normed", "int8"])
def test_the_score_at_the_run_s_own_distance_is_the_run_s(kind: str) -> None:
    model = model_of(kind)
    run = probed(model, 6, 0).layers[-1]
    positions, _ = run.columns()
    for head in range(run.query.shape[0]):
        for column in (run.visible.nonzero().flatten().tolist())[:3]:
            found = distances(run, model.config, head, column, 8, 9).scores
            here = run.past + stages.row_of(run) - int(positions[column])
            assert float(found[here]) == pytest.approx(float(run.scores[head, column]), rel=1e-4, abs=1e-5)
    with pytest.raises(ValueError, match="head=99"):
        distances(run, model.config, 99, 0, 8, 9)


@pytest.mark.parametrize("many", [1, 2, 3, 5, 30])
@pytest.mark.parametrize("most", [9, 20, 10**30])
def test_of_more_distances_than_are_told_the_run_s_own_is_one(many: int, most: int) -> None:
    model = model_of("serial")
    run = probed(model, 6, 0).layers[-1]
    positions, _ = run.columns()
    every = distances(run, model.config, 1, 0, 60, 61).scores
    for column in run.visible.nonzero().flatten().tolist()[:3]:
        found = distances(run, model.config, 1, column, most, many)
        own = run.past + stages.row_of(run) - int(positions[column])
        assert len(found.scores) == min(many, most + 1)
        assert found.first in range(own - len(found.scores) + 1, own + 1)
        assert found.first + len(found.scores) <= most + 1
    found = distances(run, model.config, 1, 0, most, many)
    assert found.scores == pytest.approx(every[found.first : found.first + len(found.scores)], rel=1e-12)


def test_every_stage_is_listed_once_and_what_is_before_and_after_too():
    names = [stage.name for stage in ALL]
    assert len(names) == len(set(names)) == len(STAGES) + 4
    assert names[0] == "embedding"
    assert names[-1] == "sampling"
    assert math.isfinite(torch.tensor(BETAS).sum())
