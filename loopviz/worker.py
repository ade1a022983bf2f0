"""A process of ours that does what must be able to end: a download, a stranger's tokenizer. It has limits of its own.

It is a plain Python that imports one module and calls that module's ``serve`` for each request. Requests and answers are lines
of JSON on its standard input and output: nothing that it says is unpickled. It ends with a kill, at once and whatever it does,
and by itself when we are gone, however we went (its input ends then).

Memory is bounded twice: by the system (RLIMIT_AS: Linux; macOS knows it and does not enforce it, Windows does not know it) and by
looking at the process while it is waited for (everywhere psutil is).
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any

import psutil

from loopviz.paths import PACKAGE

LOOK = 0.05  # seconds between two looks at a process that is waited for
LONGEST_LINE = 64 * 2**20  # bytes of an answer
LONGEST_START = 120.0  # seconds until a process has imported its module
IDLE = 60.0  # seconds after which a process that is asked nothing ends
LONGEST_END = 5.0  # seconds that a killed process is waited for
_over: ContextVar[Callable[[], bool]] = ContextVar("over", default=lambda: False)

Told = Callable[[dict[str, Any]], None]


class WorkerEnded(ValueError):
    """The process was ended, or ended itself, before it had answered.

    Attributes:
        why: "over" (nobody wants it any more), "time", "memory", "answer" (too long), or "died".
    """

    def __init__(self, why: str, words: str) -> None:
        super().__init__(words)
        self.why = why


class WorkerRefused(ValueError):
    """The answer is a refusal; `said` is all that was said with it."""

    def __init__(self, said: dict[str, Any]) -> None:
        super().__init__(str(said.get("error")))
        self.said = said


@contextmanager
def ended_by(over: Callable[[], bool]) -> Iterator[None]:
    """Inside, whatever asks a worker in this thread ends it (and is told so) once `over()`: a Stop, a visitor who left.

    Not around a `yield`: what runs in between would be inside as well.
    """
    mark = _over.set(over)
    try:
        yield
    finally:
        _over.reset(mark)


class _Limits:
    """What one request may take, from now on."""

    def __init__(self, pid: int, seconds: float | None, n_bytes: int | None, gone: Callable[[], bool]) -> None:
        self._pid, self._seconds, self._bytes, self._gone = pid, seconds, n_bytes, gone
        self._least, self._begun = _resident(pid), time.monotonic()

    def look(self) -> None:
        """WorkerEnded if it is to end."""
        if self._gone():
            raise WorkerEnded("over", "it was stopped")
        if self._seconds is not None and time.monotonic() - self._begun > self._seconds:
            raise WorkerEnded("time", f"it took more than {self._seconds:g} seconds")
        if self._bytes is not None and _resident(self._pid) - self._least > self._bytes:
            raise WorkerEnded("memory", "it took too much memory")


class Worker:
    """One process; started with the first request, and again after it was ended. Its methods may be called from any thread.

    Args:
        module: whose ``serve(request, tell)`` answers; `tell` sends something before the answer. Of the packages it is in
            nothing but the name is there: what they import would take seconds, and memory, for each process.
        first: asked of every new process before anything else, with the seconds and the bytes for that.
        environ: more of the environment.
    """

    def __init__(
        self,
        module: str,
        first: tuple[dict[str, Any], float | None, int | None] | None = None,
        environ: dict[str, str] | None = None,
    ) -> None:
        self._module, self._first, self._environ = module, first, environ or {}
        self._used = 0.0
        self.first_answer: dict[str, Any] = {}
        self._turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._said: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.started = 0  # how often

    @property
    def pid(self) -> int | None:
        """The process, if there is one."""
        return None if self._process is None else self._process.pid

    def ask(
        self,
        request: dict[str, Any] | None,
        *,
        seconds: float | None = None,
        n_bytes: int | None = None,
        over: Callable[[], bool] | None = None,
        told: Told = lambda said: None,
    ) -> dict[str, Any]:
        """The answer to one request, made alone.

        Args:
            request: None asks nothing but that the process be there; the answer is that to its first request.
            seconds: that it may take, once it has its turn; None: no end.
            n_bytes: of memory that it may take beside what the process has; None: no end.
            over: looked at meanwhile; beside it what :func:`ended_by` said.
            told: called with what is said before the answer.

        Raises:
            WorkerEnded: the process is gone; the next request starts another.
            WorkerRefused: it answers that it cannot.
        """
        around = _over.get()
        gone: Callable[[], bool] = around if over is None else lambda: over() or around()
        while not self._turn.acquire(timeout=LOOK):
            if gone():
                raise WorkerEnded("over", "it was stopped while it waited for its turn")
        try:
            fresh = self._process is None or self._process.poll() is not None
            process = self._running()
            if fresh and self._first is not None:
                first, longest, most = self._first
                self.first_answer = self._exchange(process, first, longest, most, gone, told, True)
                fresh = False
            if request is None:
                return self.first_answer
            return self._exchange(process, request, seconds, n_bytes, gone, told, fresh)
        finally:
            self._used = time.monotonic()
            self._turn.release()

    def end(self) -> None:
        """End the process now, whatever it does."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(LONGEST_END)
        for pipe in filter(None, (process.stdin, process.stdout)):
            with contextlib.suppress(OSError):  # what could not be written any more
                pipe.close()

    def _exchange(
        self,
        process: subprocess.Popen[bytes],
        request: dict[str, Any],
        seconds: float | None,
        n_bytes: int | None,
        gone: Callable[[], bool],
        told: Told,
        fresh: bool,
    ) -> dict[str, Any]:
        line = json.dumps({"request": request, "n_bytes": n_bytes}).encode() + b"\n"
        # A pipe takes so much, and a process that is busy reads nothing: the wait is below, where it can end.
        threading.Thread(target=_write, args=(process, line), name="loopviz-ask", daemon=True).start()
        # The clock is for what was asked, not for what Python imports first.
        limits = _Limits(process.pid, LONGEST_START if fresh else seconds, None if fresh else n_bytes, gone)
        try:
            while True:
                try:
                    said = self._said.get(timeout=LOOK)
                except queue.Empty:
                    limits.look()
                    continue
                if said is None:
                    raise WorkerEnded("died", "its process ended")
                if not said.endswith(b"\n"):
                    raise WorkerEnded("answer", "its answer is too long")
                answer = json.loads(said)
                if "ready" in answer:
                    limits = _Limits(process.pid, seconds, n_bytes, gone)
                elif "told" in answer:
                    told(answer["told"])
                    limits.look()
                elif answer.get("memory"):
                    raise WorkerEnded("memory", "it took too much memory")
                elif "error" in answer:
                    raise WorkerRefused(answer)
                else:
                    return answer["answer"]
        except WorkerRefused:
            raise
        except BaseException:  # also what `told` raised: an answer is on its way that nobody reads
            self.end()
            raise

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.end()
        self._said = queue.SimpleQueue()
        path = os.pathsep.join(part for part in (str(PACKAGE.parent), os.environ.get("PYTHONPATH")) if part)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "loopviz.worker", self._module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what native code says as it panics is a stranger's text
            env={**os.environ, **self._environ, "PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C is ours
        )
        self.started += 1
        reader = threading.Thread(target=_read, args=(self._process, self._said), name="loopviz-answers", daemon=True)
        reader.start()
        self._used = time.monotonic()
        threading.Thread(target=self._rest, args=(self._process,), name="loopviz-idle", daemon=True).start()
        return self._process

    def _rest(self, process: subprocess.Popen[bytes]) -> None:
        """End the process once nobody has asked it anything for long."""
        while process is self._process:
            time.sleep(IDLE / 10)
            if time.monotonic() - self._used < IDLE or not self._turn.acquire(blocking=False):
                continue
            try:
                if process is self._process and time.monotonic() - self._used >= IDLE:
                    self.end()
            finally:
                self._turn.release()


def _write(process: subprocess.Popen[bytes], line: bytes) -> None:
    with contextlib.suppress(OSError, ValueError):  # it has ended: that is found when it is waited for
        assert process.stdin is not None
        process.stdin.write(line)
        process.stdin.flush()


def _read(process: subprocess.Popen[bytes], said: queue.SimpleQueue[bytes | None]) -> None:
    """Hand on what the process says, line by line; None when it is over."""
    with contextlib.suppress(OSError, ValueError):
        assert process.stdout is not None
        while line := process.stdout.readline(LONGEST_LINE):
            said.put(line)
            if not line.endswith(b"\n"):
                return
    said.put(None)


def _resident(pid: int) -> int:
    """Bytes of memory a process has; 0 for one that is gone."""
    try:
        return psutil.Process(pid).memory_info().rss
    except psutil.Error:
        return 0


# --- inside the process --------------------------------------------------------------------------------------------


def main(name: str) -> None:
    """A worker's life."""
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    module = _alone(name)

    def send(said: dict[str, Any]) -> None:
        output.write(json.dumps(said).encode() + b"\n")
        output.flush()

    send({"ready": True})
    while True:
        asked = json.loads(requests.get())
        try:
            with _memory(asked["n_bytes"]):
                answer = module.serve(asked["request"], lambda said: send({"told": said}))
            send({"answer": answer})
        except BaseException as error:  # panics of native code are no Exception
            said = {"error": " ".join(str(error).split())[:2_000] or type(error).__name__, "kind": type(error).__name__}
            send({**said, "memory": isinstance(error, MemoryError), **getattr(error, "said", {})})


def _alone(name: str) -> ModuleType:
    """A module, imported without what the packages around it import beside it."""
    package = name.rpartition(".")[0]
    for end in [place for place, letter in enumerate(f"{package}.") if letter == "."][1:]:  # loopviz is here already
        spec = importlib.util.find_spec(
            package[:end]
        )  # imports those around it, of which nothing but the name is there
        assert spec is not None
        sys.modules[package[:end]] = importlib.util.module_from_spec(spec)
    return importlib.import_module(name)


def _listen(requests: queue.SimpleQueue[bytes]) -> None:
    for line in sys.stdin.buffer:
        requests.put(line)
    os._exit(0)  # whoever asked is gone: nothing is worth finishing


@contextmanager
def _memory(n_bytes: int | None) -> Iterator[None]:
    """No more than so many bytes beside those that are there, where the system can see to it."""
    if n_bytes is None or sys.platform == "win32":
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    most = psutil.Process().memory_info().vms + n_bytes
    if before[1] != resource.RLIM_INFINITY:
        most = min(most, before[1])
    with contextlib.suppress(ValueError, OSError):  # a system that does not know it
        resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_AS, before)


if __name__ == "__main__":
    main(sys.argv[1])
