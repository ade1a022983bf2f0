"""A measurement of the Lab as what a lesson runs: its parameters, its table, one number of it; and what of it is refused."""

from __future__ import annotations

from typing import Any

import pytest

from loopviz.checks import FieldError
from loopviz.engine.local import LocalEngine
from loopviz.lab import TASKS, Experiment
from loopviz.lab.measure import subject_of
from loopviz.lessons.measurements import measure
from loopviz.lessons.play import make, measure_part, planned, refusal
from loopviz.lessons.sentences import said
from loopviz.lessons.tables import Table, cell, made, params_of, tasks, wrong
from tests.engine import tiny
from tests.lessons.toy import step, toy

RUN: Any = {"prompt": "Once upon a time", "task": "norms", "params": {"loops": 2, "loop": {"loop_layers": [1, 1]}}}


@pytest.fixture(scope="module")
def engine() -> LocalEngine:
    return LocalEngine("tiny", tiny.model(), tiny.tokenizer(), "made here")


def test_what_is_not_said_is_as_at_its_size_quick() -> None:
    task = TASKS["norms"]
    assert params_of(task, RUN) == task.params(
        text="Once upon a time", loops=2, loop={"loop_layers": [1, 1]}, **task.sizes[0].values
    )


def test_only_measurements_of_a_text_or_of_the_model_alone_are_made() -> None:
    assert {"norms", "grouped_queries", "lora_count", "perplexity"} <= set(tasks())
    assert not {"prompts", "quality", "compare"} & set(tasks())


def test_the_table_is_the_labs_and_grows(engine: LocalEngine) -> None:
    tables = list(made(engine, RUN, None))
    assert all(table is tables[0] for table in tables)
    experiment = Experiment(TASKS["norms"], subject_of(engine), params_of(TASKS["norms"], RUN)).run()
    assert tables[0].rows == experiment.rows
    assert tables[0].versions["loopviz"]


def test_a_stop_ends_it(engine: LocalEngine) -> None:
    import threading

    stop = threading.Event()
    for table in made(engine, RUN, stop):
        if len(table.rows) == 4:
            stop.set()
    assert len(table.rows) == 4


ROWS = Table({}, [{"n": 1, "x": 0.5, "ok": True, "none": None}, {"n": 2, "x": 1.5, "ok": True, "none": None}])


def asked(**more: Any) -> Any:
    return {"what": "cell", "run": "run", "column": "x", "called": {"en": "x", "zh": "x"}, **more}


@pytest.mark.parametrize(
    ("row", "value"), [({"n": 1}, 0.5), ({"n": 2, "ok": True}, 1.5), ({"ok": True}, 1.5), ({}, 1.5)]
)
def test_a_cell_is_of_the_last_row_that_is_so(row: dict[str, Any], value: float) -> None:
    assert measure(asked(row=row), {"run": ROWS}) == value


@pytest.mark.parametrize(
    ("more", "rule"),
    [
        ({"row": {"n": 3}}, "lesson_no_row"),
        ({"column": "none"}, "lesson_no_number"),
        ({"column": "ok"}, "lesson_no_number"),
    ],
)
def test_what_is_not_there_is_told(more: dict[str, Any], rule: str) -> None:
    with pytest.raises(FieldError) as caught:
        cell(ROWS, asked(**more))
    assert caught.value.rule == rule


def test_a_step_of_a_table_is_played(engine: LocalEngine) -> None:
    lesson = toy()
    [run] = planned(lesson, step(lesson, "table"))
    assert refusal(engine, run) is None
    *_, table = make(engine, run)
    found = measure_part(step(lesson, "table"), {"norms": table})
    assert found == {"batch": table.rows[-1]["angle"], "tokens": table.rows[-1]["tokens"]}


def test_what_a_task_refuses_of_a_model_is_told_with_its_run(engine: LocalEngine) -> None:
    lesson = toy()
    step(lesson, "table")["runs"]["norms"] = {"prompt": "a b c", "task": "cache_or_not", "params": {"new_tokens": 500}}
    refused = refusal(engine, planned(lesson, step(lesson, "table"))[0])
    assert refused is not None
    assert str(refused) == "runs.norms: new_tokens=500: must be <= 128"


@pytest.mark.parametrize("name", ["file", "text"])
def test_a_strangers_lesson_names_no_file_of_this_machine(name: str) -> None:
    faults = list(wrong({**RUN, "params": {name: "/etc/passwd"}}))
    assert [(field, error.rule) for field, error in faults] == [(f"params.{name}", "not_a_field")]


@pytest.mark.parametrize(
    ("value", "words"),
    [(8192.0, "8,192"), (0.069, "0.069"), (2.4e-6, "2.4 × 10⁻⁶"), (0.0, "0"), (43.36, "43.4"), (999.4, "999")],
)
def test_numbers_of_a_table_in_a_sentence(value: float, words: str) -> None:
    assert said(asked(), value, "en") == words
