"""What a page asked for and may take back: also work that still waits for its turn, which no run knows of yet."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

KEEP = 256  # tickets taken back that are remembered
LONGEST = 64  # characters


class Tickets:
    """The tickets taken back. A page makes up a ticket for each thing it asks for, and names it to end that thing."""

    def __init__(self, keep: int = KEEP) -> None:
        self._keep = keep
        self._lock = threading.Lock()
        self._back: OrderedDict[str, None] = OrderedDict()

    def cancel(self, ticket: Any) -> None:
        """Take a ticket back; what is no ticket is ignored."""
        if not isinstance(ticket, str) or not 0 < len(ticket) <= LONGEST:
            return
        with self._lock:
            self._back[ticket] = None
            while len(self._back) > self._keep:
                self._back.popitem(last=False)

    def cancelled(self, ticket: str) -> bool:
        """Whether it was taken back."""
        return ticket in self._back
