"""On a GPU every mode computes what it computes on the CPU. Skipped where there is none.

float64 decides: there the two differ by rounding alone, so loops of a dynamic stop are the same too.
"""

from __future__ import annotations

import copy
import itertools
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from loopviz.engine import StreamSettings, run
from loopviz.engine.provenance import provenance
from loopviz.model import Interrupted, LoopLlamaForCausalLM, interruptible
from loopviz.model.devices import resolve_device
from loopviz.trace import EXTRAS
from loopviz.trace.packed import decode_floats
from tests.engine import tiny as words
from tests.engine.test_stream import LOOPS, PROMPT
from tests.lab.small import SMALL, TEXT, subject
from tests.model.tiny import DYNAMIC, LOOP, MODES, TWO, build, close, ids, precision

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that CUDA reaches")

SERIAL = {"virtual_attention_mode": "serial", "virtual_layer_count": 5, "loop_count": 2}
KINDS = {f"fixed {name}": {**LOOP, **mode} for name, mode in MODES.items()}
KINDS |= {f"dynamic {name}": {**DYNAMIC, "min_loop_count": 3, **mode} for name, mode in MODES.items()}
KINDS |= {
    "two blocks": TWO,
    "kl": {**DYNAMIC, "convergence_criterion": "kl", "kl_threshold": 0.05},
    "injection, norm": {**LOOP, "loop_injection": "linear", "loop_norm": True},
    "layers by influence": {**LOOP, "layer_chooser": "influence", "layer_threshold": 0.25},
    "tokens by difficulty": {**LOOP, "layer_chooser": "difficulty", "layer_threshold": 0.75},
}


def twins(loop: dict, dtype: torch.dtype, attention: str) -> tuple[LoopLlamaForCausalLM, LoopLlamaForCausalLM]:
    """The same weights on both devices."""
    here = build(loop, attn_implementation=attention).to(dtype)
    there = copy.deepcopy(here).to("cuda")
    return here, there


def parts(rows: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """A prompt in two pieces and three single tokens, padded on the left, each with its mask."""
    tokens = ids(12, rows=rows)
    mask = torch.ones_like(tokens)
    mask[0, :2] = 0
    cuts = [0, 5, 9, 10, 11, 12]
    return [(tokens[:, a:b], mask[:, :b]) for a, b in itertools.pairwise(cuts)]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_mode_computes_on_a_gpu_what_it_computes_on_the_cpu(kind: str, attention: str) -> None:
    dtype = torch.float64 if attention == "sdpa" else torch.float32  # eager rounds its softmax to float32
    here, there = twins(KINDS[kind], dtype, attention)
    mine = theirs = None
    rows = 1 if "by" in kind else 2
    with torch.no_grad(), precision(dtype) as tolerance:  # the devices' float32 sines differ
        for part, mask in parts(rows):
            one = here(part, attention_mask=mask, past_key_values=mine)
            other = there(part.cuda(), attention_mask=mask.cuda(), past_key_values=theirs)
            mine, theirs = one.past_key_values, other.past_key_values
            assert other.logits.device.type == "cuda"
            close(other.logits.cpu(), one.logits, tolerance)
            if dtype == torch.float64:
                said, told = here.last_pass, there.last_pass
                assert [n.tolist() for n in told.steps] == [n.tolist() for n in said.steps]
                assert told.reasons == said.reasons


@pytest.mark.parametrize("kind", ["fixed serial", "dynamic parallel", "fixed ema", "two blocks"])
def test_generate_writes_the_same_text(kind: str) -> None:
    here, there = twins(KINDS[kind], torch.float64, "sdpa")
    tokens = ids(5, rows=2)
    how = {"max_new_tokens": 20, "do_sample": False}
    for beams in (1, 3):
        one = here.generate(tokens, attention_mask=torch.ones_like(tokens), num_beams=beams, **how)
        other = there.generate(tokens.cuda(), attention_mask=torch.ones_like(tokens).cuda(), num_beams=beams, **how)
        assert torch.equal(other.cpu(), one)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["fixed serial", "dynamic parallel", "fixed average", "kl"])
def test_half_precision_stays_near(kind: str, dtype: torch.dtype) -> None:
    """Within what rounding each number to `dtype` may do to logits of this size."""
    loop = {**KINDS[kind], "loop_strategy": "fixed_count", "loop_count": 3}
    here, there = twins(loop, torch.float32, "sdpa")
    tokens = ids(12)
    with torch.no_grad():
        want = here(tokens, use_cache=False).logits
        got = there.to(dtype)(tokens.cuda(), use_cache=False).logits.float().cpu()
    assert got.isfinite().all()
    assert (got - want).norm() / want.norm() < (0.02 if dtype == torch.float16 else 0.15)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_recorded_run_is_the_cpu_s(loop: str) -> None:
    """Tokens, loops, measures, lenses, attention, K/V: everything a panel draws."""
    here = words.model(seed=1, **LOOPS[loop]).double()
    there = copy.deepcopy(here).to("cuda")
    wanted = StreamSettings(max_new_tokens=12, record="full", extras=tuple(EXTRAS))
    mine = run(here, words.tokenizer(), PROMPT, wanted)
    theirs = run(there, words.tokenizer(), PROMPT, wanted)
    assert provenance(there)["device"].startswith("cuda")
    assert len(mine.frames) == len(theirs.frames)
    for one, other in zip(mine.frames, theirs.frames, strict=True):
        assert other["memory"]["device"] > 0
        same(one, other)


OF_THE_MACHINE = {"memory", "parts", "pass_runs", "pass_ms", "wall_ms", "ms"}
ROUNDED = 2e-3  # what is kept of states, weights and measures has the digits of half precision, or of a packed float


def same(one: Any, other: Any, where: str = "frame") -> None:
    """The same numbers up to rounding, the same words; packed arrays number by number."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one.keys() - OF_THE_MACHINE:
            same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            same(a, b, f"{where}[{i}]")
    elif isinstance(one, float):
        assert other == pytest.approx(one, rel=ROUNDED, abs=ROUNDED), where
    elif isinstance(one, str) and where.endswith((".states", ".weights", ".slots")) and ".kv." not in where:
        apart = numbers(one) - numbers(other)
        assert np.abs(apart).max(initial=0) < ROUNDED * max(1.0, np.abs(numbers(one)).max(initial=0)), where
    else:
        assert one == other, where


def numbers(packed: str) -> np.ndarray:
    """A packed array's numbers, whatever its shape."""
    return decode_floats(packed, 1).astype(float).ravel()


@pytest.mark.parametrize(
    "task", ["perplexity", "ablation", "exits", "influence", "where", "starts", "quality", "loop_use"]
)
def test_a_measurement_is_the_cpu_s(task: str) -> None:
    """Every column that is no time and no memory."""
    from loopviz.lab import TASKS, Experiment, Subject

    here = subject(**SERIAL)
    here.model.double()
    there = Subject(copy.deepcopy(here.model).to("cuda"), here.tokenizer, "tiny", "made up")
    made = TASKS[task].params
    values = {name: value for name, value in {**SMALL, "text": TEXT}.items() if name in made.__dataclass_fields__}
    one, other = (Experiment(TASKS[task], thing, made(**values)).run().frame for thing in (here, there))
    assert len(one) == len(other) > 0
    for name in one.columns:
        if one[name].dtype.kind == "f" and not any(word in name for word in ("seconds", "second", "ms", "bytes")):
            np.testing.assert_allclose(other[name].to_numpy(), one[name].to_numpy(), rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_long_pass_that_can_be_stopped_has_the_values_of_one_that_cannot() -> None:
    model = build(LOOP, max_position_embeddings=1024).to("cuda")
    tokens, stop = ids(600, rows=2).cuda(), threading.Event()
    with torch.no_grad():
        free = model(tokens, use_cache=False).logits
        with interruptible(stop):
            assert torch.equal(model(tokens, use_cache=False).logits, free)
        stop.set()
        with pytest.raises(Interrupted), interruptible(stop):
            model(tokens, use_cache=False)
        assert torch.equal(model(tokens, use_cache=False).logits, free)


def test_auto_means_the_gpu() -> None:
    assert resolve_device("auto", torch.float64).type == "cuda"


def test_the_command_runs_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from loopviz.cli.main import main

    told = {}
    for device in ("cpu", "cuda"):
        assert (
            main(
                [
                    "run",
                    "--model",
                    "stories-loop",
                    "--prompt",
                    "Lily had a",
                    "--max-new-tokens",
                    "12",
                    "--device",
                    device,
                ]
            )
            == 0
        )
        told[device] = capsys.readouterr().out
    assert "Lily had a" in told["cpu"]
    assert told["cuda"] == told["cpu"]
