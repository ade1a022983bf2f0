"""Which layers ran in each step, recorded: against the slow reference, through every extra, skipped tokens included."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from loopviz.engine import StreamSettings, run, stream
from loopviz.trace import check_frame, check_meta, decode_floats, encode_floats
from loopviz.trace.file import dumps, loads
from loopviz.trace.plausible import check_frames_sense, check_meta_sense
from tests.engine import tiny
from tests.model.choosing import REFERENCES, by_tokens_model, plan, registered
from tests.model.tiny import MODES, any_loop, build, ids, loop_weights, plain_weights, precision, random_shapes
from tests.model.watched_reference import WatchedReference
from tests.trace.recording.test_extras import check_attention, check_keys, record

PLAN = [[True, True, True], [False, True, True], [True, False, False]]


@pytest.fixture(autouse=True)
def _by_tokens():
    with registered("by_tokens", by_tokens_model):
        yield


def check(model, loop, chunks, tokens):
    """Layers, keys and attention of every step are the reference's; False when rounding made a loop stop elsewhere."""
    slow = WatchedReference(
        model.config, {**plain_weights(model), **loop_weights(model)}, loop, REFERENCES["by_tokens"]
    )
    cache, flat = None, []
    for chunk in chunks:
        done = slow(chunk[0].tolist(), cache)
        cache = done.cache
        flat += [done] * chunk.shape[1]
    if any([b["n_steps"] for b in blocks] != done.steps for blocks, done in zip(tokens, flat, strict=True)):
        return False
    for t, (blocks, done) in enumerate(zip(tokens, flat, strict=True)):
        for block, told in zip(blocks, done.layers_run, strict=True):
            first, n = block["layers"][0], block["n_steps"]
            assert block["layers_run"] == [[first + j for j, on in enumerate(step) if on] for step in told]
            if n == 0:
                assert (block["key_cosine"], block["attention"], block["states"]) == ([], None, None)
                assert all(column == [] for column in block["steps"].values())
                continue
            for j in range(len(told[0])):
                check_layer(model, block, j, [r for r in range(n) if told[r][j]], slow, t)
    return True


def check_layer(model, block, j, ran, slow, t):
    """One layer of one token: its own steps as the reference has them, the others empty."""
    layer, n = block["layers"][0] + j, block["n_steps"]
    column, seen = block["key_cosine"][j], block["attention"]["layers"][j]
    owned = model.config.loop_blocks()[block["block"]].slots
    weights, slots = decode_floats(seen["weights"], t + 1), decode_floats(seen["slots"], owned)
    out = [r for r in range(n) if r not in ran]
    assert [column[r] for r in out] == [None] * len(out)
    assert not weights[out].any() and not slots[out].any()  # noqa: PT018
    assert all(set(seen["change"][r]) == {None} for r in out)
    if ran:
        check_keys([column[r] for r in ran], slow.keys[layer, t])
        own = {"weights": encode_floats(weights[ran]), "slots": encode_floats(slots[ran])}
        own["change"] = [seen["change"][r] for r in ran]
        layers = [own if place == j else None for place in range(j + 1)]
        check_attention(model, {**block, "attention": {"layers": layers}}, j, slow.attention[layer, t], t)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("mode", list(MODES))
def test_layers_keys_and_attention_are_those_of_the_steps_that_ran(mode, attention):
    loop = {"loop_layers": (1, 3), "loop_count": 3, "layer_chooser": "by_tokens", **MODES[mode]}
    model = build(loop, num_hidden_layers=5, attn_implementation=attention).double()
    chunks = list(ids(12).split((5, 1, 3, 1, 1, 1), dim=1))
    with precision(torch.float64), torch.no_grad():
        tokens = record(model, chunks)
        assert check(model, loop, chunks, tokens)
    told = [step for blocks in tokens for step in blocks[0]["layers_run"]]
    assert any(len(step) < 3 for step in told), "no layer was ever left out: the test would prove nothing"
    assert any(blocks[0]["n_steps"] == 0 for blocks in tokens), "no token was skipped"


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.data(), random_shapes(), st.integers(0, 99))
def test_any_loop_any_shape(data, shape, seed):
    loop = {**data.draw(any_loop(shape["num_hidden_layers"])), "layer_chooser": "by_tokens"}
    model = build(loop, seed=seed, **shape).double()
    chunks = list(ids(6, seed=seed).split(data.draw(st.sampled_from([(4, 1, 1), (6,), (1, 1, 4)])), dim=1))
    with precision(torch.float64), torch.no_grad():
        tokens = record(model, chunks)
        assume(check(model, loop, chunks, tokens))


@pytest.mark.parametrize("record", ["full", "off"])
@pytest.mark.parametrize("steps", [PLAN, []], ids=["chosen", "skipped"])
def test_a_run_is_well_formed_and_comes_back_from_its_file(steps, record):
    extras = ("exit", "keys", "attention") if record == "full" else ()
    with registered("plan", plan(steps)):
        model = tiny.model(loop_layers=[(1, 3), (4, 4)], layer_chooser=["plan", "none"])
        trace = run(model, tiny.tokenizer(), "a dog", StreamSettings(max_new_tokens=4, record=record, extras=extras))
    check_meta(trace.meta)
    check_meta_sense(trace.meta)
    check_frames_sense(trace.frames, trace.meta)
    for frame in trace.frames:
        check_frame(frame, 32)
        chosen, every = frame["blocks"]
        assert chosen["n_steps"] == len(steps)
        assert chosen["layers_run"] == [[1 + j for j, on in enumerate(step) if on] for step in steps]
        assert chosen["stop_reason"] == ("count" if steps else "plan")
        assert (every["n_steps"], every["layers_run"], every["stop_reason"]) == (3, [], "count")
    assert [block["chooser"] for block in trace.meta["blocks"]] == ["plan", "none"]
    assert loads(dumps(trace)) == trace
    unit = 2 * 8 * 2 * 4
    assert trace.frames[-1]["kv"]["bytes_unrolled"] == len(trace) * unit * (1 + sum(map(sum, steps)) + 3)
    assert len(trace.layers_run) == len(trace) * sum(map(sum, steps))


def test_which_layers_ran_can_be_steered():
    """A chooser that is set during a run holds from the next token on."""
    from loopviz.engine import Steering

    model, steering, frames = tiny.model(loop_layers=(1, 3)), Steering(), []
    for frame in stream(model, tiny.tokenizer(), "a dog", StreamSettings(max_new_tokens=6), steering=steering):
        frames.append(frame)
        if frame["phase"] == "generated" and not steering.changes:
            steering.set_loop(layer_chooser="influence", layer_threshold=2.0)
    told = [frame["blocks"][0]["layers_run"] for frame in frames]
    assert told[0] == []
    assert told[-1] == [[1, 2, 3]]
    assert steering.changes[0]["blocks"][0]["chooser"] == "influence"
    assert np.diff([frame["kv"]["bytes_unrolled"] for frame in frames])[-1] == 5 * 2 * 8 * 2 * 4
