"""The numbers a panel draws, as one tidy table: a row a drawn point, for CSV, Parquet and pandas.

A figure draws four significant digits, and floors what a log axis cannot show; the exact value stands in ``text`` where the
panel says it there. All of a run in full precision is in its trace: :mod:`loopviz.trace.file`.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopviz import outputs
from loopviz.csv_file import table_bytes
from loopviz.export.report import focus_of, panels_of
from loopviz.figures import labels
from loopviz.panels import figure_json

if TYPE_CHECKING:
    import pandas as pd

    from loopviz.panels import Focus
    from loopviz.panels.ttt import TTTFocus
    from loopviz.trace import Trace

KINDS = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}
COLUMNS = ("trace", "name", "x_axis", "y_axis", "z_axis", "x", "y", "z", "text", "data")
_GRIDS = {"heatmap", "contour", "surface"}  # their z may be a list of rows


def table(figure: Mapping[str, Any]) -> pd.DataFrame:
    """The points of ``figure`` (plain JSON, :func:`loopviz.panels.figure_json`), a row each, in drawing order.

    Columns: ``trace`` (number of the curve or map, from 0), ``name`` (its legend), ``x_axis``, ``y_axis``, ``z_axis``
    (titles), ``x``, ``y``, ``z``, ``text`` (what hovering shows), ``data`` (further numbers behind it). A column is numbers
    if all of it is, else text; columns of which nothing is drawn are left out. Gaps, and what is switched off, have no row.
    """
    import pandas as pd

    rows = [row for place, trace in enumerate(figure["data"]) for row in _points(place, trace, figure["layout"])]
    columns = dict(zip(COLUMNS, zip(*rows, strict=True), strict=True)) if rows else dict.fromkeys(COLUMNS, ())
    kept = {name: _one_kind(values) for name, values in columns.items() if any(v is not None for v in values)}
    return pd.DataFrame({name: kept.get(name, []) for name in COLUMNS if name in kept or not rows})


def panel_table(trace: Trace, panel: str, focus: Focus | TTTFocus | None = None) -> pd.DataFrame:
    """The points (:func:`table`) that the panel named ``panel`` draws of ``trace``. ValueError for a panel there is not."""
    known = panels_of(trace)
    if panel not in known:
        raise ValueError(f"panel={panel!r}: there is no such panel; there are {', '.join(known)}")
    return table(figure_json(known[panel].figure(trace, focus or focus_of(trace))))


def panel_file(trace: Trace, panel: str, kind: str, focus: Focus | TTTFocus | None = None) -> tuple[str, bytes]:
    """A file of :func:`panel_table` for sending: its name, and its content as ``kind`` ("csv" or "parquet")."""
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}: must be one of {', '.join(KINDS)}")
    found, out = panel_table(trace, panel, focus), io.BytesIO()
    if kind == "csv":
        out.write(table_bytes(found))
    else:
        found.to_parquet(out, index=False)
    model = re.sub(r"[^A-Za-z0-9._-]+", "-", trace.meta["model"]).strip("-.")[:60]
    return f"{model or 'run'}-{panel}.{kind}", out.getvalue()


def save_panel(trace: Trace, panel: str, path: str | os.PathLike[str], focus: Focus | TTTFocus | None = None) -> None:
    """Write :func:`panel_table` to ``path``, as its ending says: ``.csv`` or ``.parquet``."""
    kind = Path(path).suffix[1:].lower()
    if kind not in KINDS:
        raise ValueError(f"{os.fspath(path)}: must end in .csv or .parquet")
    outputs.write(path, panel_file(trace, panel, kind, focus)[1])


def _axis(layout: Mapping[str, Any], trace: Mapping[str, Any], which: str) -> str | None:
    """The title of the axis a trace is drawn on."""
    if "scene" in trace or trace.get("type") == "scatter3d":
        axis = layout.get(trace.get("scene", "scene"), {}).get(f"{which}axis", {})
    elif which == "z":
        axis = trace.get("colorbar") or {}
    else:
        axis = layout.get(f"{which}axis" + trace.get(f"{which}axis", which)[1:], {})
    title = (axis.get("title") or {}).get("text")
    return _plain(title) if title else None


def _plain(text: str) -> str:
    return labels.plain(text.replace("<br>", " · "))


def _points(place: int, trace: Mapping[str, Any], layout: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    if trace.get("visible") is False:
        return
    names = tuple(_axis(layout, trace, which) for which in "xyz")
    name = _plain(trace["name"]) if trace.get("name") else None
    grid = trace.get("type") in _GRIDS and any(isinstance(row, list) for row in trace.get("z") or ())
    for x, y, z, text, data in _grid(trace) if grid else _list(trace):
        if (z is None) if trace.get("z") else (y is None or x is None):
            continue  # a gap
        shown = _plain(text) if isinstance(text, str) else text
        if isinstance(data, (list, dict)):
            data = json.dumps(data, ensure_ascii=False)
        yield (place, name, *names, _shown(x), _shown(y), _shown(z), shown, data)


def _shown(value: Any) -> Any:
    return _plain(value) if isinstance(value, str) else value


def _along(trace: Mapping[str, Any], which: str, count: int) -> list[Any]:
    """The coordinates of ``count`` points; regular ones are given by where they begin and how far apart they are."""
    values = trace.get(which)
    if values:
        return values
    begin, step = trace.get(f"{which}0", 0), trace.get(f"d{which}", 1)
    return [begin + step * i for i in range(count)]


def _list(trace: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Points given as lists of one length."""
    columns: list[list[Any]] = [
        held if isinstance(held := trace.get(key), list) else [] for key in ("z", "text", "customdata")
    ]
    count = max([len(column) for column in columns] + [len(trace.get(which) or []) for which in "xy"])
    if not count or not any(trace.get(key) for key in "xyz"):
        return
    yield from itertools.islice(
        itertools.zip_longest(_along(trace, "x", count), _along(trace, "y", count), *columns), count
    )


def _grid(trace: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Points given as a list of rows."""
    rows, wide = trace["z"], max(len(row or ()) for row in trace["z"])
    across, along = ("y", "x") if trace.get("transpose") else ("x", "y")
    outer, inner = _along(trace, along, len(rows)), _along(trace, across, wide)
    for i, row in enumerate(rows):
        for j, z in enumerate(row or ()):
            text, data = (_cell(trace.get(key), i, j) for key in ("text", "customdata"))
            place = {along: outer[i] if i < len(outer) else None, across: inner[j] if j < len(inner) else None}
            yield place["x"], place["y"], z, text, data


def _cell(rows: Any, i: int, j: int) -> Any:
    row = rows[i] if isinstance(rows, list) and i < len(rows) else None
    return row[j] if isinstance(row, list) and j < len(row) else None


def _one_kind(values: tuple[Any, ...]) -> list[Any]:
    """The values as they are when they are all numbers (or missing), else all as text: a file's column has one type."""
    if all(value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)) for value in values):
        return list(values)
    return [None if value is None else value if isinstance(value, str) else json.dumps(value) for value in values]
