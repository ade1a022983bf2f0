"""The numbers of loops a model was trained at, where its own folder says so, and their place on a figure's axis of loops."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopviz.figures import theme
from loopviz.paths import ASSETS

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from loopviz.lab.task import Subject, Task

RECIPE = "recipe.json"  # what training leaves beside the weights
WORDS = {"en": "trained: {first} to {last} loops", "zh": "训练范围：{first} 到 {last} 次循环"}


def trained_loops(subject: Subject) -> tuple[int, int] | None:
    """The fewest and the most loops that a training step of the model could draw, as its recipe says; None where none does.

    Of a sampler that takes its number from the data (`hops`) the recipe alone does not say it.
    """
    for folder in (ASSETS / "models" / subject.name, Path(subject.name)):
        try:
            recipe = json.loads((folder / RECIPE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        return of_recipe(recipe)
    return None


def of_recipe(recipe: Any) -> tuple[int, int] | None:
    """As :func:`trained_loops`, of a recipe's object; None of what is none."""
    loops = recipe.get("loops") if isinstance(recipe, Mapping) else None
    if not isinstance(loops, Mapping):
        return None
    phases = [(loops.get("mean"), loops.get("max"))]
    later, steps = loops.get("later_from"), recipe.get("steps")
    if isinstance(later, int) and isinstance(steps, int) and later < steps:
        phases.append((loops.get("later_mean"), loops.get("later_max")))
    fixed = loops.get("sampler") == "fixed"
    if not fixed and loops.get("sampler") not in ("poisson", "lognormal_poisson"):
        return None
    ends = [_count(mean if fixed else most) for mean, most in phases]
    found = [end for end in ends if end is not None]
    return (min(found) if fixed else 1, max(found)) if len(found) == len(phases) else None


def _count(value: object) -> int | None:
    """A number of loops; None for what is none."""
    known = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 1
    return int(value) if known and isinstance(value, (int, float)) else None


def figure_of(task: Task, table: pd.DataFrame, lang: str, trained: tuple[int, int] | None) -> go.Figure | None:
    """A task's figure of a table, the trained range marked where its axis is one of loops; None for a task without a figure."""
    if task.plot is None:
        return None
    figure = task.plot(table, lang)
    return mark(figure, trained, lang) if task.over_loops else figure


def mark(figure: go.Figure, trained: tuple[int, int] | None, lang: str) -> go.Figure:
    """The figure with the trained range behind it, as far as its axis of loops (x) goes; unchanged where it is not known."""
    drawn = [float(x) for trace in figure.data for x in (trace.x if trace.x is not None else ())]
    if trained is None or not drawn:
        return figure
    first, last = max(trained[0], min(drawn)), min(trained[1], max(drawn))
    if first >= last:
        return figure
    text = WORDS[lang].format(first=trained[0], last=trained[1])
    label = {"text": text, "textposition": "bottom left", "font": {"size": 11}}
    return figure.add_shape(
        type="rect",
        xref="x",
        yref="paper",
        x0=first,
        x1=last,
        y0=0,
        y1=1,
        layer="below",
        line={"width": 0},
        opacity=0.5,
        fillcolor=theme.GRID,
        label=label,
    )
