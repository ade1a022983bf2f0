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
from loopviz.csv_file import table_bytes, write_table, writer

ODD = [
    "a\rb",
    "\r",
    "\r\n",
    "\n",
    "a\0b",
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
texts = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('\r\n",\0 '), max_size=8) | st.sampled_from(
    ODD
)


def read(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode(), newline="")))


@given(st.lists(texts, min_size=1, max_size=6))
@settings(max_examples=150, deadline=None)
def test_a_table_is_read_back_by_pandas_and_by_csv(values):
    data = table_bytes(pd.DataFrame({"n": range(len(values)), "text": values}))
    assert read(data) == [["n", "text"], *([str(n), value] for n, value in enumerate(values))]
    assert pd.read_csv(io.BytesIO(data), keep_default_na=False, dtype={"text": str})["text"].tolist() == values


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
    from loopviz.panel_data import panel_file, table
    from loopviz.trace.io import to_csv
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
