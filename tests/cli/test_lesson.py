"""`lesson check` says all that is wrong with a file, and what is right in it; `lesson schema` prints the published schema."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loopviz.cli.main import main
from loopviz.lessons.bundled import FOLDER
from loopviz.lessons.json_schema import json_schema
from tests.lessons.test_faults import MISTAKES
from tests.lessons.toy import toy


def written(folder: Path, lesson: object) -> Path:
    path = folder / "lesson.json"
    path.write_text(json.dumps(lesson), encoding="utf-8")
    return path


def test_a_lesson_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lesson", "check", str(written(tmp_path, toy()))]) == 0
    assert "a lesson of 6 steps" in capsys.readouterr().out


def test_every_mistake_is_a_line_with_its_file_and_field(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lesson = toy()
    names = ("one language is missing", "another type", "a measurement that is none", "a name with blanks")
    for name in names:
        MISTAKES[name][0](lesson)
    path = written(tmp_path, lesson)
    assert main(["lesson", "check", str(path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    for name in names:
        assert any(line.startswith(f"{path}: {MISTAKES[name][1]}") for line in lines), name


def test_of_several_files_each_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text("{", encoding="utf-8")
    assert main(["lesson", "check", str(written(tmp_path, toy())), str(bad)]) == 1
    said = capsys.readouterr().out
    assert "a lesson of 6 steps" in said
    assert "not JSON" in said


def test_a_file_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lesson", "check", str(tmp_path / "none.json")]) == 2
    assert "none.json" in capsys.readouterr().err


def test_played_it_says_what_is_right_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lesson", "check", "--run", str(FOLDER / "5-damping.json")]) == 0
    said = capsys.readouterr().out
    assert "settles = 3" in said
    assert "right is 6: twice as many" in said


def test_what_ifs_are_played_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lesson = json.loads((FOLDER / "5-damping.json").read_text(encoding="utf-8"))
    lesson["steps"] = [lesson["steps"][1]]
    assert main(["lesson", "check", "--run", str(written(tmp_path, lesson))]) == 0
    assert "half.what_if: Loop 11: about twice as many once more." in capsys.readouterr().out
    lesson["steps"][0]["what_if"]["measure"]["settles"]["word"] = "nowhere"
    assert main(["lesson", "check", "--run", str(written(tmp_path, lesson))]) == 1
    said = capsys.readouterr().out
    assert "half.what_if: measure.settles: word" in said
    assert "half: right is 6" in said


def test_one_in_which_no_choice_is_right_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lesson = json.loads((FOLDER / "5-damping.json").read_text(encoding="utf-8"))
    for choice in lesson["steps"][1]["predict"]["choices"]:
        choice["value"] += 100
    assert main(["lesson", "check", "--run", str(written(tmp_path, lesson))]) == 1
    assert "no choice, or several" in capsys.readouterr().out


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lesson", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json_schema()
