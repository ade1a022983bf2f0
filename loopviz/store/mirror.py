"""A copy of a store in a dataset of the Hugging Face Hub, for a server whose disk does not outlive it (a Space without a volume).

The copy is the store: it is fetched as the server starts, and nothing is acknowledged before it is there. Saves that come together
go in one commit. Each is made on top of the commit before, so that a second server on the same dataset is told, and overwrites nothing.
(`huggingface_hub`'s CommitScheduler only ever adds, later, and says nothing of what failed.)

What was deleted goes out of the dataset's history too, by squashing it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from loopviz import outputs
from loopviz.store.files import ENDING, FOLDER
from loopviz.store.index import FILE, Index
from loopviz.store.marks import is_id
from loopviz.store.refusals import StoreError

log = logging.getLogger(__name__)

AN_HOUR = 100  # commits at most; the Hub slows down who makes many more
SQUASH_AFTER = 100  # commits
BEFORE = f"{FILE}.before"  # what a folder held that is not the dataset's


class Mirror:
    """A dataset that holds a store. Its methods may be called from any thread.

    Args:
        dataset: its id, `owner/name`.
        api: a `huggingface_hub.HfApi`, whose token may write there; None: one with the token of the environment.
        clock: seconds.
    """

    def __init__(self, dataset: str, api: Any = None, clock: Callable[[], float] = time.monotonic) -> None:
        if api is None:
            from huggingface_hub import HfApi

            api = HfApi()
        self._api, self._clock = api, clock
        self._repo = {"repo_id": dataset, "repo_type": "dataset"}
        self._mark = secrets.token_hex(4)  # of this server's commits
        self._turn = threading.Condition()
        self._wanted = self._done = self._failed = (
            0  # changes, by number: the last that was made, is there, could not be
        )
        self._error: StoreError | None = None
        self._pushing = self._doubtful = False
        self._forget = False  # whether the history is to be squashed with the next commit
        self._head = ""
        self._runs: set[str] = set()  # ids of files that are there
        self._times: deque[float] = deque()  # of commits in the last hour
        self._since = 0  # commits since the history was squashed
        self._folder = Path()
        self._index: Index | None = None

    # -- as the server starts ------------------------------------------------------------------------------------------

    def fetch(self, folder: Path) -> None:
        """Bring the index into a folder in which no store is open yet; runs come when they are opened.

        Raises:
            StoreError: the dataset cannot be had ("copy"), or everybody can read it ("copy_public").
        """
        self._folder = folder
        with self._asking():
            info = self._look()
            if FILE not in self._names(info):
                return  # a new one
            folder.mkdir(parents=True, exist_ok=True)
            if (folder / FILE).exists():
                os.replace(folder / FILE, folder / BEFORE)
            for left in ("-wal", "-shm"):  # of another index, they would spoil this one
                (folder / f"{FILE}{left}").unlink(missing_ok=True)
            self._api.hf_hub_download(filename=FILE, revision=self._head, local_dir=folder, **self._repo)

    def watch(self, index: Index) -> None:
        """The index whose changes :meth:`settle` copies."""
        self._index = index

    def bring(self, run: str) -> bool:
        """Fetch a run's file that is not in the folder; False where there is none.

        Raises:
            StoreError: it cannot be had now.
        """
        with self._turn:
            if run not in self._runs:
                return False
        with self._asking():
            self._api.hf_hub_download(filename=_name(run), local_dir=self._folder, **self._repo)
        return True

    def _look(self) -> Any:
        """Where the dataset is now; refuses one that everybody can read."""
        info = self._api.repo_info(**self._repo)
        if info.private is not True:
            raise StoreError("copy_public", dataset=self._repo["repo_id"])
        self._head = info.sha
        self._runs = {run for run in map(_run_of, self._names(info)) if run}
        return info

    @staticmethod
    def _names(info: Any) -> set[str]:
        return {file.rfilename for file in info.siblings or ()}

    # -- afterwards ----------------------------------------------------------------------------------------------------

    def settle(self, forget: bool = False) -> None:
        """What the index has now is in the dataset when this returns.

        Args:
            forget: something that is no run was taken out of it, which the dataset's history is to lose too.

        Raises:
            StoreError: it is not ("copy"); or there were too many commits lately ("copy_often"). What was changed is to be undone.
        """
        with self._turn:
            self._wanted += 1
            self._forget = self._forget or forget
            mine = self._wanted
            while self._done < mine:
                if self._failed >= mine and self._error is not None:
                    raise self._error
                if self._pushing:
                    self._turn.wait()
                else:
                    self._push_all()

    def _push_all(self) -> None:
        """One commit of all that was wanted until now; called, and left, with the lock held."""
        self._pushing, upto = True, self._wanted
        forget, self._forget = self._forget, False  # one that is asked for from here on is with the next commit
        self._turn.release()
        error: StoreError | None = None
        try:
            with self._asking():
                self._push(forget)
        except StoreError as failed:
            error = failed
        finally:
            self._turn.acquire()
            self._pushing = False
            if error is None:
                self._done = upto
            else:
                self._failed, self._error = upto, error
                self._forget = self._forget or forget  # with the next one, then
            self._turn.notify_all()

    def _push(self, forget: bool) -> None:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        self._check_often()
        if self._doubtful:
            self._look_again()
        assert self._index is not None
        with outputs.scratch(self._folder) as copy:
            kept = self._index.copy_to(copy)
            gone = self._runs - kept
            added = {run for run in kept - self._runs if (self._folder / _name(run)).is_file()}
            operations = [
                CommitOperationAdd(FILE, copy),
                *(CommitOperationAdd(_name(run), self._folder / _name(run)) for run in sorted(added)),
                *(CommitOperationDelete(_name(run)) for run in sorted(gone)),
            ]
            self._times.append(self._clock())
            self._doubtful = True  # until it is known to be there, or not
            told = f"LoopViz {self._mark}"
            made = self._api.create_commit(
                operations=operations, commit_message=told, parent_commit=self._head or None, **self._repo
            )
        self._head, self._doubtful = made.oid, False
        self._runs = (self._runs | added) - gone
        self._since += 1
        if gone or forget or self._since >= SQUASH_AFTER:
            self._squash()

    def _check_often(self) -> None:
        now = self._clock()
        while self._times and self._times[0] <= now - 3_600:
            self._times.popleft()
        if len(self._times) >= AN_HOUR:
            raise StoreError("copy_often", minutes=1 + int((self._times[0] + 3_600 - now) // 60))

    def _look_again(self) -> None:
        """After a commit of which nobody knows whether it was made: where the dataset is, if that is where we put it."""
        before = self._head
        self._look()
        if self._head != before and self._api.list_repo_commits(**self._repo)[0].title != f"LoopViz {self._mark}":
            self._head = before
            raise StoreError("copy", reason="another server writes to the same dataset")

    def _squash(self) -> None:
        """Forget the dataset's earlier commits; one that cannot be forgotten now is with the next."""
        try:
            self._api.super_squash_history(commit_message=f"LoopViz {self._mark}", **self._repo)
            self._head, self._since = self._api.repo_info(**self._repo).sha, 0
        except Exception as error:
            self._doubtful = self._forget = True
            log.warning("stored runs: the dataset's history could not be squashed (%s)", type(error).__name__)

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """Around questions to the Hub: whatever comes of them is a StoreError, without addresses or tokens in its words."""
        try:
            yield
        except StoreError as error:
            log.warning("stored runs: %s", error)
            raise
        except Exception as error:  # of huggingface_hub, of HTTP, of the disk
            status = getattr(getattr(error, "response", None), "status_code", None)
            reason = type(error).__name__ + (f", HTTP {status}" if status else "")
            log.warning("stored runs: the dataset %s: %s", self._repo["repo_id"], reason)
            raise StoreError("copy", reason=reason) from error


def _name(run: str) -> str:
    """Where a run's file lies, in the folder and in the dataset."""
    return f"{FOLDER}/{run[:2]}/{run}{ENDING}"


def _run_of(name: str) -> str:
    """The run of a file in the dataset; "" where it is no run's."""
    run = name.rsplit("/", 1)[-1].removesuffix(ENDING)
    return run if is_id(run) and name == _name(run) else ""
