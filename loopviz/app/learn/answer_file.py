"""What a student hands in: the answers to a lesson, as a table or as JSON."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from loopviz import csv_file
from loopviz.app import contract
from loopviz.version import version

LONGEST = 2_000  # characters of anything in it
MOST = 200  # answers
SHORT = 80  # characters of what stands in every row
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


class TableFull(ValueError):
    """A class's answers are more than one table holds."""


def answers_of(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The answers to a lesson (`contract.AnswersAsked`, of which nothing is trusted), as a file has them."""
    made_with = {
        "loopviz": version(),
        **{_cut(k)[:SHORT]: _cut(v)[:SHORT] for k, v in list(asked.get("made_with", {}).items())[:20]},
    }
    return {
        "name": asked.get("student", "").strip()[: contract.MOST_STUDENT],
        "lesson": _cut(asked.get("lesson", ""))[:SHORT],
        "lesson_version": asked.get("version", 0),
        "title": _cut(asked.get("title", "")),
        "made_with": made_with,
        "answers": [_answer(one) for one in asked.get("answers", [])[:MOST]],
    }


def file_of(asked: Mapping[str, Any]) -> dict[str, str]:
    """`{"kind": "file", "name", "data"}`: the answers (`contract.AnswersAsked`, of which nothing is trusted), base64."""
    found, kind = answers_of(asked), _kind(asked)
    text = json.dumps(found, ensure_ascii=False, indent=2) + "\n" if kind == "json" else _table([found])
    name = "-".join(part for part in ("loopviz", _slug(found["lesson"]), _slug(found["name"])) if part)
    return _file(f"{name}.{kind}", text)


def file_of_class(
    name: str, handed: Sequence[Mapping[str, Any]], asked: Mapping[str, Any], most: int
) -> dict[str, str]:
    """All that a class handed in, as one file: rows under each other, or a list of what each pupil's own file would hold.

    Raises:
        TableFull: the rows come to more than `most` characters.
    """
    kind = _kind(asked)
    text = json.dumps(list(handed), ensure_ascii=False, indent=2) + "\n" if kind == "json" else _table(handed, most)
    return _file(f"{'-'.join(part for part in ('loopviz', _slug(name)) if part)}.{kind}", text)


def _kind(asked: Mapping[str, Any]) -> str:
    return asked["kind"] if asked.get("kind") in contract.ANSWER_FILES else contract.ANSWER_FILES[0]


def _file(name: str, text: str) -> dict[str, str]:
    return {"kind": "file", "name": name, "data": base64.b64encode(text.encode()).decode()}


def _answer(said: Mapping[str, Any]) -> dict[str, Any]:
    words = {name: _cut(said.get(name, "")) for name in ("step", "question", "guess", "measured", "when")}
    return {**words, "right": said.get("right"), "score": round(said.get("score", 0.0), 3)}


def _table(handed: Sequence[Mapping[str, Any]], most: float = math.inf) -> str:
    """A row an answer, each with all that says whose and of what it is: such tables can be put under each other."""
    file = io.StringIO()
    writer = csv_file.writer(file)
    writer.writerow(_COLUMNS)
    for found in handed:  # each row says anew whose it is: what was handed in small may be a large table
        writer.writerows(_rows(found))
        if file.tell() > most:
            raise TableFull(f"more than {most:,} characters")
    return BOM + file.getvalue()


def _rows(found: Mapping[str, Any]) -> list[list[Any]]:
    made = "; ".join(f"{name} {value}" for name, value in found["made_with"].items())
    same = {
        "name": found["name"],
        "lesson": found["lesson"],
        "lesson_version": found["lesson_version"],
        "made_with": made,
    }
    rows = [{**same, **answer} for answer in found["answers"]]
    right = {True: "yes", False: "no", None: ""}
    return [[{**row, "right": right[row["right"]]}[column] for column in _COLUMNS] for row in rows]


def _cut(text: str) -> str:
    return text[:LONGEST]


def _slug(text: str) -> str:
    """Of a name what a file's name may have, in any script."""
    kept = "".join(letter if letter.isalnum() else "-" for letter in text)[: contract.MOST_SLUG]
    return "-".join(part for part in kept.split("-") if part)
