"""H2 kept_runs_are_counted_not_weighed: what is kept is weighed in bytes, and the least needed goes first."""

from __future__ import annotations

import dataclasses
import gc
import json
import threading
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from loopviz.app.explore import first_run
from loopviz.app.explore.answers import Questions
from loopviz.app.explore.run import Registry, Run, messages
from loopviz.app.profile import LOCAL, PUBLIC
from loopviz.app.sessions.memory_budget import Keeper
from loopviz.app.sessions.models import ModelRoom
from loopviz.app.texts import LANGUAGES, text
from loopviz.panels import PANELS
from loopviz.trace import EXTRAS
from tests.app.page_double import unwire
from tests.trace.synthetic import make_meta, random_frames, random_trace


class Thing:
    """Something that weighs what it is told to."""

    def __init__(self, name: str, session: str, nbytes: int = 10, done: bool = True) -> None:
        self.id, self.session, self.nbytes, self.finished = name, session, nbytes, threading.Event()
        if done:
            self.finished.set()


def keeper(kept: int, run: int = 10**9) -> Keeper:
    return Keeper(dataclasses.replace(PUBLIC, kept_bytes=kept, run_bytes=run))


def test_the_least_needed_goes_first() -> None:
    keep, gone = keeper(50), []
    for name, session, done in [
        ("running", "a", False),
        ("hidden", "b", True),
        ("seen", "c", True),
        ("later", "b", True),
        ("latest", "d", True),
    ]:
        keep.enter(Thing(name, session, done=done), lambda thing: gone.append(thing.id))
    assert gone == []
    assert keep.total == 50
    order = []
    for i in range(5):
        keep.enter(Thing(f"new {i}", "e" * (i + 1)), lambda thing: gone.append(thing.id))
        order.append(gone[-1])
        assert keep.total == 50
    # not on screen: "b" has had another since. Then what was looked at longest ago; what is being made never goes.
    assert order == ["hidden", "seen", "later", "latest", "new 0"]


def test_who_looks_at_something_keeps_it() -> None:
    keep, gone = keeper(20), []
    first, second = Thing("first", "a"), Thing("second", "b")
    for thing in (first, second):
        keep.enter(thing, lambda thing: gone.append(thing.id))
    keep.touch(first)
    keep.enter(Thing("third", "c"), lambda thing: gone.append(thing.id))
    assert gone == ["second"]
    keep.leave(first)
    assert keep.total == 10


def test_what_is_being_made_counts_as_it_grows_and_ends_where_nothing_can_be_let_go() -> None:
    keep, gone = keeper(100, 80), []
    growing = Thing("growing", "a", 0, done=False)
    assert keep.enter(growing, gone.append)
    other = Thing("other", "b", 50)
    assert keep.enter(other, gone.append)
    growing.nbytes = 60
    assert keep.weigh(growing)
    assert gone == [other]
    growing.nbytes = 81
    assert not keep.weigh(growing), "more than one may be"
    growing.nbytes = 60
    assert not keep.enter(Thing("second", "c", 60, done=False), gone.append), "both are being made"
    keep.leave(growing)
    assert keep.weigh(growing), "who has left may end in peace"
    assert keep.total == 60


def test_two_that_are_made_at_a_time_fit() -> None:
    for profile in (LOCAL, PUBLIC):
        assert 2 * profile.run_bytes <= profile.kept_bytes
        assert 10 * profile.trace_bytes <= profile.kept_bytes


# -- runs ------------------------------------------------------------------------------------------------------------------


def heavy(tokens: int = 60) -> dict[str, Any]:
    return {"meta": make_meta(extras=EXTRAS, hidden=64, max_steps=6, prompt_tokens=tokens), "tokens": tokens}


def made(registry: Registry, session: str, *, tokens: int = 60, seed: int = 0) -> Run:
    """A run with every panel, from its first frame to its end, as the page sees it."""
    what = heavy(tokens)
    run = Run(what["meta"], PANELS, session)
    registry.begin(run)
    for _ in messages(run, random_frames(seed, what["meta"], tokens), every=3_600):
        pass
    return run


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def test_a_run_weighs_what_it_takes(traced: None) -> None:
    """Against what Python hands out for it, once what was made to draw it is gone."""
    made(Registry(), "first")  # words, caches of panels and the like are there
    frames = [list(random_frames(n, heavy(40)["meta"], 40)) for n in range(4)]
    text_of = [json.dumps(each) for each in frames]
    del frames
    gc.collect()
    before, registry = tracemalloc.get_traced_memory()[0], Registry()
    runs = []
    for n, written in enumerate(text_of):
        run = Run(heavy(40)["meta"], PANELS, f"visitor {n}")
        registry.begin(run)
        for _ in messages(run, json.loads(written), every=3_600):
            pass
        runs.append(run)
    gc.collect()
    taken = tracemalloc.get_traced_memory()[0] - before
    said = sum(run.nbytes for run in runs)
    assert registry.keeper.total == pytest.approx(said, rel=0.01)
    assert 0.8 < said / taken < 1.6, (said, taken)


def test_kept_runs_are_counted_not_weighed_thirty_runs_with_every_panel_stay_within_the_bytes(traced: None) -> None:
    one = made(Registry(), "alone", tokens=24).nbytes
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    registry = Registry(keeper(5 * one + one // 2))
    runs = [made(registry, f"visitor {n}", tokens=24, seed=n).id for n in range(30)]
    gc.collect()
    taken = tracemalloc.get_traced_memory()[0] - before
    kept = [run for run in runs if registry.get(run) is not None]
    assert 4 <= len(kept) <= 6
    assert kept == runs[-len(kept) :], "those of today"
    assert registry.keeper.total <= registry.keeper.profile.kept_bytes
    caches = 2 * 2**20  # of panels' words: the same for all runs, and bounded by themselves
    assert taken < 1.1 * registry.keeper.profile.kept_bytes + caches < 15 * one, "and really so"


def test_a_run_that_outgrows_what_one_may_be_ends_with_a_sentence_and_what_it_has_is_shown() -> None:
    one = made(Registry(), "alone", tokens=40)
    registry = Registry(keeper(10**9, one.nbytes))
    run = Run(heavy(60)["meta"], PANELS, "me")
    registry.begin(run)
    told = [unwire(message) for message in messages(run, random_frames(0, heavy(60)["meta"], 60), every=0.0)]
    assert run.end == "memory"
    assert told[-1]["end"] == "memory"
    assert 20 < len(run) < 60
    assert registry.get(run.id) is run
    for lang in LANGUAGES:
        assert text(lang, "live.end.memory")


def test_a_finished_run_holds_its_frames_and_tables_once() -> None:
    registry = Registry()
    run = made(registry, "me")
    assert run._shown is run.trace
    assert run.snapshot()["seq"] == len(run)
    assert run.nbytes < 1.2 * run.trace.nbytes


def test_a_visitor_whose_run_has_gone_is_told_in_words() -> None:
    registry = Registry(keeper(1))
    first = made(registry, "first", tokens=8)
    made(registry, "second", tokens=8)
    questions = Questions(registry, ModelRoom("none"))
    for ask, more in ((questions.resync, {}), (questions.focus, {"focus": {}}), (questions.advance, {"from": 0})):
        assert json.loads(ask(json.dumps({"run": first.id, **more}))) == {"kind": "gone"}
    for lang, words in (
        ("en", ("no longer keeps", "what is shown stays", "Run it again", "file you saved")),
        ("zh", ("已不再保存", "会保留", "重新运行", "保存的文件")),
    ):
        assert all(word in text(lang, "live.gone") for word in words)


def test_runs_comparisons_and_measurements_share_one_room() -> None:
    from loopviz.app.compare.service import Comparisons
    from loopviz.app.explore.service import Service
    from loopviz.app.lab.service import Laboratory

    profile = dataclasses.replace(PUBLIC, kept_bytes=12_345)
    service = Service(ModelRoom("none", profile=profile), Registry())
    keepers = {id(each.keeper) for each in (service.registry, Comparisons(service).runs, Laboratory(service).runs)}
    assert keepers == {id(service.registry.keeper)}
    assert service.registry.keeper.profile is profile


def test_opened_files_are_weighed_like_runs() -> None:
    registry, trace = Registry(keeper(1)), random_trace(1, 9)
    for visitor in ("one", "two"):
        run = Run(trace.meta, first_run.usual_panels(), visitor)
        run.trace, run.end, run.opened = trace, "length", True
        run.finished.set()
        registry.begin(run)
    assert [run.session for run in registry.opened()] == ["two"], "the one that has just come is kept"
