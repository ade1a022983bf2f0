"""The probe against plain hooks on the model's own modules, and each stage against the formula it is drawn with."""

from __future__ import annotations

import itertools
from collections import defaultdict
from typing import Any

import pytest
import torch
from torch import Tensor

from loopviz.anatomy import llama
from loopviz.anatomy.probe import LayerRun, Probed, probe
from loopviz.model import LoopCache, LoopLlamaForCausalLM
from loopviz.model.checkpoints import as_loop_llama
from tests.conftest import make_llama
from tests.model import tiny

KINDS: dict[str, dict[str, Any]] = {
    **{name: {**tiny.LOOP, **mode} for name, mode in tiny.MODES.items()},
    "dynamic": tiny.DYNAMIC,
    "two blocks": tiny.TWO,
    "injected": {**tiny.LOOP, "loop_injection": "linear", "loop_norm": True, "loop_damping": 0.6},
    "chosen": {**tiny.LOOP, "layer_chooser": "difficulty", "layer_threshold": 0.5, "virtual_layer_count": 1},
    "plain": {},
}
MODULES = {  # what a plain hook on a module sees: of its output, or of its input
    "normed": ("input_layernorm", False),
    "query": ("self_attn.q_proj", False),
    "key": ("self_attn.k_proj", False),
    "value": ("self_attn.v_proj", False),
    "mixed": ("self_attn.o_proj", True),
    "attended": ("self_attn.o_proj", False),
    "between": ("post_attention_layernorm", True),
    "normed_between": ("post_attention_layernorm", False),
    "gate": ("mlp.gate_proj", False),
    "up": ("mlp.up_proj", False),
    "product": ("mlp.down_proj", True),
    "down": ("mlp.down_proj", False),
}
IDS = torch.tensor([[5, 17, 3, 60, 22, 9, 41, 8, 33]])
PASSES = (0, 5, 6, 7, 8, 9)  # a prompt, then token by token


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def model_of(kind: str) -> LoopLlamaForCausalLM:
    return tiny.build(KINDS[kind], tie_word_embeddings=False).double()


def hooked(model: LoopLlamaForCausalLM, n_passes: int, row: int, attention: str) -> dict[tuple[int, str], list[Tensor]]:
    """What torch's own hooks see of a token in the last of so many passes, by layer and name, in the order of its calls."""
    model.set_attn_implementation(attention)
    seen: dict[tuple[int, str], list[Tensor]] = defaultdict(list)
    handles = []
    for index, layer in enumerate(model.model.layers):
        for name, (path, of_input) in MODULES.items():

            def note(_: Any, given: Any, made: Tensor, key: Any = (index, name), of_input: bool = of_input) -> None:
                seen[key].append((given[0] if of_input else made)[0].clone())

            handles.append(layer.get_submodule(path).register_forward_hook(note))
        if attention == "eager":  # transformers gives its weights

            def note_weights(_: Any, given: Any, made: Any, index: int = index) -> None:
                seen[index, "weights"].append(made[1][0].transpose(0, 1).clone())

            handles.append(layer.self_attn.register_forward_hook(note_weights))
    cache = LoopCache(model.config)
    for first, last in list(itertools.pairwise(PASSES))[:n_passes]:
        seen.clear()
        with torch.no_grad():
            model.model(IDS[:, first:last], past_key_values=cache, use_cache=True)
    for handle in handles:
        handle.remove()
    return {key: [each[row] for each in found] for key, found in seen.items()}


def probed(model: LoopLlamaForCausalLM, n_passes: int, row: int) -> Probed:
    cache, passes = LoopCache(model.config), list(itertools.pairwise(PASSES))[:n_passes]
    with torch.no_grad():
        for first, last in passes[:-1]:
            model.model(IDS[:, first:last], past_key_values=cache, use_cache=True)
    first, last = passes[-1]
    return probe(model, cache, IDS[:, first:last], row)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(("n_passes", "row"), [(1, 2), (1, 4), (4, 0)])
@pytest.mark.parametrize("kind", KINDS)
def test_every_stage_is_what_plain_hooks_see(kind, n_passes, row, attention):
    wanted = hooked(model_of(kind), n_passes, row, attention)
    model = model_of(kind)
    model.set_attn_implementation(attention)
    found = probed(model, n_passes, row)
    calls: dict[int, list[LayerRun]] = defaultdict(list)
    for run in found.layers:
        calls[run.layer].append(run)
    assert {layer: len(runs) for layer, runs in calls.items()} == {
        layer: len(each) for (layer, name), each in wanted.items() if name == "normed"
    }
    for (layer, name), each in wanted.items():
        for run, tensor in zip(calls[layer], each, strict=True):
            made = getattr(run, name).reshape(tensor.shape)
            if name == "weights":
                torch.testing.assert_close(made, tensor, rtol=1e-6, atol=1e-6)  # theirs are a softmax in float32
            else:
                close(made, tensor)
    for before, after in zip(found.layers, found.layers[1:], strict=False):
        if before.block is None and after.block is None:
            assert torch.equal(before.result, after.state)


@pytest.mark.parametrize("kind", KINDS)
def test_every_stage_follows_from_the_one_before_by_the_formula_of_the_llama_from_scratch(kind):
    model = model_of(kind)
    found, config = probed(model, 4, 0), model.config
    cos, sin = (
        each.float().double()
        for each in llama.rotation(llama.rotary_frequencies(config), torch.tensor([found.position]))
    )
    for run in found.layers:
        layer = model.model.layers[run.layer]
        norm = llama.LlamaRMSNorm(config.hidden_size, config.rms_norm_eps)
        norm.weight = layer.input_layernorm.weight
        torch.testing.assert_close(norm(run.state), run.normed, rtol=1e-6, atol=1e-6)  # both square in float32
        close(run.query, layer.self_attn.q_proj(run.normed).view_as(run.query))
        close(run.turned, llama.rotate(run.query[:, None], cos, sin)[:, 0])
        own = run.keys[:, run.visible][:, -1]  # the newest column that is seen is the token's own, of this step
        if run.slot is not None or run.own == 1:
            close(own, llama.rotate(run.key[:, None], cos, sin)[:, 0])
        times = config.num_attention_heads // config.num_key_value_heads
        keys, values = (llama.repeat_kv(each[None], times)[0] for each in (run.keys, run.values))
        scores = (run.turned[:, None] @ keys.transpose(1, 2))[:, 0] * config.head_dim**-0.5
        close(run.scores, scores)
        close(run.weights.sum(-1), torch.ones(len(run.weights), dtype=run.weights.dtype))
        assert not run.weights[:, ~run.visible].any()
        close(run.mixed, (run.weights[:, None] @ values)[:, 0])
        close(run.attended, layer.self_attn.o_proj(run.mixed.flatten()))
        close(run.between, run.state + run.attended)
        close(run.swish, run.gate * run.gate.sigmoid())
        close(run.product, run.swish * run.up)
        close(run.down, layer.mlp.down_proj(run.product))
        close(run.result, run.between + run.down)
    close(found.logits, model.lm_head(found.normed))
    torch.testing.assert_close(found.normed, model.model.norm(found.final), rtol=1e-6, atol=1e-6)
    assert torch.equal(found.embedding, model.model.embed_tokens.weight[IDS[0, found.position]])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "plain"])
def test_loop_steps_join_the_layers_as_the_block_says(kind):
    model = model_of(kind)
    found = probed(model, 4, 0)
    for block in model.config.loop_blocks():
        steps = [run for run in found.steps if run.block == block.index]
        assert [run.step for run in steps] == list(range(1, len(steps) + 1))
        entry = steps[0].previous
        for before, run in zip([None, *steps], steps, strict=False):
            assert before is None or torch.equal(before.state, run.previous)
            close(run.state, run.previous + block.damping * (run.left - run.previous))
            assert list(run.layers) == [
                each.layer for each in found.layers if (each.block, each.step) == (block.index, run.step)
            ]
            first = found.layer_run(run.layers[0], run.step)
            assert first is not None
            assert torch.equal(first.state, run.entered)
            if block.injection == "none" and not block.norm:
                assert torch.equal(run.entered, run.previous)
            if block.injection == "linear":
                entered = model.model.loop_injections[str(block.index)](torch.cat((run.previous, entry)))
                close(run.entered, model.model.loop_norms[str(block.index)](entered))


@pytest.mark.parametrize("kind", KINDS)
def test_columns_are_positions_and_slots(kind):
    model = model_of(kind)
    found = probed(model, 4, 0)
    for run in found.layers:
        positions, slots = run.columns()
        assert (run.slot is None) == (run.block is not None and model.config.loop_blocks()[run.block].parallel)
        assert positions.shape == slots.shape == run.visible.shape
        seen = positions[run.visible]
        assert int(seen.max()) == found.position
        assert set(seen.tolist()) == set(range(found.position + 1))
        if run.slot is None:  # all slots are read, as where nothing else is said
            held = {int(slot) for slot, place in zip(slots, positions, strict=True) if place == 0}
            assert held == set(range(run.held))
            assert (len(held) > 1) == (kind != "chosen")  # which has one slot
        else:
            assert len(positions) == found.position + 1


def test_a_pass_that_is_probed_leaves_model_and_cache_as_any_other():
    model = model_of("parallel")
    plain, cache = LoopCache(model.config), LoopCache(model.config)
    with torch.no_grad():
        model.model(IDS[:, :5], past_key_values=plain, use_cache=True)
        probe(model, cache, IDS[:, :5], 3)
        layers = list(model.model.layers)
        found = probe(model, cache, IDS[:, 5:6])
        out = model(IDS[:, 5:6], past_key_values=plain, use_cache=True)
    assert torch.equal(out.logits[0, -1], found.logits)
    for mine, other in zip(cache.layers, plain.layers, strict=True):
        assert mine.length == other.length
        assert torch.equal(mine.keys[:, :, :6], other.keys[:, :, :6])
    assert list(model.model.layers) == layers
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_plain_llama_can_be_probed():
    found = probed(as_loop_llama(make_llama()).double(), 2, 0)
    assert [run.layer for run in found.layers] == [0, 1, 2]
    assert not found.steps
    assert not found.reasons


@pytest.mark.parametrize(("ids", "row"), [(IDS.expand(2, -1), 0), (IDS, 9), (IDS, -10)])
def test_what_is_no_token_is_refused(ids, row):
    model = model_of("plain")
    with pytest.raises(ValueError, match=f"row={row}"):
        probe(model, LoopCache(model.config), ids, row)
