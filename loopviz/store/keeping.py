"""What all parts of a store share: its index and files, the copy of both, how a change is made, and what is over."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from loopviz.store import answers
from loopviz.store import index as tables
from loopviz.store.files import Files
from loopviz.store.index import Entry, Index
from loopviz.store.mirror import Mirror
from loopviz.store.quotas import Quotas
from loopviz.store.refusals import StoreError

log = logging.getLogger(__name__)

MOST_TITLE = 80  # characters of a prompt, of a lesson's title, that the index has
MOST_NAME = 80  # of a class, a student
SWEEP_EVERY = 600.0  # seconds between two looks for what is over


def line(said: Any, most: int) -> str:
    """A text of a stranger's as one line of the index."""
    words = " ".join(said.split()) if isinstance(said, str) else ""
    return words.encode("utf-8", "replace").decode()[:most]


class Keeping:
    """A folder in which runs are kept; :class:`loopviz.store.Store` is what is done with it.

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

    # --- changes ----------------------------------------------------------------------------------------------------

    def _copied(self, undo: Callable[[sqlite3.Connection], Any], forget: bool = False) -> None:
        """What has just been changed is in the mirror too, where there is one; else it is undone here, and StoreError.

        Args:
            forget: something that is no run was deleted: the mirror's history is to lose it too.
        """
        if self._mirror is None:
            return
        try:
            self._mirror.settle(forget)
        except StoreError:
            with self._index.change() as db:
                undo(db)
            raise

    def _check_bytes(self, db: sqlite3.Connection, place: str, more: int, now: float) -> None:
        """Raises StoreError where so many bytes more are too many, of an address or of all: runs and answers together."""
        quotas = self.quotas
        near = tables.counted(db, "place=? AND expires > ?", place, now)[1] + answers.counted(db, "place=?", place)[1]
        if near + more > quotas.place_bytes:
            raise StoreError("place_bytes", limit=quotas.place_bytes)
        if tables.counted(db, "1")[1] + answers.counted(db, "1")[1] + more > quotas.all_bytes:
            raise StoreError("all_bytes", limit=quotas.all_bytes)

    def _delete(self, entry: Entry) -> None:
        """A run goes, by whoever may say so; its link says that it was deleted."""
        with self._index.change() as db:
            tables.take_away(db, [entry.id], "deleted", self._clock())
        self._copied(lambda db: tables.put_back(db, entry))
        self._files.remove(entry.id)

    # --- what is over -----------------------------------------------------------------------------------------------

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
                handed = answers.without_folder(db)
            self._files.sweep(self._index.ids())
            if (over or handed) and self._mirror is not None:
                self._mirror.settle(forget=handed > 0)  # where it cannot be, what is over goes with the next
        except StoreError as error:
            log.warning("stored runs: what is over could not be removed: %s", error)
            return 0
        return len(over)

    def _expire(self, entry: Entry) -> None:
        with self._index.change() as db:
            tables.take_away(db, [entry.id], "expired", self._clock())
        self._files.remove(entry.id)
