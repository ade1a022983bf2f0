"""Plotly.js, as pages and reports bring it: the small one in `assets/vendor`, or the whole one of the installed package.

Nearly every panel is scatters, bars and heatmaps. For these a third of Plotly.js is enough, and a page that opens with it
shows its plots a second sooner. Both are of one version: should the installed package have another one, it is used alone.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import plotly

from loopviz.paths import ASSETS

SMALL = ASSETS / "vendor" / "plotly-cartesian.min.js"
WHOLE = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
SMALL_DRAWS = frozenset({"scatter", "bar", "heatmap"})  # of its traces, those that our figures have (core/plotly.js)


def version(script: bytes) -> str:
    """The version a Plotly.js says it is, in the comment it begins with; ValueError when it says none."""
    found = re.search(rb"plotly\.js[^\n]* v(\d[\w.-]*)", script[:200])
    if found is None:
        raise ValueError("plotly.js: no version in its first lines; is this Plotly.js?")
    return found[1].decode()


def whole() -> bytes:
    """The installed package's Plotly.js."""
    return WHOLE.read_bytes()


def whole_release() -> str:
    """By what one installed Plotly.js is told from another without reading it: its version, and how long it is."""
    with WHOLE.open("rb") as installed:
        return f"{version(installed.read(200))}, {WHOLE.stat().st_size} bytes"


@functools.cache
def small() -> bytes:
    """A Plotly.js that draws `SMALL_DRAWS`: the small one if it is there and of the installed version, else the whole."""
    script = SMALL.read_bytes() if SMALL.is_file() else b""
    with WHOLE.open("rb") as installed:
        wanted = version(installed.read(200))
    return script if script and version(script) == wanted else whole()


def enough(figures: Iterable[Mapping[str, Any]]) -> bool:
    """Whether the small one draws all of these figures (plain JSON data)."""
    return all(trace.get("type", "scatter") in SMALL_DRAWS for figure in figures for trace in figure["data"])
