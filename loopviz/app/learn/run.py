"""One visitor's try at a step: its runs, one after the other, and what was measured of them.

The messages: :mod:`loopviz.app.contract`. The page's script: `assets/web/learn/main.js`.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

from loopviz.app.controls.model_name import short_name
from loopviz.app.sessions.memory_budget import Keeper
from loopviz.app.sessions.messages import wire
from loopviz.app.texts import LANGUAGES
from loopviz.lessons.measurements import Measured, kind_of, stands
from loopviz.lessons.play import Planned, make, measure_part, part_of
from loopviz.lessons.schema import Lesson, LessonStep, Part
from loopviz.lessons.sentences import filled, said
from loopviz.lessons.tables import Table
from loopviz.trace.weight import deep_bytes

if TYPE_CHECKING:
    from loopviz.engine.engine import Engine
    from loopviz.trace import Trace

SEND_EVERY = 0.12  # seconds


class Attempt:
    """A step's runs. Its methods may be called from any thread.

    Args:
        step: of `lesson`.
        what_if: whether its what-if is made, and not the step itself.
        runs: as they are asked for, each with the engine of its model.
        session: whose it is; compared, never sent.
        ticket: the page's own name for what it asked for; it may end it.
    """

    def __init__(
        self,
        lesson: Lesson,
        step: LessonStep,
        what_if: bool,
        runs: list[tuple[Planned, Engine]],
        session: str = "",
        ticket: str = "",
    ) -> None:
        part = part_of(step, what_if)
        assert part is not None
        self.id = secrets.token_urlsafe(16)
        self.lesson, self.step, self.what_if, self.runs = lesson, step, what_if, runs
        self.part: Part = part
        self.session, self.ticket = session, ticket
        self.texts: dict[str, str] = {}
        self.measured: dict[str, Measured] = {}
        self.made_with: dict[str, str] = {}
        self.way: dict[str, Any] | None = None  # through a problem of arrows, where the step has that picture
        self.making, self.done = "", 0
        self.total = sum(run.request.settings["max_new_tokens"] for run, _ in runs)
        self.end: str | None = None  # done, stopped, time, memory, error
        self.halted: str | None = None  # its end, if it is ended before it is done
        self.opened = False
        self.keeper: Keeper | None = None  # weighs it as it grows
        self.stop = threading.Event()
        self.finished = threading.Event()
        self._traces: dict[str, Trace | Table] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of memory it takes: the traces of its runs, until they have been measured."""
        traces = list(self._traces.values())
        held = deep_bytes([self.texts, self.measured, self.made_with, dict(self.lesson)])
        return held + sum(deep_bytes(one.rows) if isinstance(one, Table) else one.nbytes for one in traces)

    def halt(self, end: str = "stopped") -> None:
        """End it, as `end` says, in the middle of a pass too."""
        self.halted = self.halted or end
        self.stop.set()

    def work(self) -> Generator[None, None, None]:
        """Make the runs and measure them; yields after every token. Raises ValueError for what cannot be made or measured."""
        for run, engine in self.runs:
            self.making = run.name
            self.made_with[short_name(run.needs)] = engine.describe().source
            with closing(make(engine, run, self.stop)) as traces:
                for trace in traces:
                    self._take(run, trace)
                    yield
            if self.stop.is_set():
                return
            if run.measured is not None:
                self.done += run.request.settings["max_new_tokens"]
        self.measured = measure_part(self.part, self._traces)
        if "picture" in self.part:
            first = self._traces[self.runs[0][0].name]
            assert not isinstance(first, Table)  # its prompt is a problem of arrows, and `faults` has seen to the rest
            steps, came = stands(first)
            self.way = {"prompt": first.meta["prompt"], "steps": steps, "said": came}

    def _take(self, run: Planned, trace: Trace | Table) -> None:
        """A token more of a run."""
        if isinstance(trace, Table):
            self._traces[run.name] = trace
            self.made_with |= trace.versions
            self._weigh()
            return
        if run.name not in self._traces:
            self._traces[run.name] = trace
            self.made_with |= trace.meta["versions"]
        if trace.frames[-1]["phase"] == "generated" or len(trace.frames) == trace.meta["prompt_tokens"]:
            self.done += 1
            prompt = sum(len(frame["text"]) for frame in trace.frames[: trace.meta["prompt_tokens"]])
            self.texts[run.name] = trace.text[prompt:]
        self._weigh()

    def _weigh(self) -> None:
        if self.keeper is not None and not self.keeper.weigh(self):
            self.halt("memory")

    def finish(self, end: str) -> None:
        """Nothing computes for it any more."""
        self.end = self.end or end
        self._traces = {}
        self.runs = []  # nor does it hold their models: one that is let go of goes
        self.finished.set()
        if self.keeper is not None:
            self.keeper.settled(self)

    # --- messages -------------------------------------------------------------------------------------------------

    def _state(self) -> dict[str, Any]:
        where = {"run": self.id, "ticket": self.ticket, "step": self.step["id"], "what_if": self.what_if}
        return {**where, "texts": dict(self.texts)}

    def progress(self) -> dict[str, Any]:
        """How far it is."""
        return {"kind": "progress", **self._state(), "making": self.making, "done": self.done, "total": self.total}

    def result(self) -> dict[str, Any]:
        """What it has come to, in every language: a later try may have taken its place when the page is read in another."""
        return {
            "kind": "result",
            **self._state(),
            "end": self.end,
            "measured": {name: self._measured(name, value) for name, value in self.measured.items()},
            "says": self.sentence(self.step["what_if"]["says"] if self.what_if else dict.fromkeys(LANGUAGES, "")),
            "way": self.way,
            "made_with": self.made_with,
        }

    def _measured(self, name: str, value: Measured) -> dict[str, Any]:
        asked = self.part["measure"][name]
        return {"kind": kind_of(asked), "value": value, "said": {lang: said(asked, value, lang) for lang in LANGUAGES}}

    def sentence(self, words: Mapping[str, Any]) -> dict[str, str]:
        """A sentence of the lesson, with what was measured in it, in every language."""
        return {lang: filled(words[lang], self.part["measure"], self.measured, lang) for lang in LANGUAGES}


def messages(
    attempt: Attempt, *, every: float = SEND_EVERY, clock: Callable[[], float] = time.monotonic
) -> Generator[str, None, None]:
    """A try's messages: how far it is, every `every` seconds, and what it has come to."""
    last = clock()
    try:
        with closing(attempt.work()) as tokens:
            yield wire(attempt.progress())
            for _ in tokens:
                now = clock()
                if now - last >= every:
                    last = now
                    yield wire(attempt.progress())
        attempt.finish(attempt.halted or "done")
        yield wire(attempt.result())
    except GeneratorExit:
        attempt.halt()
        raise
    except BaseException:
        attempt.finish("error")
        raise
    finally:
        attempt.finish("stopped")
