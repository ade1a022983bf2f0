"""Measurements over many runs: what each strategy and mode costs, and what it buys.

One mechanism for page, command line and sweeps: **a task yields rows**; an experiment is a task's table so far and the
manifest that repeats it.

    from loopviz.lab import TASKS, Experiment, Subject
    experiment = Experiment(TASKS["perplexity"], Subject.of(loaded), params)
    for row in experiment: ...           # each row as soon as it is known; stop whenever you like
    experiment.save("results/perplexity")    # .csv, .parquet, .json

    task        what a task and its parameters are; the registry
    experiment  a task's table so far, its manifest, and how to repeat it
    grid        a sweep's file, as cells; read as it was meant by grid_yaml
    sweep       the cells of a grid, run and kept; in processes (workers) or on a Ray cluster (ray_cluster)
    progress    how much of a measurement is done
    memory      how much a computation takes at its peak
    reading/    ways to read a text: windows, full_pass, cached, exit_replay; intervals, scores, kinds of words
    tasks/      one file a measurement, found by being there (catalogue)
    comparison/ what the task `compare` needs besides: a result, the table, the curves
    manual/     what the task `experiment` needs besides: the manual's configurations, the table

Kept free of heavy imports, so that the command line's help stays quick: `TASKS` (and the other names) are imported when
they are asked for.
"""

from importlib import import_module
from math import inf
from typing import TYPE_CHECKING

_EXPORTS = {
    "Column": "task",
    "Params": "task",
    "Row": "task",
    "Subject": "task",
    "Task": "task",
    "param": "task",
    "register": "task",
    "Experiment": "experiment",
    "repeat": "experiment",
}

__all__ = ["MODULES", "TASKS", "TITLES", *_EXPORTS]


if TYPE_CHECKING:
    from .task import TASKS

    MODULES: tuple[str, ...]
    TITLES: dict[str, str]


def __getattr__(name: str) -> object:
    if name == "TASKS":  # all of them, in their order, whatever was imported first
        from .catalogue import load
        from .task import TASKS

        places = load()
        ordered = sorted(TASKS, key=lambda name: places.get(name, inf))  # who states none comes after them
        if list(TASKS) != ordered:
            for task in ordered:
                TASKS[task] = TASKS.pop(task)
        return TASKS
    if name == "MODULES":  # the files of `tasks/`
        return tuple(entry.module for entry in import_module(".catalogue", __name__).entries())
    if name == "TITLES":  # what `eval --help` says of each, without importing it; the tasks' own words are the same
        return import_module(".catalogue", __name__).titles()
    if name in _EXPORTS:
        return getattr(import_module(f".{_EXPORTS[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
