"""CSV files are read back as they were written, whatever stands in a text and whichever Python wrote them."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import loopviz
from loopviz.csv_file import dict_reader, neutral, read_table, reader, restored, table_bytes, write_table, writer

ODD = [
    "a\rb",
    "\r",
    "\r\n",
    "\n",
    "a\0b",
    "\0",
    "\ue000",
    "\ue0001\0\ue0000",
    "\u2028x\x85\u2029",
    "\ufeffx",
    'q"q',
    ",",
    " lead ",
    "",
    "'",
    "\x1a",
    "\u202e",
]
COMPUTED = [
    "=cmd|'/C calc'!A0",
    "@SUM(1+1)",
    "+1+1",
    "-1+1",
    "\t=1",
    "\r=1",
    "\n=1",
    "\r\n\t-1",
    "\0=1",
    "\tx",
    "\r x",
    "\uff1d1",
    "\uff0b1",
    "\uff0d1",
    "\uff20A",
]
HARMLESS = ["", "a=1", "1-1", " ", "\t", "\r", "\r\n", "\n", "\nx", "'", "''", "'a", "a'=1"]
texts = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("\r\n\",\0 \t=+-@'\uff1d\uff20"), max_size=8
) | st.sampled_from([*ODD, *COMPUTED, *HARMLESS])


def read(data: bytes) -> list[list[str]]:
    return list(reader(io.StringIO(data.decode(), newline="")))


def plainly(data: bytes) -> list[list[str]]:
    """As anybody's program reads it: one that leaves NULs out, as not every Python's ``csv`` reads them."""
    return list(csv.reader(io.StringIO(data.decode().replace("\0", ""), newline="")))


@given(st.lists(texts, min_size=1, max_size=6))
@settings(max_examples=150, deadline=None)
def test_a_table_is_read_back_by_pandas_and_by_csv(values):
    data = table_bytes(pd.DataFrame({"n": range(len(values)), "text": values}))
    assert read(data) == [["n", "text"], *([str(n), value] for n, value in enumerate(values))]
    assert read_table(data, na_values=[], dtype={"text": str})["text"].tolist() == values


@given(st.lists(texts, min_size=2, max_size=4))
def test_rows_are_read_back(values):
    out = io.StringIO(newline="")
    writer(out).writerows([values, values])
    assert read(out.getvalue().encode()) == [values, values]


def test_a_carriage_return_stands_in_quotes_and_lines_end_in_one_character(tmp_path):
    table = pd.DataFrame({"text": ["One\rtwo", "plain", None], "x": [1.5, None, 2.0]})
    write_table(table, tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_bytes() == b'text,x\n"One\rtwo",1.5\nplain,\n,2.0\n'


@pytest.mark.parametrize("text", ["a\rb", "\r", "One\r\ntwo"])
def test_every_table_of_the_project_keeps_a_carriage_return(tmp_path, text):
    """Traces, panels, measurements, training logs: one writer."""
    from loopviz.export.panel_table import panel_file, table
    from loopviz.trace.file import to_csv
    from loopviz.train.state import CsvLog
    from tests.trace.synthetic import random_trace

    trace = random_trace(3, 3, blocks=[(0, 1)])
    trace.frames[1]["text"] = text
    to_csv(trace, tmp_path)
    assert pd.read_csv(tmp_path / "tokens.csv", keep_default_na=False)["text"][1] == text
    assert len(read((tmp_path / "tokens.csv").read_bytes())) == len(trace) + 1
    name, data = panel_file(trace, "text_by_loop", "csv")
    assert name.endswith(".csv")
    assert all(len(row) == len(read(data)[0]) for row in read(data))
    assert not table({"data": [], "layout": {}}).size
    log = CsvLog(tmp_path / "log.csv", ("step", "note"), None)
    log.add([[1, text]])
    assert read((tmp_path / "log.csv").read_bytes()) == [["step", "note"], ["1", text]]
    assert read((tmp_path / "log.csv").read_bytes()) == read(b'step,note\n1,"' + text.encode() + b'"\n')


def test_no_other_module_writes_csv():
    """A second writer would bring the fault back under the Python it was not tried with."""
    package = Path(loopviz.__file__).parent
    wrong = [
        path.relative_to(package)
        for path in package.rglob("*.py")
        if path.name != "csv_file.py"
        and re.search(r"\bcsv\.(Dict)?[wW]riter|to_csv\([^)]*(index|sep)=", path.read_text("utf-8"))
    ]
    assert wrong == []


# -- cells_a_spreadsheet_computes ------------------------------------------------------------------------------------------


def computes(cell: str) -> bool:
    """Whether a cell begins a formula, whatever white space a reader takes off before it looks; written without our rule."""
    bare = cell.lstrip("\0\t\r\n")
    return bare[:1] in {"=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20"} or (
        cell[:1] in {"\t", "\r"} and bool(cell.strip())
    )


@given(texts)
@settings(max_examples=500)
def test_cells_a_spreadsheet_computes_are_written_so_that_none_does_and_read_as_they_were(text):
    assert not computes(neutral(text))
    assert restored(neutral(text)) == text
    assert restored(neutral(neutral(text))) == neutral(text), "written and read twice"


@pytest.mark.parametrize("text", COMPUTED)
def test_a_cell_that_would_be_computed_has_one_apostrophe_more(text):
    assert neutral(text) == f"'{text}"
    assert neutral(f"'{text}") == f"''{text}"


@pytest.mark.parametrize("text", HARMLESS)
def test_a_cell_that_computes_nothing_stays_as_it_is(text):
    assert neutral(text) == text
    assert restored(text) == text


@given(st.lists(texts, min_size=1, max_size=6), texts)
@settings(max_examples=150, deadline=None)
def test_a_table_of_formulas_comes_back_with_its_numbers_and_names(values, name):
    numbers = [-1.5 * n for n in range(len(values))]
    data = table_bytes(pd.DataFrame({"x": numbers, f"t{name}": values, f"={name}": values}))
    header, *rows = plainly(data)
    assert not any(computes(cell) for cell in header)
    assert not any(computes(cell) for row in rows for cell in row[1:])
    assert [float(row[0]) for row in rows] == numbers, "numbers are numbers to every program"
    back = [*dict_reader(io.StringIO(data.decode(), newline=""))]
    assert [row[f"={name}"] for row in back] == values
    table = read_table(data, na_values=[], dtype={1: str, 2: str})
    assert table.columns.tolist() == ["x", f"t{name}", f"={name}"]
    assert table[f"={name}"].tolist() == values
    assert table["x"].tolist() == numbers


def test_no_table_of_a_trace_or_a_panel_begins_a_formula(tmp_path):
    from loopviz.export.panel_table import panel_file
    from loopviz.panels import PANELS
    from loopviz.trace.file import to_csv
    from loopviz.trace.schema import EXTRAS
    from tests.trace.synthetic import random_trace

    trace = random_trace(3, 4, blocks=[(0, 1)], extras=EXTRAS)
    pieces = iter(["=cmd|'/C calc'!A0", "@SUM(1+1)", "+1+1", "-1+1"])
    for frame in trace.frames:
        frame["text"] = next(pieces)
        frame["next_text"] = "=1+1"
        for block in frame["blocks"]:
            block["stop_reason"] = "-stop"
            for name in ("topk_texts", "exit_topk_texts"):
                block["steps"][name] = [["@A1" for _ in row] for row in block["steps"][name]]
    to_csv(trace, tmp_path)
    files = {path.name: path.read_bytes() for path in tmp_path.glob("*.csv")}
    files |= {name: panel_file(trace, name, "csv")[1] for name in PANELS}
    number = re.compile(r"[-+]?[\d.]+(e[-+]?\d+)?", re.ASCII)
    wrong = [
        (name, cell)
        for name, data in files.items()
        for row in plainly(data)
        for cell in row
        if computes(cell) and not number.fullmatch(cell)
    ]
    assert wrong == []
    tokens = read_table(tmp_path / "tokens.csv")
    assert tokens["text"].tolist() == trace.tokens["text"].tolist()
    assert tokens["next_logprob"].dtype == float, "numbers stay numbers"
