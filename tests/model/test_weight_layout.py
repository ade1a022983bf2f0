"""The same numbers, lying otherwise: what is computed of them, what is shared, copied and saved."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from loopviz.model import LoopLlamaConfig, LoopLlamaForCausalLM
from loopviz.model.precision import lower, quantise
from loopviz.model.weight_layout import GAIN, LEAST, better, lay, lay_by_rows, matrices, timed

SIZES = {
    "vocab_size": 300,
    "hidden_size": 128,
    "intermediate_size": 160,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "initializer_range": 0.1,
}
LOOP = {"loop_layers": (1, 2), "loop_count": 3}
IDS = torch.tensor([[5, 17, 200, 2, 9, 44], [7, 7, 30, 31, 2, 1]])


def made(**fields: object) -> LoopLlamaForCausalLM:
    torch.manual_seed(3)
    return LoopLlamaForCausalLM(LoopLlamaConfig(**SIZES, **LOOP, **fields)).eval()


def by_columns(model: LoopLlamaForCausalLM) -> LoopLlamaForCausalLM:
    for weights in matrices(model).values():
        lay(weights, "columns")
    return model


@pytest.mark.parametrize("tied", [False, True])
def test_what_lies_otherwise_is_the_same_and_computes_the_same(tied: bool) -> None:
    plain = made(tie_word_embeddings=tied)
    laid = by_columns(copy.deepcopy(plain))
    assert laid.lm_head.weight.stride() == (1, 300)
    assert (laid.lm_head.weight is laid.model.embed_tokens.weight) is tied
    for name, tensor in plain.state_dict().items():
        assert torch.equal(laid.state_dict()[name], tensor), name
    with torch.no_grad():
        for ids in (IDS, IDS[:1, :1]):
            torch.testing.assert_close(laid(ids).logits, plain(ids).logits, atol=2e-5, rtol=2e-5)
    view = laid.with_loop(loop_count=2)
    assert view.lm_head.weight is laid.lm_head.weight


def test_gradients_are_those_of_rows() -> None:
    plain, laid = made(), by_columns(made())
    for model in (plain, laid):
        model(IDS, labels=IDS).loss.backward()
    for (name, one), other in zip(plain.named_parameters(), laid.parameters(), strict=True):
        assert one.grad is not None
        torch.testing.assert_close(other.grad, one.grad, atol=2e-5, rtol=2e-4, msg=name)


@pytest.mark.parametrize("tied", [False, True])
def test_it_is_saved_as_any_model_is(tied: bool, tmp_path: Path) -> None:
    """transformers cannot write matrices that two modules share and that lie by columns."""
    plain = made(tie_word_embeddings=tied)
    laid = by_columns(copy.deepcopy(plain))
    one, other = tmp_path / "plain" / "model", tmp_path / "laid" / "model"
    plain.save_pretrained(one)
    laid.save_pretrained(other)
    for file in one.iterdir():
        assert file.read_bytes() == (other / file.name).read_bytes(), file.name


def test_only_what_gains_is_looked_at() -> None:
    """Small matrices, those of another dtype and of no linear map stay as they are; what is shared counts once."""
    found = matrices(made(tie_word_embeddings=True))
    assert 32 * 128 < LEAST <= 128 * 128
    assert {shape: len(weights) for shape, weights in found.items()} == {
        (128, 128): 2 * 4,  # queries and what attention gives; keys and values are too small
        (160, 128): 2 * 4,
        (128, 160): 4,
        (300, 128): 1,
    }
    assert matrices(made().double()) == {}
    assert matrices(quantise(made())) == {}


def test_rows_come_back() -> None:
    model = by_columns(made())
    lay_by_rows(model)
    assert all(parameter.is_contiguous() for parameter in model.parameters())


seconds = st.floats(1e-6, 1.0)


@given(seconds, seconds, seconds, seconds)
def test_columns_are_taken_only_where_one_row_gains(one: float, several: float, one_c: float, several_c: float) -> None:
    found = better({"rows": (one, several), "columns": (one_c, several_c)})
    assert found == "rows" or (one >= GAIN * one_c and several_c - several <= 2 * (one - one_c))
    assert better({"rows": (one, several), "columns": (one / 2, several)}) == "columns"
    assert better({"rows": (one, several), "columns": (one, several / 2)}) == "rows"


def test_timing_changes_nothing() -> None:
    linear = nn.Linear(200, 300, bias=False)
    before = linear.weight.detach().clone()
    found = timed([linear.weight])
    assert torch.equal(linear.weight, before)
    assert linear.weight.is_contiguous()
    assert all(0 < value < 10 for pair in found.values() for value in pair)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int8])
@torch.no_grad()
def test_what_lay_by_columns_is_lowered_as_rows_are(dtype: torch.dtype) -> None:
    """A half by columns is read many times slower, and the kernel of int8 takes rows for rows."""
    plain, laid = lower(made(), dtype), lower(by_columns(made()), dtype)
    assert all(tensor.is_contiguous() for tensor in laid.state_dict().values())
    assert torch.equal(laid(IDS).logits, plain(IDS).logits)
    assert torch.equal(quantise(by_columns(made()))(IDS).logits, quantise(made())(IDS).logits)
