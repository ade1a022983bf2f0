"""Maps that read the same, side by side: the same weights to everybody, the same bits, and noticed where one goes elsewhere."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from loopviz.model import LoopCache, LoopLlamaForCausalLM
from loopviz.model import side_by_side as sides
from loopviz.model.precision import Int8Linear, lower, weight_bytes
from loopviz.model.side_by_side import Whole, better, groups, lay_apart, lay_beside, measured, whole_of

from .test_lean_layers import by_modules, decoded
from .tiny import DYNAMIC, LOOP, build, ids, record

WIDE: dict[str, Any] = {"hidden_size": 128, "intermediate_size": 160, "num_key_value_heads": 1}
HELD = [torch.float16, torch.bfloat16, torch.int8]


def made(held: torch.dtype, loop: dict[str, Any] = LOOP, **shape: Any) -> LoopLlamaForCausalLM:
    return lower(build(loop, **{**WIDE, **shape}), held)


def every(model: LoopLlamaForCausalLM) -> list[Any]:
    return [group for found in groups(model.model.layers).values() for group in found]


def laid(model: LoopLlamaForCausalLM, monkeypatch: pytest.MonkeyPatch) -> LoopLlamaForCausalLM:
    """A copy whose maps lie side by side, where that gives the same bits on this processor."""
    model = copy.deepcopy(model)
    monkeypatch.setattr(sides, "timed", lambda *_: {"apart": (2.0, 2.0), "beside": (1.0, 1.0)})
    for kind, found in groups(model.model.layers).items():
        if measured(found) == "apart":
            pytest.skip(f"one product of {kind} gives other bits than several here")
        for group in found:
            lay_beside(group)
    assert all(whole_of(group) is not None for group in every(model))
    return model


@pytest.mark.parametrize("loop", [LOOP, DYNAMIC, {}], ids=["fixed", "dynamic", "plain"])
@pytest.mark.parametrize("held", HELD, ids=str)
def test_tokens_are_what_each_map_by_itself_makes_of_them(
    monkeypatch: pytest.MonkeyPatch, held: torch.dtype, loop: dict[str, Any]
) -> None:
    apart = made(held, loop)
    beside = laid(apart, monkeypatch)
    for rows in (1, 2):
        expected = decoded(by_modules(apart), rows, 2)
        assert torch.equal(decoded(beside, rows, 2), expected)
        assert torch.equal(decoded(apart, rows, 2), expected)


@pytest.mark.parametrize("held", HELD, ids=str)
def test_several_tokens_of_a_row(monkeypatch: pytest.MonkeyPatch, held: torch.dtype) -> None:
    """The exit lens: steps stand side by side as tokens of one pass."""
    apart = made(held)
    found = []
    for one in (laid(apart, monkeypatch), by_modules(apart)):
        cache, (events, handle) = LoopCache(one.config), record(one)
        with torch.inference_mode():
            one(ids(1), past_key_values=cache, use_cache=True)
            found.append(one.exit_lens(torch.stack([event.state for event in events]), cache))
        handle.remove()
    assert torch.equal(*found)


@pytest.mark.parametrize("held", HELD, ids=str)
def test_one_product_is_asked_for(monkeypatch: pytest.MonkeyPatch, held: torch.dtype) -> None:
    """Or everything here would compare what lies apart with itself."""
    model, asked, call = laid(made(held), monkeypatch), [], Whole.__call__
    monkeypatch.setattr(Whole, "__call__", lambda self, x: asked.append(self.sizes) or call(self, x))
    decoded(model, new=1)
    assert asked == [[160, 32], [160, 160]] * (2 + 2 * 3), "queries and keys, values; the gate, what it lets through"


# -- what others see of it -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("held", HELD, ids=str)
def test_weights_are_the_same_to_everybody(held: torch.dtype) -> None:
    model = made(held)
    before, parameters, size = copy.deepcopy(model.state_dict()), [*model.parameters()], weight_bytes(model)
    for group in every(model):
        lay_beside(group)
    assert all(one is other for one, other in zip(parameters, model.parameters(), strict=True))
    assert weight_bytes(model) == size
    for tensors in (model.state_dict(), copy.deepcopy(model).state_dict()):
        assert all(torch.equal(tensors[name], tensor) for name, tensor in before.items())
        assert all(tensor.is_contiguous() for tensor in tensors.values())
    lay_apart(model.model.layers)
    assert all(whole_of(group) is None for group in every(model))
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("tied", [False, True])
def test_it_is_saved_as_any_model_is(tied: bool, tmp_path: Path) -> None:
    apart = made(torch.float16, tie_word_embeddings=tied)
    beside = copy.deepcopy(apart)
    for group in every(beside):
        lay_beside(group)
    save_file(beside.model.state_dict(), str(tmp_path / "state"))
    assert all(
        torch.equal(each, apart.model.state_dict()[name]) for name, each in load_file(tmp_path / "state").items()
    )
    one, other = tmp_path / "apart" / "model", tmp_path / "beside" / "model"
    apart.save_pretrained(one)
    beside.save_pretrained(other)
    assert all(whole_of(group) is None for group in every(beside))
    for file in one.iterdir():
        assert file.read_bytes() == (other / file.name).read_bytes(), file.name


def test_int8_is_written_and_read_into_what_lies_side_by_side(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model, other = laid(made(torch.int8), monkeypatch), laid(made(torch.int8, seed=1), monkeypatch)
    expected = decoded(model)
    assert not torch.equal(decoded(other), expected)
    save_file(model.state_dict(), str(tmp_path / "int8"))
    other.load_state_dict(load_file(str(tmp_path / "int8")))
    assert all(whole_of(group) is not None for group in every(other))
    assert torch.equal(decoded(other), expected)


def test_a_step_of_training_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    apart = made(torch.bfloat16)
    beside = laid(apart, monkeypatch)
    decoded(beside)
    for model in (apart, beside):
        model(ids(6), labels=ids(6)).loss.backward()
        torch.optim.SGD(model.parameters(), lr=0.5).step()
    assert all(torch.equal(*pair) for pair in zip(apart.parameters(), beside.parameters(), strict=True))
    assert all(whole_of(group) is not None for group in every(beside))
    assert torch.equal(decoded(beside), decoded(by_modules(apart)))


# -- what goes elsewhere ---------------------------------------------------------------------------------------------------------------


def _other_data(model: LoopLlamaForCausalLM) -> None:
    for module in _maps(model):
        if isinstance(module, Int8Linear):
            module.scale = module.scale * 2
        else:
            module.weight.data = module.weight.data * 2


def _other_parameter(model: LoopLlamaForCausalLM) -> None:
    for module in _maps(model):
        if isinstance(module, Int8Linear):
            module.quantised = -module.quantised
        else:
            module.weight = nn.Parameter(-module.weight.detach())


def _bias(model: LoopLlamaForCausalLM) -> None:
    for module in _maps(model):
        module.bias = (
            torch.ones(module.out_features)
            if isinstance(module, Int8Linear)
            else nn.Parameter(torch.ones(module.out_features, dtype=module.weight.dtype))
        )


def _module(model: LoopLlamaForCausalLM) -> None:
    for layer in model.model.layers:
        plain = nn.Linear(128, 160, bias=False, dtype=model.dtype)
        layer.mlp.gate_proj = Int8Linear(plain) if isinstance(layer.mlp.gate_proj, Int8Linear) else plain


def _hook(model: LoopLlamaForCausalLM) -> None:
    for module in _maps(model):
        module.register_forward_hook(lambda module, args, out: 2 * out)


def _dtype(model: LoopLlamaForCausalLM) -> None:
    model.to(torch.float32)


def _maps(model: LoopLlamaForCausalLM) -> list[Any]:
    return [module for layer in model.model.layers for module in (layer.self_attn.k_proj, layer.mlp.up_proj)]


@pytest.mark.parametrize("change", [_other_data, _other_parameter, _bias, _module, _hook, _dtype])
@pytest.mark.parametrize("held", [torch.bfloat16, torch.int8], ids=str)
def test_what_goes_elsewhere_is_asked_for_itself(
    monkeypatch: pytest.MonkeyPatch, held: torch.dtype, change: Callable[[LoopLlamaForCausalLM], None]
) -> None:
    model = laid(made(held), monkeypatch)
    before = decoded(model, new=2)
    torch.manual_seed(5)
    change(model)
    found = decoded(model, new=2)
    assert torch.equal(found, decoded(by_modules(model), new=2))
    assert not torch.equal(found.float(), before.float()) or (change is _dtype and held is torch.int8)


# -- what may lie so -------------------------------------------------------------------------------------------------------------------


def test_only_what_gains_is_looked_at() -> None:
    """Not float32, nor small matrices, nor maps with a bias or a norm of their own."""
    for held, name in zip(HELD, ("float16", "bfloat16", "int8"), strict=True):
        found = {kind: len(every) for kind, every in groups(made(held).model.layers).items()}
        assert found == {(name, (128, 32, 32), 128): 4, (name, (160, 160), 128): 4}
        assert {kind[1] for kind in groups(made(held, attention_bias=True, qk_norm="none").model.layers)} == {
            (160, 160)
        }
        assert {kind[1] for kind in groups(made(held, qk_norm="head").model.layers)} == {(160, 160)}
        assert groups(lower(build(LOOP), held).model.layers) == {}
    assert groups(build(LOOP, **WIDE).model.layers) == {}


def _linears(tensors: list[Tensor]) -> list[nn.Module]:
    found = []
    for tensor in tensors:
        linear = nn.Linear(4, 4, bias=False, device="meta")
        linear.weight = nn.Parameter(tensor)
        found.append(linear)
    return found


def test_neighbours_alone_and_in_order_are_a_whole() -> None:
    matrix = torch.arange(40, dtype=torch.float16).view(10, 4)
    whole = whole_of(_linears([matrix[:7], matrix[7:]]))
    assert whole is not None
    assert torch.equal(whole.tensors[0], matrix)
    assert whole.tensors[0].data_ptr() == matrix.data_ptr()
    assert [tuple(part.shape) for part in whole(torch.ones(3, 4, dtype=torch.float16))] == [(3, 7), (3, 3)]
    assert whole_of(_linears([matrix[7:], matrix[:7]])) is None, "another order"
    assert whole_of(_linears([matrix[:7], matrix[7:9]])) is None, "something else lies there, too"
    assert whole_of(_linears([matrix[:7], matrix[6:]])) is None, "rows of both"
    assert whole_of(_linears([matrix[:7], matrix[7:].clone()])) is None
    assert whole_of(_linears([matrix.float()[:7], matrix.float()[7:]])) is None


seconds = st.floats(1e-6, 1.0)


@given(seconds, seconds, seconds, seconds)
def test_side_by_side_only_where_one_row_gains(one: float, several: float, one_b: float, several_b: float) -> None:
    found = better({"apart": (one, several), "beside": (one_b, several_b)})
    assert found == "apart" or (one > one_b and several_b - several <= 2 * (one - one_b))
    assert better({"apart": (one, several), "beside": (one / 2, several)}) == "beside"
    assert better({"apart": (one, several), "beside": (one, several / 2)}) == "apart"


@pytest.mark.parametrize("held", HELD, ids=str)
def test_other_bits_are_never_taken_and_measuring_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, held: torch.dtype
) -> None:
    model = made(held)
    before = copy.deepcopy(model.state_dict())
    for found in groups(model.model.layers).values():
        assert measured(found) in ("apart", "beside")
    monkeypatch.setattr(sides, "timed", lambda *_: {"apart": (2.0, 2.0), "beside": (1.0, 1.0)})
    call = Whole.__call__

    def off_by_a_bit(self: Whole, x: Tensor) -> tuple[Tensor, Tensor]:
        most, last = (part.clone() for part in call(self, x))
        last[-1, -1] += 1
        return most, last

    monkeypatch.setattr(Whole, "__call__", off_by_a_bit)
    assert {measured(found) for found in groups(model.model.layers).values()} == {"apart"}
    assert all(whole_of(group) is None for group in every(model))
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
