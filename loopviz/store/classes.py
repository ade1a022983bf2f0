"""Class folders: made, listed for their teacher, deleted; and the answers that pupils hand in to them, and take back."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, NamedTuple

from loopviz.store import answers
from loopviz.store import index as tables
from loopviz.store.answers import HandedIn
from loopviz.store.index import Entry, Folder
from loopviz.store.keeping import MOST_NAME, MOST_TITLE, Keeping, line
from loopviz.store.marks import fits, hashed, is_id, is_secret, new_id, new_secret, placed
from loopviz.store.quotas import MIB
from loopviz.store.refusals import StoreError


class Dropped(NamedTuple):
    """What went with a class folder: how many runs, how many answers."""

    runs: int
    answers: int


class ClassFolders(Keeping):
    """The class folders of a store.

    Deletions are one transaction each: killed at any moment, all of what was to go is there, or nothing of it. (A run's file goes
    after its row: one that a kill left is found by nobody, and by the next sweep.)
    """

    def new_folder(self, name: str) -> tuple[Folder, str]:
        """A new class folder, and the secret of its teacher, which is kept nowhere.

        Raises:
            StoreError: there are too many; the disk would not.
        """
        now, secret = self._clock(), new_secret()
        made = Folder(new_id(), line(name, MOST_NAME), hashed(secret), now, now + self.quotas.folder_seconds)
        with self._index.change() as db:
            (count,) = db.execute("SELECT count(*) FROM folders WHERE expires > ?", (now,)).fetchone()
            if count >= self.quotas.folders:
                raise StoreError("folders", limit=self.quotas.folders)
            tables.put_folder(db, made)
        self._copied(lambda db: tables.take_folder_away(db, made.id))
        return made, secret

    def class_folder(self, folder: Any) -> Folder | None:
        """The class folder of an id; None when there is none, or none any more."""
        return self._index.folder(folder, self._clock()) if is_id(folder) else None

    def class_folders(self) -> list[Folder]:
        """All of them, latest first."""
        return self._index.folders(self._clock())

    def runs_of(self, folder: Any, secret: Any) -> list[Entry]:
        """What was saved into a class folder, latest first, for its teacher.

        Raises:
            StoreError: there is no such folder ("no_folder"); the secret is not its teacher's ("owner").
        """
        return self._index.in_folder(self._for_teacher(folder, secret).id, self._clock())

    def answers_of(self, folder: Any, secret: Any, whole: bool = True) -> list[HandedIn]:
        """What was handed in to a class folder, latest first, for its teacher; not `whole`: without the answers' text. Raises as :meth:`runs_of`."""
        return self._index.answers_in(self._for_teacher(folder, secret).id, whole)

    def handed_in(self, folder: Any) -> list[HandedIn]:
        """As :meth:`answers_of` without the answers' text, for the host, who needs no secret."""
        return self._index.answers_in(self._there(folder).id, whole=False)

    def saved_in(self, folder: Any) -> list[Entry]:
        """As :meth:`runs_of`, for the host, who needs no secret."""
        return self._index.in_folder(self._there(folder).id, self._clock())

    def _there(self, folder: Any) -> Folder:
        found = self.class_folder(folder)
        if found is None:
            raise StoreError("no_folder")
        return found

    def _for_teacher(self, folder: Any, secret: Any) -> Folder:
        found = self._there(folder)
        if not fits(secret, found.teacher):
            raise StoreError("owner")
        return found

    def _check_there(self, db: sqlite3.Connection, folder: str | None, now: float) -> None:
        """Within a transaction: a folder that was deleted since it was looked up takes nothing."""
        if folder is not None and not tables.has_folder(db, folder, now):
            raise StoreError("no_folder")

    # --- deleted ----------------------------------------------------------------------------------------------------

    def delete_folder(self, folder: Any, secret: Any) -> Dropped:
        """Delete a class folder with all that was saved and handed in there; the runs' links then say that they were deleted.

        Args:
            secret: its teacher's.

        Raises:
            StoreError: there is no such folder ("no_folder"); the secret is not its teacher's ("owner"); the disk would not.
        """
        return self._drop_folder(self._for_teacher(folder, secret))

    def remove_folder(self, folder: Any) -> Dropped:
        """As :meth:`delete_folder`, by the host, who needs no secret."""
        return self._drop_folder(self._there(folder))

    def delete_from(self, folder: Any, secret: Any, run: Any) -> None:
        """Delete a run that was saved into a class folder, by its teacher.

        Raises:
            StoreError: as of :meth:`delete_folder`; it lies in no such folder ("unknown"), or is there no more.
        """
        found, entry = self._for_teacher(folder, secret), self._index.get(run) if is_id(run) else None
        if entry is None or entry.folder != found.id:
            raise StoreError((self._index.why_gone(run) if is_id(run) else None) or "unknown")
        self._delete(entry)

    def delete_answer(self, folder: Any, secret: Any, answer: Any) -> None:
        """Delete a pupil's answers to a lesson, by their teacher.

        Args:
            answer: :attr:`HandedIn.id`.

        Raises:
            StoreError: as of :meth:`delete_folder`; there are no such answers ("no_answer").
        """
        self._drop_answer(self._for_teacher(folder, secret), answer)

    def remove_answer(self, folder: Any, answer: Any) -> None:
        """As :meth:`delete_answer`, by the host, who needs no secret."""
        self._drop_answer(self._there(folder), answer)

    def withdraw(self, folder: Any, secret: Any, lesson: str, student: str = "") -> None:
        """Take back what was handed in, by who handed it in.

        Args:
            secret: with which it was handed in.
            lesson, student: as they were given then.

        Raises:
            StoreError: there is no such folder ("no_folder"); that is no secret ("owner"); nothing was handed in so ("no_answer"): of
                another secret no more is told, for nobody learns here who has handed in what; the disk would not.
        """
        found = self._there(folder)
        if not is_secret(secret):
            raise StoreError("owner")
        key = answers.Key(found.id, hashed(secret), line(student, MOST_NAME), line(lesson, MOST_NAME))
        self._take_back(lambda db: answers.at(db, key))

    def _drop_answer(self, folder: Folder, answer: Any) -> None:
        self._take_back(lambda db: answers.of_id(db, folder.id, answer))

    def _take_back(self, find: Callable[[sqlite3.Connection], HandedIn | None]) -> None:
        """Answers go; where the mirror would not, they are there again, unless others have come in their place."""
        with self._index.change() as db:
            one = find(db)
            if one is None:
                raise StoreError("no_answer")
            answers.remove(db, one.key)
        self._copied(lambda db: answers.put_back(db, [one]), forget=True)

    def _drop_folder(self, folder: Folder) -> Dropped:
        with self._index.change() as db:
            self._check_there(db, folder.id, self._clock())  # somebody else may have been quicker
            runs = tables.in_folder(db, folder.id)
            handed, _ = answers.counted(db, "folder=?", folder.id)
            texts = [] if self._mirror is None else answers.in_folder(db, folder.id)  # to be put back
            tables.take_away(db, [entry.id for entry in runs], "deleted", self._clock())
            answers.remove_all(db, folder.id)
            tables.take_folder_away(db, folder.id)

        def undo(db: sqlite3.Connection) -> None:
            tables.put_folder(db, folder)
            for entry in runs:
                tables.put_back(db, entry)
            answers.put_back(db, texts)

        self._copied(undo, forget=True)
        for entry in runs:
            self._files.remove(entry.id)
        return Dropped(len(runs), handed)

    # --- handed in --------------------------------------------------------------------------------------------------

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
            secret: of the pupil's browser, by which they can be taken back; not kept itself.
            data: the answers, JSON.
            lesson, title: its id, and what it is called.
            student: as they call themselves.
            address: that they come from; not kept itself.
            right, answered: how many of its steps were.

        Raises:
            StoreError: there is no such folder, a quota is full, or the disk would not; what was there before stays.
        """
        self._sweep_sometimes()
        found = self._there(folder)
        size, quotas, now = len(data.encode()), self.quotas, self._clock()
        if size > quotas.answer_bytes:
            raise StoreError("answer_bytes", size=size, limit=quotas.answer_bytes)
        one = HandedIn(
            folder=found.id,
            owner=hashed(secret),
            student=line(student, MOST_NAME),
            lesson=line(lesson, MOST_NAME),
            place=placed(address, self._index.salt),
            title=line(title, MOST_TITLE),
            right=right,
            answered=answered,
            bytes=size,
            data=data,
            at=now,
        )
        with self._index.change() as db:
            self._check_there(db, one.folder, now)
            self._check_answers(db, one)
            before = answers.at(db, one.key) if self._mirror is not None else None
            answers.put(db, one)
        self._copied(lambda db: answers.take_back(db, one, before))
        return one

    def _check_answers(self, db: sqlite3.Connection, one: HandedIn) -> None:
        """Raises StoreError where a quota is full: of the pupil, the folder, the address, the store."""
        quotas, size = self.quotas, one.bytes
        had, gone = answers.before(db, one)
        if answers.counted(db, "owner=?", one.owner)[0] - had >= quotas.owner_runs:
            raise StoreError("owner_answers", limit=quotas.owner_runs)
        held, held_bytes = answers.counted(db, "folder=?", one.folder)
        if held - had >= quotas.folder_answers or held_bytes - gone + size > quotas.folder_answer_bytes:
            raise StoreError("folder_answers", limit=quotas.folder_answers, size=quotas.folder_answer_bytes // MIB)
        self._check_bytes(db, one.place, size - gone, one.at)
