"""What worker processes are asked to do in tests: importable by its name in a fresh process."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace
from typing import Any

FOR_EVER = 3600


def double(number: int) -> tuple[int, int]:
    return 2 * number, os.getpid()


def die(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(FOR_EVER)


def raise_error() -> None:
    raise RuntimeError("not caught by the job itself")


def sleep(note: str) -> None:
    """Tell the process id in a file, then go on for ever."""
    partial = f"{note}.part"
    with open(partial, "w") as file:
        file.write(str(os.getpid()))
    os.replace(partial, note)
    time.sleep(FOR_EVER)


def watched_without_the_systems_help(note: str, pipe: Any) -> None:
    """A process that looks after its parent as it would where there is no PR_SET_PDEATHSIG."""
    from loopviz.lab import workers

    workers.sys = SimpleNamespace(platform="elsewhere")
    workers._end_with_parent()
    sleep(note)
