"""Back-propagation through the last k loop steps: values unchanged, gradients those of a loop whose start is detached."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from tests.model.tiny import build, close, ids, precision

LOOP = {"loop_layers": (1, 2), "loop_count": 4, "virtual_attention_mode": "serial", "virtual_layer_count": 4}
OPTIONS = {
    "none": {},
    "add and norm": {"loop_injection": "add", "loop_norm": True},
    "linear, damped": {"loop_injection": "linear", "loop_damping": 0.5},
}


def gradients(model, tokens):
    model.zero_grad()
    logits = model(tokens, use_cache=False).logits
    F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
    return logits.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def reference(model, tokens, k):
    """The same, by hand: the loop written out over the model's own layers, detached where the last k steps begin."""
    inner, block = model.model, model.config.loop_blocks()[0]
    model.zero_grad()
    e = inner.embed_tokens(tokens)
    T = tokens.shape[1]
    places = torch.arange(T)[None]
    mask = torch.full((T, T), float("-inf"), dtype=e.dtype).triu(1)[None, None]
    how = {"attention_mask": mask, "position_embeddings": inner.rotary_emb(e, position_ids=places)}
    state = entry = inner.layers[0](e, **how)
    for r in range(block.count):
        if r == block.count - k > 0:
            state = state.detach()
        x = state
        if block.injection == "add":
            x = x + entry
        elif block.injection == "linear":
            x = inner.loop_injections["0"](torch.cat((x, entry), -1))
        if block.norm:
            x = inner.loop_norms["0"](x)
        for layer in (1, 2):
            x = inner.layers[layer](x, **how)
        state = state + block.damping * (x - state)
    for layer in range(3, model.config.num_hidden_layers):
        state = inner.layers[layer](state, **how)
    logits = model.lm_head(inner.norm(state))
    F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("options", list(OPTIONS))
@pytest.mark.parametrize("k", [1, 2, 4])
def test_gradients_are_those_of_a_detached_start(options, k):
    model = build({**LOOP, **OPTIONS[options]}).double().train()
    tokens = ids(6, rows=2)
    with precision(torch.float64) as tolerance:
        whole, full = gradients(model, tokens)
        model.model.backprop_steps = k
        logits, ours = gradients(model, tokens)
        assert torch.equal(logits, whole)
        theirs = reference(model, tokens, k)
        assert set(ours) == set(theirs)
        for name, grad in ours.items():
            close(grad, theirs[name], tolerance)
        looped = "model.layers.1.mlp.up_proj.weight"
        assert torch.equal(ours[looped], full[looped]) == (k == 4)
        before = "model.layers.0.mlp.up_proj.weight"  # reached through the injection alone
        assert (before in ours) == (k == 4 or options != "none")


def test_more_steps_than_there_are_is_all_of_them():
    model = build({**LOOP, "loop_count": 2}).train()
    tokens = ids(5)
    _, full = gradients(model, tokens)
    model.model.backprop_steps = 7
    _, ours = gradients(model, tokens)
    assert all(torch.equal(grad, full[name]) for name, grad in ours.items())
    assert len(ours) == len(full)


def test_refusals():
    model = build(LOOP).train()
    for wrong in (0, 1.5):
        model.model.backprop_steps = wrong
        with pytest.raises(ValueError, match=f"backprop_steps={wrong}: must be a whole number >= 1"):
            model(ids(3))
    model.model.backprop_steps = 2
    model.set_loop(loop_strategy="dynamic_stop", min_loop_count=4)
    with pytest.raises(ValueError, match="backprop_steps=2: under loop_strategy='dynamic_stop'"):
        model(ids(3))
    with torch.no_grad():
        model(ids(3))
