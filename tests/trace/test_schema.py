"""The Frame's shape is a contract: the page, the files and the panels all read it."""

from __future__ import annotations

import copy
import json
from typing import get_type_hints

import numpy as np
import pytest
from hypothesis import given

from loopviz.trace import SCHEMA_VERSION, Frame, Trace, check_frame, check_meta, decode_states, encode_states
from loopviz.trace.schema import BlockFrame, KVFrame, Meta, StepColumns
from tests.trace.synthetic import make_meta, random_frames, random_trace, traces

# Written out by hand: changing a Frame must mean changing this list, and the version.
FRAME_KEYS = {
    1: {
        Frame: "version index phase token_id text next_id next_text next_logprob pass_tokens pass_ms blocks kv finish",
        BlockFrame: "block layers n_steps stop_reason steps states",
        StepColumns: "cosine kl rel_delta norm entropy rank topk_ids topk_logprobs topk_texts ms",
        KVFrame: "slots bytes_used bytes_allocated bytes_plain bytes_unrolled",
        Meta: "version model prompt prompt_tokens top_k shape loop blocks settings created versions",
    }
}


def test_key_sets_of_this_version_are_pinned():
    for kind, keys in FRAME_KEYS[SCHEMA_VERSION].items():
        assert set(get_type_hints(kind)) == set(keys.split()), kind.__name__


@given(traces())
def test_synthetic_traces_are_well_formed_json(trace):
    check_meta(trace.meta)
    for frame in trace.frames:
        check_frame(frame, trace.meta["shape"]["hidden"])
        assert json.loads(json.dumps(frame, allow_nan=False)) == frame


def _spoil(path, value):
    frame = copy.deepcopy(random_trace(3).frames[-1])
    *parents, last = path
    place = frame
    for key in parents:
        place = place[key]
    if value is KeyError:
        del place[last]
    else:
        place[last] = value
    return frame


@pytest.mark.parametrize(
    ("path", "value", "names"),
    [
        (["version"], 2, "version"),
        (["index"], "3", "index"),
        (["index"], True, "index"),
        (["phase"], "thinking", "phase"),
        (["next_logprob"], float("nan"), "next_logprob"),
        (["next_logprob"], float("-inf"), "next_logprob"),
        (["kv", "slots"], KeyError, "slots"),
        (["kv", "slots", 0], [], "slots"),
        (["kv", "extra"], 1, "extra"),
        (["blocks", 0, "steps", "kl", 0], float("inf"), "kl"),
        (["blocks", 0, "steps", "kl"], [], "kl"),
        (["blocks", 0, "steps", "rank", 0], 1.5, "rank"),
        (["blocks", 0, "steps", "topk_texts", 0], ["a"], "topk_texts"),
        (["blocks", 0, "layers"], [1], "layers"),
        (["blocks", 0, "states"], encode_states(np.zeros((1, 8))), "states"),
        (["finish"], "tired", "finish"),
    ],
)
def test_a_malformed_frame_is_refused_by_name(path, value, names):
    with pytest.raises(ValueError, match=names):
        check_frame(_spoil(path, value), 8)


def test_append_keeps_order_and_version():
    meta = make_meta()
    frames = random_frames(0, meta, 3)
    trace = Trace(meta, frames[:1])
    with pytest.raises(ValueError, match=r"index=2.*has index 1"):
        trace.append(frames[2])
    with pytest.raises(ValueError, match="version=7"):
        trace.append({**frames[1], "version": 7})
    with pytest.raises(ValueError, match=r"meta\.version"):
        Trace({**meta, "version": 0})
    trace.append(frames[1])
    assert len(trace) == 2


def test_tables_follow_the_frames_and_are_rebuilt_after_append():
    trace = random_trace(1, 6, blocks=[(1, 2), (4, 5)], slots=2)
    steps = trace.steps
    block = trace.frames[4]["blocks"][1]
    rows = steps[(steps.token == 4) & (steps.block == 1)]
    assert rows.step.tolist() == list(range(1, block["n_steps"] + 1))
    assert rows.kl.tolist() == block["steps"]["kl"]
    topk = trace.topk
    third = topk[(topk.token == 4) & (topk.block == 1) & (topk.step == 3)]
    assert third.token_id.tolist() == block["steps"]["topk_ids"][2]
    kv = trace.kv
    assert kv[kv.token == 4].tokens.tolist() == [n for slots in trace.frames[4]["kv"]["slots"] for n in slots]
    assert len(trace.states) == len(trace.state_index)
    where = trace.state_index
    at = np.flatnonzero((where.token == 4) & (where.block == 1))
    assert np.array_equal(trace.states[at], decode_states(block["states"], 8))
    assert trace.states.dtype == np.float16
    before = len(trace.tokens)
    trace.append({**random_frames(1, trace.meta, 7)[6]})
    assert len(trace.tokens) == before + 1


def test_states_are_clipped_to_finite_numbers():
    packed = encode_states(np.array([[1e9, -1e9, np.nan, 0.5]], dtype=np.float32))
    assert decode_states(packed, 4).tolist() == [[65504.0, -65504.0, 0.0, 0.5]]
    with pytest.raises(ValueError, match="hidden size 3"):
        decode_states(packed, 3)


def test_equality_sees_every_number():
    trace, other = random_trace(5), random_trace(5)
    assert trace == other
    other.frames[2]["blocks"][0]["steps"]["kl"][1] += 1e-12
    assert trace != other


def test_text_is_the_pieces_and_the_last_choice():
    trace = random_trace(2, 5)
    pieces = [frame["text"] for frame in trace.frames]
    assert trace.text == "".join(pieces) + trace.frames[-1]["next_text"]
    trace.frames[-1]["finish"] = "eos"
    assert trace.text == "".join(pieces)
