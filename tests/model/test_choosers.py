"""Which layers loop: registered by name, asked before every step, exact in every cache mode."""

import copy
import textwrap

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from loopviz.model import CHOOSERS, LoopCache, LoopLlamaConfig, LoopLlamaForCausalLM, choosers, register_layer_chooser
from loopviz.model.choosers import ChooserContext

from . import choosing
from .choosing import REFERENCES, by_tokens_model, plan, registered
from .test_oracle_batches import LENGTHS, assert_each_as_alone, prompts
from .test_oracle_cache_modes import CHUNKS, compare
from .tiny import (
    MODES,
    TOLERANCE,
    any_loop,
    build,
    close,
    ids,
    plain_twin,
    precision,
    random_shapes,
    record,
    reference,
    repeated,
)

LOOP = {"loop_layers": (1, 3), "loop_count": 3, "num_hidden_layers": 5}
PLAN = [[True, True, True], [False, True, True], [True, False, False]]
"""Of layers 1..3: all, then 2 and 3, then 1."""
ORDER = [0, 1, 2, 3, 2, 3, 1, 4]


@pytest.fixture(autouse=True, params=[False, True], ids=["no_grad", "autograd"])
def _gradients(request):
    with torch.set_grad_enabled(request.param):
        yield


# For what sets it itself, or runs no model: the fixture's second value would only do the very same again.
ONCE = pytest.mark.parametrize("_gradients", [False], indirect=True, ids=["once"])


@pytest.fixture(autouse=True)
def _by_tokens():
    with registered("by_tokens", by_tokens_model):
        yield


def chosen(mode, chooser="by_tokens", **loop):
    return {**LOOP, **MODES[mode], "layer_chooser": chooser, **loop}


def split(loop):
    """A model of these loop fields and shape, and the loop fields alone."""
    shape = {"num_hidden_layers": loop["num_hidden_layers"]}
    fields = {name: value for name, value in loop.items() if name not in shape}
    return build(fields, **shape), fields


# --- against the explicit unrolled model ---


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("mode", ["serial", "serial_wrapping", "ema", "average", "last"])
def test_a_fixed_choice_is_the_unrolled_llama_of_the_chosen_layers_bit_for_bit(mode, attention):
    tokens = ids(7, rows=2)
    mask = torch.ones_like(tokens)
    mask[1, :3] = 0
    with registered("plan", plan(PLAN)):
        fields = {k: v for k, v in chosen(mode, "plan").items() if k != "num_hidden_layers"}
        model = build(fields, num_hidden_layers=5, attn_implementation=attention)
        deep = repeated(model, ORDER)
        for given_mask in (None, mask):
            ours = model(tokens, attention_mask=given_mask, labels=tokens, use_cache=False)
            theirs = deep(tokens, attention_mask=given_mask, labels=tokens, use_cache=False)
            assert torch.equal(ours.logits, theirs.logits)
            assert torch.equal(ours.loss, theirs.loss)
        assert model.last_pass.layers_run[0][:, 0].tolist() == PLAN
        every = model.with_loop(layer_chooser="none")(tokens, use_cache=False).logits
        assert (every - model(tokens, use_cache=False).logits).abs().max() > 0.1, "the choice has no effect here"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_serial_with_a_slot_a_step_decodes_as_that_unrolled_llama(dtype):
    tokens = ids(8, rows=2)
    with registered("plan", plan(PLAN)), precision(dtype) as tolerance:
        model, _ = split(chosen("serial", "plan"))
        model.to(dtype)
        deep = repeated(model, ORDER)
        ours = theirs = None
        for part in (tokens[:, :4], tokens[:, 4:6], tokens[:, 6:7], tokens[:, 7:]):
            mine, other = model(part, past_key_values=ours), deep(part, past_key_values=theirs)
            ours, theirs = mine.past_key_values, other.past_key_values
            close(mine.logits, other.logits, tolerance)


def test_generate_of_a_fixed_choice_equals_that_unrolled_llama():
    tokens = ids(5, rows=3)
    how = {"max_new_tokens": 12, "do_sample": False, "attention_mask": torch.ones_like(tokens)}
    with registered("plan", plan(PLAN)):
        model, _ = split(chosen("serial", "plan"))
        assert torch.equal(model.generate(tokens, **how), repeated(model, ORDER).generate(tokens, **how))
        beams = {**how, "num_beams": 3}
        assert torch.equal(model.generate(tokens, **beams), repeated(model, ORDER).generate(tokens, **beams))


def test_every_row_has_its_own_unrolled_llama():
    plans = [PLAN, [[False, False, True]], []]
    orders = [ORDER, [0, 3, 4], [0, 4]]

    def by_row(ctx):
        return torch.stack([plan(plans[int(first) % 3])(ctx)[0] for first in ctx.input_ids[:, 0]])

    tokens = ids(6, rows=3)
    tokens[:, 0] = torch.tensor([3, 4, 5])
    with registered("by_row", by_row):
        model, _ = split(chosen("serial", "by_row"))
        out = model(tokens, use_cache=False).logits
        assert model.last_pass.steps[0].tolist() == [3, 1, 0]
        assert model.last_pass.reasons[0] == ["count", "by_row", "by_row"]
        for row, order in enumerate(orders):
            theirs = repeated(model, order)(tokens[row : row + 1], use_cache=False).logits
            close(out[row : row + 1], theirs, TOLERANCE[torch.float32])


@ONCE
def test_gradients_are_those_of_the_unrolled_llama():
    tokens = ids(6, rows=2)
    with registered("plan", plan(PLAN)), torch.enable_grad():
        model, _ = split(chosen("serial", "plan"))
        deep = repeated(model, ORDER)
        model(tokens, labels=tokens, use_cache=False).loss.backward()
        deep(tokens, labels=tokens, use_cache=False).loss.backward()
        for layer in range(5):
            places = [place for place, old in enumerate(ORDER) if old == layer]
            theirs = sum(deep.model.layers[place].mlp.up_proj.weight.grad for place in places)
            close(model.model.layers[layer].mlp.up_proj.weight.grad, theirs, TOLERANCE[torch.float32])


@ONCE
@pytest.mark.parametrize("mode", list(MODES))
def test_gradients_change_no_value_and_are_finite(mode):
    model, _ = split(chosen(mode))
    tokens = ids(9, rows=5)
    with torch.no_grad():
        plain = model(tokens).logits
        past = model(tokens[:, :4]).past_key_values
        then = model(tokens[:, 4:], past_key_values=copy.deepcopy(past)).logits
    with torch.enable_grad():
        out = model(tokens, labels=tokens)
        close(out.logits, plain, 1e-5)
        assert len(set(model.last_pass.steps[0].tolist())) > 1, "all rows choose alike: the test would prove nothing"
        out.loss.backward()
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
        close(model(tokens[:, 4:], past_key_values=past).logits, then, 1e-5)


@ONCE
@pytest.mark.parametrize("mode", ["serial", "parallel", "parallel_wrapping", "ema"])
def test_checkpointed_gradients_are_the_same(mode):
    tokens = ids(6, rows=4)
    grads = []
    for checkpointing in (False, True):
        model, _ = split(chosen(mode))
        model.train()
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        with torch.enable_grad():
            model(tokens, labels=tokens, use_cache=False).loss.backward()
        grads.append([p.grad for p in model.parameters() if p.grad is not None])
    for ours, theirs in zip(*grads, strict=True):
        close(ours, theirs, 1e-6)


# --- against the slow reference, token by token ---


def same_layers(model, slow, chunks, tolerance):
    """As `compare`, and the layers each pass ran are those of the reference; returns these."""
    told = []

    def look(expected):
        assert [run[:, 0].tolist() for run in model.last_pass.layers_run] == expected.layers_run
        told.append(expected.layers_run)

    compare(model, slow, chunks, tolerance, then=look)
    return told


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("chunks", CHUNKS, ids=str)
@pytest.mark.parametrize("mode", list(MODES))
def test_fixed_count_equals_the_reference(mode, chunks, dtype):
    model, loop = split(chosen(mode))
    model.to(dtype)
    with precision(dtype) as tolerance:
        slow = reference(model, loop, REFERENCES["by_tokens"])
        told = same_layers(model, slow, chunks, tolerance)
    if len(chunks) > 4:
        flat = [run for blocks in told for steps in blocks for run in steps]
        assert any(not all(run) for run in flat), "no layer was ever left out"
        assert any(not blocks[0] for blocks in told), "no token was skipped"


@pytest.mark.parametrize("mode", list(MODES))
def test_dynamic_stop_equals_the_reference(mode):
    loop = chosen(mode, loop_strategy="dynamic_stop", min_loop_count=3, max_loop_count=5, loop_damping=0.5)
    loop["cosine_threshold"] = 0.9
    model, loop = split(loop)
    model.double()
    with precision(torch.float64) as tolerance:
        passes = compare(model, reference(model, loop, REFERENCES["by_tokens"]), [4, 1, 1, 1, 1], tolerance)
    assert len({reason for p in passes for reason in p.reasons}) > 1


@pytest.mark.parametrize("chooser", ["influence", "difficulty"])
@pytest.mark.parametrize("mode", list(MODES))
def test_built_in_choosers_equal_the_reference(mode, chooser):
    """Thresholds are set between measured values, so that tokens and layers differ."""
    chunks = [3, 1, 1, 1, 1]
    model, loop = split(chosen(mode, chooser, layer_threshold=0.0))
    model.double()
    choosing.seen.clear()
    with precision(torch.float64) as tolerance:
        compare(model, reference(model, loop, REFERENCES[chooser]), chunks, tolerance)
        middle = sorted(choosing.seen)[len(choosing.seen) // 2 - 1 :][:2]
        loop["layer_threshold"] = sum(middle) / 2
        model.set_loop(layer_threshold=loop["layer_threshold"])
        slow = reference(model, loop, REFERENCES[chooser])
        told = same_layers(model, slow, chunks, tolerance)
    assert len({str(blocks) for blocks in told}) > 1, "every token chose alike: the test would prove nothing"


@ONCE
@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.data(), random_shapes(), st.sampled_from([[2, 1, 1], [1, 2], [3], [2, 2]]), st.integers(0, 5), st.booleans())
def test_any_configuration(data, shape, chunks, seed, gradients):
    loop = {**data.draw(any_loop(shape["num_hidden_layers"])), "layer_chooser": "by_tokens"}
    model = build(loop, seed=seed, **shape).double()
    with precision(torch.float64) as tolerance, torch.set_grad_enabled(gradients):
        compare(model, reference(model, loop, REFERENCES["by_tokens"]), chunks, tolerance, seed, sure=assume)


# --- rows, beams, crops ---


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("mode", list(MODES))
def test_a_row_in_a_batch_is_the_row_alone(mode, side):
    rows, after = prompts(LENGTHS)
    model, _ = split(chosen(mode))
    steps = assert_each_as_alone(model, rows, after, TOLERANCE[torch.float32], side=side)
    assert any(len(set(blocks[0])) > 1 for blocks in steps), "all rows run alike: the test would prove nothing"


@pytest.mark.parametrize("chooser", ["influence", "difficulty"])
def test_built_in_choosers_look_at_one_row_and_its_real_tokens_alone(chooser):
    rows, after = prompts(LENGTHS)
    model, _ = split(chosen("serial", chooser, layer_threshold=0.0))
    found = []
    if chooser == "influence":
        with registered("spy", lambda ctx: (found.append(ctx), ctx.all_layers())[1]):
            model.set_loop(layer_chooser="spy")
            for row in rows:
                model(row[None])
        values = [found[i * 3 + 2].influence(1).item() for i in range(3)]
    else:
        with registered(
            "spy", lambda ctx: (found.append(ctx.mean(ctx.entropy(ctx.entry, share=True))), ctx.all_layers())[1]
        ):
            model.set_loop(layer_chooser="spy")
            for row in rows:
                model(row[None])
        values = [found[i * 3].item() for i in range(3)]
    model.set_loop(layer_chooser=chooser, layer_threshold=sum(sorted(values)[:2]) / 2)
    assert_each_as_alone(model, rows, after, TOLERANCE[torch.float32])
    model(torch.nn.functional.pad(rows[1], (3, 0))[None], attention_mask=torch.tensor([[0, 0, 0, 1, 1]]))


@ONCE
@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.data(), random_shapes(), st.lists(st.integers(1, 6), min_size=2, max_size=4), st.booleans())
def test_a_row_never_depends_on_its_neighbours(data, shape, lengths, gradients):
    chooser = data.draw(st.sampled_from(["by_tokens", "influence", "difficulty"]))
    loop = {**data.draw(any_loop(shape["num_hidden_layers"])), "layer_chooser": chooser, "layer_threshold": 0.4}
    model = build(loop, **shape).double()
    rows, after = prompts(lengths)
    with precision(torch.float64) as tolerance, torch.set_grad_enabled(gradients):
        assert_each_as_alone(model, rows, after, tolerance, chunks=(1, 2))


@pytest.mark.parametrize("mode", list(MODES))
def test_crop_and_reorder(mode):
    model, _ = split(chosen(mode))
    tokens = ids(8, rows=3)
    with torch.no_grad():
        cache = model(tokens[:, :4]).past_key_values
        model(tokens[:, 4:], past_key_values=cache)
        cache.crop(-4)
        middle = model(tokens[:, 4:6], past_key_values=cache)
        fresh = model(tokens[:, :4]).past_key_values
        close(middle.logits, model(tokens[:, 4:6], past_key_values=fresh).logits, 1e-6)
        again = model(tokens[:, 6:], past_key_values=model(tokens[:, :6]).past_key_values).logits
        cache, order = model(tokens[:, :6]).past_key_values, torch.tensor([2, 2, 0])
        cache.reorder_cache(order)
        close(model(tokens[order, 6:], past_key_values=cache).logits, again[order], 1e-5)


def test_prompt_lookup_equals_greedy():
    model, _ = split(chosen("serial", "influence", layer_threshold=0.5))
    tokens = ids(4).repeat(1, 3)
    greedy = model.generate(tokens, max_new_tokens=10, do_sample=False)
    # a chooser decides once a pass: several tokens read together may choose otherwise, as under dynamic_stop
    model.set_loop(layer_threshold=2.0)
    assert model.generate(tokens, max_new_tokens=10, do_sample=False, prompt_lookup_num_tokens=3).shape == greedy.shape


def test_interrupted_passes_leave_the_cache_as_it_was():
    def breaks(ctx):
        if ctx.step == 2 and ctx.state.shape[1] == 1:
            raise RuntimeError("on purpose")
        return plan(PLAN)(ctx)

    tokens = ids(7)
    with registered("breaks", breaks):
        model, _ = split(chosen("parallel", "breaks"))
        cache = model(tokens[:, :4]).past_key_values
        held = copy.deepcopy(cache)
        with pytest.raises(RuntimeError):
            model(tokens[:, 5:6], past_key_values=cache)
    model.set_loop(layer_chooser="by_tokens")
    assert cache.get_seq_length() == 4
    close(model(tokens[:, 4:], past_key_values=cache).logits, model(tokens[:, 4:], past_key_values=held).logits, 1e-6)


# --- skipping, occupancy, hooks ---


@pytest.mark.parametrize("mode", list(MODES))
def test_a_skipped_block_is_a_llama_without_it_and_holds_every_token(mode):
    tokens = ids(6, rows=2)
    with registered("plan", plan([])):
        model, _ = split(chosen(mode, "plan"))
        events, _ = record(model)
        out = model(tokens)
        close(out.logits, repeated(model, [0, 4])(tokens).logits, 1e-6)
        assert (model.last_pass.steps[0].tolist(), model.last_pass.reasons[0]) == ([0, 0], ["plan", "plan"])
        assert model.last_pass.layers_run[0].shape == (0, 2, 3)
        assert events == []
        cache = out.past_key_values
        assert cache.get_seq_length() == 6
        assert cache.current_forward_loop_step == 0
        occupancy = cache.occupancy()
        assert {n for layer in occupancy.layers for n in layer.slots} == {6}
        assert occupancy.bytes_unrolled == occupancy.bytes_plain * 2 // 5
        assert torch.isfinite(model(ids(1, rows=2), past_key_values=cache).logits).all()


def test_a_skipped_token_leaves_the_block_as_it_came_wherever_others_start():
    """A start of zeros would leave nothing of the token."""
    tokens = ids(5)
    with registered("plan", plan([])):
        model, _ = split(chosen("serial", "plan"))
        model.model.loop_start = lambda block, state: torch.zeros_like(state)
        close(model(tokens).logits, repeated(model, [0, 4])(tokens).logits, 1e-6)


def test_bytes_unrolled_counts_layer_runs():
    model, loop = split(chosen("serial"))
    slow, cache, slow_cache, runs = reference(model, loop, REFERENCES["by_tokens"]), LoopCache(model.config), None, 0
    for token in ids(6)[0].tolist():
        model(torch.tensor([[token]]), past_key_values=cache)
        result = slow([token], slow_cache)
        slow_cache = result.cache
        runs += 2 + sum(map(sum, result.layers_run[0]))
    occupancy = cache.occupancy()
    assert occupancy.bytes_plain == 6 * 5 * 2 * 2 * 8 * 4
    assert occupancy.bytes_unrolled == runs * 2 * 2 * 8 * 4
    cache.crop(-5)
    first = slow([int(ids(6)[0, 0])])
    assert cache.occupancy().bytes_unrolled == (2 + sum(map(sum, first.layers_run[0]))) * 2 * 2 * 8 * 4


def test_hooks_are_told_which_layers_ran():
    with registered("plan", plan(PLAN)):
        model, _ = split(chosen("parallel", "plan"))
        told = []

        def hook(event):
            told.append(
                (
                    event.ran[0].tolist(),
                    [event.kv(layer) is not None for layer in (1, 2, 3)],
                    [event.attention(layer) is not None for layer in (1, 2, 3)],
                )
            )

        model.register_loop_hook(hook)
        model.watch_attention()
        model(ids(4))
        assert told == [(step, step, step) for step in PLAN]
        model.set_loop(layer_chooser="none")
        events, _ = record(model)
        model._loop_hooks = {}
        record(model)
    assert [event.ran for event in events] == []


def test_what_went_in_and_out_of_a_layer_is_shown_to_the_chooser():
    """Block influence needs the last time each layer ran, also where it has been left out since."""
    kept: list[ChooserContext] = []

    def spy(ctx):
        kept.append(copy.copy(ctx))
        kept[-1].inputs, kept[-1].outputs = list(ctx.inputs), list(ctx.outputs)
        return plan(PLAN)(ctx)

    with registered("spy", spy):
        model, _ = split(chosen("serial", "spy", loop_count=4))
        events, _ = record(model)
        model(ids(4), use_cache=False)
    assert [ctx.step for ctx in kept] == [1, 2, 3, 4]
    assert kept[0].inputs == [None] * 3
    assert kept[3].runs.tolist() == [[2, 2, 2]]
    twin = plain_twin(model)

    def run(layer, state):
        where = torch.arange(4)[None]
        return twin.model.layers[layer](state, position_embeddings=twin.model.rotary_emb(state, position_ids=where))

    x = run(0, twin.model.embed_tokens(ids(4)))
    for place, layer in enumerate((1, 2, 3)):
        close(kept[1].inputs[place], x, 1e-5)
        x = run(layer, x)
        close(kept[1].outputs[place], x, 1e-5)
    assert torch.equal(kept[2].inputs[0], kept[1].inputs[0]), "left out in step 2: still that of step 1"
    assert not torch.equal(kept[2].inputs[1], kept[1].inputs[1])
    close(kept[3].inputs[0], events[1].state, 1e-5)


# --- the built-in ones ---


def test_influence_loops_what_turns_the_state():
    model, _ = split(chosen("serial", "influence", layer_threshold=0.0))
    model(ids(5))
    assert model.last_pass.layers_run[0].all(), "every layer's influence is at least 0"
    model.set_loop(layer_threshold=2.0)
    close(model(ids(5)).logits, plain_twin(model)(ids(5)).logits, 1e-6)
    assert (model.last_pass.steps[0].tolist(), model.last_pass.reasons[0]) == ([1], ["influence"])


def test_difficulty_lets_easy_input_through_once():
    model, _ = split(chosen("serial", "difficulty", layer_threshold=1.0))
    close(model(ids(5)).logits, plain_twin(model)(ids(5)).logits, 1e-6)
    assert (model.last_pass.steps[0].tolist(), model.last_pass.reasons[0]) == ([1], ["difficulty"])
    model.set_loop(layer_threshold=0.0)
    model(ids(5))
    assert (model.last_pass.steps[0].tolist(), model.last_pass.reasons[0]) == ([3], ["count"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_decides_is_float32_whatever_the_weights(dtype):
    found = []

    def spy(ctx):
        if ctx.step == 2:
            found.extend([ctx.influence(0), ctx.entropy(ctx.entry)])
        return ctx.all_layers()

    with registered("spy", spy):
        model, _ = split(chosen("serial", "spy"))
        model.to(dtype)(ids(4))
    assert {value.dtype for value in found} == {torch.float32}
    entropy = found[1]
    assert ((entropy > 0) & (entropy < torch.tensor(97.0).log())).all()


def test_difficulty_without_a_head_is_refused():
    model, _ = split(chosen("serial", "difficulty"))
    model.model.lens = None
    with pytest.raises(ValueError, match=r"layer_chooser='difficulty'.*head"):
        model.model(ids(3))


# --- registering, and what is refused ---


@pytest.mark.parametrize(
    ("given_back", "told"),
    [
        (lambda ctx: [True, True, True], "list"),
        (lambda ctx: torch.ones(1, 3), "float32"),
        (lambda ctx: torch.ones(3, dtype=torch.bool), r"\[3\]"),
        (lambda ctx: torch.ones(1, 2, dtype=torch.bool), r"\[1, 2\]"),
        (lambda ctx: torch.ones(1, 3, dtype=torch.bool, device="meta"), "meta"),
        (lambda ctx: None, "NoneType"),
    ],
)
def test_what_a_chooser_gives_is_checked(given_back, told):
    with registered("mine", given_back):
        model, _ = split(chosen("serial", "mine"))
        with pytest.raises(ValueError, match=rf"register_layer_chooser\('mine'\).*{told}.*bool tensor \[1, 3\]"):
            model(ids(4))


@ONCE
def test_names_and_thresholds_are_checked():
    for taken, why in (("influence", "taken"), ("none", "all layers run")):
        with pytest.raises(ValueError, match=rf"{taken}.*{why}"):
            register_layer_chooser(taken, replace=True)(lambda ctx: ctx.all_layers())
    with registered("mine", by_tokens_model):
        register_layer_chooser("mine")(by_tokens_model)  # a notebook's cell, run again
        with pytest.raises(ValueError, match="replace=True"):
            register_layer_chooser("mine")(plan(PLAN))
        register_layer_chooser("mine", replace=True)(plan(PLAN))
    with pytest.raises(ValueError, match=r"layer_chooser='depth'.*'none', 'influence', 'difficulty'"):
        LoopLlamaConfig(loop_layers=(1, 2), layer_chooser="depth")
    for chooser, value in (("influence", 2.1), ("influence", -0.1), ("difficulty", 1.5), ("none", float("nan"))):
        with pytest.raises(ValueError, match="layer_threshold"):
            LoopLlamaConfig(loop_layers=(1, 2), layer_chooser=chooser, layer_threshold=value)
    LoopLlamaConfig(loop_layers=(1, 2), layer_threshold=7)
    with registered("mine", lambda ctx: ctx.all_layers(), threshold=(5, 9)):
        LoopLlamaConfig(loop_layers=(1, 2), layer_chooser="mine", layer_threshold=7)
        with pytest.raises(ValueError, match=r"layer_threshold=1.*\[5, 9\].*'mine'"):
            LoopLlamaConfig(loop_layers=(1, 2), layer_chooser="mine", layer_threshold=1)


@ONCE
def test_a_saved_model_says_what_registers_its_chooser(tmp_path):
    with registered("mine", by_tokens_model):
        model, _ = split(chosen("serial", "mine"))
        model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"layer_chooser='mine'.*import tests\.model\.choosing"):
        LoopLlamaForCausalLM.from_pretrained(tmp_path)


def test_saved_and_loaded(tmp_path):
    model, _ = split(chosen("serial", "influence", layer_threshold=0.25))
    model.save_pretrained(tmp_path)
    again = LoopLlamaForCausalLM.from_pretrained(tmp_path).eval()
    assert (again.config.layer_chooser, again.config.layer_threshold) == ("influence", 0.25)
    assert torch.equal(again(ids(4)).logits, model(ids(4)).logits)
    assert again.last_pass.layers_run[0].tolist() == model.last_pass.layers_run[0].tolist()


def test_the_example_of_the_module_runs_as_it_is_written():
    """The upper half of layers 1..3, from the second step on."""
    code = textwrap.dedent(choosers.__doc__[choosers.__doc__.index("    @register") :])
    model, _ = split(chosen("serial", "none"))
    try:
        exec(code, {"register_layer_chooser": register_layer_chooser, "model": model})
        model(ids(4))
        assert model.last_pass.layers_run[0][:, 0].tolist() == [[True] * 3, [False, True, True], [False, True, True]]
    finally:
        CHOOSERS.pop("lower_half_once", None)


def test_set_on_a_live_model_and_one_a_block():
    model = build({"loop_layers": [(0, 0), (2, 3)], "layer_chooser": ["none", "influence"], "layer_threshold": 2})
    cache = model(ids(4)).past_key_values
    assert [int(n) for n in model.last_pass.steps] == [3, 1]
    assert model.last_pass.layers_run[0] is None
    assert model.last_pass.layers_run[1][:, 0].tolist() == [[True, True]]
    model.set_loop(layer_chooser=["influence", "none"])
    model(ids(1), past_key_values=cache)
    assert [int(n) for n in model.last_pass.steps] == [1, 3]
    with pytest.raises(ValueError, match="layer_chooser"):
        model.set_loop(layer_chooser=["none"])


def test_without_a_chooser_nothing_is_asked_or_kept(monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("a chooser was made")

    monkeypatch.setattr("loopviz.model.modeling.LayerChoice", never)
    model, _ = split(chosen("parallel", "none"))
    model(ids(4))
    assert model.last_pass.layers_run == [None]
    assert set(CHOOSERS) >= {"influence", "difficulty"}
