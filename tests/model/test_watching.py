"""Watched attention: exactly what the attention was given, nobody else watched, nothing changed, nothing left."""

from __future__ import annotations

import pytest
import torch

from loopviz.model import LoopCache
from loopviz.trace.recording.attention import attention_weights

from .tiny import LOOP, MODES, build, close, ids

pytestmark = pytest.mark.usefixtures("no_gradients")


def weights_of(model, chunks, watched):
    """Per layer one list over passes and steps: what the recorder's formula makes of the reads, and what the layers
    themselves returned (eager attention; None under sdpa)."""
    mine, returned, cache = {}, {}, LoopCache(model.config)

    def take(event):
        for layer in range(event.layers[0], event.layers[1] + 1):
            read = event.attention(layer)
            keys, start, T = read.keys[0], read.past * read.held, read.query.shape[2]
            found = attention_weights(read, keys[:, :start], keys[:, start:], 0, T)
            mine.setdefault(layer, []).append(found)

    handles = [model.model.register_loop_hook(take)] if watched else []
    for layer in (1, 2):
        attention = model.model.layers[layer].self_attn
        handles.append(
            attention.register_forward_hook(lambda _, __, out, at=layer: returned.setdefault(at, []).append(out[1]))
        )
    for chunk in chunks:
        model(chunk, past_key_values=cache)
    for handle in handles:
        handle.remove()
    return mine, returned


@pytest.mark.parametrize("heads", [(4, 2), (4, 4), (4, 1)], ids=["GQA", "MHA", "MQA"])
@pytest.mark.parametrize("mode", [*MODES, "one slot"])
def test_the_weights_are_those_eager_attention_returns(mode, heads):
    """Prefill, decode, and a chunk onto a past; under sdpa the same weights, from the same formula."""
    loop = {**LOOP, **MODES.get(mode, {"virtual_attention_mode": "serial", "virtual_layer_count": 1})}
    shape = {"num_attention_heads": heads[0], "num_key_value_heads": heads[1], "head_dim": 8}
    chunks = list(ids(9).split((4, 1, 3, 1), dim=1))
    eager = build(loop, attn_implementation="eager", **shape)
    watch = eager.watch_attention()
    mine, returned = weights_of(eager, chunks, watched=True)
    watch.remove()
    assert len(mine[1]) == len(returned[1]) == 3 * len(chunks)
    for layer in (1, 2):
        for ours, theirs in zip(mine[layer], returned[layer], strict=True):
            close(ours, theirs[0], 1e-6)
    sdpa = build(loop, attn_implementation="sdpa", **shape)
    watch = sdpa.watch_attention()
    fast, nothing = weights_of(sdpa, chunks, watched=True)
    watch.remove()
    assert set(nothing[1]) == {None}
    for layer in (1, 2):
        for ours, theirs in zip(fast[layer], returned[layer], strict=True):
            close(ours, theirs[0], 1e-4)


@pytest.mark.parametrize("mode", ["serial", "parallel", "ema"])
def test_watching_changes_no_bit_and_leaves_nothing(mode):
    loop = {**LOOP, **MODES[mode]}
    model = build(loop)
    plain, layers = model(ids(6)).logits, model.model.layers
    watch = model.watch_attention()
    assert torch.equal(model(ids(6)).logits, plain)
    with pytest.raises(ValueError, match="watched already"):
        model.watch_attention()
    watch.remove()
    watch.remove()
    assert model.model.layers is layers
    assert torch.equal(model(ids(6)).logits, plain)
    model.watch_attention().remove()  # free again


def test_only_the_object_that_is_watched_is_watched():
    model = build(LOOP)
    view = model.with_loop()
    watch = view.watch_attention()
    child = view.with_loop(loop_count=2)
    seen = {}
    for name, one in (("model", model), ("view", view), ("child", child)):
        one.register_loop_hook(lambda event, name=name: seen.setdefault(name, []).append(event.attention(1)))
        one(ids(4))
    assert seen["model"] == [None] * 3
    assert seen["child"] == [None] * 2
    assert len({id(read.query) for read in seen["view"]}) == 3
    watch.remove()
    assert child.model.layers is view.model.layers is model.model.layers
    calls = []
    model.model.layers[1].self_attn.register_forward_hook(lambda *_: calls.append(1))
    watch = view.watch_attention()
    view(ids(4))
    assert len(calls) == 3  # hooks of the shared modules go on
    watch.remove()


def test_a_layer_outside_the_block_is_refused():
    model = build(LOOP)
    model.register_loop_hook(lambda event: event.attention(3))
    with pytest.raises(ValueError, match=r"layer=3: not in block 0 \(layers 1\.\.2\)"):
        model(ids(2))
