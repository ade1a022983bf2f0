"""What a measurement is estimated to cost is what it then does, and is told without making anything of its text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from loopviz.lab import TASKS, Experiment
from loopviz.lab.fellows import TTTSubject
from loopviz.lab.reading import intervals, windows
from loopviz.lab.reading.windows import cut
from loopviz.lab.task import Subject
from tests.engine import tiny_ttt
from tests.engine.test_work import calls
from tests.lab.small import SMALL, TEXT, subject

# Of each task parameters of some passes; its own loop counts where it has such.
ASKED: dict[str, dict[str, Any]] = {
    "experiment": {**SMALL, "prompts": 2, "prompt_tokens": 6, "new_tokens": 4, "draws": 50},
    "perplexity": {**SMALL, "loops": (1, 3), "draws": 50},
    "ablation": {**SMALL, "loops": (3,), "alphas": (0.5,), "draws": 50},
    "slot_bits": {**SMALL, "loops": 3, "dtypes": ("int8",), "draws": 50},
    "compare": {"prompt": TEXT[:40], "max_new_tokens": 4},
    "exits": {**SMALL, "max_loops": 3},
    "where": {**SMALL, "draws": 50},
    "influence": SMALL,
    "starts": {**SMALL, "loops": 3},
    "quality": {"prompts": 2, "prompt_tokens": 6, "new_tokens": 4},
    "loop_use": SMALL,
    "prompts": {"csv": f"prompt\n{TEXT[:40]}\n{TEXT[:20]}\n", "max_new_tokens": 4},
    "checkpoint": {"limit_tokens": 40, "window": 12},
    "norms": {"tokens": 40, "loops": 3},
    "rope_length": {"tokens": 150, "stretches": 4},
    "grouped_queries": {**SMALL, "draws": 50},
    "cache_or_not": {"tokens": 20, "new_tokens": 8},
    "roofline": {"tokens": 40, "past": 8, "at_once": (1, 8, 30), "tries": 2},
    "context_length": {"tokens": 60, "lengths": (12, 24)},
    "inner_learning": {"limit_tokens": 40, "rates": (0.0,), "learner": "tiny-ttt"},
    "lora_count": {},
    "llama_sizes": {},
}


def params(task: Any) -> Any:
    texts = {"text": TEXT} if "text" in task.params.__dataclass_fields__ else {}
    return task.params(**texts, **ASKED[task.name])


def thing_of(**loop: Any) -> Subject:
    """A looped model, and a TTT model for what is measured of one."""
    found = subject(**loop)
    found.beside["tiny-ttt"] = TTTSubject(
        tiny_ttt.model(vocab_size=len(found.tokenizer)), found.tokenizer, "tiny-ttt", "made here"
    )
    return found


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_a_task_runs_about_the_layers_it_states(task: Any) -> None:
    """Never more than twice as many, and never fewer than it states by more than what a loop that stops may leave out."""
    thing = thing_of(loop_count=3)
    asked = params(task)
    with calls(thing.beside["tiny-ttt"].model if "learner" in ASKED[task.name] else thing.model) as seen:
        Experiment(task, thing, asked).run()
    stated = task.work(thing, asked).layer_tokens
    assert stated >= 0.8 * sum(seen)
    assert stated <= 2.5 * sum(seen)


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_more_loops_or_text_are_never_less_work(task: Any) -> None:
    thing, asked = subject(loop_count=3), params(task)
    for name in ("limit_tokens", "new_tokens", "max_new_tokens", "loops", "draws", "max_loops"):
        value = getattr(asked, name, None)
        listed = isinstance(value, tuple) and value and all(isinstance(item, int) for item in value)
        if not listed and not isinstance(value, int):
            continue
        more = {name: tuple(10 * item for item in value) if listed else 4 * value}
        one, two = (task.work(thing, task.params(**{**vars(asked), **change})) for change in ({}, more))
        assert two.layer_tokens >= one.layer_tokens
        assert two.python >= one.python
        assert two != one or name == "limit_tokens"  # there may be no more text


def test_c2_windows_of_a_long_text_are_made_as_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """`lab_windows_of_all_the_text_at_once`: all of them here would be 400 GB."""
    made: list[int] = []
    zeros = torch.zeros
    monkeypatch.setattr(
        windows.torch, "zeros", lambda *size, **how: made.append(size[0] * size[1]) or zeros(*size, **how)
    )
    found = cut(np.arange(100_000), 512, 511)
    assert len(found) == 99_488
    assert found.tokens == 99_999
    assert not made
    first = next(found.batches(3))
    assert made == [3 * 513, 3 * 512]
    assert first.counted.sum(1).tolist() == found.counts[:3].tolist() == [512, 1, 1]
    assert found.longest == 513


def test_windows_are_those_that_were_made_at_once() -> None:
    ids = np.arange(50)
    found = cut(ids, 12, 5)
    whole = found.whole()
    assert found.counts.tolist() == whole.counted.sum(1).tolist()
    for size in (1, 3, 100):
        rows = [
            row[: int(n)].tolist()
            for part in found.batches(size)
            for row, n in zip(part.ids, part.lengths, strict=True)
        ]
        assert rows == [row[: int(n)].tolist() for row, n in zip(whole.ids, whole.lengths, strict=True)]


def test_c2_an_interval_draws_some_windows_at_a_time_and_the_same_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    sums, counts = np.random.default_rng(3).normal(9, 2, 40), np.full(40, 7)
    whole = intervals.mean_interval(sums, counts, 1000, 5)
    monkeypatch.setattr(intervals, "HELD", 40 * 7)
    assert intervals.mean_interval(sums, counts, 1000, 5) == pytest.approx(whole, rel=1e-12)


def test_what_a_task_costs_is_told_without_its_text_being_read(monkeypatch: pytest.MonkeyPatch) -> None:
    thing = subject(loop_count=3)
    long = TEXT * 3_000
    seen: list[int] = []
    tokenizer = thing.tokenizer

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(tokenizer, name)

        def __call__(self, text: str, **how: Any) -> Any:
            seen.append(len(text))
            return tokenizer(text, **how)

    watched = Subject(thing.model, Counting(), "tiny", "made up")
    for task in TASKS.values():
        if "text" in task.params.__dataclass_fields__:
            more = {"limit_tokens": 10_000_000} if "limit_tokens" in task.params.__dataclass_fields__ else {}
            task.work(watched, task.params(**{**ASKED[task.name], "text": long, **more}))
    assert seen
    assert sum(seen) < 10_000 < len(long)
