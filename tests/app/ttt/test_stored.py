"""TTT runs that the server keeps: saved, opened as they were looked at, deleted; and what is told of those of the other kind."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.testclient import TestClient

from loopviz.app import contract
from loopviz.app.contract import STORE, TICKET_HEADER
from loopviz.app.explore.files import Sharing
from loopviz.app.explore.run import Registry
from loopviz.app.explore.service import Service
from loopviz.app.profile import LOCAL, Profile
from loopviz.app.sessions.models import ModelRoom
from loopviz.app.sessions.ttt_models import ttt_room
from loopviz.app.texts import LANGUAGES, text
from loopviz.app.ttt.service import TTT
from loopviz.panels.ttt import TTT_PANELS, TTTFocus
from tests.app.explore.test_files import kept
from tests.app.page_double import unwire
from tests.app.ttt.test_service import made
from tests.engine import tiny_ttt
from tests.trace.synthetic import random_trace

PLACE = {"layer": 1, "head": 2, "token": 3}


class Server:
    """Explore and TTT of one server, which keeps runs in a folder."""

    def __init__(self, folder: Path | None, profile: Profile = LOCAL, **limits: Any) -> None:
        asked = replace(profile, store="" if folder is None else str(folder), **limits)
        service = Service(ModelRoom("none", profile=asked), Registry())
        self.ttt = TTT(service, ttt_room(service.room, lambda *_: tiny_ttt.engine()), every=0, rest=0)
        self.registry = Registry()
        self.sharing = Sharing(self.registry, service.room, service.files)
        routes = [*self.sharing.routes(), *self.ttt.files.routes()]
        self.client = TestClient(Starlette(routes=routes), raise_server_exceptions=False)

    def visit(self, session: str = "me") -> dict[str, Any]:
        (told,) = self.ttt.run({"visit": True, "lang": "en"}, session)
        contract.check(unwire(told), contract.MESSAGES["ttt"], "ttt")
        return unwire(told)

    def post(self, what: str, session: str = "me", lang: str = "en", **asked: Any) -> Response:
        headers = {TICKET_HEADER: self.visit(session)["ticket"]}
        return self.client.post(f"/{STORE}/{what}", json=asked, params={"lang": lang}, headers=headers)

    def done(self, what: str, session: str = "me", **asked: Any) -> dict[str, Any]:
        answer = self.post(what, session, **asked)
        assert answer.status_code == 200, answer.text
        kind = contract.STORE_CALLS[what][1]
        assert kind is not None
        contract.check(answer.json(), (kind,), what)
        return answer.json()

    def saved(self, **more: Any) -> dict[str, Any]:
        return self.done("ttt/save", run=made(self.ttt).last["run"], view=json.dumps(PLACE), **more)


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path)


def test_a_link_shows_the_run_as_it_was_looked_at_and_runs_nothing(server: Server, tmp_path: Path) -> None:
    saved = server.saved()
    (run,) = server.ttt.runs
    after = Server(tmp_path)  # the server was started again
    after.ttt.room.get = lambda *_: pytest.fail("a model was loaded")  # type: ignore[method-assign]
    told = after.done("ttt/open", "another", id=saved["id"])
    (opened,) = after.ttt.runs
    assert (opened.trace, opened.session, opened.opened) == (run.trace, "another", True)
    assert opened.id == told["snapshot"]["run"]
    assert (told["place"], told["until"], told["mine"]) == (PLACE, saved["until"], False)
    assert told["title"] == run.trace.meta["prompt"]
    shown = TTT_PANELS["held"].data(run.trace, TTTFocus(1, 2, 3))
    assert told["snapshot"]["figures"]["held"] == json.loads(json.dumps(shown))
    in_chinese = after.post("ttt/open", lang="zh", id=saved["id"]).json()["snapshot"]["summaries"]
    assert in_chinese["held"] == TTT_PANELS["held"].summary(run.trace, TTTFocus(1, 2, 3, "zh"))


@pytest.mark.parametrize("view", ["", "{", '{"layer": "x", "head": -3}', '{"layer": 99, "token": 9999}', "[" * 3_000])
def test_a_place_that_is_none_is_the_first_or_the_nearest(server: Server, view: str) -> None:
    saved = server.done("ttt/save", run=made(server.ttt).last["run"], view=view)
    assert server.done("ttt/open", id=saved["id"])["snapshot"]["figures"].keys() == TTT_PANELS.keys()


def test_the_recorded_run_is_kept_too(server: Server) -> None:
    saved = server.done("ttt/save", run=contract.RECORDED, view="")
    assert server.done("ttt/open", id=saved["id"])["snapshot"]["model"] == "stories-ttt"


def test_its_owner_deletes_it_by_the_address_of_all_pages(server: Server) -> None:
    saved = server.saved()
    assert server.saved(secret=saved["secret"])["secret"] == saved["secret"]
    assert server.done("ttt/open", id=saved["id"], secret=saved["secret"])["mine"]
    assert server.post("delete", id=saved["id"], secret="x" * 32).status_code == 403
    server.done("delete", id=saved["id"], secret=saved["secret"])
    for lang in LANGUAGES:
        gone = server.post("ttt/open", lang=lang, id=saved["id"])
        assert (gone.status_code, gone.text) == (410, text(lang, "stored.deleted"))


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_run_of_the_other_kind_is_told_where_it_belongs_and_lists_say_which_is_which(
    server: Server, lang: str
) -> None:
    learned, trace = server.saved(), random_trace(3, 4)
    looped = server.done("save", run=kept(server.registry, trace).id, view="")
    for what, saved, key, model in (("open", learned, "ttt", "tiny-ttt"), ("ttt/open", looped, "loops", None)):
        answer = server.post(what, lang=lang, id=saved["id"])
        said = text(lang, f"share.open.{key}", model=model or trace.meta["model"])
        assert (answer.status_code, answer.text) == (422, said)
    for saved in (learned, looped):
        server.sharing.stored.store.feature(saved["id"])
    runs = server.client.get(f"/{STORE}/gallery").json()["runs"]
    assert {run["id"]: run["of_ttt"] for run in runs} == {learned["id"]: True, looped["id"]: False}


def test_what_is_no_run_or_not_ended_or_a_stranger_s_is_not_saved(server: Server) -> None:
    assert server.post("ttt/save", run="nobody's", view="").status_code == 404
    assert server.post("ttt/save").status_code == 404
    stream = server.ttt.run(
        {"lang": "en", "ticket": "t" * 16, "n": 1, "model": "", "prompt": "Once", "max_new_tokens": 50}, "me"
    )
    next(message for message in stream if unwire(message)["kind"] == "snapshot")
    (run,) = server.ttt.runs
    assert server.post("ttt/save", lang="zh", run=run.id, view="").text == text("zh", "share.running")
    stream.close()  # type: ignore[attr-defined]
    for what in ("ttt/save", "ttt/open"):
        answer = server.client.post(f"/{STORE}/{what}", json={"run": run.id, "id": "x"}, headers={TICKET_HEADER: "a.b"})
        assert answer.status_code == 403
    assert server.sharing.stored.store.held() == (0, 0)


def test_both_pages_have_one_store_and_say_how_long_it_keeps(server: Server) -> None:
    assert server.visit()["keeps"] == server.sharing.visit("me")["keeps"] == LOCAL.store_days
    server.saved()
    assert server.sharing.stored.store.held()[0] == 1
    nothing = Server(None)
    assert nothing.visit()["keeps"] == 0
    assert nothing.post("ttt/open", id="x" * 22).status_code == 404
