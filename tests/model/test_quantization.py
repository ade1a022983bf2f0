"""Layers that bitsandbytes has packed: the same as a model of the floats that its bytes stand for, in every way of looping."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from loopviz.engine import provenance, weights_digest
from loopviz.model import LoopLlamaForCausalLM
from loopviz.model.packed import dense_weight, packed_as, packed_modules, quantization_of
from loopviz.model.placing import place
from loopviz.model.precision import (
    PROJECTIONS,
    PrecisionError,
    held_name,
    held_words,
    plain_state,
    quantise,
    weight_bytes,
    weight_count,
)
from loopviz.model.quantization import check_asked, config_of, pack

from .tiny import DYNAMIC, LOOP, MODES, TWO, build


def test_without_bitsandbytes_it_is_refused_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    model = build()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(
        PrecisionError, match=r"quantization='nf4': .* not installed; pip install -r requirements-bnb.txt"
    ):
        pack(model, "nf4")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("kind", "dtype", "says"),
    [
        ("nf3", torch.float32, "quantization='nf3': must be one of nf4, int8"),
        ("nf4", torch.float64, "dtype=torch.float64, quantization='nf4': .*choose one of them"),
        ("int8", torch.int8, "dtype=torch.int8, quantization='int8': "),
    ],
)
def test_what_cannot_be_packed_is_refused_before_the_package_is_asked_for(
    kind: str, dtype: torch.dtype, says: str
) -> None:
    with pytest.raises(PrecisionError, match=says):
        check_asked(kind, dtype)


def test_the_configuration_is_the_articles() -> None:
    nf4, int8 = config_of("nf4", torch.bfloat16), config_of("int8", torch.bfloat16)
    assert (nf4.load_in_4bit, nf4.bnb_4bit_quant_type, nf4.bnb_4bit_use_double_quant) == (True, "nf4", True)
    assert nf4.bnb_4bit_compute_dtype is torch.bfloat16
    assert (int8.load_in_8bit, int8.load_in_4bit) == (True, False)


def test_a_plain_models_weights_are_read_and_counted_as_they_are() -> None:
    model = build()
    assert quantization_of(model) is None
    assert held_words(model) == "float32"
    projection = model.model.layers[0].mlp.up_proj
    assert torch.equal(dense_weight(projection), projection.weight)


# -- with bitsandbytes -----------------------------------------------------------------------------------------------------------------

LOOPS: dict[str, dict[str, Any]] = {
    "plain": {},
    "two_blocks": TWO,
    "dynamic": {**DYNAMIC, "cosine_threshold": 1e-6},
    **{name: {"loop_layers": (1, 2), "loop_count": 3, **mode} for name, mode in MODES.items()},
    "serial_kept_in_int8": {**LOOP, **MODES["serial"], "kv_cache_dtype": "int8"},
}
KINDS = ("nf4", "int8")
# Of LLM.int8 activations are a byte: half a step of 127 of a row's largest, through four layers.
CLOSE = {"nf4": 1e-5, "int8": 0.05}


@pytest.fixture(scope="module")
def bnb() -> Any:
    return pytest.importorskip("bitsandbytes", reason="optional: pip install 'loopviz[bnb]'")


def stands_for(model: LoopLlamaForCausalLM) -> LoopLlamaForCausalLM:
    """The model of floats that a packed model stands for."""
    config = copy.deepcopy(model.config)
    twin = LoopLlamaForCausalLM(config).eval()
    twin.load_state_dict(plain_state(model))
    return twin


def in_chunks(model: LoopLlamaForCausalLM, ids: Tensor, chunks: tuple[int, ...]) -> Tensor:
    cache, at, found = None, 0, []
    for size in chunks:
        out = model(ids[:, at : at + size], past_key_values=cache, use_cache=True)
        cache, at = out.past_key_values, at + size
        found.append(out.logits)
    return torch.cat(found, 1)


def off(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LOOPS)
@torch.no_grad()
def test_every_way_of_looping_computes_what_its_bytes_stand_for(bnb: Any, name: str, kind: str) -> None:
    packed = pack(build(LOOPS[name], initializer_range=0.1), kind)
    exact = stands_for(packed)
    ids = torch.randint(0, 97, (2, 9))
    for chunks in ((9,), (4, 1, 1, 3)):
        found, wanted = in_chunks(packed, ids, chunks), in_chunks(exact, ids, chunks)
        assert off(found, wanted) < CLOSE[kind]
    plain = build(LOOPS[name], initializer_range=0.1)
    assert off(in_chunks(plain, ids, (9,)), found) > 1e-3  # another model than the one that was packed


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_packed_are_the_layers_maps_and_nothing_else(bnb: Any, kind: str) -> None:
    loop = {**LOOP, "loop_injection": "linear", "loop_norm": True, "exit_selection": "gate"}
    for tied in (False, True):
        plain = build(loop, tie_word_embeddings=tied)
        before = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
        model = pack(plain, kind)
        names = [name for name, _ in packed_modules(model)]
        assert len(names) == len(PROJECTIONS) * 4
        assert all(name.startswith("model.layers.") for name in names)
        assert type(model.lm_head) is nn.Linear
        assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
        left = [name for name in before if name.removesuffix(".weight") not in names]
        assert all(torch.equal(model.state_dict()[name], before[name]) for name in left)


def test_projections_with_a_norm_stay_floats(bnb: Any) -> None:
    model = pack(build(qk_norm="head"), "nf4")
    attention = model.model.layers[0].self_attn
    assert [packed_as(getattr(attention, name)) for name in PROJECTIONS[:4]] == [None, None, "nf4", "nf4"]
    assert set(plain_state(model)) == set(build(qk_norm="head").state_dict())


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_it_is_what_transformers_makes_of_the_folder(bnb: Any, tmp_path: Path, kind: str) -> None:
    build(LOOP, attention_bias=True).save_pretrained(tmp_path)
    config, ids = config_of(kind, torch.float32), torch.randint(0, 97, (2, 7))
    theirs = LoopLlamaForCausalLM.from_pretrained(tmp_path, quantization_config=config)
    ours = pack(build(LOOP, attention_bias=True), kind)
    assert weights_digest(ours) == weights_digest(theirs)
    assert torch.equal(ours(ids).logits, theirs.eval()(ids).logits)
    assert ours.config.quantization_config.to_dict() == theirs.config.quantization_config.to_dict()


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_what_is_saved_is_read_back_bit_for_bit(bnb: Any, tmp_path: Path, kind: str) -> None:
    """After a pass too: on some processors bitsandbytes puts 4 bits into another order in the first, and rounds their scales."""
    model, ids = pack(build(LOOP, tie_word_embeddings=True), kind), torch.randint(0, 97, (2, 7))
    digest = weights_digest(model)
    logits = model(ids).logits
    assert weights_digest(model) == digest
    model.save_pretrained(tmp_path)
    for again in (LoopLlamaForCausalLM, AutoModelForCausalLM):
        other = again.from_pretrained(tmp_path).eval()
        assert quantization_of(other) == kind
        assert weights_digest(other) == digest
        assert torch.equal(other(ids).logits, logits)
        other.save_pretrained(tmp_path / again.__name__)  # read from such a folder, transformers alone cannot
        assert weights_digest(again.from_pretrained(tmp_path / again.__name__)) == digest


@torch.no_grad()
def test_rows_of_nf4_are_computed_from_themselves_alone(bnb: Any) -> None:
    model, ids = pack(build(LOOP), "nf4"), torch.randint(0, 97, (3, 6))
    together = model(ids).logits
    for row in range(3):
        assert off(model(ids[row : row + 1]).logits[0], together[row]) < 1e-5


@torch.no_grad()
def test_an_outlier_of_one_row_is_computed_otherwise_in_all_rows_of_int8(bnb: Any) -> None:
    """LLM.int8's own rule, which is why batches of it differ by rounding: what is said of it."""
    torch.manual_seed(0)
    projection = pack(build(), "int8").model.layers[0].mlp.up_proj
    quiet, loud = torch.randn(1, 32), torch.randn(1, 32)
    loud[0, 3] = 50.0
    alone, beside = projection(quiet)[0], projection(torch.cat([quiet, loud]))[0]
    assert not torch.equal(alone, beside)
    wanted = quiet.double() @ dense_weight(projection).double().T
    assert off(alone.double(), wanted[0]) < 0.02
    assert off(beside.double(), wanted[0]) < 0.02


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_all_else_and_the_computation_have_the_models_dtype(bnb: Any, dtype: torch.dtype) -> None:
    for kind in KINDS:
        model = pack(build(LOOP).to(dtype), kind)
        seen: list[torch.dtype] = []
        model.register_loop_hook(lambda step, seen=seen: seen.append(step.state.dtype))
        logits = model(torch.randint(0, 97, (1, 5))).logits
        assert {*seen, logits.dtype, model.dtype, model.lm_head.weight.dtype} == {dtype}
        assert bool(torch.isfinite(logits).all())
        assert held_name(model) == str(dtype).removeprefix("torch.")


@pytest.mark.parametrize("kind", KINDS)
def test_views_share_it_and_it_is_said(bnb: Any, kind: str) -> None:
    model = build()
    early = model.with_loop(**LOOP)
    pack(model, kind)
    view, ids = model.with_loop(**LOOP), torch.randint(0, 97, (1, 5))
    with torch.no_grad():
        assert torch.equal(view(ids).logits, early(ids).logits)
    assert quantization_of(early) == quantization_of(view) == kind
    assert held_words(view) == f"{kind} (bitsandbytes), else float32"
    assert {name: value for name, value in provenance(view).items() if name != "weights"} == {
        "device": "cpu", "dtype": "float32", "quantization": kind,
    }  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_and_numbers_are_those_of_the_floats(bnb: Any, kind: str) -> None:
    plain = build(tie_word_embeddings=True, attention_bias=True)
    count, whole = weight_count(plain), weight_bytes(plain)
    model = pack(plain, kind)
    assert weight_count(model) == count
    matrices = sum(dense_weight(module).numel() for _, module in packed_modules(model))
    rows = sum(module.out_features for _, module in packed_modules(model))
    rest = whole - 4 * matrices
    if kind == "int8":
        assert weight_bytes(model) == rest + matrices + 4 * rows
    else:  # half a byte, a byte for 64, and tables
        least = rest + matrices // 2 + matrices // 64
        assert least < weight_bytes(model) < least + len(PROJECTIONS) * 4 * 1_200


def test_a_model_that_is_moved_reads_what_was_moved(bnb: Any) -> None:
    """LLM.int8 keeps its bytes and scales twice, and moving a model as a whole moves one of them: passes read the other."""
    model = pack(build(LOOP), "int8")
    for _, module in packed_modules(model):
        module.state.CB = module.state.CB.clone()  # what stays where the model was
    model.to("cpu")
    for _, module in packed_modules(model):
        assert module.state.CB.data_ptr() == module.weight.data_ptr()


def test_a_weight_that_lost_what_it_is_read_with_finds_it_in_its_map(bnb: Any) -> None:
    model = pack(build(), "nf4")
    projection = model.model.layers[0].mlp.up_proj
    wanted = dense_weight(projection)
    projection.weight = nn.Parameter(projection.weight.data.as_subclass(Tensor), requires_grad=False)
    assert packed_as(projection) == "nf4"
    assert torch.equal(dense_weight(projection), wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_pass_it_to_what_lies_on_top(bnb: Any, kind: str) -> None:
    model = pack(build(LOOP), kind).train()
    assert not any(parameter.requires_grad for parameter in model.parameters())
    states = torch.randn(1, 4, 32, requires_grad=True)
    model(inputs_embeds=states).logits.sum().backward()
    exact = stands_for(model).train()
    wanted = states.detach().clone().requires_grad_(True)
    exact(inputs_embeds=wanted).logits.sum().backward()
    assert states.grad is not None
    assert wanted.grad is not None
    assert off(states.grad, wanted.grad) < 1e-3


# -- refusals --------------------------------------------------------------------------------------------------------------------------


def test_a_model_that_cannot_be_packed_is_refused_by_name_and_unchanged(bnb: Any) -> None:
    model = build()
    with torch.no_grad():
        model.model.layers[2].mlp.up_proj.weight[3, 4] = float("nan")
    with pytest.raises(PrecisionError, match=r"nf4: model\.layers\.2\.mlp\.up_proj has 1 weights that are not finite"):
        pack(model, "nf4")
    assert quantization_of(model) is None
    with torch.no_grad():
        model.model.layers[2].mlp.up_proj.weight[3, 4] = 1e5
    with pytest.raises(PrecisionError, match=r"int8: .*up_proj has weights beyond what float16 holds.*'nf4'"):
        pack(model, "int8")
    pack(model, "nf4")
    with pytest.raises(PrecisionError, match="packed already, as nf4; load it anew"):
        pack(model, "int8")
    with pytest.raises(PrecisionError, match=r"int8: its layers are packed already, as nf4 \(bitsandbytes\)"):
        quantise(model)
    with pytest.raises(PrecisionError, match="its layers hold int8 already"):
        pack(quantise(build()), "nf4")
    with pytest.raises(PrecisionError, match="is on meta"):
        pack(build().to("meta"), "nf4")


def test_a_configuration_that_packs_the_head_is_refused(bnb: Any, tmp_path: Path) -> None:
    build().save_pretrained(tmp_path)
    config = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=["nothing"])
    with pytest.raises(PrecisionError, match=r"quantization_config: lm_head would be packed.*llm_int8_skip_modules"):
        LoopLlamaForCausalLM.from_pretrained(tmp_path, quantization_config=config)


def test_what_does_not_fit_a_device_as_a_whole_is_refused(bnb: Any) -> None:
    from loopviz.model.checkpoints.errors import CheckpointError

    model = pack(build(), "nf4")
    with pytest.raises(CheckpointError, match=r"packed.*do not stay behind"):
        place(model, torch.device("cpu"), room=weight_bytes(model) - 1)
    assert place(model, torch.device("cpu"), room=weight_bytes(model)) == 0
