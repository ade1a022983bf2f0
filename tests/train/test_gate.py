"""A gate is trained as its formula says, on a model that stays as it is."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from loopviz.checks import FieldError
from loopviz.cli.main import main
from loopviz.engine import weights_digest
from loopviz.model.checkpoints import load_model
from loopviz.model.exit_gate import read_gate
from loopviz.train.gate import GateRecipe, readings, recipe_for, targets, train_gate
from loopviz.train.text import TextError
from loopviz.train.trainer import TrainingError
from tests.engine import tiny
from tests.train.small import story

LOOP = {"loop_layers": (1, 4), "loop_damping": 0.5, "virtual_attention_mode": "serial", "loop_count": 4}
SMALL = {"loops": 4, "steps": 30, "batch": 2, "length": 12, "lr": 0.1}
TOKENS = np.random.default_rng(0).integers(1, 200, 300)


def test_how_right_it_is_to_stop_by_hand():
    losses = torch.tensor([[3.0], [2.0], [1.995], [2.5]])
    expected = [1 / (1 + math.exp(50 * (worth - 0.005))) for worth in (1.0, 0.005, 0.0)]
    assert targets(losses).flatten().tolist() == pytest.approx(expected, abs=1e-4)
    assert targets(losses, sharpness=1.0, margin=0.0)[0].item() == pytest.approx(1 / (1 + math.e))


def test_it_is_taught_by_what_stopping_after_each_loop_loses():
    model = tiny.model(**LOOP)
    view = model.with_loop()
    ids = torch.tensor(TOKENS[None, :9])
    normed, losses = readings(view, ids[:, :-1], ids[:, 1:])
    assert normed.shape == (4, 1, 8, 32)
    for r in (1, 3, 4):
        with torch.no_grad():
            logits = model.with_loop(loop_count=r)(ids[:, :-1], use_cache=False).logits
        own = torch.nn.functional.cross_entropy(logits[0], ids[0, 1:], reduction="none")
        torch.testing.assert_close(losses[r - 1, 0].float(), own, rtol=1e-4, atol=1e-4)


def test_a_trained_gate_has_learned_something_and_the_model_nothing():
    model, said = tiny.model(**LOOP), []
    before = weights_digest(model)
    gate = train_gate(model, TOKENS, GateRecipe(**SMALL), lambda step, loss: said.append((step, loss)))
    assert weights_digest(model) == before
    assert [step for step, _ in said] == list(range(1, 31))
    losses = [loss for _, loss in said]
    assert losses[0] == pytest.approx(math.log(2), rel=1e-5), "at first it says one half everywhere"
    assert np.mean(losses[-8:]) < np.mean(losses[:8]) - 0.02
    again = train_gate(model, TOKENS, GateRecipe(**SMALL))
    assert torch.equal(gate.weight, again.weight), "the seed repeats it"
    other = train_gate(model, TOKENS, GateRecipe(**SMALL, seed=1))
    assert not torch.equal(gate.weight, other.weight)


def test_a_model_without_numbers_is_taught_no_gate():
    """A file of NaN was written, which no model takes."""
    model = tiny.model(**LOOP)
    with torch.no_grad():
        model.lm_head.weight[3] = torch.nan
    with pytest.raises(TrainingError, match=r"step 1: loss=nan.*lr=0\.1"):
        train_gate(model, TOKENS, GateRecipe(**SMALL))


@pytest.mark.parametrize(
    ("fields", "said"),
    [({"loops": 1}, "loops=1"), ({"steps": 0}, "steps=0"), ({"lr": 0.0}, "lr=0.0"), ({"margin": -1.0}, "margin=-1.0")],
)
def test_a_value_out_of_its_range_is_named(fields, said):
    with pytest.raises(FieldError, match=said):
        GateRecipe(**{"loops": 4, **fields})


def test_what_cannot_have_a_gate_is_refused_by_name():
    with pytest.raises(FieldError, match="a gate can be trained for exactly one"):
        recipe_for(tiny.model())
    with pytest.raises(FieldError, match="a gate can be trained for exactly one"):
        train_gate(tiny.model(loop_layers=[(0, 1), (3, 3)]), TOKENS, GateRecipe(**SMALL))
    with pytest.raises(FieldError, match="length=500: must be <= 256"):
        train_gate(tiny.model(**LOOP), TOKENS, GateRecipe(**{**SMALL, "length": 500}))
    with pytest.raises(TextError, match="the text has only 10 tokens"):
        train_gate(tiny.model(**LOOP), TOKENS[:10], GateRecipe(**SMALL))


def test_the_command_writes_a_file_that_a_models_folder_takes(tmp_path, capsys):
    place, data = tmp_path / "model", story(tmp_path / "data.txt")
    tiny.model(**LOOP).save_pretrained(place)
    tiny.tokenizer().save_pretrained(place)
    asked = ["gate", str(place), "--data", str(data), "--out", str(place / "gate.safetensors")]
    asked += ["--steps", "2", "--batch", "1", "--length", "8"]
    assert main(asked) == 0
    gate = read_gate(place / "gate.safetensors", 32)
    assert gate.weight.abs().max() > 0
    assert torch.equal(load_model(place).model.gate_of(0).weight, gate.weight)
    assert main(asked) == 2, "what is there is not written over"
    assert "--force" in capsys.readouterr().err
    (tmp_path / "short.txt").write_text("Once.")
    short = [*asked[:2], "--data", str(tmp_path / "short.txt"), "--out", str(tmp_path / "other.safetensors")]
    assert main([*short, "--length", "64"]) == 2
    assert "length=64: the text has only" in capsys.readouterr().err
    assert not (tmp_path / "other.safetensors").exists()
