"""Runs that are kept: saved, opened, deleted; quotas, time, gallery, class folders; and what a disk or a stranger does to them."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from pathlib import Path

import pytest

from loopviz import outputs
from loopviz.store import Quotas, Store, StoreError, new_secret
from loopviz.store.files import ENDING, FOLDER
from loopviz.store.index import FILE
from loopviz.trace import Trace
from loopviz.trace.file import dumps
from tests.trace.synthetic import random_trace

SECRET = new_secret()
OTHER = new_secret()


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Store:
    return Store(tmp_path / "store", clock=clock)


@pytest.fixture(scope="module")
def trace() -> Trace:
    return random_trace(21, 5)


def files(store: Store) -> list[Path]:
    return sorted((store.folder / FOLDER).rglob("*" + ENDING))


def fault(act: object, *asked: object, **named: object) -> str:
    with pytest.raises(StoreError) as caught:
        act(*asked, **named)  # type: ignore[operator]
    assert str(caught.value), "it says what is wrong"
    return caught.value.fault


def test_a_run_is_opened_as_it_was_saved_by_whoever_knows_its_id(store: Store, trace: Trace) -> None:
    saved = store.save(trace, SECRET, view='{"panels": []}', address="10.0.0.7")
    again = Store(store.folder, clock=store._clock)
    assert again.open(saved.id) == (saved, trace)
    assert saved.tokens == len(trace)
    assert saved.bytes == files(store)[0].stat().st_size
    whole = (store.folder / FILE).read_bytes() + (store.folder / f"{FILE}-wal").read_bytes()
    assert SECRET.encode() not in whole
    assert b"10.0.0.7" not in whole


def test_no_two_ids_have_anything_in_common(store: Store, trace: Trace) -> None:
    ids = {store.save(trace, SECRET).id for _ in range(3)}
    assert len(ids) == 3
    assert {len(run) for run in ids} == {22}


@pytest.mark.parametrize(
    "name", ["", "../../etc/passwd", "a" * 22 + "/", ".." + "a" * 20, "a" * 22, None, 7, "\x00" * 22, "ä" * 22]
)
def test_what_is_no_id_of_a_run_opens_and_deletes_nothing(store: Store, trace: Trace, name: object) -> None:
    store.save(trace, SECRET)
    assert fault(store.open, name) == "unknown"
    assert fault(store.delete, name, SECRET) == "unknown"
    assert len(files(store)) == 1


def test_files_know_no_name_but_ids(store: Store) -> None:
    with pytest.raises(ValueError, match="no id"):
        store._files.write("../x", b"")


def test_its_owner_deletes_a_run_and_nobody_else(store: Store, trace: Trace) -> None:
    saved = store.save(trace, SECRET)
    for wrong in (OTHER, "", None, SECRET[:-1], SECRET + "x", ["x"]):
        assert fault(store.delete, saved.id, wrong) == "owner"
    assert store.open(saved.id).trace == trace
    store.delete(saved.id, SECRET)
    assert files(store) == []
    assert fault(store.open, saved.id) == "deleted"
    assert fault(store.delete, saved.id, SECRET) == "deleted"
    assert store.held() == (0, 0)


def test_a_run_goes_when_its_time_is_over(tmp_path: Path, clock: Clock, trace: Trace) -> None:
    store = Store(tmp_path, Quotas(seconds=100.0), clock)
    early = store.save(trace, SECRET)
    clock.now += 60
    late = store.save(trace, SECRET)
    clock.now += 60
    assert fault(store.open, early.id) == "expired", "before anybody swept"
    assert store.sweep() == 1
    assert fault(store.open, early.id) == "expired"
    assert [file.stem for file in files(store)] == [late.id]
    assert store.open(late.id).trace == trace


# --- quotas ----------------------------------------------------------------------------------------------------------


def test_each_quota_is_told_by_name_and_holds(tmp_path: Path, trace: Trace) -> None:
    size = len(dumps(trace))
    for fault_, quotas, secrets_ in (
        ("run_bytes", Quotas(run_bytes=size - 1), [SECRET]),
        ("owner_runs", Quotas(owner_runs=2), [SECRET] * 3),
        ("owner_bytes", Quotas(owner_bytes=2 * size), [SECRET] * 3),
        ("place_bytes", Quotas(place_bytes=2 * size), [new_secret() for _ in range(3)]),
        ("all_bytes", Quotas(all_bytes=2 * size), [new_secret() for _ in range(3)]),
    ):
        store = Store(tmp_path / fault_, quotas)
        for n, secret in enumerate(secrets_[:-1]):
            store.save(trace, secret, address=f"10.0.0.{n if fault_ == 'all_bytes' else 1}")
        assert fault(store.save, trace, secrets_[-1], address="10.0.0.1") == fault_
        assert len(files(store)) == store.held()[0] == len(secrets_) - 1
        if len(secrets_) > 1:  # what is deleted makes room
            store.delete(files(store)[0].stem, secrets_[0] if fault_.startswith("owner") else _owner(store, secrets_))
            store.save(trace, secrets_[-1], address="10.0.0.1")


def _owner(store: Store, secrets_: list[str]) -> str:
    from loopviz.store.marks import hashed

    entry = store.entry(files(store)[0].stem)
    return next(secret for secret in secrets_ if hashed(secret) == entry.owner)


def test_writers_at_once_lose_nothing_and_keep_within_the_quota(tmp_path: Path, trace: Trace) -> None:
    stores = [Store(tmp_path, Quotas(owner_runs=10)) for _ in range(2)]  # as two processes would
    saved: list[str] = []
    refused: list[str] = []

    def write(store: Store) -> None:
        for _ in range(4):
            try:
                saved.append(store.save(trace, SECRET).id)
            except StoreError as error:
                refused.append(error.fault)

    threads = [threading.Thread(target=write, args=(store,)) for store in stores for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(saved), refused) == (10, ["owner_runs"] * 6)
    assert {file.stem for file in files(stores[0])} == set(saved)
    assert all(stores[1].open(run).trace == trace for run in saved)


# --- disks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT])
def test_a_disk_that_takes_no_file_is_told_and_nothing_is_lost(
    store: Store, trace: Trace, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    saved = store.save(trace, SECRET)

    def no_room(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(outputs.os, "fsync", no_room)  # a disk may say so only when it is asked to settle
    with pytest.raises(StoreError, match=os.strerror(number)):
        store.save(trace, SECRET)
    monkeypatch.undo()
    assert [file.stem for file in files(store)] == [saved.id]
    assert list(store.folder.rglob("*.part")) == []
    assert store.open(saved.id).trace == trace
    assert store.open(store.save(trace, SECRET).id).trace == trace


def test_a_disk_that_takes_no_index_is_told_and_leaves_no_file(store: Store, trace: Trace) -> None:
    saved = store.save(trace, SECRET)
    (pages,) = store._index._db.execute("PRAGMA page_count").fetchone()
    store._index._db.execute(f"PRAGMA max_page_count={pages}")  # SQLite then meets its own "disk is full"
    found = ""
    for _ in range(60):  # until the pages that it has are full
        try:
            store.save(trace, SECRET, view="x" * 4_000)
        except StoreError as error:
            found = str(error)
            break
    assert "full" in found
    assert len(files(store)) == store.held()[0]
    store._index._db.execute("PRAGMA max_page_count=100000")
    assert store.open(saved.id).trace == trace
    assert store.open(store.save(trace, SECRET).id).trace == trace


def test_a_folder_that_may_not_be_written_is_still_read(
    tmp_path: Path, trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Store(tmp_path)
    saved = first.save(trace, SECRET)
    first.close()
    monkeypatch.setattr(
        "loopviz.store.index.Index._open", staticmethod(_read_only)
    )  # who runs as root may write everywhere
    store = Store(tmp_path)
    assert store.read_only
    assert store.open(saved.id).trace == trace
    assert fault(store.save, trace, SECRET) == "disk"
    assert fault(store.delete, saved.id, SECRET) == "disk"
    assert store.open(saved.id).trace == trace
    assert fault(Store, tmp_path / "nothing") == "disk", "where there is nothing to read either it is told"


def _read_only(folder: Path) -> sqlite3.Connection:
    raise sqlite3.OperationalError("attempt to write a readonly database")


def test_a_file_that_is_not_as_it_was_saved_is_never_shown(store: Store, trace: Trace) -> None:
    saved = store.save(trace, SECRET)
    path = files(store)[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert fault(store.open, saved.id) == "lost"
    path.unlink()
    assert fault(store.open, saved.id) == "lost"
    store.delete(saved.id, SECRET)


def test_a_file_that_no_index_knows_goes_once_it_is_old(store: Store, trace: Trace) -> None:
    saved = store.save(trace, SECRET)
    left = files(store)[0].with_name("b" * 22 + ENDING)
    left.write_bytes(b"half")
    store.sweep()
    assert left.exists(), "it may be of a save that is under way"
    os.utime(left, (1, 1))
    store.sweep()
    assert not left.exists()
    assert store.open(saved.id).trace == trace


# --- gallery and class folders ------------------------------------------------------------------------------------------


def test_what_the_host_features_stays(tmp_path: Path, clock: Clock, trace: Trace) -> None:
    store = Store(tmp_path, Quotas(seconds=100.0), clock)
    one, two = (store.save(trace, SECRET) for _ in range(2))
    store.feature(two.id)
    clock.now += 1
    store.feature(one.id)
    clock.now += 1_000
    assert [entry.id for entry in store.gallery()] == [two.id, one.id]
    store.feature(two.id, wanted=False)
    assert [entry.id for entry in store.gallery()] == [one.id]
    clock.now += 101
    assert fault(store.open, two.id) == "expired"
    assert fault(store.feature, two.id) == "expired"


def test_a_class_folder_gathers_runs_for_its_teacher_alone(tmp_path: Path, clock: Clock, trace: Trace) -> None:
    store = Store(tmp_path, Quotas(folders=1), clock)
    folder, teacher = store.new_folder("  7b\n Physics ")
    assert folder.name == "7b Physics"
    clock.now += 1
    mine = store.save(trace, SECRET, folder=folder.id, student="Ada")
    clock.now += 1
    other = store.save(trace, OTHER, folder=folder.id, student="x" * 500)
    store.save(trace, OTHER)
    assert [(entry.id, len(entry.student)) for entry in store.runs_of(folder.id, teacher)] == [
        (other.id, 80),
        (mine.id, 3),
    ]
    assert fault(store.runs_of, folder.id, SECRET) == "owner"
    assert fault(store.runs_of, "a" * 22, teacher) == "no_folder"
    assert fault(store.save, trace, SECRET, folder="a" * 22) == "no_folder"
    assert fault(store.new_folder, "another") == "folders"
    clock.now = folder.expires
    assert store.class_folder(folder.id) is None


def test_an_index_of_a_later_version_is_left_alone(tmp_path: Path, trace: Trace) -> None:
    store = Store(tmp_path)
    store.save(trace, SECRET)
    store._index._db.execute("PRAGMA user_version=99")
    store.close()
    with pytest.raises(StoreError, match="version 99"):
        Store(tmp_path)
