"""Finished runs that a visitor takes from one page to another: found by their unguessable ids alone.

A page's runs go as its visitor leaves it, which walking to another page is. A run that was asked to come along is kept a while
longer, in memory that counts like everybody's, and is found again after a reload too.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from loopviz.app.profile import Profile
from loopviz.app.sessions.memory_budget import Keeper
from loopviz.trace import Trace


class CarriedRun:
    """A run that was taken along.

    Args:
        run: its id on the page that it comes from.
        trace: of the run; nothing is added to it any more.
        model: by which name the model is had that made it.
        own: whether the model is the visitor's own choice; else a file names it, and they have not agreed to it.
    """

    def __init__(self, run: str, trace: Trace, model: str, own: bool) -> None:
        self.id = self.session = f"carried {run}"
        self.run, self.trace, self.made_by, self.own = run, trace, model, own
        self.finished = threading.Event()
        self.finished.set()
        self.seen = 0.0

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it takes."""
        return self.trace.nbytes


class Carried:
    """What visitors took along.

    Args:
        keeper: says how much of everything is kept, in bytes; its profile, how many of these, and how long.
    """

    def __init__(self, keeper: Keeper, clock: Callable[[], float] = time.monotonic) -> None:
        self._keeper, self._clock = keeper, clock
        self._lock = threading.Lock()
        self._runs: OrderedDict[str, CarriedRun] = OrderedDict()

    @property
    def _profile(self) -> Profile:
        return self._keeper.profile

    def __len__(self) -> int:
        return len(self._runs)

    def take(self, run: CarriedRun) -> None:
        """Take a run along; what nobody looked at for long goes."""
        with self._lock:
            run.seen = self._clock()
            self._runs[run.run] = run
            self._runs.move_to_end(run.run)
            late = [old for old in self._runs.values() if run.seen - old.seen > self._profile.carried_seconds]
            late += list(self._runs.values())[: max(0, len(self._runs) - len(late) - self._profile.carried_runs)]
        for old in late:
            self._drop(old)
        self._keeper.enter(run, self._drop)

    def get(self, run: Any) -> CarriedRun | None:
        """A run by its id, which is not trusted; None for one that was not taken along, or was kept long enough."""
        found = self._runs.get(run) if isinstance(run, str) else None
        if found is None:
            return None
        if self._clock() - found.seen > self._profile.carried_seconds:
            self._drop(found)
            return None
        with self._lock:
            found.seen = self._clock()
            if run in self._runs:
                self._runs.move_to_end(run)
        self._keeper.touch(found)
        return found

    def _drop(self, run: CarriedRun) -> None:
        with self._lock:
            if self._runs.get(run.run) is run:
                del self._runs[run.run]
        self._keeper.leave(run)
