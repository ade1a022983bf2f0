"""The store: runs saved, opened again, deleted; a gallery of the host's choice; class folders."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from loopviz.store import answers
from loopviz.store import index as tables
from loopviz.store.answers import HandedIn
from loopviz.store.files import Files
from loopviz.store.index import Entry, Folder, Index
from loopviz.store.marks import fits, hashed, is_id, new_id, new_secret, placed
from loopviz.store.mirror import Mirror
from loopviz.store.quotas import MIB, Quotas
from loopviz.store.refusals import StoreError
from loopviz.trace import Trace

log = logging.getLogger(__name__)

MOST_TITLE = 80  # characters of a prompt that the index has
MOST_NAME = 80  # of a class, a student
MOST_VIEW = 4_000  # of how a run was looked at
SWEEP_EVERY = 600.0  # seconds between two looks for what is over


class Stored(NamedTuple):
    """A run that was opened again."""

    entry: Entry
    trace: Trace


def _line(said: Any, most: int) -> str:
    """A text of a stranger's as one line of the index."""
    words = " ".join(said.split()) if isinstance(said, str) else ""
    return words.encode("utf-8", "replace").decode()[:most]


class Store:
    """The runs of one folder. Its methods may be called from any thread, and several processes may share a folder.

    Args:
        folder: where all of it lies; may be a mounted volume. Made when it is first needed.
        quotas: how much is kept, and how long.
        clock: seconds since 1970.
        mirror: where a copy is kept that the folder is made of; nothing is acknowledged before it is there.

    Raises:
        StoreError: neither writing nor reading is possible; the mirror cannot be had, or everybody can read it.
    """

    def __init__(
        self,
        folder: Path,
        quotas: Quotas | None = None,
        clock: Callable[[], float] = time.time,
        mirror: Mirror | None = None,
    ) -> None:
        self.folder = folder
        self._mirror = mirror
        if mirror is not None:
            mirror.fetch(folder)
        self.quotas = quotas or Quotas()
        self._clock = clock
        self._index = Index(folder)
        self._files = Files(folder)
        if mirror is not None:
            mirror.watch(self._index)
        self._swept = float("-inf")
        self.sweep()

    @property
    def read_only(self) -> bool:
        """Whether nothing can be saved here: what is kept can be opened all the same."""
        return self._index.read_only

    def close(self) -> None:
        """Nothing more is asked of it."""
        self._index.close()

    # --- runs -----------------------------------------------------------------------------------------------------

    def save(
        self,
        trace: Trace,
        secret: str,
        *,
        address: str = "",
        view: str = "",
        folder: str | None = None,
        student: str = "",
    ) -> Entry:
        """Keep a run. When this returns it is on the disk, and survives whatever kills the process.

        Args:
            trace: the run, finished.
            secret: its owner's, by which it can be deleted; not kept itself.
            address: that its owner comes from; not kept itself.
            view: how it is looked at, as the page reads it again.
            folder: the class folder it belongs to.
            student: who saved it there, as they call themselves.

        Raises:
            StoreError: a quota is full, there is no such folder, or the disk would not; nothing of it is left.
            ValueError: the trace is not well-formed plain data.
        """
        from loopviz.trace.file import dumps

        self._sweep_sometimes()
        if folder is not None and self.class_folder(folder) is None:
            raise StoreError("no_folder")
        data, now = dumps(trace), self._clock()
        if len(data) > self.quotas.run_bytes:
            raise StoreError("run_bytes", size=len(data), limit=self.quotas.run_bytes)
        entry = Entry(
            new_id(),
            hashed(secret),
            placed(address, self._index.salt),
            folder,
            _line(student, MOST_NAME),
            _line(trace.meta["prompt"][: 4 * MOST_TITLE], MOST_TITLE),
            _line(trace.meta["model"], MOST_NAME),
            "ttt" in trace.meta,
            len(trace),
            len(data),
            hashlib.sha256(data).hexdigest(),
            view if len(view) <= MOST_VIEW else "",
            now,
            now + self.quotas.seconds,
        )
        with self._index.change() as db:  # before anything is written: a full store costs no disk
            self._check_room(db, entry)
        # the file first: what the index names is always there
        self._files.write(entry.id, data)
        try:
            with self._index.change() as db:
                self._check_room(db, entry)
                tables.put(db, entry)
            self._copied(lambda db: db.execute("DELETE FROM runs WHERE id=?", (entry.id,)))
        except BaseException:
            self._files.remove(entry.id)
            raise
        return entry

    def _copied(self, undo: Callable[[sqlite3.Connection], Any]) -> None:
        """What has just been changed is in the mirror too, where there is one; else it is undone here, and StoreError."""
        if self._mirror is None:
            return
        try:
            self._mirror.settle()
        except StoreError:
            with self._index.change() as db:
                undo(db)
            raise

    def _check_room(self, db: sqlite3.Connection, entry: Entry) -> None:
        quotas, now = self.quotas, entry.created
        runs, size = tables.counted(db, "owner=? AND expires > ?", entry.owner, now)
        if runs >= quotas.owner_runs:
            raise StoreError("owner_runs", limit=quotas.owner_runs)
        if size + entry.bytes > quotas.owner_bytes:
            raise StoreError("owner_bytes", limit=quotas.owner_bytes)
        self._check_bytes(db, entry.place, entry.bytes, now)

    def _check_bytes(self, db: sqlite3.Connection, place: str, more: int, now: float) -> None:
        """Raises StoreError where so many bytes more are too many, of an address or of all: runs and answers together."""
        quotas = self.quotas
        near = tables.counted(db, "place=? AND expires > ?", place, now)[1] + answers.counted(db, "place=?", place)[1]
        if near + more > quotas.place_bytes:
            raise StoreError("place_bytes", limit=quotas.place_bytes)
        if tables.counted(db, "1")[1] + answers.counted(db, "1")[1] + more > quotas.all_bytes:
            raise StoreError("all_bytes", limit=quotas.all_bytes)

    def entry(self, run: Any) -> Entry:
        """What the index has of a run that is kept.

        Raises:
            StoreError: there is none of this id ("unknown"), or none any more ("expired", "deleted").
        """
        if not is_id(run):
            raise StoreError("unknown")
        found = self._index.get(run)
        if found is None:
            raise StoreError(self._index.why_gone(run) or "unknown")
        if found.expires <= self._clock():
            raise StoreError("expired")
        return found

    def open(self, run: Any) -> Stored:
        """A run as it was saved, read by the reader that trusts no file.

        Raises:
            StoreError: as of :meth:`entry`; or its file is not as it was saved ("lost"), or cannot be read ("unread").
        """
        from loopviz.trace.file import TraceFileError, loads

        entry, quotas = self.entry(run), self.quotas
        if self._mirror is not None and not self._files.there(entry.id):
            self._mirror.bring(entry.id)
        data = self._files.read(entry.id, quotas.run_bytes, entry.sha256)
        try:
            limits = {"max_tokens": quotas.run_tokens, "max_rows": quotas.run_rows}
            return Stored(entry, loads(data, max_bytes=quotas.run_bytes, **limits))
        except TraceFileError as error:
            raise StoreError("unread", reason=str(error)[:300]) from error

    def delete(self, run: Any, secret: Any) -> None:
        """Delete a run; who has its link is told that it was deleted.

        Raises:
            StoreError: as of :meth:`entry`; the secret is not its owner's ("owner"); the disk would not.
        """
        entry = self.entry(run)
        if not fits(secret, entry.owner):
            raise StoreError("owner")
        self._delete(entry)

    def remove(self, run: Any) -> None:
        """As :meth:`delete`, by the host, who needs no secret."""
        self._delete(self.entry(run))

    def _delete(self, entry: Entry) -> None:
        with self._index.change() as db:
            tables.take_away(db, entry.id, "deleted", self._clock())
        self._copied(lambda db: tables.put_back(db, entry))
        self._files.remove(entry.id)

    def _expire(self, entry: Entry) -> None:
        with self._index.change() as db:
            tables.take_away(db, entry.id, "expired", self._clock())
        self._files.remove(entry.id)

    # --- what is over ---------------------------------------------------------------------------------------------

    def _sweep_sometimes(self) -> None:
        if self._clock() - self._swept > SWEEP_EVERY:
            self.sweep()

    def sweep(self) -> int:
        """Remove the runs and folders whose time is over, and what a kill left; returns how many runs that were."""
        self._swept = now = self._clock()
        if self.read_only:
            return 0
        try:
            over = self._index.over(now)
            for entry in over:
                self._expire(entry)
            with self._index.change() as db:
                db.execute("DELETE FROM folders WHERE expires <= ?", (now,))
                answers.without_folder(db)
            self._files.sweep(self._index.ids())
            if over and self._mirror is not None:
                self._mirror.settle()  # where it cannot be, what is over goes with the next
        except StoreError as error:
            log.warning("stored runs: what is over could not be removed: %s", error)
            return 0
        return len(over)

    # --- the gallery ----------------------------------------------------------------------------------------------

    def feature(self, run: Any, wanted: bool = True) -> Entry:
        """Put a run into the gallery, where it is kept for as long as it stands there; or take it out again.

        Raises:
            StoreError: as of :meth:`entry`; the disk would not.
        """
        now = self._clock()
        entry = self.entry(run)
        since = (entry.featured or now) if wanted else None
        until = _EVER if wanted else now + self.quotas.seconds
        with self._index.change() as db:
            db.execute(tables.FEATURE, (since, until, entry.id))
        self._copied(lambda db: db.execute(tables.FEATURE, (entry.featured, entry.expires, entry.id)))
        return dataclasses.replace(entry, featured=since, expires=until)

    def gallery(self) -> list[Entry]:
        """The runs that the host chose, in the order of choosing."""
        return self._index.featured(self._clock())

    def latest(self, most: int = 100) -> list[Entry]:
        """The runs saved last."""
        return self._index.latest(most)

    def held(self) -> tuple[int, int]:
        """How many runs are kept, and their bytes."""
        return self._index.held()

    # --- class folders --------------------------------------------------------------------------------------------

    def new_folder(self, name: str) -> tuple[Folder, str]:
        """A new class folder, and the secret of its teacher, which is kept nowhere.

        Raises:
            StoreError: there are too many; the disk would not.
        """
        now, secret = self._clock(), new_secret()
        made = Folder(new_id(), _line(name, MOST_NAME), hashed(secret), now, now + self.quotas.folder_seconds)
        with self._index.change() as db:
            (count,) = db.execute("SELECT count(*) FROM folders WHERE expires > ?", (now,)).fetchone()
            if count >= self.quotas.folders:
                raise StoreError("folders", limit=self.quotas.folders)
            db.execute("INSERT INTO folders VALUES (?, ?, ?, ?, ?)", dataclasses.astuple(made))
        self._copied(lambda db: db.execute("DELETE FROM folders WHERE id=?", (made.id,)))
        return made, secret

    def class_folder(self, folder: Any) -> Folder | None:
        """The class folder of an id; None when there is none, or none any more."""
        return self._index.folder(folder, self._clock()) if is_id(folder) else None

    def class_folders(self) -> list[Folder]:
        """All of them, latest first."""
        return self._index.folders(self._clock())

    def _for_teacher(self, folder: Any, secret: Any) -> Folder:
        found = self.class_folder(folder)
        if found is None:
            raise StoreError("no_folder")
        if not fits(secret, found.teacher):
            raise StoreError("owner")
        return found

    def runs_of(self, folder: Any, secret: Any) -> list[Entry]:
        """What was saved into a class folder, latest first, for its teacher.

        Raises:
            StoreError: there is no such folder ("no_folder"); the secret is not its teacher's ("owner").
        """
        return self._index.in_folder(self._for_teacher(folder, secret).id, self._clock())

    # --- answers --------------------------------------------------------------------------------------------------

    def hand_in(
        self,
        folder: Any,
        secret: str,
        data: str,
        *,
        lesson: str,
        title: str = "",
        student: str = "",
        address: str = "",
        right: int = 0,
        answered: int = 0,
    ) -> HandedIn:
        """Keep a pupil's answers to a lesson in a class folder; those they handed in before are replaced.

        Args:
            folder: of the class.
            secret: of the pupil's browser; not kept itself.
            data: the answers, JSON.
            lesson, title: its id, and what it is called.
            student: as they call themselves.
            address: that they come from; not kept itself.
            right, answered: how many of its steps were.

        Raises:
            StoreError: there is no such folder, a quota is full, or the disk would not; what was there before stays.
        """
        self._sweep_sometimes()
        found = self.class_folder(folder)
        if found is None:
            raise StoreError("no_folder")
        size, quotas, now = len(data.encode()), self.quotas, self._clock()
        if size > quotas.answer_bytes:
            raise StoreError("answer_bytes", size=size, limit=quotas.answer_bytes)
        one = HandedIn(
            folder=found.id,
            owner=hashed(secret),
            student=_line(student, MOST_NAME),
            lesson=_line(lesson, MOST_NAME),
            place=placed(address, self._index.salt),
            title=_line(title, MOST_TITLE),
            right=right,
            answered=answered,
            bytes=size,
            data=data,
            at=now,
        )
        with self._index.change() as db:
            had, gone = answers.before(db, one)
            if answers.counted(db, "owner=?", one.owner)[0] - had >= quotas.owner_runs:
                raise StoreError("owner_answers", limit=quotas.owner_runs)
            held, held_bytes = answers.counted(db, "folder=?", one.folder)
            if held - had >= quotas.folder_answers or held_bytes - gone + size > quotas.folder_answer_bytes:
                raise StoreError("folder_answers", limit=quotas.folder_answers, size=quotas.folder_answer_bytes // MIB)
            self._check_bytes(db, one.place, size - gone, now)
            before = answers.same(db, one) if self._mirror is not None else None
            answers.put(db, one)
        self._copied(lambda db: answers.take_back(db, one, before))
        return one

    def answers_of(self, folder: Any, secret: Any, whole: bool = True) -> list[HandedIn]:
        """What was handed in to a class folder, latest first, for its teacher; not `whole`: without the answers' text. Raises as :meth:`runs_of`."""
        return self._index.answers_in(self._for_teacher(folder, secret).id, whole)


_EVER = 253_402_300_000.0  # the year 9999
