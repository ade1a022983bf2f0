"""How far each state of a path still is from its last one, on a log axis: the second pair of axes of a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loopviz.figures import labels, theme
from loopviz.figures.edits import Path
from loopviz.panels.kit.follower import LEAST_ROOM
from loopviz.panels.kit.routes import Route

ROUNDING = 0.0005  # of a float16, in which states are kept: a distance below it is none


def drawn(route: Route) -> list[float | None]:
    """``|s_r - s_N| / |s_N|`` for r = 0..N-1 as drawn; the last state is at no distance, which a log axis cannot show."""
    return [labels.log_y(value, 3) for value in route.to_last]


def joined(routes: Sequence[Route]) -> tuple[list[float | None], list[float | None]]:
    """Steps and distances of several paths, with a gap after each."""
    each = [drawn(route) for route in routes]
    steps: list[float | None] = [step for one in each for step in (*range(len(one)), None)]
    return steps, [away for one in each for away in (*one, None)]


def traces(words: Mapping[str, str]) -> list[dict[str, Any]]:
    """The line of the selected path, then those of the pinned ones; empty. ``words``: the panel's."""
    log = {"type": "scatter", "xaxis": "x2", "yaxis": "y2", "showlegend": False, "mode": "lines+markers", "y": []}
    log["meta"] = {"select": {"step": "x"}}
    line = {"color": theme.SELECTED, "width": 2}
    chosen = {**log, "name": words["selected"], "x0": 0, "dx": 1, "line": line, "marker": {"size": 5}}
    ink = {"color": theme.INK, "width": 1.5}
    pinned = {**log, "name": words["pinned"], "x": [], "line": ink, "marker": {"size": 3}}
    return [
        chosen | {"hovertemplate": words["hover_rest"] + "<extra></extra>"},
        pinned | {"hovertemplate": words["hover_rests"] + "<extra></extra>"},
    ]


def axes(words: Mapping[str, str], across: Sequence[float], up: Sequence[float]) -> dict[str, Any]:
    """Its axes, over these parts of the figure."""
    return {
        "xaxis2": {"domain": list(across), "anchor": "y2", "title": {"text": words["step"]}, "tick0": 0},
        "yaxis2": {
            "domain": list(up),
            "anchor": "x2",
            "type": "log",
            "title": {"text": words["rest"]},
            "exponentformat": "power",
            "nticks": 4,
        },
    }


def reach(routes: Sequence[Route]) -> dict[Path, Any]:
    """By path: the steps there is room for, by the longest of these paths."""
    longest = max([LEAST_ROOM, *(len(route.points) - 1 for route in routes)])
    return {("layout", "xaxis2", "range"): [-0.5, longest + 0.5], ("layout", "xaxis2", "dtick"): -(-longest // 4)}


def rounding() -> dict[str, Any]:
    """The line below which distances are rounding."""
    line = {"color": theme.INK, "width": 1, "dash": "dot"}
    return {
        "type": "line",
        "xref": "x2 domain",
        "yref": "y2",
        "x0": 0,
        "x1": 1,
        "y0": ROUNDING,
        "y1": ROUNDING,
        "line": line,
    }
