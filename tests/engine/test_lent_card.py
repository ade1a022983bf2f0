"""A run on a card that is lent is the run it is on the processor, and where none is lent that is where it is made."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
import torch

from loopviz.engine import lent_card
from loopviz.engine.engine import EngineLost, Handle, LoadLimits, Request
from loopviz.engine.lent_card import LentCard, LentEngine
from loopviz.engine.local import LocalEngine, prepare
from loopviz.worker import WorkerEnded
from tests.engine import tiny
from tests.engine.gpu_double import GPU
from tests.engine.test_local import settled
from tests.engine.test_ray_engine import eventually, runs_alike

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="a card is lent to a forked process")
LOOP = {"loop_layers": (1, 2), "loop_count": 3, "virtual_layer_count": 2}
REQUEST = Request("Once upon 🙂", {"loop_count": 4}, {"max_new_tokens": 12, "do_sample": True, "seed": 2})
LONG = Request("Once", {}, {"max_new_tokens": 200})


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[GPU]:
    """What lends cards; the card is this processor."""
    monkeypatch.setattr(lent_card, "DEVICE", "cpu")
    monkeypatch.setattr(lent_card, "_SEATS", [])
    double = GPU()
    yield double
    double.kill()


@pytest.fixture
def lent(gpu: GPU) -> Callable[..., LentEngine]:
    card = LentCard(gpu, 0)
    return lambda **change: LentEngine("tiny", tiny.model(**LOOP, **change), tiny.tokenizer(), "made here", card=card)


def here_of(engine: LentEngine) -> LocalEngine:
    return LocalEngine(engine.name, engine.model, engine.tokenizer, engine.source)


def seats(engine: LentEngine) -> int:
    assert engine.card is not None
    return len(engine.card._free)


def test_a_run_is_the_same_and_well_formed(gpu: GPU, lent: Any) -> None:
    engine = lent()
    for _ in range(2):
        runs_alike(here_of(engine).start(REQUEST), engine.start(REQUEST))
    assert len(gpu.forked) == 1, "the process is kept for the next run"
    assert gpu.durations == [60]


def test_a_run_is_steered_there(lent: Any) -> None:
    run = lent().start(LONG)
    seen = []
    for frame in run.frames:
        seen.append(frame)
        if len(seen) == 3:
            with pytest.raises(ValueError, match="virtual_layer_count"):
                run.steer(virtual_layer_count=3)
            with pytest.raises(ValueError, match="loop_count"):
                run.steer(loop_count=0)
            run.steer(loop_count=1)
        if run.meta["changes"]:
            break
    (change,) = run.meta["changes"]
    assert change["loop"] == {"loop_count": 1}
    assert seen[-1]["index"] >= change["index"] > seen[2]["index"], "from a token on that had not come"
    run.stop()


def test_a_stop_ends_it_there_and_leaves_its_seat(gpu: GPU, lent: Any) -> None:
    engine, stop = lent(), threading.Event()
    run = engine.start(LONG, stop)
    seen = 0
    for _ in run.frames:
        seen += 1
        if seen == 3:
            stop.set()
    assert seen == 3
    for _ in range(3):
        run = engine.start(LONG)
        next(run.frames)
        run.frames.close()  # as a closed tab does
    assert eventually(lambda: seats(engine) == lent_card.SEATS)
    assert len([*engine.start(REQUEST).frames]) > 12
    assert all(worker.process.is_alive() for worker in gpu.forked), "they ended by themselves"


def test_stopped_before_it_began_it_never_begins(gpu: GPU, lent: Any) -> None:
    engine, stop = lent(), threading.Event()
    gpu.look = stop.set
    with pytest.raises(WorkerEnded):
        engine.start(LONG, stop)


def test_a_process_that_lacks_the_model_is_followed_by_one_that_has_it(gpu: GPU, lent: Any) -> None:
    first = lent()
    assert [*first.start(REQUEST).frames]
    second = lent(seed=1)
    run = second.start(REQUEST)
    assert settled([*run.frames]) == settled([*here_of(second).start(REQUEST).frames])
    assert len(gpu.forked) == 2
    assert not gpu.forked[0].process.is_alive()


def test_where_no_card_is_lent_the_processor_makes_it(gpu: GPU, lent: Any, caplog: pytest.LogCaptureFixture) -> None:
    engine = lent()
    gpu.refuses = "You have exceeded your GPU quota"
    run = engine.start(REQUEST)
    assert settled([*run.frames]) == settled([*here_of(engine).start(REQUEST).frames])
    assert "exceeded your GPU quota" in caplog.text
    assert not gpu.forked
    assert seats(engine) == lent_card.SEATS


def test_where_every_seat_is_taken_the_processor_makes_it(gpu: GPU, lent: Any) -> None:
    engine = lent()
    for _ in range(lent_card.SEATS):
        engine.card.take()
    assert len([*engine.start(REQUEST).frames]) > 12
    assert not gpu.forked


def test_a_card_that_is_taken_back_ends_the_run_in_words(gpu: GPU, lent: Any) -> None:
    engine = lent()
    run = engine.start(LONG)
    next(run.frames)
    gpu.kill()
    with pytest.raises(EngineLost) as lost:
        for _ in run.frames:
            pass
    assert lost.value.rule == "engine_card_lost"
    assert len([*engine.start(REQUEST).frames]) > 12, "the next has another"


def test_a_card_that_does_not_hold_the_model_leaves_it_to_the_processor(
    gpu: GPU, lent: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(seal: str) -> LocalEngine:
        raise ValueError("device='cuda:0': needs 9 bytes there, and 8 may be taken")

    monkeypatch.setattr(lent_card, "_engine_there", full)
    engine = lent()
    assert len([*engine.start(REQUEST).frames]) > 12
    assert "no card for this run" in caplog.text
    assert seats(engine) == lent_card.SEATS


def test_what_goes_wrong_in_a_run_there_is_told_as_here(gpu: GPU, lent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    start = LocalEngine.alone

    def failing(self: LocalEngine, request: Request, stop: threading.Event) -> Any:
        def frames(whole: Iterator[Any]) -> Iterator[Any]:
            yield next(whole)
            raise MemoryError("out of memory")

        handle = start(self, request, stop)
        return Handle(handle.meta, frames(handle.frames), handle.steer, handle.stop)

    monkeypatch.setattr(LocalEngine, "alone", failing)
    run = lent().start(REQUEST)
    next(run.frames)
    with pytest.raises(RuntimeError, match="MemoryError: out of memory"):
        next(run.frames)


@pytest.mark.parametrize(
    "request_", [Request("", {}, {}), Request("a", {"loop_count": 0}, {}), Request("a", {}, {"top_p": 7})]
)
def test_a_refusal_is_the_same(lent: Any, request_: Request) -> None:
    engine = lent()
    said = []
    for one in (engine, here_of(engine)):
        with pytest.raises(ValueError, match=r".") as refused:
            one.start(request_)
        said.append(str(refused.value))
    assert said[0] == said[1]


def test_whose_minutes_they_are_is_known_where_the_card_is_asked_for(gpu: GPU, lent: Any) -> None:
    """The package looks up Gradio's request, a context variable."""
    asking: ContextVar[str] = ContextVar("asking", default="nobody")
    found: list[str] = []
    gpu.look = lambda: found.append(asking.get())
    asking.set("a visitor")
    assert [*lent().start(REQUEST).frames]
    assert found == ["a visitor"]


@pytest.mark.parametrize(
    ("least", "precision", "chosen", "runs_there"),
    [(0, "auto", False, True), (10**9, "auto", False, False), (0, "int8", True, False), (0, "exact", True, True)],
)
def test_large_models_are_for_it_unless_another_precision_was_chosen(
    gpu: GPU, tmp_path: Path, least: int, precision: str, chosen: bool, runs_there: bool
) -> None:
    folder = tmp_path / "model"
    model = tiny.model(**LOOP)
    model.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    prepared = prepare(
        "mine",
        str(folder),
        LoadLimits(99, 10**6, 10**9, 10**9, 60.0, 10**9),
        bounded=False,
        apart=False,
        allow_paths=True,
        progress=lambda *_: None,
        unwanted=lambda: False,
        precision=precision,
        chosen=chosen,
        card=LentCard(gpu, least),
    )
    engine = prepared.load()
    assert isinstance(engine, LentEngine) == runs_there
    assert ("lent_card" in {note.code for note in engine.notes}) == runs_there
    assert [*engine.start(Request("the dog", {}, {"max_new_tokens": 2})).frames]
    assert bool(gpu.forked) == runs_there
    if runs_there:
        assert next(engine.model.parameters()).dtype is torch.float32
