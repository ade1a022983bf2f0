"""The Frame's shape is a contract: the page, the files and the panels all read it."""

from __future__ import annotations

import copy
import json
from typing import get_type_hints

import numpy as np
import pytest
from hypothesis import given, settings

from loopviz.trace import SCHEMA_VERSION, Frame, Trace, check_frame, check_meta, decode_states, encode_states
from loopviz.trace.schema import (
    EXTRAS,
    Attention,
    BlockFrame,
    GateFrame,
    KVFrame,
    LayerAttention,
    Memory,
    Meta,
    Parts,
    Shape,
    StepColumns,
    TTTFrame,
    TTTMeta,
    decode_floats,
)
from tests.trace.synthetic import make_meta, random_frames, random_trace, traces

# Written out by hand: changing a Frame must mean changing this list, and the version.
FRAME_KEYS = {
    7: {
        Frame: "version index phase token_id text next_id next_text next_logprob next_topk_ids next_topk_logprobs "
        "next_topk_texts pass_tokens pass_runs pass_ms wall_ms parts memory blocks kv finish ttt",
        BlockFrame: "block layers n_steps stop_reason layers_run steps states key_cosine attention gate",
        GateFrame: "p cdf read_out",
        StepColumns: "cosine kl rel_delta norm entropy rank topk_ids topk_logprobs topk_texts ms exit_rank exit_logprob exit_topk_ids "
        "exit_topk_logprobs exit_topk_texts",
        KVFrame: "slots bytes_used bytes_allocated bytes_plain bytes_unrolled",
        LayerAttention: "weights slots change",
        Attention: "layers",
        Parts: "prelude block coda head recording",
        Memory: "process device",
        Shape: "layers hidden heads kv_heads head_dim itemsize vocab",
        TTTFrame: "slot loss_before loss_after loss_start drift lr reads held",
        TTTMeta: "layers heads mini_batch kind base_lr scales start_norm ages state_bytes kv_beside inner_lr_scale changes",
        # changes: of a run whose loop was changed while it ran; provenance: where it was asked for
        Meta: "version model prompt prompt_tokens top_k shape loop blocks settings created versions changes provenance ttt",
    }
}


# ttt: of a TTT model's run, which no file holds
OPTIONAL = {Meta: {"changes", "provenance", "ttt"}, Frame: {"ttt"}}


def test_key_sets_of_this_version_are_pinned():
    for kind, keys in FRAME_KEYS[SCHEMA_VERSION].items():
        assert set(get_type_hints(kind)) == set(keys.split()), kind.__name__
        assert kind.__optional_keys__ == OPTIONAL.get(kind, set()), kind.__name__


@given(traces())
@settings(deadline=None)  # no timings in tests
def test_synthetic_traces_are_well_formed_json(trace):
    check_meta(trace.meta)
    for frame in trace.frames:
        check_frame(frame, trace.meta["shape"]["hidden"])
        assert json.loads(json.dumps(frame, allow_nan=False)) == frame


def _spoil(path, value):
    frame = copy.deepcopy(random_trace(3, extras=EXTRAS).frames[-1])
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
        (["version"], 1, "version"),
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
        (["blocks", 0, "layers_run"], [[2]], "layers_run: 1 steps where 4"),
        (["blocks", 0, "layers_run"], [[2], [2, 3], [], [3]], r"layers_run: \[\] in step 3"),
        (["blocks", 0, "layers_run"], [[2], [2, 3], [3, 2], [3]], r"layers_run: \[3, 2\] in step 3"),
        (["blocks", 0, "layers_run"], [[2], [2, 3], [3], [4]], r"layers_run: \[4\] in step 4"),
        (["finish"], "tired", "finish"),
        (["parts", "head"], "fast", r"parts\.head"),
        (["parts", "idle"], 1.0, "idle"),
        (["memory", "process"], None, r"memory\.process"),
        (["memory", "device"], 1.5, r"memory\.device"),
        (["blocks", 0, "steps", "exit_rank"], [1], "exit_rank"),
        (["blocks", 0, "steps", "exit_topk_ids", 1], [1], r"blocks\[0\]\.steps: top-k lists of step 2"),
        (["blocks", 0, "key_cosine"], [[None]], "key_cosine: 1 layers where 2"),
        (["blocks", 0, "key_cosine", 1], [None], r"key_cosine\[1\]: 1 steps where 4"),
        (["blocks", 0, "key_cosine", 1, 2], float("nan"), "key_cosine"),
        (["blocks", 0, "attention", "layers"], [], r"attention\.layers: 0 layers where 2"),
        (["blocks", 0, "attention", "layers", 0, "weights"], encode_states(np.zeros((3, 8))), r"\.weights: 3 rows"),
        (["blocks", 0, "attention", "layers", 0, "weights"], encode_states(np.zeros((4, 7))), "do not make rows of 8"),
        (["blocks", 0, "attention", "layers", 1, "slots"], encode_states(np.zeros((4, 3))), r"\[1\]\.slots: 6 rows"),
        (["blocks", 0, "attention", "layers", 1, "change"], [], r"\[1\]\.change: 0 steps"),
        (["blocks", 0, "attention", "layers", 1, "change", 2], [0.5], "different numbers of heads"),
        (["blocks", 0, "layers"], [9, 10], "layers"),
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
    with pytest.raises(ValueError, match="version=8"):
        trace.append({**frames[1], "version": 8})
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


def test_tables_of_the_extras_follow_the_frames():
    trace = random_trace(1, 6, blocks=[(1, 2), (4, 5)], slots=2, extras=EXTRAS)
    frame, block = trace.frames[4], trace.frames[4]["blocks"][1]

    def of(table, layer=None):
        table = table[(table.token == 4) & (table.block == 1)]
        return table if layer is None else table[table.layer == layer]

    assert of(trace.exit)["rank"].tolist() == block["steps"]["exit_rank"]
    assert trace.exit.block.unique().tolist() == [1]  # the last block alone has an exit
    topk = of(trace.exit_topk)
    assert topk[topk.step == 3].text.tolist() == block["steps"]["exit_topk_texts"][2]
    assert of(trace.keys, 5).cosine.tolist()[1:] == block["key_cosine"][1][1:]
    seen = block["attention"]["layers"][1]
    assert np.array_equal(
        of(trace.attention, 5).weight.to_numpy().reshape(4, 5), decode_floats(seen["weights"], 5).astype(float)
    )
    third = of(trace.attention_slots, 5)
    assert third[third.step == 3].share.tolist() == decode_floats(seen["slots"], 2)[2].tolist()
    change = of(trace.attention_change, 5)
    assert change[change.step == 2].change.tolist() == seen["change"][1]
    assert change["head"].max() == trace.meta["shape"]["heads"] - 1
    assert trace.tokens.memory_device.isna().tolist() == [f["memory"]["device"] is None for f in trace.frames]
    assert trace.tokens.coda_ms[4] == frame["parts"]["coda"]
    without = random_trace(1, 6)
    for name in ("exit", "exit_topk", "keys", "attention", "attention_slots", "attention_change"):
        assert getattr(without, name).empty
        assert list(getattr(without, name).columns) == list(getattr(trace, name).columns)


def test_a_seed_without_extras_is_the_same_trace_without_them():
    whole, bare = random_trace(6, 5, extras=EXTRAS), random_trace(6, 5)
    for frame in whole.frames:
        for block in frame["blocks"]:
            block |= {"key_cosine": [], "attention": None}
            block["steps"] |= {name: [] for name in block["steps"] if name.startswith("exit_")}
    assert whole.frames == bare.frames


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


def test_a_number_that_no_float_can_hold_is_refused_by_name():
    """A whole number of 400 digits where a number belongs was an OverflowError."""
    meta = make_meta()
    meta["blocks"][0]["damping"] = 10**400
    with pytest.raises(ValueError, match=r"damping: ≥10\^400 is not a finite number"):
        check_meta(meta)
