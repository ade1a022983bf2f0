"""Answers that a class hands in: for its teacher alone, replaced when handed in again, counted, and gone with their folder."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from loopviz.store import Quotas, Store, new_secret
from loopviz.store.index import FILE, VERSION
from loopviz.trace import Trace
from tests.store.test_store import OTHER, SECRET, Clock, fault, trace

__all__ = ["trace"]  # a fixture


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_they_gather_for_the_teacher_alone_and_outlive_the_server(tmp_path: Path, clock: Clock) -> None:
    store = Store(tmp_path, clock=clock)
    folder, teacher = store.new_folder("7b")
    store.hand_in(
        folder.id,
        SECRET,
        "[1]",
        lesson="arrows",
        title=" Arrows\n",
        student="Ada",
        address="1.1.1.1",
        right=2,
        answered=3,
    )
    clock.now += 1
    store.hand_in(folder.id, OTHER, "[2]", lesson="arrows", student="x" * 500)
    after = Store(tmp_path, clock=clock)
    [other, mine] = after.answers_of(folder.id, teacher)
    assert (mine.student, mine.lesson, mine.title, mine.right, mine.answered) == ("Ada", "arrows", "Arrows", 2, 3)
    assert (mine.data, other.data, len(other.student)) == ("[1]", "[2]", 80)
    assert fault(after.answers_of, folder.id, SECRET) == "owner"
    assert fault(after.answers_of, "a" * 22, teacher) == "no_folder"
    assert fault(after.hand_in, "a" * 22, SECRET, "[]", lesson="arrows") == "no_folder"
    whole = (tmp_path / FILE).read_bytes() + (tmp_path / f"{FILE}-wal").read_bytes()
    assert SECRET.encode() not in whole
    assert b"1.1.1.1" not in whole


def test_the_later_ones_of_a_pupil_and_lesson_count(tmp_path: Path, clock: Clock) -> None:
    """Two pupils at one computer, by their names, are two."""
    store = Store(tmp_path, Quotas(owner_runs=3), clock)
    folder, teacher = store.new_folder("7b")
    for student, lesson, data in (("Ada", "a", "1"), ("Ada", "a", "2"), ("Ben", "a", "3"), ("Ada", "b", "4")):
        store.hand_in(folder.id, SECRET, data, lesson=lesson, student=student)
    kept = {(one.student, one.lesson): one.data for one in store.answers_of(folder.id, teacher)}
    assert kept == {("Ada", "a"): "2", ("Ben", "a"): "3", ("Ada", "b"): "4"}
    assert fault(store.hand_in, folder.id, SECRET, "5", lesson="c") == "owner_answers"
    store.hand_in(folder.id, SECRET, "5", lesson="b", student="Ada")  # none more: in the place of another
    store.hand_in(folder.id, OTHER, "6", lesson="c")


def test_they_are_counted_with_the_runs(tmp_path: Path, clock: Clock, trace: Trace) -> None:
    store = Store(tmp_path, Quotas(answer_bytes=600, place_bytes=1_000, all_bytes=1_500), clock)
    folder, _ = store.new_folder("7b")
    assert fault(store.hand_in, folder.id, SECRET, "x" * 601, lesson="a") == "answer_bytes"
    store.hand_in(folder.id, SECRET, "x" * 600, lesson="a", address="1.1.1.1")
    assert fault(store.hand_in, folder.id, OTHER, "x" * 401, lesson="a", address="1.1.1.1") == "place_bytes"
    store.hand_in(folder.id, SECRET, "y" * 600, lesson="a", address="1.1.1.1")  # the bytes of those before are free
    store.hand_in(folder.id, OTHER, "x" * 600, lesson="a", address="2.2.2.2")
    assert fault(store.hand_in, folder.id, new_secret(), "x" * 301, lesson="a", address="3.3.3.3") == "all_bytes"
    assert fault(store.save, trace, SECRET, address="4.4.4.4") in ("place_bytes", "all_bytes")


def test_they_go_with_their_folder(tmp_path: Path, clock: Clock) -> None:
    store = Store(tmp_path, clock=clock)
    folder, _ = store.new_folder("7b")
    store.hand_in(folder.id, SECRET, "[]", lesson="a")
    clock.now = folder.expires
    store.sweep()
    assert sqlite3.connect(tmp_path / FILE).execute("SELECT count(*) FROM answers").fetchone() == (0,)


def test_a_store_of_the_version_before_takes_answers_and_keeps_its_runs(
    tmp_path: Path, clock: Clock, trace: Trace
) -> None:
    store = Store(tmp_path, clock=clock)
    folder, teacher = store.new_folder("7b")
    saved = store.save(trace, SECRET, folder=folder.id)
    store.close()
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute("DROP TABLE answers")
        db.execute("PRAGMA user_version=1")
    after = Store(tmp_path, clock=clock)
    after.hand_in(folder.id, SECRET, "[]", lesson="a")
    assert len(after.answers_of(folder.id, teacher)) == 1
    assert [entry.id for entry in after.runs_of(folder.id, teacher)] == [saved.id]
    assert sqlite3.connect(tmp_path / FILE).execute("PRAGMA user_version").fetchone() == (VERSION,)


def test_one_class_folder_takes_so_many_and_so_much(tmp_path: Path, clock: Clock) -> None:
    """A pupil who sends no secret is a new one each time: a folder was as large as the store."""
    store = Store(tmp_path, Quotas(folder_answers=3, folder_answer_bytes=100), clock)
    folder, teacher = store.new_folder("7b")
    other, _ = store.new_folder("7c")
    store.hand_in(folder.id, SECRET, "x" * 90, lesson="a")
    assert fault(store.hand_in, folder.id, new_secret(), "x" * 11, lesson="a") == "folder_answers"
    store.hand_in(folder.id, SECRET, "x" * 50, lesson="a")  # in the place of those before
    for n in range(2):
        store.hand_in(folder.id, new_secret(), "x", lesson=f"{n}")
    assert fault(store.hand_in, folder.id, new_secret(), "x", lesson="d") == "folder_answers"
    store.hand_in(other.id, new_secret(), "x", lesson="d")
    listed = store.answers_of(folder.id, teacher, whole=False)
    assert [one.data for one in listed] == [""] * 3
    assert sum(one.bytes for one in listed) == 52
