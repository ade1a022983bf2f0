"""The probe against plain hooks on the model's own modules, and each stage against the formula it is drawn with."""

from __future__ import annotations

import itertools
from collections import defaultdict
from typing import Any

import pytest
import torch
from torch import Tensor

from loopviz.anatomy import llama
from loopviz.anatomy.probe import LayerRun, Probed, noted_of, probe
from loopviz.model import LoopCache, LoopLlamaForCausalLM
from loopviz.model.checkpoints import as_loop_llama
from loopviz.model.kept_kv import as_kept
from tests.anatomy.kinds import ENDS, LAYERS, loops
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
PLAIN = tuple(KINDS)  # whose layers are a Llama's, and whose loops only repeat them
ASKS = "what it would say decides"  # its criterion runs the layers after the loop, too
KINDS |= {**LAYERS, **loops(ENDS)}
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
BRANCH = {"normed_attended": ("input_layernorm_2", False), "normed_down": ("post_attention_layernorm_2", False)}
STREAM = {
    "between": ("input_layernorm_2", True),
    "normed_stream": ("input_layernorm_2", False),
    "result": ("post_attention_layernorm_2", True),
    "normed_result": ("post_attention_layernorm_2", False),
}
HEADS = {
    "query": ("self_attn.q_proj.norm", True),
    "key": ("self_attn.k_proj.norm", True),
    "normed_query": ("self_attn.q_proj", False),
    "normed_key": ("self_attn.k_proj", False),
}


def modules_of(config: Any) -> dict[str, tuple[str, bool]]:
    """The same of any model."""
    found = {**MODULES, **(HEADS if config.qk_norm != "none" else {})}
    found |= {"pre_branch": BRANCH, "branch": BRANCH, "pre_stream": STREAM}.get(config.norm_placement, {})
    if config.norm_placement == "branch":
        del found["normed"], found["normed_between"]
    return found


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
        for name, (path, of_input) in modules_of(model.config).items():

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
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != ASKS])
def test_every_stage_is_what_plain_hooks_see(kind, n_passes, row, attention):
    wanted = hooked(model_of(kind), n_passes, row, attention)
    model = model_of(kind)
    model.set_attn_implementation(attention)
    found = probed(model, n_passes, row)
    calls: dict[int, list[LayerRun]] = defaultdict(list)
    for run in found.layers:
        calls[run.layer].append(run)
    assert {layer: len(runs) for layer, runs in calls.items()} == {
        layer: len(each) for (layer, name), each in wanted.items() if name == "value"
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
            assert torch.equal(before.leaves, after.state)


def normed_by(norm: Any, x: Tensor) -> Tensor:
    """What the norm from scratch makes of it with a gain of the model's."""
    own = llama.LlamaRMSNorm(len(norm.weight), norm.variance_epsilon)
    own.weight = norm.weight
    return own(x)


def nearly(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)  # norms square in float32


def check_attention(model: LoopLlamaForCausalLM, run: LayerRun, cos: Tensor, sin: Tensor) -> None:
    """From the state to what attention says."""
    config, layer = model.config, model.model.layers[run.layer]
    read = run.state
    if config.norm_placement != "branch":
        assert run.normed is not None
        nearly(normed_by(layer.input_layernorm, run.state), run.normed)
        read = run.normed
    asked, offered = run.query, run.key
    for name, made, normed in (("q_proj", run.query, run.normed_query), ("k_proj", run.key, run.normed_key)):
        projection = getattr(layer.self_attn, name)
        close(made, torch.nn.functional.linear(read, projection.weight, projection.bias).view_as(made))
        if config.qk_norm == "none":
            assert normed is None
            continue
        assert normed is not None
        groups = made if config.qk_norm == "head" else made.flatten()
        nearly(normed_by(projection.norm, groups).view_as(made), normed)
        asked, offered = (normed, offered) if name == "q_proj" else (asked, normed)
    close(run.turned, llama.rotate(asked[:, None], cos, sin)[:, 0])
    turned = llama.rotate(offered[:, None], cos, sin)[:, 0]
    if run.kept != "exact":
        assert run.turned_key is not None
        assert run.kept_key is not None
        assert run.kept_value is not None
        close(run.turned_key, turned)
        assert torch.equal(run.kept_key, as_kept(run.turned_key, run.kept))
        assert torch.equal(run.kept_value, as_kept(run.value, run.kept))
        assert not torch.equal(run.kept_key, run.turned_key)
    own = run.keys[:, run.visible][:, -1]  # the newest column that is seen is the token's own, of this step
    if run.slot is not None or run.own == 1:
        close(own, turned if run.kept_key is None else run.kept_key)
    times = config.num_attention_heads // config.num_key_value_heads
    keys, values = (llama.repeat_kv(each[None], times)[0] for each in (run.keys, run.values))
    close(run.scores, (run.turned[:, None] @ keys.transpose(1, 2))[:, 0] * config.head_dim**-0.5)
    close(run.weights.sum(-1), torch.ones(len(run.weights), dtype=run.weights.dtype))
    assert not run.weights[:, ~run.visible].any()
    close(run.mixed, (run.weights[:, None] @ values)[:, 0])
    close(run.attended, layer.self_attn.o_proj(run.mixed.flatten()))


def check_sums(model: LoopLlamaForCausalLM, run: LayerRun) -> None:
    """What attention and MLP add, to what, and what leaves."""
    layer, placement = model.model.layers[run.layer], model.config.norm_placement
    added, made = run.attended, run.down
    if placement in ("pre_branch", "branch"):
        assert run.normed_attended is not None
        assert run.normed_down is not None
        nearly(normed_by(layer.input_layernorm_2, run.attended), run.normed_attended)
        nearly(normed_by(layer.post_attention_layernorm_2, run.down), run.normed_down)
        added, made = run.normed_attended, run.normed_down
    close(run.between, run.state + added)
    stream, leaves = run.between, run.result
    if placement == "pre_stream":
        assert run.normed_stream is not None
        assert run.normed_result is not None
        nearly(normed_by(layer.input_layernorm_2, run.between), run.normed_stream)
        nearly(normed_by(layer.post_attention_layernorm_2, run.result), run.normed_result)
        stream, leaves = run.normed_stream, run.normed_result
    read = stream
    if placement != "branch":
        assert run.normed_between is not None
        nearly(normed_by(layer.post_attention_layernorm, stream), run.normed_between)
        read = run.normed_between
    close(run.gate, layer.mlp.gate_proj(read))
    close(run.up, layer.mlp.up_proj(read))
    close(run.swish, run.gate * run.gate.sigmoid())
    close(run.product, run.swish * run.up)
    close(run.down, layer.mlp.down_proj(run.product))
    close(run.result, stream + made)
    assert torch.equal(run.leaves, leaves)


@pytest.mark.parametrize("kind", KINDS)
def test_every_stage_follows_from_the_one_before_by_the_formula_it_is_drawn_with(kind):
    model = model_of(kind)
    found, config = probed(model, 4, 0), model.config
    cos, sin = (
        each.float().double()
        for each in llama.rotation(llama.rotary_frequencies(config), torch.tensor([found.position]))
    )
    for run in found.layers:
        check_attention(model, run, cos, sin)
        check_sums(model, run)
    close(found.logits, model.lm_head(found.normed))
    row = model.model.embed_tokens.weight[IDS[0, found.position]]
    assert torch.equal(found.embedding, row)
    enters = row if found.scaled is None else found.scaled
    assert torch.equal(enters, row * config.embedding_scale)
    if found.layers[0].block is None:
        assert torch.equal(found.layers[0].state, enters)
    last = found.layers[-1]
    if found.final is not None:
        nearly(found.normed, model.model.norm(found.final))
        assert torch.equal(found.final, last.leaves if last.block is None else found.steps[-1].state)
    else:
        state = last.normed_step if last.read_out is None else last.read_out
        assert state is not None
        assert torch.equal(found.normed, state)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "plain"])
def test_loop_steps_join_the_layers_as_the_block_says(kind):
    model = model_of(kind)
    found = probed(model, 4, 0)
    for block in model.config.loop_blocks():
        steps = [run for run in found.steps if run.block == block.index]
        assert [run.step for run in steps] == list(range(1, len(steps) + 1))
        before_it = found.layer_run(block.a - 1)
        entry = steps[0].previous if before_it is None else before_it.leaves
        for before, run in zip([None, *steps], steps, strict=False):
            assert before is None or torch.equal(before.state, run.previous)
            close(run.damped, run.previous + block.damping * (run.left - run.previous))
            if block.norms_steps:
                nearly(run.state, model.model.norm(run.damped))
            else:
                assert torch.equal(run.state, run.damped)
            ran = [each for each in found.layers if (each.block, each.step) == (block.index, run.step)]
            assert list(run.layers) == [each.layer for each in ran]
            assert torch.equal(ran[0].state, run.entered)
            assert torch.equal(ran[-1].leaves, run.left)
            assert (ran[-1].normed_step is not None) == block.norms_steps
            entered = run.previous
            if block.injection == "add":
                entered = entered + entry
            if block.injection == "linear":
                entered = model.model.loop_injections[str(block.index)](torch.cat((entered, entry)))
            if block.norm:
                entered = model.model.loop_norms[str(block.index)](entered)
            close(run.entered, entered)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "loop_init" in KINDS[kind]])
def test_a_loop_begins_where_it_says(kind: str) -> None:
    model = model_of(kind)
    found = probed(model, 4, 0)
    (block,) = model.config.loop_blocks()
    start = found.steps[0].previous
    assert float(start.abs().max()) <= 3 * block.init_std
    assert bool(start.any()) == (block.init == "random")
    for run in found.layers:
        begins = (run.layer, run.step) == (block.a, 1)
        assert (run.start is not None) == begins
        assert not begins or torch.equal(run.start, start)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if KINDS[kind].keys() & {"exit_selection", "loop_final_norm"}])
@torch.no_grad()
def test_what_leaves_a_loop_is_what_the_gate_reads_out_and_the_norm_makes_of_it(kind: str) -> None:
    model = model_of(kind)
    found = probed(model, 4, 0)
    (block,) = model.config.loop_blocks()
    ends = block.b == model.config.num_hidden_layers - 1
    last, steps = found.last_run(0), [run.state for run in found.steps]
    assert last is not None
    leaves = steps[-1]
    if block.exit_selection != "last":
        normed = steps if block.norms_steps else [model.model.norm(state) for state in steps]
        rates = [float(model.model.loop_gates["0"](state).sigmoid()) for state in normed]
        stays = [1.0, *itertools.accumulate((1 - rate for rate in rates[:-1]), lambda a, b: a * b)]
        chances = [*(rate * stay for rate, stay in zip(rates[:-1], stays[:-1], strict=True)), stays[-1]]
        assert last.exits is not None
        assert last.exits.tolist() == pytest.approx(chances, rel=1e-6)
        given = normed if ends else steps
        if block.exit_selection == "gate":
            reached = [r for r, total in enumerate(itertools.accumulate(chances), 1) if total >= block.exit_threshold]
            assert last.exit_step == (reached or [len(steps)])[0]
            leaves = given[last.exit_step - 1]
        else:
            assert last.exit_step is None
            leaves = sum(chance * state for chance, state in zip(chances, given, strict=True))  # type: ignore[assignment]
        assert last.read_out is not None
        nearly(last.read_out, leaves)
    if block.final_norm == "last_step" and not ends:
        assert last.left is not None
        leaves = model.model.norm(leaves)
        nearly(last.left, leaves)
    else:
        assert last.left is None
    if not ends:
        after = found.layer_run(block.b + 1)
        assert after is not None
        nearly(after.state, leaves)
    for run in found.layers:
        assert (run.read_out is None and run.left is None) or run is last


def test_what_a_criterion_asks_of_the_layers_after_the_loop_is_none_of_the_pass() -> None:
    model = model_of(ASKS)
    found = probed(model, 4, 0)
    (block,) = model.config.loop_blocks()
    assert [run.layer for run in found.layers if run.block is None] == [0, 3]
    assert len(found.steps) >= 1
    after = found.layer_run(block.b + 1)
    assert after is not None
    assert torch.equal(after.state, found.steps[-1].state)


@pytest.mark.parametrize("placement", ["pre", "pre_branch", "pre_stream", "branch"])
@pytest.mark.parametrize("qk_norm", ["none", "head", "full"])
def test_every_module_that_is_noted_is_there(placement: str, qk_norm: str) -> None:
    layer = tiny.build({"norm_placement": placement, "qk_norm": qk_norm}).model.layers[0]
    inputs, outputs = noted_of(placement, qk_norm)
    for path in (*inputs, *outputs):
        layer.get_submodule(path)
    assert len({*inputs.values(), *outputs.values()}) == len(inputs) + len(outputs)


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
            assert (len(held) > 1) == (model.config.virtual_layer_count > 1)
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
