"""The index of a store: which runs there are, whose, until when. SQLite, with a log that is written ahead (WAL).

Every change is one transaction that is on the disk before it is told (`synchronous=FULL`): killed at any moment, SQLite finds the
last whole state as it opens the file again. Several processes may share a folder.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from loopviz.store import answers
from loopviz.store.refusals import StoreError

FILE = "index.sqlite"
VERSION = 2  # since 2 it has answers
PATIENCE = 15.0  # seconds that one process waits for another's transaction
MOST_GONE = 10_000  # ids of which it is remembered that they are gone, and why
_TABLES = """
CREATE TABLE IF NOT EXISTS runs (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, place TEXT NOT NULL, folder TEXT, student TEXT NOT NULL, title TEXT NOT NULL,
    model TEXT NOT NULL, of_ttt INTEGER NOT NULL, tokens INTEGER NOT NULL, bytes INTEGER NOT NULL, sha256 TEXT NOT NULL,
    view TEXT NOT NULL, created REAL NOT NULL, expires REAL NOT NULL, featured REAL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS runs_owner ON runs (owner);
CREATE INDEX IF NOT EXISTS runs_place ON runs (place);
CREATE INDEX IF NOT EXISTS runs_folder ON runs (folder);
CREATE INDEX IF NOT EXISTS runs_expires ON runs (expires);
CREATE TABLE IF NOT EXISTS gone (id TEXT PRIMARY KEY, why TEXT NOT NULL, at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS folders (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, teacher TEXT NOT NULL, created REAL NOT NULL, expires REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Entry:
    """A run that is kept, as the index has it.

    Attributes:
        owner: hash of its owner's secret; place: of the address it came from, with this store's salt.
        folder: the class folder it lies in, if any; student: the name that its owner gave there.
        title: the prompt's beginning.
        view: how it was looked at, as the page wrote it (JSON); nothing in it is trusted.
        featured: since when it stands in the gallery; None: it does not.
    """

    id: str
    owner: str
    place: str
    folder: str | None
    student: str
    title: str
    model: str
    of_ttt: bool
    tokens: int
    bytes: int
    sha256: str
    view: str
    created: float
    expires: float
    featured: float | None = None


@dataclass(frozen=True)
class Folder:
    """A class folder: `teacher` is the hash of the secret by which its runs are listed."""

    id: str
    name: str
    teacher: str
    created: float
    expires: float


FEATURE = "UPDATE runs SET featured=?, expires=? WHERE id=?"
_COLUMNS = ", ".join(Entry.__dataclass_fields__)
_PLACES = ", ".join("?" * len(Entry.__dataclass_fields__))


def _entry(row: tuple[Any, ...]) -> Entry:
    found = dict(zip(Entry.__dataclass_fields__, row, strict=True))
    return Entry(**{**found, "of_ttt": bool(found["of_ttt"])})


class Index:
    """The index in a folder; its methods may be called from any thread.

    Args:
        folder: of the store; made if there is none and it may be written.

    Raises:
        StoreError: neither writing nor reading is possible there.
    """

    def __init__(self, folder: Path) -> None:
        self._lock = threading.RLock()
        self.read_only = False
        try:
            self._db = self._open(folder)
        except (sqlite3.Error, OSError) as error:
            with contextlib.suppress(sqlite3.Error, OSError):
                self._db = self._open_to_read(folder)
                self.read_only = True
                return
            raise StoreError("disk", reason=_reason(error)) from error

    @staticmethod
    def _open(folder: Path) -> sqlite3.Connection:
        folder.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(folder / FILE, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            db.execute("PRAGMA secure_delete=ON")  # what was deleted is not left in parts of the file that are free
            known = int(db.execute("PRAGMA user_version").fetchone()[0])
            if known > VERSION:
                raise StoreError("disk", reason=f"{FILE} is of version {known}; this LoopViz reads version {VERSION}")
            if known < VERSION:
                db.executescript(f"BEGIN IMMEDIATE; {_TABLES} {answers.TABLE} PRAGMA user_version={VERSION}; COMMIT;")
            db.execute("INSERT OR IGNORE INTO facts VALUES ('salt', ?)", (secrets.token_hex(16),))
        except BaseException:
            db.close()
            raise
        with contextlib.suppress(OSError):  # whose runs these are is nobody else's business on this machine
            os.chmod(folder / FILE, 0o600)
        return db

    @staticmethod
    def _open_to_read(folder: Path) -> sqlite3.Connection:
        """What is there can be read where nothing can be written: a volume mounted so, a disk that has gone bad."""
        path = (folder / FILE).resolve().as_uri()
        left = (folder / f"{FILE}-wal").exists()
        db = sqlite3.connect(
            f"{path}?mode=ro{'' if left else '&immutable=1'}", uri=True, timeout=PATIENCE, check_same_thread=False
        )
        try:
            db.execute("SELECT count(*) FROM runs").fetchone()
        except BaseException:
            db.close()
            raise
        return db

    def close(self) -> None:
        """Nothing more is asked of it."""
        with self._lock:
            self._db.close()

    @contextlib.contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of what the block does is on the disk when it has ended well, or nothing of it.

        Raises:
            StoreError: the disk would not.
        """
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                    self._db.execute("COMMIT")
                except BaseException:
                    with contextlib.suppress(sqlite3.Error):  # a disk that is full may have ended it already
                        self._db.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise StoreError("disk", reason=_reason(error)) from error

    def copy_to(self, path: Path) -> set[str]:
        """Write the whole index, as it is now, into a file that is not there yet; the ids of its runs.

        Raises:
            StoreError: the disk would not.
        """
        with self._lock:
            try:
                self._db.execute("VACUUM INTO ?", (str(path),))
            except sqlite3.Error as error:
                raise StoreError("disk", reason=_reason(error)) from error
            return self.ids()

    def _ask(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._db.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                raise StoreError("unread", reason=_reason(error)) from error

    # --- runs -----------------------------------------------------------------------------------------------------

    @property
    def salt(self) -> str:
        """Of this store, for what is kept of addresses."""
        return str(self._ask("SELECT value FROM facts WHERE name='salt'")[0][0])

    def get(self, run: str) -> Entry | None:
        """The run of an id, also one whose time is over."""
        rows = self._ask(f"SELECT {_COLUMNS} FROM runs WHERE id=?", run)
        return _entry(rows[0]) if rows else None

    def why_gone(self, run: str) -> str | None:
        """Why there is no run of this id any more: "expired", "deleted"; None of one that never was, as far as is remembered."""
        rows = self._ask("SELECT why FROM gone WHERE id=?", run)
        return str(rows[0][0]) if rows else None

    def ids(self) -> set[str]:
        """Of all runs there are."""
        return {str(row[0]) for row in self._ask("SELECT id FROM runs")}

    def featured(self, now: float) -> list[Entry]:
        """The gallery, in the order in which it was chosen."""
        return self._several("featured IS NOT NULL AND expires > ? ORDER BY featured", now)

    def in_folder(self, folder: str, now: float) -> list[Entry]:
        """The runs of a class folder, latest first."""
        return self._several("folder=? AND expires > ? ORDER BY created DESC", folder, now)

    def over(self, now: float) -> list[Entry]:
        """The runs whose time is over."""
        return self._several("expires <= ? ORDER BY expires", now)

    def latest(self, most: int) -> list[Entry]:
        """The runs saved last."""
        return self._several("1 ORDER BY created DESC LIMIT ?", most)

    def _several(self, where: str, *values: Any) -> list[Entry]:
        return [_entry(row) for row in self._ask(f"SELECT {_COLUMNS} FROM runs WHERE {where}", *values)]

    def held(self) -> tuple[int, int]:
        """How many runs there are, and their bytes."""
        runs, size = self._ask("SELECT count(*), total(bytes) FROM runs")[0]
        return int(runs), int(size)

    def answers_in(self, folder: str, whole: bool = True) -> list[answers.HandedIn]:
        """What was handed in to a class folder, latest first; not `whole`: `data` is left empty."""
        if self.read_only and not self._ask("SELECT 1 FROM sqlite_master WHERE name='answers'"):
            return []  # of an earlier version, and nothing can be written there
        columns = answers.COLUMNS if whole else answers.COLUMNS.replace("data", "'' AS data")
        rows = self._ask(f"SELECT {columns} FROM answers WHERE folder=? ORDER BY at DESC", folder)
        return [answers.HandedIn(*row) for row in rows]

    # --- class folders --------------------------------------------------------------------------------------------

    def folder(self, folder: str, now: float) -> Folder | None:
        """The class folder of an id, while it is kept."""
        rows = self._ask(
            "SELECT id, name, teacher, created, expires FROM folders WHERE id=? AND expires > ?", folder, now
        )
        return Folder(*rows[0]) if rows else None

    def folders(self, now: float) -> list[Folder]:
        """All of them, latest first."""
        sql = "SELECT id, name, teacher, created, expires FROM folders WHERE expires > ? ORDER BY created DESC"
        return [Folder(*row) for row in self._ask(sql, now)]


# --- parts of a transaction ------------------------------------------------------------------------------------------


def counted(db: sqlite3.Connection, where: str, *values: Any) -> tuple[int, int]:
    """How many runs there are so, and their bytes."""
    runs, size = db.execute(f"SELECT count(*), total(bytes) FROM runs WHERE {where}", values).fetchone()
    return int(runs), int(size)


def put(db: sqlite3.Connection, entry: Entry) -> None:
    """Add a run."""
    values = [getattr(entry, name) for name in Entry.__dataclass_fields__]
    db.execute(f"INSERT INTO runs ({_COLUMNS}) VALUES ({_PLACES})", values)


def put_back(db: sqlite3.Connection, entry: Entry) -> None:
    """A run that was taken away is there again."""
    db.execute("DELETE FROM gone WHERE id=?", (entry.id,))
    put(db, entry)


def in_folder(db: sqlite3.Connection, folder: str) -> list[Entry]:
    """All runs of a class folder, those too whose time is over."""
    return [_entry(row) for row in db.execute(f"SELECT {_COLUMNS} FROM runs WHERE folder=?", (folder,))]


def take_away(db: sqlite3.Connection, runs: Sequence[str], why: str, now: float) -> None:
    """Keep of runs no more than that they are gone, and why."""
    db.executemany("DELETE FROM runs WHERE id=?", [(run,) for run in runs])
    db.executemany("INSERT OR REPLACE INTO gone VALUES (?, ?, ?)", [(run, why, now) for run in runs])
    db.execute("DELETE FROM gone WHERE id IN (SELECT id FROM gone ORDER BY at DESC LIMIT -1 OFFSET ?)", (MOST_GONE,))


def put_folder(db: sqlite3.Connection, folder: Folder) -> None:
    """Add a class folder."""
    db.execute("INSERT INTO folders VALUES (?, ?, ?, ?, ?)", astuple(folder))


def has_folder(db: sqlite3.Connection, folder: str, now: float) -> bool:
    """Whether there is this class folder, and its time is not over."""
    return db.execute("SELECT 1 FROM folders WHERE id=? AND expires > ?", (folder, now)).fetchone() is not None


def take_folder_away(db: sqlite3.Connection, folder: str) -> None:
    """Remove a class folder; of what lies in it nothing is touched."""
    db.execute("DELETE FROM folders WHERE id=?", (folder,))


def _reason(error: BaseException) -> str:
    said = getattr(error, "strerror", None) or " ".join(str(error).split())
    return said or type(error).__name__
