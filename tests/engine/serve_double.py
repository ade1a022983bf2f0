"""A handle of Ray Serve without Ray: as many replicas as engines, in one event loop; what passes is pickled, and each can be killed."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

from loopviz.engine.engine import Engine, Handle, Request
from loopviz.engine.replica import Replica
from tests.engine.elsewhere import again


class Killed(Exception):
    """As Ray's ActorDiedError."""


class ServeDouble:
    """Has of a `DeploymentHandle` what :class:`loopviz.engine.ray_engine.RayEngine` uses of one.

    Attributes:
        replicas: those that live, in order; the first is asked.
        asked: methods that were asked for, in order.
    """

    def __init__(self, *engines: Engine) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.replicas = [Replica(lambda engine=engine: engine) for engine in engines]
        self.asked: list[str] = []
        self._streams: list[tuple[Replica, Stream]] = []

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)

    def options(self, *, stream: bool) -> ServeDouble:
        assert stream
        return self

    def kill(self) -> None:
        """The replica that is asked first dies, and all that it does."""
        dead = self.replicas.pop(0)
        for replica, stream in self._streams:
            if replica is dead:
                stream.die()

    # -- as `handle.method.remote(...)` --------------------------------------------------------------------------------

    @property
    def ask(self) -> _Method:
        return _Method(self._ask)

    @property
    def run(self) -> _Method:
        return _Method(self._run)

    @property
    def work(self) -> _Method:
        return _Method(self._work)

    def broadcast(self, method: str, *args: Any) -> Answer:
        return Answer(lambda: [self._wait(getattr(replica, method)(*again(args))) for replica in self.replicas])

    def _ask(self, method: str, args: Any, kwargs: Any) -> Answer:
        self.asked.append(method)
        return Answer(lambda: self._wait(self._first().ask(method, *again((args, kwargs)))))

    def _run(self, run: str, request: Request, steered: Any) -> Stream:
        return self._begin("run", run, request, steered)

    def _work(self, work: str, make: Any, args: Any) -> Stream:
        return self._begin("work", work, make, args)

    def _begin(self, method: str, *args: Any) -> Stream:
        stream = Stream(self.loop)
        if self.replicas:
            self._streams.append((self.replicas[0], stream))
            stream.begin(getattr(self.replicas[0], method)(*again(args)))
        else:
            stream.die()
        self.asked.append(method)  # last: who reads it in another thread may kill what it began
        return stream

    def _first(self) -> Replica:
        if not self.replicas:
            raise Killed
        return self.replicas[0]

    def _wait(self, work: Any) -> Any:
        return again(asyncio.run_coroutine_threadsafe(work, self.loop).result(60))


class _Method:
    def __init__(self, call: Callable[..., Any]) -> None:
        self.remote = call


class Answer:
    """As a DeploymentResponse, or one of a broadcast."""

    def __init__(self, get: Callable[[], Any]) -> None:
        self._get = get

    def result(self, *, timeout_s: float) -> Any:
        return self._get()

    def results(self, *, timeout_s: float, return_exceptions: bool) -> Any:
        return self._get()


class Stream:
    """As a DeploymentResponseGenerator."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._items, self._task = loop, queue.SimpleQueue[Any](), None

    def begin(self, items: Any) -> None:
        async def pump() -> None:
            try:
                async for item in items:
                    self._items.put(again(item))
                self._items.put(None)
            except BaseException as error:
                self._items.put(error)
                await items.aclose()

        self._task = asyncio.run_coroutine_threadsafe(pump(), self._loop)

    def die(self) -> None:
        self._items.put(Killed("killed"))
        if self._task is not None:
            self._task.cancel()

    def cancel(self) -> None:
        self._task.cancel()

    def __iter__(self) -> Iterator[Any]:
        while (item := self._items.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item


class Gated:
    """An engine whose runs make a Frame when they are let.

    Attributes:
        let: released once for each Frame.
        made: Frames made by all its runs.
    """

    def __init__(self, engine: Engine, let: int = 0) -> None:
        self._engine, self.let, self.made = engine, threading.Semaphore(let), 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def start(self, request: Request, stop: threading.Event | None = None) -> Handle:
        stop = threading.Event() if stop is None else stop
        inner = self._engine.start(request, stop)

        def frames() -> Iterator[Any]:
            with closing(inner.frames):
                while True:
                    while not self.let.acquire(timeout=0.01):
                        if stop.is_set():
                            return
                    frame = next(inner.frames, None)
                    if frame is None:
                        return
                    self.made += 1
                    yield frame

        return Handle(inner.meta, frames(), inner.steer, inner.stop)
