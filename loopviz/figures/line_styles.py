"""What the plots of tasks share: lines that stay apart without colour."""

from __future__ import annotations

from typing import Any

from loopviz.figures.theme import COLOURS

_COLOURS = [COLOURS[name] for name in ("cosine", "kl", "rel_delta", "entropy", "stop_max", "plain", "kv_used")]
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
_SYMBOLS = ("circle", "diamond", "square", "triangle-up", "star", "cross", "x", "hexagon")


def line_styles(n: int) -> list[dict[str, Any]]:
    """`n` line and marker styles for `add_scatter`: no two share colour, dash and symbol up to 280."""
    return [
        {
            "line": {"color": _COLOURS[i % len(_COLOURS)], "dash": _DASHES[i % len(_DASHES)], "width": 2},
            "marker": {"symbol": _SYMBOLS[i % len(_SYMBOLS)], "size": 7},
        }
        for i in range(n)
    ]
