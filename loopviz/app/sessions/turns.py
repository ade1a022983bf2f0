"""Taking turns: as long as others run too, a visitor's own runs are made one at a time, and none takes more time than the others'.

Runs of one model share passes, and each is a row of them: a visitor with fifteen tabs would have fifteen rows beside everybody else's
one, and measurements with passes of their own on top. So whoever has a place computes at once only as long as no other visitor does; then
it is one of hers at a time, for :data:`TURN` seconds, first come first; her measurements and comparisons wait until none of her runs
computes.

And time is shared by visitor (fair queueing by virtual time: Goyal, Vin and Cheng, "Start-time Fair Queueing", SIGCOMM 1996): every
step costs the seconds that it took, divided by the runs whose pass it was; who has had :data:`AHEAD` seconds more than another who
computes too waits until that one has caught up. So a run of 64 loops, whose passes nobody shares, is a sixth of the work beside five others, and
not a half. Who comes back has saved nothing up.

What waits for its turn keeps its place, its memory and all that it has made.

Free of Gradio and torch.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import closing, nullcontext
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from loopviz.app.sessions.fair_share import Visitor

TURN = 0.5  # seconds; a pass waits a little for the runs of the one before, so that to change at every token would cost all a pause
AHEAD = 1.0  # seconds of computing that a visitor may be ahead of another: a long prompt is read at once
AWAY = 0.1  # seconds after which one that has the turn, and computes nothing (its page reads slowly), has it no more
_LOOK = 0.05  # seconds between two looks at whether the turn has come
T = TypeVar("T")


class _Lane:
    """What of one visitor's takes turns with each other.

    Attributes:
        used: seconds of computing that it has had, on the clock of all lanes.
    """

    def __init__(self) -> None:
        self.used = 0.0
        self.computing: set[Turn] = set()
        self.waiting: deque[Turn] = deque()
        self.first: Turn | None = None  # whose turn it is
        self.since, self.left = 0.0, -math.inf  # when it became that; when one last stopped computing

    def idle(self, now: float) -> bool:
        """Whether nothing in it computes, or will in a moment."""
        return not self.computing and not self.waiting and now - self.left >= AWAY


class Turns:
    """The turns of all visitors.

    Args:
        clock: seconds; for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._virtual = 0.0  # what each that computes has had at least: who comes begins there
        self._lanes: WeakValueDictionary[tuple[Visitor, bool], _Lane] = WeakValueDictionary()  # held by their turns

    def lane(self, visitor: Visitor, later: bool) -> _Lane:
        """Where a visitor's runs, or what lets runs go before (`later`), take their turns."""
        with self._changed:
            return self._lanes.setdefault((visitor, later), _Lane())

    def _least(self, turn: Turn, now: float) -> float:
        """What the other visitors that compute now have had at least; those whom it lets go before, or that wait as it does."""
        lanes = [(visitor, later, lane) for (visitor, later), lane in self._lanes.items() if not lane.idle(now)]
        running = {visitor for visitor, later, _ in lanes if not later}
        used = [
            lane.used
            for visitor, later, lane in lanes
            # what waits for its own visitor's runs catches up with nobody
            if visitor != turn.visitor and not (later and (turn.before is None or visitor in running))
        ]
        return min(used, default=math.inf)

    def _may(self, turn: Turn) -> bool:
        """Whether it may compute now."""
        lane, now = turn.lane, self._clock()
        if not turn.beside():
            return True
        if lane.used > self._least(turn, now) + AHEAD:
            return False
        if lane.computing or (turn.before is not None and not turn.before.idle(now)):
            return False
        over = lane.first is None or now - lane.since >= TURN
        if lane.first is turn:
            return not over or lane.waiting[0] is turn
        return lane.waiting[0] is turn and (over or now - lane.left >= AWAY)

    def enter(self, turn: Turn, gone: Callable[[], bool]) -> None:
        """Wait until it may compute, or `gone()`; what is over may: it ends."""
        lane = turn.lane
        with self._changed:
            if lane.idle(self._clock()):
                lane.used = max(lane.used, self._virtual)
            lane.waiting.append(turn)
            try:
                while not self._may(turn) and not gone():
                    self._changed.wait(_LOOK)
            finally:
                lane.waiting.remove(turn)
            lane.computing.add(turn)
            self._virtual = max(self._virtual, min(lane.used, self._least(turn, self._clock())))
            if lane.first is not turn or self._clock() - lane.since >= TURN:
                lane.first, lane.since = turn, self._clock()

    def leave(self, turn: Turn, cost: float) -> None:
        """It computes no more, for now; `cost`: seconds of computing that it had."""
        lane = turn.lane
        with self._changed:
            lane.computing.discard(turn)
            lane.used += cost
            if not turn.beside():  # what nobody else wanted is owed to nobody
                self._virtual = max(self._virtual, lane.used)
            lane.left = self._clock()
            if lane.waiting:
                self._changed.notify_all()


class Turn:
    """The turns of one run, comparison or measurement.

    Args:
        later: whether its visitor's runs go before it.
        beside: whether others run too.

    Attributes:
        waited: seconds, in all.
    """

    def __init__(self, turns: Turns, visitor: Visitor, later: bool, beside: Callable[[], bool]) -> None:
        self._turns, self.visitor, self.beside, self.waited = turns, visitor, beside, 0.0
        self.lane = turns.lane(visitor, later)
        self.before = turns.lane(visitor, False) if later else None

    def of(
        self, made: Iterable[T], gone: Callable[[], bool], runs: Callable[[T], int] = lambda step: 1
    ) -> Generator[T, None, None]:
        """What is made, one after the other, each in a turn; closing this closes `made`.

        Args:
            gone: whether it is over: then it waits for no turn.
            runs: by how many what it took was shared.
        """
        steps: Any = iter(made)
        with closing(steps) if hasattr(steps, "close") else nullcontext():
            while True:
                began = time.monotonic()
                self._turns.enter(self, gone)
                entered = time.monotonic()
                self.waited += entered - began
                shared = 1
                try:
                    step = next(steps)
                    shared = runs(step)
                except StopIteration:
                    return
                finally:
                    self._turns.leave(self, (time.monotonic() - entered) / shared)
                yield step
