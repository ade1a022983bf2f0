"""What a student hands in: whose, of which lesson and version, made with what; safe to open in a spreadsheet."""

from __future__ import annotations

import base64
import csv
import io
import json
from typing import Any

from loopviz import csv_file
from loopviz.app.learn.answer_file import LONGEST, MOST, file_of
from loopviz.version import version

ANSWER = {
    "step": "four", "question": "How many?", "guess": "two", "measured": "four (4)", "right": False, "score": 0.25,
    "when": "2026-11-26T10:00:00Z",
}  # fmt: skip


def asked(**change: Any) -> dict[str, Any]:
    made = {"torch": "2.13.0", "arrows-loop": "bundled with LoopViz"}
    same = {"kind": "json", "student": "李 雷", "lesson": "arrows", "version": 2, "title": "Arrows", "made_with": made}
    return {**same, "answers": [ANSWER, {**ANSWER, "step": "five", "right": None}]} | change


def text(said: dict[str, str]) -> str:
    return base64.b64decode(said["data"]).decode()


def test_json_says_whose_it_is_and_of_which_lesson_version_and_app() -> None:
    said = file_of(asked())
    assert said["name"] == "loopviz-arrows-李-雷.json"
    found = json.loads(text(said))
    assert (found["name"], found["lesson"], found["lesson_version"]) == ("李 雷", "arrows", 2)
    assert found["made_with"] == {"loopviz": version(), "torch": "2.13.0", "arrows-loop": "bundled with LoopViz"}
    assert found["answers"][0] == ANSWER


def test_the_table_has_a_row_an_answer_with_all_of_that() -> None:
    rows = list(csv.DictReader(io.StringIO(text(file_of(asked(kind="csv"))).removeprefix("\ufeff"))))
    assert [row["step"] for row in rows] == ["four", "five"]
    assert rows[0]["name"] == "李 雷"
    assert rows[0]["lesson_version"] == "2"
    assert [row["right"] for row in rows] == ["no", ""]
    assert version() in rows[0]["made_with"]


def test_a_spreadsheet_computes_nothing_of_it() -> None:
    said = text(file_of(asked(kind="csv", student="=1+1", answers=[ANSWER | {"guess": "@SUM(A1)"}]))).removeprefix(
        "\ufeff"
    )
    cells = [cell for row in csv.reader(io.StringIO(said)) for cell in row]
    assert not any(cell.startswith(("=", "@")) for cell in cells)
    [row] = csv_file.dict_reader(io.StringIO(said))
    assert (row["name"], row["guess"]) == ("=1+1", "@SUM(A1)")


def test_nothing_of_what_is_asked_is_needed_or_trusted() -> None:
    assert file_of({})["name"] == "loopviz.csv"
    long = "x" * (2 * LONGEST)
    many = asked(
        lesson=long, student=long, made_with={str(n): long for n in range(99)}, answers=[{"guess": long}] * (2 * MOST)
    )
    assert len(json.loads(text(file_of(many)))["answers"]) == MOST
    assert len(text(file_of(many))) < 2 * MOST * LONGEST
    assert file_of(asked(lesson="../../etc", student="a/b\\c"))["name"] == "loopviz-etc-a-b-c.json"
