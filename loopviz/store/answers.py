"""Answers that pupils handed in to a class folder: one row a pupil and lesson, replaced when they hand it in again.

They lie in the index: they are small, are listed together, and go with their folder, or when they are taken back.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import NamedTuple

TABLE = """
CREATE TABLE IF NOT EXISTS answers (
    folder TEXT NOT NULL, owner TEXT NOT NULL, student TEXT NOT NULL, lesson TEXT NOT NULL, place TEXT NOT NULL, title TEXT NOT NULL,
    right INTEGER NOT NULL, answered INTEGER NOT NULL, bytes INTEGER NOT NULL, data TEXT NOT NULL, at REAL NOT NULL,
    PRIMARY KEY (folder, owner, student, lesson)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS answers_owner ON answers (owner);
CREATE INDEX IF NOT EXISTS answers_place ON answers (place);
"""


class Key(NamedTuple):
    """Whose answers to what: of these there is one."""

    folder: str
    owner: str
    student: str
    lesson: str


@dataclass(frozen=True)
class HandedIn:
    """A pupil's answers to a lesson.

    Attributes:
        folder: the class folder.
        owner: hash of the secret of the browser they came from; place: of its address, with the store's salt.
        student: what they call themselves; lesson, title: its id, and what it is called.
        right, answered: of the lesson's steps.
        bytes: of `data`.
        data: the answers, JSON, as who handed them in made it; nothing in it is trusted.
        at: when.
    """

    folder: str
    owner: str
    student: str
    lesson: str
    place: str
    title: str
    right: int
    answered: int
    bytes: int
    data: str
    at: float

    @property
    def key(self) -> Key:
        """Whose they are, and to what."""
        return Key(self.folder, self.owner, self.student, self.lesson)

    @property
    def id(self) -> str:
        """What their teacher calls them by: the same for answers handed in again; nothing of the secret can be told from it."""
        return _id(self.key)


COLUMNS = ", ".join(HandedIn.__dataclass_fields__)
_PLACES = ", ".join("?" * len(HandedIn.__dataclass_fields__))
_SAME = "folder=? AND owner=? AND student=? AND lesson=?"


def _id(key: Key) -> str:
    return hashlib.sha256("\n".join(key).encode()).hexdigest()[:32]  # each is one line


def put(db: sqlite3.Connection, one: HandedIn, *, over: bool = True) -> None:
    """Add them; `over` those that the same pupil handed in of the lesson before, else where there are none."""
    how = "REPLACE" if over else "IGNORE"
    db.execute(f"INSERT OR {how} INTO answers ({COLUMNS}) VALUES ({_PLACES})", astuple(one))


def put_back(db: sqlite3.Connection, several: Iterable[HandedIn]) -> None:
    """Those that were removed are there again, but where others have come in their place."""
    for one in several:
        put(db, one, over=False)


def at(db: sqlite3.Connection, key: Key) -> HandedIn | None:
    """What a pupil has handed in of a lesson."""
    row = db.execute(f"SELECT {COLUMNS} FROM answers WHERE {_SAME}", key).fetchone()
    return HandedIn(*row) if row else None


def of_id(db: sqlite3.Connection, folder: str, answer: object) -> HandedIn | None:
    """Those that a folder's teacher calls so."""
    keys = db.execute("SELECT folder, owner, student, lesson FROM answers WHERE folder=?", (folder,))
    found = next((key for key in map(Key._make, keys) if _id(key) == answer), None)
    return None if found is None else at(db, found)


def in_folder(db: sqlite3.Connection, folder: str) -> list[HandedIn]:
    """All of a class folder, whole."""
    return [HandedIn(*row) for row in db.execute(f"SELECT {COLUMNS} FROM answers WHERE folder=?", (folder,))]


def remove(db: sqlite3.Connection, key: Key) -> None:
    """Remove a pupil's answers to a lesson."""
    db.execute(f"DELETE FROM answers WHERE {_SAME}", key)


def remove_all(db: sqlite3.Connection, folder: str) -> None:
    """Remove all answers of a class folder."""
    db.execute("DELETE FROM answers WHERE folder=?", (folder,))


def take_back(db: sqlite3.Connection, one: HandedIn, before: HandedIn | None) -> None:
    """As it was before `one` was put there."""
    remove(db, one.key)
    if before is not None:
        put(db, before)


def counted(db: sqlite3.Connection, where: str, *values: object) -> tuple[int, int]:
    """How many there are so, and their bytes."""
    rows, size = db.execute(f"SELECT count(*), total(bytes) FROM answers WHERE {where}", values).fetchone()
    return int(rows), int(size)


def before(db: sqlite3.Connection, one: HandedIn) -> tuple[int, int]:
    """Those that `one` takes the place of: 1 or 0, and their bytes."""
    return counted(db, _SAME, *one.key)


def without_folder(db: sqlite3.Connection) -> int:
    """Remove those whose folder is gone; how many they were."""
    return db.execute("DELETE FROM answers WHERE folder NOT IN (SELECT id FROM folders)").rowcount
