"""The messages of a run, folded as the page's script folds them, are the run; and nobody gets another's."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs

from loopviz.app.explore.run import FORGOTTEN, HOLD, Registry, Run, in_turns, messages
from loopviz.app.profile import PUBLIC
from loopviz.app.sessions.memory_budget import Keeper
from loopviz.app.sessions.messages import dumps, wire
from loopviz.app.texts import table
from loopviz.panels import METRICS, PANELS, Focus, apply
from tests.app.page_double import unpack, unwire
from tests.trace.synthetic import make_meta, random_trace


class Page:
    """What `assets/web/explore/run_view.js` keeps, without the drawing: it takes messages in order and mends nothing."""

    def __init__(self) -> None:
        self.run = None

    def receive(self, text: str) -> None:
        message = unwire(text)
        if message["kind"] == "snapshot":
            self.run, self.epoch, self.seq = message["run"], message["epoch"], message["seq"]
            self.figures, self.tokens, self.hero = message["figures"], message["tokens"], message["hero"]
        elif message["kind"] == "frames":
            assert message["run"] == self.run
            if message["last"] <= self.seq and (message["first"], message["last"]) != (self.seq, self.seq):
                return  # overtaken by a snapshot
            assert (message["first"], message["epoch"]) == (self.seq, self.epoch), "a gap"
            for name, ops in message["ops"].items():
                apply(self.figures[name], unpack(ops))
            apply(self.hero, unpack(message["hero"]))
            self.tokens += message["tokens"]
            self.seq = message["last"]
        self.next, self.end = message["next"], message["end"]

    def same_as(self, run: Run) -> None:
        whole = json.loads(dumps(run.snapshot()))
        assert self.tokens == whole["tokens"]
        assert self.next == whole["next"]
        assert self.end == whole["end"]
        assert self.figures == whole["figures"]
        assert self.hero == whole["hero"]


class Clock:
    """Time that passes `step` seconds at every look."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


SHAPES = hs.fixed_dictionaries(
    {
        "seed": hs.integers(0, 10_000),
        "tokens": hs.integers(1, 14),
        "strategy": hs.sampled_from(["fixed_count", "dynamic_stop"]),
        "kv_mode": hs.sampled_from(["virtual_layers", "merge_strategy"]),
        "blocks": hs.sampled_from([[], [(2, 3)], [(0, 1), (3, 4)]]),
        "record": hs.sampled_from(["full", "off"]),
    }
)


@settings(max_examples=40, deadline=None)
@given(SHAPES, hs.sampled_from([0.001, 0.03, 0.5]), hs.integers(0, 1000))
def test_folded_messages_are_the_run(shape: dict[str, Any], step: float, looks: int) -> None:
    trace = random_trace(**shape)
    run, page, rng = Run(trace.meta, PANELS), Page(), random.Random(looks)
    for text in messages(run, iter(trace.frames), clock=Clock(step)):
        page.receive(text)
        if rng.random() < 0.3:  # the visitor clicks: the answer comes beside the messages
            token = rng.choice([None, *range(len(trace) + 2)])
            focus = Focus(token=token, metric=rng.choice(METRICS), step=rng.choice([None, 1, 3]))
            page.receive(wire(run.look(focus)))
    page.same_as(run)
    assert page.seq == len(trace)
    assert run.finished.is_set()
    assert run.end == (trace.frames[-1]["finish"] or "stopped")


def test_a_question_between_frame_and_message_loses_nothing() -> None:
    trace = random_trace(3, 12)
    run, page = Run(trace.meta, PANELS), Page()
    for i, frame in enumerate(trace.frames):
        run.add(frame)
        if i == 2:
            page.receive(wire(run.snapshot()))
        if i == 5:
            page.receive(wire(run.frames_message()))
        if i == 8:
            page.receive(wire(run.look(Focus(token=1))))  # frames 6..8 had not been sent
    page.receive(wire(run.ending()))
    page.same_as(run)


def test_resync_tells_whether_anything_is_missing() -> None:
    trace = random_trace(4, 5)
    run = Run(trace.meta, PANELS)
    for frame in trace.frames:
        run.add(frame)
    assert run.since(0, 5)["kind"] == "current"
    assert run.since(0, 4)["kind"] == "snapshot"
    run.look(Focus(token=2))
    assert run.since(0, 5)["kind"] == "snapshot"
    assert run.since(1, 5)["kind"] == "current"


def test_the_first_message_is_a_snapshot_and_only_the_last_ends_it() -> None:
    trace = random_trace(5, 9)
    said = [unwire(text) for text in messages(Run(trace.meta, PANELS), iter(trace.frames), every=0)]
    assert [message["kind"] for message in said] == ["snapshot"] + ["frames"] * (len(said) - 1)
    assert [bool(message["end"]) for message in said[:-1]] == [False] * (len(said) - 1)


def test_the_words_of_a_prompt_wait_for_the_first_that_is_made() -> None:
    trace = random_trace(5, 9)
    prompt = sum(frame["phase"] == "prompt" for frame in trace.frames)
    assert 1 < prompt < len(trace) - 1
    first = unwire(next(iter(messages(Run(trace.meta, PANELS), iter(trace.frames), clock=Clock(HOLD / 100)))))
    assert (first["kind"], first["seq"]) == ("snapshot", prompt + 1)


def test_a_long_prompt_is_shown_as_it_is_read_and_the_first_word_at_once() -> None:
    trace = random_trace(5, 9)
    prompt = sum(frame["phase"] == "prompt" for frame in trace.frames)
    said = [
        unwire(text) for text in messages(Run(trace.meta, PANELS), iter(trace.frames), every=1e9, clock=Clock(HOLD))
    ]
    assert (said[0]["kind"], said[0]["seq"]) == ("snapshot", 1)
    assert [(message["first"], message["last"]) for message in said[1:]] == [(1, prompt + 1), (prompt + 1, len(trace))]


def test_a_run_that_is_over_with_its_first_word_is_one_message() -> None:
    trace = random_trace(5, 9)
    prompt = [frame for frame in trace.frames if frame["phase"] == "prompt"]
    frames = [*prompt, {**trace.frames[len(prompt)], "finish": "length"}]
    said = [unwire(text) for text in messages(Run(trace.meta, PANELS), iter(frames), clock=Clock(HOLD / 100))]
    assert [(message["kind"], message["seq"], message["end"]) for message in said] == [
        ("snapshot", len(frames), "length")
    ]


class Frames:
    """Frames that count how many were taken and know whether they were closed."""

    def __init__(self, frames: list[Any]) -> None:
        self.taken, self.closed, self._frames = 0, False, iter(frames)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        frame = next(self._frames)
        self.taken += 1
        return frame

    def close(self) -> None:
        self.closed = True


def test_stop_takes_no_further_frame_even_while_nothing_is_sent() -> None:
    frames = Frames(random_trace(6, 14).frames[:12])
    run = Run(make_meta(), PANELS)
    stream = messages(run, frames, every=1e9)
    next(stream)
    taken = frames.taken
    run.stop.set()
    page = [unwire(text) for text in stream]
    assert frames.taken <= taken + 1 < 12
    assert frames.closed
    assert (run.end, page[-1]["end"]) == ("stopped", "stopped")


def test_closing_halfway_closes_the_engine() -> None:
    frames = Frames(random_trace(7, 14).frames[:12])
    run = Run(make_meta(), PANELS)
    stream = messages(run, frames, every=0)
    next(stream)
    next(stream)
    stream.close()
    assert frames.closed
    assert run.finished.is_set()
    assert run.end == "stopped"


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("by_line", [False, True])
def test_the_page_is_told_while_other_runs_of_its_visitor_have_their_turns(
    monkeypatch: Any, lang: str, by_line: bool
) -> None:
    """A browser with two pages of ours has no line for a run: just there it was not told."""

    class Turns:
        """Waits as long before each frame as is said."""

        waited = 0.0

        def of(self, made: Iterator[Any], gone: Any, runs: Any) -> Iterator[Any]:
            for waits, frame in zip([0.0, 0.5, 0.5, 0.0, 0.0, 0.5], made, strict=False):
                self.waited += waits
                clock[0] += 0.6 * FORGOTTEN
                yield frame

    clock: list[float] = [0.0]
    said: list[Any] = []
    monkeypatch.setattr("loopviz.app.explore.run.time.monotonic", lambda: clock[0])
    run = Run(make_meta(), PANELS)
    if by_line:
        run.attach(lambda message: message is None or said.append(json.loads(message)) is None)
    frames = in_turns(run, Turns(), iter(random_trace(7, 14).frames), lang, {"ticket": "t"})  # type: ignore[arg-type]
    said += [unwire(message) for message in messages(run, frames, every=0, clock=lambda: clock[0])]
    words = [message for message in said if message["kind"] == "status"]
    told = table(lang)["live.turns"]
    assert [message["text"] for message in words] == [told, "", told, ""], "it is over: nothing is said any more"
    assert words[0] == {"kind": "status", "text": told, "bad": False, "ticket": "t"}


def test_an_engine_that_fails_is_told_apart() -> None:
    def broken() -> Iterator[Any]:
        yield random_trace(8, 2).frames[0]
        raise RuntimeError("boom")

    run = Run(make_meta(), PANELS)
    with pytest.raises(RuntimeError, match="boom"):
        list(messages(run, broken()))
    assert run.end == "error"
    assert run.finished.is_set()


def test_no_frame_no_message() -> None:
    assert list(messages(Run(make_meta(), PANELS), iter([]))) == []


def test_messages_are_json_whatever_the_text_is() -> None:
    trace = random_trace(9, 12)  # its pieces hold quotes, markup, templates, half characters
    for text in messages(Run(trace.meta, PANELS), iter(trace.frames), every=0):
        unwire(text)


# --- registry -------------------------------------------------------------------------------------------------------


def _run(session: str) -> Run:
    return Run(make_meta(), PANELS, session)


def test_a_run_is_found_by_its_id_only() -> None:
    registry = Registry()
    mine, yours = _run("me"), _run("you")
    registry.begin(mine)
    registry.begin(yours)
    assert registry.get(mine.id) is mine
    assert registry.of_session("me") == [mine]
    for guess in ("", mine.id[:-1], mine.id + "x", "me", None, 3, ["x"], {"run": mine.id}):
        assert registry.get(guess) is None
    assert len({_run("a").id for _ in range(200)}) == 200
    assert len(mine.id) >= 20


def test_running_again_stops_the_first_and_waits_for_nothing() -> None:
    registry = Registry()
    first, second, other = _run("me"), _run("me"), _run("you")
    registry.begin(first)
    registry.begin(other)
    registry.begin(second)
    assert first.stop.is_set()
    assert not first.finished.is_set()
    assert not other.stop.is_set()
    # the first's result is on screen until the second has something to show
    assert registry.get(first.id) is first
    registry.supersede(second)
    assert registry.get(first.id) is None
    assert registry.get(second.id) is second
    assert registry.get(other.id) is other


def test_leaving_forgets_everything_of_the_session() -> None:
    registry = Registry()
    mine, yours = _run("me"), _run("you")
    registry.begin(mine)
    registry.begin(yours)
    registry.forget("me")
    assert mine.stop.is_set()
    assert registry.get(mine.id) is None
    assert len(registry) == 1
    assert not yours.stop.is_set()


def test_the_registry_is_bounded() -> None:
    running = _run("busy")
    registry = Registry(Keeper(dataclasses.replace(PUBLIC, kept_bytes=6 * running.nbytes)))
    registry.begin(running)
    for i in range(20):
        run = _run(f"visitor {i}")
        run.finished.set()
        registry.begin(run)
    assert 4 <= len(registry) <= 6
    assert registry.get(running.id) is running, "a run that computes is never dropped"
    assert registry.active() == 1
