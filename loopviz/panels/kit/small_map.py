"""A small map beside a picture of paths: the ends of many tokens, the selected path among them, and a frame around the part
that is drawn large. On the third pair of axes of a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loopviz.figures import theme
from loopviz.figures.edits import Path
from loopviz.panels.kit.view import View


def traces(words: Mapping[str, str]) -> list[dict[str, Any]]:
    """The ends of other tokens, then the selected path; empty. ``words``: the panel's."""
    small = {"type": "scatter", "xaxis": "x3", "yaxis": "y3", "showlegend": False, "x": [], "y": []}
    ends = {
        **small,
        "name": words["others"],
        "mode": "markers",
        "marker": {"color": theme.INK, "opacity": 0.45, "size": 3},
        "text": [],
        "hovertemplate": words["hover_others"] + "<extra></extra>",
        "meta": {"select": {"token": "text"}},
    }
    line = {"color": theme.SELECTED, "width": 1.5}
    return [ends, {**small, "name": words["selected"], "mode": "lines", "line": line, "hoverinfo": "skip"}]


def axes(words: Mapping[str, str], across: Sequence[float], up: Sequence[float]) -> dict[str, Any]:
    """Its axes, over these parts of the figure; their directions are those of the picture."""
    bare = {
        "showgrid": False,
        "showticklabels": False,
        "ticks": "",
        "fixedrange": True,
    }
    titles = [{"text": words[key], "font": {"size": 10}, "standoff": 2} for key in ("whole", "axis_2")]
    return {
        "xaxis3": {"domain": list(across), "anchor": "y3", "title": titles[0], **bare},
        "yaxis3": {"domain": list(up), "anchor": "x3", "title": titles[1], **bare},
    }


def frame() -> dict[str, Any]:
    """The shape around what is drawn large; nowhere yet."""
    ends = {"x0": -1, "x1": 1, "y0": -1, "y1": 1}
    line = {"color": theme.INK, "width": 1}
    return {"type": "rect", "xref": "x3", "yref": "y3", **ends, "visible": False, "line": line}


def framed(place: int, view: View | None) -> dict[Path, Any]:
    """By path: the shape at ``place``, a :func:`frame`, is around ``view``; None: around nothing."""
    ends = view or ((-1, 1), (-1, 1))
    out: dict[Path, Any] = {("layout", "shapes", place, "visible"): view is not None}
    for name, (low, high) in zip("xy", ends, strict=False):
        out["layout", "shapes", place, f"{name}0"], out["layout", "shapes", place, f"{name}1"] = low, high
    return out
