"""What a page remembers of its visitors' runs: found by an unguessable id, stopped, replaced, forgotten as the visitor leaves."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, TypeVar

from loopviz.app.sessions.memory_budget import Keeper


class Run(Protocol):
    """What is asked of a run, a comparison, a measurement here."""

    id: str  # unguessable: who knows it may look
    session: str
    finished: threading.Event  # nothing computes for it any more
    opened: bool  # read from a visitor's file; else it was made here
    keeper: Keeper | None  # weighs it as it grows

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it takes now."""

    def halt(self, end: str = "stopped") -> None:
        """End it soon, as `end` says; what there is of it stays. Waits for nothing."""


R = TypeVar("R", bound=Run)


class Registry(Generic[R]):
    """The runs of one page's visitors. Each is found by its id, or by its own session; never by another's.

    Args:
        keeper: says how much of them is kept, in bytes; the same for all pages of a server.
        forget: called with each run that is kept no longer.
    """

    def __init__(self, keeper: Keeper | None = None, forget: Callable[[R], None] | None = None) -> None:
        self.keeper = keeper or Keeper()
        self._forget = forget
        self._lock = threading.Lock()
        self._runs: OrderedDict[str, R] = OrderedDict()

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

    def of_session(self, session: str) -> list[R]:
        """The runs of one session: the one computing, the one on screen; oldest first."""
        return [run for run in self if run.session == session]

    def active(self) -> int:
        """How many runs are computing now."""
        return sum(not run.finished.is_set() for run in self)

    def opened(self) -> list[R]:
        """The runs that were read from visitors' files, oldest first."""
        return [run for run in self if run.opened]

    def begin(self, run: R) -> None:
        """Register `run`; one that is to be made tells earlier ones of its session to stop. Nobody waits for them: each keeps its
        own place.

        Their results stay: one is on the visitor's screen until :meth:`supersede`. What is finished, a file that was read, stops
        nothing: a run may have been begun while it was on its way.
        """
        if not run.finished.is_set():
            self.stop(run.session)
        with self._lock:
            self._runs[run.id] = run
        run.keeper = self.keeper
        self.keeper.enter(run, self.drop)

    def supersede(self, run: R) -> None:
        """`run` has something to show: its session's earlier runs are no longer on screen, and are dropped.

        One that was begun after it stays, however late this one is heard of: it is the one on screen, or will be. The file a visitor
        opened stays: they may go back to it.
        """
        runs = self.of_session(run.session)
        for other in runs[: runs.index(run)] if run in runs else ():  # it may have been replaced itself
            if not other.opened:
                other.halt()
                self.drop(other)

    def stop(self, session: str) -> None:
        """End what runs for a session; what is there stays until it begins something else."""
        for run in self.of_session(session):
            run.halt()

    def open(self, run: R) -> None:
        """Register what was read from a visitor's file, in place of what was before."""
        for other in self.of_session(run.session):
            if other.opened:
                self.drop(other)
        self.begin(run)

    def drop(self, run: R) -> None:
        """Keep nothing of `run`."""
        with self._lock:
            self._runs.pop(run.id, None)
        self.keeper.leave(run)
        if self._forget is not None:
            self._forget(run)

    def forget(self, session: str) -> None:
        """A visitor left: stop what runs for them and keep nothing."""
        for run in self.of_session(session):
            run.halt()
            self.drop(run)
