"""One LoRA a loop step: equal ones are one LoRA for all, different ones an unrolled model with merged weights a step; and
pre-step hooks, by which a step is told which is its own."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from loopviz.anatomy import parity
from loopviz.anatomy.grouped_heads import with_kv_heads
from loopviz.anatomy.reread import check_readable
from loopviz.checks import FieldError
from loopviz.model import LoopLlamaForCausalLM, LoopStepStart, register_criterion
from loopviz.model.precision import PrecisionError, quantise
from loopviz.model.shared_pass import SharedPass, sharable
from loopviz.model.step_adapters import StepAdapters, name_of

from .test_shared_pass import begun
from .tiny import LOOP, TWO, build, close, ids, record, repeated

peft = pytest.importorskip("peft", reason="optional: pip install 'loopviz[teach]'")

BLOCK = (1, 2)
SERIAL = {"loop_layers": BLOCK, "loop_count": 3, "virtual_attention_mode": "serial", "virtual_layer_count": 6}
TARGETS = ["q_proj", "v_proj", "down_proj"]
COUNT = 3


def stirred(model: LoopLlamaForCausalLM, count: int = COUNT, same: bool = False) -> LoopLlamaForCausalLM:
    """The model with so many steps' adapters, all of their weights drawn; or the first step's in every step."""

    def config():
        return peft.LoraConfig(r=2, lora_alpha=6, target_modules=TARGETS, layers_to_transform=list(BLOCK),
                               layers_pattern="layers")  # fmt: skip

    wrapped = peft.get_peft_model(model, config(), adapter_name=name_of(1))
    for step in range(2, count + 1):
        wrapped.add_adapter(name_of(step), config())
    for step in range(1, count + 1):
        torch.manual_seed(1 if same else step)
        with torch.no_grad():
            for name, parameter in sorted(wrapped.named_parameters()):
                if f".{name_of(step)}." in name:
                    parameter.copy_(0.3 * torch.randn_like(parameter))
    StepAdapters(model, count)
    return model.eval().requires_grad_(False)


def merged(model: LoopLlamaForCausalLM, loop: dict, step: int, shape: dict | None = None) -> LoopLlamaForCausalLM:
    """A LoopLlama with W + scale B A of one step in every step."""
    weights = {name.replace(".base_layer.", "."): value for name, value in model.state_dict().items()}
    plain = {name: value.clone() for name, value in weights.items() if ".lora_" not in name}
    for name in plain:
        stem = f"{name.removesuffix('.weight')}.lora_"
        if f"{stem}A.{name_of(step)}.weight" in weights:
            low, high = (weights[f"{stem}{part}.{name_of(step)}.weight"] for part in "AB")
            plain[name] += 3.0 * high @ low  # alpha / rank
    made = build(loop, **(shape or {}))
    made.load_state_dict(plain)
    return made


def unrolled(model: LoopLlamaForCausalLM, loops: int) -> LlamaForCausalLM:
    """transformers' own Llama: the block's layers once a step, each with its step's merged weights."""
    count = model.config.num_hidden_layers
    order = [0, *[layer for _ in range(loops) for layer in range(BLOCK[0], BLOCK[1] + 1)], *range(BLOCK[1] + 1, count)]
    by_step = [repeated(merged(model, SERIAL, min(step, COUNT)), order) for step in range(1, loops + 1)]
    deep, width = by_step[0], BLOCK[1] - BLOCK[0] + 1
    for step in range(2, loops + 1):
        first = BLOCK[0] + (step - 1) * width
        for index in range(first, first + width):
            deep.model.layers[index].load_state_dict(by_step[step - 1].model.layers[index].state_dict())
    return deep


def logits(model, tokens: Tensor, **how) -> Tensor:
    with torch.no_grad():
        return model(tokens, **how).logits


@pytest.mark.parametrize("mode", ["serial", "parallel"])
def test_equal_adapters_are_the_one_for_all_steps(mode):
    loop = {**SERIAL, "virtual_attention_mode": mode, "loop_count": 5, "max_loop_count": 6}
    model = stirred(build(loop), same=True)
    shared = merged(model, loop, 1)
    close(logits(model, ids(7, rows=2)), logits(shared, ids(7, rows=2)), 1e-5)
    once = model.with_loop(loop_layers=None)
    close(logits(once, ids(7)), logits(shared.with_loop(loop_layers=None), ids(7)), 1e-5)


@pytest.mark.parametrize("loops", [1, 3, 5], ids=["one", "as many as adapters", "more: the last one's again"])
def test_different_adapters_are_an_unrolled_model(loops):
    model = stirred(build({**SERIAL, "max_loop_count": 6}))
    deep, view = unrolled(model, loops), model.with_loop(loop_count=loops)
    tokens = ids(8, rows=2)
    mask = torch.ones_like(tokens)
    mask[1, :3] = 0
    close(logits(view, tokens, attention_mask=mask)[:, 3:], logits(deep, tokens, attention_mask=mask)[:, 3:], 1e-4)
    ours = theirs = None
    for part in (tokens[:, :5], tokens[:, 5:6], tokens[:, 6:]):  # decode = prefill, too
        with torch.no_grad():
            mine, other = view(part, past_key_values=ours), deep(part, past_key_values=theirs)
        ours, theirs = mine.past_key_values, other.past_key_values
        close(mine.logits, other.logits, 1e-4)
    how = {"max_new_tokens": 6, "do_sample": False, "attention_mask": torch.ones_like(tokens)}
    assert torch.equal(view.generate(tokens, **how), deep.generate(tokens, **how))
    if loops > 1:
        assert (
            logits(view, tokens) - logits(merged(model, {**SERIAL, "loop_count": loops}, 1), tokens)
        ).abs().max() > 1e-2


def test_views_in_other_threads_and_rows_that_stop_early_have_their_own_step():
    @register_criterion("first_row_stops_at_two", replace=True)
    def stops(context):
        rows = torch.zeros(context.state.shape[0], dtype=torch.bool)
        rows[0] = context.step == 2
        return rows

    loop = {**SERIAL, "loop_strategy": "dynamic_stop", "max_loop_count": 4, "min_loop_count": 1, "virtual_layer_count": 1,
            "convergence_criterion": "first_row_stops_at_two"}  # fmt: skip
    model = stirred(build(SERIAL))
    tokens, starts = ids(6, rows=2), []
    view = model.with_loop(**loop)
    view.register_loop_pre_hook(starts.append)
    got = logits(view, tokens)
    assert [(one.step, one.frozen.tolist()) for one in starts] == [(1, [False] * 2), (2, [False] * 2),
                                                                   (3, [True, False]), (4, [True, False])]  # fmt: skip
    wanted = [logits(model.with_loop(loop_count=count), tokens) for count in (2, 4)]
    close(got[0], wanted[0][0], 1e-5)
    close(got[1], wanted[1][1], 1e-5)

    found: dict[int, list[Tensor]] = {1: [], 3: []}

    def read(count: int) -> None:
        own = model.with_loop(loop_count=count)
        found[count] = [logits(own, tokens) for _ in range(10)]

    threads = [threading.Thread(target=read, args=(count,)) for count in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for count, all_of_them in found.items():
        assert len(all_of_them) == 10
        assert all(torch.equal(one, logits(model.with_loop(loop_count=count), tokens)) for one in all_of_them)


def test_rows_of_a_shared_pass_each_have_their_own_step():
    """Their blocks begin at different layers, so that they stand before the same layer in different steps."""
    base = stirred(build({"loop_layers": None}))
    loops = [{**SERIAL, "loop_count": count} for count in (1, 3, 2)] + [{**SERIAL, "loop_layers": (0, 2)}]
    views = [base.with_loop(**loop) for loop in loops]
    assert all(sharable(view, view.config.loop_blocks()) for view in views)
    rows, alone = [begun(view) for view in views], []
    for view in views:
        own = begun(view)
        alone.append(view.model(torch.tensor([[own.token]]), past_key_values=own.cache, use_cache=True)[0][0])
    told: list[LoopStepStart] = []
    views[1].register_loop_pre_hook(told.append)
    together = SharedPass(base).run(rows)
    for got, wanted in zip(together, alone, strict=True):
        close(got, wanted, 1e-5)
    assert [(one.step, list(one.state.shape)) for one in told] == [(step, [1, 1, 32]) for step in (1, 2, 3)]


def test_hooks_recording_and_watching_see_what_a_model_without_adapters_a_step_shows():
    model = stirred(build(SERIAL))
    deep, view = unrolled(model, 3), model.with_loop()
    events, _ = record(view)
    watch = view.watch_attention()
    reads = []
    view.register_loop_hook(lambda event: reads.append(event.attention(2).query.clone()))
    with torch.no_grad():
        view(ids(5))
        states = deep(ids(5), output_hidden_states=True).hidden_states
    watch.remove()
    for step, event in enumerate(events, start=1):
        close(event.state, states[1 + 2 * step], 1e-4)
    assert not torch.allclose(reads[0], reads[1])
    assert view.last_pass.seconds.hooks > 0


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
def test_gradients_reach_the_adapters_of_the_steps_that_have_a_graph(checkpointing):
    model = stirred(build(SERIAL))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".lora_" in name)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()

    def gradients(model) -> dict[str, Tensor]:
        model.zero_grad(set_to_none=True)
        model(ids(6), labels=ids(6), use_cache=False).loss.backward()
        return {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}

    def steps(found: dict[str, Tensor]) -> set[str]:
        return {name.split(".")[-2] for name, value in found.items() if bool(value.any())}

    whole = gradients(model)
    assert steps(whole) == {"step-1", "step-2", "step-3"}
    if checkpointing:
        model.gradient_checkpointing_disable()
        plain = gradients(model)
        assert all(torch.allclose(whole[name], plain[name], atol=1e-6) for name in plain)
    model.model.backprop_steps = 2
    last = gradients(model)
    assert steps(last) == {"step-2", "step-3"}
    assert all(torch.allclose(last[name], whole[name], atol=1e-6) for name in last)
    model.set_loop(loop_count=2)
    assert steps(gradients(model)) == {"step-1", "step-2"}


def test_where_one_set_of_weights_is_read_such_a_model_is_refused_by_name():
    model = stirred(build(SERIAL))
    model.config._name_or_path = "my-loop"
    for read in (
        lambda: parity.of_model(model, "my-loop"),
        lambda: check_readable(model),
        lambda: with_kv_heads(model, 1),
    ):
        with pytest.raises(FieldError, match="model='my-loop': each of its loop steps has a LoRA of its own"):
            read()


def test_such_a_model_cannot_be_saved_as_one_and_can_be_copied(tmp_path):
    model = stirred(build(SERIAL))
    with pytest.raises(ValueError, match="each loop step has a LoRA of its own"):
        model.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(PrecisionError, match="int8: each loop step has a LoRA of its own"):
        quantise(model)
    assert torch.equal(logits(copy.deepcopy(model), ids(4)), logits(model, ids(4)))


# -- pre-step hooks ----------------------------------------------------------------------------------------------------


def test_a_pre_step_hook_is_called_before_every_step_and_ended_by_its_handle():
    model, order = build(TWO), []
    model.register_loop_hook(lambda event: order.append(("after", event.block, event.step)))
    handle = model.register_loop_pre_hook(lambda start: order.append(("before", start.block, start.step)))
    starts: list[LoopStepStart] = []
    model.register_loop_pre_hook(starts.append)
    events, _ = record(model)
    logits(model, ids(4))
    steps = [(0, 1), (0, 2), (1, 1), (1, 2), (1, 3)]
    assert order == [(when, *step) for step in steps for when in ("before", "after")]
    for start, event in zip(starts, events, strict=True):
        assert torch.equal(start.state, event.previous)
        assert (start.layers, start.real) == (event.layers, None)
    handle.remove()
    order.clear()
    logits(model, ids(4))
    assert {when for when, *_ in order} == {"after"}


def test_views_have_the_pre_step_hooks_that_are_for_them_and_layers_get_what_they_return():
    model, seen, given = build(LOOP), [], []
    model.register_loop_pre_hook(lambda start: seen.append("own"))
    model.register_loop_pre_hook(lambda start: {"loop_test_word": start.step}, views=True)

    def take(attention, args, kwargs):
        given.append(kwargs.pop("loop_test_word", None))
        return args, kwargs

    for layer in model.model.layers:
        layer.self_attn.register_forward_pre_hook(take, with_kwargs=True)
    expected = logits(build(LOOP), ids(4))
    view = model.with_loop()
    assert torch.equal(logits(view, ids(4)), expected)
    assert (seen, given) == ([], [None, 1, 1, 2, 2, 3, 3, None])
    logits(model, ids(4))
    assert seen == ["own"] * 3


def test_an_exception_in_a_pre_step_hook_leaves_the_cache_as_before():
    model = build(LOOP)
    cache = model(ids(4)).past_key_values

    def fails(start):
        if start.step == 2:
            raise RuntimeError("enough")

    handle = model.register_loop_pre_hook(fails)
    with pytest.raises(RuntimeError, match="enough"):
        model(ids(1), past_key_values=cache)
    handle.remove()
    assert cache.get_seq_length() == 4
    close(
        logits(model, ids(1), past_key_values=cache),
        logits(model, ids(1), past_key_values=model(ids(4)).past_key_values),
        1e-6,
    )
