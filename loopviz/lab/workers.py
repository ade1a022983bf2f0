"""Local processes that do the work of a sweep, and end when they should.

Each worker is a fresh process (a forked torch may hang) that does one job after the other. They end at once when the sweep
is interrupted (nothing of theirs is worth waiting for: what is finished has been sent), and by themselves when the parent is
gone, however it went. One that is killed from outside costs its job alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from loopviz import imports, signals

PR_SET_PDEATHSIG = 1  # prctl(2)
LONGEST_END = 5.0  # seconds that a killed process is waited for


class WorkerError(ValueError):
    """Workers that cannot be started."""


@dataclass(frozen=True)
class Job:
    """What a worker is asked to do.

    Attributes:
        function: importable by its name; its result is sent back.
        arguments: of the call; picklable.
        keeps: what the worker has at hand afterwards (a model): jobs that keep the same are given to the same worker.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    keeps: Any = None


@dataclass(frozen=True)
class Died:
    """Instead of a result: the worker's process ended during the job.

    Attributes:
        how: "was killed (SIGKILL; out of memory?)".
    """

    how: str


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    ready: bool = False
    job: Job | None = None
    keeps: Any = field(default=None)


class Workers:
    """A context: `for job, result in workers.run(jobs): ...`, and no process is left when it is over.

    Args:
        most: processes at most; they are started when there is work for them.
        modules: what `--import` named (:func:`loopviz.imports.load`), imported before the first job.
    """

    def __init__(self, most: int, modules: Sequence[str] = ()) -> None:
        self.most, self.modules = most, tuple(modules)
        self._workers: list[_Worker] = []
        self._arrived: deque[tuple[Job, Any]] = deque()  # the first one may be with who iterates over `run`
        self._context = multiprocessing.get_context("spawn")

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Any]]:
        """Jobs with their results (or :class:`Died`), each as soon as it is there.

        Raises:
            WorkerError: a process ended before it could take a job, or a module could not be imported there.
        """
        left = list(jobs)
        while left or any(worker.job for worker in self._workers):
            while len(self._workers) < min(self.most, len(left) + sum(bool(w.job) for w in self._workers)):
                self._start()
            for worker in self._workers:
                if worker.ready and worker.job is None and left:
                    self._give(worker, left)
            # A process that ends closes its end of the pipe: that wakes us as its results do.
            for pipe in wait([worker.pipe for worker in self._workers]):
                self._take(next(worker for worker in self._workers if worker.pipe is pipe))
            while self._arrived:
                yield self._arrived[0]
                self._arrived.popleft()

    def finished(self) -> Iterator[tuple[Job, Any]]:
        """Results that have come in when :meth:`run` is interrupted; the first may be one that it handed out last."""
        for worker in list(self._workers):
            if worker.job is not None and worker.pipe.poll(0):
                self._take(worker)
        yield from (pair for pair in self._arrived if not isinstance(pair[1], Died))

    def close(self) -> None:
        """End all processes now."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join(LONGEST_END)
            worker.pipe.close()
        self._workers.clear()

    def _start(self) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, self.modules), daemon=True)
        with _ctrl_c_blocked():  # inherited: Ctrl-C goes to the whole group, and a worker must not speak of it
            process.start()
        theirs.close()
        self._workers.append(_Worker(process, ours))

    def _give(self, worker: _Worker, left: list[Job]) -> None:
        job = next((job for job in left if job.keeps == worker.keeps), None)
        if job is None:  # rather one whose model no other worker has at hand
            taken = {id(w): w.keeps for w in self._workers if w is not worker}.values()
            job = next((job for job in left if job.keeps not in taken), left[0])
        left.remove(job)
        worker.job, worker.keeps = job, job.keeps
        with contextlib.suppress(ConnectionError):  # it has just ended: that is found when it is waited for
            worker.pipe.send((job.function, job.arguments))

    def _take(self, worker: _Worker) -> None:
        """What a worker has sent, or its end."""
        with signals.held():  # what has been received is in `_arrived`, whatever comes now
            try:
                kind, value = worker.pipe.recv()
            except (EOFError, ConnectionError):
                kind, value = "ended", self._ended(worker)
            if kind in ("result", "ended") and worker.job is not None:
                self._arrived.append((worker.job, value))
                worker.job = None
        if kind == "refused":
            raise WorkerError(value)
        if kind == "ended" and not worker.ready:
            raise WorkerError(f"a worker process {value.how} before it could begin")
        worker.ready = True

    def _ended(self, worker: _Worker) -> Died:
        worker.process.join(LONGEST_END)
        self._workers.remove(worker)
        worker.pipe.close()
        return Died(_how(worker.process.exitcode))


def _how(code: int | None) -> str:
    if code is None or code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"was killed ({name}{'; out of memory?' if name == 'SIGKILL' else ''})"


class _ctrl_c_blocked:
    """SIGINT waits, for this process and for what it starts, where the system can do that."""

    def __enter__(self) -> None:
        self.before = None
        if hasattr(signal, "pthread_sigmask"):
            self.before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})

    def __exit__(self, *exception: Any) -> None:
        if self.before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, self.before)


# -- inside a worker ---------------------------------------------------------------------------------------------------


def _work(pipe: Connection, modules: Sequence[str]) -> None:
    """A worker's life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is the parent's to decide
    _end_with_parent()
    try:
        imports.load(modules)
    except ValueError as error:
        pipe.send(("refused", str(error)))
        return
    pipe.send(("ready", None))
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            return
        pipe.send(("result", function(*arguments)))


def _end_with_parent() -> None:
    """See to it that no worker outlives the sweep, whatever ended that: even `kill -9` of it, even in the middle of a cell."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    if sys.platform == "linux":
        # The system itself kills us then, however long an operation holds Python.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent").start()
