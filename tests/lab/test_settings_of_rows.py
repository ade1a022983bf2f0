"""A row's loop fields are those of the model that it speaks of: measured again with them, the row comes out."""

from __future__ import annotations

from typing import Any

import pytest

from loopviz.lab import TASKS, Experiment, Subject

from .small import SMALL, TEXT, subject

STOPS = {
    "loop_strategy": "dynamic_stop",
    "min_loop_count": 2,
    "convergence_criterion": "cosine",
    "cosine_threshold": 0.98,
}


def measure(name: str, thing: Subject, **values: Any) -> list[dict[str, Any]]:
    task = TASKS[name]
    return Experiment(task, thing, task.params(text=TEXT, **{**SMALL, "draws": 0, **values})).run().rows


def fields(name: str, thing: Subject, row: dict[str, Any], **values: Any) -> dict[str, Any] | None:
    task = TASKS[name]
    return task.settings(thing, row, task.params(text=TEXT, **{**SMALL, "draws": 0, **values}))


@pytest.mark.parametrize("own", [{"loop_count": 2}, STOPS | {"virtual_layer_count": 2}])
def test_a_row_of_perplexity(own: dict[str, Any]) -> None:
    thing = subject(**own)
    asked: dict[str, Any] = {
        "loops": (1, 12),
        "limit_tokens": 20,
        "dampings": (1.0, 0.5),
        "loop": {"loop_injection": "add"},
    }
    rows = measure("perplexity", thing, **asked)
    assert len(rows) == 8
    for row in rows:
        loop = fields("perplexity", thing, row, **asked)
        [block] = thing.view(loop).config.loop_blocks()
        assert (block.strategy, block.count, block.damping) == ("fixed_count", row["loops"], row["damping"])
        [again] = measure("perplexity", thing, loops=(row["loops"],), limit_tokens=20, paths=(row["path"],), loop=loop)
        assert row["nats"] == pytest.approx(again["nats"], abs=1e-5)
    assert fields("perplexity", thing, rows[0], loop=None) is None  # without a loop there is none to open


@pytest.mark.parametrize(("own", "loops"), [({}, ()), ({}, (2, 12)), (STOPS, (5,))])
def test_a_row_of_the_ablation(own: dict[str, Any], loops: tuple[int, ...]) -> None:
    thing = subject(loop_count=4, virtual_layer_count=2, **own)
    asked: dict[str, Any] = {"loops": loops, "slots": (1, 3), "alphas": (0.3,), "limit_tokens": 20}
    rows = measure("ablation", thing, **asked)
    for row in rows:
        found = fields("ablation", thing, row, **asked)
        if row["reason"] is not None:
            assert found is None
            continue
        [block] = thing.view(found).config.loop_blocks()
        kept = block.attention_mode if block.kv_mode == "virtual_layers" else block.merge
        assert (kept, block.max_steps) == (row["mode"], row["loops"])
        assert row["slots"] in (None, block.slots)
        assert row["alpha"] in (None, block.ema_alpha)


def test_a_row_of_the_map() -> None:
    thing = subject(loop_injection="add", loop_norm=True)  # of which the map leaves nothing
    asked: dict[str, Any] = {"loops": 3, "damping": 0.5, "coarsest": 2, "finest": 2}
    for row in measure("where", thing, **asked):
        loop = fields("where", thing, row, **asked)
        [again] = measure("perplexity", thing, loops=(3,), paths=("full",), loop=loop)
        assert row["nats"] == pytest.approx(again["nats"], abs=1e-5)


def test_a_row_of_generation_quality() -> None:
    thing, task = subject(**STOPS, virtual_layer_count=2), TASKS["quality"]
    for loops in ((), (2, 12)):
        params = task.params(text=TEXT, prompts=2, prompt_tokens=4, new_tokens=4, loops=loops)
        for row in Experiment(task, thing, params).run():
            [block] = thing.view(task.settings(thing, row, params)).config.loop_blocks()
            assert (block.strategy, block.count) == (
                ("fixed_count", row["loops"]) if loops else ("dynamic_stop", block.count)
            )


def test_a_row_of_the_manual_s_experiment() -> None:
    thing, task = (
        subject(loop_injection="add", loop_norm=True, virtual_layer_count=8, loop_count=8),
        TASKS["experiment"],
    )
    asked: dict[str, Any] = {"prompts": 1, "prompt_tokens": 4, "new_tokens": 4, "draws": 0}
    params = task.params(text=TEXT, **{**SMALL, **asked})
    rows = Experiment(task, thing, params).run().rows
    assert task.settings(thing, rows[0], params) is None  # without a loop there is none to open
    for row in rows[1:]:
        loop = task.settings(thing, row, params)
        view = thing.view(loop)
        assert (view.config.loop_layers, view.config.loop_injection, view.config.loop_norm) == ((1, 2), "add", True)
        again = Experiment(
            task, thing, task.params(text=TEXT, **{**SMALL, **asked}, loops=(loop,), names=("own",))
        ).run()
        assert again.rows[1]["nats"] == pytest.approx(row["nats"], abs=1e-5)
        assert again.rows[1]["loops"] == row["loops"]
