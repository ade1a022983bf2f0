"""What a replica tells as it comes, from the pages' end: a line of it, and work that is done there step by step.

Importing this needs neither torch nor Ray.
"""

from __future__ import annotations

import queue
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from loopviz.checks import ABSENT
from loopviz.engine.engine import EngineLost

ANSWER = 20.0  # seconds that a question may take: a replica may have to be started again for it
GLANCE = 0.05  # seconds between two looks at a stop, while what comes next is waited for
AHEAD = 16  # steps that work is done further than what is taken of it, at most: what yields to others stands still there too
TAKEN = 8  # steps taken, told at a time


class Line:
    """What a replica tells, one thing after the other; a thread of its own reads it, so that a stop need not wait for it.

    A line that nobody holds any more ends at the replica too.

    Args:
        response: as Ray Serve gives it (`ray.serve.handle.DeploymentResponseGenerator`).
    """

    def __init__(self, response: Any) -> None:
        self._said: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=_read, args=(response, self._said), name="loopviz-line", daemon=True).start()
        self._end = weakref.finalize(self, _cancel, response)
        self._end.atexit = False

    def next(self, over: Callable[[], bool]) -> Any:
        """What comes next; None: its end, or `over` says that nobody waits for it any more.

        What went wrong there comes as `("refused", error)` or `("error", error)`, and is the last.
        """
        while not over():
            with suppress(queue.Empty):
                item = self._said.get(timeout=GLANCE)
                if item is None or item[0] in ("refused", "error"):  # it has ended: there is nothing to cancel
                    self._end.detach()
                return item
        return None

    def end(self) -> None:
        """End it, at the replica too."""
        self._end()


def _cancel(response: Any) -> None:
    """In a thread of its own: who wants an end does not wait until a replica has heard of it."""

    def cancel() -> None:
        with suppress(Exception):  # what is gone needs no end
            response.cancel()

    threading.Thread(target=cancel, name="loopviz-cancel", daemon=True).start()


def _read(response: Any, into: queue.SimpleQueue[Any]) -> None:
    """A line's thread: it holds nothing of who reads the line."""
    try:
        for item in response:
            into.put(item)
        into.put(None)
    except BaseException as error:
        into.put(("error", error))


def told_all(handle: Any, gone: tuple[type[BaseException], ...], rule: str, method: str, *args: Any) -> Any:
    """Tell something to whichever replica it is for: which one that is, Ray Serve does not say.

    Args:
        handle: of the deployment.
        gone: what it raises where a replica is.
        rule: what is said where that one is gone.
        method: of :class:`loopviz.engine.replica.Replica`; it gives None where it is not for that one.

    Raises:
        ValueError: what that replica refuses. EngineLost: it is gone.
    """
    try:
        said = handle.broadcast(method, *args).results(timeout_s=ANSWER, return_exceptions=True)
    except gone as error:
        raise EngineLost("", ABSENT, "engine_silent", seconds=ANSWER) from error
    answer = next((one for one in said if isinstance(one, tuple)), None)
    if answer is None:
        raise EngineLost("", ABSENT, rule)
    if answer[0] == "refused":
        raise answer[1]
    return answer[1]


class RemoteWork:
    """Work that one replica does with its model: what it gives, step by step, and what it answers meanwhile.

    It is done no further than `AHEAD` steps before what is taken of it.

    Args:
        handle, lost: as :class:`loopviz.engine.ray_engine.RayEngine` has them.
        make: `make(bench, *args)`, a generator function of a module (:class:`loopviz.engine.replica.Bench`), for it is pickled.
    """

    def __init__(
        self,
        handle: Any,
        lost: tuple[type[BaseException], ...],
        make: Callable[..., Iterator[Any]],
        args: tuple[Any, ...],
    ) -> None:
        self._handle, self._lost, self._id = handle, lost, secrets.token_hex(8)
        self._gone: tuple[type[BaseException], ...] = (*lost, TimeoutError)
        self._line = Line(handle.options(stream=True).work.remote(self._id, make, args))
        self._taken = 0

    def step(self, over: Callable[[], bool]) -> tuple[Any] | None:
        """What it gives next, alone in a tuple; None: it is done, or `over` says that nobody waits for it.

        Raises:
            ValueError: it is refused. EngineLost: the replica ended. What else was raised there.
        """
        item = self._line.next(over)
        if item is None:
            return None
        kind, said = item
        if kind == "error" and isinstance(said, self._lost):
            raise EngineLost("", ABSENT, "engine_work_lost") from said
        if kind in ("refused", "error"):
            raise said
        self._taken += 1
        if self._taken % TAKEN == 0:
            with suppress(EngineLost):  # it is done, or the next step says what became of it
                self.ask("taken", TAKEN)
        return (said,)

    def first(self) -> Any:
        """What it gives first, within `ANSWER` seconds; raises as :meth:`step`, EngineLost where that passes too."""
        until = time.monotonic() + ANSWER
        found = self.step(lambda: time.monotonic() > until)
        if found is None:
            raise EngineLost("", ABSENT, "engine_silent", seconds=ANSWER)
        return found[0]

    def ask(self, method: str, *args: Any) -> Any:
        """What it answers; raises as :func:`told_all`."""
        return told_all(self._handle, self._gone, "engine_work_lost", "tell", self._id, method, args)

    def close(self) -> None:
        """End it, in the middle of a step too."""
        self._line.end()
