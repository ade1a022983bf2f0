"""`load_checkpoint(..., quantization=)`: any checkpoint with its layers packed by bitsandbytes, or refused by name."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from loopviz.engine import weights_digest
from loopviz.engine.lowered import lowered
from loopviz.model import LoopLlamaForCausalLM
from loopviz.model.checkpoints.adapter import LOOP, fingerprint
from loopviz.model.checkpoints.errors import CheckpointError
from loopviz.model.checkpoints.limits import SPARE
from loopviz.model.checkpoints.load import load_checkpoint, load_model, prepare_checkpoint
from loopviz.model.packed import dense_weight, packed_modules, quantization_of
from loopviz.model.precision import PrecisionError, lower, plain_state
from loopviz.model.quantization import pack
from tests.model.families.official import DATA
from tests.model.tiny import build

from .test_gguf import make_llama, write_gguf

LOOPS: dict[str, Any] = {"loop_layers": [1, 2], "loop_count": 2, "loop_injection": "linear", "loop_norm": True}
IDS = torch.arange(3, 19)[None]


def test_that_the_package_is_missing_is_said_before_anything_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(CheckpointError, match=r"quantization='nf4': .* pip install -r requirements-bnb.txt"):
        load_checkpoint("no/such-model", quantization="nf4")


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"quantization": "nf3"}, "quantization='nf3': must be one of nf4, int8"),
        ({"quantization": "nf4", "precision": "half"}, "precision='half', quantization='nf4': both say what"),
        ({"quantization": "int8", "dtype": torch.int8}, "dtype=torch.int8, quantization='int8': .*choose one of them"),
        ({"quantization": "nf4", "dtype": torch.float64}, "dtype=torch.float64, quantization='nf4'"),
    ],
)
def test_what_contradicts_itself_is_refused_by_name(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        load_checkpoint("no/such-model", **asked)


# -- with bitsandbytes -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bnb() -> Any:
    return pytest.importorskip("bitsandbytes", reason="optional: pip install 'loopviz[bnb]'")


@torch.no_grad()
def logits(model: LoopLlamaForCausalLM) -> torch.Tensor:
    found: torch.Tensor = model(IDS).logits
    return found


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_loading_is_packing_what_was_loaded(bnb: Any, llama_folder: Callable[..., Path], kind: str) -> None:
    folder = llama_folder()
    loaded = load_checkpoint(folder, quantization=kind, loop_layers=(1, 2), loop_count=2)
    expected = pack(load_model(folder, loop_layers=(1, 2), loop_count=2), kind)
    assert weights_digest(loaded.model) == weights_digest(expected)
    assert torch.equal(logits(loaded.model), logits(expected))
    assert loaded.model.training is False
    note = next(note for note in loaded.notes if note.code == "quantization")
    assert note.values == {"kind": kind, "dtype": "float32"}
    assert "slower than floats on a CPU" in str(note)
    assert ("differ by rounding" in str(note)) == (kind == "int8")
    half = load_model(folder, quantization=kind, dtype=torch.bfloat16)
    assert (half.dtype, quantization_of(half)) == (torch.bfloat16, kind)


def test_the_memory_it_needs_is_that_of_floats_and_a_byte_a_weight(bnb: Any, llama_folder: Callable[..., Path]) -> None:
    folder = llama_folder()
    plain = prepare_checkpoint(folder)
    assert prepare_checkpoint(folder, quantization="nf4").need == pytest.approx(plain.need * 5 / 4, abs=1)


@pytest.mark.parametrize("name", sorted(path.name for path in DATA.iterdir()))
def test_every_family_can_be_packed(bnb: Any, name: str) -> None:
    folder = next(DATA.joinpath(name).rglob("config.json")).parent
    packed, plain = load_model(folder, quantization="nf4"), load_model(folder)
    assert quantization_of(packed) == "nf4"
    twin = LoopLlamaForCausalLM(copy.deepcopy(plain.config)).eval()
    twin.load_state_dict(plain_state(packed))
    ids = torch.arange(3, 9)[None]
    for model in (packed, twin):
        torch.manual_seed(0)  # of those that begin at a random state
        model.found = model(ids).logits.detach()
    torch.testing.assert_close(packed.found, twin.found, rtol=1e-4, atol=1e-4)


def test_a_gguf_files_own_rounding_is_undone_first_and_that_is_said(
    bnb: Any, tmp_path: Path, tiny_tokenizer: Any
) -> None:
    file = tmp_path / "tiny.gguf"
    write_gguf(file, make_llama(), tiny_tokenizer)
    loaded = load_checkpoint(file, quantization="nf4")
    assert quantization_of(loaded.model) == "nf4"
    assert "rounded twice" in str(next(note for note in loaded.notes if note.code == "quantization"))


def test_weights_that_cannot_be_packed_are_refused_with_their_files_name(
    bnb: Any, llama_folder: Callable[..., Path]
) -> None:
    folder, llama = llama_folder(), make_llama()
    with torch.no_grad():
        llama.model.layers[0].mlp.up_proj.weight[0, 0] = float("inf")
    llama.save_pretrained(folder)
    with pytest.raises(CheckpointError, match=rf"{folder.name}: nf4: .*up_proj has 1 weights that are not finite"):
        load_model(folder, quantization="nf4")


# -- an adapter on top -----------------------------------------------------------------------------------------------------------------


def adapter(base: Path, folder: Path, seed: int = 1, **said: Any) -> Path:
    """A LoRA of random weights on a looped block, with the loop's own weights, as `teach` writes it."""
    peft = pytest.importorskip("peft", reason="optional: pip install 'loopviz[teach]'")
    config = peft.LoraConfig(
        r=2, lora_alpha=6, task_type="CAUSAL_LM", target_modules=["q_proj", "down_proj"], layers_to_transform=[1, 2],
        layers_pattern="layers", modules_to_save=["loop_injections.0", "loop_norms.0"], **said,
    )  # fmt: skip
    wrapped = peft.get_peft_model(load_model(base, **LOOPS), config)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))
    wrapped.save_pretrained(folder, save_embedding_layers=False)
    base_said = {"name": str(base), "layers": [1, 2], "sha256": fingerprint(load_model(base), (1, 2))}
    (folder / LOOP).write_text(json.dumps({"version": 1, "loop": LOOPS, "base": base_said}), "utf-8")
    return folder


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_an_adapter_lies_on_the_packed_weights_as_peft_puts_it_there(
    bnb: Any, llama_folder: Callable[..., Path], tmp_path: Path, kind: str
) -> None:
    base = llama_folder()
    worn = adapter(base, tmp_path / "adapter")
    model = load_model(worn, quantization=kind)
    import peft

    theirs = peft.PeftModel.from_pretrained(pack(load_model(base, **LOOPS), kind), worn).eval()
    assert torch.equal(logits(model), logits(theirs))
    if kind == "nf4":
        twin = LoopLlamaForCausalLM(copy.deepcopy(model.config)).eval()  # merged, in floats
        twin.load_state_dict(plain_state(model))
        torch.testing.assert_close(logits(model), logits(twin), rtol=0, atol=1e-4)
    projection, x = model.model.layers[1].self_attn.q_proj, torch.randn(3, model.config.hidden_size)
    wanted = x @ dense_weight(projection).T
    assert (projection(x) - wanted).abs().max() < (1e-5 if kind == "nf4" else 0.02) * wanted.abs().max()
    bare = load_model(base, quantization=kind, **LOOPS)
    assert not torch.allclose(logits(model), logits(bare), atol=1e-2)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    view = model.with_loop(loop_count=3)
    assert not torch.equal(logits(view), logits(model))
    with pytest.raises(ValueError, match="a LoRA lies on its packed layers, unmerged"):
        model.save_pretrained(tmp_path / "out")


def test_loras_of_loop_steps_lie_on_packed_weights(bnb: Any, llama_folder: Callable[..., Path], tmp_path: Path) -> None:
    base, out = llama_folder(), tmp_path / "steps"
    for step in (1, 2):
        adapter(base, out / f"step-{step}", seed=step)
        (out / f"step-{step}" / LOOP).unlink()
    drop_own(out / "step-2")
    said = {"name": str(base), "layers": [1, 2], "sha256": fingerprint(load_model(base), (1, 2))}
    (out / LOOP).write_text(json.dumps({"version": 2, "steps": 2, "loop": LOOPS, "base": said}), "utf-8")
    packed, floats = load_model(out, quantization="nf4"), load_model(out)
    assert quantization_of(packed) == "nf4"
    with torch.no_grad():  # of floats, the weights that the bytes stand for
        for name, module in packed_modules(packed):
            floats.get_submodule(name).weight.copy_(dense_weight(module))
    torch.testing.assert_close(logits(packed), logits(floats), rtol=0, atol=1e-4)
    once = packed.with_loop(loop_count=1)
    assert not torch.allclose(logits(once), logits(packed), atol=1e-2)


def drop_own(folder: Path) -> None:
    """Take the loop's own weights out of a step's adapter: they are the first one's."""
    weights = load_file(folder / "adapter_model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if ".loop_" not in name}
    save_file(kept, folder / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "modules_to_save": None}))


def test_its_weights_are_read_with_the_adapter(bnb: Any, llama_folder: Callable[..., Path], tmp_path: Path) -> None:
    base = llama_folder()
    model = load_model(adapter(base, tmp_path / "adapter"), quantization="nf4")
    bare = load_model(base, quantization="nf4")
    worn, plain = (dense_weight(each.model.layers[1].self_attn.q_proj) for each in (model, bare))
    lora: Any = model.model.layers[1].self_attn.q_proj
    delta = 3.0 * lora.lora_B["default"].weight @ lora.lora_A["default"].weight
    torch.testing.assert_close(worn, plain + delta.detach())
    assert len(list(packed_modules(model))) == len(list(packed_modules(bare)))


def test_another_base_and_a_dora_are_refused(bnb: Any, llama_folder: Callable[..., Path], tmp_path: Path) -> None:
    base = llama_folder()
    worn = adapter(base, tmp_path / "adapter")
    other = make_llama()
    with torch.no_grad():
        other.model.layers[1].mlp.up_proj.weight.add_(0.5)
    other.save_pretrained(base)
    with pytest.raises(CheckpointError, match="was taught on other weights"):
        load_model(worn, quantization="nf4")
    dora = adapter(base, tmp_path / "dora", use_dora=True)
    with pytest.raises(CheckpointError, match=r"use_dora=true.*packed weights; load it without quantization"):
        load_model(dora, quantization="nf4")


# -- folders that hold packed layers ---------------------------------------------------------------------------------------------------


@pytest.fixture(params=["nf4", "int8"])
def saved(
    request: pytest.FixtureRequest, bnb: Any, llama_folder: Callable[..., Path], tmp_path: Path
) -> tuple[Path, Any]:
    """A folder of a packed model, as `save_pretrained` writes it, with its tokenizer; and the model."""
    loaded = load_checkpoint(llama_folder(), quantization=request.param, loop_layers=(1, 2), loop_count=2)
    loaded.model.save_pretrained(tmp_path / "packed")
    loaded.tokenizer.save_pretrained(tmp_path / "packed")
    return tmp_path / "packed", loaded.model


def test_a_saved_folder_is_loaded_as_it_was(saved: tuple[Path, Any]) -> None:
    folder, model = saved
    kind = quantization_of(model)
    loaded = load_checkpoint(folder)
    assert quantization_of(loaded.model) == kind
    assert weights_digest(loaded.model) == weights_digest(model)
    assert torch.equal(logits(loaded.model), logits(model))
    assert loaded.model.config.loop_layers == (1, 2)
    assert str(kind).upper() in loaded.stored
    assert "quantization" in {note.code for note in loaded.notes}
    assert torch.equal(logits(load_model(folder, quantization=kind)), logits(model))
    half = load_model(folder, dtype=torch.bfloat16)
    assert half.lm_head.weight.dtype == half(IDS).logits.dtype == torch.bfloat16
    held = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    assert prepare_checkpoint(folder).need == held + held // SPARE
    half.save_pretrained(folder.parent / "again")
    assert weights_digest(load_model(folder.parent / "again", dtype=torch.bfloat16)) == weights_digest(half)


def test_what_a_packed_folder_is_not_held_in_is_refused_by_name(saved: tuple[Path, Any]) -> None:
    folder, model = saved
    kind = quantization_of(model)
    other = "int8" if kind == "nf4" else "nf4"
    with pytest.raises(CheckpointError, match=f"quantization='{other}': the layers of .* packed already, as {kind}"):
        load_model(folder, quantization=other)
    with pytest.raises(CheckpointError, match=r"precision='half': the layers of .* packed already"):
        load_model(folder, precision="half")
    with pytest.raises(CheckpointError, match=rf"packed as {kind}; dtype=torch.float64"):
        load_model(folder, dtype=torch.float64)
    found = lowered(lambda: load_checkpoint(folder), "half")
    assert found.notes[-1].code == "precision_packed"
    assert torch.equal(logits(found.model), logits(model))
    with pytest.raises(PrecisionError, match="packed already"):
        lower(found.model, torch.float16)


def test_a_packed_folder_without_the_package_says_what_to_install(
    saved: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(CheckpointError, match=r"pip install -r requirements-bnb.txt"):
        prepare_checkpoint(saved[0])


def test_an_adapter_lies_on_a_packed_folder(bnb: Any, llama_folder: Callable[..., Path], tmp_path: Path) -> None:
    base = llama_folder()
    worn = adapter(base, tmp_path / "adapter")
    load_model(base, quantization="nf4").save_pretrained(tmp_path / "packed")
    found = load_model(tmp_path / "packed", adapter=worn)
    assert torch.equal(logits(found), logits(load_model(worn, quantization="nf4")))


Change = Callable[[dict[str, Any], dict[str, torch.Tensor]], object]
Q = "model.layers.1.self_attn.q_proj.weight"
STATE = f"{Q}.quant_state.bitsandbytes__nf4"


def state(**changes: Any) -> Change:
    """A change of the JSON that says how a weight is packed; None: a key taken out."""

    def change(config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        said = {**json.loads(bytes(tensors[STATE].tolist())), **changes}
        text = json.dumps({name: value for name, value in said.items() if value is not None})
        tensors[STATE] = torch.tensor(list(text.encode()), dtype=torch.uint8)

    return change


def said(**changes: Any) -> Change:
    return lambda config, tensors: config["quantization_config"].update(changes)


def tensor(name: str, value: torch.Tensor | None) -> Change:
    return lambda config, tensors: tensors.pop(name) if value is None else tensors.update({name: value})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (said(quant_method="gptq"), "quantised safetensors are not read"),
        (said(bnb_4bit_quant_type="fp4"), "must be 4 bits of type nf4, or 8 bits"),
        (said(load_in_8bit=True, _load_in_8bit=True), "must be 4 bits of type nf4, or 8 bits"),
        (said(bnb_4bit_quant_storage="float16"), "bnb_4bit_quant_storage='float16' .*must be 'uint8'"),
        (said(llm_int8_threshold="much"), "llm_int8_threshold='much'"),
        (said(llm_int8_skip_modules=["(a+)+b", "lm_head"]), "llm_int8_skip_modules.*plain names"),
        (said(llm_int8_skip_modules=["q_proj"]), "llm_int8_skip_modules.*lm_head among them"),
        (said(llm_int8_skip_modules=["q_proj", "lm_head"]), r"q_proj\.weight in .* is packed, and quantization_config says"),
        (said(never_heard_of=1), "never_heard_of.*=1 in .*not known here"),
        (state(shape=[10**6, 10**6]), rf"{Q} in .*is U8 .* is wanted"),
        (state(shape=[32, -32]), "says not what NF4 weights need"),
        (state(shape=None), "says not what NF4 weights need"),
        (state(blocksize=4096), "blocksize=4096 of .*is not read"),
        (state(nested_blocksize=1), "nested_blocksize=1 of"),
        (state(quant_type="fp4"), "quant_type='fp4' of"),
        (state(dtype="load"), "dtype='load' of"),
        (state(nested_offset="x"), "nested_offset='x' of"),
        (tensor(STATE, torch.zeros(9, dtype=torch.uint8)), "says not what NF4 weights need"),
        (tensor(STATE, torch.zeros(9999, dtype=torch.uint8)), "some bytes of JSON are wanted"),
        (tensor(f"{Q}.absmax", torch.zeros(1, dtype=torch.uint8)), r"q_proj\.weight\.absmax in .*is U8 \(1,\)"),
        (tensor(f"{Q}.nested_quant_map", torch.zeros(4)), r"nested_quant_map in .*is F32 \(4,\)"),
        (tensor(f"{Q}.quant_map", None), r"quant_map in .*is missing"),
        (tensor(STATE, None), "dtype='U8'"),
        (tensor("model.layers.1.extra", torch.zeros(3, dtype=torch.int8)), "dtype='I8'"),
    ],
)  # fmt: skip
def test_a_damaged_packed_folder_is_refused_before_its_weights_are_read(
    packed_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Change, says: str
) -> None:
    monkeypatch.setattr(LoopLlamaForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("weights are read"))
    config, tensors = (
        json.loads((packed_folder / "config.json").read_text()),
        load_file(packed_folder / "model.safetensors"),
    )
    change(config, tensors)
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=says):
        load_model(tmp_path)


@pytest.fixture(scope="module")
def packed_folder(bnb: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    pack(build(), "nf4").save_pretrained(folder)
    return folder
