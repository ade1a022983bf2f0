"""Direct and exit lens: what a mid-loop state would say."""

import inspect

import pytest
import torch

from loopviz.model import LoopCache, LoopLlamaConfig, direct_lens_misleads

from .tiny import LOOP, MODES, WIDE, build, close, ids, loop_weights, plain_weights, record, reference
from .watched_reference import WatchedReference

pytestmark = pytest.mark.usefixtures("no_gradients")


def test_direct_lens():
    model = build(LOOP)
    states = torch.randn(2, 3, 5, 32)
    logits = model.lens(states)
    assert logits.shape == (2, 3, 5, 97)
    slow = reference(model, LOOP)
    close(logits[1, 2, 4], slow.lens(states[1, 2, 4]), WIDE)


@pytest.mark.parametrize(("cached", "attention"), [(0, "sdpa"), (4, "sdpa"), (5, "sdpa"), (5, "eager")])
@pytest.mark.parametrize("mode", list(MODES))
def test_exit_lens(mode, cached, attention):
    """Of the last step it is the model's output; of step r, what a model that stops after step r says.

    The second needs steps that read nothing of later ones: one pass without a past.
    """
    loop = {"loop_layers": (1, 2), **MODES[mode]}
    model = build({**loop, "loop_count": 3}, num_hidden_layers=5, attn_implementation=attention)
    cache = LoopCache(model.config)
    tokens = ids(6, rows=2)
    mask = torch.ones(2, 6, dtype=torch.long)
    mask[1, :2] = 0
    if cached:
        model(tokens[:, :cached], attention_mask=mask[:, :cached], past_key_values=cache)
        tokens = tokens[:, cached:]
    events, _ = record(model)
    out = model(tokens, attention_mask=mask, past_key_values=cache)
    held = cache.occupancy()
    real = mask[:, -tokens.shape[1] :].bool()
    states = torch.stack([event.state for event in events])
    logits = model.exit_lens(states, cache, mask)
    assert logits.shape == (3, *tokens.shape, 97)
    close(logits[-1][real], out.logits[real], 1e-5)
    assert cache.occupancy() == held
    assert (logits[0] - logits[1]).abs().max() > 1e-2
    if not cached:
        for r in (1, 2):
            early = build({**loop, "loop_count": r}, num_hidden_layers=5)(tokens, attention_mask=mask)
            close(logits[r - 1][real], early.logits[real], 1e-5)


@pytest.mark.parametrize("mode", list(MODES))
def test_exit_of_every_step_of_a_decoded_token_is_the_references(mode):
    """Steps before the last as well: nothing of one step's coda may reach another's."""
    loop = {"loop_layers": (1, 2), "loop_count": 3, **MODES[mode]}
    model = build(loop, num_hidden_layers=5)
    slow, cache = WatchedReference(model.config, {**plain_weights(model), **loop_weights(model)}, loop), None
    fast, events = LoopCache(model.config), []
    for chunk in ids(7).split((4, 1, 1, 1), dim=1):
        events.clear()
        handle = model.register_loop_hook(events.append)
        model(chunk, past_key_values=fast)
        handle.remove()
        done = slow(chunk[0].tolist(), cache)
        cache = done.cache
        exits = model.exit_lens(torch.stack([event.state for event in events]), fast)
        close(exits[:, 0], slow.exits(done), WIDE)


def test_exit_lens_without_a_cache_and_of_a_plain_llama():
    model = build(LOOP)
    events, _ = record(model)
    out = model(ids(5), use_cache=False)
    assert "cache" in inspect.signature(model.exit_lens).parameters
    close(model.exit_lens(events[-1].state[None])[0], out.logits, 1e-5)
    with pytest.raises(ValueError, match="loop_layers"):
        build().exit_lens(events[-1].state[None])


def test_lens_of_the_last_state_without_a_coda_is_the_output():
    """Not normed twice: on a block that ends the model, the direct lens of s_N is the model's output."""
    model = build({"loop_layers": (2, 3), "loop_count": 3})
    events, _ = record(model)
    out = model(ids(5))
    close(model.lens(events[-1].state), out.logits, 1e-6)
    assert (model.lens(model.model.norm(events[-1].state)) - out.logits).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("layers", "trained", "misleads"),
    [((1, 2), None, True), ((1, 2), (1, 2), False), ((1, 2), (0, 1), True), ((2, 3), None, False), (None, None, False)],
)
def test_the_direct_lens_misleads_where_layers_follow_a_block_that_no_training_knew(layers, trained, misleads):
    config, own = (
        LoopLlamaConfig(num_hidden_layers=4, hidden_size=8, num_attention_heads=2, loop_layers=of)
        for of in (layers, trained)
    )
    assert direct_lens_misleads(config, own) is misleads
