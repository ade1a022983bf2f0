"""Parts of a pass, by a clock that the test turns; and extras, which change no other number of a run."""

from __future__ import annotations

import itertools
import time

import pytest
import torch

from loopviz.engine import StreamSettings, run, stream
from loopviz.engine.usage import MemoryMeter
from loopviz.trace import EXTRAS, check_frame
from loopviz.trace.recording import recorder
from tests.engine import tiny
from tests.engine.test_stream import LOOPS, PROMPT

CLOCKED = {"pass_ms", "wall_ms", "parts", "memory"}


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by a millisecond at every look at it; ``clock()`` looks."""
    ticks = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks) / 1000)
    return time.perf_counter


@pytest.mark.parametrize("record", ["full", "off"])
@pytest.mark.parametrize("loop", ["plain", "serial", "two blocks", "dynamic"])
def test_parts_are_disjoint_and_within_the_pass(loop, record, clock, monkeypatch):
    """Whatever the clock says: each part of a pass >= 0, together no longer than the pass took the run."""
    monkeypatch.setattr(recorder, "MAX_ROWS", 20)  # the prompt is recorded in several chunks
    settings = StreamSettings(max_new_tokens=4, record=record, extras=EXTRAS if record == "full" else ())
    frames = stream(tiny.model(seed=1, **LOOPS[loop]), tiny.tokenizer(), PROMPT, settings)
    before, spent = {}, 0.0
    while True:
        started = clock()
        frame = next(frames, None)
        now = clock()
        if frame is None:
            break
        check_frame(frame)
        if frame["phase"] == "generated" or frame["index"] == 0:
            before, spent = {}, 0.0  # a new pass
        spent += now - started
        parts = frame["parts"]
        assert all(parts[name] >= before.get(name, 0.0) for name in parts), "a pass's parts never shrink"
        model = parts["prelude"] + parts["block"] + parts["coda"]
        assert model > 0
        assert sum(parts.values()) <= 1000 * spent + 1e-6
        assert model - 1e-6 <= frame["pass_ms"] <= model + parts["head"] + 1e-6
        steps = [ms for block in frame["blocks"] for ms in block["steps"]["ms"]]
        assert sum(steps) <= parts["block"] + 1e-6
        if loop == "plain":
            assert parts["block"] == parts["coda"] == 0
        before = parts
        for _ in range(500):
            clock()  # the consumer takes its time, which is nobody's part


def test_what_records_is_no_part_of_the_model(clock):
    """Half a second in a loop hook is recording, neither block nor pass."""
    model = tiny.model(seed=1, **LOOPS["serial"])
    quiet = list(stream(model, tiny.tokenizer(), PROMPT, StreamSettings(max_new_tokens=3)))
    original = model.with_loop

    def slow_view(**fields):
        view = original(**fields)
        view.register_loop_hook(lambda event: [clock() for _ in range(500)])
        return view

    model.with_loop = slow_view
    busy = list(stream(model, tiny.tokenizer(), PROMPT, StreamSettings(max_new_tokens=3)))
    for one, other in zip(quiet, busy, strict=True):
        assert one["pass_ms"] == pytest.approx(other["pass_ms"])
        assert one["parts"]["block"] == pytest.approx(other["parts"]["block"])
        assert other["parts"]["recording"] - one["parts"]["recording"] == pytest.approx(3 * 500)


def test_memory_is_this_process(monkeypatch):
    def status_bytes() -> int:
        with open("/proc/self/status", encoding="ascii") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmRSS"))

    try:
        expected = status_bytes()
    except OSError:
        pytest.skip("no /proc on this system")
    read = MemoryMeter(torch.device("cpu")).read()
    assert read["device"] is None
    assert read["process"] == pytest.approx(expected, rel=0.2)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 1234)
    assert MemoryMeter(torch.device("cuda", 0)).read()["device"] == 1234


def without(frame):
    """The frame without its times and memory, and without what extras add."""
    bare = {key: value for key, value in frame.items() if key not in CLOCKED}
    bare["blocks"] = []
    for block in frame["blocks"]:
        steps = {
            name: column for name, column in block["steps"].items() if name != "ms" and not name.startswith("exit_")
        }
        bare["blocks"].append({**block, "steps": steps, "key_cosine": None, "attention": None})
    return bare


@pytest.mark.parametrize("loop", LOOPS)
def test_keys_and_attention_change_no_bit_of_the_rest(loop):
    model, settings = tiny.model(seed=1, **LOOPS[loop]), {"max_new_tokens": 6, "do_sample": True, "seed": 3}
    bare = run(model, tiny.tokenizer(), PROMPT, StreamSettings(**settings))
    rich = run(model, tiny.tokenizer(), PROMPT, StreamSettings(**settings, extras=("keys", "attention")))
    assert [without(f) for f in rich.frames] == [without(f) for f in bare.frames]
    assert rich.meta["settings"]["extras"] == ["keys", "attention"]
    if LOOPS[loop]:
        assert rich.frames[-1]["blocks"][0]["attention"] is not None


@pytest.mark.parametrize("loop", LOOPS)
def test_the_exit_lens_changes_nothing_but_rounding(loop):
    """Its rows join the head's one matmul, which may then sum in another order: 1e-4 of float32 logits of tens."""
    model, settings = tiny.model(seed=1, **LOOPS[loop]), {"max_new_tokens": 6}
    bare = run(model, tiny.tokenizer(), PROMPT, StreamSettings(**settings))
    rich = run(model, tiny.tokenizer(), PROMPT, StreamSettings(**settings, extras=("exit",)))
    for one, other in zip(bare.frames, rich.frames, strict=True):
        assert [one[key] for key in ("token_id", "next_id", "text", "kv", "finish")] == [
            other[key] for key in ("token_id", "next_id", "text", "kv", "finish")
        ]
        assert one["next_logprob"] == pytest.approx(other["next_logprob"], abs=1e-4)
        for mine, theirs in zip(one["blocks"], other["blocks"], strict=True):
            assert mine["states"] == theirs["states"]
            for name in ("cosine", "kl", "rel_delta", "norm", "entropy"):
                assert mine["steps"][name] == pytest.approx(theirs["steps"][name], abs=1e-4, nan_ok=False)
        if other["blocks"]:
            last = other["blocks"][-1]["steps"]
            assert last["exit_logprob"][-1] == other["next_logprob"]  # to the bit: the exit of s_N is the output
