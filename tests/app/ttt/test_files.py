"""Runs of the TTT page as files: saved, opened, refused; and the recorded run, which is the bundled model's own."""

from __future__ import annotations

import json
import threading
from typing import Any

import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from loopviz.app import contract
from loopviz.app.contract import FILES, TICKET_HEADER
from loopviz.app.explore.files import Sharing
from loopviz.app.explore.run import Registry
from loopviz.app.sessions.models import ModelRoom
from loopviz.app.texts import LANGUAGES, text
from loopviz.app.ttt import opened
from loopviz.app.ttt.service import TTT
from loopviz.engine.engine import TTTRequest
from loopviz.engine.provenance import weights_digest
from loopviz.engine.ttt_local import load_ttt
from loopviz.panels.ttt import TTT_PANELS, TTTFocus
from loopviz.trace import Trace
from loopviz.trace.file import dumps, loads
from loopviz.trace.schema import SCHEMA_VERSION
from tests.app.page_double import unwire
from tests.app.ttt.test_service import ask, asked, made, served
from tests.engine.test_ttt_stream import made as ttt_run
from tests.engine.test_ttt_stream import numbers
from tests.trace.synthetic import random_trace


def client(ttt: TTT) -> TestClient:
    return TestClient(Starlette(routes=ttt.files.routes()), raise_server_exceptions=False)


def ticket(ttt: TTT, session: str = "me") -> str:
    (told,) = ttt.run({"visit": True, "lang": "en"}, session)
    message = unwire(told)
    contract.check(message, contract.MESSAGES["ttt"], "ttt")
    assert message["largest"] == ttt.room.profile.trace_bytes
    return message["ticket"]


def post(ttt: TTT, data: bytes, lang: str = "en", shown: str | None = None) -> Any:
    headers = {TICKET_HEADER: ticket(ttt) if shown is None else shown}
    return client(ttt).post(f"/{FILES}/ttt/open", content=data, params={"lang": lang}, headers=headers)


def test_a_saved_run_opens_with_all_pictures_and_asks_nothing_of_a_model() -> None:
    ttt = served()
    made(ttt)
    (run,) = ttt.runs
    saved = client(ttt).get(f"/{FILES}/ttt/{run.id}/trace")
    assert saved.headers["content-disposition"].endswith('.loopviz"')
    assert loads(saved.content) == run.trace
    other = served(load=lambda *_: pytest.fail("a model was loaded"))
    told = post(other, saved.content, "zh").json()
    contract.check(told, contract.MESSAGES["ttt"], "ttt")
    wanted = {name: panel.data(run.trace, TTTFocus(lang="zh")) for name, panel in TTT_PANELS.items()}
    assert told["figures"] == json.loads(json.dumps(wanted))
    assert (told["end"], len(told["words"])) == ("length", len(run.trace))
    seen = ask(other, "look", run=told["run"], layer=1, head=2, token=3, lang="en")
    assert seen["figures"]["drift"] == json.loads(json.dumps(TTT_PANELS["drift"].data(run.trace, TTTFocus(1, 2, 3))))
    assert client(other).get(f"/{FILES}/ttt/{told['run']}/trace").content == saved.content
    again = post(other, saved.content).json()
    assert [one.id for one in other.runs] == [again["run"]], "one file a visitor"
    other.forget("me")
    assert client(other).get(f"/{FILES}/ttt/{again['run']}/trace", params={"lang": "zh"}).text == text(
        "zh", "share.gone"
    )


@pytest.mark.parametrize("lang", LANGUAGES)
def test_what_needs_the_model_says_where_it_is_not_and_works_where_it_is(lang: str) -> None:
    engine = load_ttt("stories-ttt", lambda *_: None, False)
    handle = engine.start(TTTRequest("Once upon a time there was a dog", {"max_new_tokens": 24}))
    data = dumps(Trace(handle.meta, handle.frames))
    ttt = served(engine)
    told = post(ttt, data).json()
    where = {"run": told["run"], "layer": 0, "head": None, "token": 3, "lang": lang}
    forgets = {"run": told["run"], "token": 3, "lang": lang}
    told_no = {"en": "is not loaded here", "zh": "没有在此载入"}[lang]
    for name, question in (("attention", where), ("rules", where), ("forgetting", forgets)):
        answer = ask(ttt, name, **question)
        assert answer["kind"] == "no"
        assert told_no in answer["text"]
    ttt.room.get("stories-ttt")
    for name, question in (("attention", where), ("rules", where), ("forgetting", forgets)):
        assert ask(ttt, name, **question)["kind"] == name


def test_another_model_of_the_same_name_is_not_asked() -> None:
    trace = ttt_run()
    trace.meta["model"] = "stories-ttt"
    ttt = served()  # the tiny model that made it, under that name
    ttt.room.get("stories-ttt")
    own = post(ttt, dumps(trace)).json()["run"]
    assert ask(ttt, "forgetting", run=own, token=3, lang="en")["kind"] == "forgetting"
    for frame in trace.frames:
        frame["next_logprob"] = (frame["next_logprob"] or 0) - 0.5
    other = post(ttt, dumps(trace)).json()["run"]
    assert "is not the one that made this run" in ask(ttt, "forgetting", run=other, token=3, lang="en")["text"]
    trace.meta["shape"]["vocab"] += 1
    other = post(ttt, dumps(trace)).json()["run"]
    assert "不是生成这次运行的那个" in ask(ttt, "forgetting", run=other, token=3, lang="zh")["text"]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_file_of_the_other_kind_is_told_where_it_belongs(lang: str) -> None:
    ttt, trace = served(), random_trace(0, 3)
    answer = post(ttt, dumps(trace), lang)
    assert (answer.status_code, answer.text) == (422, text(lang, "share.open.loops", model=trace.meta["model"]))
    shared = Sharing(Registry(), ModelRoom("none"))
    page = TestClient(Starlette(routes=shared.routes()), raise_server_exceptions=False)
    headers = {TICKET_HEADER: shared.visit("me")["ticket"]}
    answer = page.post(f"/{FILES}/open", content=dumps(ttt_run()), params={"lang": lang}, headers=headers)
    assert (answer.status_code, answer.text) == (422, text(lang, "share.open.ttt", model="tiny-ttt"))


def test_a_file_that_is_read_late_stops_no_run_that_was_begun_meanwhile() -> None:
    """The run ended, and the page did not show the file either: both were lost."""
    ttt = served()
    made(ttt)
    (run,) = ttt.runs
    data = dumps(run.trace)
    stream = ttt.run(asked(max_new_tokens=20, ticket="mine"), "me")
    next(stream)
    assert post(ttt, data).status_code == 200
    *_, last = stream
    told = unwire(last)
    assert told["end"] == "length"
    assert len(ttt.runs.opened()) == 1
    assert post(ttt, data).status_code == 200
    assert len(ttt.runs.opened()) == 1, "in place of the file before"


def test_a_run_too_long_to_be_read_again_is_told_so() -> None:
    from loopviz.checks import FieldError

    engine = served().room.get("stories-ttt")
    trace = Trace({"version": SCHEMA_VERSION, "ttt": {"inner_lr_scale": 1.0}})
    trace.frames = [{"token_id": 1, "next_id": 1}] * 4097  # type: ignore[list-item]
    with pytest.raises(FieldError, match="the run has 4,097 tokens, and at most 4,096 are read again"):
        engine.read_under(trace, [], threading.Event())  # type: ignore[attr-defined]


def test_what_is_no_run_or_comes_from_a_stranger_is_refused_and_nothing_is_kept() -> None:
    ttt, data = served(), dumps(ttt_run())
    assert post(ttt, b"hello").text == text("en", "share.open.foreign", reason="not a trace file (not a zip)")
    assert post(ttt, data[:-9]).status_code == 422
    assert post(ttt, dumps(Trace(ttt_run().meta))).text == text("en", "share.open.empty")
    assert post(ttt, data, shown="bWU=.00").status_code == 403
    assert not list(ttt.runs)


# --- the recorded run -------------------------------------------------------------------------------------------------


def test_the_recorded_run_is_the_bundled_model_s() -> None:
    """When it is not any more: python scripts/record_ttt_run.py."""
    trace, engine = opened.stored(), load_ttt("stories-ttt", lambda *_: None, False)
    assert trace is not None
    assert trace.meta["provenance"]["weights"] == weights_digest(engine.model)
    assert engine.made(trace, threading.Event())
    asked = {"max_new_tokens": trace.meta["settings"]["max_new_tokens"]}
    handle = engine.start(TTTRequest(trace.meta["prompt"], asked))
    again = Trace(handle.meta, handle.frames)
    assert again.text == trace.text
    assert again.meta["ttt"] == trace.meta["ttt"]
    for name in ("loss_before", "loss_after", "loss_start", "drift", "lr"):
        np.testing.assert_allclose(numbers(again, name), numbers(trace, name), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_recorded_run_is_everybody_s_and_nobody_moves_another_s_view(lang: str) -> None:
    ttt = served(load=lambda *_: pytest.fail("a model was loaded"))
    trace = opened.stored()
    assert trace is not None
    ask(ttt, "look", run=contract.RECORDED, layer=1, head=2, token=5, lang="en")
    told = ask(ttt, "look", run=contract.RECORDED, layer=0, head=None, token=None, lang=lang)
    assert told["figures"]["drift"] == json.loads(json.dumps(TTT_PANELS["drift"].data(trace, TTTFocus(lang=lang))))
    assert told["run"] == told["ticket"] == contract.RECORDED
    assert not list(ttt.runs)
    assert loads(client(ttt).get(f"/{FILES}/ttt/{contract.RECORDED}/trace").content) == trace
    assert ask(ttt, "steer", run=contract.RECORDED, forget=True, scale=1.0, lang=lang)["text"] == text(
        lang, "ttt.ended"
    )


def test_a_question_about_the_recorded_run_is_its_visitor_s_and_leaves_the_one_before_and_no_other_s() -> None:
    """Every question had a run of its own: one visitor could have the same text read many times over at once."""
    ttt, reading, left = served(), threading.Event(), []

    class Slow:
        name = "stories-ttt"

        def made(self, trace: Trace, stop: threading.Event) -> bool:
            return True

        def read_under(self, trace: Trace, changes: Any, stop: threading.Event) -> list[float]:
            reading.set()
            left.append(stop.wait(30))
            return [0.0] * len(trace)

    slow = Slow()
    ttt.room.ready = lambda *_: slow  # type: ignore[assignment, method-assign, return-value]

    def begun(visitor: str) -> threading.Thread:
        reading.clear()
        question = {"run": contract.RECORDED, "token": 3, "lang": "en", "visitor": visitor}
        thread = threading.Thread(target=ttt.forgetting, args=(json.dumps(question),))
        thread.start()
        assert reading.wait(30)
        return thread

    mine, other = ticket(ttt), ticket(ttt, "another")
    first, theirs = begun(mine), begun(other)
    second = begun(mine)
    first.join(30)
    assert (first.is_alive(), theirs.is_alive(), second.is_alive()) == (False, True, True)
    ttt.forget("me")
    second.join(30)
    assert (theirs.is_alive(), second.is_alive()) == (True, False)
    ttt.forget("another")
    theirs.join(30)
    assert left == [True, True, True]
    assert ttt.files.session("bWU=.00") == ttt.files.session("") == ""
