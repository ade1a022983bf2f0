"""How long models took to load the last time, so that who waits for one is told what to expect; kept over a restart of the server.

It lies where stored runs do (`LOOPVIZ_STORE`): the one folder of a server that outlives it. Without one, or where it cannot be
written, a server knows what itself has seen. Only models of the server's list are written down, never what a visitor named.
"""

from __future__ import annotations

import contextlib
import json
import math
import threading
from pathlib import Path

from loopviz import outputs

FILE = "load_times.json"
FIRST, LATER = "first", "later"  # what a process loads first waits for PyTorch too


class LoadTimes:
    """Seconds that loading each model took last, by whether it was the process's first. From any thread.

    Args:
        folder: where they are kept; "": nowhere.
    """

    def __init__(self, folder: str) -> None:
        self._path = Path(folder) / FILE if folder else None
        self._lock = threading.Lock()
        self._found: dict[str, dict[str, float]] | None = None

    def last(self, name: str, first: bool) -> float | None:
        """What it took the last time; None: not known."""
        with self._lock:
            return self._read()[FIRST if first else LATER].get(name)

    def took(self, name: str, first: bool, seconds: float) -> None:
        """It has been loaded. What cannot be written is known to this process alone."""
        with self._lock:
            found = self._read(anew=True)  # the rooms of a server share the file
            found[FIRST if first else LATER][name] = round(seconds, 1)
            if self._path is not None:
                with contextlib.suppress(OSError):
                    self._path.parent.mkdir(parents=True, exist_ok=True)
                    outputs.write_text(self._path, json.dumps(found, indent=1))

    def _read(self, anew: bool = False) -> dict[str, dict[str, float]]:
        """What is known: the file's, as far as it holds what it should, and what this process has seen."""
        if self._found is None or anew:
            kept: object = None
            if self._path is not None:
                with contextlib.suppress(OSError, ValueError):
                    kept = json.loads(self._path.read_text("utf-8"))
            before = self._found or {}
            told = kept if isinstance(kept, dict) else {}
            self._found = {kind: before.get(kind, {}) | _times(told.get(kind)) for kind in (FIRST, LATER)}
        return self._found


def _times(kept: object) -> dict[str, float]:
    told = kept.items() if isinstance(kept, dict) else ()
    return {name: float(value) for name, value in told if _is_time(value)}


def _is_time(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
