"""The pictures of a teaching: loss by step, held-out loss by loops, how a fixed prompt settles; each as it is now against before."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeVar

import plotly.graph_objects as go

from loopviz.app.texts import text
from loopviz.figures import theme
from loopviz.figures.table_figures import figure

MOST_POINTS = 600  # of the curve of all steps: every so many of them, the last one always
HEIGHT = 340
NAMES = ("loss", "by_loops", "curves")
BEFORE, NOW, BESIDE = theme.SETUP_COLOURS[:3]
Steps = Sequence[tuple[int, float, int]]  # step, loss, loops
Measured = Sequence[tuple[int, Sequence[int], Sequence[float]]]  # step, loops, loss at each
Point = TypeVar("Point")
Settling = tuple[int, Sequence[float], Sequence[float]]  # step, mean over the prompt, of its last token


def plain(made: go.Figure) -> dict[str, Any]:
    """A figure as the page takes it: without a template, for it has its own."""
    found: dict[str, Any] = json.loads(made.to_json())
    found["layout"].pop("template", None)
    return found


def _figure(lang: str, name: str, traces: list[Any], **layout: Any) -> dict[str, Any]:
    axes = {axis: text(lang, f"teach.{name}.{axis}") for axis in ("x", "y")}
    legend = {"orientation": "h", "x": 0, "y": -0.22, "yanchor": "top"}
    return plain(figure(traces, **axes, height=HEIGHT, legend=legend, hovermode="closest", **layout))


def thinned(steps: Sequence[Point]) -> Sequence[Point]:
    """At most `MOST_POINTS` of them, evenly, with the last one."""
    stride = -(-len(steps) // (MOST_POINTS - 1))
    return steps if len(steps) <= MOST_POINTS or stride < 2 else [*steps[:-1:stride], steps[-1]]


def loss(lang: str, steps: Steps, measured: Measured, total: int, most: int) -> dict[str, Any]:
    """Loss by step: of each step's batch, at the loops that it drew; and of what is held out, at the most loops that are taught."""
    shown = thinned(steps)
    hover = text(lang, "teach.loss.hover", step="%{x}", loss="%{y:.4f}", loops="%{customdata}") + "<extra></extra>"
    batch = go.Scatter(
        x=[one[0] for one in shown],
        y=[one[1] for one in shown],
        customdata=[one[2] for one in shown],
        name=text(lang, "teach.loss.batch"),
        mode="lines",
        line={"color": BEFORE, "width": 1.2},
        hovertemplate=hover,
    )
    held = [(step, dict(zip(loops, losses, strict=True))[most]) for step, loops, losses in thinned(measured)]
    apart = go.Scatter(
        x=[step for step, _ in held],
        y=[value for _, value in held],
        name=text(lang, "teach.loss.held", loops=most),
        mode="lines+markers",
        line={"color": NOW, "width": 2},
        marker={"size": 8},
    )
    return _figure(lang, "loss", [batch, apart], xaxis={"range": [0, max(total, 1)]})


def by_loops(lang: str, measured: Measured, least: int, most: int) -> dict[str, Any]:
    """Held-out loss by loop count, before the first step and now; the counts that are taught stand in a band."""
    traces = []
    if measured:
        _, loops, losses = measured[0]
        traces.append(_line(text(lang, "teach.before"), loops, losses, BEFORE, "dash"))
    if len(measured) > 1:
        step, loops, losses = measured[-1]
        traces.append(_line(text(lang, "teach.now", step=step), loops, losses, NOW, "solid"))
    band = {"type": "rect", "xref": "x", "yref": "paper", "x0": least - 0.3, "x1": most + 0.3, "y0": 0, "y1": 1}
    band |= {"fillcolor": theme.GRID, "line": {"width": 0}, "layer": "below"}
    said = {
        "text": text(lang, "teach.by_loops.band"),
        "x": (least + most) / 2,
        "y": 1,
        "yref": "paper",
        "yanchor": "bottom",
    }
    said |= {"showarrow": False, "font": {"size": 12}}
    return _figure(lang, "by_loops", traces, xaxis={"dtick": 1}, shapes=[band], annotations=[said])


def curves(lang: str, before: Settling | None, now: Settling | None) -> dict[str, Any]:
    """How far each loop step turns the states of the fixed prompt, before the first step and now; a step that turns nothing has
    no place on an axis of powers."""
    traces = []
    for found, colours, dashes, label in (
        (before, (BEFORE, BEFORE), ("dash", "dot"), text(lang, "teach.before")),
        (now, (NOW, BESIDE), ("solid", "solid"), "" if now is None else text(lang, "teach.now", step=now[0])),
    ):
        if found is None:
            continue
        for values, colour, dash, of in zip(found[1:], colours, dashes, ("mean", "last"), strict=True):
            steps = range(1, len(values) + 1)
            name = text(lang, f"teach.curves.{of}", when=label)
            traces.append(_line(name, steps, [value or None for value in values], colour, dash))
    return _figure(lang, "curves", traces, xaxis={"dtick": 1}, yaxis={"type": "log", "exponentformat": "power"})


def _line(name: str, x: Sequence[int], y: Sequence[float | None], colour: str, dash: str) -> go.Scatter:
    return go.Scatter(
        x=list(x),
        y=list(y),
        name=name,
        mode="lines+markers",
        line={"color": colour, "dash": dash, "width": 2},
        marker={"size": 7},
    )


def summaries(
    lang: str, steps: Steps, measured: Measured, before: Settling | None, now: Settling | None
) -> dict[str, str]:
    """Each picture in a sentence, for those who do not see it; "" while there is nothing."""
    said = dict.fromkeys(NAMES, "")
    if steps:
        first, last = steps[0], steps[-1]
        values = {"step": last[0], "first": f"{first[1]:.3f}", "last": f"{last[1]:.3f}"}
        said["loss"] = text(lang, "teach.loss.said", **values)
    if measured:
        step, loops, losses = measured[-1]
        best = min(range(len(losses)), key=losses.__getitem__)
        at_first = dict(zip(measured[0][1], measured[0][2], strict=True))[loops[best]]
        values = {"step": step, "loops": loops[best], "loss": f"{losses[best]:.3f}", "before": f"{at_first:.3f}"}
        said["by_loops"] = text(lang, "teach.by_loops.said", **values)
    if before is not None and now is not None:
        values = {"step": now[0], "loops": len(now[1]), "now": f"{now[1][-1]:.2e}", "before": f"{before[1][-1]:.2e}"}
        said["curves"] = text(lang, "teach.curves.said", **values)
    return said
