"""Being asked to stop: SIGTERM, as clusters send it before they take a machine away, ends a command as Ctrl-C does.

What has been made is kept, and the exit code says what came: 130 for Ctrl-C, 143 for SIGTERM, 129 for a closed terminal.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

ENDS = tuple(kind for name in ("SIGTERM", "SIGHUP") if (kind := getattr(signal, name, None)) is not None)


class Terminated(KeyboardInterrupt):
    """A signal other than Ctrl-C's asked the program to end.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def exit_code(error: KeyboardInterrupt) -> int:
    """What a program ended by it exits with, as a shell counts: 128 + the signal's number."""
    return 128 + (error.number if isinstance(error, Terminated) else signal.SIGINT)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextlib.contextmanager
def terminating() -> Iterator[None]:
    """Inside, SIGTERM (and SIGHUP, unless it is ignored, as under nohup) raises :class:`Terminated`, once: a second one
    must not tear what the first one made us save.

    Outside the main thread, where no handler may be set, nothing changes.
    """

    def handle(number: int, frame: Any) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise Terminated(number)

    before = {}
    if _in_main_thread():
        for kind in ENDS:
            if signal.getsignal(kind) in (signal.SIG_DFL, None):
                before[kind] = signal.signal(kind, handle)
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler or signal.SIG_DFL)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Inside, Ctrl-C and SIGTERM wait: for a few milliseconds that must not be torn, as writing a line."""
    if not _in_main_thread():
        yield
        return
    came: list[int] = []
    kinds = (signal.SIGINT, *ENDS)
    before = {}
    for kind in kinds:
        if signal.getsignal(kind) not in (signal.SIG_IGN, None):
            before[kind] = signal.signal(kind, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
        for number in dict.fromkeys(came):
            signal.raise_signal(number)


class Asked(threading.Event):
    """Set when somebody asked the program to end; `error` says how."""

    error: KeyboardInterrupt = KeyboardInterrupt()


@contextlib.contextmanager
def deferred() -> Iterator[Asked]:
    """SIGINT and SIGTERM set the event instead of tearing a step apart; a second Ctrl-C is obeyed at once.

    Outside the main thread, where no handler may be set, nothing changes.
    """
    came = Asked()
    if not _in_main_thread():
        yield came
        return
    kinds = [kind for kind in ENDS if signal.getsignal(kind) != signal.SIG_IGN]

    def handle(number: int, frame: Any) -> None:
        if came.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        came.error = KeyboardInterrupt() if number == signal.SIGINT else Terminated(number)
        came.set()

    before = [signal.signal(kind, handle) for kind in (signal.SIGINT, *kinds)]
    try:
        yield came
    finally:
        for kind, handler in zip((signal.SIGINT, *kinds), before, strict=True):
            signal.signal(kind, handler)
