"""benchmarks/peers: what is compared is the same capture, and what is not is refused before it is timed.

nnsight and TransformerLens are in an environment of their own: `python benchmarks/peers/run.py --quick` runs them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.decode import EXACT, encoded, serial, unrolled_llama
from benchmarks.peers import run
from benchmarks.peers.captures import (
    Captured,
    by_hidden_states,
    by_stream,
    check_same,
    loop_ends,
    of_frame,
)
from scripts import run as setup
from tests.benchmarks.test_decode import BLOCK, tiny
from tests.conftest import make_tokenizer

HIDDEN, N = 32, 4
tokenizer = functools.cache(make_tokenizer)


def ours() -> Iterator[Any]:
    return by_stream(serial(tiny(), BLOCK), tokenizer(), N)


def theirs(ends: list[int] | None = None) -> Iterator[Captured]:
    return by_hidden_states(unrolled_llama(tiny(), BLOCK), ends or loop_ends(BLOCK), encoded(tokenizer()))


def test_a_loop_ends_with_the_blocks_last_layer_of_each_repeat() -> None:
    assert loop_ends({"loop_layers": (10, 14), "loop_count": 4}) == [14, 19, 24, 29]
    assert loop_ends({"loop_layers": (0, 0), "loop_count": 2}) == [0, 1]


def test_hidden_states_and_a_lens_capture_what_a_frame_has() -> None:
    check_same({"ours": ours(), "theirs": theirs()}, N, HIDDEN)
    frame = next(ours())
    found, other = of_frame(frame, HIDDEN), next(theirs())
    assert len(found.states) == len(other.states) == BLOCK["loop_count"]
    assert torch.equal(found.top_ids, other.top_ids)


def test_another_layer_than_the_loops_last_is_not_the_same() -> None:
    wrong = [end - 1 for end in loop_ends(BLOCK)]
    with pytest.raises(SystemExit, match="token 0 of theirs is not that of ours: the state after loop 1"):
        check_same({"ours": ours(), "theirs": theirs(wrong)}, N, HIDDEN)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda found: replace(found, next_id=found.next_id + 1), "next token"),
        (lambda found: replace(found, top_logprobs=found.top_logprobs - 0.2), "log-probabilities"),
        (lambda found: replace(found, states=[state * float("nan") for state in found.states]), "loop 1"),
    ],
)
def test_a_capture_that_differs_is_refused(change: Any, said: str) -> None:
    with pytest.raises(SystemExit, match=said):
        check_same({"one": theirs(), "other": map(change, theirs())}, N, HIDDEN)


def test_ratios_are_to_the_quickest_of_ours_and_to_float32() -> None:
    ms = {run.GENERATE: 60.0, "nnsight": 80.0, "TransformerLens": 180.0}
    ms |= {run.OURS.format(name): value for name, value in ((EXACT, 60.0), ("float16", 40.0), (run.ALL, 90.0))}
    found = run.figures(ms, {EXACT: None, "float16": None})
    values = {figure.name: figure for figure in found}
    best = values["looped, everything recorded: LoopViz, float16 / nnsight, tokens/s"]
    assert (best.value, best.target) == (2.0, ">= 2x, in the best precision")
    exact = values["looped, everything recorded: LoopViz, float32 / TransformerLens, tokens/s"]
    assert (exact.value, exact.target) == (3.0, "")
    assert values["LoopViz, float32, extras too / LoopViz, float32, tokens/s"].value == pytest.approx(2 / 3)
    assert len(found) == 3 * 2 + 1 + len(ms)
    assert values["nnsight"].shown() == "80 ms/token"


def test_one_ratio_a_peer_where_float32_is_the_quickest() -> None:
    ms = {run.GENERATE: 60.0, "nnsight": 80.0, run.OURS.format(EXACT): 40.0, run.OURS.format(run.ALL): 50.0}
    found = run.figures(ms, {EXACT: None})
    assert len(found) == 2 + 1 + len(ms)
    assert found[1].target == ">= 2x, in the best precision"


def test_the_peers_have_an_environment_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(setup, "VENV", setup.VENV)  # put back when the test is over
    monkeypatch.setattr(setup, "STAMP", setup.STAMP)
    monkeypatch.setattr(setup, "make_environment", lambda requirements: asked.append(requirements) or Path("python"))
    assert run.environment() == Path("python")
    assert setup.VENV == run.HERE / ".venv" == setup.STAMP.parent
    assert asked == ["benchmarks/peers/requirements.txt"]
    assert setup.fingerprint(asked[0]) != setup.fingerprint("requirements.txt")


def test_what_they_are_measured_with_is_pinned() -> None:
    lines = (run.HERE / "requirements.txt").read_text("utf-8").splitlines()
    wanted = [line for line in lines if line and not line.startswith("#")]
    assert wanted[0] == "-r ../../requirements.txt"
    assert (run.HERE / wanted[0].removeprefix("-r ")).resolve() == setup.ROOT / "requirements.txt"
    assert all("==" in line for line in wanted[1:])
    assert {line.partition("==")[0] for line in wanted[1:]} == {"nnsight", "transformer-lens", "xllamacpp"}
