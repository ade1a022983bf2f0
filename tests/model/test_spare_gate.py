"""A gate that was trained for a model afterwards: none of its weights until a loop asks for it, and then one like any other."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from loopviz.checks import FieldError
from loopviz.engine import weights_digest
from loopviz.engine.provenance import gates_digest
from loopviz.model import LoopLlamaForCausalLM
from loopviz.model.checkpoints import CheckpointError, load_checkpoint, load_model
from loopviz.model.exit_gate import GATE_FILE, ExitGate, gate_bytes, read_gate
from loopviz.paths import MODELS
from tests.model.families.official import copied
from tests.model.tiny import build, ids

LOOP = {"loop_layers": (1, 3), "loop_count": 4, "virtual_layer_count": 4, "virtual_attention_mode": "serial"}
GATED = {"exit_selection": "gate", "exit_threshold": 0.5}


def gate(seed: int = 5, width: int = 32) -> ExitGate:
    made = ExitGate(width).requires_grad_(False)
    made.weight.normal_(0, 1, generator=torch.Generator().manual_seed(seed))
    made.bias.fill_(-0.2)
    return made


@pytest.mark.usefixtures("no_gradients")
def test_until_it_is_asked_for_the_model_is_what_it_was():
    model, plain, tokens = build(LOOP), build(LOOP), ids(9)
    model.model.spare_gates = {"0": gate()}
    assert torch.equal(model(tokens).logits, plain(tokens).logits)
    assert (weights_digest(model), model.num_parameters()) == (weights_digest(plain), plain.num_parameters())
    asked = model.with_loop(**GATED)
    assert asked.num_parameters() == plain.num_parameters() + 33
    assert weights_digest(asked) != weights_digest(plain) == weights_digest(model), "a view takes it for itself alone"


@pytest.mark.usefixtures("no_gradients")
def test_asked_for_it_chooses_as_a_gate_of_the_models_own(tmp_path):
    model, own, tokens = build(LOOP), build({**LOOP, **GATED}), ids(9)
    own.load_state_dict(model.state_dict(), strict=False)
    own.model.loop_gates["0"].load_state_dict(gate().state_dict())
    model.model.spare_gates = {"0": gate()}
    view = model.with_loop(**GATED)
    logits = view(tokens).logits
    assert torch.equal(logits, own(tokens).logits)
    steps = view.last_pass.exits[0].steps
    assert len(steps.unique()) > 1
    assert torch.equal(steps, own.last_pass.exits[0].steps)
    view.save_pretrained(tmp_path)
    assert torch.equal(LoopLlamaForCausalLM.from_pretrained(tmp_path)(tokens).logits, logits)
    model.set_loop(**GATED)
    assert torch.equal(model(tokens).logits, logits), "a live model takes it too"
    with pytest.raises(FieldError, match="block 0 has no weights"):
        build(LOOP).set_loop(**GATED)


def test_a_file_gives_the_gate_back(tmp_path):
    (tmp_path / GATE_FILE).write_bytes(gate_bytes(gate(), {"loops": 4}))
    again = read_gate(tmp_path / GATE_FILE, 32)
    assert torch.equal(again.weight, gate().weight)
    assert not again.weight.requires_grad


@pytest.fixture
def folder(llama_folder):
    place = llama_folder()
    loaded = load_model(place, **{**LOOP, "loop_layers": (1, 2)})
    loaded.save_pretrained(place)
    return place, loaded.config.hidden_size


def test_beside_a_models_weights_it_is_in_reach_of_its_loop(folder):
    place, width = folder
    (place / GATE_FILE).write_bytes(gate_bytes(gate(width=width), {}))
    loaded = load_checkpoint(place)
    assert not loaded.model.model.loop_gates
    assert torch.equal(loaded.model.model.gate_of(0).weight, gate(width=width).weight)
    asked = load_checkpoint(place, **GATED)
    assert torch.equal(asked.model.model.loop_gates["0"].weight, gate(width=width).weight)
    assert not [note for note in asked.notes if note.values.get("field") == "exit_selection"], "it is trained"


@pytest.mark.parametrize("name", ["huginn", "ouro"])
def test_beside_the_weights_of_a_published_model_it_is_read_too(tmp_path, name):
    """`loopviz gate` trains one for them, and its file was passed over."""
    place = copied(name, tmp_path / name, {})
    width = load_model(place).config.hidden_size
    (place / GATE_FILE).write_bytes(gate_bytes(gate(width=width), {}))
    for loop in ({}, GATED):
        assert torch.equal(load_model(place, **loop).model.gate_of(0).weight, gate(width=width).weight)


def test_one_for_another_model_or_without_numbers_is_refused(folder):
    place, width = folder
    (place / GATE_FILE).write_bytes(gate_bytes(gate(width=width + 2), {}))
    with pytest.raises(CheckpointError, match=r"gate\.safetensors: has .* it was trained for another model"):
        load_model(place)
    save_file({"weight": torch.full((1, width), torch.nan), "bias": torch.zeros(1)}, place / GATE_FILE)
    with pytest.raises(CheckpointError, match="the exit gate's weights are no numbers"):
        load_model(place)
    (place / GATE_FILE).write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"gate\.safetensors: damaged"):
        load_model(place)


@pytest.mark.usefixtures("no_gradients")
def test_the_bundled_one_reads_out_earlier_the_lower_its_threshold():
    model = load_model(MODELS / "stories-loop")
    tokens = torch.arange(5, 45)[None]
    means = []
    for threshold in (0.3, 0.6, 0.9):
        view = model.with_loop(exit_selection="gate", exit_threshold=threshold)
        view(tokens)
        means.append(view.last_pass.exits[0].steps.float().mean().item())
    assert 1 <= means[0] < means[1] < means[2] <= 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_view_that_asks_for_it_leaves_the_spare_one_as_it_was_read(dtype):
    """In half it was cast in place: from then on its hash was another one's, and what was rounded away did not come back."""
    model = build(LOOP).to(dtype)
    model.model.spare_gates = {"0": gate()}
    before = gates_digest(model)
    view = model.with_loop(**GATED)
    assert view.model.loop_gates["0"].weight.dtype == dtype
    assert gates_digest(model) == before
