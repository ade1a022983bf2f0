"""Gradients flow through every loop, with and without gradient checkpointing, in every cache mode."""

import pytest
import torch
from torch.nn import functional as F

from .reference import Reference
from .tiny import MODES, build, close, ids, loop_weights, plain_weights, precision, unrolled

EXACT = torch.float64
OPTIONS = {
    "plain": {},
    "options": {"loop_injection": "linear", "loop_norm": True, "loop_damping": 0.5},
}


def gradients(model, tokens, **how):
    """Loss and gradients. The loss is recomputed in the logits' dtype: transformers' own rounds to float32."""
    model.zero_grad()
    out = model(tokens, labels=tokens, **how)
    loss = F.cross_entropy(out.logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    close(out.loss.double(), loss.double(), 1e-5)
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("use_cache", [None, False, True])
@pytest.mark.parametrize("mode", [mode for mode in MODES if not mode.startswith("parallel")])
def test_gradients_equal_the_unrolled_llamas(mode, use_cache):
    """Serial and merge modes: in one pass they are the unrolled model, whose copies' gradients add up."""
    model = build({"loop_layers": (1, 2), "loop_count": 3, **MODES[mode]}, tie_word_embeddings=True).to(EXACT).train()
    deep = unrolled(model, [3]).train()
    tokens = ids(7, rows=2)
    with precision(EXACT) as tolerance:
        loss, ours = gradients(model, tokens, **({} if use_cache is None else {"use_cache": use_cache}))
        expected, theirs = gradients(deep, tokens)
        close(loss, expected, tolerance)
        summed = dict.fromkeys(ours, 0)
        order = [0, 1, 2, 1, 2, 1, 2, 3]
        for name, grad in theirs.items():
            if ".layers." in name:
                head, rest = name.split(".layers.")
                index, rest = rest.split(".", 1)
                name = f"{head}.layers.{order[int(index)]}.{rest}"
            summed[name] = summed[name] + grad
        assert set(ours) == {name for name, _ in model.named_parameters()}
        for name, grad in ours.items():
            close(grad, summed[name], tolerance)


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("options", list(OPTIONS))
@pytest.mark.parametrize("mode", ["parallel", "parallel_wrapping", "serial", "ema"])
def test_gradients_equal_the_references(mode, options, use_cache):
    """Parallel mode attends to its own earlier steps: autograd over the slow reference says what it must give."""
    loop = {"loop_layers": (1, 2), "loop_count": 3, **MODES[mode], **OPTIONS[options]}
    model = build(loop).to(EXACT).train()
    named = {**plain_weights(model), **loop_weights(model)}
    weights = {name: value.detach().clone().requires_grad_() for name, value in named.items()}
    tokens = ids(5)
    with precision(EXACT) as tolerance:
        loss, ours = gradients(model, tokens, use_cache=use_cache)
        logits = Reference(model.config, weights, loop)(tokens[0].tolist()).logits
        expected = F.cross_entropy(logits[:-1], tokens[0, 1:])
        expected.backward()
        close(loss, expected.detach(), tolerance)
        by_place = {parameter.data_ptr(): ours[name] for name, parameter in model.named_parameters()}
        assert len(by_place) == len(weights)
        for name, tensor in named.items():
            close(by_place[tensor.data_ptr()], weights[name].grad, tolerance)
            assert weights[name].grad.abs().max() > 0


def recompute(model, options):
    """Switch gradient checkpointing on, by the name that this transformers has for it."""
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("options", list(OPTIONS))
@pytest.mark.parametrize("mode", list(MODES))
def test_gradient_checkpointing_changes_nothing(mode, options, reentrant):
    """Re-entrant checkpointing cannot carry gradients from step to step through a parallel step's keys: refused."""
    loop = {"loop_layers": (1, 2), "loop_count": 3, **MODES[mode], **OPTIONS[options]}
    model = build(loop).to(EXACT).train()
    tokens = ids(6, rows=2)
    mask = torch.ones_like(tokens)
    mask[1, :2] = 0
    loss, expected = gradients(model, tokens, attention_mask=mask)
    recompute(model, {"use_reentrant": reentrant})
    if reentrant and mode.startswith("parallel"):
        with pytest.raises(ValueError, match="use_reentrant"):
            model(tokens)
        return
    calls = []
    handle = model.model.layers[1].input_layernorm.register_forward_hook(lambda *_: calls.append(1))
    again, ours = gradients(model, tokens, attention_mask=mask)
    handle.remove()
    assert len(calls) == 6, "nothing was recomputed: checkpointing is off and the test would prove nothing"
    assert torch.equal(again, loss)
    assert set(ours) == set(expected)
    for name, grad in ours.items():
        close(grad, expected[name], 1e-12)


@pytest.mark.parametrize("mode", ["serial", "parallel", "ema"])
def test_dynamic_stop_trains(mode):
    """Rows stop at different steps; each row's gradient is the one it has alone."""
    loop = {
        "loop_layers": (1, 2),
        "loop_strategy": "dynamic_stop",
        "min_loop_count": 2,
        "loop_damping": 0.5,
        "convergence_criterion": "cosine",
        **MODES[mode],
        "virtual_layer_count": 2,
    }
    model = build(loop).to(EXACT).train()
    tokens = ids(5, rows=4)
    with precision(EXACT) as tolerance:
        _, together = gradients(model, tokens)
        steps = model.last_pass.steps[0].tolist()
        assert len(set(steps)) > 1, f"{steps}: all rows stop together, the test would prove nothing"
        alone = [gradients(model, tokens[row : row + 1])[1] for row in range(4)]
        for name, grad in together.items():
            close(grad, sum(one[name] for one in alone) / 4, tolerance)


@pytest.mark.parametrize("mode", ["serial", "parallel_wrapping", "average"])
def test_finite_differences(mode):
    loop = {"loop_layers": (1, 2), "loop_count": 3, **MODES[mode], **OPTIONS["options"]}
    model = build(loop).to(EXACT).train()
    tokens = ids(5)
    with precision(EXACT):
        _, grads = gradients(model, tokens)
        torch.manual_seed(0)
        for name, parameter in model.named_parameters():
            direction = torch.randn_like(parameter)
            losses = []
            for side in (1e-6, -1e-6):
                with torch.no_grad():
                    parameter.add_(direction, alpha=side)
                    losses.append(F.cross_entropy(model(tokens).logits[0, :-1], tokens[0, 1:]))
                    parameter.sub_(direction, alpha=side)
            slope = (losses[0] - losses[1]) / 2e-6
            torch.testing.assert_close((grads[name] * direction).sum(), slope, atol=1e-6, rtol=1e-5)


def test_one_step_of_training_lowers_the_loss_and_saves_nothing_of_the_graph():
    model = build({"loop_layers": (1, 2), "loop_injection": "linear", "loop_norm": True}).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    tokens = ids(8, rows=2)
    losses = []
    for _ in range(5):
        out = model(tokens, labels=tokens)  # default use_cache
        losses.append(float(out.loss.detach()))
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
        assert not any(layer.keys.requires_grad for layer in out.past_key_values.layers)
    assert losses[-1] < losses[0]


def test_backward_after_the_cache_was_written_again():
    """The next pass writes into the buffers of the last one; the first pass's gradients must not notice."""
    for mode in MODES.values():
        model = build({"loop_layers": (1, 2), **mode}).to(EXACT).train()
        tokens = ids(4)
        _, expected = gradients(model, tokens)
        model.zero_grad()
        out = model(tokens, labels=tokens)
        model(ids(2, seed=9), past_key_values=out.past_key_values)
        out.past_key_values.crop(-6)
        model(ids(6, seed=4), past_key_values=out.past_key_values)
        F.cross_entropy(out.logits[0, :-1], tokens[0, 1:]).backward()
        for name, parameter in model.named_parameters():
            close(parameter.grad, expected[name], 1e-12)
