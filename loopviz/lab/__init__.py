"""Measurements over many runs: what each strategy and mode costs, and what it buys.

One mechanism for page, command line and sweeps: **a task yields rows**; an experiment is a task's table so far and the
manifest that repeats it.

    from loopviz.lab import TASKS, Experiment, Subject
    experiment = Experiment(TASKS["perplexity"], Subject.of(loaded), params)
    for row in experiment: ...           # each row as soon as it is known; stop whenever you like
    experiment.save("results/perplexity")    # .csv, .parquet, .json

    task        what a task and its parameters are; the registry
    experiment  a task's table so far, its manifest, and how to repeat it
    sweep       a task over a grid of models, configurations and texts
    progress    how much of a measurement is done
    memory      how much a computation takes at its peak
    reading/    ways to read a text: windows, full_pass, cached, exit_replay; intervals, scores, kinds of words
    tasks/      one file a measurement, found by its name in `MODULES`
    comparison/ what the task `compare` needs besides: a result, the table, the curves

Kept free of heavy imports, so that the command line's help stays quick: `TASKS` (and the other names) are imported when
they are asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

# Modules of `tasks/`, in the order in which tasks are offered.
MODULES: tuple[str, ...] = (
    "manual_experiment",
    "perplexity",
    "ablation",
    "compare",
    "exits",
    "influence",
    "where",
    "starts",
    "quality",
    "loop_use",
)

# What `eval --help` says of each, without importing it; the tasks' own words are the same.
TITLES: dict[str, str] = {
    "experiment": "The manual's experiment",
    "perplexity": "Perplexity by loops",
    "ablation": "Cache ablation",
    "compare": "Configurations side by side",
    "exits": "Exit policies",
    "influence": "Block influence",
    "where": "Where to loop",
    "starts": "Path independence",
    "quality": "Generation quality",
    "loop_use": "Loops by kind of word",
}

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


def __getattr__(name: str) -> object:
    if name == "TASKS":
        from .task import TASKS

        for module in MODULES:
            import_module(f".tasks.{module}", __name__)
        ours = list(TITLES)
        if list(TASKS)[: len(ours)] != ours:  # one of them was imported before the others
            for task in [TASKS[name] for name in (*ours, *(name for name in TASKS if name not in TITLES))]:
                TASKS[task.name] = TASKS.pop(task.name)
        return TASKS
    if name in _EXPORTS:
        return getattr(import_module(f".{_EXPORTS[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
