"""What a benchmark prints and keeps."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from benchmarks.results import Figure, about, markdown, tell

FIGURES = [
    Figure("ours / theirs", 1.234, ">= 1x", {"ours, ms": 12.5, "theirs, ms": 15.425}),
    Figure("start", 3.25, "", {"least": 3.0}, "s"),
    Figure("=none", None),
]


def test_the_table_has_a_row_a_figure_and_says_where_it_was_measured() -> None:
    found = about(("torch",), threads=2)
    lines = markdown(found, FIGURES).splitlines()
    assert "threads 2" in lines[0]
    assert f"torch {found['versions']['torch']}" in lines[0]
    assert found["processor"] in lines[0]
    assert lines[4:] == [
        "| ours / theirs | 1.23x | >= 1x | ours, ms: 12.5, theirs, ms: 15.43 |",
        "| start | 3.25 s |  | least: 3 |",
        "| =none | not here |  |  |",
    ]


def test_all_of_it_is_kept_beside_a_table_for_spreadsheets(tmp_path: Path) -> None:
    place = tmp_path / "new" / "peers"
    tell(about(threads=1), FIGURES, place)
    kept = json.loads(place.with_suffix(".json").read_text("utf-8"))
    assert kept["about"]["threads"] == 1
    assert [(figure["value"], figure["unit"]) for figure in kept["figures"]] == [(1.234, "x"), (3.25, "s"), (None, "x")]
    rows = list(csv.reader(place.with_suffix(".csv").read_text("utf-8").splitlines()))
    assert rows[0] == ["figure", "value", "unit", "aim", "measured"]
    assert rows[1][:4] == ["ours / theirs", "1.234", "x", ">= 1x"]
    assert json.loads(rows[1][4]) == FIGURES[0].measured
    assert rows[3][:2] == ["'=none", ""]  # no spreadsheet computes it


def test_nothing_is_written_unasked(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    tell(about(), FIGURES, None)
    assert list(tmp_path.iterdir()) == []
