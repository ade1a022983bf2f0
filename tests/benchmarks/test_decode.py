"""benchmarks/decode.py on a tiny model: both sides of each comparison compute the same, and figures are made of the medians."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DynamicCache

from benchmarks import decode
from benchmarks.bandwidth import READS, WORD, n_bytes, read_weights, reads
from benchmarks.decode import EXACT, decoded, plain_llama, serial, take_turns, unrolled_llama
from loopviz.model import LoopCache, LoopLlamaForCausalLM
from loopviz.model.checkpoints import precision_choice
from loopviz.model.checkpoints.load import as_loop_llama
from loopviz.model.precision import held_name, quantise, weight_bytes
from tests.conftest import make_llama, make_tokenizer

BLOCK: dict[str, Any] = {"loop_layers": (1, 2), "loop_count": 3}
IDS = torch.tensor([[40, 41, 42, 43, 44]])


def looped(**shape: Any) -> LoopLlamaForCausalLM:
    model = as_loop_llama(make_llama(num_hidden_layers=4, **shape))
    model.generation_config.eos_token_id = None
    model.requires_grad_(False)
    return model


@functools.cache
def tiny() -> LoopLlamaForCausalLM:
    return looped()


def held() -> dict[str, LoopLlamaForCausalLM]:
    return {EXACT: tiny(), "bfloat16": looped().to(torch.bfloat16), "int8": quantise(looped())}


def test_the_unrolled_model_computes_what_the_looped_one_does_in_one_pass_and_through_its_cache() -> None:
    ours, theirs = serial(tiny(), BLOCK), unrolled_llama(tiny(), BLOCK)
    assert theirs.config.num_hidden_layers == 4 + 2 * 2
    assert torch.allclose(ours(IDS).logits, theirs(IDS).logits, atol=1e-5)
    plain = plain_llama(tiny(), [0, 1, 2, 3])
    assert not torch.allclose(plain(IDS).logits, theirs(IDS).logits, atol=1e-2)  # the loops do something
    mine, other = LoopCache(ours.config), DynamicCache()
    for at in range(IDS.shape[1]):
        one = ours(IDS[:, at : at + 1], past_key_values=mine, use_cache=True).logits
        two = theirs(IDS[:, at : at + 1], past_key_values=other, use_cache=True).logits
        assert torch.allclose(one, two, atol=1e-5), at


def test_a_loop_of_more_steps_than_slots_is_given_a_slot_each() -> None:
    many = {"loop_layers": (1, 2), "loop_count": 7}
    mine, other = LoopCache(serial(tiny(), many).config), DynamicCache()
    ours, theirs = serial(tiny(), many), unrolled_llama(tiny(), many)
    for part in IDS.split(2, dim=1):
        one = ours(part, past_key_values=mine, use_cache=True).logits
        assert torch.allclose(one, theirs(part, past_key_values=other, use_cache=True).logits, atol=1e-5)


def test_the_unrolled_model_has_modules_of_its_own_on_the_same_weights() -> None:
    theirs, heard = unrolled_llama(tiny(), BLOCK), []
    pointers = {parameter.data_ptr() for parameter in tiny().parameters()}
    assert {parameter.data_ptr() for parameter in theirs.parameters()} == pointers
    for module in theirs.modules():  # as other tools watch
        module.register_forward_hook(lambda *_: heard.append(1))
    tiny()(IDS)
    assert heard == []
    theirs(IDS)
    assert heard != []


def test_sides_take_turns_and_who_goes_first_changes() -> None:
    order: list[str] = []

    def side(name: str) -> Iterator[None]:
        while True:
            order.append(name)
            yield

    ms = take_turns({"a": side("a"), "b": side("b")}, 3)
    assert set(ms) == {"a", "b"}
    pairs = ["".join(order[i : i + 2]) for i in range(0, len(order), 2)]
    assert pairs == [("ba", "ab")[turn % 2] for turn in range(3 + decode.WARM_UP)]


def test_precisions_stand_against_generate_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    real = decode.take_turns

    def as_told(sides: dict[str, Any], n: int) -> dict[str, float]:
        assert set(real(sides, n)) == {"generate", EXACT, "bfloat16", "int8"}  # all of them run
        return {"generate": 50.0, EXACT: 40.0, "bfloat16": 20.0, "int8": 25.0}

    monkeypatch.setattr(decode, "take_turns", as_told)
    exact, best = decode.against_generate(held(), make_tokenizer(), 2)
    assert (exact.value, best.value) == (1.25, 2.5)
    assert "bfloat16" in best.name


def test_of_several_runs_the_least_is_told_with_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    real, told = decode.take_turns, iter([{"plain": 9.0, "looped": 10.0}, {"plain": 8.0, "looped": 10.0}])

    def as_told(sides: dict[str, Any], n: int) -> dict[str, float]:
        real(sides, n)
        return next(told)

    monkeypatch.setattr(decode, "take_turns", as_told)
    figure = decode.loop_overhead(tiny(), 1, 2, BLOCK)
    assert figure.value == 0.8
    assert (figure.measured["run 1"], figure.measured["run 2"]) == (0.9, 0.8)
    assert "in 2 of 2" in figure.target


def test_growth_with_the_context_is_dynamic_caches_over_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    real = decode.take_turns
    ms = {"ours 4": 10.0, "ours 9": 11.0, "DynamicCache 4": 10.0, "DynamicCache 9": 12.0}

    def as_told(sides: dict[str, Any], n: int) -> dict[str, float]:
        assert set(real(sides, n)) == set(ms)
        return ms

    monkeypatch.setattr(decode, "take_turns", as_told)
    figure = decode.context_growth(tiny(), 1, BLOCK, (4, 9))
    assert figure.value == pytest.approx(1.2 / 1.1)


def test_a_cache_in_fewer_bits_is_beside_the_exact_one_at_each_length() -> None:
    found = decode.fewer_bits(tiny(), 1, BLOCK, (4, 9))
    assert len({figure.name for figure in found}) == 4
    for figure in found:
        exact, kept = figure.measured.values()
        assert figure.value == pytest.approx(exact / kept)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("precision", [EXACT, "bfloat16", "int8"])
def test_a_token_reads_every_weight_once_and_of_an_embedding_that_is_no_head_one_row(
    tied: bool, precision: str
) -> None:
    model = looped(tie_word_embeddings=tied)
    if precision == "int8":
        quantise(model)
    elif precision != EXACT:
        model.to(getattr(torch, precision))
    parts = read_weights(model)
    left_out = 0 if tied else weight_bytes(model.model.embed_tokens)
    whole = weight_bytes(model) - left_out
    assert whole - WORD * len(parts) < n_bytes(parts) <= whole
    there = {tensor.data_ptr() for tensor in model.state_dict().values()}
    assert {part.data_ptr() for part in parts} <= there  # no copies: the read is of what decoding reads
    assert len({part.data_ptr() for part in parts}) == len(parts)
    for how in READS:
        next(reads(parts, how))


def test_the_limit_is_the_quickest_read_over_a_decoded_token(monkeypatch: pytest.MonkeyPatch) -> None:
    real = decode.take_turns

    def as_told(sides: dict[str, Any], n: int) -> dict[str, float]:
        assert set(real(sides, n)) == {"decode", *READS}
        return {"decode": 40.0, "largest": 22.0, "sum": 20.0, "square": 30.0}

    monkeypatch.setattr(decode, "take_turns", as_told)
    exact, other = decode.memory_share({EXACT: tiny(), "int8": quantise(looped())}, 1)
    assert exact.value == other.value == 0.5
    assert (exact.target, other.target) == (">= 0.55x", "")
    assert exact.measured["GB/s read"] == pytest.approx(exact.measured["MB"] / 20.0)
    assert other.measured["MB"] < exact.measured["MB"]


def test_a_decoding_loop_is_greedy() -> None:
    """What `generate()` chooses is what is timed."""
    llama, cache = unrolled_llama(tiny(), BLOCK), DynamicCache()
    tokens = decoded(llama, cache, IDS[:, :-1])
    wanted = llama.generate(IDS, max_new_tokens=3, do_sample=False)
    for _ in range(3):
        next(tokens)
    again = LoopCache(serial(tiny(), BLOCK).config)
    assert torch.equal(
        serial(tiny(), BLOCK).generate(IDS, past_key_values=again, max_new_tokens=3, do_sample=False), wanted
    )
    assert cache.get_seq_length() == IDS.shape[1] - 1 + 3


@pytest.mark.parametrize("both", [False, True])
def test_a_model_is_held_in_every_precision_that_this_machine_computes_the_quicker_half_first(
    llama_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, both: bool
) -> None:
    times = {"float32": (9.0, 9.0), "float16": (3.0, 3.0), "bfloat16": (2.0, 2.0), "int8": (1.0, 1.0)}
    for module in (precision_choice, decode):
        monkeypatch.setattr(module, "times_of", lambda config: times)
    models, _ = decode.held_models(str(llama_folder()), both_halves=both)
    assert list(models) == [EXACT, "bfloat16", *(["float16"] if both else []), "int8"]
    for name, model in models.items():
        assert held_name(model) == name
    del times["float16"]
    assert "float16" not in decode.held_models(str(llama_folder()), both_halves=both)[0]
