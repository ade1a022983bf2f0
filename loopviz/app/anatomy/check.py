"""The reproduction check: `llama.py` against transformers, row by row, on a loaded model or on the article's configuration."""

from __future__ import annotations

import dataclasses
import secrets
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

from loopviz.app import contract
from loopviz.app import controls as st
from loopviz.app.sessions import bounds
from loopviz.app.sessions.job import Job, Jobs, Refused
from loopviz.app.sessions.memory_budget import Keeper
from loopviz.app.sessions.messages import wire
from loopviz.app.sessions.models import ModelRefused
from loopviz.app.sessions.registry import Registry
from loopviz.app.sessions.tickets import is_ticket, number
from loopviz.app.sessions.waiting_line import Place
from loopviz.app.texts import pick_language, text
from loopviz.engine.engine import Engine, ParityNeed, ParityRow


class CheckRun:
    """A check that is made. Its methods may be called from any thread.

    Args:
        engine: of the model; the article's configuration is computed where it is.
        article: whether that is checked, and not the model.
    """

    def __init__(self, engine: Engine, article: bool, session: str = "", ticket: str = "") -> None:
        self.id = secrets.token_urlsafe(16)
        self.engine: Engine | None = engine  # until it is finished: its rows need no model, which may be let go of
        self.article, self.session, self.ticket = article, session, ticket
        self.rows: list[ParityRow] = []
        self.end: str | None = None
        self.halted: str | None = None
        self.opened = False
        self.keeper: Keeper | None = None
        self.stop = threading.Event()
        self.finished = threading.Event()
        self.nbytes = 0  # weights and logits go as each dtype is done

    def halt(self, end: str = "stopped") -> None:
        """End it, as `end` says, before the next layer of a pass."""
        self.halted = self.halted or end
        self.stop.set()

    def finish(self, end: str) -> None:
        """Nothing computes for it any more."""
        self.end = self.end or end
        self.engine = None
        self.finished.set()
        if self.keeper is not None:
            self.keeper.settled(self)

    def told(self) -> dict[str, Any]:
        """Its rows so far."""
        rows = [dataclasses.asdict(row) for row in self.rows]
        return {"kind": "parity", "ticket": self.ticket, "article": self.article, "rows": rows, "end": self.end}


def messages(run: CheckRun) -> Generator[str, None, None]:
    """A check's messages: its rows, as each dtype is done. What the engine refuses passes through."""
    try:
        yield wire(run.told())
        for dtype in contract.PARITY_DTYPES:
            if run.stop.is_set() or run.engine is None:
                break
            run.rows += run.engine.parity(run.article, dtype, run.stop)
            yield wire(run.told())
        run.finish(run.halted or "done")
        yield wire(run.told())
    except GeneratorExit:
        run.halt()
        raise
    except BaseException:
        run.finish("error")
        raise
    finally:
        run.finish(run.halted or "stopped")


def checks_of(session: str) -> str:
    """The session of a visitor's checks: beside that of their looks, so that neither takes the other's place."""
    return f"check {session}"


class Check(Job):
    """A check that was asked for.

    Args:
        may_load: whether a model may be loaded without asking for what was asked.
    """

    page, what = "anatomy", "check against transformers"

    def __init__(
        self,
        jobs: Jobs,
        checks: Registry[CheckRun],
        asked: Mapping[str, Any],
        session: str,
        may_load: Callable[[str], bool],
    ) -> None:
        ticket = asked["ticket"] if is_ticket(asked.get("ticket")) else ""
        super().__init__(checks, pick_language(asked.get("lang")), checks_of(session), number(asked.get("n")), ticket)
        self.jobs, self.asked, self.may_load, self.model = jobs, asked, may_load, jobs.room.default
        self.article = asked.get("check") == "article"
        self._page = session

    def check(self) -> None:
        """Refuse a model that may not be had here, or that a file names and nobody agreed to. The article's configuration needs
        none: it is computed where the default model is."""
        if self.article:
            return
        name, problems = st.clean_name(self.asked.get("model") or self.model, self.lang)
        if problems:
            raise Refused(st.Problem("model", problems[0].reason))
        self.model = name
        if (words := self.jobs.room.refusal(name)) is not None:
            raise Refused(st.Problem("model", words(self.lang)))
        if not (self.asked.get("agreed") or self.may_load(name)):
            said = text(self.lang, "anatomy.ask_model", model=name)
            raise Refused(st.Problem("model", said), line=said)

    def prepare(self, loaded: Engine) -> None:
        """Refuse what memory does not hold, or this server does not allow, with the bytes."""
        said = too_much(self.jobs, needs_of(loaded, self.article), self.lang)
        if said is not None:
            raise Refused(st.Problem("check", said), line=said)

    def cost(self, loaded: Engine) -> bounds.Cost:
        """What the larger of its passes holds."""
        return bounds.Cost(bytes=max(found.need for found in needs_of(loaded, self.article).values()))

    @property
    def visit(self) -> str:
        """The page's session, not that of its checks."""
        return self._page

    def beside(self, error: BaseException) -> str:
        """The model's name, where it cannot be had; else the check."""
        return "model" if isinstance(error, ModelRefused) else "check"

    def make(self, loaded: Engine, place: Place) -> Iterator[str]:
        """Make it."""
        run = CheckRun(loaded, self.article, self.session, self.ticket)
        opening = self.say(text(self.lang, "anatomy.check.running"))
        return self.show(run, messages(run), self.jobs.room.profile.seconds_lab, opening)


def needs_of(loaded: Engine, article: bool) -> dict[str, ParityNeed]:
    """What a check takes, by dtype.

    Raises:
        ValueError: the model computes what `llama.py` does not.
    """
    return {dtype: loaded.parity_need(article, dtype) for dtype in contract.PARITY_DTYPES}


def too_much(jobs: Jobs, needs: Mapping[str, ParityNeed], lang: str) -> str | None:
    """Why a check is more than memory holds or the server allows, in the largest of its dtypes; None if it is not."""
    profile = jobs.room.profile
    for dtype, found in needs.items():
        sizes = {"dtype": dtype, "need": bounds.size(found.need, lang)}
        if found.need > profile.work_bytes:
            return text(lang, "anatomy.check.limit", limit=bounds.size(profile.work_bytes, lang), **sizes)
        if found.need > found.free:
            return text(lang, "anatomy.check.memory", free=bounds.size(found.free, lang), **sizes)
        if profile.estimate_seconds is not None and found.seconds > profile.estimate_seconds:
            took = bounds.duration(found.seconds, lang)
            return text(
                lang,
                "anatomy.check.time",
                dtype=dtype,
                took=took,
                limit=bounds.duration(profile.estimate_seconds, lang),
            )
    return None


def need(jobs: Jobs, loaded: Engine, article: bool, lang: str) -> dict[str, Any]:
    """What a check takes, in words; or why it is refused."""
    try:
        needs = needs_of(loaded, article)
    except ValueError as error:
        return {"kind": "need", "refused": True, "text": jobs.room.words(error, lang)}
    if (refused := too_much(jobs, needs, lang)) is not None:
        return {"kind": "need", "refused": True, "text": refused}
    most = max(needs.values(), key=lambda one: one.need)
    words = {"need": bounds.size(most.need, lang), "free": bounds.size(most.free, lang)}
    took = bounds.duration(max(1.0, sum(one.seconds for one in needs.values())), lang)
    return {"kind": "need", "refused": False, "text": text(lang, "anatomy.check.need", took=took, **words)}
