"""Layers without module calls compute what modules do, bit for bit, and whatever listens to a module or stands in its place is called."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaMLP

from loopviz.model import LoopCache, LoopLlamaForCausalLM
from loopviz.model import lean_layers as lean
from loopviz.model.precision import quantise

from .tiny import DYNAMIC, LOOP, MODES, any_loop, build, ids, random_shapes, record

PARTS = (
    "",
    "input_layernorm",
    "self_attn",
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "post_attention_layernorm",
    "mlp",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.act_fn",
    "mlp.down_proj",
)
"""The modules of a layer, all of them."""


def by_modules(model: LoopLlamaForCausalLM) -> LoopLlamaForCausalLM:
    """A copy in which a hook that does nothing stands on every module: each must be called."""
    model = copy.deepcopy(model)
    for module in model.model.layers.modules():
        module.register_forward_hook(lambda *_: None)
    return model


def decoded(model: LoopLlamaForCausalLM, rows: int = 1, new: int = 6, mask: Tensor | None = None) -> Tensor:
    """Logits `[rows, new, vocab]` of tokens read one by one after a prompt of four."""
    cache, found = LoopCache(model.config), []
    read = ids(4 + new, rows=rows)
    with torch.inference_mode():
        for start, stop in [(0, 4), *((i, i + 1) for i in range(4, 4 + new))]:
            seen = None if mask is None else mask[:, :stop]
            out = model(read[:, start:stop], attention_mask=seen, past_key_values=cache, use_cache=True)
            found.append(out.logits[:, -1:])
    return torch.cat(found[1:], dim=1)


@settings(max_examples=40)
@given(st.data())
def test_a_token_is_what_modules_make_of_it(data: st.DataObject) -> None:
    """Every shape, loop, cache mode and strategy, K/V of 8 bits too."""
    shape = data.draw(random_shapes())
    loop = data.draw(any_loop(shape["num_hidden_layers"], ("exact", "int8")))
    model = build(loop, **shape).to(data.draw(st.sampled_from([torch.float32, torch.bfloat16])))
    rows = data.draw(st.sampled_from([1, 2]))
    assert torch.equal(decoded(model, rows, 3), decoded(by_modules(model), rows, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("mode", MODES)
def test_in_every_dtype_and_attention(mode: str, attention: str, dtype: torch.dtype) -> None:
    model = build({**LOOP, **MODES[mode]}, attn_implementation=attention).to(dtype)
    assert torch.equal(decoded(model), decoded(by_modules(model)))


@pytest.mark.parametrize("loop", [LOOP, DYNAMIC, {}], ids=["fixed", "dynamic", "plain"])
def test_with_padding_and_biases(loop: dict[str, Any]) -> None:
    model = build(loop, attention_bias=True, mlp_bias=True)
    mask = torch.ones(2, 10, dtype=torch.long)
    mask[0, :2] = 0
    assert torch.equal(decoded(model, 2, mask=mask), decoded(by_modules(model), 2, mask=mask))


@pytest.mark.parametrize("fields", [{"norm_placement": "branch"}, {"qk_norm": "head"}, {"hidden_act": "gelu"}])
def test_layers_that_are_not_llamas(fields: dict[str, Any]) -> None:
    model = build(LOOP, **fields)
    assert torch.equal(decoded(model), decoded(by_modules(model)))


@pytest.mark.parametrize("mlp_bias", [False, True])
def test_matrices_of_int8(mlp_bias: bool) -> None:
    """Maps that read the same share what it is rounded to; a LoRA's neighbour, or one that is heard, does not."""
    model = quantise(build(LOOP, mlp_bias=mlp_bias))
    expected = decoded(by_modules(model))
    assert torch.equal(decoded(model), expected)
    handle = model.model.layers[1].self_attn.k_proj.register_forward_hook(lambda *_: None)
    assert torch.equal(decoded(model), expected)
    handle.remove()


def test_a_state_continued_through_the_coda() -> None:
    """The exit lens, whose steps stand side by side as tokens of one pass."""
    model = build(LOOP)
    found = []
    for one in (model, by_modules(model)):
        cache, (events, handle) = LoopCache(one.config), record(one)
        with torch.inference_mode():
            one(ids(4), past_key_values=cache, use_cache=True)
            events.clear()
            one(ids(1), past_key_values=cache, use_cache=True)
            found.append(one.exit_lens(torch.stack([event.state for event in events]), cache))
        handle.remove()
    assert len(found[0]) == 3
    assert torch.equal(*found)


def test_modules_are_left_alone_where_nothing_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or everything here would compare modules with modules."""
    model = build(LOOP)
    expected = decoded(model)
    called, call = [], nn.Module.__call__

    def counted(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        called.append(self)
        return call(self, *args, **kwargs)

    monkeypatch.setattr(nn.Module, "__call__", counted)
    assert torch.equal(decoded(model, new=1), expected[:, :1])
    inside = {id(module) for module in model.model.layers.modules()}
    runs = 4 + 2 * 2  # of layers, in the prompt's pass; a layer is twelve modules and itself
    assert sum(id(module) in inside for module in called) == runs * len(PARTS), "of the prompt's pass alone"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("mode", ["serial", "parallel", "last"])
def test_what_was_given_or_told_is_never_written_over(mode: str, dtype: torch.dtype) -> None:
    """States that a hook keeps, embeddings that somebody gave, keys and values of earlier tokens."""
    model = build({**LOOP, **MODES[mode]}).to(dtype)
    cache, kept, copies = LoopCache(model.config), [], []

    def keep(event: Any) -> None:
        kept.extend((event.previous, event.state))
        copies.extend((event.previous.clone(), event.state.clone()))

    model.register_loop_hook(keep)
    with torch.inference_mode():
        model(ids(4), past_key_values=cache, use_cache=True)
        given = model.model.embed_tokens(ids(1, seed=7))
        before = given.clone()
        out = model(inputs_embeds=given, past_key_values=cache, use_cache=True)
        logits, past = out.logits.clone(), [layer.keys[:, :, :5].clone() for layer in cache.layers]
        model(ids(1), past_key_values=cache, use_cache=True)
    assert torch.equal(given, before)
    assert len(kept) == 3 * 3 * 2
    assert all(map(torch.equal, kept, copies))
    assert torch.equal(out.logits, logits)
    assert all(torch.equal(layer.keys[:, :, :5], keys) for layer, keys in zip(cache.layers, past, strict=True))


# -- what listens ------------------------------------------------------------------------------------------------------


def test_the_parts_are_all_there_are() -> None:
    assert {name for name, _ in build().model.layers[0].named_modules()} == {*PARTS}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("layer", [0, 1], ids=["prelude", "block"])
def test_hooks_are_called_at_every_token(layer: int, part: str) -> None:
    """A hook sees each step, and what it puts in the result's place is what goes on; without it all is as before."""
    model = build(LOOP)
    before, steps = decoded(model), 3 if layer == 1 else 1
    module = model.model.layers[layer].get_submodule(part)
    calls: list[str] = []

    def changed(module: nn.Module, args: Any, out: Any) -> Any:
        calls.append("after")
        return (1.5 * out[0], *out[1:]) if isinstance(out, tuple) else 1.5 * out

    after = module.register_forward_hook(changed)
    ahead = module.register_forward_pre_hook(lambda *_: calls.append("before"))
    found = decoded(model)
    assert calls == ["before", "after"] * (steps * 7)  # six tokens and the prompt
    assert not torch.allclose(found, before)
    after.remove()
    ahead.remove()
    assert torch.equal(decoded(model), before)


@pytest.mark.parametrize("part", PARTS)
def test_a_forward_put_on_a_module_is_called(part: str) -> None:
    """As accelerate, kernels and patches of people do."""
    model = build(LOOP)
    module = model.model.layers[1].get_submodule(part)
    kept, calls = module.forward, []

    def other(*args: Any, **kwargs: Any) -> Any:
        calls.append(part)
        return kept(*args, **kwargs)

    before = decoded(model)
    module.forward = other
    assert torch.equal(decoded(model), before)
    assert len(calls) == 3 * 7


def test_a_forward_put_on_a_class_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(LOOP)
    before = decoded(model)
    monkeypatch.setattr(LlamaMLP, "forward", lambda self, x: torch.zeros_like(x))
    assert not torch.allclose(decoded(model), before)


class _Twice(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def test_a_module_put_in_anothers_place_is_called() -> None:
    model = build(LOOP)
    plain = model.model.layers[1].mlp.down_proj
    expected = copy.deepcopy(model)
    with torch.no_grad():
        expected.model.layers[1].mlp.down_proj.weight.mul_(2)
    decoded(model)
    twice = _Twice(plain.in_features, plain.out_features, bias=False)
    twice.weight = plain.weight
    model.model.layers[1].mlp.down_proj = twice
    assert torch.equal(decoded(model), decoded(expected))


def test_a_norm_whose_epsilon_changes_and_another_default_of_tensors() -> None:
    model = build(LOOP)
    decoded(model)
    model.model.layers[1].input_layernorm.variance_epsilon = 0.5
    assert torch.equal(decoded(model), decoded(by_modules(model)))
    fresh = build(LOOP)
    expected = decoded(by_modules(fresh))
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            _parts_of_all(fresh)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(decoded(fresh), expected)


def _parts_of_all(model: LoopLlamaForCausalLM) -> None:
    for layer in model.model.layers:
        lean._parts_of(layer)


def test_hooks_on_every_module_of_the_process_are_called() -> None:
    model, calls = build(LOOP), []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: calls.append(type(module)))
    try:
        decoded(model, new=1)
    finally:
        handle.remove()
    assert calls.count(LlamaMLP) == 2 * (2 + 2 * 3)


def test_hidden_states_that_transformers_captures() -> None:
    """It does so by hooks of its own, put on at the first pass that is asked for them."""
    model, cache = build(LOOP), LoopCache(build(LOOP).config)
    with torch.inference_mode():
        model(ids(4), past_key_values=cache, use_cache=True)
        out = model(ids(1), past_key_values=cache, use_cache=True, output_hidden_states=True)
    assert len(out.hidden_states) == 2 + 2 * 3 + 1


def test_gradients_training_and_long_passes_are_the_modules() -> None:
    told = {"position_embeddings": (torch.ones(1, 1, 4), torch.ones(1, 1, 4))}
    one = torch.ones(1, 1, 8)
    with torch.no_grad():
        assert lean.lean_layers(False, one, told) is not None
        assert lean.lean_layers(True, one, told) is None
        assert lean.lean_layers(False, torch.ones(1, lean.FEW + 1, 8), told) is None
        assert lean.lean_layers(False, one, {**told, "cu_seq_lens": None}) is None
        with torch.autocast("cpu"):
            assert lean.lean_layers(False, one, told) is None
    assert lean.lean_layers(False, one, told) is None
