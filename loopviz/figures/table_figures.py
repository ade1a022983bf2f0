"""What several tasks' figures share: the panels' look, axes with titles, a figure of no rows."""

from __future__ import annotations

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


def empty(lang: str) -> go.Figure:
    """The figure of a table without rows."""
    text = {"en": "No rows yet", "zh": "还没有数据行"}[lang]
    note = {"text": text, "showarrow": False, "xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5}
    return go.Figure([], {"template": theme.template(), "annotations": [note]})
