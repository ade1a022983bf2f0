"""What several tasks' figures share: the panels' look, axes with titles, a figure of no rows."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import plotly.graph_objects as go

from loopviz.figures import theme

from .line_styles import line_styles


def figure(traces: list[Any], *, x: str, y: str, title: str = "", **layout: Any) -> go.Figure:
    """A figure in the panels' template.

    Args:
        traces: plotly traces.
        x, y: axis titles, with the unit.
        title: above it.
        layout: further entries of the layout (``xaxis``, ``yaxis`` are merged with the titles).
    """
    axes = {name: {"title": {"text": text}} | layout.pop(name, {}) for name, text in (("xaxis", x), ("yaxis", y))}
    titled = {"title": {"text": title}} if title else {}
    margin = {"l": 60, "r": 20, "t": 60 if title else 30, "b": 50}
    return go.Figure(traces, {"template": theme.template(), "margin": margin, **titled, **axes, **layout})


def series(index: int) -> dict[str, Any]:
    """Line and marker of the ``index``-th series of a plot."""
    return line_styles(index + 1)[index]


def arms(
    values: Iterable[float | None],
    lows: Iterable[float | None],
    highs: Iterable[float | None],
    thickness: int = 1,
) -> dict[str, Any]:
    """Intervals as the arms of marks (`error_x`, `error_y`); a mark without one, or without a value, has arms of no length.

    Args:
        values: where the marks stand.
        lows, highs: the ends of their intervals; None or not finite where there is none.
        thickness: of the lines, pixels.
    """
    up, down = [], []
    for value, low, high in zip(values, lows, highs, strict=True):
        known = all(end is not None and math.isfinite(end) for end in (value, low, high))
        up.append(max(0.0, float(high - value)) if known else 0.0)  # type: ignore[operator]  # known
        down.append(max(0.0, float(value - low)) if known else 0.0)  # type: ignore[operator]
    if not any((*up, *down)):
        return {"visible": False}
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": thickness}


def empty(lang: str) -> go.Figure:
    """The figure of a table without rows."""
    text = {"en": "No rows yet", "zh": "还没有数据行"}[lang]
    note = {"text": text, "showarrow": False, "xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5}
    return go.Figure([], {"template": theme.template(), "annotations": [note]})
