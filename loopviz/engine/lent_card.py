"""Runs on a graphics card that is lent to one function at a time: Hugging Face's ZeroGPU.

    declare(spaces.GPU, least=500_000_000)      once, before Gradio is imported
    LentEngine(..., card=declared())            a model of this process whose runs are made there

The function runs in a process that is forked for it: pickled arguments go in, and what it yields comes out. It has every model that was
in memory as it was forked; one that lacks a model ends, and another is forked. What else must pass, a run's end and changes of its loop,
takes pipes that were laid before any fork. A run goes out as from a replica of a cluster (:mod:`loopviz.engine.replica`), and is
read as one from there. Where no card is to be had the run is made on the processor, as everything else of such a model is.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import secrets
import threading
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import Any

from loopviz.engine.engine import EngineLost, Handle, Request
from loopviz.engine.limits import CARD_SECONDS
from loopviz.engine.local import LocalEngine
from loopviz.engine.ray_engine import RemoteRun
from loopviz.engine.replica import plain
from loopviz.engine.steering import Steering

log = logging.getLogger(__name__)

SEATS = 8  # runs at a time; Hugging Face decides how many of them have a card
GLANCE = 0.02  # seconds between two looks at what is said to a run
DEVICE = "cuda"  # what the card is called in the forked process


class Gone(Exception):
    """The card, or the process that had it, is gone; or none was lent."""


@dataclass(frozen=True)
class _Seat:
    """A pipe to whichever process makes the run of this seat; laid before any of them is forked."""

    there: Connection
    here: Connection
    lock: threading.Lock = field(default_factory=threading.Lock)

    def say(self, run: str, what: str, fields: Mapping[str, Any] | None = None) -> None:
        """Tell a run something, by its name: what an earlier one of this seat did not read is none of its business."""
        with self.lock, suppress(OSError):
            self.here.send((run, what, fields))


# What forked processes find: models by their seal, and those of one process that are on its card.
_MODELS: weakref.WeakValueDictionary[str, LentEngine] = weakref.WeakValueDictionary()
_ON_CARD: dict[str, LocalEngine] = {}
_SEATS: list[_Seat] = []


class LentCard:
    """The function that a card is lent to, and the seats of its runs.

    Args:
        lend: `spaces.GPU`: `lend(duration=seconds)(function)` gives the function as it is called here.
        least: parameters of the smallest model that it is for.
    """

    def __init__(self, lend: Callable[..., Callable[..., Any]], least: int) -> None:
        self._least = least
        _SEATS.extend(_Seat(*multiprocessing.Pipe(duplex=False)) for _ in range(SEATS))
        self._make: Callable[..., Iterator[Any]] = lend(duration=CARD_SECONDS)(make_there)
        self._free = [*range(len(_SEATS) - SEATS, len(_SEATS))]
        self._lock = threading.Lock()

    def wants(self, parameters: int) -> bool:
        """Whether a model's runs are to be made on it."""
        return parameters >= self._least

    def lent(self, engine: LocalEngine) -> LentEngine:
        """An engine of the same model whose runs are made on it."""
        return LentEngine(engine.name, engine.model, engine.tokenizer, engine.source, engine.notes, self)

    def take(self) -> int:
        """A seat; raises Gone where all are taken."""
        with self._lock:
            if not self._free:
                raise Gone("every seat is taken")
            return self._free.pop()

    def leave(self, seat: int) -> None:
        """The run of a seat is over."""
        with self._lock:
            self._free.append(seat)

    def lend(self, *args: Any) -> Iterator[Any]:
        """What the function yields, made on a lent card."""
        return self._make(*args)


_declared: LentCard | None = None


def declare(lend: Callable[..., Callable[..., Any]], least: int) -> LentCard:
    """Have this process's one card lent; as :class:`LentCard`."""
    global _declared
    _declared = LentCard(lend, least)
    return _declared


def declared() -> LentCard | None:
    """What this process has declared; None: nothing is lent."""
    return _declared


@dataclass(frozen=True)
class LentEngine(LocalEngine):
    """A model of this process whose runs are made on a lent card, where there is one.

    Attributes:
        card: None: every run is made here.
        seal: of the model, for forked processes.
    """

    card: LentCard | None = field(default=None, compare=False, repr=False)
    seal: str = field(default_factory=lambda: secrets.token_hex(8), compare=False, repr=False)

    def __post_init__(self) -> None:
        _MODELS[self.seal] = self

    def start(self, request: Request, stop: threading.Event | None = None) -> Handle:
        """As :meth:`LocalEngine.start`, on a card if one is lent; else on the processor, which the log says.

        Raises:
            EngineLost: at a Frame, where the card was taken back meanwhile.
        """
        stop = threading.Event() if stop is None else stop
        if self.card is None:
            return super().start(request, stop)
        view, wheel = self.model.with_loop(**request.loop), Steering()  # what is refused is refused here
        wheel.bind(view)
        run = _LentRun(_Lending(self.card, self.seal, wheel), (Gone,), request, stop)
        try:
            return Handle(run.begin(), run.frames(), run.steer, run.halt)
        except EngineLost as error:
            log.warning("ZeroGPU: no card for this run (%s): it is made on the processor", error.__cause__)
            return super().start(request, stop)


class _LentRun(RemoteRun):
    """As of a cluster, in this machine's words."""

    def frames(self) -> Iterator[Any]:
        try:
            yield from super().frames()
        except EngineLost as error:
            raise EngineLost(error.field, error.value, "engine_card_lost", seconds=CARD_SECONDS) from error


class _Lending:
    """Has of a cluster's handle what :class:`RemoteRun` uses of one."""

    def __init__(self, card: LentCard, seal: str, wheel: Steering) -> None:
        self._card, self._seal, self._wheel = card, seal, wheel
        self._said: _Stream | None = None

    def options(self, *, stream: bool) -> _Lending:
        return self

    @property
    def run(self) -> _Lending:
        return self

    def remote(self, run: str, request: Request, steered: Sequence[Mapping[str, Any]]) -> _Stream:
        self._said = _Stream(self._card, run, (self._seal, request, steered))
        return self._said

    def broadcast(self, method: str, run: str, fields: Mapping[str, Any]) -> _Lending:
        """Checked here, by a wheel that is on a view of the same model, for nothing comes back from there but Frames."""
        self._wheel.set_loop(**fields)
        if self._said is not None:
            self._said.say("steer", fields)
        return self

    def results(self, **_: Any) -> list[tuple[str, None]]:
        return [("answer", None)]


class _Stream:
    """A run's tuples, as they come from the card."""

    def __init__(self, card: LentCard, run: str, args: tuple[Any, ...]) -> None:
        self._card, self._run, self._args = card, run, args
        self._seat: int | None = None
        self._over = threading.Event()
        self._context = copy_context()  # whose minutes these are: Gradio's request, which the package looks up

    def say(self, what: str, fields: Mapping[str, Any] | None = None) -> None:
        if self._seat is not None:
            _SEATS[self._seat].say(self._run, what, fields)

    def cancel(self) -> None:
        self._over.set()
        self.say("stop")

    def __iter__(self) -> Iterator[Any]:
        self._seat = self._card.take()
        try:
            if self._over.is_set():
                return
            items = self._context.run(self._card.lend, self._run, self._seat, *self._args)
            # to the end, whoever waits: the seat is the process's until then
            while (item := self._next(items)) is not None:
                if not self._over.is_set():
                    yield item
        finally:
            seat, self._seat = self._seat, None
            self._card.leave(seat)

    def _next(self, items: Iterator[Any]) -> Any:
        try:
            return self._context.run(next, items, None)
        except Exception as error:  # what Hugging Face says of a card that it does not lend, in words of its own
            raise Gone(str(error) or type(error).__name__) from error


# -- in the forked process ---------------------------------------------------------------------------------------------


def make_there(
    run: str, seat: int, seal: str, request: Request, steered: Sequence[Mapping[str, Any]]
) -> Generator[tuple[Any, ...], None, None]:
    """A run, from its Meta to its last Frame, as :meth:`loopviz.engine.replica.Replica.run` gives one.

    What goes wrong before it has begun ends the process, and the processor makes the run: the card may not hold the model.
    """
    engine, over, listening = _engine_there(seal), threading.Event(), None
    try:
        handle = engine.alone(request, threading.Event())
        for fields in steered:
            handle.steer(**fields)
        listening = threading.Thread(target=_listen, args=(_SEATS[seat], run, handle, over), daemon=True)
        listening.start()
        yield "meta", handle.meta
        with closing(handle.frames):  # type: ignore[type-var]  # a generator
            for frame in handle.frames:
                yield "frames", [frame], [*handle.meta.get("changes", ())]
    except ValueError as error:
        yield "refused", plain(error)
    except Exception as error:  # as it would be raised here, in a type that can be unpickled anywhere
        yield "error", RuntimeError(f"{type(error).__name__}: {error}")
    finally:
        over.set()
        if listening is not None:
            listening.join()  # the pipe is the next run's


def _listen(seat: _Seat, run: str, handle: Handle, over: threading.Event) -> None:
    while not over.is_set():
        if not seat.there.poll(GLANCE):
            continue
        to, what, fields = seat.there.recv()
        if to != run:  # an earlier run's, which was over before it was read
            continue
        if what == "stop":
            handle.stop()
        else:
            handle.steer(**fields)


def _engine_there(seal: str) -> LocalEngine:
    """The model on the card; a process that was forked before it was loaded ends, so that another is forked."""
    if seal not in _ON_CARD:
        engine = _MODELS.get(seal)
        if engine is None:
            os._exit(0)
        from loopviz.model.devices import resolve_device
        from loopviz.model.placing import place

        place(engine.model, resolve_device(DEVICE))  # this process's own copy
        _ON_CARD[seal] = replace(engine, card=None)
    return _ON_CARD[seal]
