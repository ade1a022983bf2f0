"""`spaces.GPU` without a card: a generator function runs in a process forked for it, which is kept for the next call unless it failed."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from typing import Any

FORK = multiprocessing.get_context("fork")


class Worker:
    """A forked process: calls go in, what the function yields comes out."""

    def __init__(self, task: Callable[..., Iterator[Any]]) -> None:
        there, self.calls = FORK.Pipe(duplex=False)
        self.results, here = FORK.Pipe(duplex=False)
        self.process = FORK.Process(target=_work, args=(task, there, here), daemon=True)
        self.process.start()

    def next(self) -> tuple[str, Any]:
        wait([self.results, self.process.sentinel])
        if not self.results.poll():
            raise RuntimeError("GPU task aborted")
        return self.results.recv()


def _work(task: Callable[..., Iterator[Any]], calls: Any, results: Any) -> None:
    while True:
        args = calls.recv()
        try:
            for item in task(*args):
                results.send(("yield", item))
        except Exception as error:
            results.send(("error", type(error).__name__))
        else:
            results.send(("end", None))


class GPU:
    """Has of `spaces.GPU` what is used of it.

    Attributes:
        refuses: what is said instead of lending a card.
        forked: workers, in order; durations: seconds that were asked for.
        look: called as a card is asked for.
    """

    def __init__(self) -> None:
        self.refuses: str | None = None
        self.forked: list[Worker] = []
        self.durations: list[int] = []
        self.look: Callable[[], None] = lambda: None
        self._idle: list[Worker] = []

    def __call__(self, task: Any = None, *, duration: int = 60) -> Any:
        if task is None:
            return lambda given: self(given, duration=duration)
        self.durations.append(duration)

        def called(*args: Any) -> Iterator[Any]:
            self.look()
            if self.refuses is not None:
                raise RuntimeError(self.refuses)
            if not self._idle:
                self.forked.append(Worker(task))
                self._idle.append(self.forked[-1])
            worker = self._idle.pop()
            worker.calls.send(args)
            while (item := worker.next())[0] == "yield":
                yield item[1]
            if item[0] == "error":
                raise RuntimeError(item[1])
            self._idle.append(worker)

        return called

    def kill(self) -> None:
        """Every card is taken back."""
        for worker in self.forked:
            if worker.process.is_alive():
                os.kill(worker.process.pid or 0, signal.SIGKILL)
                worker.process.join()
        self._idle.clear()
