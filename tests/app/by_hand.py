"""What stands in for a server's own: timers that go off when a test says so, one model instead of all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar


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


def only(loaded: Any) -> Callable[..., Any]:
    """What loads models of a room: this one by the name of "tiny", and none other."""

    def load(name: str, progress: Callable[..., None], local: bool) -> Any:
        progress("weights", 0.5)
        if name != "tiny":
            raise ValueError(f"checkpoint {name!r}: no such file or folder")
        return loaded

    return load


def needs_of(places: Any, monkeypatch: Any) -> list[float]:
    """The bytes that each who joins a line says to need, from now on."""
    joined, found = places.join, []

    def join(page: str, visitor: Any = None, **how: Any) -> Any:
        found.append(how.get("need", 0.0))
        return joined(page, visitor, **how)

    monkeypatch.setattr(places, "join", join)
    return found
