"""A line for every run, whatever became of it, and never a word of a visitor's."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from loopviz.app import controls as st
from loopviz.app.compare.service import Comparisons
from loopviz.app.explore.run import Registry
from loopviz.app.explore.service import Service
from loopviz.app.lab.service import Laboratory
from loopviz.app.profile import LOCAL, PUBLIC, Profile, profile_of
from loopviz.app.sessions.faults import noted
from loopviz.app.sessions.models import ModelRoom
from loopviz.app.sessions.run_log import OTHER, set_up
from loopviz.engine.local import LocalEngine
from tests.app.by_hand import only

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
