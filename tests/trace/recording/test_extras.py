"""Exit lens, keys and attention of every step, against the slow reference, which shares no code with the recorder."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from loopviz.model import LoopCache
from loopviz.trace import EXTRAS, decode_floats
from loopviz.trace.recording import attention as recorder_attention
from loopviz.trace.recording import recorder as recorder_module
from loopviz.trace.recording.recorder import Recorder
from tests.model.tiny import MODES, any_loop, build, ids, loop_weights, plain_weights, precision, random_shapes
from tests.model.watched_reference import WatchedReference

HALF = 5e-4  # a number up to one in float16
NEAR = 1e-4  # models in float64 here, so that no rounding hides an error; their logits are recorded in float32
LOOP = {"loop_layers": (1, 2), "loop_count": 3}


def record(model, chunks, extras=EXTRAS, top_k=4):
    """Per token of all passes (one a chunk of ids) its BlockFrames; every token is followed by the one after it."""
    recorder = Recorder(model, top_k, str, extras=extras)
    cache, tokens = LoopCache(model.config), []
    following = torch.cat((*chunks, torch.tensor([[3]])), dim=1)[0, 1:]
    with torch.inference_mode():
        for chunk in chunks:
            recorder.begin()
            out = model.model(input_ids=chunk, past_key_values=cache, use_cache=True)
            for reading in recorder.read(out.last_hidden_state, cache):
                count = reading.stop - reading.start
                tokens += reading.blocks(following[len(tokens) : len(tokens) + count])
    recorder.close()
    return tokens


def reference_of(model, loop, chunks):
    """The reference after the same passes, and each pass."""
    weights = {**plain_weights(model), **loop_weights(model)}
    slow, cache, passes = WatchedReference(model.config, weights, loop), None, []
    with torch.no_grad():
        for chunk in chunks:
            passes.append(slow(chunk[0].tolist(), cache))
            cache = passes[-1].cache
    return slow, passes


def check(model, loop, chunks, tokens):
    """Every extra of every token is the reference's; False when rounding made a loop stop elsewhere."""
    slow, passes = reference_of(model, loop, chunks)
    flat = [(done, i) for done, chunk in zip(passes, chunks, strict=True) for i in range(chunk.shape[1])]
    if any([b["n_steps"] for b in blocks] != done.steps for blocks, (done, _) in zip(tokens, flat, strict=True)):
        return False
    following = [*torch.cat(chunks, dim=1)[0, 1:].tolist(), 3]
    for t, (blocks, (done, i)) in enumerate(zip(tokens, flat, strict=True)):
        for block in blocks:
            for j, layer in enumerate(range(block["layers"][0], block["layers"][1] + 1)):
                check_keys(block["key_cosine"][j], slow.keys[layer, t])
                check_attention(model, block, j, slow.attention[layer, t], t)
        for block in blocks[:-1]:
            assert all(block["steps"][name] == [] for name in block["steps"] if name.startswith("exit_"))
        check_exit(blocks[-1]["steps"], slow.exits(done)[:, i].log_softmax(-1), following[t])
    return True


def check_keys(column, keys):
    assert column[0] is None
    for r in range(1, len(keys)):
        new, old = keys[r].flatten(), keys[r - 1].flatten()
        assert column[r] == pytest.approx(float(new @ old / new.norm() / old.norm()), abs=NEAR)
    assert len(column) == len(keys)


def check_attention(model, block, j, steps, t):
    seen, owned = block["attention"]["layers"][j], model.config.loop_blocks()[block["block"]].slots
    weights, slots = decode_floats(seen["weights"], t + 1), decode_floats(seen["slots"], owned)
    before = None
    assert len(weights) == len(slots) == len(steps)
    for r, labels in enumerate(steps):
        by_position = torch.zeros(model.config.num_attention_heads, t + 1, dtype=torch.float64)
        by_slot = torch.zeros(owned, dtype=torch.float64)
        for (position, slot), heads in labels.items():
            by_position[:, position] += heads
            by_slot[slot] += heads.mean()
        assert weights[r] == pytest.approx(by_position.mean(0).numpy(), abs=HALF)
        assert slots[r] == pytest.approx(by_slot.numpy(), abs=HALF)
        if before is None:
            assert seen["change"][0] == [None] * len(by_position)
        else:
            assert seen["change"][r] == pytest.approx((0.5 * (by_position - before).abs().sum(-1)).tolist(), abs=NEAR)
        before = by_position


def check_exit(steps, log_p, following):
    for r, expected in enumerate(log_p):
        mine = float(expected[following])
        assert steps["exit_logprob"][r] == pytest.approx(mine, abs=NEAR, rel=NEAR)
        assert (expected > mine + NEAR * 10).sum() < steps["exit_rank"][r] <= (expected > mine - NEAR * 10).sum() + 1
        best = expected.topk(len(steps["exit_topk_ids"][r])).values.tolist()
        assert steps["exit_topk_logprobs"][r] == pytest.approx(best, abs=NEAR, rel=NEAR)
        assert expected[steps["exit_topk_ids"][r]].tolist() == pytest.approx(best, abs=NEAR, rel=NEAR)
        assert steps["exit_topk_texts"][r] == [str(token) for token in steps["exit_topk_ids"][r]]
    assert len(steps["exit_rank"]) == len(log_p)


MORE = {
    "one slot": {"virtual_attention_mode": "serial", "virtual_layer_count": 1},
    "slots to spare": {"virtual_attention_mode": "parallel", "virtual_layer_count": 5},
}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("mode", [*MODES, *MORE])
def test_every_extra_of_every_token(mode, attention):
    """A prompt, a token, a chunk onto a past, a token."""
    loop = {**LOOP, **{**MODES, **MORE}[mode]}
    model = build(loop, num_hidden_layers=5, attn_implementation=attention).double()
    chunks = list(ids(10).split((5, 1, 3, 1), dim=1))
    with precision(torch.float64):
        tokens = record(model, chunks)
    assert check(model, loop, chunks, tokens)
    moved = [step for blocks in tokens for step in blocks[0]["attention"]["layers"][0]["change"][1:]]
    assert max(max(step) for step in moved) > 0.02  # or wrong steps would look right
    assert min(c for blocks in tokens for c in blocks[0]["key_cosine"][0][1:]) < 0.99


@settings(max_examples=25, deadline=None)
@given(st.data(), random_shapes(), st.integers(0, 99))
def test_any_loop_any_shape(data, shape, seed):
    loop = data.draw(any_loop(shape["num_hidden_layers"]))
    model = build(loop, seed=seed, **shape).double()
    chunks = list(
        ids(6, seed=seed).split(data.draw(st.sampled_from([(4, 1, 1), (6,), (1, 1, 4), (2, 2, 1, 1)])), dim=1)
    )
    with precision(torch.float64):
        tokens = record(model, chunks)
    assume(check(model, loop, chunks, tokens))


@pytest.mark.parametrize(("rows", "weights", "coda"), [(1, 2**23, 4096), (30, 1, 1), (512, 40, 7)])
def test_chunks_of_any_size_say_the_same(rows, weights, coda, monkeypatch):
    """However little is computed at once, for lack of memory."""
    model = build({**LOOP, "virtual_layer_count": 2}, num_hidden_layers=5)
    chunks = list(ids(8).split((6, 2), dim=1))
    whole = record(model, chunks)
    monkeypatch.setattr(recorder_module, "MAX_ROWS", rows)
    monkeypatch.setattr(recorder_module, "MAX_CODA_ROWS", coda)
    monkeypatch.setattr(recorder_attention, "MAX_WEIGHTS", weights)
    for one, other in zip(whole, record(model, chunks), strict=True):
        block, again = one[0], other[0]
        for mine, theirs in zip(block["attention"]["layers"], again["attention"]["layers"], strict=True):
            columns = len(decode_floats(mine["weights"], 1)) // block["n_steps"]
            for key, width in (("weights", columns), ("slots", 2)):
                assert decode_floats(mine[key], width) == pytest.approx(decode_floats(theirs[key], width), abs=HALF)
            for a, b in zip(mine["change"][1:], theirs["change"][1:], strict=True):
                assert a == pytest.approx(b, abs=1e-5)
        for a, b in zip(block["key_cosine"], again["key_cosine"], strict=True):
            assert a[1:] == pytest.approx(b[1:], abs=1e-6)
        assert block["steps"]["exit_logprob"] == pytest.approx(again["steps"]["exit_logprob"], abs=1e-4)


@pytest.mark.parametrize("where", [(1, 2), (3, 4)], ids=["with a coda", "without one"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_exit_of_the_last_step_is_the_model_s_output(where, count):
    """To the bit: it is read from the model's own logits, and that these are the coda's is the model's test."""
    model = build({"loop_layers": where, "loop_count": count}, num_hidden_layers=5)
    chunks = list(ids(6).split((5, 1), dim=1))
    following = [*ids(6)[0, 1:].tolist(), 3]
    own = []
    with torch.inference_mode():
        cache = LoopCache(model.config)
        for chunk in chunks:
            own.append(model(chunk, past_key_values=cache).logits[0].log_softmax(-1))
    own = torch.cat(own)
    for t, (block,) in enumerate(record(model, chunks, extras=("exit",))):
        steps = block["steps"]
        assert len(steps["exit_rank"]) == count
        assert steps["exit_logprob"][-1] == pytest.approx(float(own[t, following[t]]), abs=1e-4)
        if where[1] == 4:
            assert steps["exit_topk_ids"] == steps["topk_ids"]


def test_what_is_off_is_empty_and_costs_no_hook():
    model = build({"loop_layers": [(0, 0), (2, 3)]}, num_hidden_layers=5)
    chunks = list(ids(4).split((3, 1), dim=1))
    plain = model.model.layers
    for extras in ((), *((name,) for name in EXTRAS)):
        view = model.with_loop()
        recorder = Recorder(view, 3, str, extras=extras)
        assert len(view.model._loop_hooks) == 1 + bool({"keys", "attention"} & set(extras))
        assert (view.model.layers is plain) == ("attention" not in extras)
        recorder.close()
        assert not view.model._loop_hooks
        assert view.model.layers is plain
        for first, last in record(view, chunks, extras=extras):
            for block in (first, last):
                assert bool(block["key_cosine"]) == ("keys" in extras)
                assert (block["attention"] is not None) == ("attention" in extras)
            assert first["steps"]["exit_rank"] == []
            assert bool(last["steps"]["exit_rank"]) == ("exit" in extras)


def test_a_plain_llama_and_a_recorder_that_is_off_have_no_extras():
    for model, full in ((build(), True), (build(LOOP), False)):
        recorder = Recorder(model, 3, str, full=full, extras=EXTRAS)
        assert not model.model._loop_hooks
        with torch.inference_mode():
            cache = LoopCache(model.config)
            out = model.model(input_ids=ids(3), past_key_values=cache, use_cache=True)
            blocks = [b for reading in recorder.read(out.last_hidden_state, cache) for b in reading.blocks(ids(1)[0])]
        recorder.close()
        for block in (block for token in blocks for block in token):
            assert block["steps"]["exit_rank"] == block["key_cosine"] == []
            assert block["attention"] is None


def test_undefined_numbers_are_none():
    """A key of zeros has no direction; a state that has blown up attends to nothing one could name."""
    model = build(LOOP)
    with torch.no_grad():
        model.model.layers[1].self_attn.k_proj.weight.zero_()
    (block,) = record(model, [ids(2)], extras=("keys",))[1]
    assert block["key_cosine"][0] == [None, None, None]
    assert all(-1 <= c <= 1 for c in block["key_cosine"][1][1:])
    with torch.no_grad():
        model.model.layers[2].mlp.down_proj.weight.fill_(math.nan)
    (block,) = record(model, [ids(2)], extras=("attention",))[1]
    assert block["attention"]["layers"][0]["change"][1] == [None] * 4
