"""What goes from a class folder: answers that a pupil takes back, or her teacher deletes; a run; the whole folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from loopviz.store import Quotas, Store, new_secret
from loopviz.store.files import Files
from loopviz.store.index import FILE
from loopviz.trace import Trace
from tests.store.test_store import OTHER, SECRET, Clock, fault, files, trace

__all__ = ["trace"]  # a fixture


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Store:
    return Store(tmp_path / "store", clock=clock)


def lessons(store: Store, folder: str, teacher: str) -> set[tuple[str, str]]:
    return {(one.student, one.lesson) for one in store.answers_of(folder, teacher)}


def test_who_handed_in_takes_back_what_she_handed_in_and_nothing_else(store: Store) -> None:
    folder, teacher = store.new_folder("7b")
    for secret, student, lesson in (
        (SECRET, "Ada", "a"),
        (SECRET, "Ben", "a"),
        (SECRET, "Ada", "b"),
        (OTHER, "Ada", "a"),
    ):
        store.hand_in(folder.id, secret, "[]", lesson=lesson, student=student)
    store.withdraw(folder.id, SECRET, " a\n", " Ada ")  # as it was taken then: one line
    assert lessons(store, folder.id, teacher) == {("Ben", "a"), ("Ada", "b"), ("Ada", "a")}, "the last is another's"
    assert fault(store.withdraw, folder.id, SECRET, "a", "Ada") == "no_answer", "it is gone"
    store.withdraw(folder.id, OTHER, "a", "Ada")
    assert lessons(store, folder.id, teacher) == {("Ben", "a"), ("Ada", "b")}
    store.hand_in(folder.id, SECRET, "[]", lesson="a", student="Ada")  # and may hand in again


def test_nobody_takes_back_another_s_or_learns_that_there_are_any(store: Store) -> None:
    folder, teacher = store.new_folder("7b")
    store.hand_in(folder.id, SECRET, "[]", lesson="a", student="Ada")
    for secret, student, lesson in (
        (OTHER, "Ada", "a"),
        (OTHER, "Eve", "z"),
        (teacher, "Ada", "a"),
        (SECRET, "Eve", "a"),
    ):
        assert fault(store.withdraw, folder.id, secret, lesson, student) == "no_answer"
    for secret in ("", "x", None, 3, SECRET[:-1]):
        assert fault(store.withdraw, folder.id, secret, "a", "Ada") == "owner"
    for group in ("a" * 22, "", None, "../x"):
        assert fault(store.withdraw, group, SECRET, "a", "Ada") == "no_folder"
    assert lessons(store, folder.id, teacher) == {("Ada", "a")}


def test_what_was_taken_back_is_not_in_the_file_any_more(store: Store) -> None:
    folder, _ = store.new_folder("7b")
    store.hand_in(folder.id, SECRET, "[" + "what Ada thought " * 50 + "]", lesson="a", student="Ada")
    assert b"what Ada thought" in b"".join(path.read_bytes() for path in store.folder.glob(f"{FILE}*"))
    store.withdraw(folder.id, SECRET, "a", "Ada")
    store.close()
    assert b"what Ada thought" not in b"".join(path.read_bytes() for path in store.folder.glob(f"{FILE}*"))


def test_a_teacher_deletes_the_answers_of_one_pupil_to_one_lesson(store: Store) -> None:
    folder, teacher = store.new_folder("7b")
    other, her = store.new_folder("7c")
    for lesson in ("a", "b"):
        store.hand_in(folder.id, SECRET, "[]", lesson=lesson, student="Ada")
    (one,) = (answer for answer in store.answers_of(folder.id, teacher, whole=False) if answer.lesson == "a")
    assert fault(store.delete_answer, folder.id, SECRET, one.id) == "owner"
    assert fault(store.delete_answer, folder.id, her, one.id) == "owner"
    assert fault(store.delete_answer, other.id, her, one.id) == "no_answer", "of another folder"
    for answer in ("", None, one.id[:-1], one.owner):
        assert fault(store.delete_answer, folder.id, teacher, answer) == "no_answer"
    store.delete_answer(folder.id, teacher, one.id)
    assert lessons(store, folder.id, teacher) == {("Ada", "b")}
    assert fault(store.delete_answer, folder.id, teacher, one.id) == "no_answer"


def test_a_teacher_deletes_a_run_of_her_folder_and_no_other(store: Store, trace: Trace) -> None:
    folder, teacher = store.new_folder("7b")
    other, _ = store.new_folder("7c")
    hers = store.save(trace, SECRET, folder=folder.id)
    elsewhere, alone = store.save(trace, SECRET, folder=other.id), store.save(trace, SECRET)
    assert fault(store.delete_from, folder.id, SECRET, hers.id) == "owner", "the pupil's is another secret"
    for run in (elsewhere.id, alone.id, "a" * 22, "../x", None):
        assert fault(store.delete_from, folder.id, teacher, run) == "unknown"
    store.delete_from(folder.id, teacher, hers.id)
    assert fault(store.open, hers.id) == fault(store.delete_from, folder.id, teacher, hers.id) == "deleted"
    assert len(files(store)) == 2
    for run in (elsewhere, alone):
        assert store.open(run.id).trace == trace


def test_a_folder_goes_with_all_that_lies_in_it(store: Store, trace: Trace, clock: Clock) -> None:
    folder, teacher = store.new_folder("7b")
    other, her = store.new_folder("7c")
    old = store.save(trace, SECRET, folder=folder.id)
    clock.now += 1
    runs = [old, store.save(trace, OTHER, folder=folder.id)]
    kept = store.save(trace, SECRET, folder=other.id)
    for group in (folder, other):
        store.hand_in(group.id, SECRET, "[]", lesson="a")
    for secret in (SECRET, her, "", None):
        assert fault(store.delete_folder, folder.id, secret) == "owner"
    assert store.delete_folder(folder.id, teacher) == (2, 1)
    after = Store(store.folder, clock=clock)
    assert [one.id for one in after.class_folders()] == [other.id]
    assert {fault(after.open, run.id) for run in runs} == {"deleted"}
    assert len(files(after)) == 1
    for act, asked in ((after.delete_folder, [teacher]), (after.runs_of, [teacher]), (after.withdraw, [SECRET, "a"])):
        assert fault(act, folder.id, *asked) == "no_folder"
    assert fault(after.hand_in, folder.id, SECRET, "[]", lesson="a") == "no_folder"
    assert after.open(kept.id).trace == trace
    assert lessons(after, other.id, her) == {("", "a")}


def test_what_comes_while_its_folder_is_deleted_is_refused(
    store: Store, trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run was kept of which no teacher knew, in a folder that was gone."""
    folder, teacher = store.new_folder("7b")
    write = Files.write

    def meanwhile(self: Files, run: str, data: bytes) -> None:
        write(self, run, data)
        Store(store.folder, clock=store._clock).delete_folder(folder.id, teacher)

    monkeypatch.setattr(Files, "write", meanwhile)
    assert fault(store.save, trace, SECRET, folder=folder.id) == "no_folder"
    assert store.held() == (0, 0)
    assert files(store) == []


def test_the_host_needs_no_secret(store: Store, trace: Trace) -> None:
    folder, _ = store.new_folder("7b")
    store.save(trace, SECRET, folder=folder.id)
    for lesson in ("a", "b"):
        store.hand_in(folder.id, SECRET, "[]", lesson=lesson)
    store.remove_answer(folder.id, store.handed_in(folder.id)[0].id)
    assert len(store.handed_in(folder.id)) == len(store.saved_in(folder.id)) == 1
    assert store.remove_folder(folder.id) == (1, 1)
    for act in (store.remove_folder, store.handed_in, store.saved_in):
        assert fault(act, folder.id) == "no_folder"
    assert fault(store.remove_answer, folder.id, "x") == "no_folder"


def test_what_was_deleted_leaves_room(tmp_path: Path, clock: Clock) -> None:
    store = Store(tmp_path, Quotas(folders=1, folder_answers=1), clock)
    folder, teacher = store.new_folder("7b")
    store.hand_in(folder.id, SECRET, "[]", lesson="a")
    assert fault(store.hand_in, folder.id, OTHER, "[]", lesson="a") == "folder_answers"
    store.withdraw(folder.id, SECRET, "a")
    store.hand_in(folder.id, OTHER, "[]", lesson="a")
    assert fault(store.new_folder, "7c") == "folders"
    store.delete_folder(folder.id, teacher)
    again, _ = store.new_folder("7c")
    store.hand_in(again.id, new_secret(), "[]", lesson="a")
