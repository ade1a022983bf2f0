"""A run's own line: it carries what lies between beginning and end, and nothing is lost when it comes or goes."""

from __future__ import annotations

import asyncio
import json
import threading
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs
from starlette.applications import Starlette
from starlette.testclient import TestClient

from loopviz.app.explore import event_stream
from loopviz.app.explore.event_stream import Line
from loopviz.app.explore.run import Registry, Run, messages
from loopviz.app.profile import LOCAL
from loopviz.app.sessions.messages import dumps, wire
from loopviz.panels import PANELS
from loopviz.trace import Frame
from tests.app.explore.test_run import Clock, Page
from tests.trace.synthetic import make_meta, random_trace


@settings(max_examples=30, deadline=None)
@given(hs.integers(1, 20), hs.integers(0, 20), hs.integers(0, 20), hs.integers(0, 1000))
def test_no_frame_is_lost_when_a_line_comes_and_goes(tokens: int, comes: int, goes: int, seed: int) -> None:
    trace = random_trace(seed=seed, tokens=tokens)
    run, page = Run(trace.meta, PANELS), Page()
    by_line: list[str | None] = []

    def send(text: str | None) -> bool:
        by_line.append(text)
        if text is not None:
            page.receive(wire(json.loads(text)))
        return True

    def frames() -> Iterator[Frame]:
        for i, frame in enumerate(trace.frames):
            if i == comes:
                run.attach(send)
            if i == goes:
                run.detach(send)
            yield frame

    yielded = 0
    for text in messages(run, frames(), clock=Clock(1.0)):
        yielded += 1
        page.receive(text)
    page.same_as(run)
    assert page.seq == len(trace)
    if comes <= 1 and goes > tokens > 2:
        assert yielded == 2  # the beginning and the end
        assert by_line[-1] is None  # hung up
    if comes >= tokens:
        assert by_line == []


def in_a_loop(main: Callable[[], Awaitable[Any]]) -> Any:
    """Run `main` in an event loop of a thread of its own: the browser tests' may be running in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(asyncio.wait_for(main(), 20))).result()


def listen(run: Run, work: Any) -> list[str]:
    """Everything a line to `run` says while `work` goes on in another thread."""

    async def main() -> list[str]:
        events = Line().events(run)
        said = [await anext(events)]
        thread = threading.Thread(target=work)
        thread.start()
        said += [event async for event in events]
        thread.join()
        return said

    return in_a_loop(main)


def test_the_line_sends_events_in_order_and_ends_with_the_run() -> None:
    trace = random_trace(seed=3, tokens=12)
    run = Run(trace.meta, PANELS)
    yielded: list[str] = []
    said = listen(run, lambda: yielded.extend(messages(run, iter(trace.frames), clock=Clock(1.0))))
    found = [json.loads(event.removeprefix("data: ")) for event in said if event.startswith("data: ")]
    assert all(event.endswith("\n\n") and "\n" not in event[:-2] for event in said)
    assert [message["first"] for message in found] == list(range(1, 12))
    assert found[-1]["last"] == 12
    assert found[-1]["end"] == run.end
    assert len(yielded) == 2


def test_a_page_that_goes_away_gives_the_line_back() -> None:
    run = Run(make_meta(), PANELS)

    async def main() -> None:
        events = Line().events(run)
        await anext(events)
        assert run.post({"kind": "frames"})
        await anext(events)
        await events.aclose()

    in_a_loop(main)
    assert not run.post({"kind": "frames"})


def test_a_squeezed_line_says_the_same_event_by_event_in_fewer_bytes() -> None:
    trace = random_trace(seed=3, tokens=30)
    run, plain = Run(trace.meta, PANELS), []

    async def said() -> AsyncIterator[str]:
        for frame in trace.frames:
            run.add(frame)
            plain.append(f"data: {dumps(run.frames_message())}\n\n")
            yield plain[-1]

    async def main() -> list[bytes]:
        return [part async for part in event_stream.gzipped(said())]

    parts = in_a_loop(main)
    opened = zlib.decompressobj(16 + zlib.MAX_WBITS)
    for part, text in zip(parts, plain, strict=False):
        assert opened.decompress(part).decode() == text, "complete as it comes"
    assert opened.decompress(parts[-1]) == b""
    assert opened.eof
    assert 2 * sum(map(len, parts)) < sum(len(text.encode()) for text in plain)


def test_a_squeezed_line_that_is_left_gives_the_line_back() -> None:
    run = Run(make_meta(), PANELS)

    async def main() -> None:
        events = event_stream.gzipped(Line().events(run))
        await anext(events)
        assert run.post({"kind": "frames"})
        await events.aclose()

    in_a_loop(main)
    assert not run.post({"kind": "frames"})


def test_a_line_nobody_reads_takes_no_more() -> None:
    async def main() -> None:
        line = Line()
        for _ in range(LOCAL.line_messages):
            assert line.send("x")
            await asyncio.sleep(0)
        assert not line.send("x")

    in_a_loop(main)


def test_a_second_line_hangs_up_the_first() -> None:
    run, first, second = Run(make_meta(), PANELS), [], []
    run.attach(lambda text: not first.append(text))
    run.attach(lambda text: not second.append(text))
    run.post({"n": 1})
    assert first == [None]
    assert second == ['{"n":1}']


@pytest.mark.parametrize("state", ["unknown", "finished"])
def test_there_is_no_line_to_a_run_that_is_not_running(state: str) -> None:
    registry, run = Registry(), Run(make_meta(), PANELS)
    if state == "finished":
        run.finished.set()
        registry.begin(run)
    client = TestClient(Starlette(routes=[event_stream.route(registry)]))
    assert client.get(f"/{event_stream.PREFIX}/{run.id}").status_code == 204


def test_a_word_by_the_line_stops_its_run_and_no_other() -> None:
    registry, runs = Registry(), [Run(make_meta(), PANELS, session) for session in ("one", "other")]
    for run in runs:
        registry.begin(run)
    client = TestClient(Starlette(routes=[event_stream.route(registry)]))
    assert client.post(f"/{event_stream.PREFIX}/unknown").status_code == 204
    assert client.post(f"/{event_stream.PREFIX}/{runs[0].id}").status_code == 204
    assert [run.stop.is_set() for run in runs] == [True, False]


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "DELETE"])
def test_l4_head_on_the_run_line_stops_nothing(method: str) -> None:
    registry, run = Registry(), Run(make_meta(), PANELS)
    registry.begin(run)
    client = TestClient(Starlette(routes=[event_stream.route(registry)]))
    client.request(method, f"/{event_stream.PREFIX}/{run.id}")
    assert not run.stop.is_set()


def test_a_run_that_ended_meanwhile_hangs_up_at_once() -> None:
    run = Run(make_meta(), PANELS)
    run.finished.set()
    assert listen(run, lambda: None) == [": here\n\n"]
