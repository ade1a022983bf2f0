"""How long a model took last time is told to who waits, and outlives the server."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from loopviz.app.profile import LOCAL
from loopviz.app.sessions import model_status
from loopviz.app.sessions.load_times import FILE, LoadTimes
from loopviz.app.sessions.model_status import Status
from loopviz.app.sessions.models import ModelRoom
from loopviz.app.texts import LANGUAGES, text
from loopviz.engine.local import LocalEngine


def test_what_it_took_outlives_the_server_and_is_kept_by_whether_it_was_the_first(tmp_path: Path) -> None:
    folder = str(tmp_path / "store")
    one, other = LoadTimes(folder), LoadTimes(folder)
    assert other.last("a", True) is None
    one.took("a", True, 12.34)
    other.took("b", False, 2.0)  # the other room of the server: it takes nothing away
    later = LoadTimes(folder)
    assert (later.last("a", True), later.last("a", False), later.last("b", False)) == (12.3, None, 2.0)


@pytest.mark.parametrize("kept", ["", "[]", '{"first": {"a": "long", "b": -1, "c": NaN, "d": true}}', '{"first": 3}'])
def test_a_file_that_is_none_says_nothing(tmp_path: Path, kept: str) -> None:
    (tmp_path / FILE).write_text(kept)
    times = LoadTimes(str(tmp_path))
    assert [times.last(name, True) for name in "abcd"] == [None] * 4
    times.took("a", True, 3)
    assert LoadTimes(str(tmp_path)).last("a", True) == 3


def test_without_a_place_the_process_itself_knows(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in ("", str(tmp_path / "file")):
        times = LoadTimes(folder)
        times.took("a", False, 4)
        assert times.last("a", False) == 4


@pytest.mark.parametrize("lang", LANGUAGES)
def test_who_waits_is_told_for_how_long_and_what_it_took_last(lang: str) -> None:
    now = time.monotonic()
    said = Status("loading", "a", "weights", began=now - 12.5, usual=31.4).tell(lang)
    assert text(lang, "model.since", seconds="10") in said, "in steps, so that it is not said anew at every look"
    assert said.endswith(text(lang, "model.usual", seconds="31"))
    short = Status("importing", "a", began=now).tell(lang)
    assert short == text(lang, "model.importing", name="a"), "nothing is known, and nothing is worth a word yet"
    assert Status("ready", "a", began=now - 100, usual=9.0).tell(lang) == Status("ready", "a").tell(lang)


def test_a_room_writes_down_what_its_own_models_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not what strangers named; told from the first look at a model on."""
    model = SimpleNamespace(config=SimpleNamespace(num_hidden_layers=3), parameters=lambda: [], modules=lambda: [])
    profile, gate = replace(LOCAL, store=str(tmp_path)), threading.Event()

    def load(name: str, progress: Any, local: bool) -> LocalEngine:
        progress("weights", None)
        assert gate.wait(10)
        return LocalEngine(name, model, None)  # type: ignore[arg-type]

    LoadTimes(str(tmp_path)).took("a", False, 30)  # PyTorch is here
    monkeypatch.setattr(model_status, "STEP", 1e-9)
    room = ModelRoom("a", profile=profile, load=load)
    thread = room.warm()
    until = time.monotonic() + 10
    while room.seen("a").state != "loading":
        assert time.monotonic() < until
    assert text("en", "model.usual", seconds="30") in room.seen("a").tell("en")
    assert "so far" in room.seen("a").tell("en")
    gate.set()
    thread.join(10)
    room.get("stranger/model")
    again = LoadTimes(str(tmp_path))
    assert (again.last("a", False) or 0) < 30
    assert again.last("stranger/model", False) is None
