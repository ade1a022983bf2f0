"""What a page of measurements remembers of them: one at a time for each visitor, forgotten as the visitor leaves."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, TypeVar

KEEP = 32  # runs remembered in all; the oldest finished ones go first


class Run(Protocol):
    """What is asked of a run here."""

    id: str  # unguessable: who knows it may look
    session: str
    finished: threading.Event

    def stop(self) -> None:
        """End it soon."""


R = TypeVar("R", bound=Run)


class KeptRuns(Generic[R]):
    """The runs of a page's visitors.

    Args:
        forget: called with each run that is kept no longer.
    """

    def __init__(self, forget: Callable[[R], None] | None = None) -> None:
        self._forget = forget
        self._runs: OrderedDict[str, R] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[R]:
        """Those kept now, oldest first."""
        with self._lock:
            return iter(list(self._runs.values()))

    def get(self, run_id: Any) -> R | None:
        """The run of this id, which is not trusted."""
        return self._runs.get(run_id) if isinstance(run_id, str) else None

    def begin(self, run: R) -> None:
        """Register a run; the session's earlier ones are told to stop, and forgotten. Nobody waits for them."""
        for earlier in self.of_session(run.session):
            earlier.stop()
            self._drop(earlier)
        with self._lock:
            self._runs[run.id] = run
            over = len(self._runs) - KEEP
            old = [r for r in self._runs.values() if r.finished.is_set()][: max(0, over)]
        for one in old:
            self._drop(one)

    def stop(self, session: str) -> None:
        """End what runs for a session; what is there stays until it begins something else."""
        for run in self.of_session(session):
            run.stop()

    def of_session(self, session: str) -> list[R]:
        """The runs of one session, oldest first."""
        return [run for run in self if run.session == session]

    def forget(self, session: str) -> None:
        """A visitor left: stop what runs for them and keep nothing."""
        for run in self.of_session(session):
            run.stop()
            self._drop(run)

    def _drop(self, run: R) -> None:
        with self._lock:
            self._runs.pop(run.id, None)
        if self._forget is not None:
            self._forget(run)
