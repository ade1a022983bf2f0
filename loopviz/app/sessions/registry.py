"""What a page of measurements remembers of them: one at a time for each visitor, forgotten as the visitor leaves."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, TypeVar

from loopviz.app.sessions.memory_budget import Keeper


class Run(Protocol):
    """What is asked of a run here."""

    id: str  # unguessable: who knows it may look
    session: str
    finished: threading.Event
    keeper: Keeper | None  # weighs it as it grows

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it takes now."""

    def stop(self) -> None:
        """End it soon."""


R = TypeVar("R", bound=Run)


class KeptRuns(Generic[R]):
    """The runs of a page's visitors.

    Args:
        forget: called with each run that is kept no longer.
        keeper: says how much of them is kept, in bytes; the same for all pages of a server.
    """

    def __init__(self, forget: Callable[[R], None] | None = None, keeper: Keeper | None = None) -> None:
        self._forget = forget
        self.keeper = keeper or Keeper()
        self._runs: OrderedDict[str, R] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[R]:
        """Those kept now, oldest first."""
        with self._lock:
            return iter(list(self._runs.values()))

    def get(self, run_id: Any) -> R | None:
        """The run of this id, which is not trusted. Who asks for it needs it: others go before it when room is made."""
        run = self._runs.get(run_id) if isinstance(run_id, str) else None
        if run is not None:
            self.keeper.touch(run)
        return run

    def begin(self, run: R) -> None:
        """Register a run; the session's earlier ones are told to stop, and forgotten. Nobody waits for them."""
        for earlier in self.of_session(run.session):
            earlier.stop()
            self._drop(earlier)
        with self._lock:
            self._runs[run.id] = run
        run.keeper = self.keeper
        self.keeper.enter(run, self._drop)

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
        self.keeper.leave(run)
        if self._forget is not None:
            self._forget(run)
