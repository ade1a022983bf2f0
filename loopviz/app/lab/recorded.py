"""The recorded measurements: one a task, finished, shown until the visitor has one of their own.

Each is a file of `assets/runs`, made by `scripts/record_measurements.py`; its form: :mod:`loopviz.lab.kept`.
"""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopviz.app import contract
from loopviz.app.controls.model_name import short_name
from loopviz.app.lab.run import drawn, said_of, walk_of
from loopviz.app.sessions.chosen_precision import measured_in
from loopviz.app.sessions.columns import column_words
from loopviz.paths import ASSETS

if TYPE_CHECKING:
    from loopviz.lab.kept import Kept

log = logging.getLogger(__name__)

FOLDER = ASSETS / "runs"
PREFIX = f"{contract.RECORDED}:"  # of the id of a recorded measurement, before its task's name; ids of visitors' have no colon


def path_of(task: str) -> Path:
    """Where the recorded measurement of a task is, if there is one."""
    return FOLDER / f"lab-{task}.json"


def task_of(run: Any) -> str | None:
    """The task whose recorded measurement an id is of; None for any other id."""
    from loopviz.lab import TASKS

    name = run.removeprefix(PREFIX) if isinstance(run, str) and run.startswith(PREFIX) else None
    return name if name in TASKS else None


@functools.cache
def stored(task: str) -> Kept | None:
    """The recorded measurement of a task; None when there is none that this version can read, and the log says why."""
    from loopviz.lab import TASKS
    from loopviz.lab.kept import read_kept

    path = path_of(task)
    if not path.is_file():
        return None
    try:
        return read_kept(path, TASKS[task])
    except (OSError, ValueError) as error:
        log.warning("no recorded measurement %r to show: %s", task, error)
        return None


def snapshot(task: str, lang: str, shown: int | None) -> dict[str, Any] | None:
    """The recorded measurement of a task as the message that shows it; None when there is none.

    Args:
        shown: rows on the page, at most.
    """
    kept = stored(task)
    if kept is None:
        return None
    return {
        "kind": "snapshot",
        "run": f"{PREFIX}{task}",
        "ticket": "",
        "done": kept.done,
        "total": kept.done,
        "seconds": kept.seconds,
        "share": 1.0,
        "eta": None,
        "end": "done",
        "reason": "",
        "task": task,
        "model": short_name(kept.model_name),
        "columns": [column_words(column, lang) for column in kept.task.columns],
        "rows": kept.rows[:shown],
        "headline": said_of(kept, lang),
        "held": measured_in(kept.held, lang),
        "opens": False,
        "figure": drawn(kept, lang, kept.trained),
        "walk": walk_of(kept, lang),
    }
