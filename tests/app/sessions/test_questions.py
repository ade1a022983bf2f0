"""Where a model is, and that what a ticket stands for ends: asked by every page's script, answered in one place."""

from __future__ import annotations

import inspect
import json
import threading
from importlib import import_module
from typing import Any

import pytest

from loopviz.app import contract
from loopviz.app.sessions import questions
from loopviz.app.sessions.models import ModelRoom
from loopviz.app.sessions.tickets import Starts


class Made:
    """A run, as far as it is asked to end."""

    def __init__(self, ticket: str) -> None:
        self.ticket, self.ends = ticket, 0

    def halt(self) -> None:
        self.ends += 1


def test_a_ticket_ends_what_has_begun_and_what_has_not() -> None:
    starts, runs = Starts(), [Made("a"), Made("b"), Made("")]
    waiting = starts.begin("me", ticket="a")
    assert json.loads(questions.stop({"ticket": "a"}, starts, runs)) == {"kind": "ok"}
    assert waiting.over.is_set()
    assert [run.ends for run in runs] == [1, 0, 0]
    assert starts.begin("you", ticket="late").over.is_set() is False
    questions.stop({"ticket": "later"}, starts, runs)
    assert starts.begin("they", ticket="later").over.is_set(), "it was taken back on its way"


@pytest.mark.parametrize("asked", [{"ticket": ""}, {"ticket": None}, {}, {"ticket": 1}])
def test_what_is_no_ticket_ends_nothing(asked: dict[str, Any]) -> None:
    """A run of a program has none, and is not anybody's to end."""
    run = Made("")
    questions.stop(asked, Starts(), [run])
    assert run.ends == 0


class Small:
    layers, parameters, n_bytes = 2, 10, 40


def test_a_model_says_where_it_is_and_what_the_page_asks_besides() -> None:
    let = threading.Event()

    def load(name: str, progress: Any, local: bool) -> Any:
        assert let.wait(30)
        return Small()

    room, given = ModelRoom("tiny", load=load), []

    def more(loaded: Any, now: Any) -> dict[str, Any]:
        assert now.name == "tiny"
        given.append(loaded)
        return {"layers": getattr(loaded, "layers", None)}

    def ask(**asked: Any) -> dict[str, Any]:
        return json.loads(questions.where_is({"lang": "en", "look": False, **asked}, room, more=more))

    first = ask(model="tiny")
    assert (first["state"], first["layers"]) == ("waiting", None)
    let.set()
    room.get("tiny")
    ready = ask(model="tiny")
    assert (ready["kind"], ready["name"], ready["state"], ready["layers"]) == ("model", "tiny", "ready", 2)
    assert given == [None, room.ready("tiny")]
    assert ask(model="")["state"] == "failed", "no name means no model"
    named = json.loads(questions.where_is({"lang": "en", "look": True}, room, "tiny"))
    assert (named["name"], named["state"]) == ("tiny", "ready")


def test_who_only_asks_where_a_model_is_does_not_work_with_it() -> None:
    """An open page asks every second; a model that nobody needs goes all the same."""
    room = ModelRoom("tiny", load=lambda name, progress, local: Small())
    room.get("tiny")
    needed = dict(room._needed)
    questions.where_is({"model": "tiny", "lang": "en", "look": False}, room)
    assert room._needed == needed


def test_every_page_that_is_asked_so_answers_by_these() -> None:
    pages = [
        page for page, asked in contract.QUESTIONS.items() if asked.get("stop", (None,))[0] is contract.StopMeasured
    ]
    assert len(pages) >= 5
    for page in pages:
        source = inspect.getsource(import_module(f"loopviz.app.{page}.service"))
        assert "questions.stop(" in source, page
        assert "questions.where_is(" in source, page
        assert "starts.cancel(" not in source, page
