"""One skeleton for every page: wait, refuse, run, end, whatever is asked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from loopviz.app.controls import Problem
from loopviz.app.profile import LOCAL
from loopviz.app.sessions.bounds import Cost
from loopviz.app.sessions.job import Job, Jobs, Refused
from loopviz.app.sessions.memory_budget import Keeper
from loopviz.app.sessions.messages import wire
from loopviz.app.sessions.models import ModelRefused, ModelRoom
from loopviz.app.sessions.registry import Registry
from loopviz.app.sessions.waiting_line import Place, Places
from loopviz.app.texts import LANGUAGES, text
from loopviz.engine.local import LocalEngine as Loaded
from tests.app.page_double import unwire_any as unwire


class Work:
    """A run that is told to end."""

    def __init__(self, session: str) -> None:
        self.id, self.session, self.finished = f"{session}-{id(self)}", session, threading.Event()
        self.nbytes, self.keeper, self.opened, self.end = 1, None, False, "stopped"

    def halt(self, end: str = "stopped") -> None:
        self.finished.set()


class Toy(Job):
    """Sends so many messages."""

    page, what, model = "lab", "toy", "tiny"

    def __init__(self, runs: Registry[Work], says: int = 2, session: str = "me", **more: Any) -> None:
        super().__init__(runs, "en", session, **more)
        self.says, self.did = says, []
        self.wrong: dict[str, BaseException] = {}

    def admit(self) -> None:
        if "admit" in self.wrong:
            raise self.wrong["admit"]

    def check(self) -> None:
        self._do("check")

    def prepare(self, loaded: Loaded) -> None:
        self._do("prepare")

    def make(self, loaded: Loaded, place: Place) -> Iterator[str]:
        self._do("make")
        self.run = Work(self.session)
        return self.show(self.run, (wire({"kind": "news", "n": n}) for n in range(self.says)), None)

    def close(self) -> None:
        self.did.append("close")

    def _do(self, step: str) -> None:
        self.did.append(step)
        if step in self.wrong:
            raise self.wrong[step]


@pytest.fixture
def runs() -> Registry[Work]:
    return Registry()


@pytest.fixture
def jobs(tiny_tokenizer: Any) -> Jobs:
    def load(name: str, progress: Any, local: bool) -> Loaded:
        if name != "tiny":
            raise ValueError(f"no such model as {name}")
        return Loaded(name, _Nothing(), tiny_tokenizer)

    return Jobs(ModelRoom("tiny", load=load), Keeper(), Places(1, longest=1))


class _Nothing:
    """No model is asked anything here."""

    def parameters(self) -> list[Any]:
        return []

    modules = parameters

    class config:
        num_hidden_layers = 1


def said(stream: Iterator[str]) -> list[dict[str, Any]]:
    return [unwire(text) for text in stream]


def test_a_job_is_checked_waits_and_is_made(jobs: Jobs, runs: Registry[Work]) -> None:
    job = Toy(runs)
    told = said(jobs.carry_out(job))
    assert job.did == ["check", "prepare", "make", "close"]
    assert [message["kind"] for message in told][-2:] == ["news", "news"]
    assert runs.of_session("me") == [job.run]
    assert jobs.places.taken() == 0


class Alone(Toy):
    """Needs no model of the server's."""

    alone, model = True, "none that could be had"

    def make_alone(self, place: Place) -> Iterator[str]:
        assert place is self.place
        return self.make(None, place)  # type: ignore[arg-type]


def test_what_needs_no_model_waits_for_none_and_has_its_place_all_the_same(jobs: Jobs, runs: Registry[Work]) -> None:
    job = Alone(runs)
    with jobs.places.join("lab") as first:
        assert first.ahead() is None
        stream = jobs.carry_out(job)
        assert "text" in unwire(next(stream)), "it says how long the line is"
        assert job.did == ["check"]
    assert [message["kind"] for message in said(stream)][-2:] == ["news", "news"]
    assert job.did == ["check", "make", "close"]
    assert jobs.places.taken() == 0
    assert not jobs.room.held()


def test_what_is_not_admitted_is_refused_and_what_the_session_has_goes_on(jobs: Jobs, runs: Registry[Work]) -> None:
    first = Toy(runs, says=3)
    stream = jobs.carry_out(first)
    while unwire(next(stream))["kind"] != "news":
        pass
    refused = Toy(runs, ticket="t2")
    refused.wrong["admit"] = Refused(Problem("keep", "there is nothing"))
    (last,) = said(jobs.carry_out(refused))
    assert (last["over"], last["bad"], last["field"], last["ticket"]) == (True, True, "keep", "t2")
    assert refused.did == ["close"]
    assert not first.run.finished.is_set()
    assert not first.start.over.is_set()
    assert len(said(stream)) == 2, "and it says all that it had to say"
    second = Toy(runs)
    said(jobs.carry_out(second))
    assert first.run.finished.is_set(), "one that is admitted takes its place"


@pytest.mark.parametrize("step", ["check", "prepare", "make"])
@pytest.mark.parametrize(
    ("error", "field", "words"),
    [
        (Refused(Problem("prompt", "it is empty"), keep="some"), "prompt", "it is empty"),
        (Refused(Problem("", "one"), Problem("seed", "two"), line="two things"), None, "two things"),
        (ModelRefused("no such model"), None, "no such model"),
        (RuntimeError("/secret"), None, "Reference"),
    ],
)
def test_a_refusal_is_in_the_message_that_ends_it(
    jobs: Jobs, runs: Registry[Work], step: str, error: BaseException, field: str | None, words: str
) -> None:
    """It was put into a dictionary by session, and fetched by a later event, if one came."""
    job = Toy(runs, n=3, ticket="mine")
    job.wrong[step] = error
    last = said(jobs.carry_out(job))[-1]
    assert (last["over"], last["bad"], last["ticket"], last.get("field")) == (True, True, "mine", field)
    assert words in last["text"]
    assert "secret" not in last["text"]
    assert last.get("keep") == (error.more.get("keep") if isinstance(error, Refused) else None)
    assert job.did[-1] == "close"
    assert (len(runs), jobs.places.taken()) == (0, 0)


def test_a_model_that_cannot_be_had_is_refused(jobs: Jobs, runs: Registry[Work]) -> None:
    job = Toy(runs)
    job.model = "other"
    assert "no such model as other" in said(jobs.carry_out(job))[-1]["text"]
    assert job.did == ["check", "close"]


def test_what_was_shown_stays_until_the_next_has_something_to_show(jobs: Jobs, runs: Registry[Work]) -> None:
    """On Compare and the Lab it was gone as the next began."""
    first, second = Toy(runs), Toy(runs)
    said(jobs.carry_out(first))
    stream = jobs.carry_out(second)
    news = next(message for message in map(unwire, stream) if message["kind"] == "news")
    assert news["n"] == 0
    assert first.run.finished.is_set()
    assert runs.of_session("me") == [second.run]
    refused = Toy(runs)
    refused.wrong["check"] = ValueError("no")
    said(jobs.carry_out(refused))
    assert runs.of_session("me") == [second.run]


def test_who_is_replaced_says_nothing_more(jobs: Jobs, runs: Registry[Work]) -> None:
    """The page listens to the later start alone."""
    first = Toy(runs, n=1)
    with jobs.places.join("lab"):
        stream = jobs.carry_out(first)
        assert "waiting for a free place" in next(message for message in stream if "free place" in message)
        jobs.starts.begin("me", 2)
        assert list(stream) == []
    assert first.did == ["check", "prepare", "close"]


def test_a_start_that_was_overtaken_does_nothing(jobs: Jobs, runs: Registry[Work]) -> None:
    newest, late = Toy(runs, n=2), Toy(runs, n=1)
    said(jobs.carry_out(newest))
    assert said(jobs.carry_out(late)) == []
    assert late.did == ["close"]
    assert not newest.start.over.is_set()


def test_a_line_that_is_full_is_said(jobs: Jobs, runs: Registry[Work]) -> None:
    with jobs.places.join("lab"), jobs.places.join("lab"):
        [last] = [message for message in said(jobs.carry_out(Toy(runs))) if message.get("over")]
    assert (last["full"], last["bad"]) == (True, True)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_what_does_not_fit_beside_what_runs_says_that_it_waits_for_memory(
    jobs: Jobs, runs: Registry[Work], lang: str
) -> None:
    job, places = Toy(runs), Places(4, share=10)
    job.lang, jobs.places = lang, places
    job.cost = lambda loaded: Cost(None, 6.0)  # type: ignore[method-assign]
    jobs.room.get("tiny")
    with places.join("explore", need=5):
        stream = jobs.carry_out(job)
        line = unwire(next(stream))["text"]
        assert line.startswith(text(lang, "live.queued.memory", n=0, running=text(lang, "nav.explore")))
        assert job.did == ["check", "prepare"]
    assert [message["kind"] for message in said(stream)][-2:] == ["news", "news"]
    assert job.did[-2:] == ["make", "close"]


def test_what_it_costs_is_a_guess_that_stops_nothing(jobs: Jobs, runs: Registry[Work]) -> None:
    def unknown(loaded: Loaded) -> Cost:
        raise ValueError("it does not say")

    job = Toy(runs)
    job.cost = unknown  # type: ignore[method-assign]
    said(jobs.carry_out(job))
    assert job.did == ["check", "prepare", "make", "close"]


def test_a_servers_share_of_memory_is_its_profiles() -> None:
    profile = replace(LOCAL, together_bytes=77)
    assert Jobs(ModelRoom("tiny", profile=profile), Keeper()).places.share == 77


def test_what_has_nothing_to_show_says_how_it_ended(jobs: Jobs, runs: Registry[Work]) -> None:
    last = said(jobs.carry_out(Toy(runs, says=0)))[-1]
    assert (last["text"], last["over"], last["bad"]) == ("stopped", True, False)


def test_what_is_taken_back_as_it_begins_is_told_to_end(jobs: Jobs, runs: Registry[Work]) -> None:
    job = Toy(runs)
    made = job.make

    def make(loaded: Loaded, place: Place) -> Iterator[str]:
        jobs.starts.stop("me")
        return made(loaded, place)

    job.make = make
    said(jobs.carry_out(job))
    assert job.run.finished.is_set()


# --- who goes before whom -----------------------------------------------------------------------------------------------


class Later(Toy):
    """A comparison: over as it says its last."""

    later = True
    limit: float | None = None  # seconds

    def make(self, loaded: Loaded, place: Place) -> Iterator[str]:
        self.run = run = Work(self.session)
        run.end = run.halted = None
        run.halt = lambda end="stopped": setattr(run, "halted", end)

        def told() -> Iterator[str]:
            for n in range(self.says):
                run.end = "done" if n == self.says - 1 else None
                yield wire({"kind": "news", "n": n})

        return self.show(run, told(), self.limit)


def test_all_tabs_of_a_browser_and_all_calls_of_an_address_are_one_visitor(jobs: Jobs) -> None:
    for session in ("tab 1", "tab 2"):
        jobs.visits.meet(session, "a" * 32, "1.1.1.1")
    jobs.visits.meet("tab 3", "b" * 32, "1.1.1.1")
    for session in ("call 1", "call 2"):
        jobs.visits.meet(session, "", "1.1.1.1")
    of = jobs.visits.of
    assert of("tab 1") == of("tab 2") != of("tab 3") != of("call 1") == of("call 2")
    assert of("nobody met it") != of("nor this")
    jobs.visits.meet("odd", ["no", "name"], "1.1.1.1")
    assert of("odd") == of("call 1")
    jobs.forget("tab 1", Registry())
    assert of("tab 1") != of("tab 2")


def test_a_measurement_rests_while_a_run_goes_before_and_says_so(jobs: Jobs, runs: Registry[Work]) -> None:
    clock = [0.0]
    jobs.places = Places(1, clock=lambda: clock[0])
    job = Later(runs, says=3)
    stream = map(unwire, jobs.carry_out(job))
    assert next(message for message in stream if message["kind"] == "news")["n"] == 0
    with jobs.places.join("explore") as run:
        clock[0] = 10
        rests = next(stream)
        assert rests["kind"] == "status"
        assert rests["text"].startswith("paused")
        assert rests["text"].endswith("how long that takes is not known")
        assert run.ahead() is None
    assert [message["kind"] for message in stream] == ["status", "news", "news"]
    assert jobs.places.taken() == 0


def test_what_is_over_does_not_wait_in_line_again(jobs: Jobs, runs: Registry[Work]) -> None:
    """A comparison said that it was paused when its last row was there, and kept its page for as long as others ran."""
    clock = [0.0]
    jobs.places = Places(1, clock=lambda: clock[0])
    stream = map(unwire, jobs.carry_out(Later(runs, says=1)))
    assert next(message for message in stream if message["kind"] == "news")["n"] == 0
    with jobs.places.join("explore") as run:
        clock[0] = 10
        assert next(stream, None) is None
        assert run.ahead() is None


def test_time_is_not_up_while_one_rests(jobs: Jobs, runs: Registry[Work]) -> None:
    """The clock rang in mid-rest: a comparison that waited for longer than it had left ended there."""
    clock = [0.0]
    jobs.places = Places(1, clock=lambda: clock[0])
    job = Later(runs, says=3)
    job.limit = 0.3
    stream = map(unwire, jobs.carry_out(job))
    assert next(message for message in stream if message["kind"] == "news")["n"] == 0
    with jobs.places.join("explore"):
        clock[0] = 10
        assert next(stream)["text"].startswith("paused")
        time.sleep(0.5)
    assert [message["kind"] for message in stream] == ["status", "news", "news"]
    assert job.run.halted is None


def test_who_waits_is_told_for_how_long(jobs: Jobs, runs: Registry[Work]) -> None:
    with jobs.places.join("lab", seconds=40.0):
        stream = map(unwire, jobs.carry_out(Toy(runs)))
        line = next(message["text"] for message in stream if "free place" in message.get("text", ""))
        assert line.endswith("you are next · running now: Lab · your turn in about 40 s")
        jobs.starts.begin("me", 2)
        assert list(stream) == []


def test_an_estimate_that_cannot_be_made_stops_nothing(jobs: Jobs, runs: Registry[Work]) -> None:
    job = Toy(runs)

    def wrong(loaded: Loaded) -> float:
        raise ValueError("no")

    job.seconds = wrong
    said(jobs.carry_out(job))
    assert job.did == ["check", "prepare", "make", "close"]
