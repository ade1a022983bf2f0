"""The Teach page's events, in this process: a teaching is shown while it is made, rests, ends, is kept and fetched."""

from __future__ import annotations

import dataclasses
import gc
import io
import json
import threading
import time
import weakref
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from loopviz.app.controls import link_word
from loopviz.app.explore.run import Registry
from loopviz.app.explore.service import Service
from loopviz.app.profile import LOCAL, PUBLIC
from loopviz.app.sessions.models import ModelRoom
from loopviz.app.teach.page import data
from loopviz.app.teach.service import Teaching
from loopviz.app.texts import LANGUAGES, text
from loopviz.engine.local import LocalEngine
from loopviz.engine.pieces import decode
from loopviz.model.checkpoints import load_checkpoint
from loopviz.prompt_templates import TEMPLATES
from tests.app.page_double import unwire
from tests.conftest import make_llama

pytest.importorskip("peft", reason="optional: pip install 'loopviz[teach]'")

VALUES = {"first": 1, "last": 1, "least": 1, "most": 2, "rank": 2, "alpha": 4, "lr": 0.02, "steps": 4, "batch": 2}
VALUES |= {"window": 8, "every": 2, "seed": 3, "kind": "text"}
TEXT = "Once upon a time there was a loop that went round. " * 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> str:
    made = tmp_path_factory.mktemp("teach") / "tiny"
    make_llama(max_position_embeddings=512).save_pretrained(made)  # room for a template
    tiny_tokenizer.save_pretrained(made)
    return str(made)


@pytest.fixture(scope="module")
def engine(folder: str) -> LocalEngine:
    loaded = load_checkpoint(folder)
    return LocalEngine(folder, loaded.model, loaded.tokenizer, "made here")


@pytest.fixture
def teaching(folder: str, engine: LocalEngine) -> Teaching:
    room = ModelRoom(folder, load=lambda name, progress, local: engine)
    return Teaching(Service(room, Registry()), every=0.01)


def begin(folder: str, **change: Any) -> dict[str, Any]:
    asked = {"lang": "en", "ticket": "t1", "n": 1, "model": folder, "prompt": "Once upon", "text": TEXT}
    return asked | {"values": VALUES} | change


def all_of(stream: Iterator[str]) -> list[dict[str, Any]]:
    return [unwire(message) for message in stream]


def in_background(teaching: Teaching, asked: dict[str, Any], session: str = "me") -> tuple[list[Any], threading.Thread]:
    heard: list[Any] = []

    def listen() -> None:
        for message in teaching.run(asked, session):
            heard.append(unwire(message))

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    return heard, thread


def soon(holds: Callable[[], Any], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it never came to that"
        time.sleep(0.01)


def test_a_teaching_is_shown_kept_fetched_and_opened(folder: str) -> None:
    teaching = Teaching(Service(ModelRoom(folder), Registry()), every=0.01)
    told = [message for message in all_of(teaching.run(begin(folder), "me")) if message["kind"] == "snapshot"]
    last = told[-1]
    assert (last["phase"], last["end"], last["step"], last["steps"], last["seed"]) == ("over", "done", 4, 4, 3)
    figures = last["figures"]
    assert figures["loss"]["data"][0]["x"] == [1, 2, 3, 4]
    assert figures["loss"]["data"][1]["x"] == [0, 2, 4], "measured before the first step, and every second one"
    before, now = figures["by_loops"]["data"]
    assert before["x"] == now["x"] == [1, 2, 3, 4]
    assert before["y"] != now["y"]
    assert len(figures["curves"]["data"]) == 4, "of all words and of the last, before and now"
    assert "step 4" in last["summaries"]["loss"]
    run = next(iter(teaching.runs))
    assert figures["loss"]["data"][0]["y"] == [loss for _, loss, _ in run.steps], "all that is shown is the loop's own"
    assert before["y"] == list(run.measured[0][2])

    answer = TestClient(Starlette(routes=teaching.routes())).get(f"/loopviz-share/teach/{last['run']}/adapter")
    assert answer.status_code == 404, "nothing is kept yet"
    kept = all_of(teaching.run({"lang": "en", "ticket": "t2", "n": 2, "keep": last["run"]}, "me"))
    assert next(message["phase"] for message in kept) == "keeping"
    found = kept[-1]["kept"]
    assert (kept[-1]["phase"], kept[-1]["end"], kept[-1]["ticket"]) == ("over", "done", "t2")
    assert "--adapter my-loop" in found["command"]
    state, problems = link_word.decode(found["link"], default_model="another")
    assert problems == []
    assert (state.values["model"], state.prompt) == (folder, "Once upon")
    assert state.beside == str(run.prepared.folder / "my-loop")
    assert load_checkpoint(state.beside).model.config.loop_count == found["loops"], "Compare can open it as it is"
    answer = TestClient(Starlette(routes=teaching.routes())).get(f"/loopviz-share/teach/{last['run']}/adapter")
    assert len(answer.content) == found["bytes"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        names = set(archive.namelist())
        archive.extractall(run.prepared.folder / "unpacked")
    assert {"adapter_config.json", "adapter_model.safetensors", "loop_adapter.json", "README.md", "run/train.csv"} <= {
        name.removeprefix("my-loop/") for name in names
    }
    opened = load_checkpoint(folder, adapter=run.prepared.folder / "unpacked" / "my-loop")
    assert opened.model.config.loop_count == found["loops"]
    card = (run.prepared.folder / "unpacked" / "my-loop" / "README.md").read_text("utf-8")
    assert last["command"] in card
    assert str(run.prepared.folder) not in card

    files = run.prepared.folder
    teaching.forget("me")
    assert not files.exists()
    assert json.loads(teaching.look(json.dumps({"run": last["run"], "lang": "en"}))) == {"kind": "gone"}


def test_a_teaching_rests_without_a_place_goes_on_and_is_kept_when_it_was_stopped(
    teaching: Teaching, folder: str
) -> None:
    heard, thread = in_background(teaching, begin(folder, values={**VALUES, "steps": 100_000, "every": 10_000}))
    soon(lambda: len(teaching.runs) and next(iter(teaching.runs)).steps)
    (run,) = teaching.runs
    assert teaching.jobs.places.taken() == 1
    assert json.loads(teaching.pause(json.dumps({"run": run.id, "on": True}))) == {"kind": "ok"}
    soon(lambda: run.phase == "paused" and not teaching.jobs.places.taken())  # while it rests another may have it
    done = len(run.steps)
    time.sleep(0.2)
    assert len(run.steps) == done
    soon(lambda: heard[-1]["phase"] == "paused")
    teaching.pause(json.dumps({"run": run.id, "on": False}))
    soon(lambda: len(run.steps) > done)
    assert teaching.jobs.places.taken() == 1

    teaching.pause(json.dumps({"run": run.id, "on": True}))
    soon(lambda: run.phase == "paused")
    teaching.stop(json.dumps({"ticket": "t1"}))  # also while it rests
    thread.join(60)
    assert (heard[-1]["phase"], heard[-1]["end"]) == ("over", "stopped")
    soon(lambda: not teaching.jobs.places.taken())
    kept = all_of(teaching.run({"lang": "zh", "ticket": "t2", "n": 2, "keep": run.id}, "me"))[-1]
    assert kept["kept"]["said"].startswith("在留出文本上")


def test_who_leaves_ends_what_is_taught_and_keeping_ends_it_too(teaching: Teaching, folder: str) -> None:
    endless = begin(folder, values={**VALUES, "steps": 100_000, "every": 10_000})
    _, thread = in_background(teaching, endless)
    soon(lambda: len(teaching.runs) and next(iter(teaching.runs)).steps)
    (run,) = teaching.runs
    assert all_of(teaching.run({"lang": "en", "ticket": "t9", "n": 9, "keep": run.id}, "a stranger"))[-1]["bad"]
    kept = all_of(teaching.run({"lang": "en", "ticket": "t2", "n": 2, "keep": run.id}, "me"))[-1]
    assert (kept["end"], kept["phase"]) == ("stopped", "over")
    assert kept["kept"]
    thread.join(60)

    _, other = in_background(teaching, {**endless, "n": 3, "ticket": "t3"}, "you")
    soon(lambda: len(teaching.runs) == 2 and [*teaching.runs][-1].steps)
    run = [*teaching.runs][-1]
    teaching.forget("you")
    other.join(60)
    soon(run.finished.is_set)
    assert not run.prepared.folder.exists()
    soon(lambda: not teaching.jobs.places.taken())


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"text": "short"}, "text", ("at least 40 are needed", "至少需要 40 个")),
        ({"text": "no", "values": {**VALUES, "kind": "instructions"}}, "text", ("line 1: not JSON", "不是 JSON")),
        ({"values": {**VALUES, "rank": 0}}, "rank", ("from 1 to 256", "1 到 256")),
        ({"values": {**VALUES, "last": 70}}, "last", ("from 1 to 2", "1 到 2")),
        ({"prompt": " "}, "prompt", ("empty", "为空")),
        ({"values": {**VALUES, "template": "alpaca"}}, "template", ("plain text has none", "纯文本没有模板")),
    ],
)
def test_what_is_refused_is_told_beside_its_field(
    teaching: Teaching, folder: str, lang: str, change: dict[str, Any], field: str, says: tuple[str, str]
) -> None:
    last = all_of(teaching.run(begin(folder, lang=lang, **change), "me"))[-1]
    assert (last["kind"], last["over"], last["field"]) == ("status", True, field)
    assert says[list(LANGUAGES).index(lang)] in last["text"]
    assert not len(teaching.runs)


def test_prompts_and_responses_are_taught_in_the_template_that_was_chosen(
    teaching: Teaching, folder: str, engine: LocalEngine
) -> None:
    rows = "\n".join(json.dumps({"instruction": "go", "input": "left", "output": f"{n} steps"}) for n in range(4))
    values = {**VALUES, "kind": "instructions", "template": "alpaca", "window": 400, "steps": 1, "every": 1}
    last = all_of(teaching.run(begin(folder, text=rows, values=values), "me"))[-1]
    assert (last["end"], last["step"]) == ("done", 1)
    assert "--template alpaca" in last["command"]
    (run,) = teaching.runs
    asked = decode(engine.tokenizer, run.prepared.task.train[0][0])
    assert "### Instruction:\ngo\n\n### Input:\nleft\n\n### Response:" in asked
    assert data(teaching.room)["prompt_templates"] == ["own", *TEMPLATES]


def test_only_a_server_of_ones_own_teaches(folder: str) -> None:
    teaching = Teaching(Service(ModelRoom(folder, profile=PUBLIC), Registry()))
    last = all_of(teaching.run(begin(folder), "me"))[-1]
    assert last["bad"]
    assert text("en", "teach.elsewhere") in last["text"]
    assert not data(teaching.room)["teaches"]
    short = ModelRoom(folder, profile=dataclasses.replace(LOCAL, text_characters=9))
    assert all_of(Teaching(Service(short, Registry())).run(begin(folder), "me"))[-1]["field"] == "text"


def test_a_model_says_what_of_the_form_it_decides(teaching: Teaching, folder: str) -> None:
    question = json.dumps({"model": folder, "lang": "en", "look": False})
    soon(lambda: json.loads(teaching.model(question))["state"] == "ready")
    answer = json.loads(teaching.model(question))
    assert answer["layers"] == 3
    assert 0 <= answer["usual"]["first"] <= answer["usual"]["last"] < 3
    assert answer["usual"]["window"] == 64


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_training_that_runs_away_is_told_in_the_page_s_words(
    teaching: Teaching, folder: str, lang: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was told in English on the Chinese page, by names that the form does not have."""
    from loopviz.train.teach_session import TeachSession
    from loopviz.train.trainer import TrainingError

    def away(self: TeachSession, stop: object) -> Iterator[object]:
        raise TrainingError("step 1: loss=nan; lower optimizer.lr")
        yield

    monkeypatch.setattr(TeachSession, "going", away)
    said = all_of(teaching.run({**begin(folder), "lang": lang}, "me"))[-1]
    assert said["end"] == "error"
    assert said["reason"] == text(lang, "teach.diverged", step=1, lr=float(VALUES["lr"]))


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> weakref.WeakSet[Any]:
    """Every copy of a model that is taught, as long as somebody holds it."""
    from loopviz.train import teach_door

    found: weakref.WeakSet[Any] = weakref.WeakSet()

    def load(*args: Any, **how: Any) -> Any:
        loaded = load_checkpoint(*args, **how)
        found.add(loaded.model)
        return loaded

    monkeypatch.setattr(teach_door, "load_checkpoint", load)
    return found


def test_nobody_holds_a_model_between_the_end_of_a_training_and_its_being_kept(
    teaching: Teaching, folder: str, copies: weakref.WeakSet[Any]
) -> None:
    """Every open page held one, which no budget counted, so that another's training was refused for memory."""
    heard, thread = in_background(teaching, begin(folder, values={**VALUES, "steps": 100_000, "every": 10_000}))
    soon(lambda: len(teaching.runs) and next(iter(teaching.runs)).steps)
    (run,) = teaching.runs
    assert len(copies) == 1
    teaching.stop(json.dumps({"ticket": "t1"}))
    thread.join(60)
    assert heard[-1]["end"] == "stopped"
    assert not copies
    done = run.nbytes
    run.finished.clear()
    assert run.nbytes == done + 16 * run.trained, "what is trained counts while it is"
    run.finished.set()
    before = run.snapshot()
    kept = all_of(teaching.run({"lang": "en", "ticket": "t2", "n": 2, "keep": run.id}, "me"))[-1]
    assert kept["kept"], kept
    assert not copies
    assert {name: kept[name] for name in ("step", "tokens", "seconds", "trained")} == {
        name: before[name] for name in ("step", "tokens", "seconds", "trained")
    }
    again = all_of(teaching.run({"lang": "en", "ticket": "t3", "n": 3, "keep": run.id}, "me"))[-1]
    assert (again["kept"], again["reason"]) == (kept["kept"], ""), "once is enough"


def test_what_memory_does_not_hold_just_now_can_be_kept_later(
    teaching: Teaching, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from loopviz.train import teach_door

    all_of(teaching.run(begin(folder), "me"))
    (run,) = teaching.runs
    free = teach_door.available_memory
    monkeypatch.setattr(teach_door, "available_memory", lambda: 0)
    refused = all_of(teaching.run({"lang": "zh", "ticket": "t2", "n": 2, "keep": run.id}, "me"))[-1]
    assert (refused["kept"], refused["phase"]) == (None, "over")
    assert "再保留" in refused["reason"]
    monkeypatch.setattr(teach_door, "available_memory", free)
    kept = all_of(teaching.run({"lang": "en", "ticket": "t3", "n": 3, "keep": run.id}, "me"))[-1]
    assert (bool(kept["kept"]), kept["reason"]) == (True, "")


def test_keep_before_the_first_step_is_refused_and_the_training_goes_on(
    teaching: Teaching, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended the training, and then said that there was nothing to keep."""
    from loopviz.train.teach_door import Prepared

    let, begun = threading.Event(), Prepared.begin

    def later(prepared: Prepared) -> Any:
        assert let.wait(60)
        return begun(prepared)

    monkeypatch.setattr(Prepared, "begin", later)
    heard, thread = in_background(teaching, begin(folder))
    soon(lambda: len(teaching.runs))
    (run,) = teaching.runs
    (last,) = all_of(teaching.run({"lang": "en", "ticket": "t2", "n": 2, "keep": run.id}, "me"))
    assert (last["over"], last["bad"], last["ticket"]) == (True, True, "t2")
    assert text("en", "teach.nothing") in last["text"]
    let.set()
    thread.join(60)
    assert (heard[-1]["end"], heard[-1]["step"], heard[-1]["ticket"]) == ("done", 4, "t1")


def test_a_training_that_ended_before_its_first_step_says_that_there_is_nothing_to_keep(
    teaching: Teaching, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from loopviz.app.teach.run import TeachRun

    monkeypatch.setattr(TeachRun, "_teach", lambda run: "stopped")
    last = all_of(teaching.run(begin(folder), "me"))[-1]
    assert (last["end"], last["step"]) == ("stopped", 0)
    (refused,) = all_of(teaching.run({"lang": "zh", "ticket": "t2", "n": 2, "keep": last["run"]}, "me"))
    assert text("zh", "teach.end.unlearned", steps=4) in refused["text"]


def test_keeping_waits_for_no_model_of_the_server_s(teaching: Teaching, folder: str) -> None:
    """Its base is read for it alone; one that the server had let go of meanwhile was loaded for nothing."""
    all_of(teaching.run(begin(folder), "me"))
    (run,) = teaching.runs
    teaching.room._held.clear()
    kept = all_of(teaching.run({"lang": "en", "ticket": "t2", "n": 2, "keep": run.id}, "me"))
    assert kept[-1]["kept"]
    assert kept[0]["kind"] == "snapshot", "nothing was said of a model that is loaded"
    assert not teaching.room.held()


def test_what_cannot_be_written_is_said_and_is_not_offered_to_be_kept(
    teaching: Teaching, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from loopviz.outputs import OutputError
    from loopviz.train.teach_session import TeachSession

    def full(session: TeachSession) -> None:
        raise OutputError("checkpoint.pt: cannot be written (No space left on device)")

    monkeypatch.setattr(TeachSession, "save", full)
    last = all_of(teaching.run(begin(folder), "me"))[-1]
    assert last["end"] == "error"
    assert "No space left" in last["reason"]
    (refused,) = all_of(teaching.run({"lang": "en", "ticket": "t2", "n": 2, "keep": last["run"]}, "me"))
    assert refused["text"] == last["reason"], "in the same words, once"


def test_a_training_holds_nothing_of_the_server_s_own_model(folder: str) -> None:
    """What is taught is a copy: the server may let go of its own meanwhile, and has the memory then."""
    engines: weakref.WeakSet[Any] = weakref.WeakSet()

    def load(name: str, progress: Any, local: bool) -> LocalEngine:
        loaded = load_checkpoint(folder)
        engines.add(loaded.model)
        return LocalEngine(folder, loaded.model, loaded.tokenizer, "made here")

    teaching = Teaching(Service(ModelRoom(folder, load=load), Registry()), every=0.01)
    heard, thread = in_background(teaching, begin(folder, values={**VALUES, "steps": 100_000, "every": 10_000}))
    soon(lambda: len(teaching.runs) and next(iter(teaching.runs)).steps)
    assert len(engines) == 1
    teaching.room._held.clear()
    gc.collect()
    assert not engines
    teaching.stop(json.dumps({"ticket": "t1"}))
    thread.join(60)
    assert heard[-1]["end"] == "stopped"
