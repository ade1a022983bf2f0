"""A step's runs, made by engines, and what is measured of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass

from loopviz.checks import FieldError, inside
from loopviz.engine.engine import Engine, Request
from loopviz.lessons import tables
from loopviz.lessons.measurements import EXIT, MEASUREMENTS, Measured, measure
from loopviz.lessons.schema import USUAL_NEW_TOKENS, Lesson, LessonRun, LessonStep, Part
from loopviz.lessons.tables import Table
from loopviz.trace.trace import Trace


@dataclass(frozen=True)
class Planned:
    """A run of a step, as an engine is asked for it.

    Attributes:
        name: of the run in its step.
        needs: the model that makes it, by name.
        request: what that is asked.
        measured: where it is a measurement of the Lab in place of a run: as the lesson has it.
    """

    name: str
    needs: str
    request: Request
    measured: LessonRun | None = None


def planned(lesson: Lesson, part: Part) -> list[Planned]:
    """The runs of a part, in its order, with all recorded that is measured."""
    return [_planned(lesson, part, name, run) for name, run in part["runs"].items()]


def _planned(lesson: Lesson, part: Part, name: str, run: LessonRun) -> Planned:
    asked = [one for one in part["measure"].values() if name in (one["run"], one.get("other"))]
    extras = [EXIT] if any(MEASUREMENTS[one["what"]].exits for one in asked) else []
    loop = {field: tuple(value) if isinstance(value, list) else value for field, value in run.get("loop", {}).items()}
    settings = {"max_new_tokens": USUAL_NEW_TOKENS, **run.get("sampling", {}), "extras": extras}
    request = Request(run["prompt"], loop, settings)
    return Planned(name, run.get("model", lesson["model"]), request, run if "task" in run else None)


def models(lesson: Lesson) -> list[str]:
    """The models that a lesson needs, its own first."""
    parts: list[Part] = [part for step in lesson["steps"] for part in (step, step.get("what_if")) if part is not None]
    return list(dict.fromkeys([lesson["model"], *(one.needs for part in parts for one in planned(lesson, part))]))


def part_of(step: LessonStep, what_if: bool) -> Part | None:
    """A step itself, or its what-if, if it has one."""
    return step.get("what_if") if what_if else step


def refusal(engine: Engine, run: Planned) -> FieldError | None:
    """Why a model refuses a run's loop, in words that begin with the run."""
    if run.measured is not None:
        try:
            tables.ready(engine, run.measured)
        except FieldError as refused:
            return refused.inside(f"runs.{run.name}")
        return None
    error = next(iter(engine.check(run.request.loop)), None)
    return None if error is None else error.inside(f"runs.{run.name}")


def measure_part(part: Part, traces: Mapping[str, Trace | Table]) -> dict[str, Measured]:
    """Everything that a part measures of its runs.

    Raises:
        ValueError: what cannot be measured, its words after the measurement's name.
    """
    found = {}
    for name, asked in part["measure"].items():
        try:
            found[name] = measure(asked, traces)
        except ValueError as error:
            raise inside(f"measure.{name}", error) from None
    return found


def make(engine: Engine, run: Planned, stop: threading.Event | None = None) -> Generator[Trace | Table, None, None]:
    """The trace of a run, again after each of its tokens: it is the same one and grows; of a measurement its table, after each row.

    Raises:
        ValueError: as `Engine.start`, or what the measurement refuses.
    """
    if run.measured is not None:
        yield from tables.made(engine, run.measured, stop)
        return
    handle = engine.start(run.request, stop)
    trace = Trace(handle.meta)
    for frame in handle.frames:
        trace.append(frame)
        yield trace


def play(lesson: Lesson, part: Part, engine_of: Callable[[str], Engine]) -> dict[str, Measured]:
    """All of a part at once: its runs made, and what is measured of them.

    Args:
        engine_of: a model's engine, by its name.

    Raises:
        ValueError: what a model refuses, or what cannot be measured.
    """
    traces: dict[str, Trace | Table] = {}
    for run in planned(lesson, part):
        engine = engine_of(run.needs)
        if (refused := refusal(engine, run)) is not None:
            raise refused
        for trace in make(engine, run):
            traces[run.name] = trace
    return measure_part(part, traces)
