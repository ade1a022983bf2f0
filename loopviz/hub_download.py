"""Downloads from the Hugging Face Hub: here, or in a process that can be ended. Imports nothing but Hugging Face's library."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import WeakFileLock
from huggingface_hub.utils import tqdm as hub_tqdm

from loopviz.worker import Told, Worker, WorkerEnded, WorkerRefused

PATIENCE = 8.0
"""Seconds after which a Hub that has not answered counts as out of reach."""
# A download is broken off beyond that many times the bytes that were listed, and so many more: the library's count is rough.
ROUGHLY, SMALL = 2, 4 * 2**20
LOCKED = 0.1  # seconds after which a file counts as being fetched by somebody else
STEP = 0.005  # of a download: told when so much more of it is there


@dataclass(frozen=True)
class Wanted:
    """What is to be fetched from a repository.

    Attributes:
        repo: `owner/name`.
        file: one file of it; None: all files that fit `patterns`.
        patterns: as `huggingface_hub.snapshot_download` takes them.
        n_bytes: of all that, as the Hub listed them.
        endpoint: the Hub's address.
        cache: Hugging Face's cache.
        strict: whether it ends when far more than `n_bytes` arrive.
    """

    repo: str
    file: str | None
    patterns: tuple[str, ...]
    n_bytes: int
    endpoint: str
    cache: str
    strict: bool = False


class HubError(ValueError):
    """A download that failed; `status` is what the Hub answered, if it did."""

    def __init__(self, words: str, status: int | None = None) -> None:
        super().__init__(words)
        self.status = status
        self.said = {"status": status}


def fetch(wanted: Wanted, told: Callable[[float], None]) -> Path:
    """The file, or the folder of the files, in Hugging Face's cache; what is there already is not fetched again.

    Args:
        told: called with the share that is there, possibly from another thread.

    Raises:
        HubError: whatever went wrong.
    """
    common: dict[str, Any] = {"endpoint": wanted.endpoint, "etag_timeout": PATIENCE, "cache_dir": wanted.cache}
    common["tqdm_class"] = _bar(told, wanted)
    try:
        # By branch, not by commit: only then does the cache remember which commit answers to the name.
        if wanted.file is not None:
            return Path(huggingface_hub.hf_hub_download(wanted.repo, wanted.file, **common))
        return Path(huggingface_hub.snapshot_download(wanted.repo, allow_patterns=list(wanted.patterns), **common))
    except Exception as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise HubError(first_line, status) from error


class EndableFetch:
    """:func:`fetch` in a process of its own, ended once `over()`; what is half there then is removed."""

    def __init__(self, over: Callable[[], bool]) -> None:
        self._over = over

    def __call__(self, wanted: Wanted, told: Callable[[float], None]) -> Path:
        """As :func:`fetch`.

        Raises:
            HubError: as there.
            WorkerEnded: nobody wants it any more, or the process died.
        """
        sweep(wanted)
        worker = Worker(__name__)
        try:
            answer = worker.ask(vars(wanted), over=self._over, told=lambda said: told(float(said["share"])))
        except WorkerRefused as error:
            raise HubError(str(error), error.said.get("status")) from error
        except WorkerEnded:
            worker.end()
            sweep(wanted)
            raise
        finally:
            worker.end()
        return Path(answer["path"])


def sweep(wanted: Wanted) -> None:
    """Remove what is half fetched of a repository and nobody is fetching now.

    Hugging Face's library never goes on with such a file; whole files are kept. Its own locks say who is at work.
    """
    name = repo_folder_name(repo_id=wanted.repo, repo_type="model")
    cache = Path(wanted.cache)
    for part in (cache / name / "blobs").glob("*.incomplete"):
        lock = cache / ".locks" / name / f"{part.name.split('.')[0]}.lock"
        with contextlib.suppress(OSError, TimeoutError):  # being fetched by somebody else
            lock.parent.mkdir(parents=True, exist_ok=True)
            with WeakFileLock(lock, timeout=LOCKED):
                part.unlink(missing_ok=True)


def serve(request: dict[str, Any], tell: Told) -> dict[str, Any]:
    """One download, in a worker (:mod:`loopviz.worker`)."""
    last = [-1.0]

    def told(share: float) -> None:
        if share - last[0] >= STEP or share >= 1.0:
            last[0] = share
            tell({"share": share})

    return {"path": os.fspath(fetch(Wanted(**{**request, "patterns": tuple(request["patterns"])}), told))}


def _bar(told: Callable[[float], None], wanted: Wanted) -> type[hub_tqdm]:
    """A silent progress bar that tells the share of the bytes; may be called from another thread.

    The library's own total grows as downloads begin: shares of it would jump back.
    """
    n_bytes, so_far, lock = wanted.n_bytes, [0.0], threading.Lock()

    class Bar(hub_tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            # Of the two bars of bytes, the one of what is written: what is received may be compressed.
            self._bytes = kwargs.get("unit") == "B" and not str(kwargs.get("desc", "")).startswith("Downloading")
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: float | None = 1) -> None:
            if not self._bytes:
                return
            with lock:
                so_far[0] += n or 0  # a disabled bar does not count
                if wanted.strict and so_far[0] > ROUGHLY * n_bytes + SMALL:
                    raise ValueError(f"more arrived than the {n_bytes:,} bytes that were announced")
                if n_bytes:
                    told(min(1.0, so_far[0] / n_bytes))

    return Bar
