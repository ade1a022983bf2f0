"""Measurements over many runs: what each strategy and mode costs, and what it buys.

One mechanism for page, command line and sweeps: **a task yields rows**; an experiment is a task's table so far and the
manifest that repeats it.

    from loopviz.lab import TASKS, Experiment, Subject
    experiment = Experiment(TASKS["perplexity"], Subject.of(loaded), params)
    for row in experiment: ...           # each row as soon as it is known; stop whenever you like
    experiment.save("results/perplexity")    # .csv, .parquet, .json

    tasks       what a task and its parameters are; the registry
    experiment  a task's table so far, its manifest, and how to repeat it
    windows     a text as token windows; the parameters of every measurement on a text
    full        scoring tokens by whole passes
    cached      scoring tokens through the cache, many windows at once
    bootstrap   intervals of means over windows
    progress    how much of a measurement is done
    plots       what the plots share
    commands    `python -m loopviz eval` and `sweep`
    sweep       a task over a grid of models, configurations and texts
    perplexity  perplexity by loops
    exits       exit policies replayed on one run (exit_replay: what a replay can know)
    influence   how much each layer changes the state
    where       the map of ranges of layers
    starts      path independence: other states to start from
    quality     what a configuration writes (text_scores: the scores)
    loop_use    loops by kind of word (token_classes: the rules) and position
    ablation    every cache mode: cost and fidelity
    manual_experiment  the manual's experiment: without a loop against configurations (memory: what a sequence takes)

Kept free of heavy imports, so that the command line's help stays quick: `TASKS` (and the other names) are imported when
they are asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

# Modules that register tasks, in the order in which tasks are offered.
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
    "Column": "tasks",
    "Params": "tasks",
    "Row": "tasks",
    "Subject": "tasks",
    "Task": "tasks",
    "param": "tasks",
    "register": "tasks",
    "Experiment": "experiment",
    "repeat": "experiment",
}

__all__ = ["MODULES", "TASKS", "TITLES", *_EXPORTS]


if TYPE_CHECKING:
    from .tasks import TASKS


def __getattr__(name: str) -> object:
    if name == "TASKS":
        from .tasks import TASKS

        for module in MODULES:
            import_module(f".{module}", __name__)
        ours = list(TITLES)
        if list(TASKS)[: len(ours)] != ours:  # one of them was imported before the others
            for task in [TASKS[name] for name in (*ours, *(name for name in TASKS if name not in TITLES))]:
                TASKS[task.name] = TASKS.pop(task.name)
        return TASKS
    if name in _EXPORTS:
        return getattr(import_module(f".{_EXPORTS[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
