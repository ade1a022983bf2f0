"""A panel's data as a table: every drawn point once, with the numbers that are drawn."""

from __future__ import annotations

import io
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings

from loopviz.cli import main
from loopviz.export.panel_table import KINDS, panel_file, panel_table, save_panel, table
from loopviz.panels import PANELS, Focus
from loopviz.trace import Trace
from loopviz.trace import file as trace_io
from tests.trace.synthetic import random_trace, traces


def figure(*data: dict[str, Any], **layout: Any) -> dict[str, Any]:
    return {"data": list(data), "layout": layout}


def rows(found: pd.DataFrame) -> list[dict[str, Any]]:
    return [{key: None if pd.isna(value) else value for key, value in row.items()} for row in found.to_dict("records")]


def test_lines_gaps_and_axes() -> None:
    shown = figure(
        {
            "type": "scatter",
            "name": "a<sub>1</sub>",
            "x0": 1,
            "dx": 2,
            "y": [5.0, None, 7.0],
            "text": ["p<br>&lt;b&gt;", "q", "r"],
        },
        {"type": "scatter", "yaxis": "y2", "x": [1, None, 2], "y": [3.0, None, 4.0]},
        {"type": "scatter", "visible": False, "x": [9], "y": [9]},
        {"type": "scatter", "x": [], "y": []},
        xaxis={"title": {"text": "step"}},
        yaxis={"title": {"text": "1 − cos"}},
        yaxis2={"title": {"text": "KL"}},
    )
    assert rows(table(shown)) == [
        {"trace": 0, "name": "a1", "x_axis": "step", "y_axis": "1 − cos", "x": 1, "y": 5.0, "text": "p · <b>"},
        {"trace": 0, "name": "a1", "x_axis": "step", "y_axis": "1 − cos", "x": 5, "y": 7.0, "text": "r"},
        {"trace": 1, "name": None, "x_axis": "step", "y_axis": "KL", "x": 1, "y": 3.0, "text": None},
        {"trace": 1, "name": None, "x_axis": "step", "y_axis": "KL", "x": 2, "y": 4.0, "text": None},
    ]


def test_maps_in_each_of_their_forms() -> None:
    by_column = {
        "type": "heatmap",
        "x": ["0 a", "0 a", "1 b"],
        "y": [1, 2, 1],
        "z": [-1.0, None, -2.0],
        "text": ["p", "q", "r"],
    }
    found = table(figure(by_column))
    assert found[["x", "y", "z", "text"]].values.tolist() == [["0 a", 1, -1.0, "p"], ["1 b", 1, -2.0, "r"]]
    by_rows = {
        "type": "heatmap",
        "x": ["a", "b"],
        "y0": 1,
        "z": [[1, 2], [3]],
        "text": [["p", "q"], ["r"]],
        "customdata": [[0.5]],
    }
    found = table(figure(by_rows))
    assert found[["x", "y", "z", "text"]].values.tolist() == [["a", 1, 1, "p"], ["b", 1, 2, "q"], ["a", 2, 3, "r"]]
    assert found["data"].isna().tolist() == [False, True, True]
    turned = {"type": "heatmap", "transpose": True, "z": [[7], [8, 9]], "colorbar": {"title": {"text": "tokens"}}}
    found = table(figure(turned))
    assert found[["x", "y", "z", "z_axis"]].values.tolist() == [
        [0, 0, 7, "tokens"],
        [1, 0, 8, "tokens"],
        [1, 1, 9, "tokens"],
    ]


def test_three_dimensions_and_mixed_columns() -> None:
    path = {"type": "scatter3d", "x": [1.0], "y": [2.0], "z": [3.0]}
    bars = {"type": "bar", "orientation": "h", "y": ["m", "n"], "x": [1, 2], "customdata": [[1, 2], [3, 4]]}
    found = table(figure(path, bars, scene={"zaxis": {"title": {"text": "PC 3"}}}))
    assert [row["z_axis"] for row in rows(found)] == ["PC 3", None, None]
    assert found["y"].tolist() == ["2.0", "m", "n"], "one type a column"
    assert found["x"].tolist() == [1.0, 1, 2]
    assert [row["data"] for row in rows(found)] == [None, "[1, 2]", "[3, 4]"]
    assert table(figure()).columns.tolist()[0] == "trace"


@pytest.mark.parametrize("name", PANELS)
@pytest.mark.parametrize("focus", [Focus(), Focus(token=2, block=1, lang="zh", dims=3, pins=(0, 1))])
def test_every_panel_gives_a_file_of_each_kind(name: str, focus: Focus) -> None:
    trace = random_trace(3, 6, blocks=[(1, 2), (4, 4)], extras=("exit", "keys", "attention"))
    found = panel_table(trace, name, focus)
    drawn = PANELS[name].figure(trace, focus).to_plotly_json()["data"]
    assert len(found) > 0 or not any(t.get(k) for t in drawn for k in "xyz")
    as_csv, as_parquet = (panel_file(trace, name, kind, focus) for kind in KINDS)
    assert (as_csv[0], as_parquet[0]) == (f"synthetic-{name}.csv", f"synthetic-{name}.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(io.BytesIO(as_parquet[1])), found, check_dtype=False)
    back = pd.read_csv(io.BytesIO(as_csv[1]), keep_default_na=False)
    assert back.columns.tolist() == found.columns.tolist()
    assert len(back) == len(found)


def test_the_numbers_are_the_runs() -> None:
    trace = random_trace(1, 5)
    block = trace.frames[3]["blocks"][0]
    found = panel_table(trace, "convergence", Focus(token=3))
    kl = found[found["name"] == PANELS["convergence"].TEXTS["en"]["curve_kl"]]
    assert kl["x"].tolist() == [*range(1, block["n_steps"] + 1)]
    assert kl["y"].tolist() == pytest.approx(block["steps"]["kl"], rel=1e-3)
    held = panel_table(trace, "kv_occupancy", Focus(token=3))
    grid = held[held["trace"] == 0]
    slots = trace.frames[3]["kv"]["slots"]
    assert [tuple(row) for row in grid[["x", "y", "z"]].values] == [
        (layer, slot, tokens) for layer, own in enumerate(slots) for slot, tokens in enumerate(own)
    ]


@given(traces(max_tokens=3))
@settings(max_examples=4, deadline=None)
def test_any_trace(trace: Trace) -> None:
    for name in PANELS:
        assert panel_file(trace, name, "parquet", Focus(token=1))[1].startswith(b"PAR1")


def test_names_of_files_are_plain() -> None:
    trace = random_trace(1, 1)
    for model, file in (
        ("../../etc/passwd", "etc-passwd-convergence.csv"),
        ("org/M 1.5\r\n", "org-M-1.5-convergence.csv"),
        ("模型", "run-convergence.csv"),
    ):
        trace.meta["model"] = model
        assert panel_file(trace, "convergence", "csv")[0] == file
    for wrong in (lambda: panel_table(trace, "speed"), lambda: panel_file(trace, "convergence", "xls")):
        with pytest.raises(ValueError, match=r"speed|xls"):
            wrong()


def test_from_the_command_line(tmp_path: Any, capfd: pytest.CaptureFixture[str]) -> None:
    trace = random_trace(5, 4)
    trace_io.save(trace, tmp_path / "t")
    wanted = tmp_path / "c.csv"
    arguments = [
        "export",
        str(tmp_path / "t"),
        "--parquet",
        str(tmp_path / "all"),
        "--panel",
        "convergence",
        str(wanted),
    ]
    assert main.main(arguments) == 0
    assert wanted.read_bytes() == panel_file(trace, "convergence", "csv")[1]
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "all" / "steps.parquet"), trace.steps)
    assert main.main([*arguments[:2], "--panel", "convergence", str(tmp_path / "c.xls")]) == 2
    assert "must end in .csv or .parquet" in capfd.readouterr().err
    assert main.main([*arguments[:2], "--panel", "speed", str(wanted)]) == 2
    assert "'speed'" in capfd.readouterr().err
    save_panel(trace, "convergence", tmp_path / "c.PARQUET")
    assert len(pd.read_parquet(tmp_path / "c.PARQUET")) == len(panel_table(trace, "convergence"))
