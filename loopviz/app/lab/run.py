"""One visitor's measurement: an experiment in a thread of its own, and the messages that bring its rows to the page.

The messages: :mod:`loopviz.app.contract`. The page's script: `assets/web/lab/main.js`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopviz.app import controls as st
from loopviz.app.controls.link_word import PageState, encode
from loopviz.app.controls.model_name import short_name
from loopviz.app.sessions.chosen_precision import is_overflow, measured_in, told_of
from loopviz.app.sessions.columns import column_words
from loopviz.app.sessions.faults import kinds, unforeseen
from loopviz.app.sessions.memory_budget import Keeper
from loopviz.app.sessions.messages import wire
from loopviz.app.sessions.private_paths import without_paths
from loopviz.app.texts import pick_language, text
from loopviz.engine.engine import EngineLost
from loopviz.figures import theme
from loopviz.trace.weight import deep_bytes

if TYPE_CHECKING:
    from loopviz.app.sessions.turns import Turn
    from loopviz.lab.experiment import Experiment
    from loopviz.lab.kept import Kept

SEND_EVERY = 0.4  # seconds
DRAW_EVERY = 2.0  # seconds; drawing takes time from the measurement


class Halt:
    """What ends a measurement, by a word or by the clock.

    Args:
        limit: seconds from now; None: no clock.
    """

    def __init__(self, limit: float | None) -> None:
        self._word: str | None = None
        self._until = math.inf if limit is None else self.now() + limit

    @staticmethod
    def now() -> float:
        """The clock, seconds."""
        return time.monotonic()

    def more(self, seconds: float) -> None:
        """It rested for so long: that is not of its time."""
        self._until += seconds

    def set(self, word: str = "stopped") -> None:
        """The word; the first counts."""
        self._word = self._word or word

    @property
    def word(self) -> str | None:
        """The word; None as long as nobody has said it."""
        return self._word

    @property
    def why(self) -> str | None:
        """The word, or `time`; None as long as it may go on."""
        return self._word or ("time" if self.now() > self._until else None)

    def is_set(self) -> bool:
        """Whether it is to end now."""
        return self.why is not None


class LabRun:
    """A measurement. Its methods may be called from any thread.

    Args:
        experiment: what is measured.
        folder: of the texts it reads; goes with it.
        session: whose it is; compared, never sent.
        ticket: the page's own name for what it asked for; it may end it.
        limit: seconds after which it ends by itself, with the rows it has; None: never.
        local: whether links may name folders and files of this machine.
        shown: rows on the page, at most; all are in the files. None: all.
        trained: numbers of loops that its model was trained at, first and last; None: not known.
        precision: in which its model was asked for.
    """

    def __init__(
        self,
        experiment: Experiment,
        folder: Path,
        session: str = "",
        ticket: str = "",
        lang: str = "en",
        limit: float | None = None,
        local: bool = True,
        shown: int | None = None,
        trained: tuple[int, int] | None = None,
        precision: str = st.SERVER,
    ) -> None:
        self.id = secrets.token_urlsafe(16)
        self.experiment, self.folder = experiment, folder
        self.session, self.ticket, self.lang = session, ticket, lang
        self.local, self.shown, self.trained, self.precision = local, shown, trained, precision
        self.end: str | None = None  # done, stopped, time, memory, error
        self.reason = ""
        self.overflowed = False  # whether it ended as its numbers grew beyond float16
        self.opened = False
        self.keeper: Keeper | None = None  # weighs it as it grows
        self._weighed, self._weight = 0, deep_bytes(dict(vars(experiment.params)))  # rows weighed; bytes
        self._words: set[int] = set()
        self._weighing = threading.Lock()
        self.finished = threading.Event()
        self._halt = experiment.stop = Halt(limit)
        self.rest: Callable[[], object] = lambda: None  # called between rows: it may take its time
        self.turn: Turn | None = None  # its visitor's
        self._drawn = (-1, 0.0)  # rows in the figure, and when it was made
        self._began = time.monotonic()

    @property
    def nbytes(self) -> int:
        """Bytes of memory it takes: its rows, and the texts it reads."""
        with self._weighing:
            rows = self.experiment.rows
            until = len(rows)
            for row in rows[self._weighed : until]:
                self._weight += deep_bytes(row, words=self._words)
            self._weighed = until
            return self._weight + sys.getsizeof(rows)

    def halt(self, end: str = "stopped") -> None:
        """End it, as `end` says, in the middle of a pass too; `finished` is set when it has ended."""
        self._halt.set(end)

    @property
    def halted(self) -> str | None:
        """Its end, if it is to end before it is done; what rests has all its time."""
        return self._halt.word

    def work(self) -> None:
        """Measure, until the end or until it is stopped; never raises."""
        end, reason, turn = "done", "", self.turn
        steps = self.experiment if turn is None else turn.of(self.experiment, lambda: self.halted is not None)
        try:
            for _ in steps:
                if self.keeper is not None and not self.keeper.weigh(self):
                    end = "memory"
                    break
                if self.experiment.share < 1:  # all is measured: it leaves its place, and waits for none
                    began = Halt.now()
                    self.rest()
                    self._halt.more(Halt.now() - began)
            else:
                end = "done" if self.experiment.complete else self._halt.why or "stopped"
        except EngineLost as lost:  # nothing is wrong with what was asked for
            end, reason = "error", f"⚠ {told_of(lost, self.lang)}"
        except ValueError as error:
            self.overflowed = is_overflow(error)
            words = told_of(error, self.lang)
            said = words if self.local else without_paths(words)
            end, reason = "error", text(self.lang, "refused", reason=said)
        except kinds() as error:
            end, reason = "error", text(self.lang, "refused", reason=unforeseen(error, self.lang, "measurement"))
        finally:
            self.experiment.close()
            self.end, self.reason = end, reason
            self.finished.set()
            if self.keeper is not None:
                self.keeper.settled(self)

    def forget(self) -> None:
        """Nobody will ask for it any more: its texts go."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def link(self, at: Any) -> str | None:
        """The word of the address that opens in Explore the model that row `at` speaks of; None when there is none."""
        from loopviz.lab.measure import model_of_row

        experiment, rows = self.experiment, self.experiment.rows
        if experiment.task.settings is None or not isinstance(at, int) or not 0 <= at < len(rows):
            return None
        described = model_of_row(experiment.task, experiment.subject, rows[at], experiment.params)
        if described is None or st.unheld(described):  # one that is only nearly the row's would be a wrong answer
            return None
        values = {**st.defaults(), "model": described.name, "precision": self.precision}
        return encode(PageState(values={**values, **st.suit_model(values, described)}), local=self.local)[0]

    # --- messages -------------------------------------------------------------------------------------------------

    def _state(self) -> dict[str, Any]:
        """How far it is."""
        experiment = self.experiment
        return {
            "run": self.id,
            "ticket": self.ticket,
            "done": experiment.done,
            "total": experiment.total,
            "seconds": time.monotonic() - self._began if self.end is None else experiment.seconds,
            "share": experiment.share,
            "eta": experiment.eta if self.end is None else None,
            "end": self.end,
            "reason": self.reason,
        }

    def figure(self) -> dict[str, Any] | None:
        """The task's plot of the rows so far, as plain data; None for a task without one."""
        return drawn(self.experiment, self.lang, self.trained)

    def snapshot(self) -> dict[str, Any]:
        """Everything there is."""
        experiment = self.experiment
        self._drawn = (experiment.done, time.monotonic())
        rows = list(experiment.rows[: self.shown])
        return {
            "kind": "snapshot",
            **self._state(),
            "task": experiment.task.name,
            "model": short_name(experiment.subject.name),
            "columns": [column_words(column, self.lang) for column in experiment.task.columns],
            "rows": rows,
            "headline": said_of(experiment, self.lang),
            "held": measured_in(experiment.held, self.lang),
            "opens": experiment.task.settings is not None,
            "figure": self.figure(),
            "walk": walk_of(experiment, self.lang),
        }

    def news(self, first: int) -> dict[str, Any]:
        """What came since the page had `first` rows."""
        message = {
            "kind": "news",
            **self._state(),
            "first": first,
            "rows": list(self.experiment.rows[first : self.shown]),
        }
        drawn, at = self._drawn
        if drawn != self.experiment.done and (self.end or time.monotonic() - at > DRAW_EVERY):
            self._drawn = (self.experiment.done, time.monotonic())
            headline = said_of(self.experiment, self.lang)
            message |= {"figure": self.figure(), "headline": headline, "walk": walk_of(self.experiment, self.lang)}
        return message

    def look(self, lang: Any) -> dict[str, Any]:
        """Everything, in another language."""
        self.lang = pick_language(lang)
        return self.snapshot()


def drawn(found: Experiment | Kept, lang: str, trained: tuple[int, int] | None) -> dict[str, Any] | None:
    """The figure of a measurement's rows so far, as plain data; None for a task without one."""
    from loopviz.lab.trained import figure_of

    figure = figure_of(found.task, found.frame, lang, trained)
    if figure is None:
        return None
    made = json.loads(figure.to_json())
    made["layout"].pop("template", None)  # the page has its own, for its look
    return made


def walk_of(found: Experiment | Kept, lang: str) -> dict[str, Any] | None:
    """What the slider under the figure goes along so far; None for a task without one, or before it has two places."""
    from loopviz.lab.walk import stops

    walk = found.task.walk
    places = stops(walk, list(found.rows), lang) if walk is not None else []
    if walk is None or len(places) < 2:
        return None
    told = [dataclasses.asdict(place) for place in places]
    return {"along": walk.words[lang], "colour": theme.SELECTED, "stops": told}


def said_of(found: Experiment | Kept, lang: str) -> str:
    """What the rows so far come to, in words, which say so while there may be more; "" where they say nothing yet."""
    said = found.task.headline(list(found.rows), lang) if found.task.headline is not None else ""
    return text(lang, "said.so_far", said=said) if said and not found.complete else said


def messages(
    run: LabRun, *, every: float = SEND_EVERY, ended: Callable[[], None] = lambda: None
) -> Generator[str, None, None]:
    """A measurement's messages, from its beginning to its end. Closing this generator stops it, and does not wait for it.

    Args:
        ended: called, by the measurement's own thread, when nothing computes for it any more.
    """

    def work() -> None:
        try:
            run.work()
        finally:
            ended()

    try:
        threading.Thread(target=work, name="loopviz-lab", daemon=True).start()
    except BaseException:
        ended()
        raise
    try:
        message = run.snapshot()
        sent = len(message["rows"])  # not what there is by now: it goes on while this is sent
        yield wire(message)
        while not run.finished.wait(every):
            message = run.news(sent)
            sent = message["first"] + len(message["rows"])
            yield wire(message)
        yield wire(run.news(sent))
    finally:
        run.halt()
