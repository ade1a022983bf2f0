"""peft's folders as checkpoints: on their own base, by peft itself, and refused by name on any other."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from loopviz.model.checkpoints import CheckpointError, load_checkpoint, load_model
from loopviz.model.checkpoints.adapter import CONFIG, LOOP, WEIGHTS, fingerprint, is_adapter, read_adapter
from loopviz.model.checkpoints.load import prepare_checkpoint
from tests.conftest import make_llama

peft = pytest.importorskip("peft", reason="optional: pip install 'loopviz[teach]'")

LOOPS = {"loop_layers": [1, 2], "loop_count": 2, "loop_injection": "linear", "loop_norm": True}
LOOPS |= {"virtual_attention_mode": "serial", "virtual_layer_count": 2}
IDS = torch.arange(3, 19)[None]


def stirred(model, **config):
    """peft's model with every adapter weight drawn anew: B begins as zero, which would hide everything."""
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, lora_alpha=6, task_type="CAUSAL_LM", **config))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return wrapped.eval()


@pytest.fixture
def base(llama_folder):
    return llama_folder()


@pytest.fixture
def adapter(base, tmp_path) -> Path:
    """Of a loop with weights of its own, as `teach` writes it."""
    folder, digest = tmp_path / "adapter", fingerprint(load_model(base), (1, 2))
    own = ["loop_injections.0", "loop_norms.0"]
    wrapped = stirred(load_model(base, **LOOPS), target_modules=["q_proj", "down_proj"], layers_to_transform=[1, 2],
                      layers_pattern="layers", modules_to_save=own)  # fmt: skip
    wrapped.save_pretrained(folder, save_embedding_layers=False)
    said = {"name": str(base), "layers": [1, 2], "sha256": digest}
    (folder / LOOP).write_text(json.dumps({"version": 1, "loop": LOOPS, "base": said}), "utf-8")
    return folder


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


def test_it_is_what_peft_makes_of_it(base, adapter):
    loaded = load_checkpoint(adapter)
    assert loaded.model.config.loop_layers == (1, 2)
    assert loaded.name == str(adapter)
    assert loaded.source.startswith(f"adapter on {base}")
    own = peft.PeftModel.from_pretrained(load_model(base, **LOOPS), adapter).eval()
    torch.testing.assert_close(logits(loaded.model), logits(own), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits(load_model(base, adapter=adapter)), logits(own), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(logits(loaded.model), logits(load_model(base, **LOOPS)), atol=1e-2)
    assert not [name for name, _ in loaded.model.named_modules() if "lora" in name], "an ordinary model comes of it"
    assert is_adapter(adapter)
    assert not is_adapter(base)


def test_its_loop_can_be_set_otherwise(adapter):
    once, plain = load_model(adapter, loop_injection="none", loop_norm=False), load_model(adapter, loop_layers=None)
    torch.testing.assert_close(logits(once.with_loop(loop_count=1)), logits(plain), atol=1e-5, rtol=1e-5)
    codes = {note.code for note in load_checkpoint(adapter, loop_injection="none").notes}
    assert "trained_left_out" in codes


def test_one_made_by_peft_alone_is_put_on_a_plain_llama(base, tmp_path):
    wrapped = stirred(LlamaForCausalLM.from_pretrained(base), target_modules=["q_proj", "v_proj"])
    wrapped.save_pretrained(tmp_path / "plain")
    loaded = load_model(tmp_path / "plain")
    assert loaded.config.loop_blocks() == []
    torch.testing.assert_close(logits(loaded), logits(wrapped), atol=1e-5, rtol=1e-5)
    looped = load_model(tmp_path / "plain", loop_layers=(1, 1), loop_count=2)
    assert len(looped.config.loop_blocks()) == 1


def test_a_base_that_moved_along_is_found(base, adapter, tmp_path):
    there = tmp_path / "elsewhere"
    there.mkdir()
    before = logits(load_model(adapter))
    base.rename(there / base.name)
    adapter.rename(there / "adapter")
    assert torch.equal(logits(load_model(there / "adapter")), before)


def test_a_base_of_another_system_s_path_is_found_beside_it(base, adapter):
    before = logits(load_model(adapter))
    said = json.loads((adapter / LOOP).read_text("utf-8"))["base"]
    edit(adapter, LOOP, base={**said, "name": f"C:\\Users\\me\\{base.name}"})
    assert torch.equal(logits(load_model(adapter)), before)


def test_a_model_s_name_is_that_model_whatever_lies_here(base, adapter, monkeypatch):
    monkeypatch.chdir(adapter.parent)
    adapter.rename("glassbox")
    assert load_checkpoint("glassbox").source == "bundled with LoopViz"


def test_that_peft_is_missing_is_said_before_any_weight_is_read(adapter, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(
        CheckpointError, match=r"adapter: an adapter is put on .* pip install -r requirements-teach.txt"
    ):
        prepare_checkpoint(adapter)


def edit(folder: Path, file: str, **values) -> None:
    said = json.loads((folder / file).read_text("utf-8"))
    (folder / file).write_text(json.dumps({**said, **values}), "utf-8")


def without(folder: Path, name: str) -> None:
    weights = {key: value for key, value in load_file(folder / WEIGHTS).items() if name not in key}
    save_file(weights, folder / WEIGHTS)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda folder: edit(folder, CONFIG, peft_type="IA3"), "peft_type='IA3'"),
        (lambda folder: edit(folder, CONFIG, layer_replication=[[0, 2]]), "layer_replication"),
        (lambda folder: edit(folder, LOOP, version=9), "version=9"),
        (lambda folder: edit(folder, LOOP, loop={"loop_speed": 2}), "loop_speed=2"),
        (lambda folder: edit(folder, LOOP, loop={**LOOPS, "loop_layers": [1, 7]}), "layer 7 is not in a 3-layer model"),
        (lambda folder: edit(folder, LOOP, base={"name": "nowhere/at-all.gguf/x"}), "nowhere/at-all"),
        (lambda folder: edit(folder, LOOP, base={"layers": ["a", 1], "sha256": "0"}), "base.layers=['a', 1]"),
        (lambda folder: edit(folder, LOOP, base={"layers": [2, 1], "sha256": "0"}), "base.layers=[2, 1]"),
        (lambda folder: without(folder, "loop_norms"), "model.loop_norms.0.weight is missing, which its loop needs"),
        (lambda folder: (folder / WEIGHTS).rename(folder / "adapter_model.bin"), "a pickle"),
        (lambda folder: (folder / WEIGHTS).write_bytes(b"no"), "damaged"),
        (lambda folder: (folder / CONFIG).write_text("[", "utf-8"), "is not JSON"),
    ],
)  # fmt: skip
def test_a_damaged_one_is_refused(harm, said, adapter):
    harm(adapter)
    with pytest.raises(CheckpointError) as refused:
        load_model(adapter)
    assert said in str(refused.value)


def test_one_for_another_model_is_refused_by_name(adapter, llama_folder, tmp_path):
    for shape, said in (
        ({"hidden_size": 48}, "has shape"),
        (
            {"intermediate_size": 32},
            "model.layers.1.mlp.down_proj.lora_A.weight has shape (2, 64), and ('rank', 32) is wanted",
        ),
        ({"num_hidden_layers": 2}, "layer 2 is not in a 2-layer model"),
        ({"seed": 7}, "was taught on other weights"),
    ):
        with pytest.raises(CheckpointError) as refused:
            load_model(llama_folder(**shape), adapter=adapter)
        assert said in str(refused.value)
    base = json.loads((adapter / LOOP).read_text("utf-8"))["base"]
    edit(adapter, LOOP, base={**base, "layers": [1, 9]})
    with pytest.raises(CheckpointError, match=r"is no adapter for .*: it is of layer 9, and there are 3"):
        load_model(adapter)
    edit(adapter, LOOP, base=base)
    (tmp_path / "both").mkdir()
    for name in ("config.json", CONFIG):
        (tmp_path / "both" / name).write_text("{}", "utf-8")
    with pytest.raises(CheckpointError, match=r"holds a model .* and an adapter"):
        load_model(tmp_path / "both")
    with pytest.raises(CheckpointError, match="is no adapter"):
        load_model(llama_folder(), adapter=tmp_path)
    with pytest.raises(CheckpointError, match="not open here"):
        load_model(adapter, allow_paths=False)


def test_the_hash_is_of_the_weights_as_they_are_known_in_any_width():
    from loopviz.model.checkpoints import as_loop_llama

    one, same, other = (as_loop_llama(make_llama(seed)) for seed in (0, 0, 1))
    assert fingerprint(one, (0, 1)) == fingerprint(same.to(torch.bfloat16), (0, 1))
    assert fingerprint(one, (0, 1)) != fingerprint(other, (0, 1))
    assert fingerprint(one, (0, 1)) != fingerprint(one, (0, 0))


def test_what_a_folder_says_is_read_before_any_weight(adapter):
    found = read_adapter(adapter)
    assert found.own == {"model.loop_injections.0.weight", "model.loop_norms.0.weight"}
    assert found.layers == (1, 2)
