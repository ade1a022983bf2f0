"""Timers that go off when a test says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar


class ByHand:
    """Stands in for `threading.Timer`."""

    made: ClassVar[list[ByHand]] = []

    def __init__(self, seconds: float, end: Callable[[], None]) -> None:
        self.seconds, self.fire, self.cancelled, self.daemon = seconds, end, False, False
        ByHand.made.append(self)

    def start(self) -> None:
        """It goes off by hand."""

    def cancel(self) -> None:
        self.cancelled = True
