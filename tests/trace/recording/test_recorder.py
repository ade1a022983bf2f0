"""The recorder against a slow recomputation that shares no code with it: numpy in float64, and an uncached pass."""

from __future__ import annotations

import base64

import numpy as np
import pytest
import torch

from loopviz.engine import StreamSettings, TokenTexts, run
from loopviz.engine.many import stream_many
from loopviz.model import MERGES
from loopviz.trace import check_frame, decode_states
from loopviz.trace.recording import recorder
from loopviz.trace.recording.recorder import KVMeter
from tests.engine import tiny

PROMPT = "Once upon 从前 a small 🙂"
SERIAL = {
    "loop_layers": [(1, 2), (4, 4)],
    "loop_count": [3, 4],
    "virtual_layer_count": 4,
    "virtual_attention_mode": "serial",
}


def uncached_states(model, ids: list[int]) -> tuple[list[np.ndarray], np.ndarray]:
    """Per block s_0..s_N ``[N + 1, T, H]`` in one uncached pass, watched from the decoder layers; and the last logits."""
    view = model.with_loop()
    entered: dict[int, list] = {}
    left: dict[int, list] = {}
    handles = []
    for block in view.config.loop_blocks():
        first, last = view.model.layers[block.a], view.model.layers[block.b]
        handles.append(
            first.register_forward_pre_hook(lambda _, args, i=block.index: entered.setdefault(i, []).append(args[0]))
        )
        handles.append(last.register_forward_hook(lambda _, __, out, i=block.index: left.setdefault(i, []).append(out)))
    try:
        with torch.no_grad():
            logits = view(torch.tensor([ids]), use_cache=False).logits[0].double().numpy()
    finally:
        for handle in handles:
            handle.remove()
    states = [torch.stack([entered[i][0], *left[i]])[:, 0].double().numpy() for i in sorted(left)]
    return states, logits


def lens(model, state: np.ndarray) -> np.ndarray:
    """log softmax(lm_head(norm(state))), by hand."""
    weight = model.model.norm.weight.detach().double().numpy()
    normed = weight * state / np.sqrt((state**2).mean() + model.config.rms_norm_eps)
    logits = model.lm_head.weight.detach().double().numpy() @ normed
    return logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()


def check_token(model, frame, states: list[np.ndarray], logits: np.ndarray) -> None:
    t, own = frame["index"], logits[frame["index"]]
    expected = own[frame["next_id"]] - np.log(np.exp(own - own.max()).sum()) - own.max()
    assert frame["next_logprob"] == pytest.approx(expected, abs=1e-4)
    mine = own - np.log(np.exp(own - own.max()).sum()) - own.max()
    assert len(frame["next_topk_ids"]) == 5
    assert frame["next_topk_logprobs"] == pytest.approx(np.sort(mine)[::-1][:5], abs=1e-4)
    assert mine[frame["next_topk_ids"]] == pytest.approx(frame["next_topk_logprobs"], abs=1e-4)
    for block, all_states in zip(frame["blocks"], states, strict=True):
        steps, s = block["steps"], all_states[:, t]
        assert block["n_steps"] == len(s) - 1
        for r in range(1, len(s)):
            new, old = s[r], s[r - 1]
            p, q = lens(model, old), lens(model, new)
            length = np.sqrt((new**2).sum())
            assert steps["norm"][r - 1] == pytest.approx(length, rel=1e-4)
            assert steps["rel_delta"][r - 1] == pytest.approx(np.sqrt(((new - old) ** 2).sum()) / length, rel=1e-3)
            assert steps["cosine"][r - 1] == pytest.approx((new @ old) / length / np.sqrt((old**2).sum()), abs=1e-4)
            assert steps["kl"][r - 1] == pytest.approx((np.exp(p) * (p - q)).sum(), rel=1e-3, abs=1e-5)
            assert steps["entropy"][r - 1] == pytest.approx(-(np.exp(q) * q).sum(), rel=1e-4)
            mine = q[frame["next_id"]]
            assert (q > mine + 1e-4).sum() < steps["rank"][r - 1] <= (q > mine - 1e-4).sum() + 1
            best = np.sort(q)[::-1][: len(steps["topk_ids"][r - 1])]
            assert steps["topk_logprobs"][r - 1] == pytest.approx(best, abs=1e-4)
            assert q[steps["topk_ids"][r - 1]] == pytest.approx(best, abs=1e-4)
            assert steps["ms"][r - 1] > 0
        assert decode_states(block["states"], s.shape[1]) == pytest.approx(s, rel=2e-3, abs=2e-3)


@pytest.mark.parametrize("rows", [recorder.MAX_ROWS, 25, 1])
def test_every_number_of_every_token(rows, monkeypatch):
    """Prompt tokens (recorded in chunks of any size) and generated ones, two blocks."""
    monkeypatch.setattr(recorder, "MAX_ROWS", rows)
    model = tiny.model(seed=4, **SERIAL)
    calls = head_calls(monkeypatch)
    trace = run(model, tiny.tokenizer(), PROMPT, StreamSettings(max_new_tokens=6, do_sample=True, seed=1))
    assert max(R * C for R, C, _ in calls) <= max(rows, 10)  # a single token has 4 + 5 + 1 rows
    states, logits = uncached_states(model, [frame["token_id"] for frame in trace.frames])
    for frame in trace.frames:
        check_frame(frame, hidden=32)
        check_token(model, frame, states, logits)
    texts = TokenTexts(tiny.tokenizer())
    steps = trace.frames[-1]["blocks"][1]["steps"]
    assert steps["topk_texts"] == [[texts(i) for i in ids] for ids in steps["topk_ids"]]


def head_calls(monkeypatch) -> list[torch.Size]:
    """The shape of the rows of every use of the head, as it goes."""
    calls = []
    original = recorder.head_logits
    monkeypatch.setattr(recorder, "head_logits", lambda head, rows: (calls.append(rows.shape), original(head, rows))[1])
    return calls


def test_one_head_matmul_a_decoded_token(monkeypatch):
    model = tiny.model(seed=4, **SERIAL)
    calls = head_calls(monkeypatch)
    direct = []
    handle = model.lm_head.register_forward_hook(lambda _, args, __: direct.append(args[0].shape))
    trace = run(model, tiny.tokenizer(), PROMPT, StreamSettings(max_new_tokens=6))
    handle.remove()
    assert set(direct) <= set(calls)  # nobody else used the head
    decoded = [shape for shape in calls if shape[1] == 1]
    assert len(decoded) == len(trace) - trace.meta["prompt_tokens"] == 5
    assert decoded[0][0] == 4 + 5 + 1


def test_the_same_token_whether_it_was_read_in_the_prompt_or_alone():
    """Serial, V >= N: a token's numbers do not depend on how many were read with it."""
    model, tokenizer = tiny.model(seed=4, **SERIAL), tiny.tokenizer()
    first = run(model, tokenizer, PROMPT, StreamSettings(max_new_tokens=8))
    ids = [frame["token_id"] for frame in first.frames]
    again = run(model, _Fixed(tokenizer, ids), PROMPT, StreamSettings(max_new_tokens=1))
    assert [frame["token_id"] for frame in again.frames] == ids
    for one, other in zip(first.frames, again.frames, strict=True):
        for mine, theirs in zip(one["blocks"], other["blocks"], strict=True):
            assert mine["steps"]["kl"] == pytest.approx(theirs["steps"]["kl"], rel=1e-3, abs=1e-5)
        assert one["kv"]["slots"] == other["kv"]["slots"]
        for name in ("bytes_used", "bytes_plain", "bytes_unrolled"):
            assert one["kv"][name] == other["kv"][name]


class _Fixed:
    """The tokenizer, but every prompt is these ids."""

    def __init__(self, tokenizer, ids):
        self._tokenizer, self._ids = tokenizer, ids

    def __call__(self, text, **kwargs):
        return self._tokenizer(text, **kwargs) if kwargs else {"input_ids": self._ids}

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)


KV = {
    "plain": {},
    "serial": SERIAL,
    "parallel": {"loop_layers": (1, 2), "loop_count": 3, "virtual_layer_count": 2},
    "few steps": {"loop_layers": (1, 2), "loop_count": 2, "virtual_layer_count": 5},
    "merge": {"loop_layers": (0, 4), "loop_count": 3, "kv_cache_mode": "merge_strategy"},
    "dynamic": {
        "loop_layers": (1, 3),
        "loop_strategy": "dynamic_stop",
        "min_loop_count": 2,
        "virtual_layer_count": 2,
        "convergence_criterion": "kl",
        "kl_threshold": 0.05,
    },
}


@pytest.mark.parametrize("loop", KV)
def test_occupancy_token_by_token(loop, monkeypatch):
    """Slots and bytes from the rules of the model, and the last token's from the cache itself."""
    seen = []
    frames = KVMeter.frames
    monkeypatch.setattr(KVMeter, "frames", lambda self, *args: (seen.append(args[0]), frames(self, *args))[1])
    model = tiny.model(seed=4, **KV[loop])
    trace = run(model, tiny.tokenizer(), PROMPT, StreamSettings(max_new_tokens=9))
    unit = 2 * 8 * 2 * 4  # K and V, head dim, KV heads, float32
    unrolled = 0
    for frame in trace.frames:
        tokens, held = frame["index"] + 1, [[frame["index"] + 1]] * 5
        unrolled += 5
        for block, spec in zip(frame["blocks"], trace.meta["blocks"], strict=True):
            a, b = spec["layers"]
            unrolled += (block["n_steps"] - 1) * (b - a + 1)
            written = min(spec["slots"], spec["count"]) if spec["strategy"] == "fixed_count" else spec["slots"]
            for layer in range(a, b + 1):
                held[layer] = [tokens] * written + [0] * (spec["slots"] - written)
        kv = frame["kv"]
        assert kv["slots"] == held
        assert kv["bytes_used"] == unit * sum(map(sum, held)) <= kv["bytes_allocated"]
        assert kv["bytes_plain"] == unit * 5 * tokens
        assert kv["bytes_unrolled"] == unit * unrolled
    last = trace.frames[-1]["kv"]
    for name in ("bytes_used", "bytes_allocated", "bytes_plain", "bytes_unrolled"):
        assert last[name] == getattr(seen[-1], name)


@pytest.mark.parametrize("dtype", ["int8", "fp8"])
def test_bytes_of_8_bits_are_those_that_are_kept(dtype):
    """A byte a number and four for the scale of a head, beside what an exact cache would hold."""
    loop = {
        "loop_layers": [(1, 2), (4, 4)],
        "loop_count": 3,
        "virtual_layer_count": 3,
        "kv_cache_dtype": [dtype, "exact"],
    }
    trace = run(tiny.model(seed=4, **loop), tiny.tokenizer(), PROMPT, StreamSettings(max_new_tokens=5))
    assert [block["kv_dtype"] for block in trace.meta["blocks"]] == [dtype, "exact"]
    exact, kept = 2 * 8 * 2 * 4, 2 * 2 * (8 + 4)
    for frame in trace.frames:
        tokens = frame["index"] + 1
        # layer 0 as the first block, layer 3 as the one before it
        assert frame["kv"]["bytes_used"] == tokens * (kept * (1 + 3 + 3 + 1) + exact * 3)
        assert frame["kv"]["bytes_plain"] == tokens * 5 * exact
        assert frame["kv"]["bytes_unrolled"] == tokens * (5 + 2 * 3) * exact
        assert frame["kv"]["bytes_allocated"] >= frame["kv"]["bytes_used"]


def test_dynamic_stop_records_what_the_pass_reports():
    model = tiny.model(seed=4, **KV["dynamic"])
    trace = run(model, tiny.tokenizer(), PROMPT, StreamSettings(max_new_tokens=20))
    counts = {frame["blocks"][0]["n_steps"] for frame in trace.frames}
    assert len(counts) > 1
    for frame in trace.frames[trace.meta["prompt_tokens"] :]:
        block = frame["blocks"][0]
        kl = block["steps"]["kl"]
        # The rule of the manual, replayed on the recorded numbers: first step past the floor whose KL is small enough.
        stops = [r for r in range(2, 11) if r <= len(kl) and kl[r - 1] <= 0.05]
        assert block["n_steps"] == (stops[0] if stops else 10)
        assert block["stop_reason"] == ("kl" if stops else "max")


def test_a_zero_state_has_no_direction_and_none_says_so():
    model = tiny.model(seed=4, loop_layers=(0, 1), loop_count=2, virtual_layer_count=2)
    with torch.no_grad():
        model.model.embed_tokens.weight.zero_()
    trace = run(model, tiny.tokenizer(), "a dog", StreamSettings(max_new_tokens=1))
    for frame in trace.frames:
        check_frame(frame)
        assert frame["blocks"][0]["steps"]["cosine"] == [None, None]
        assert frame["blocks"][0]["steps"]["norm"] == [0.0, 0.0]
        assert frame["blocks"][0]["steps"]["kl"] == [0.0, 0.0]


def test_registered_names_reach_the_frames(monkeypatch):
    monkeypatch.setitem(MERGES, "test-first", lambda merged, new, step, alpha: new if merged is None else merged)
    model = tiny.model(seed=4, loop_layers=(1, 2), kv_cache_mode="merge_strategy", merge_strategy="test-first")
    trace = run(model, tiny.tokenizer(), "a dog", StreamSettings(max_new_tokens=3))
    assert trace.meta["blocks"][0]["merge"] == "test-first"
    assert [slots[0] for slots in trace.frames[-1]["kv"]["slots"]] == [len(trace)] * 5


@pytest.mark.parametrize("rows", [1, 2, 3, 9, 15, 16, 40])
@pytest.mark.parametrize("vocabulary", [100, 128, 300, 1024])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_sliced_head_is_the_head(rows, vocabulary, dtype):
    generator = torch.Generator().manual_seed(rows)
    head = torch.nn.Linear(24, vocabulary, bias=False, dtype=dtype)
    states = torch.randn(rows, 1, 24, generator=generator).to(dtype)
    with torch.inference_mode():
        logits = recorder.head_logits(head, states)
        assert logits.shape == (rows, 1, vocabulary)
        assert logits.dtype == dtype
        torch.testing.assert_close(logits, head(states))


def test_a_head_that_is_more_than_a_matrix_is_called():
    head = torch.nn.Linear(24, 300, bias=True)
    states = torch.randn(6, 1, 24)
    assert torch.equal(recorder.head_logits(head, states), head(states))
    tanh = torch.nn.Sequential(torch.nn.Linear(24, 300, bias=False), torch.nn.Tanh())
    assert torch.equal(recorder.head_logits(tanh, states), tanh(states))


@pytest.mark.parametrize("layers", [[(1, 2)], [(3, 4)]], ids=["with a coda", "without a coda"])
def test_the_last_steps_exit_lens_is_the_models_own_output(layers):
    """Ids, order, probabilities and texts: what "next" is promised by, and where every column of the exit lens ends."""
    model = tiny.model(seed=4, loop_layers=layers, loop_count=3)
    trace = run(model, tiny.tokenizer(), "Once upon a time", StreamSettings(max_new_tokens=5, extras=("exit",)))
    for frame in trace.frames:
        steps = frame["blocks"][-1]["steps"]
        for name in ("ids", "logprobs", "texts"):
            assert steps[f"exit_topk_{name}"][-1] == frame[f"next_topk_{name}"]
        assert steps["exit_logprob"][-1] == frame["next_logprob"]


def test_a_plain_llama_has_its_own_distribution_and_a_recorder_that_is_off_none():
    model = tiny.model(seed=4, loop_layers=None)
    full, off = (
        run(model, tiny.tokenizer(), "Once upon a time", StreamSettings(max_new_tokens=3, record=record))
        for record in ("full", "off")
    )
    assert all(frame["next_topk_ids"][0] == frame["next_id"] for frame in full.frames[full.meta["prompt_tokens"] - 1 :])
    assert not any(frame["next_topk_ids"] for frame in off.frames)


@pytest.mark.parametrize("record", ["full", "off"])
def test_what_a_gate_said_is_recorded_as_it_chose(record):
    model = tiny.model(seed=4, loop_layers=(1, 3), loop_count=4, exit_selection="gate", exit_threshold=0.6)
    with torch.no_grad():
        model.model.loop_gates["0"].weight.normal_(0, 1, generator=torch.Generator().manual_seed(2))
    trace = run(model, tiny.tokenizer(), PROMPT, StreamSettings(max_new_tokens=4, record=record))
    prompt = trace.meta["prompt_tokens"]
    told = [frame["blocks"][0]["gate"] for frame in trace.frames]
    view = model.with_loop()
    with torch.no_grad():
        view(torch.tensor([[frame["token_id"] for frame in trace.frames[:prompt]]]))
    exits = view.last_pass.exits[0]
    assert [gate["p"] for gate in told[:prompt]] == exits.pdf[:, 0].T.tolist()
    assert [gate["read_out"] for gate in told[:prompt]] == exits.steps[0].tolist()
    assert len({gate["read_out"] for gate in told}) > 1
    for frame, gate in zip(trace.frames, told, strict=True):
        check_frame(frame)
        assert gate["cdf"] == pytest.approx(np.cumsum(gate["p"]), abs=1e-6)
        assert gate["cdf"][-1] == pytest.approx(1, abs=1e-6)
        reached = [r for r, total in enumerate(gate["cdf"], 1) if total >= 0.6]
        assert gate["read_out"] == min([*reached, 4])
    weighted = run(
        model.with_loop(exit_selection="gate_weighted", loop_layers=(1, 4)),
        tiny.tokenizer(),
        PROMPT,
        StreamSettings(max_new_tokens=2),
    )
    assert {frame["blocks"][0]["gate"]["read_out"] for frame in weighted.frames} == {None}
    plain = run(model.with_loop(exit_selection="last"), tiny.tokenizer(), PROMPT, StreamSettings(max_new_tokens=2))
    assert {str(frame["blocks"][0]["gate"]) for frame in plain.frames} == {"None"}


def test_a_gate_that_is_asked_for_while_a_run_is_made_is_recorded_from_there_on():
    from loopviz.engine import Steering, stream

    model = tiny.model(seed=4, loop_layers=(1, 3), loop_count=3, exit_selection="gate").with_loop(exit_selection="last")
    steering, frames = Steering(), []
    for frame in stream(
        model, tiny.tokenizer(), "a dog", StreamSettings(max_new_tokens=6, extras=("exit",)), steering=steering
    ):
        frames.append(frame)
        if len(frames) == 5:
            steering.set_loop(exit_selection="gate", exit_threshold=0.4)
    spoken = [frame["blocks"][0]["gate"] is not None for frame in frames]
    assert not spoken[0]
    assert spoken[-1]
    assert spoken == sorted(spoken)
    for frame in frames:
        steps = frame["blocks"][0]["steps"]
        check_frame(frame)
        assert len(steps["exit_rank"]) == 3
        if frame["blocks"][0]["gate"] is None:
            assert steps["exit_logprob"][-1] == frame["next_logprob"]
        else:
            chosen = frame["blocks"][0]["gate"]["read_out"]
            assert steps["exit_logprob"][chosen - 1] == pytest.approx(frame["next_logprob"], abs=1e-4)


def test_a_head_of_whole_numbers_is_never_made_floats_of_for_a_token(monkeypatch):
    """Asked for its `weight`, it made 113 MB anew for every token: 148 ms instead of 35."""
    from loopviz.model.precision import Int8Linear

    head, states = Int8Linear(torch.nn.Linear(32, 300, bias=False)), torch.randn(1, 4, 32)
    monkeypatch.setattr(Int8Linear, "weight", property(lambda self: pytest.fail("made anew")))
    with torch.no_grad():
        assert recorder.head_logits(head, states).shape == (1, 4, 300)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("way", ["alone", "together", "attention"])
def test_of_states_and_attention_only_what_is_kept_is_moved(way, dtype, monkeypatch):
    """They are kept in float16, and left the device in float32: twice the bytes."""
    model, tokenizer = tiny.model(seed=4, **SERIAL).to(dtype), tiny.tokenizer()
    chosen = StreamSettings(max_new_tokens=4, extras=("attention",) if way == "attention" else ())
    own = {one.data_ptr() for one in (*model.parameters(), *model.buffers())}  # whose digest is a run's too
    moved: list[torch.Tensor] = []
    cpu = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda values: (moved.append(values), cpu(values))[1])
    if way != "together":
        frames = run(model, tokenizer, PROMPT, chosen).frames
    else:
        frames = [frame for _, frame in stream_many(model, tokenizer, [PROMPT, "the dog"], chosen, at_once=2)]
    monkeypatch.undo()
    blocks = [block for frame in frames for block in frame["blocks"]]
    kept = sum(len(base64.b64decode(block["states"])) for block in blocks)
    moved = [values for values in moved if values.is_floating_point() and values.data_ptr() not in own]
    assert kept > 0
    assert {values.dtype for values in moved} == {torch.float16}
    if way != "attention":  # whose rows may be as wide as a state
        assert sum(values.nbytes for values in moved if values.shape[-1] == model.config.hidden_size) == kept
    else:
        assert sum(values.nbytes for values in moved) > kept
