"""A finished run that a replica reads again, from the pages' end; and what the replica does for it.

The replica holds one token's tensors, as :class:`loopviz.engine.reading.LocalReading` does, as long as this end holds the
reading. Where that replica ends, the next token is read by another.

Importing this needs neither torch nor Ray.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from loopviz.checks import ABSENT
from loopviz.engine.engine import Draw, EngineLost
from loopviz.engine.ray_line import RemoteWork
from loopviz.engine.replica import Bench, plain

if TYPE_CHECKING:
    from loopviz.anatomy.picture import Beside, Distances, LayerPicture, TokenPicture
    from loopviz.engine.engine import TokenReading
    from loopviz.trace import Trace

T = TypeVar("T")


class RemoteReading:
    """A run that is read elsewhere; see :class:`loopviz.engine.engine.Reading`. Its methods raise EngineLost too.

    Args:
        work: begins work at a replica (:meth:`loopviz.engine.ray_engine.RayEngine.work`).
        trace: of the run.

    Raises:
        ValueError: a run that the model cannot have made, or that was stopped within its prompt. EngineLost: no replica answers.
    """

    def __init__(self, work: Callable[..., RemoteWork], trace: Trace) -> None:
        self._begin, self._trace = work, trace
        self._needs: dict[int, int] = {}
        self._lock = threading.Lock()
        self._asked = 0
        self.nbytes = 0  # that the replica held when it was last heard of
        self._open()

    def _open(self) -> None:
        self._work = self._begin(reread, self._trace)
        self._work.first()

    def need(self, position: int) -> int:
        """As :meth:`Reading.need`."""
        with self._lock:
            if position not in self._needs:
                self._needs[position] = self._by_whoever_lives(lambda: self._work.ask("need", position))
            return self._needs[position]

    def read(self, position: int, stop: threading.Event) -> RemoteToken | None:
        """As :meth:`Reading.read`; a replica that ended meanwhile is followed by another, once."""
        with self._lock:
            return self._by_whoever_lives(lambda: self._read(position, stop))

    def _by_whoever_lives(self, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except EngineLost:
            self._open()
            return ask()

    def _read(self, position: int, stop: threading.Event) -> RemoteToken | None:
        self._asked += 1
        self._work.ask("read", self._asked, position)
        while (found := self._work.step(stop.is_set)) is not None:
            number, said = found[0]
            if number != self._asked:  # of one that nobody waited for
                continue
            if isinstance(said, ValueError):
                raise said
            if said is None:
                return None
            picture, token_bytes, self.nbytes = said
            return RemoteToken(self._work, number, picture, token_bytes)
        if not stop.is_set():
            raise EngineLost("", ABSENT, "engine_work_lost")
        with suppress(EngineLost):  # it reads no longer, either way
            self._work.ask("leave", self._asked)
        return None


class RemoteToken:
    """A token that was read elsewhere; see :class:`loopviz.engine.engine.TokenReading`. Its methods raise EngineLost too."""

    def __init__(self, work: RemoteWork, number: int, picture: TokenPicture, nbytes: int) -> None:
        self._work, self._number = work, number
        self.picture, self.nbytes = picture, nbytes

    def layer(self, layer: int, step: int) -> LayerPicture:
        """As :meth:`TokenReading.layer`."""
        return self._work.ask("layer", self._number, layer, step)

    def beside(self, layer: int, step: int, other: int) -> Beside:
        """As :meth:`TokenReading.beside`."""
        return self._work.ask("beside", self._number, layer, step, other)

    def distances(self, layer: int, step: int, head: int, column: int, most: int, many: int) -> Distances:
        """As :meth:`TokenReading.distances`."""
        return self._work.ask("distances", self._number, layer, step, head, column, most, many)

    def draw(self, temperature: float, top_k: int, top_p: float) -> Draw:
        """As :meth:`TokenReading.draw`."""
        return self._work.ask("draw", self._number, temperature, top_k, top_p)


# -- at the replica ----------------------------------------------------------------------------------------------------


class _Desk:
    """A run that is being read again, and the token that was read last.

    Attributes:
        asked: tokens to read, each with the number of its question.
    """

    def __init__(self, reading: Any) -> None:
        self.reading = reading
        self.asked: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
        self.stops: dict[int, threading.Event] = {}
        self._token: tuple[int, TokenReading] | None = None

    def answer(self, method: str, *args: Any) -> Any:
        """What the pages' end asks."""
        if method == "need":
            return self.reading.need(*args)
        if method == "read":
            number, position = args
            self.stops[number] = threading.Event()
            self.asked.put((number, position))
            return None
        number, *rest = args
        if method == "leave":
            if (stop := self.stops.get(number)) is not None:
                stop.set()
            return None
        held = self._token
        if held is None or held[0] != number:
            raise ValueError("another token was read since; read this one again")
        return getattr(held[1], method)(*rest)

    def next(self, seconds: float) -> tuple[int, int] | None:
        """What is to be read next; None where nothing is asked for within so many seconds."""
        try:
            return self.asked.get(timeout=seconds)
        except queue.Empty:
            return None

    def read(self, number: int, position: int) -> tuple[int, Any]:
        """A token, for the pages' end: its picture, its bytes and those of all that is held; a refusal; None: it was left."""
        try:
            token = self.reading.read(position, self.stops[number])
        except ValueError as error:
            return number, plain(error)
        finally:
            del self.stops[number]
        if token is None:
            return number, None
        self._token = number, token
        return number, (token.picture, token.nbytes, self.reading.nbytes)


def reread(bench: Bench, trace: Trace) -> Iterator[Any]:
    """A run is read again as long as somebody looks: it gives None once it is open, and then each token that is asked for."""
    desk = _Desk(bench.engine.read_again(trace))
    bench.answer = desk.answer
    yield None
    while (asked := bench.waiting(desk.next)) is not None:
        yield desk.read(*asked)
