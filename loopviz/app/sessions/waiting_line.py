"""The places in which runs are made, on all pages together, and the line before them: a fair one, by visitor and not by click.

Who is next says :mod:`loopviz.app.sessions.fair_share`. Gradio's own queue says nothing to those who wait in it, and nobody can
leave it by a word; this one does both. Free of Gradio and torch.

A place is one thing, memory for what is made in it another: what runs at the same time shares a number of bytes, and one that does not
fit into what is left of them is passed by those that do, a few times and no more. What is made alone always fits.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from loopviz.app.profile import LOCAL
from loopviz.app.sessions.fair_share import LATER, PASSED, REST, Lengths, Shares, Visitor, expected
from loopviz.app.sessions.turns import Turn, Turns

_LOOK = 0.2  # seconds between two looks at whether somebody who waits has gone
_COUNT = 1.0  # seconds between two looks at how long it still takes
_NAMES = itertools.count()


class Ahead(NamedTuple):
    """Who is before one in the line: how many wait, on which pages those run that have a place; and how long it is likely to take.

    Attributes:
        seconds: until its turn, as coarse as such a guess is (:func:`rounded`); None: not known.
        gave_way: whether it had a place, and let another go before.
        memory: whether a place is free for it, and only memory is not.
        own: whether as many of its visitor's own have a place as may: it waits for one of these.
    """

    waiting: int
    running: tuple[str, ...]
    seconds: float | None = None
    gave_way: bool = False
    memory: bool = False
    own: bool = False


class Taken(NamedTuple):
    """How many have a place, and how many wait for one."""

    running: int
    waiting: int


class LineFull(Exception):
    """Nobody more can wait: as many do as may, or as many of this visitor, or of this address.

    Attributes:
        waiting: how many.
        own: whether these are the visitor's own.
    """

    def __init__(self, waiting: int = 0, own: bool = False) -> None:
        super().__init__(waiting)
        self.waiting, self.own = waiting, own


def rounded(seconds: float) -> float:
    """A guess at a time to wait: in steps as coarse as it is."""
    step = 1 if seconds < 10 else 5 if seconds < 60 else 30
    return max(step, round(seconds / step) * step)


class Places:
    """The places of one server.

    Args:
        most: runs made at a time.
        longest: that may wait for a place; None: any number. No visitor, and no address, has more of them than would leave as much
            room for others.
        clock: seconds; for tests.
        most_later: of the runs made at a time, how many may be of those that others go before: each of these has passes of its own,
            while runs of one model share theirs; None: any number.
        share: bytes that what is made may need together; None: any number.
        most_own: places that one visitor may have at a time; None: all of them.
    """

    def __init__(
        self,
        most: int = LOCAL.runs_at_once,
        longest: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        most_later: int | None = None,
        share: float | None = None,
        most_own: int | None = None,
    ) -> None:
        self.most, self.longest, self._clock = most, longest, clock
        self.share = math.inf if share is None else share
        self.most_later = most if most_later is None else most_later
        self.most_own = most if most_own is None else most_own
        self._changed = threading.Condition()
        self._have: list[Place] = []
        self._line: list[Place] = []  # in the order in which they came
        self._hold: set[Place] = set()  # memory: who has a place, and who has given it up for a while
        self._shares, self._lengths = Shares(), Lengths()
        self._turns = Turns()

    @contextmanager
    def join(
        self,
        page: str,
        visitor: Visitor | None = None,
        *,
        later: bool = False,
        seconds: float | None = None,
        need: float = 0.0,
    ) -> Iterator[Place]:
        """Stand in line, and leave it, or the place, however the block ends.

        Args:
            page: where from, a key of `PAGES`.
            visitor: whose it is; None: nobody else's.
            later: whether others go before it, and it lets them while it is made (:meth:`Place.give_way`).
            seconds: that it is estimated to take; None: not known.
            need: bytes that it needs while it is made.

        Raises:
            LineFull: when as many wait as may.
        """
        place = Place(self, page, visitor or Visitor(f"{next(_NAMES)}", ""), later, seconds, need)
        with self._changed:
            self._admit(place, visitor is not None)
            place.came = self._clock()
            self._line.append(place)
            self._fill()
        leave = place.keep()
        try:
            yield place
        finally:
            leave()

    def _full_of(self, visitor: Visitor) -> bool:
        """Whether a visitor has as many places as one may."""
        return self.most_own < self.most and sum(place.visitor == visitor for place in self._have) >= self.most_own

    def _open(self, place: Place) -> bool:
        """Whether a place is free for one, by its kind and its visitor."""
        taken = sum(each.later for each in self._have)
        free = len(self._have) < self.most and not (place.later and taken >= self.most_later)
        return free and not self._full_of(place.visitor)

    def _fits(self, place: Place) -> bool:
        """Whether memory does for one; it does for what holds its own already, and for what is made alone."""
        if place in self._hold or not place.need:
            return True
        taken = sum(each.need for each in self._hold)
        return not taken or taken + place.need <= self.share

    def _kept(self, place: Place, before: Iterable[Place]) -> bool:
        """Whether memory that one would take is kept for one of those that wait `before` it, which has been passed often enough."""
        return place.need > 0 and place not in self._hold and any(other.passed >= PASSED for other in before)

    def _admit(self, place: Place, known: bool) -> None:
        """Raises LineFull; `known`: whether its visitor is."""
        visitor = place.visitor
        if self.longest is None or (self._open(place) and self._fits(place) and not self._kept(place, self._line)):
            return
        room = self.longest - len(self._line)
        if room <= 0:
            raise LineFull(len(self._line))
        if not known:
            return
        own = sum(place.visitor == visitor for place in self._line)
        if own >= room:
            raise LineFull(own, own=True)
        if visitor.address and sum(place.visitor.address == visitor.address for place in self._line) >= room:
            raise LineFull(len(self._line))

    def _order(self) -> list[Place]:
        """Those who wait, the next first."""
        now = self._clock()
        return sorted(self._line, key=lambda place: self._shares.rank(place.visitor, place.came, now, place.later))

    def _next(self) -> Place | None:
        """Who is given a place: the first for whom one is free and memory does; None where there is nobody.

        One for which memory does not do is passed by those behind it, and after `PASSED` of them by nobody who takes memory: what runs ends,
        and leaves it what they would have taken.
        """
        passed: list[Place] = []
        for one in self._order():
            if not self._open(one):
                continue
            if self._kept(one, passed):
                continue
            if self._fits(one):
                for other in passed if one.need and one not in self._hold else ():
                    other.passed += 1
                return one
            passed.append(one)
        return None

    def _fill(self) -> None:
        """Give what is free to those who are next."""
        while self._line and len(self._have) < self.most and (place := self._next()) is not None:
            self._line.remove(place)
            self._have.append(place)
            self._hold.add(place)
            place.given = self._clock()
            self._shares.begin(place.visitor, place.given)
        self._changed.notify_all()

    def _release(self, place: Place) -> None:
        """A place is free again."""
        self._have.remove(place)
        now = self._clock()
        self._shares.end(place.visitor, now)
        place.held += now - place.given

    def _leave(self, place: Place) -> None:
        self._hold.discard(place)
        if place in self._have:
            self._release(place)
            self._lengths.took(place.page, place.held, place.seconds)
        elif place in self._line:
            self._line.remove(place)
        self._fill()  # of one that was aside, too: it held memory

    def _enough(self, place: Place) -> float | None:
        """Seconds until what ends first has left enough memory for one; None where that is not known."""
        room = self.share - sum(each.need for each in self._hold)
        ends = [(self._left(each), each.need) for each in self._hold]
        for left, need in sorted((math.inf if left is None else left, need) for left, need in ends):
            room += need
            if place.need <= room:
                return left if math.isfinite(left) else None
        return None  # more than the share: when all have ended

    def _left(self, place: Place) -> float | None:
        """Seconds that what has a place, or had one, still takes."""
        if place.left is not None and (told := place.left()) is not None:
            return told
        held = place.held + (self._clock() - place.given if place in self._have else 0.0)
        return Lengths.left(self._lengths.of(place.page, place.seconds), held)

    def taken(self) -> int:
        """How many places are taken now."""
        return self.now().running

    def now(self) -> Taken:
        """How many have a place, and how many wait for one."""
        with self._changed:
            return Taken(len(self._have), len(self._line))


class Place:
    """One who stands in line, or has a place.

    Attributes:
        seconds: that it is estimated to take.
        left: tells the seconds that it still takes, where what is made knows; called from other threads.
        need: bytes that it needs while it is made; it holds them while it lets others go before, too.
        passed: how many have been given memory before it, for which there was not enough.
        turn: while others run too, of one visitor's only one computes at a time.
        came, given: when it began to wait, and got its place; held: seconds that it had one before.
    """

    def __init__(
        self, places: Places, page: str, visitor: Visitor, later: bool, seconds: float | None, need: float
    ) -> None:
        self._places = places
        self.need, self.passed = need, 0
        self.page, self.visitor, self.later, self.seconds = page, visitor, later, seconds
        self.left: Callable[[], float | None] | None = None
        self.came = self.given = self.held = 0.0
        self._kept: set[object] = set()  # by those who still need it
        self.turn = Turn(places._turns, visitor, later, self.beside)

    def beside(self) -> bool:
        """Whether another visitor has a place; beside one that others go before, only what others go before counts it."""
        have = [*self._places._have]  # a copy, and no lock: it is looked at often
        return any(other.visitor != self.visitor and (self.later or not other.later) for other in have)

    def keep(self) -> Callable[[], None]:
        """Have it until what is returned is called: work in another thread may outlast the block that joined the line."""
        mark = object()
        with self._places._changed:
            self._kept.add(mark)

        def leave() -> None:
            with self._places._changed:
                self._kept.discard(mark)
                if not self._kept:
                    self._places._leave(self)

        return leave

    def ahead(self) -> Ahead | None:
        """Who is before this one; None once it has a place."""
        places = self._places
        with places._changed:
            if self not in places._line:
                return None
            order, have = places._order(), places._have
            before = order[: order.index(self)]
            memory = places._open(self)  # a free place goes to who is next: it is not for want of one
            own = places._full_of(self.visitor)
            if own:
                before, have = ([place for place in some if place.visitor == self.visitor] for some in (before, have))
            elif places.most_later < places.most and sum(place.later for place in have) >= places.most_later:
                if self.later:  # it waits for others of its kind alone
                    before, have = ([place for place in some if place.later] for some in (before, have))
                else:  # those that cannot have the next place are passed
                    before = [place for place in before if not place.later]
            if not own:  # those of whom as many have a place as may do not go before anybody else
                before = [place for place in before if not places._full_of(place.visitor)]
            of = places._lengths.of
            lengths = [places._left(place) if place.held else of(place.page, place.seconds) for place in before]
            if memory:
                seconds = None if before else places._enough(self)
            else:
                seconds = expected(map(places._left, have), lengths)
            running = tuple(place.page for place in have)
        return Ahead(len(before), running, None if seconds is None else rounded(seconds), self.held > 0, memory, own)

    def wait(self, gone: Callable[[], bool]) -> Iterator[Ahead]:
        """Wait for a place, or until `gone()`; meanwhile each new state of the line."""
        said, changed = None, self._places._changed
        while (ahead := self.ahead()) is not None and not gone():
            if ahead != said:
                said = ahead
                yield ahead
            looked = time.monotonic()
            with changed:
                while self in self._places._line and not gone() and time.monotonic() - looked < _COUNT:
                    if changed.wait(_LOOK):
                        break  # somebody came, went, or was given a place

    # --- letting others go before ---------------------------------------------------------------------------------

    def wanted(self) -> bool:
        """Whether somebody waits who goes before this, which is one that lets others; not in its first seconds."""
        places = self._places
        if not self.later or not places._line:  # a look that costs nothing: it is taken often
            return False
        with places._changed:
            now = places._clock()
            if self not in places._have or len(places._have) < places.most or now - self.given < REST:
                return False
            own = places._shares.owed(self.visitor, now)
            others = (place for place in places._order() if places._fits(place) and not places._full_of(place.visitor))
            first = next(others, None)  # what this holds it goes on to hold
            return first is not None and not first.later and places._shares.owed(first.visitor, now) < own + LATER

    def give_way(self, gone: Callable[[], bool]) -> Iterator[Ahead]:
        """Where one waits who goes before: give the place up, and wait for one anew. Nothing else happens where none does.

        Yields as :meth:`wait`. Whoever calls it computes nothing meanwhile.
        """
        places = self._places
        with places._changed:
            if not self.wanted():
                return
            places._release(self)
            self.came = places._clock()
            places._line.append(self)
            places._fill()  # to the one who goes before: it owes less than this and LATER
        yield from self.wait(gone)

    def step_aside(self, until: Callable[[], bool], gone: Callable[[], bool]) -> Iterator[Ahead]:
        """Give the place up while nothing is to be computed, until `until()`; then wait for one anew, unless `gone()`.

        Yields as :meth:`wait`. Whoever calls it computes nothing meanwhile.
        """
        places = self._places
        with places._changed:
            if self not in places._have:
                return
            places._release(self)
            places._fill()
        while not until() and not gone():
            time.sleep(_LOOK)
        with places._changed:
            self.came = places._clock()
            places._line.append(self)
            places._fill()
        yield from self.wait(gone)
