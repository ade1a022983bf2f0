"""One visitor's run of a TTT model, and its messages: figures once, then what differs.

The messages: :mod:`loopviz.app.contract`. The page's script: `assets/web/ttt/main.js`.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from loopviz.app.sessions.memory_budget import Keeper
from loopviz.app.sessions.messages import pack, wire
from loopviz.app.texts import pick_language
from loopviz.figures.edits import differences
from loopviz.panels.ttt import TTT_PANELS, TTTFocus
from loopviz.trace import Frame, Trace

if TYPE_CHECKING:
    from loopviz.engine.engine import Handle, TTTEngine

SEND_EVERY = 0.15  # seconds
DRAWN = 2_000  # bytes of all pictures a token, as they are kept to tell the next from; at most
REST = 2.0  # times as long as drawing took, until pictures are drawn again: they grow with the run, which goes on meanwhile


def focus_of(asked: Mapping[str, Any]) -> TTTFocus:
    """Where a visitor says they look; what is less than 0 is 0."""
    head, token = asked.get("head"), asked.get("token")
    return TTTFocus(
        layer=max(0, asked.get("layer", 0)),
        head=None if head is None else max(0, head),
        token=None if token is None else max(0, token),
        lang=pick_language(asked.get("lang")),
    )


class Asked:
    """What is being read again for one visitor's run. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: dict[str, threading.Event] = {}  # by question, what leaves the newest that is being answered

    @contextmanager
    def answering(self, question: str) -> Iterator[threading.Event]:
        """Something is read again: what is yielded is set once that is not wanted any more, for all is left or the same is
        asked anew."""
        leave = threading.Event()
        with self._lock:
            if (before := self._newest.get(question)) is not None:
                before.set()
            self._newest[question] = leave
        try:
            yield leave
        finally:
            with self._lock:
                if self._newest.get(question) is leave:
                    del self._newest[question]

    def leave(self) -> None:
        """Nobody waits for any of it."""
        with self._lock:
            for leave in self._newest.values():
                leave.set()


class TTTRun:
    """A run of a TTT model. Its methods may be called from any thread.

    Args:
        engine: of its model.
        handle: of the run, as the engine began it.
        focus: where the visitor looks at first.
        session: whose it is; compared, never sent.
        ticket: the page's own name for what it asked for; it may end it.
        words: an error's words in a language.
    """

    def __init__(
        self,
        engine: TTTEngine,
        handle: Handle,
        focus: TTTFocus,
        session: str = "",
        ticket: str = "",
        words: Callable[[BaseException, str], str] = lambda error, lang: str(error),
    ) -> None:
        self.id = secrets.token_urlsafe(16)
        self.engine, self.handle, self.focus = engine, handle, focus
        self.session, self.ticket, self.words = session, ticket, words
        self.trace = Trace(handle.meta)
        self.epoch = 0
        self.end: str | None = None  # eos, length, context, stopped, time, memory, error
        self.halted = "stopped"
        self.error: BaseException | None = None
        self.opened = False
        self.keeper: Keeper | None = None
        self.stop = threading.Event()
        self.finished = threading.Event()
        self.asked = Asked()
        self.lock = threading.RLock()
        self._figures: dict[str, dict[str, Any]] = {}  # as the page has them
        self._sent = 0

    @property
    def nbytes(self) -> int:
        """Bytes of memory it takes, with the pictures that the page has of it."""
        with self.lock:
            return self.trace.nbytes + DRAWN * len(self.trace)

    def halt(self, end: str = "stopped") -> None:
        """End it soon, as `end` says unless it is ending already; what there is of it stays."""
        if not self.stop.is_set():
            self.halted = end
        self.stop.set()
        self.handle.stop()
        self.asked.leave()

    def add(self, frame: Frame) -> None:
        """Take a frame into the trace."""
        with self.lock:
            self.trace.append(frame)
            self.end = frame["finish"] or self.end
        if self.keeper is not None and not self.keeper.weigh(self):
            self.end = self.end or "memory"

    def close(self, error: BaseException | None = None) -> None:
        """Nothing computes for it any more."""
        with self.lock:
            self.error = error
            self.end = "error" if error is not None else self.end or self.halted
        self.finished.set()
        if self.keeper is not None:
            self.keeper.settled(self)

    # --- what is told ---------------------------------------------------------------------------------------------

    def _state(self, first: int) -> dict[str, Any]:
        frames, meta = self.trace.frames, self.trace.meta["ttt"]
        return {
            "run": self.id,
            "ticket": self.ticket,
            "epoch": self.epoch,
            "words": [
                [frame["text"], int(frame["phase"] == "prompt"), frame["next_logprob"]] for frame in frames[first:]
            ],
            "next": frames[-1]["next_text"] if frames and self.end != "eos" else "",
            "changes": [
                {"index": one["index"], "forget": one["forget"], "scale": one["inner_lr_scale"]}
                for one in meta["changes"]
            ],
            "summaries": {name: panel.summary(self.trace, self.focus) for name, panel in TTT_PANELS.items()},
            "end": self.end,
            "reason": "" if self.error is None else self.words(self.error, self.focus.lang),
        }

    def _drawn(self) -> dict[str, dict[str, Any]]:
        return {name: panel.data(self.trace, self.focus) for name, panel in TTT_PANELS.items()}

    def snapshot(self) -> dict[str, Any]:
        """Everything the page shows now; what comes later goes on from it."""
        with self.lock:
            self._figures, self._sent = self._drawn(), len(self.trace)
            meta = self.trace.meta["ttt"]
            return {
                "kind": "snapshot",
                **self._state(0),
                "model": self.trace.meta["model"],
                "layers": meta["layers"],
                "heads": meta["heads"],
                "mini_batch": meta["mini_batch"],
                "scale": meta["inner_lr_scale"],
                "figures": self._figures,
            }

    def news(self) -> dict[str, Any]:
        """What has come since the last message."""
        with self.lock:
            first, drawn = self._sent, self._drawn()
            ops = {name: pack(differences(self._figures[name], figure)) for name, figure in drawn.items()}
            self._figures, self._sent = drawn, len(self.trace)
            return {
                "kind": "news",
                **self._state(first),
                "first": first,
                "ops": {name: edits for name, edits in ops.items() if edits},
            }

    def look(self, focus: TTTFocus) -> dict[str, Any]:
        """The visitor looks elsewhere: a snapshot, from which later messages go on."""
        with self.lock:
            self.focus = focus
            self.epoch += 1
            return self.snapshot()


def paced(frames: Iterator[Frame], stop: threading.Event, pace: int) -> Generator[Frame, None, None]:
    """The frames, those of words that are written no faster than `pace` a second; 0: as they come. A stop ends the wait."""
    with closing(frames) if isinstance(frames, Generator) else nullcontext():
        for frame in frames:
            yield frame
            if pace > 0 and frame["phase"] == "generated":
                stop.wait(1 / pace)


def messages(
    run: TTTRun,
    frames: Iterator[Frame],
    every: float = SEND_EVERY,
    rest: float = REST,
    clock: Callable[[], float] = time.monotonic,
) -> Generator[str, None, None]:
    """A run's messages as its frames come: a snapshot with the first, then what is new, and a last one.

    What takes long to draw is drawn less often. A `ValueError` of the frames (an inner loss that is no number any more) ends the run with what there is, and is told in
    its last message; where there was no frame yet it passes through. Closing this ends the run.
    """
    begun, due = False, 0.0
    try:
        with closing(frames) if isinstance(frames, Generator) else nullcontext():
            for frame in frames:
                run.add(frame)
                if run.end or run.stop.is_set():
                    break
                if begun and clock() < due:
                    continue
                before = clock()
                told = run.news() if begun else run.snapshot()
                begun, now = True, clock()
                due = now + max(every, rest * (now - before))
                yield wire(told)
    except ValueError as error:
        if not len(run.trace):
            run.close(error)
            raise
        run.close(error)
    except GeneratorExit:
        run.halt()
        raise
    except BaseException as error:
        run.close(error)
        raise
    finally:
        if not run.finished.is_set():
            run.close()
    if len(run.trace):
        yield wire(run.news() if begun else run.snapshot())
