"""Answers that pupils handed in to a class folder: one row a pupil and lesson, replaced when they hand it in again.

They lie in the index: they are small, are listed together, and go with their folder.
"""

from __future__ import annotations

import sqlite3
from dataclasses import astuple, dataclass

TABLE = """
CREATE TABLE IF NOT EXISTS answers (
    folder TEXT NOT NULL, owner TEXT NOT NULL, student TEXT NOT NULL, lesson TEXT NOT NULL, place TEXT NOT NULL, title TEXT NOT NULL,
    right INTEGER NOT NULL, answered INTEGER NOT NULL, bytes INTEGER NOT NULL, data TEXT NOT NULL, at REAL NOT NULL,
    PRIMARY KEY (folder, owner, student, lesson)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS answers_owner ON answers (owner);
CREATE INDEX IF NOT EXISTS answers_place ON answers (place);
"""


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


COLUMNS = ", ".join(HandedIn.__dataclass_fields__)
_PLACES = ", ".join("?" * len(HandedIn.__dataclass_fields__))
_SAME = "folder=? AND owner=? AND student=? AND lesson=?"


def put(db: sqlite3.Connection, one: HandedIn) -> None:
    """Add them, in place of those that the same pupil handed in of the lesson before."""
    db.execute(f"INSERT OR REPLACE INTO answers ({COLUMNS}) VALUES ({_PLACES})", astuple(one))


def same(db: sqlite3.Connection, one: HandedIn) -> HandedIn | None:
    """What the same pupil handed in of the lesson before."""
    row = db.execute(f"SELECT {COLUMNS} FROM answers WHERE {_SAME}", _key(one)).fetchone()
    return HandedIn(*row) if row else None


def take_back(db: sqlite3.Connection, one: HandedIn, before: HandedIn | None) -> None:
    """As it was before `one` was put there."""
    db.execute(f"DELETE FROM answers WHERE {_SAME}", _key(one))
    if before is not None:
        put(db, before)


def _key(one: HandedIn) -> tuple[str, ...]:
    return one.folder, one.owner, one.student, one.lesson


def counted(db: sqlite3.Connection, where: str, *values: object) -> tuple[int, int]:
    """How many there are so, and their bytes."""
    rows, size = db.execute(f"SELECT count(*), total(bytes) FROM answers WHERE {where}", values).fetchone()
    return int(rows), int(size)


def before(db: sqlite3.Connection, one: HandedIn) -> tuple[int, int]:
    """Those that `one` takes the place of: 1 or 0, and their bytes."""
    return counted(db, _SAME, *_key(one))


def without_folder(db: sqlite3.Connection) -> None:
    """Remove those whose folder is gone."""
    db.execute("DELETE FROM answers WHERE folder NOT IN (SELECT id FROM folders)")
