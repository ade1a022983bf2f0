"""The live part of a page: what a run sends to the browser, and who may ask for it.

A :class:`Run` holds one visitor's run: its trace, where the visitor is looking, and what has not been sent yet.

:func:`messages` turns the engine's frames into messages (:mod:`loopviz.app.contract`: a snapshot, frames, an end), written as strings
(:func:`loopviz.app.sessions.messages.wire`), one a yield. An epoch of figures begins whenever the visitor looks elsewhere.

Free of Gradio and torch, so all of it is tested without a browser or a model.
"""

from __future__ import annotations

import secrets
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, nullcontext
from typing import Any

from loopviz.app.explore import replay
from loopviz.app.explore import snapshot as drawing
from loopviz.app.explore.snapshot import Panels, token_row
from loopviz.app.sessions.memory_budget import Keeper
from loopviz.app.sessions.messages import dumps, wire
from loopviz.app.sessions.registry import Registry
from loopviz.app.sessions.turns import Turn
from loopviz.app.texts import text
from loopviz.panels import Focus, hero
from loopviz.trace import Frame, Trace, changes_of

SEND_EVERY = 0.08  # seconds; sending more often costs server time and no screen shows it
HOLD = 0.15  # seconds that the words of a prompt wait for the first that is made: who has both at once is drawn once
NOTICED, FORGOTTEN = (
    0.2,
    3.0,
)  # seconds of waiting for a turn that are told; without any, after which it is told no more
LOST = 8  # of so many bytes one more is lost between the many small objects of a run (measured: 7 to 12 %)
SUMMARY_EVERY = 2.0  # seconds; a screen reader cannot follow more


class Run:
    """One run of one visitor. Its methods may be called from any thread.

    Args:
        meta: the run's Meta.
        panels: the panels that are on, by name; those that are off cost nothing.
        session: whose run it is; compared, never sent.
        focus: where the visitor looks at first.
    """

    def __init__(self, meta: Mapping[str, Any], panels: Panels, session: str = "", focus: Focus | None = None) -> None:
        self.id = secrets.token_urlsafe(16)
        self.session = session
        self.n = 0  # its number among its page's starts; 0: it was not started there
        self.trace = Trace(meta)
        self.panels = drawing.drawable(self.trace, panels)
        self.focus = focus or Focus()
        self.epoch = 0
        self.values: Mapping[str, Any] = {}  # of the page's controls, as the run began
        self.steer: Callable[..., None] | None = None  # changes its loop while it is made
        self.loop: dict[str, Any] = {}  # its loop fields that can change, as last asked for
        self.aside: Mapping[str, Any] | None = None  # what is to be said of it beside its frames
        self.opened = False  # read from a visitor's file; else it was made here
        self.end: str | None = None  # eos, length, context, stopped, time, memory, error
        self.keeper: Keeper | None = None  # weighs it as it grows
        self.stop = threading.Event()
        self.halted = "stopped"  # its end if it is ended by `stop`
        self.finished = threading.Event()  # nothing computes for this run any more
        self._lock = threading.RLock()
        self._line: Callable[[str | None], bool] | None = None  # see loopviz.app.explore.event_stream
        self._shown = Trace(self.trace.meta)  # what the page has been sent of it
        self._said = 0.0
        self._told: tuple[int, list[str | None]] = (
            0,
            [],
        )  # changes of the loop, and the colours, that the page knows of

    def __len__(self) -> int:
        return len(self.trace)

    @property
    def nbytes(self) -> int:
        """Bytes of memory it takes: its frames, which what is shown of it shares, and what was made to draw them."""
        with self._lock:
            shown = 0 if self._shown is self.trace else sys.getsizeof(self._shown.frames) + self._shown.own_bytes
            taken = sys.getsizeof(self.values) + self.trace.nbytes + shown
            return taken + taken // LOST

    def settle(self) -> None:
        """Nothing is added to it any more: what is shown of it is the trace itself, and it is weighed a last time."""
        with self._lock:
            if len(self._shown) == len(self.trace):
                self._shown = self.trace
        if self.keeper is not None:
            self.keeper.settled(self)

    def halt(self, end: str = "stopped") -> None:
        """End it soon, as `end` says unless it is ending already; what there is stays."""
        if not self.stop.is_set():
            self.halted = end
        self.stop.set()

    def attach(self, send: Callable[[str | None], bool]) -> None:
        """From now on messages can go by this line; an earlier one is hung up."""
        with self._lock:
            earlier, self._line = self._line, send
        if earlier is not None:
            earlier(None)
        if self.finished.is_set():
            self.hang_up()

    def hang_up(self) -> None:
        """Nothing more will be sent by the line."""
        with self._lock:
            line, self._line = self._line, None
        if line is not None:
            line(None)

    def detach(self, send: Callable[[str | None], bool]) -> None:
        """This line leads nowhere any more."""
        with self._lock:
            if self._line == send:
                self._line = None

    def post(self, message: Mapping[str, Any]) -> bool:
        """Send a message by the run's own line; False when there is none, or it does not take it."""
        with self._lock:
            line = self._line
        return line is not None and line(dumps(message))

    def add(self, frame: Frame) -> None:
        """Take a frame into the trace; what it changes in the panels is worked out once for all that is sent together."""
        with self._lock:
            self.trace.append(frame)
            if frame["finish"]:
                self.end = frame["finish"]
        if self.keeper is not None and not self.keeper.weigh(self):
            self.end = self.end or "memory"

    def snapshot(self, shown: int | None = None) -> dict[str, Any]:
        """Everything the page shows now; of a finished run, if asked, as it was after `shown` tokens.

        What waited to be sent is in it, and is not sent again.
        """
        with self._lock:
            for frame in self.trace.frames[len(self._shown) :]:
                self._shown.append(frame)
            if self.finished.is_set():
                self._shown = self.trace
            self._told = self._title()
            shown = shown if self.finished.is_set() else None
            place = {"run": self.id, "epoch": self.epoch, "end": self.end}
            drawn = replay.snapshot(self._shown, self.focus, self.panels, shown=shown, **place)
            telling = {"telling": hero.telling(self.trace)} if self.end and self.focus.token is None else {}
            return drawn | telling | ({"n": self.n} if self.n else {})

    def frames_message(self, clock: Callable[[], float] = time.monotonic) -> dict[str, Any] | None:
        """What happened since the last message, or None when nothing did."""
        with self._lock:
            first, last = len(self._shown), len(self.trace)
            if first == last:
                return None
            frames = self.trace.frames[first:]
            message = {
                "kind": "frames",
                "run": self.id,
                "epoch": self.epoch,
                "first": first,
                "last": last,
                "tokens": [token_row(frame) for frame in frames],
                "next": drawing.next_text(self.trace),
                **drawing.fold(self._shown, frames, self.focus, self.panels),
                "end": self.end,
            }
            if self._told != (title := self._title()):
                self._told = title
                message |= drawing.title(self.trace, self.focus.lang)
            if self.end or clock() - self._said > SUMMARY_EVERY:
                self._said = clock()
                message["summaries"] = drawing.summaries(self.trace, self.focus, self.panels)
            if self.end:
                message["telling"] = hero.telling(self.trace)
            return message

    def _title(self) -> tuple[int, list[str | None]]:
        """What may change of :func:`loopviz.app.explore.snapshot.title` while a run is made."""
        return len(changes_of(self.trace.meta, len(self.trace))), drawing.palette(self.trace)

    def ending(self) -> dict[str, Any]:
        """The message that ends the run on the page, whatever came before it."""
        with self._lock:
            n = len(self.trace)
            return self.frames_message() or {
                "kind": "frames",
                "run": self.id,
                "epoch": self.epoch,
                "first": n,
                "last": n,
                "tokens": [],
                "next": drawing.next_text(self.trace),
                "ops": {},
                "hero": [],
                "summaries": drawing.summaries(self.trace, self.focus, self.panels),
                "telling": hero.telling(self.trace),
                "end": self.end,
            }

    def look(self, focus: Focus, panels: Panels | None = None, shown: int | None = None) -> dict[str, Any]:
        """The visitor looks elsewhere, or with other panels: a snapshot drawn so, from which later messages go on."""
        with self._lock:
            self.focus = focus
            if panels is not None:
                self.panels = drawing.drawable(self.trace, panels)
            self.epoch += 1
            return self.snapshot(shown)

    def advance(self, first: int, last: int, split: bool = False, **how: int) -> dict[str, Any]:
        """Move through a finished run: see :func:`loopviz.app.explore.replay.advance`. One still being made answers as it is."""
        with self._lock:
            if not self.finished.is_set():
                return self.snapshot()
            place = {"run": self.id, "epoch": self.epoch, "end": self.end, "first": first, "last": last, "split": split}
            answer = replay.advance(self.trace, self.focus, self.panels, **place, **how)
            self.epoch = answer["epoch"]
            return answer

    def since(self, epoch: int, seq: int) -> dict[str, Any]:
        """What a page that has `seq` frames of `epoch` needs: a snapshot, or word that it has everything."""
        with self._lock:
            if epoch == self.epoch and seq == len(self.trace):
                return {"kind": "current", "run": self.id, "seq": seq, "end": self.end}
            return self.snapshot()


def messages(
    run: Run,
    frames: Iterable[Frame],
    *,
    every: float = SEND_EVERY,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[str]:
    """The run's messages as its frames come: a snapshot with the first word that is made, or with those of the prompt once `HOLD`
    is over; then what is new every `every` seconds, the first word at once; and a last one. While the run has a line of its
    own, what lies between goes there and is not yielded.

    Nothing at all when no frame came: what the page showed before then stays. Looks at `run.stop` after each frame, not
    after each message. Closing this generator closes `frames`; however it
    ends, `run.end` says why and `run.finished` is set. What `frames` raises passes through.
    """
    frames = iter(frames)
    begun, made, last, asked = False, False, 0.0, clock()
    try:
        with closing(frames) if hasattr(frames, "close") else nullcontext():
            for frame in frames:
                run.add(frame)
                if run.end or run.stop.is_set():
                    break
                now, first = clock(), not made and frame["phase"] == "generated"
                made = made or first
                if not begun:
                    # a step takes no longer than its prompt took: it is not waited for long
                    if first or now - asked >= HOLD:
                        begun, last = True, now
                        yield wire(run.snapshot())
                elif run.aside is not None:
                    yield from _said_beside(run)
                elif first or now - last >= every:
                    last = now
                    if (message := run.frames_message(clock)) and not run.post(message):
                        yield wire(message)
        run.end = run.end or run.halted
        if begun:
            yield from _said_beside(run)
            last_words = run.ending()
            # by the line the rest comes sooner; Gradio's way brings the end in any case
            yield wire(run.ending() if run.post(last_words) else last_words)
        elif len(run):
            yield wire(run.snapshot())
    except GeneratorExit:
        run.end = run.end or run.halted
        raise
    except BaseException:
        run.end = run.end or "error"
        raise
    finally:
        run.finished.set()
        run.hang_up()
        run.settle()


def _said_beside(run: Run) -> Iterator[str]:
    """What is to be said beside the frames, by the run's own line or as a message; where a browser has several pages of ours, it has no line."""
    aside, run.aside = run.aside, None
    if aside is not None and not run.post(aside):
        yield wire(aside)


def in_turns(
    run: Run, turn: Turn, made: Iterator[Frame], lang: str, mark: Mapping[str, Any]
) -> Generator[Frame, None, None]:
    """A run's frames, in its visitor's turns; the page is told (`run.aside`) while others of hers have theirs.

    Args:
        mark: by what the page knows that a message is about this.
    """

    def say(key: str) -> None:
        run.aside = {"kind": "status", "text": text(lang, key) if key else "", "bad": False, **mark}

    told, waited, since = False, 0.0, 0.0
    try:
        with closing(turn.of(made, run.stop.is_set, lambda frame: frame["pass_runs"] or 1)) as frames:
            for frame in frames:
                now = time.monotonic()
                if turn.waited - waited > NOTICED:
                    since = now
                    if not told:
                        told = True
                        say("live.turns")
                elif told and now - since > FORGOTTEN:
                    told = False
                    say("")
                waited = turn.waited
                yield frame
    finally:
        if told:
            say("")


Runs = Registry[Run]  # of all visitors
