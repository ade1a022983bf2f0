"""What the plots of measurements share: the panels' look, a set of series that stay apart, words by language."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from loopviz.panels import theme

# Series in the order in which they appear: the panels' colours, each with a symbol and a dash of its own.
SERIES = [
    (theme.COLOURS[colour], symbol, dash)
    for colour, symbol, dash in (
        ("cosine", "circle", "solid"),
        ("kl", "diamond", "dash"),
        ("rel_delta", "square", "dot"),
        ("entropy", "triangle-up", "dashdot"),
        ("plain", "cross", "longdash"),
        ("stop_max", "x", "longdashdot"),
        ("stop_count", "star", "solid"),
        ("unrolled", "triangle-down", "dash"),
    )
]


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
    """Line and marker of the ``index``-th series; they repeat after the last."""
    colour, symbol, dash = SERIES[index % len(SERIES)]
    return {"line": {"color": colour, "dash": dash}, "marker": {"color": colour, "symbol": symbol, "size": 8}}


def empty(lang: str) -> go.Figure:
    """The figure of a table without rows."""
    text = {"en": "No rows yet", "zh": "还没有数据行"}[lang]
    note = {"text": text, "showarrow": False, "xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5}
    return go.Figure([], {"template": theme.template(), "annotations": [note]})
