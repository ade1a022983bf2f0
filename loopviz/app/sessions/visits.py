"""Whose a session is: each tab of a browser, and each call of a program, has a session of its own; who waits is a visitor.

A browser's script makes up a name once and says it with whatever it begins (`assets/web/core/visitor.js`). It is asked for nothing but
the line (:mod:`loopviz.app.sessions.waiting_line`), written nowhere and sent to nobody. Who says none is known by the address.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

from loopviz.app.profile import LOCAL
from loopviz.app.sessions.fair_share import Visitor
from loopviz.app.sessions.tickets import is_ticket


class Visits:
    """The visitors of sessions. Its methods may be called from any thread.

    Args:
        keep: sessions that are remembered; those that were met first go first.
    """

    def __init__(self, keep: int = LOCAL.pages) -> None:
        self._keep = keep
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Visitor] = OrderedDict()

    def meet(self, session: str, name: Any, address: str) -> None:
        """A session asks for something, in a browser of this name; what is no name is none."""
        with self._lock:
            self._known[session] = Visitor(name if is_ticket(name) else "", address)
            self._known.move_to_end(session)
            while len(self._known) > self._keep:
                self._known.popitem(last=False)

    def of(self, session: str) -> Visitor:
        """Whose a session is; of one that nobody has met, its own."""
        with self._lock:
            return self._known.get(session) or Visitor(session, "")

    def leave(self, session: str) -> None:
        """A visitor has closed a page."""
        with self._lock:
            self._known.pop(session, None)
