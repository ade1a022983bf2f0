"""The files of a store: a Trace each, written whole or not at all, under a name that is made of its id alone."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from pathlib import Path

from loopviz import outputs
from loopviz.store.marks import is_id
from loopviz.store.refusals import StoreError

FOLDER = "runs"
ENDING = ".loopviz"
FORGOTTEN = 3_600.0  # seconds after which a file that no index knows was left by a kill


class Files:
    """The files below a store's folder.

    Args:
        folder: of the store.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER

    def _path(self, run: str) -> Path:
        """Where the file of a run is. ValueError for what is no id: it never comes near the file system."""
        if not is_id(run):
            raise ValueError("no id of a stored run")
        return self._folder / run[:2] / f"{run}{ENDING}"

    def write(self, run: str, data: bytes) -> None:
        """Write the file of a run; on the disk when this returns.

        Raises:
            StoreError: the disk would not take it; nothing of it is left.
        """
        path = self._path(run)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            outputs.write(path, data)
        except OSError as error:
            cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
            raise StoreError("disk", reason=cause.strerror or type(cause).__name__) from error

    def there(self, run: str) -> bool:
        """Whether the file of a run is in the folder."""
        return self._path(run).is_file()

    def read(self, run: str, most: int, sha256: str) -> bytes:
        """The file of a run.

        Args:
            most: bytes that are read of it.
            sha256: of it as it was saved.

        Raises:
            StoreError: it is not there, or not as it was saved.
        """
        try:
            with open(self._path(run), "rb") as file:
                data = file.read(most + 1)
        except FileNotFoundError as error:
            raise StoreError("lost") from error
        except OSError as error:
            raise StoreError("unread", reason=error.strerror or type(error).__name__) from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise StoreError("lost")
        return data

    def remove(self, run: str) -> None:
        """Remove the file of a run; one that is not there, or cannot be removed now, is found by :meth:`sweep`."""
        with contextlib.suppress(OSError):
            self._path(run).unlink(missing_ok=True)

    def sweep(self, known: set[str]) -> int:
        """Remove files that no index knows, and parts that a kill left; returns how many of the first there were.

        One that is young may be of a save that is under way, in this process or another.
        """
        found = 0
        with contextlib.suppress(OSError):
            for part in list(os.scandir(self._folder)):
                outputs.sweep(part.path)
                for file in list(os.scandir(part.path)):
                    run, ending = os.path.splitext(file.name)
                    old = time.time() - file.stat(follow_symlinks=False).st_mtime > FORGOTTEN
                    if ending == ENDING and is_id(run) and run not in known and old:
                        os.unlink(file.path)
                        found += 1
        return found
