"""Pieces of figures that several panels have: what is missing in words, an outlined row or column, a caption, a flat colour bar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loopviz.figures import labels, theme
from loopviz.figures.edits import Path
from loopviz.panels.kit.focus import Focus
from loopviz.trace.changes import changes_of

MARKS = 24  # changes marked at most, the latest: a slider dragged during a run makes one a token


def notice(missing: str, place: int = 0) -> dict[Path, Any]:
    """By path: the annotation at ``place`` says ``missing``, or is not there when that is empty."""
    return {
        ("layout", "annotations", place, "text"): labels.wrapped(missing),
        ("layout", "annotations", place, "visible"): bool(missing),
    }


def row_outline(xref: str = "x domain", x1: float = 1, width: float = 2, half: float = 0.5) -> dict[str, Any]:
    """The shape around the row of the step pointed at; nowhere yet (see :func:`row_outlined`)."""
    return {
        "type": "rect",
        "xref": xref,
        "yref": "y",
        "x0": 0,
        "x1": x1,
        "y0": -2 - half,
        "y1": -2 + half,
        "visible": False,
        "line": {"color": theme.SELECTED, "width": width},
    }


def row_outlined(row: int | None, half: float = 0.5) -> dict[Path, Any]:
    """By path: the first shape, a :func:`row_outline`, is around this row, 0-based, ``half`` a row to each side; None:
    around none."""
    at = -2 if row is None else row
    return {
        ("layout", "shapes", 0, "y0"): at - half,
        ("layout", "shapes", 0, "y1"): at + half,
        ("layout", "shapes", 0, "visible"): row is not None,
    }


def column_outline(y0: float, y1: float) -> dict[str, Any]:
    """The shape around the selected token's column; nowhere yet (see :func:`column_outlined`)."""
    return {
        "type": "rect",
        "xref": "x",
        "yref": "y",
        "x0": -2.5,
        "x1": -1.5,
        "y0": y0,
        "y1": y1,
        "visible": False,
        "line": {"color": theme.SELECTED, "width": 2},
    }


def column_outlined(place: int, column: int | None) -> dict[Path, Any]:
    """By path: the shape at ``place``, a :func:`column_outline`, is around this column, 0-based; None: around none."""
    at = -2 if column is None else column
    return {
        ("layout", "shapes", place, "x0"): at - 0.5,
        ("layout", "shapes", place, "x1"): at + 0.5,
        ("layout", "shapes", place, "visible"): column is not None,
    }


def column_name(frame: Mapping[str, Any]) -> str:
    """A token's column on an axis of names: its position makes it unique, and such an axis thins its own labels."""
    return f"{frame['index']} {labels.show_token(frame['text'], width=10)}"


def caption(text: str, xref: str, yref: str) -> dict[str, Any]:
    """A title over one of several maps."""
    return {
        "text": text,
        "showarrow": False,
        "xref": xref,
        "yref": yref,
        "x": 0,
        "xanchor": "left",
        "y": 1,
        "yanchor": "bottom",
        "font": {"size": 12},
    }


def flat_bar(title: str, tickvals: Sequence[float], length: float = 0.9, **more: Any) -> dict[str, Any]:
    """A colour bar along the figure's foot, ``length`` of its width."""
    return {
        "orientation": "h",
        "thickness": 8,
        "outlinewidth": 0,
        "len": length,
        "x": 0,
        "xanchor": "left",
        "y": 0,
        "yref": "container",
        "yanchor": "bottom",
        "ypad": 4,
        "tickvals": tickvals,
        "tickfont": {"size": 11},
        "title": {"text": title, "side": "right", "font": {"size": 11}},
        **more,
    }


def change_marks(meta: Mapping[str, Any], tokens: int) -> list[dict[str, Any]]:
    """Shapes for a figure whose x are positions: a line where the loop's settings changed, and what they changed to."""
    return [
        {
            "type": "line",
            "xref": "x",
            "yref": "y domain",
            "x0": change["index"] - 0.5,
            "x1": change["index"] - 0.5,
            "y0": 0,
            "y1": 1,
            "line": {"color": theme.INK, "width": 1, "dash": "dash"},
            "label": {
                "text": labels.changed(change["loop"]),
                "textposition": "end",
                "textangle": -90,
                "xanchor": "right",
                "font": {"size": 10},
            },
        }
        for change in changes_of(meta, tokens)[-MARKS:]
    ]


def block_layout(
    meta: Mapping[str, Any],
    focus: Focus,
    words: Mapping[str, str],
    height: float,
    margin: Mapping[str, int],
    asks: Mapping[str, Any],
) -> tuple[dict[str, Any], bool]:
    """What the layout of a figure of one looped block begins with, and whether the run has that block.

    Without it there is nothing to draw: no axes, only the words that say so.

    Args:
        words: the panel's.
        height: px.
        margin: px, by side.
        asks: `layout.meta`, what a page makes of a click.
    """
    absent = labels.missing_block(meta, focus.block, focus.lang)
    layout: dict[str, Any] = {
        "template": theme.template(),
        "height": height,
        "margin": margin,
        "title": {"text": " "},
        "annotations": [labels.message(absent or words["no_data"])],
        "meta": asks,
    }
    if absent:
        layout |= {"xaxis": {"visible": False}, "yaxis": {"visible": False}}
    return layout, not absent
