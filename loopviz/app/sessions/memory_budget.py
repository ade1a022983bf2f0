"""What a server keeps of its visitors' work, in bytes: runs, comparisons, measurements and opened files together.

Each page has its own list of what it keeps (:class:`loopviz.app.sessions.registry.Registry`); what they keep is weighed
here, also while it is still being made, and when it is too much the least needed goes: what is finished and on nobody's
screen, then what is finished and was looked at least recently. What is being made never goes; it is told to end when it is
more than one may be. Free of Gradio and torch.
"""

from __future__ import annotations

import ctypes
import functools
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from loopviz.app.profile import LOCAL, Profile

_TRIM_EVERY = 2.0  # seconds between two times that freed memory is given back


class Kept(Protocol):
    """What can be kept."""

    id: str
    session: str
    finished: threading.Event

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it takes now."""


@dataclass
class _Place:
    item: Kept
    let_go: Callable[[Any], None]
    nbytes: int = 0


class Keeper:
    """What is kept by one server.

    Args:
        profile: says how much.
    """

    def __init__(self, profile: Profile = LOCAL) -> None:
        self.profile = profile
        self._lock = threading.RLock()
        self._places: OrderedDict[str, _Place] = OrderedDict()  # what was looked at last comes last
        self._total = 0
        self._owed, self._trimmed = False, -_TRIM_EVERY  # whether memory is to be given back; when it was

    @property
    def total(self) -> int:
        """Bytes of all that is kept, as last weighed."""
        return self._total

    def enter(self, item: Kept, let_go: Callable[[Any], None]) -> bool:
        """Keep `item` from now on; else as :meth:`weigh`.

        Args:
            item: a run, finished or not.
            let_go: called with it when it goes to make room.
        """
        with self._lock:
            self._pop(item.id)  # the same one once more: what was there counts no longer
            self._places[item.id] = _Place(item, let_go)
        return self.weigh(item)

    def touch(self, item: Kept) -> None:
        """Its visitor looks at it: it is weighed, and goes later than others."""
        with self._lock:
            if self._place(item) is not None:
                self._places.move_to_end(item.id)
        if item.finished.is_set():
            self.weigh(item)

    def leave(self, item: Kept) -> None:
        """It is kept no longer."""
        with self._lock:
            found = None if self._place(item) is None else self._pop(item.id)
        if found is not None:
            self._give_back()

    def weigh(self, item: Kept) -> bool:
        """Weigh `item` again, and let go of others when all is too much.

        Returns:
            Whether it may grow on: False when it alone is more than one may be, or nothing more could be let go.
        """
        nbytes, gone = item.nbytes, []
        with self._lock:
            place = self._place(item)
            if place is None:  # not kept any more; it may be on its way to its end
                return nbytes <= self.profile.run_bytes
            self._total += nbytes - place.nbytes
            place.nbytes = nbytes
            for victim in self._victims(item) if self._total > self.profile.kept_bytes else ():
                gone.append(victim)
                self._pop(victim.item.id)
                if self._total <= self.profile.kept_bytes:
                    break
            fits = self._total <= self.profile.kept_bytes and nbytes <= self.profile.run_bytes
        for victim in gone:
            victim.let_go(victim.item)
        self._give_back(bool(gone))
        return fits

    def _place(self, item: Kept) -> _Place | None:
        """Where it is kept; None once it is not, also when another has come by its id."""
        found = self._places.get(item.id)
        return None if found is None or found.item is not item else found

    def _pop(self, key: str) -> _Place | None:
        found = self._places.pop(key, None)
        self._total -= 0 if found is None else found.nbytes
        return found

    def settled(self, item: Kept) -> None:
        """It is finished: weighed a last time, and what making it took is given back."""
        self.weigh(item)
        self._give_back()

    def _victims(self, item: Kept) -> list[_Place]:
        """What can go, the least needed first; `item`, which has just been asked for, not."""
        seen = {place.item.session: key for key, place in self._places.items()}  # the last of each visitor's
        done = [
            (key, place)
            for key, place in self._places.items()
            if place.item.finished.is_set() and place.item is not item
        ]
        hidden = [place for key, place in done if seen[place.item.session] != key]
        return hidden + [place for key, place in done if seen[place.item.session] == key]

    def _give_back(self, freed: bool = True) -> None:
        """Return freed memory to the system: the C library keeps what many small objects leave between others.

        Not more often than it is worth; what is put off is done as the next is weighed, looked at or begun.
        """
        with self._lock:
            self._owed = self._owed or freed
            now = time.monotonic()
            if not self._owed or now - self._trimmed < _TRIM_EVERY:
                return
            self._owed, self._trimmed = False, now
        if (trim := _trimmer()) is not None:
            trim(0)


@functools.cache
def _trimmer() -> Any:
    """glibc's `malloc_trim`; None where there is none."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
