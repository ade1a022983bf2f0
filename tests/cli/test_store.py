"""The host's own hand on stored runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from loopviz.cli.main import main
from loopviz.store import Store, new_secret
from tests.trace.synthetic import random_trace


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["store", *arguments]) == 0
    return capsys.readouterr().out


def test_the_host_lists_features_and_deletes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    trace = random_trace(5, 3)
    trace.meta["prompt"] = "one \x1b[31mred\ttwo"
    run = store.save(trace, new_secret()).id
    monkeypatch.setenv("LOOPVIZ_STORE", str(tmp_path))
    (line,) = said(capsys, "list").splitlines()
    assert line.startswith(run)
    assert "\x1b" not in line
    assert "gallery" in said(capsys, "feature", run)
    assert [entry.id for entry in store.gallery()] == [run]
    said(capsys, "unfeature", run)
    assert store.gallery() == []
    said(capsys, "delete", run)
    assert main(["store", "feature", run]) == 2
    assert "deleted" in capsys.readouterr().err


def test_a_class_folder_is_made_with_both_links(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, "class", "7b", "--folder", str(tmp_path), "--address", "https://loops.example.org/")
    pupils, teacher = (line.partition("\t")[2] for line in lines.splitlines())
    folder, _, secret = teacher.partition("?class=")[2].partition("#teacher=")
    assert pupils == f"https://loops.example.org/?class={folder}"
    assert Store(tmp_path).runs_of(folder, secret) == []


@pytest.mark.parametrize("folder", [[], ["--folder", "/nowhere/at/all"]])
def test_without_a_store_it_says_what_to_do(
    folder: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LOOPVIZ_STORE", raising=False)
    assert main(["store", "list", *folder]) == 2
    assert "folder" in capsys.readouterr().err


def test_the_host_deletes_what_was_handed_in_and_a_class_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOPVIZ_STORE", str(tmp_path))
    store = Store(tmp_path)
    folder, teacher = store.new_folder("7b \x1b[31m")
    run = store.save(random_trace(5, 3), new_secret(), folder=folder.id).id
    for student in ("Ada\u202e", "Ben"):
        store.hand_in(folder.id, new_secret(), "[]", lesson="arrows", student=student)
    (line,) = said(capsys, "classes").splitlines()
    assert (line.split("\t")[0], line.split("\t")[3:5]) == (folder.id, ["1", "2"])
    assert "\x1b" not in line
    rows = [line.split("\t") for line in said(capsys, "answers", folder.id).splitlines()]
    assert {row[-1] for row in rows} == {"Ada?", "Ben"}
    said(capsys, "delete-answer", folder.id, next(row[0] for row in rows if row[-1] == "Ben"))
    (left,) = store.answers_of(folder.id, teacher)
    assert left.student == "Ada\u202e"
    assert main(["store", "delete-answer", folder.id, "x" * 32]) == 2
    assert "there are no such answers" in capsys.readouterr().err
    assert said(capsys, "delete-class", folder.id) == "runs\t1\nanswers\t1\n"
    assert said(capsys, "classes") == ""
    assert main(["store", "answers", folder.id]) == 2
    assert "no such class folder" in capsys.readouterr().err
    assert main(["store", "feature", run]) == 2
