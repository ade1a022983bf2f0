"""Checkpoints and logs that survive being killed at any moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from loopviz import csv_file, outputs

from .optim import decay_start
from .recipe import Loops, Recipe, RecipeError
from .teach_recipe import TeachRecipe

VERSION = 1
# Sections and fields that change nothing of what is computed.
FREE = ("notes", "checkpoint_every", "threads", "use", "save_dtype")

LATER = ("later_from", "later_mean", "later_max")


class StateError(ValueError):
    """A checkpoint that cannot be continued."""


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint beside `path`, then put it in its place: there is always a whole one.

    Raises:
        OutputError: the system would not write; the checkpoint before this one is still there.
    """
    with outputs.replacing(path) as partial, partial.open("wb") as file:
        torch.save({"version": VERSION, **state}, file)


def load_state(path: Path) -> dict[str, Any]:
    """Read a checkpoint back, on the CPU.

    Raises:
        StateError: it is damaged, or of another version of LoopViz.
        FileNotFoundError: there is none.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # torch raises many kinds; all are about this file
        raise StateError(f"{path}: not a checkpoint of a training run ({type(error).__name__})") from error
    version = state.get("version") if isinstance(state, dict) else None
    if version != VERSION:
        raise StateError(f"{path}: version={version!r}: this LoopViz continues version {VERSION}; train anew")
    return state


def check_same(recipe: Recipe | TeachRecipe, stored: Mapping[str, Any], step: int) -> None:
    """Refuse to continue a run under a recipe that would have computed something else until now.

    `steps` may change as long as every step done so far had the learning rate that it would have had: under a trapezoid as
    long as its fall has begun under neither value, and always under a schedule that does not fall. Later loops may change as long as they have begun under
    neither value.

    Raises:
        RecipeError: naming the first field that differs.
    """
    new, old = recipe.to_dict(), type(recipe).from_dict(stored).to_dict()  # what older runs could not say is as it was
    if new["steps"] != old["steps"]:
        _check_longer(recipe, old["steps"], step)
        old["steps"] = new["steps"]
    if old["loops"] and recipe.loops is not None and _not_yet(recipe.loops, old["loops"], step):
        old["loops"] = {**old["loops"], **{key: new["loops"][key] for key in LATER}}
    for name in new:
        if name not in FREE and new[name] != old.get(name):
            raise RecipeError(
                f"{name}={new[name]!r}: the run in this folder has {name}={old.get(name)!r}; resume it as it was, "
                "or train into another folder"
            )


def _check_longer(recipe: Recipe | TeachRecipe, before: int, step: int) -> None:
    """Refuse another number of steps unless all that has been done would have been the same under it."""
    schedule, steps = recipe.schedule, recipe.steps
    start = f"steps={steps}: the run in this folder has steps={before}"
    anew = f"train into another folder with steps={steps}"
    if steps < step:
        raise RecipeError(f"{start} and has done {step}; {anew}")
    same = schedule.final == 1  # it does not fall
    if schedule.name == "trapezoid" and not same:
        same = step <= min(decay_start(schedule, steps), decay_start(schedule, before))
    if not same:
        until = f" until step {decay_start(schedule, before)}" if schedule.name == "trapezoid" else ""
        keeps = f"it can be changed{until} only" if until else "a trapezoid's could be changed before its fall"
        raise RecipeError(
            f"{start}, and the learning rate ({schedule.name}) of the {step} steps done depends on that; {keeps}; {anew}"
        )
    if recipe.task == "arrows" and step == before and step % recipe.evaluation.every:
        raise RecipeError(
            f"{start} and is finished: its closing evaluation, which can move the curriculum on, is none of a longer run's "
            f"(evaluation.every={recipe.evaluation.every}); {anew}"
        )


def _not_yet(loops: Loops, stored: Mapping[str, Any], step: int) -> bool:
    """Whether neither recipe's later loops have begun after `step` steps."""
    begins = [at for at in (loops.later_from, stored.get("later_from")) if at is not None]
    return all(step <= at for at in begins)


class CsvLog:
    """A CSV file that grows by rows; resuming drops the rows written after the checkpoint.

    Args:
        path: the file.
        columns: its header; the first one is the step.
        after: keep rows up to this step; `None` starts an empty file.
    """

    def __init__(self, path: Path, columns: Sequence[str], after: int | None) -> None:
        self.path = path
        rows: list[list[str]] = []
        if after is not None and path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                whole = [row for row in list(csv_file.reader(file))[1:] if len(row) == len(columns)]  # not half a row
            rows = [row for row in whole if int(row[0]) <= after]
        with outputs.replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            csv_file.writer(file).writerows([columns, *rows])

    def add(self, rows: Sequence[Sequence[Any]]) -> None:
        """Append rows."""
        with outputs.naming(self.path), self.path.open("a", newline="", encoding="utf-8") as file:
            csv_file.writer(file).writerows(rows)
