"""The store: runs saved, opened again, deleted; a gallery of the host's choice. Class folders: :mod:`loopviz.store.classes`."""

from __future__ import annotations

import dataclasses
import hashlib
import sqlite3
from typing import Any, NamedTuple

from loopviz.store import index as tables
from loopviz.store.classes import ClassFolders
from loopviz.store.index import Entry
from loopviz.store.keeping import MOST_NAME, MOST_TITLE, line
from loopviz.store.marks import fits, hashed, is_id, new_id, placed
from loopviz.store.refusals import StoreError
from loopviz.trace import Trace

MOST_VIEW = 4_000  # characters of how a run was looked at


class Stored(NamedTuple):
    """A run that was opened again."""

    entry: Entry
    trace: Trace


class Store(ClassFolders):
    """The runs of one folder. Its methods may be called from any thread, and several processes may share a folder.

    What it is made with: :class:`loopviz.store.keeping.Keeping`.
    """

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
            line(student, MOST_NAME),
            line(trace.meta["prompt"][: 4 * MOST_TITLE], MOST_TITLE),
            line(trace.meta["model"], MOST_NAME),
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

    def _check_room(self, db: sqlite3.Connection, entry: Entry) -> None:
        quotas, now = self.quotas, entry.created
        self._check_there(db, entry.folder, now)
        runs, size = tables.counted(db, "owner=? AND expires > ?", entry.owner, now)
        if runs >= quotas.owner_runs:
            raise StoreError("owner_runs", limit=quotas.owner_runs)
        if size + entry.bytes > quotas.owner_bytes:
            raise StoreError("owner_bytes", limit=quotas.owner_bytes)
        self._check_bytes(db, entry.place, entry.bytes, now)

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

    def latest(self, most: int = 100) -> list[Entry]:
        """The runs saved last."""
        return self._index.latest(most)

    def held(self) -> tuple[int, int]:
        """How many runs are kept, and their bytes."""
        return self._index.held()

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


_EVER = 253_402_300_000.0  # the year 9999
