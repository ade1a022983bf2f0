"""The places in which runs are made, on all pages together, and the line before them: first come, first served.

Gradio's own queue says nothing to those who wait in it, and nobody can leave it by a word; this one does both. Free of
Gradio and torch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from loopviz.app.profile import LOCAL

_LOOK = 0.2  # seconds between two looks at whether somebody who waits has gone


class Ahead(NamedTuple):
    """Who is before one in the line: how many wait, and on which pages those run that have a place."""

    waiting: int
    running: tuple[str, ...]


class Taken(NamedTuple):
    """How many have a place, and how many wait for one."""

    running: int
    waiting: int


class LineFull(Exception):
    """Nobody more can wait: as many do as may."""


class Places:
    """The places of one server.

    Args:
        most: runs made at a time.
        longest: that may wait for a place; None: any number.
    """

    def __init__(self, most: int = LOCAL.runs_at_once, longest: int | None = None) -> None:
        self.most, self.longest = most, longest
        self._changed = threading.Condition()
        self._line: list[Place] = []  # those with a place, then those who wait, in the order in which they came

    @contextmanager
    def join(self, page: str) -> Iterator[Place]:
        """Stand in line, and leave it, or the place, however the block ends. `page`: where from, a key of `PAGES`.

        Raises LineFull when as many wait as may.
        """
        place = Place(self, page)
        with self._changed:
            if self.longest is not None and len(self._line) >= self.most + self.longest:
                raise LineFull
            self._line.append(place)
        leave = place.keep()
        try:
            yield place
        finally:
            leave()

    def taken(self) -> int:
        """How many places are taken now."""
        return self.now().running

    def now(self) -> Taken:
        """How many have a place, and how many wait for one."""
        with self._changed:
            running = min(len(self._line), self.most)
            return Taken(running, len(self._line) - running)


class Place:
    """One who stands in line, or has a place."""

    def __init__(self, places: Places, page: str) -> None:
        self._places = places
        self.page = page
        self._kept: set[object] = set()  # by those who still need it

    def keep(self) -> Callable[[], None]:
        """Have it until what is returned is called: work in another thread may outlast the block that joined the line."""
        mark = object()
        with self._places._changed:
            self._kept.add(mark)

        def leave() -> None:
            with self._places._changed:
                self._kept.discard(mark)
                if not self._kept and self in self._places._line:
                    self._places._line.remove(self)
                    self._places._changed.notify_all()

        return leave

    def ahead(self) -> Ahead | None:
        """Who is before this one; None once it has a place."""
        with self._places._changed:
            before = self._places._line[: self._places._line.index(self)]
        if len(before) < self._places.most:
            return None
        return Ahead(len(before) - self._places.most, tuple(place.page for place in before[: self._places.most]))

    def wait(self, gone: Callable[[], bool]) -> Iterator[Ahead]:
        """Wait for a place, or until `gone()`; meanwhile each new state of the line."""
        said = None
        while (ahead := self.ahead()) is not None and not gone():
            if ahead != said:
                said = ahead
                yield ahead
            with self._places._changed:
                self._places._changed.wait(_LOOK)
