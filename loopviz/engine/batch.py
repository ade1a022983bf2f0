"""Batched decoding: runs of one model that are read at the same time share their passes.

Whatever their prompts, sampling and loops: a pass reads the weights once for all of them (:mod:`loopviz.model.shared_pass`), and
the recorder measures them together (:mod:`loopviz.trace.recording.together`). Runs come and go between two tokens. Each keeps its own
cache, sampler, recorder, steering and stop, and its text is what it would be alone, but for rounding.

Nobody owns a thread here. Whoever asks for a run's next token waits in its model's room, and one of those who wait makes the pass
for all; before it begins, it waits a little for the runs of the pass before, whose readers are busy with what they got. Prompts,
and passes that cannot be shared, are read by whoever asked, beside the others. A run alone is read as it ever was.

A pass takes as long as its deepest row: a run of many more loops than others goes into another room (:class:`Rooms`), where it
shares with its like, and its passes are made beside theirs.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch

from loopviz.model.interrupt import Interrupted, stopped, uninterrupted

if TYPE_CHECKING:
    from loopviz.engine.single_run import Run
    from loopviz.model import LoopLlamaForCausalLM
    from loopviz.model.shared_pass import SharedPass
    from loopviz.trace import Change, Frame

log = logging.getLogger(__name__)

MOST_ROWS = 32  # of a pass: what a run waits for others grows with them
PATIENCE = 0.1  # seconds that a pass waits at most for runs of the one before
SHARE = 0.5  # ... and of what that one took
DEEPER = 8  # times as many layer runs as a pass of the shallowest run: such a pass is not shared with that run
GLANCE = 0.05  # seconds between two looks at a run's stop, while another thread makes its pass


@dataclass(eq=False)
class Ticket:
    """A run that waits for a token to be read.

    Attributes:
        run: whose pass has begun (`Run.turn`).
        token: to be read.
        change: of the loop, as that gave it.
        frame: once it has been read.
        error: what the run's own part of the pass raised.
        alone: it is to be read by its own thread.
        thread: that one.
    """

    run: Run
    token: int
    change: Change | None
    frame: Frame | None = None
    error: Exception | None = None
    alone: bool = False
    thread: int = field(default_factory=threading.get_ident)

    @property
    def done(self) -> bool:
        """Whether its run can go on."""
        return self.alone or self.frame is not None or self.error is not None


def read_shared(passes: SharedPass, tickets: Sequence[Ticket]) -> None:
    """One pass for all: every ticket has its frame, or its error, or is left to be read alone where the pass failed.

    Raises:
        Interrupted: by a stop of who calls this; no token has been read then.
    """
    from loopviz.model.shared_pass import PassRow

    try:
        with torch.inference_mode():
            rows = []
            for ticket in tickets:
                ticket.run.recorder.begin()
                assert ticket.run.cache is not None
                rows.append(PassRow(ticket.run.view, ticket.run.cache, ticket.token, ticket.run.loop_blocks))
            hidden = passes.run(rows)  # [B, 1, H]
    except Interrupted:
        raise
    except Exception:  # whose fault it is shows when each reads by itself; no cache has been changed
        log.warning("a pass that %d runs shared failed; each is read by itself", len(tickets), exc_info=True)
        for ticket in tickets:
            ticket.alone = True
        return
    try:
        _make_frames(tickets, hidden)
    except Exception as error:  # the tokens have been read: no run can read them once more
        for ticket in tickets:
            ticket.error = ticket.error or (None if ticket.frame else error)


def _make_frames(tickets: Sequence[Ticket], hidden: torch.Tensor) -> None:
    """What has been read, as frames; a run's own failure is its own."""
    from loopviz.trace.recording.together import RowPass, measure, read_together

    clocks = [ticket.run.clock() for ticket in tickets]
    rows = [
        RowPass(ticket.run.recorder, one[0], ticket.run.cache)  # type: ignore[arg-type]  # open while it waits
        for ticket, one in zip(tickets, hidden.split(1), strict=True)
    ]
    at = 0
    parts = read_together(rows)
    while at < len(tickets):
        began = time.perf_counter()
        with torch.inference_mode():
            readings = next(parts)
            some, times = tickets[at : at + len(readings)], clocks[at : at + len(readings)]
            at += len(readings)
            for ticket, reading in zip(some, readings, strict=True):
                try:
                    reading.next_id = ticket.run.sampler.choose(reading.last_logits)
                except Exception as error:
                    ticket.error = error
            for clock in times:
                clock.seconds_head += time.perf_counter() - began
            measure(readings)
            for ticket, reading, clock in zip(some, readings, times, strict=True):
                if ticket.error is None:
                    try:
                        ticket.frame = ticket.run.one_frame(ticket.token, reading, ticket.change, clock, len(tickets))
                    except Exception as error:
                        ticket.error = error


def layer_runs(run: Run) -> int:
    """Layers that a run's last pass ran, loops counted: one that stops by itself is as deep as it was, and not as it may be.

    1 at least: a chooser may have left out every layer of a block that has all of them.
    """
    report, layers = run.view.last_pass, run.view.config.num_hidden_layers
    return max(1, layers + sum(int(report.layer_runs(i, n)[0]) - n for i, n in enumerate(run.blocks)))


class Room:
    """Where runs of one model's weights meet that are about as deep. Its methods may be called from any thread."""

    def __init__(self) -> None:
        lock = threading.RLock()  # re-entrant: a run may be closed by the garbage collector, anywhere
        self._turn = threading.Condition(lock)  # a pass is over
        self._gathered = threading.Condition(lock)  # nobody is awaited any more; only who leads waits for it
        self._waiting: list[Ticket] = []
        self._leading = False  # somebody gathers tickets, or makes a pass
        self._leader = 0  # its thread
        self._last: dict[Run, int] = {}  # runs of the pass before, and the threads that asked for them
        self._took = 0.0  # seconds of it
        self._passes: SharedPass | None = None

    def leave(self, run: Run) -> None:
        """A run is open no longer."""
        with self._turn:
            self._last.pop(run, None)
            self._gathered.notify()

    def read(self, run: Run, token: int, change: Change | None) -> Iterator[Frame]:
        """As `Run.read_on`, with whoever else waits."""
        ticket = Ticket(run, token, change)
        self._wait(ticket)
        if ticket.error is not None:
            raise ticket.error
        if ticket.frame is None:
            yield from run.read_on([token], change)
        else:
            yield ticket.frame

    def _wait(self, ticket: Ticket) -> None:
        """Until it is done, by this thread or another.

        Raises:
            Interrupted: the run's stop was set. No pass reads it any more.
        """
        with self._turn:
            self._waiting.append(ticket)
            if self._leading and not self._awaits():
                self._gathered.notify()
            try:
                while not ticket.done:
                    if not self._leading:
                        self._lead(ticket)
                    else:
                        self._turn.wait(GLANCE)
                    if ticket in self._waiting and stopped():
                        raise Interrupted("stopped before its pass began")
            finally:
                if ticket in self._waiting:
                    self._waiting.remove(ticket)

    def _lead(self, mine: Ticket) -> None:
        """Gather those who wait, and make their pass; called, and left, with the lock held."""
        self._leading, self._leader = True, mine.thread
        tickets: list[Ticket] = []
        try:
            self._gather()
            if stopped():
                return
            others = [ticket for ticket in self._waiting if ticket is not mine]
            tickets = [mine, *others[: MOST_ROWS - 1]]
            self._waiting = others[MOST_ROWS - 1 :]
            passes = self._passes = self._passes or _passes_of(mine.run)
            self._turn.release()
            began = time.perf_counter()
            try:
                self._make(passes, tickets)
            finally:
                self._turn.acquire()
            self._took = time.perf_counter() - began
            self._last = {ticket.run: ticket.thread for ticket in tickets}
        finally:
            for ticket in tickets:
                if not ticket.done:  # this thread was torn away, by a KeyboardInterrupt
                    ticket.error = RuntimeError("the pass that read this token was broken off; start the run again")
            self._leading = False
            self._turn.notify_all()

    def _gather(self) -> None:
        """Wait for the runs of the pass before."""
        deadline = time.monotonic() + min(PATIENCE, SHARE * self._took)
        while self._awaits() and not stopped():
            left = deadline - time.monotonic()
            if left <= 0:
                return
            self._gathered.wait(min(left, GLANCE))

    def _awaits(self) -> bool:
        """Whether a run of the pass before may still come; not one that the leading thread itself would have to ask for."""
        present = {ticket.run for ticket in self._waiting}
        others = any(run not in present and thread != self._leader for run, thread in self._last.items())
        return others and len(present) < MOST_ROWS

    def _make(self, passes: SharedPass, tickets: list[Ticket]) -> None:
        """The pass of these runs; one alone is read as it ever was, and ends by its own stop."""
        if len(tickets) == 1:
            [mine] = tickets
            [mine.frame] = mine.run.read_on([mine.token], mine.change)
        else:
            with uninterrupted():
                read_shared(passes, tickets)


class Rooms:
    """The rooms of one model's weights. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # as a room's
        self._runs = 0  # that are open
        self._depths: dict[Run, int] = {}  # layer runs of each one's last pass
        self._rooms: dict[int, Room] = {}  # by how often their runs are DEEPER than the shallowest

    @contextmanager
    def entered(self, run: Run) -> Iterator[Rooms]:
        """For as long as a run is open."""
        with self._lock:
            self._runs += 1
        try:
            yield self
        finally:
            with self._lock:
                self._runs -= 1
                self._depths.pop(run, None)
                rooms = [*self._rooms.values()]
                if not self._runs:
                    self._rooms = {}  # they hold the model
            for room in rooms:
                room.leave(run)

    def read(self, run: Run, tokens: list[int]) -> Iterator[Frame]:
        """As `Run.read`, with whoever else waits."""
        change = run.turn()
        if len(tokens) > 1 or self._runs < 2 or not run.may_share():
            yield from run.read_on(tokens, change)
            return
        yield from self._room(run).read(run, tokens[0], change)

    def _room(self, run: Run) -> Room:
        """Where a run's next token is read."""
        with self._lock:
            depth = self._depths[run] = layer_runs(run)
            least, times = min(self._depths.values()), 0
            while depth >= least * DEEPER ** (times + 1):
                times += 1
            return self._rooms.setdefault(times, Room())


_ROOMS: WeakKeyDictionary[torch.nn.Module, Rooms] = WeakKeyDictionary()
_DOOR = threading.Lock()


def rooms_of(view: LoopLlamaForCausalLM) -> Rooms:
    """The rooms of a model object's weights, which are there for as long as they are."""
    from loopviz.model.shared_pass import weights_of

    with _DOOR:
        return _ROOMS.setdefault(weights_of(view), Rooms())


def _passes_of(run: Run) -> SharedPass:
    from loopviz.model.shared_pass import SharedPass

    return SharedPass(run.view)
