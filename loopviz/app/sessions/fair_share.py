"""Who is next for a place: a visitor who has used little of late goes before one who has used much.

One sentence holds the rule: every second of a place that a visitor has had costs about a second of waiting, and is forgotten by and
by. So a heavy visitor with many tabs goes behind those who come now and then, however many of theirs wait; those who have used
equally little go in the order in which they came; and nobody is passed for ever, for what a visitor owes has an upper end.

Plain arithmetic: whoever asks says what time it is. Free of threads, Gradio and torch.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Iterable
from statistics import median
from typing import NamedTuple

HALF_LIFE = 120.0  # seconds after which half of what was used is forgotten
CROWD = 4  # what all visitors of an address have used counts so much less than what one has: behind it may be a school, or one who forges names
OWED = 240.0  # seconds of waiting that use costs, at most: nobody who comes later than that after another passes them
LATER = 60.0  # seconds of waiting that it costs to be a measurement or comparison, which others go before
REST = 5.0  # seconds for which what has just got a place keeps it, whoever waits
PASSED = 4  # others that are given memory before one for which there was not enough; then it is kept for that one
_IDLE = 0.5  # seconds of use that are as none
_RECENT = 15  # of a kind, by which the next is guessed
_KEPT = 1_000  # visitors of whom more than that is remembered


class Visitor(NamedTuple):
    """Whose something is: several tabs of one browser are one visitor, and so are all programs of an address.

    Attributes:
        name: the browser's own, which it made up itself; "": a program's, or not known.
        address: where it is; "": not known, and nobody else's.
    """

    name: str
    address: str


class _Meter:
    """Place-seconds, which fade, and go on as long as places are held."""

    def __init__(self, now: float) -> None:
        self.held, self.ended = 0, -math.inf  # places now; when one was given back last
        self._used, self._at = 0.0, now

    def read(self, now: float) -> float:
        rate = math.log(2) / HALF_LIFE
        fades = math.exp(-rate * max(0.0, now - self._at))
        return self._used * fades + self.held * (1 - fades) / rate

    def hold(self, places: int, now: float) -> None:
        self._used, self._at = self.read(now), now
        self.held += places


class Shares:
    """What visitors have used of a server's places of late. Times are seconds of any clock that does not go back."""

    def __init__(self) -> None:
        self._meters: dict[Visitor | str, _Meter] = {}  # of visitors, and of addresses

    def begin(self, visitor: Visitor, now: float) -> None:
        """A visitor is given a place."""
        if len(self._meters) > _KEPT:
            self._forget(now)
        for key in _keys(visitor):
            meter = self._meters.setdefault(key, _Meter(now))
            meter.hold(1, now)

    def end(self, visitor: Visitor, now: float) -> None:
        """... and gives one back."""
        for key in _keys(visitor):
            self._meters[key].hold(-1, now)
            self._meters[key].ended = now

    def owed(self, visitor: Visitor, now: float) -> float:
        """Seconds of waiting that a visitor's use of late costs."""
        own, near = (self._meters.get(key) for key in (visitor, visitor.address))
        used = own.read(now) if own else 0.0
        around = max(0.0, near.read(now) - used) if near else 0.0
        return min(OWED, used + around / CROWD)

    def rank(self, visitor: Visitor, came: float, now: float, later: bool = False) -> float:
        """The least is next: what is owed, less the time waited for.

        Args:
            came: when it began to wait; it waits for its turn since then, or since the same visitor gave a place back: who has one
                does not wait, and no visitor has several turns at once.
            later: whether it is of those that others go before.
        """
        meter = self._meters.get(visitor)
        since = came if meter is None else now if meter.held else max(came, meter.ended)
        return self.owed(visitor, now) + LATER * later - (now - since)

    def _forget(self, now: float) -> None:
        """Who has used nothing that counts is a stranger again."""
        gone = [key for key, meter in self._meters.items() if not meter.held and meter.read(now) < _IDLE]
        for key in gone:
            del self._meters[key]


def _keys(visitor: Visitor) -> list[Visitor | str]:
    """What a visitor's use is counted as."""
    return [visitor, visitor.address] if visitor.address else [visitor]


class Lengths:
    """How long what is made takes: by its own estimate, held against what the last ones of its kind took.

    What every one of them costs beside its work (to begin, to be sent and drawn) is kept apart from how fast the work goes: most of a short
    one is the former, and a long one is not so many times slower. Both come of the last ones by medians (Theil and Sen), which a few that
    were stopped early do not move.
    """

    def __init__(self) -> None:
        self._took: dict[str, deque[tuple[float | None, float]]] = {}  # by kind: estimates, and seconds

    def took(self, kind: str, seconds: float, estimate: float | None) -> None:
        """One of a kind has taken so long, and was estimated to."""
        self._took.setdefault(kind, deque(maxlen=_RECENT)).append((estimate or None, seconds))

    def of(self, kind: str, estimate: float | None) -> float | None:
        """Seconds that one of a kind is likely to take; None: nothing is known of it."""
        took = self._took.get(kind, ())
        if estimate is None:
            return median(seconds for _, seconds in took) if took else None
        known = [(thought, seconds) for thought, seconds in took if thought is not None]
        slopes = [
            (seconds - less) / (thought - small)
            for (small, less), (thought, seconds) in itertools.combinations(sorted(known), 2)
            if thought >= 2 * small  # of two that are alike the difference says nothing
        ]
        if slopes:
            rate = max(0.0, median(slopes))
            return max(0.0, median(seconds - rate * thought for thought, seconds in known)) + rate * estimate
        return median(_by_one(estimate, *one) for one in known) if known else estimate

    @staticmethod
    def left(length: float | None, held: float) -> float | None:
        """Seconds that it still takes, when it has taken `held`; None of what takes far longer than was thought."""
        if length is None or held > 2 * length + 1:
            return None
        return max(length - held, 1.0, length / 10)


def _by_one(estimate: float, thought: float, seconds: float) -> float:
    """What one other says of an estimate: slower by as many seconds or by the same factor, whichever is less; faster by the factor."""
    factor = estimate * seconds / thought
    return min(factor, estimate + seconds - thought) if seconds > thought else factor


def expected(running: Iterable[float | None], waiting: Iterable[float | None]) -> float | None:
    """Seconds until a place is free for the one behind these; None where that is not known.

    Args:
        running: of each place, the seconds until it is free.
        waiting: of each who is before, first come first, the seconds that theirs will take.
    """
    free = [math.inf if seconds is None else seconds for seconds in running]
    heapq.heapify(free)
    for seconds in waiting:
        if free:
            heapq.heapreplace(free, free[0] + (math.inf if seconds is None else seconds))
    return free[0] if free and math.isfinite(free[0]) else None
