"""A line for every run, whatever became of it, and never a word of a visitor's."""

from __future__ import annotations

import contextlib
import io
import json
import logging
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from loopviz.app import controls as st
from loopviz.app.compare.service import Comparisons
from loopviz.app.contract import FILES, STORE, TICKET_HEADER
from loopviz.app.explore.files import Sharing
from loopviz.app.explore.run import Registry
from loopviz.app.explore.service import Service
from loopviz.app.explore.tool import opening
from loopviz.app.lab.service import Laboratory
from loopviz.app.learn.service import Lessons
from loopviz.app.profile import LOCAL, PUBLIC, Profile, profile_of
from loopviz.app.sessions.faults import noted
from loopviz.app.sessions.models import ModelRoom
from loopviz.app.sessions.run_log import OTHER, set_up
from loopviz.app.sessions.tools import ToolRefused, fresh_session
from loopviz.engine.local import LocalEngine
from tests.app.by_hand import only
from tests.app.learn.test_answer_file import asked as answer_file_asked

SECRET = "xyzzy"


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root = logging.getLogger("loopviz")
    kept = [*root.handlers], root.propagate, root.level
    yield
    root.handlers[:], root.propagate, root.level = kept
    logging.getLogger("loopviz.runs").manager._clear_cache()  # type: ignore[attr-defined]


def started(profile: Profile, endless: LocalEngine) -> tuple[Service, io.StringIO]:
    out = io.StringIO()
    set_up(profile, out)
    return Service(ModelRoom("tiny", profile=profile, load=only(endless)), Registry(), every=0), out


def form(**change: Any) -> dict[str, Any]:
    return st.defaults() | {"model": "tiny", "block_start": 1, "block_end": 1, "max_new_tokens": 3} | change


def everything(service: Service) -> None:
    """Runs that end, are refused in several ways, and fail; a comparison and a measurement."""
    list(service.run(f"{SECRET} upon", form(), "en", f"session-{SECRET}"))
    list(service.run(f"{SECRET} upon", form(loop_count=SECRET), "en", "b"))
    list(service.run(SECRET * 9_000, form(), "en", "b"))
    list(service.run("Once", form(model=f"{SECRET}/model"), "en", "b"))
    service._begin, kept = _broken, service._begin  # type: ignore[method-assign]
    list(service.run(f"{SECRET} again", form(), "en", "b"))
    service._begin = kept  # type: ignore[method-assign]
    cards = [{"name": SECRET, "plain": True, "values": {}}, {"name": "b", "plain": True, "values": {}}]
    asked = {"lang": "en", "model": "tiny", "prompt": f"{SECRET} upon", "shared": {"max_new_tokens": 2}, "cards": cards}
    list(Comparisons(service, every=0).run({**asked, "continuation": SECRET, "baseline": 0}, "c"))
    values = {"text": f"{SECRET} upon a time " * 9, "loops": "1", "window": 16}
    list(
        Laboratory(service, every=0.01).run(
            {"lang": "en", "task": "perplexity", "model": "tiny", "values": values}, "d"
        )
    )


def _broken(wish: Any, *_: Any) -> Any:
    raise RuntimeError(f"nobody foresaw {wish.prompt}")


@pytest.mark.parametrize("form", ["json", "text"])
def test_no_word_of_a_visitor_reaches_a_line(endless: LocalEngine, form: str) -> None:
    service, out = started(replace(PUBLIC, log=form), endless)
    everything(service)
    assert "RuntimeError" in out.getvalue(), "errors are there, by kind and place"
    assert "test_run_log.py" in out.getvalue()
    assert SECRET not in out.getvalue()


def test_a_line_says_what_became_of_a_run(endless: LocalEngine) -> None:
    service, out = started(replace(PUBLIC, log="json"), endless)
    everything(service)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    runs = [line for line in lines if line["logger"] == "loopviz.runs"]
    assert [line["page"] for line in runs] == ["explore"] * 5 + ["compare", "lab"]
    first = runs[0]
    assert (first["event"], first["model"], first["end"], first["refused"]) == ("run", "tiny", "length", None)
    assert first["tokens"] == len(next(iter(service.registry)).trace) if len(service.registry) else first["tokens"] > 3
    assert 0 < first["seconds"] < 600
    assert first["id"]
    assert all(run.id not in out.getvalue() for run in service.registry)
    assert [line["refused"] for line in runs[1:4]] == [["loop_count"], ["prompt"], ["model"]]
    assert (runs[3]["model"], runs[3]["id"], runs[3]["end"]) == (OTHER, None, "refused")
    assert runs[4]["end"] == "error"
    assert [line["end"] for line in runs[5:]] == ["done", "done"]


def stored_and_called(service: Service) -> dict[str, str]:
    """A run that is made, saved, opened, deleted; answers handed in and taken back; files; calls of programs: done, and refused. What
    nobody else is to know of them."""
    list(service.run(f"{SECRET} upon", form(), "en", "a"))
    (run,) = service.registry
    sharing, lessons = Sharing(service.registry, service.room, service.files), Lessons(service)
    client = TestClient(Starlette(routes=[*sharing.routes(), *lessons.handing.routes()]))
    ticket = {TICKET_HEADER: sharing.visit("a")["ticket"]}

    def post(what: str, **asked: Any) -> Any:
        found = client.post(f"/{STORE}/{what}", json=asked, headers=ticket)
        return found.json() if found.status_code == 200 else {}

    saved = post("save", run=run.id, view="", student=SECRET)
    post("save", run=SECRET, view="")
    post("open", id=saved["id"])
    post("open", id=SECRET)
    made = post("class/new", name=SECRET)
    answers = {"student": SECRET, "lesson": SECRET, "folder": made["folder"]}
    handed = post("learn/hand_in", **answer_file_asked(**answers))
    post("learn/withdraw", **answers, secret=handed["secret"])
    post("learn/withdraw", **answers, secret=handed["secret"])
    post("class/delete", folder=made["folder"], secret=handed["secret"])
    client.get(f"/{FILES}/{run.id}/trace")
    client.get(f"/{FILES}/{SECRET}/trace")
    client.post(f"/{FILES}/open", content=SECRET.encode(), headers=ticket)
    opened = opening(service, sharing.stored)
    for asked in ({"run": saved["id"], "trace": "none"}, {"run": SECRET}, {"run": "x", SECRET: 1}, {"trace": SECRET}):
        with contextlib.suppress(ToolRefused):
            deque(opened.carry_out(asked, fresh_session()), maxlen=0)
    post("delete", id=saved["id"], secret=handed["secret"])
    post("delete", id=saved["id"], secret=saved["secret"])
    return {**saved, "folder": made["folder"], "teacher": made["secret"], "pupil": handed["secret"], "run": run.id}


LINES = [
    ("save", "explore", "done", None),
    ("save", "explore", "refused", ["404"]),
    ("open", "explore", "done", None),
    ("open", "explore", "refused", ["unknown"]),
    ("class/new", "explore", "done", None),
    ("learn/hand_in", "learn", "done", None),
    ("learn/withdraw", "learn", "done", None),
    ("learn/withdraw", "learn", "refused", ["no_answer"]),
    ("class/delete", "explore", "refused", ["owner"]),
    ("file/save", "explore", "done", None),
    ("file/save", "explore", "refused", ["404"]),
    ("file/open", "explore", "refused", ["422"]),
    ("open_run", "api", "done", None),
    ("open_run", "api", "refused", ["run"]),
    ("open_run", "api", "refused", [OTHER]),
    ("open_run", "api", "refused", ["run"]),
    ("delete", "explore", "refused", ["owner"]),
    ("delete", "explore", "done", None),
]


def test_what_is_no_run_has_a_line_and_is_counted_too(endless: LocalEngine, tmp_path: Path) -> None:
    service, out = started(replace(PUBLIC, log="json", store=str(tmp_path), store_new_folders=True), endless)
    private = stored_and_called(service)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    first, *others = [line for line in lines if line["logger"] == "loopviz.runs"]
    assert first["event"] == "run"
    assert [(line["event"], line["page"], line["end"], line["refused"]) for line in others] == LINES
    for line in others:
        assert line.keys() == first.keys(), "who reads them reads all alike"
        assert 0 <= line["seconds"] < 600
    for told in (SECRET, *map(str, private.values())):
        assert told not in out.getvalue()
    for (act, end), times in Counter((act, end) for act, _, end, _ in LINES).items():
        counted = service.counted.registry.get_sample_value("loopviz_acts_total", {"act": act, "end": end})
        assert counted == times, (act, end)


def test_prompts_are_written_down_for_who_asks(endless: LocalEngine) -> None:
    service, out = started(replace(PUBLIC, log="json", log_prompts=True), endless)
    everything(service)
    assert json.loads(out.getvalue().splitlines()[0])["prompt"] == f"{SECRET} upon"
    assert f"nobody foresaw {SECRET} again" in out.getvalue()


def test_without_a_word_there_are_errors_alone(endless: LocalEngine) -> None:
    """Whole for who sits at the machine."""
    for profile, whole in ((LOCAL, True), (PUBLIC, False)):
        out = io.StringIO()
        set_up(profile, out)
        service = Service(ModelRoom("tiny", profile=profile, load=only(endless)), Registry(), every=0)
        list(service.run("Once", form(), "en", "a"))
        assert out.getvalue() == ""
        try:
            raise ValueError(SECRET)
        except ValueError as error:
            ref = noted(error, "a page")
        assert ref in out.getvalue()
        assert (SECRET in out.getvalue()) == whole


def test_the_variables_are_read_and_others_refused() -> None:
    found = profile_of("127.0.0.1", {"LOOPVIZ_LOG": "json", "LOOPVIZ_LOG_PROMPTS": "1"})
    assert (found.log, found.log_prompts) == ("json", True)
    with pytest.raises(ValueError, match="LOOPVIZ_LOG='xml': must be one of text, json"):
        profile_of("127.0.0.1", {"LOOPVIZ_LOG": "xml"})
    with pytest.raises(ValueError, match="LOOPVIZ_LOG_PROMPTS='yes'"):
        profile_of("127.0.0.1", {"LOOPVIZ_LOG_PROMPTS": "yes"})
