"""What a student hands in: the answers to a lesson, as a table or as JSON."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from typing import Any

from loopviz import csv_file
from loopviz.app import contract
from loopviz.version import version

LONGEST = 2_000  # characters of anything in it
MOST = 200  # answers
BOM = "\ufeff"  # without it Excel takes a table with Chinese in it for something else
_COLUMNS = (
    "name",
    "lesson",
    "lesson_version",
    "step",
    "question",
    "guess",
    "measured",
    "right",
    "score",
    "when",
    "made_with",
)


def file_of(asked: Mapping[str, Any]) -> dict[str, str]:
    """`{"kind": "file", "name", "data"}`: the answers (`contract.AnswersAsked`, of which nothing is trusted), base64."""
    kind = asked.get("kind") if asked.get("kind") in contract.ANSWER_FILES else contract.ANSWER_FILES[0]
    made_with = {"loopviz": version(), **{_cut(k): _cut(v) for k, v in list(asked.get("made_with", {}).items())[:20]}}
    found = {
        "name": asked.get("student", "").strip()[: contract.MOST_STUDENT],
        "lesson": _cut(asked.get("lesson", "")),
        "lesson_version": asked.get("version", 0),
        "title": _cut(asked.get("title", "")),
        "made_with": made_with,
        "answers": [_answer(one) for one in asked.get("answers", [])[:MOST]],
    }
    text = json.dumps(found, ensure_ascii=False, indent=2) + "\n" if kind == "json" else _table(found)
    name = "-".join(part for part in ("loopviz", _slug(found["lesson"]), _slug(found["name"])) if part)
    return {"kind": "file", "name": f"{name}.{kind}", "data": base64.b64encode(text.encode()).decode()}


def _answer(said: Mapping[str, Any]) -> dict[str, Any]:
    words = {name: _cut(said.get(name, "")) for name in ("step", "question", "guess", "measured", "when")}
    return {**words, "right": said.get("right"), "score": round(said.get("score", 0.0), 3)}


def _table(found: Mapping[str, Any]) -> str:
    """A row an answer, each with all that says whose and of what it is: such tables can be put under each other."""
    made = "; ".join(f"{name} {value}" for name, value in found["made_with"].items())
    same = {
        "name": found["name"],
        "lesson": found["lesson"],
        "lesson_version": found["lesson_version"],
        "made_with": made,
    }
    rows = [{**same, **answer} for answer in found["answers"]]
    right = {True: "yes", False: "no", None: ""}
    table = [[{**row, "right": right[row["right"]]}[column] for column in _COLUMNS] for row in rows]
    file = io.StringIO()
    csv_file.writer(file).writerows([_COLUMNS, *table])
    return BOM + file.getvalue()


def _cut(text: str) -> str:
    return text[:LONGEST]


def _slug(text: str) -> str:
    """Of a name what a file's name may have, in any script."""
    kept = "".join(letter if letter.isalnum() else "-" for letter in text)[: contract.MOST_SLUG]
    return "-".join(part for part in kept.split("-") if part)
