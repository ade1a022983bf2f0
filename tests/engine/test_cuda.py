"""On a GPU, runs that share passes write what they write on the CPU alone, and a TTT run is the CPU's. Skipped where there is none."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from loopviz.engine import StreamSettings, stream
from loopviz.engine.many import stream_many
from loopviz.engine.ttt_local import LocalTTT
from loopviz.trace.schema import decode_singles
from tests.engine import tiny, tiny_ttt
from tests.engine.test_batch import PROMPTS, SHARED, alike
from tests.engine.test_ttt_stream import KINDS, made
from tests.model.tiny import precision

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that CUDA reaches")


@pytest.mark.parametrize("loop", SHARED)
@pytest.mark.parametrize("record", ["off", "full"])
def test_many_prompts_in_shared_passes_say_what_each_says_alone_on_the_cpu(loop: str, record: str) -> None:
    here = tiny.model(seed=1, **SHARED[loop]).double()
    there, tokenizer = copy.deepcopy(here).to("cuda"), tiny.tokenizer()
    chosen = StreamSettings(max_new_tokens=9, record=record, extras=("exit", "keys") if record == "full" else ())
    found: list[list[Any]] = [[] for _ in PROMPTS]
    with precision(torch.float64):  # a final norm after every step makes 2.5e-3 of what float32 rounds away
        for place, frame in stream_many(there, tokenizer, PROMPTS, chosen, at_once=3):
            found[place].append(frame)
        expected = [list(stream(here, tokenizer, prompt, chosen)) for prompt in PROMPTS]
    for alone, frames in zip(expected, found, strict=True):
        assert len(frames) == len(alone)
        for one, other in zip(alone, frames, strict=True):
            alike(one, other)


@pytest.mark.parametrize("kind", KINDS)
def test_a_ttt_run_is_the_cpu_s(kind: str) -> None:
    here = tiny_ttt.engine(**KINDS[kind])
    here.model.double()
    there = LocalTTT("tiny-ttt", copy.deepcopy(here.model).to("cuda"), here.tokenizer)
    one, other = made(here), made(there)
    assert len(one) == len(other)
    for mine, theirs in zip(one.frames, other.frames, strict=True):
        assert theirs["next_id"] == mine["next_id"]
        assert theirs["next_logprob"] == pytest.approx(mine["next_logprob"], abs=1e-4)
        for name in ("loss_before", "loss_after", "loss_start", "drift", "lr", "reads"):
            want = decode_singles(mine["ttt"][name], 1).ravel()  # type: ignore[literal-required]
            got = decode_singles(theirs["ttt"][name], 1).ravel()  # type: ignore[literal-required]
            assert got == pytest.approx(want, rel=1e-3, abs=1e-4), name
