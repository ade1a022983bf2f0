"""A measurement of the Lab as what a step of a lesson runs: asked for, made, and read a cell at a time.

A run of a lesson that has a `task` is one: the task's parameters as its size Quick has them, the prompt as its text. What is
measured of it is a cell (`what: "cell"`): the number in a column of the row in which other columns have the values that are said.

`loopviz.lab` is imported where a lesson has such a run, and not before: whoever opens another needs no PyTorch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from loopviz.checks import ABSENT, FieldError, finite
from loopviz.lessons.schema import LessonMeasure, LessonRun

if TYPE_CHECKING:
    import threading

    from loopviz.engine.engine import Engine
    from loopviz.lab.task import Subject, Task

CELL = "cell"


@dataclass
class Table:
    """A measurement's rows so far.

    Attributes:
        versions: of what it was made with.
    """

    versions: Mapping[str, str]
    rows: list[dict[str, Any]] = field(default_factory=list)


def tasks() -> Mapping[str, Task]:
    """The measurements that a lesson may make: those of a text, or of nothing but the model."""
    from loopviz.lab import TASKS

    other = {"csv", "prompt", "pairs"}
    return {name: task for name, task in TASKS.items() if not other & fields_of(task).keys()}


def fields_of(task: Task) -> dict[str, Any]:
    """Its parameters, each with its metadata."""
    return {thing.name: thing for thing in dataclasses.fields(task.params)}


def params_of(task: Task, run: LessonRun) -> Any:
    """The parameters of a run.

    Raises:
        FieldError: one that the task does not have, or refuses.
    """
    from loopviz.lab.task import params_from_json

    known = fields_of(task)
    values = dict(task.sizes[0].values) if task.sizes else {}
    values |= {"text": run["prompt"]} if "text" in known else {}
    return params_from_json(task.params, values | run.get("params", {}))


def wrong(run: LessonRun) -> Iterator[tuple[str, FieldError]]:
    """What is wrong with a run's measurement: each by the field of the run, and why."""
    known = tasks()
    if run["task"] not in known:
        yield "task", FieldError("task", run["task"], "one_of", choices=", ".join(known))
        return
    for name in (
        "loop",
        "sampling",
    ):  # a measurement's loop is one of its parameters, and it says by itself what it writes
        if name in run:
            yield name, FieldError(name, ABSENT, "not_a_field", known="prompt, called, model, task, params")
    fields = fields_of(known[run["task"]])
    said = run.get("params", {})
    files = [name for name in said if name in fields and fields[name].metadata["kind"] in ("text", "file")]
    for name in files:  # a stranger's lesson names no file of this machine; the text is the prompt
        offered = ", ".join(one for one in fields if fields[one].metadata["kind"] not in ("text", "file"))
        yield f"params.{name}", FieldError(name, ABSENT, "not_a_field", known=offered)
    if files:
        return
    try:
        params_of(known[run["task"]], run)
    except FieldError as error:
        yield f"params.{error.field}" if error.field != "text" else "prompt", error


def wrong_cell(run: LessonRun, asked: LessonMeasure) -> Iterator[tuple[str, Any, str]]:
    """Columns that a run's table does not have: each by the field of the measurement, its value, and those there are."""
    task = tasks().get(run["task"])
    if task is None:
        return
    columns = [column.name for column in task.columns]
    said = [("column", asked["column"])] if "column" in asked else []
    for path, name in [*said, *((f"row.{name}", name) for name in asked.get("row", {}))]:
        if name not in columns:
            yield path, name, ", ".join(columns)


def ready(engine: Engine, run: LessonRun) -> tuple[Task, Subject, Any]:
    """A run's measurement of a model: what it is, of what, and with which parameters.

    Raises:
        ValueError: what the task refuses of this model, or a model that is not in this process.
    """
    from loopviz.lab.measure import subject_of

    task, subject = tasks()[run["task"]], subject_of(engine)
    params = params_of(task, run)
    if task.work is not None:
        task.work(subject, params)  # refused now, and not after waiting
    return task, subject, params


def made(engine: Engine, run: LessonRun, stop: threading.Event | None) -> Generator[Table, None, None]:
    """The table of a run, again after each of its rows: it is the same one and grows. ValueError as :func:`ready`."""
    from loopviz.lab.experiment import Experiment

    task, subject, params = ready(engine, run)
    experiment = Experiment(task, subject, params, stop=stop)
    table = Table(subject.versions, experiment.rows)
    try:
        for _ in experiment:
            yield table
    finally:
        experiment.close()


def cell(table: Table, asked: LessonMeasure) -> float:
    """The number that is asked for.

    Raises:
        FieldError: no row is so, or there is no number in it.
    """
    wanted = asked.get("row", {})
    rows: Sequence[Mapping[str, Any]] = [
        row for row in table.rows if all(row.get(name) == value for name, value in wanted.items())
    ]
    if not rows:
        raise FieldError("row", wanted, "lesson_no_row", n=len(table.rows))
    value = finite(rows[-1].get(asked["column"]))
    if value is None:
        raise FieldError("column", asked["column"], "lesson_no_number")
    return value
