"""An engine at the far end of Ray Serve: what is asked of it, and runs, whose Frames go out as they come.

What passes is :class:`loopviz.engine.engine.Request` and its like one way, and tuples the other:

    ask(method, args, kwargs)   ("answer", what the method gives) or ("refused", the ValueError)
    run(run, request, steered)  ("meta", its Meta), then ("frames", Frames, changes of its loop) over and over; or ("refused", ...)
    steer(run, fields)          as `ask`; None: no run of that name is made here
    work(work, make, args)      ("step", what it gives) over and over; or ("refused", ...)
    tell(work, method, args)    as `ask`, of what the work answers meanwhile; None: no such work is done here

Ray pickles them. Both ends are the same host's own processes, and nothing that a visitor writes is unpickled: it is text in a
:class:`Request`. Whoever can reach a Ray cluster can run programs on it, with or without this: keep its ports to yourself.

This knows nothing of Ray (:mod:`loopviz.engine.ray_app` does): tests run it without.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from loopviz.checks import FieldError
from loopviz.engine.engine import Engine, Handle, ParityRow, Request
from loopviz.engine.ray_line import AHEAD, GLANCE
from loopviz.trace.schema import SCHEMA_VERSION
from loopviz.version import version

ASKED = ("describe", "check", "rate", "prompt_tokens", "tokens", "end_of", "unread_share", "parity_need")
THREADS = 4  # that answer questions, and as many that answer what work is asked
IDLE = 3600.0  # seconds that work waits for who asked for it; a process that was killed ends nothing by itself
STUCK = 900.0  # seconds without a Frame after which a run is taken to hang, and its replica for sick


T = TypeVar("T")


def versions() -> dict[str, Any]:
    """What both ends must have the same of."""
    return {"loopviz": version(), "schema": SCHEMA_VERSION}


@dataclass
class _Live:
    """A run that is made here; `at` is when it last got on."""

    stop: threading.Event = field(default_factory=threading.Event)
    handle: Handle | None = None
    at: float = field(default_factory=time.monotonic)


@dataclass
class Bench:
    """What work at a replica has at hand.

    Attributes:
        engine: the model.
        stop: set where nobody waits for it any more.
        answer: `answer(method, *args)`, what is asked meanwhile (:meth:`loopviz.engine.ray_line.RemoteWork.ask`); the work puts it here.
        idle_since: since when it has waited for who asked for it; None: it works.
    """

    engine: Engine
    stop: threading.Event = field(default_factory=threading.Event)
    answer: Callable[..., Any] | None = None
    idle_since: float | None = None

    def waiting(self, ready: Callable[[float], T | None]) -> T | None:
        """What `ready(seconds)` gives once it gives something, asked again and again; None once nobody waits any more."""
        self.idle_since = time.monotonic()
        try:
            while not self.stop.is_set():
                if found := ready(GLANCE):
                    return found
            return None
        finally:
            self.idle_since = None


@dataclass
class _Done:
    """Work that is done here; `room` is how many steps more may be done before one is taken."""

    bench: Bench
    room: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(AHEAD))


class Replica:
    """One model in a process of its own, for others to ask and to run. Its methods are called in one event loop.

    Args:
        load: gives the engine; called once, as this is made.
    """

    def __init__(self, load: Callable[[], Engine]) -> None:
        self._engine = load()
        self._runs: dict[str, _Live] = {}
        self._works: dict[str, _Done] = {}
        self._threads = ThreadPoolExecutor(THREADS, "loopviz-ask")
        self._desks = ThreadPoolExecutor(THREADS, "loopviz-tell")  # what takes longer keeps no question waiting

    # -- questions -----------------------------------------------------------------------------------------------------

    async def ask(self, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[str, Any]:
        """What a method of the engine gives; `about` tells of all that does not change, with both ends' versions."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._answer, method, args, kwargs)

    def _answer(self, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[str, Any]:
        if method == "about":
            return "answer", {**versions(), "description": self._engine.describe(), "rate": self._engine.rate()}
        if method not in ASKED:
            raise LookupError(f"method={method!r}: must be one of {', '.join(ASKED)}")
        return _plainly(lambda: getattr(self._engine, method)(*args, **kwargs))

    # -- runs ----------------------------------------------------------------------------------------------------------

    async def run(
        self, run: str, request: Request, steered: Sequence[Mapping[str, Any]]
    ) -> AsyncGenerator[tuple[Any, ...], None]:
        """A run, from its Meta to its last Frame. It ends within a token of this being closed or cancelled.

        Args:
            run: its name, by which :meth:`steer` finds it.
            steered: what its loop was changed to where it was begun before.
        """
        loop, said, live = asyncio.get_running_loop(), asyncio.Queue[Any](), _Live()
        self._runs[run] = live

        def tell(item: Any) -> None:
            with suppress(RuntimeError):  # the loop has ended, and whoever listened with it
                loop.call_soon_threadsafe(said.put_nowait, item)

        # a thread of its own: runs that share passes are told apart by theirs (loopviz.engine.batch)
        threading.Thread(
            target=self._make, args=(live, request, steered, tell), name="loopviz-run", daemon=True
        ).start()
        try:
            over = False
            while not over:
                items = [await said.get()]
                while not said.empty():
                    items.append(said.get_nowait())
                over = items[-1] is None
                for item in _together(items):
                    yield item
        finally:
            live.stop.set()
            self._runs.pop(run, None)

    def _make(
        self, live: _Live, request: Request, steered: Sequence[Mapping[str, Any]], tell: Callable[[Any], None]
    ) -> None:
        """A run's thread: whatever happens is told, and then None."""
        try:
            handle = self._engine.start(request, live.stop)
            for fields in steered:
                handle.steer(**fields)
            live.handle = handle
            tell(("meta", handle.meta))
            with closing(handle.frames):  # type: ignore[type-var]  # a generator
                for frame in handle.frames:
                    live.at = time.monotonic()
                    tell(("frames", [frame], [*handle.meta.get("changes", ())]))
        except ValueError as error:
            tell(("refused", plain(error)))
        except BaseException as error:  # a panic of native code is no Exception
            tell(error)
        tell(None)

    async def steer(self, run: str, fields: Mapping[str, Any]) -> tuple[str, Any] | None:
        """Change a run's loop from its next pass on; None where no such run is made here, or it has no Meta yet."""
        live = self._runs.get(run)
        if live is None or live.handle is None:
            return None
        steer = live.handle.steer
        return _plainly(lambda: steer(**fields))

    # -- work ----------------------------------------------------------------------------------------------------------

    async def work(
        self, work: str, make: Callable[..., Generator[Any, None, Any]], args: Sequence[Any]
    ) -> AsyncGenerator[tuple[str, Any], None]:
        """Work with the model, step by step. It ends in the middle of a step once this is closed or cancelled.

        Args:
            work: its name, by which :meth:`tell` finds it.
            make: `make(bench, *args)` gives the steps.
        """
        loop, said, done = asyncio.get_running_loop(), asyncio.Queue[Any](), _Done(Bench(self._engine))
        self._works[work] = done

        def tell(item: Any) -> None:
            with suppress(RuntimeError):  # the loop has ended, and whoever listened with it
                loop.call_soon_threadsafe(said.put_nowait, item)

        threading.Thread(target=_do, args=(done, make, args, tell), name="loopviz-work", daemon=True).start()
        try:
            while (item := await said.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            done.bench.stop.set()
            self._works.pop(work, None)

    async def tell(self, work: str, method: str, args: Sequence[Any]) -> tuple[str, Any] | None:
        """What work answers; `taken` tells it how many of its steps were. None where no such work is done here, or it answers nothing."""
        done = self._works.get(work)
        if done is None:
            return None
        if method == "taken":
            done.room.release(*args)
            return "answer", None
        answer = done.bench.answer
        if answer is None:
            return None
        return await asyncio.get_running_loop().run_in_executor(self._desks, _plainly, lambda: answer(method, *args))

    # -- health --------------------------------------------------------------------------------------------------------

    def check_health(self) -> None:
        """Called by Ray Serve every few seconds; it makes another replica in this one's place where this raises. Work that nobody
        has asked anything of for an hour ends.

        Raises:
            RuntimeError: a run hangs.
        """
        for done in [*self._works.values()]:
            since = done.bench.idle_since
            if since is not None and time.monotonic() - since > IDLE:
                done.bench.stop.set()
        oldest = min((live.at for live in [*self._runs.values()]), default=None)
        if oldest is not None and time.monotonic() - oldest > STUCK:
            raise RuntimeError(f"a run has made no token for {STUCK:g} seconds")


def _do(
    done: _Done, make: Callable[..., Generator[Any, None, Any]], args: Sequence[Any], tell: Callable[[Any], None]
) -> None:
    """A work's thread: whatever happens is told, and then None."""
    from loopviz.model.interrupt import until

    stop = done.bench.stop
    try:
        with closing(until(stop, make(done.bench, *args))) as steps:
            for step in steps:
                if not done.bench.waiting(lambda seconds: done.room.acquire(timeout=seconds)):
                    break
                tell(("step", step))
    except ValueError as error:
        tell(("refused", plain(error)))
    except BaseException as error:  # a panic of native code is no Exception
        tell(error)
    tell(None)


def checked(bench: Bench, article: bool, dtype: str) -> Generator[list[ParityRow], None, None]:
    """Work: a check against transformers (:meth:`Engine.parity`)."""
    yield bench.engine.parity(article, dtype, bench.stop)


def plain(error: ValueError) -> ValueError:
    """A refusal as it can be unpickled anywhere: a field's as it is, another's words."""
    return error.with_traceback(None) if isinstance(error, FieldError) else ValueError(str(error))


def _plainly(ask: Callable[[], Any]) -> tuple[str, Any]:
    try:
        return "answer", ask()
    except ValueError as error:
        return "refused", plain(error)


def _together(items: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    """What a run's thread told, Frames that came together as one; raises what it raised."""
    frames: list[Any] = []
    for i, item in enumerate(items):
        following = items[i + 1] if i + 1 < len(items) else None
        if isinstance(item, BaseException):
            raise item
        if item is None:
            return
        if item[0] != "frames":
            yield item
            continue
        frames += item[1]
        if not (isinstance(following, tuple) and following[0] == "frames"):
            yield "frames", frames, item[2]
            frames = []
