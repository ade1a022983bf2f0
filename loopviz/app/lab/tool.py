"""The Lab's work for programs: any of its measurements, its table. Knows no task by name."""

from __future__ import annotations

import dataclasses
from typing import Any, TypedDict

from loopviz.app import controls as st
from loopviz.app.lab.run import LabRun, said_of
from loopviz.app.lab.service import Laboratory, MeasurementJob
from loopviz.app.sessions.columns import column_words
from loopviz.app.sessions.tools import Call, Made, Tool, known
from loopviz.checks import check_one_of


class Measured(TypedDict):
    """What a measurement comes to."""

    task: str
    headline: str
    end: str | None
    columns: list[dict[str, Any]]
    rows: list[dict[str, Any]]
    seconds: float
    manifest: dict[str, Any]


def tool(laboratory: Laboratory) -> Tool:
    """`measure`, as the page Lab measures."""

    def measure(
        call: Call, task: str, model: str = "", values: dict[str, Any] | None = None, precision: str = st.SERVER
    ) -> Made:
        """Make one of the Lab's measurements of a model: perplexity by loops, exits, where to loop, what the cache costs, ...

        Args:
            task: the measurement's name, as on the command line (`perplexity`, `exits`, `where`, `influence`, ...); an unknown one is
                answered with the list.
            model: one of the models that this server offers; empty for its default.
            values: its parameters by name, as `python -m loopviz eval TASK --help` lists them: numbers, texts, lists as text with
                commas; a file as `{"name": ..., "text": ...}`. What is left out takes its default.
            precision: what the model's weights are held in: "exact" (float32), "half" (the quicker half on that machine), "int8" (a byte a
                weight), "auto" (exact where that is quick enough, else the mildest that is), or "server", as the server has it.

        Returns:
            task, headline in words, columns, rows, end (done, time, memory), seconds, manifest (enough to repeat it; `model.dtype` is
            what it was held in).
        """
        from loopviz.lab import TASKS

        check_one_of("task", task, [*TASKS])
        check_one_of("precision", precision, st.BY_NAME["precision"].choices)
        known((thing.name for thing in dataclasses.fields(TASKS[task].params)), values or {}, "values")
        filled = {name: _as_typed(value) for name, value in (values or {}).items()}
        asked = {"lang": call.lang, "task": task, "values": filled, "precision": precision}
        asked |= {"model": model.strip() or laboratory.room.default}
        return Made(MeasurementJob(laboratory, asked, call.session), lambda run: answer(run, call.lang))

    schemas = {"precision": {"enum": [*st.BY_NAME["precision"].choices]}}
    return Tool(laboratory.jobs, measure, schemas, answer=Measured)


def _as_typed(value: Any) -> Any:
    """A value as it stands in the page's form: several, and what is absent, as text."""
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return "null" if value is None else value


def answer(run: LabRun, lang: str) -> dict[str, Any]:
    """What a measurement comes to, as plain data."""
    experiment = run.experiment
    return {
        "task": experiment.task.name,
        "headline": said_of(experiment, lang),
        "end": run.end,
        "columns": [column_words(column, lang) for column in experiment.task.columns],
        "rows": list(experiment.rows),
        "seconds": experiment.seconds,
        "manifest": experiment.manifest,
    }
