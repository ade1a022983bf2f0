"""Wait, refuse, run, end: what becomes of anything a page asks for, the same on every page.

A :class:`Job` is one thing that was asked for. :meth:`Jobs.carry_out` takes it from its start to its end: what the session
asked for before is over, what can be refused is, its model is waited for, then a place among the runs that are made, and
its messages are sent. A page's own job says what is checked and what is made.

What ends it is in its last message, `over`: refusals too, each beside its field.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from typing import Any, ClassVar

from loopviz.app import controls as st
from loopviz.app.controls.refusal import told
from loopviz.app.sessions import bounds, run_log
from loopviz.app.sessions.carried import Carried
from loopviz.app.sessions.counted import Counted
from loopviz.app.sessions.faults import kinds, unforeseen
from loopviz.app.sessions.file_desk import FileDesk
from loopviz.app.sessions.memory_budget import Keeper
from loopviz.app.sessions.messages import wire
from loopviz.app.sessions.models import ModelRefused, ModelRoom
from loopviz.app.sessions.registry import Registry
from loopviz.app.sessions.tickets import Start, Starts
from loopviz.app.sessions.visits import Visits
from loopviz.app.sessions.waiting_line import Ahead, LineFull, Place, Places
from loopviz.app.texts import text
from loopviz.engine.engine import Engine, EngineLost
from loopviz.worker import ended_by


def status(line: str, bad: bool = False, **more: Any) -> str:
    """The message that shows one line; what the page shows otherwise stays."""
    return wire({"kind": "status", "text": line, "bad": bad, **more})


def in_line(ahead: Ahead, lang: str) -> str:
    """What is said to one who waits for a place: how many are before, who runs, and how long it is likely to take."""
    running = ", ".join(text(lang, f"nav.{page}") for page in ahead.running)
    key = (
        "live.queued.own"
        if ahead.own
        else "live.queued.memory"
        if ahead.memory
        else "live.queued"
        if ahead.waiting
        else "live.queued.next"
    )
    line = text(lang, key, n=ahead.waiting, running=running)
    if ahead.seconds is None:
        turn = text(lang, "live.queued.open")
    else:
        turn = text(lang, "live.queued.in", time=bounds.about(ahead.seconds, lang))
    return " · ".join([*([text(lang, "live.queued.gave_way")] if ahead.gave_way else []), line, turn])


class Refused(Exception):
    """What was asked for is not done.

    Args:
        problems: why, and beside which field.
        line: what the page says of it; None: the first of them.
        more: what else its message says.
    """

    def __init__(self, *problems: st.Problem, line: str | None = None, **more: Any) -> None:
        super().__init__(line or problems[0].reason)
        self.problems, self.line, self.more = problems, line, more


class Job:
    """One thing that a page asked for, from its start to its end.

    Args:
        runs: where the page's runs are kept.
        session: whose it is.
        n: its number among the page's starts; None for the next.
        ticket: the page's own name for it; "" for none.

    Attributes:
        model: the name of the model it needs; it may be another one while it waits.
        precision: what it is to be held in; "": as the server has it. It may change so, too.
        others: names of more that it is made with, held likewise, where they can be had; what cannot it tells itself.
        start: what :class:`Starts` knows of it, once it is admitted.
        run: what became of it; None until it is made.
        held: the other models that are here, by name: none of them goes while the job lasts.
    """

    page: ClassVar[str]  # where from, a key of `PAGES`
    what: ClassVar[str]  # it is called in the log
    later: ClassVar[bool] = False  # whether runs of other pages go before it, while it is made too
    alone: ClassVar[bool] = False  # whether it is made with no model of the server's: `make_alone`
    model: str
    precision: str = ""
    others: Sequence[str] = ()

    def __init__(self, runs: Registry[Any], lang: str, session: str, n: int | None = None, ticket: str = "") -> None:
        self.runs, self.lang, self.session, self.n, self.ticket = runs, lang, session, n, ticket
        self.start = Start(0, ticket)
        self.run: Any = None
        self.held: dict[str, Engine] = {}
        self.place: Place | None = None  # once it waits for one

    # --- what differs from page to page -----------------------------------------------------------------------------

    def admit(self) -> None:
        """Refuse what is not to end what its session has asked for before: Refused then, and that goes on."""

    def check(self) -> None:
        """Refuse what can be refused at once; raises Refused, or ValueError. It is its session's newest now."""

    def prepare(self, loaded: Engine) -> None:
        """Refuse what the model or the server refuses, before a place is waited for; raises as :meth:`check`."""

    def cost(self, loaded: Engine) -> bounds.Cost:
        """About how long it will take, and what memory. It is prepared."""
        return bounds.UNKNOWN

    def make(self, loaded: Engine, place: Place) -> Iterator[str]:
        """It has a place: its messages (:meth:`show`). Raises as :meth:`check`."""
        raise NotImplementedError

    def make_alone(self, place: Place) -> Iterator[str]:
        """:meth:`make` of what needs no model of the server's (`alone`): none was waited for."""
        raise NotImplementedError

    def close(self) -> None:
        """It has ended, however it did."""

    def beside(self, error: BaseException) -> str:
        """The field that an error is told beside; "" for none."""
        return str(getattr(error, "control", ""))

    def waits(self, line: str) -> str:
        """What is said while its model is loaded; `line` says how far that is."""
        return line

    # --- what is the same -------------------------------------------------------------------------------------------

    @property
    def visit(self) -> str:
        """The session of the page that asked for it."""
        return self.session

    @property
    def mark(self) -> dict[str, Any]:
        """By what the page knows that a message is about this."""
        return {"ticket": self.ticket}

    def say(self, line: str, bad: bool = False, **more: Any) -> str:
        """The message that says something of it."""
        return status(line, bad, **self.mark, **more)

    def last(self, line: str, bad: bool = False, **more: Any) -> Iterator[str]:
        """The message after which nothing comes; none when another start has taken its place."""
        if not self.start.replaced:
            yield self.say(line, bad, over=True, **more)

    def stopped(self) -> Iterator[str]:
        """Its last message when it came to nothing."""
        return self.last(text(self.lang, "live.end.stopped"))

    def refused(self, refused: Refused) -> Iterator[str]:
        """Its last message when it is not done."""
        first = refused.problems[0]
        line = refused.line or text(self.lang, "refused", reason=first.reason)
        return self.last(line, True, **({"field": first.control} if first.control else {}), **refused.more)

    def show(
        self, run: Any, messages: Generator[str, None, None], seconds: float | None, opening: str | None = None
    ) -> Iterator[str]:
        """Keep a run, and send its messages; with the first of them it takes the place of the session's earlier ones.

        Args:
            seconds: after which it ends by itself; None: never.
            opening: a message that says of it that it begins.
        """
        self.run = run
        self.runs.begin(run)
        if self.start.over.is_set():  # taken back as it began
            run.halt()
        shown = False
        with closing(messages), bounds.deadline(seconds, lambda: run.halt("time")) as clock:
            if opening is not None:
                yield opening
            for message in messages:
                if not shown and not self.start.replaced:
                    self.runs.supersede(run)
                shown = True
                yield message
                yield from self.rest(run, clock)
        if not shown:
            yield from self.last(text(self.lang, f"live.end.{run.end}"))

    def rest(self, run: Any, clock: bounds.Clock) -> Iterator[str]:
        """Between two messages, while nothing is computed: let another go before, if one waits who does; `clock` stands meanwhile."""
        gone = lambda: self.start.over.is_set() or run.halted is not None or run.end is not None  # noqa: E731
        if self.place is None or not self.later or gone():  # what is over leaves its place, and waits for none
            return
        rested = False
        for ahead in self.place.give_way(gone):
            rested = True
            clock.stand()
            yield self.say(in_line(ahead, self.lang))
        if rested:
            clock.go()
            yield self.say("")


class Jobs:
    """What the pages of one server share: its models, the places in which runs are made, who has begun what, what is kept, what is
    taken from one page to another, where files come and go; and whose a session is.

    Args:
        places: in which runs are made; those of all pages are the same.
        counted: what is counted of them; likewise.
    """

    def __init__(
        self, room: ModelRoom, keeper: Keeper, places: Places | None = None, counted: Counted | None = None
    ) -> None:
        self.room = room
        self.keeper = keeper
        keeper.profile = room.profile
        self.places = places or Places(
            room.profile.runs_at_once,
            room.profile.queue,
            most_later=room.profile.measurements_at_once,
            most_own=room.profile.runs_of_one,
            share=room.profile.together_bytes,
        )
        self.starts = Starts(room.profile.pages)
        self.visits = Visits(room.profile.pages)
        self.carried = Carried(keeper)
        self.counted = counted or Counted()
        self.files = FileDesk(room, self.counted)
        self.tools: list[Any] = []  # what programs may ask for (`tools.Tool`); each page offers its own

    def carry_out(self, job: Job) -> Iterator[str]:
        """A job from its start to its end: messages for its page. Whatever goes wrong becomes one; nothing typed is lost."""
        began, wrong = time.monotonic(), None  # the fields that were refused
        try:
            job.admit()
            job.start = self.starts.begin(job.session, job.n, job.ticket)
            if not job.start.replaced:
                job.runs.stop(job.session)
            yield from job.stopped() if job.start.over.is_set() else self._steps(job)
        except LineFull as full:
            wrong = ["line"]
            line = text(job.lang, "live.full.own" if full.own else "live.full", n=full.waiting)
            yield from job.last(line, True, full=True)
        except Refused as refused:
            wrong = [problem.control for problem in refused.problems]
            yield from job.refused(refused)
        except EngineLost as lost:  # nothing is wrong with what was asked for
            wrong = ["engine"]
            yield from job.last(f"⚠ {told(lost, job.lang)}", True)
        except ValueError as error:
            if job.start.over.is_set():  # a tokenizer, or a load, that was ended for it
                yield from job.stopped()
            else:
                wrong = [job.beside(error)]
                yield from job.refused(Refused(st.Problem(job.beside(error), self.room.words(error, job.lang))))
        except kinds() as error:
            yield from job.refused(Refused(st.Problem(job.beside(error), unforeseen(error, job.lang, job.what))))
        finally:
            job.close()
            self.counted.take(job.page, job.run, job.start.over.is_set())
            run_log.take(job, self.room, time.monotonic() - began, wrong, job.start.over.is_set())

    def _steps(self, job: Job) -> Iterator[str]:
        """Check, wait for the model, wait for a place, make."""
        gone = job.start.over.is_set
        with ended_by(gone):
            job.check()
        if job.alone:
            with self.places.join(job.page, self.visits.of(job.visit), later=job.later) as place:
                yield from self._in_line(job, place, gone)
                if not gone():
                    yield from job.make_alone(place)
                    return
        while not gone():
            name, precision = job.model, job.precision
            for line in self.waiting(name, job.lang, gone, precision):
                yield job.say(job.waits(line))
            if gone():
                break
            loaded = self.room.get(name, job.lang, gone, precision)
            yield from self._others(job, gone)
            if gone():
                break
            with ended_by(gone):
                job.prepare(loaded)
            cost = _known(job.cost, loaded)
            how: dict[str, Any] = {"later": job.later, "seconds": cost.seconds, "need": cost.bytes}
            with self.places.join(job.page, self.visits.of(job.visit), **how) as place:
                yield from self._in_line(job, place, gone)
                if not gone() and (job.model, job.precision) == (name, precision):
                    made = job.make(loaded, place)
                    del loaded  # what needs it no further (a teaching, which has a copy) does not hold it
                    yield from made
                    return
        yield from job.stopped()

    @staticmethod
    def _in_line(job: Job, place: Place, gone: Callable[[], bool]) -> Iterator[str]:
        """What is said while a job waits for its place."""
        job.place = place
        for ahead in place.wait(gone):
            yield job.say(in_line(ahead, job.lang))

    def _others(self, job: Job, gone: Callable[[], bool]) -> Iterator[str]:
        """What is said while the other models of a job are loaded; one that cannot be had ends nothing here."""
        for name in job.others:
            try:
                for line in self.waiting(name, job.lang, gone, job.precision):
                    yield job.say(job.waits(line))
            except ModelRefused:
                continue
            if (loaded := self.room.ready(name, job.precision)) is not None:
                job.held[name] = loaded

    def among(self, room: ModelRoom) -> Jobs:
        """The same for a page that has other models: all but the room is shared."""
        twin = copy.copy(self)
        twin.room = room
        return twin

    def waiting(
        self, name: str, lang: str, gone: Callable[[], bool] = lambda: False, precision: str = ""
    ) -> Iterator[str]:
        """Load a model in a thread of its own; meanwhile, yield each new line about it. ModelRefused at the end.

        Ends early when `gone()`: the model is loaded all the same if others want it.
        """
        if self.room.ready(name, precision) is not None:
            return
        refused: list[ModelRefused] = []

        def fetch() -> None:
            try:
                self.room.get(name, lang, gone, precision)
            except ModelRefused as error:
                refused.append(error)

        thread = threading.Thread(target=fetch, name="loopviz-load", daemon=True)
        thread.start()
        said = None
        while thread.is_alive() and not gone():
            line = self.room.status(name, precision).tell(lang)
            if line != said:
                said = line
                yield line
            thread.join(0.25)
        if refused and not gone():
            raise refused[0]

    def forget(self, session: str, runs: Registry[Any]) -> None:
        """A visitor left: stop what runs or waits for them, and keep nothing of their `runs`."""
        self.starts.leave(session)
        self.visits.leave(session)
        runs.forget(session)


def _known(cost: Callable[[Engine], bounds.Cost], loaded: Engine) -> bounds.Cost:
    """An estimate; where there is none, none: what is wrong with a job is said in its own words, and a guess stops nothing."""
    try:
        return cost(loaded)
    except kinds():
        return bounds.UNKNOWN
