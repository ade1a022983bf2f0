"""What a page asked to begin, and whether that still holds: a later start of the same page takes the place of the former.

A page numbers its starts, for requests may overtake each other: the highest number is the newest wish, whenever it
comes. Nothing here knows what is started. Free of Gradio and torch.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

from loopviz.app.profile import LOCAL
from loopviz.checks import is_whole

LONGEST = 64  # characters of a ticket
MOST_NUMBER = 2**53  # what a page's script can count to


def number(asked: Any) -> int | None:
    """The number of a start as a page's script sends it, or None."""
    return asked if is_whole(asked) and 0 < asked <= MOST_NUMBER else None


def is_ticket(asked: Any) -> bool:
    """Whether this can name one page's start; "" names nobody's, so that nothing is ended by it."""
    return isinstance(asked, str) and 0 < len(asked) <= LONGEST


class Start:
    """One thing a page asked to begin.

    Attributes:
        n: its number among the page's starts.
        over: set once it is to end: a later one has begun, it was stopped, or the visitor has left.
        replaced: whether a later one has begun: nothing is to be said any more.
    """

    def __init__(self, n: int, ticket: str = "") -> None:
        self.n, self.ticket = n, ticket
        self.over = threading.Event()
        self.replaced = False


class Starts:
    """The newest start of each page, by its session. Its methods may be called from any thread."""

    def __init__(self, keep: int = LOCAL.pages) -> None:
        self._keep = keep
        self._lock = threading.Lock()
        self._newest: OrderedDict[str, Start] = OrderedDict()
        self._halted: OrderedDict[str, int] = OrderedDict()  # by session: starts up to this number are not wanted
        self._back: OrderedDict[str, None] = OrderedDict()  # tickets taken back

    def begin(self, session: str, n: int | None = None, ticket: str = "") -> Start:
        """A page asks for something: what it asked for before is over. So is this one, if it comes too late.

        Args:
            n: its number; None for the next.
            ticket: the page's own unguessable name for it, by which it can be ended without a session.
        """
        with self._lock:
            last = self._newest.get(session)
            start = Start((0 if last is None else last.n) + 1 if n is None else n, ticket)
            if last is not None and start.n <= last.n:  # overtaken by a later one
                start.replaced = True
                start.over.set()
                return start
            if last is not None:
                last.replaced = True
                last.over.set()
            if self._halted.get(session, 0) >= start.n or (ticket and ticket in self._back):
                start.over.set()
            self._newest[session] = start
            self._trim(self._newest, session)
            return start

    def stop(self, session: str, n: int | None = None) -> None:
        """End what the session asked for, up to number `n`: also what is still on its way here."""
        with self._lock:
            last = self._newest.get(session)
            if n is not None:
                self._halted[session] = max(n, self._halted.get(session, 0))
                self._trim(self._halted, session)
            if last is not None and (n is None or last.n <= n):
                last.over.set()

    def cancel(self, ticket: Any) -> None:
        """End what was asked for by this ticket, also when it is still on its way; what is no ticket is ignored."""
        if not is_ticket(ticket):
            return
        with self._lock:
            self._back[ticket] = None
            self._trim(self._back, ticket)
            for start in self._newest.values():
                if start.ticket == ticket:
                    start.over.set()

    def leave(self, session: str) -> None:
        """A visitor left: nothing they asked for is wanted any more."""
        with self._lock:
            self._halted.pop(session, None)
            last = self._newest.get(session)
            if last is not None:
                last.replaced = True
                last.over.set()

    def _trim(self, kept: OrderedDict[str, Any], newest: str) -> None:
        kept.move_to_end(newest)
        while len(kept) > self._keep:
            kept.popitem(last=False)
