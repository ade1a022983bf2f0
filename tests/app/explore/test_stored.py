"""Stored runs over HTTP: saved, opened, deleted, listed; what strangers and full stores are told, and what stays out of the log."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.testclient import TestClient

from loopviz.app import contract
from loopviz.app.explore.files import TICKET, Sharing
from loopviz.app.explore.run import Registry
from loopviz.app.explore.stored import PREFIX, StoredRuns
from loopviz.app.profile import LOCAL, PUBLIC, Profile
from loopviz.app.sessions.models import ModelRoom
from loopviz.app.texts import LANGUAGES, text
from loopviz.store.refusals import SAID
from loopviz.trace import Trace
from tests.app.explore.test_files import kept, view
from tests.trace.synthetic import random_trace

# Those of TTT and Learn are their own (tests/app/ttt/test_stored.py, tests/app/learn/test_handed_in.py).
CALLS = {name: kinds for name, kinds in contract.STORE_CALLS.items() if not name.startswith(("learn/", "ttt/"))}


class Server:
    """A server that keeps runs in a folder."""

    def __init__(self, folder: Path | None, profile: Profile = LOCAL, **limits: Any) -> None:
        self.registry = Registry()
        asked = replace(profile, store="" if folder is None else str(folder), **limits)
        self.sharing = Sharing(self.registry, ModelRoom("none", profile=asked))
        self.client = TestClient(Starlette(routes=self.sharing.routes()), raise_server_exceptions=False)

    @property
    def stored(self) -> StoredRuns:
        return self.sharing.stored

    def post(self, what: str, session: str = "me", lang: str = "en", **asked: Any) -> Response:
        headers = {TICKET: self.sharing.visit(session)["ticket"]}
        return self.client.post(f"/{PREFIX}/{what}", json=asked, params={"lang": lang}, headers=headers)

    def done(self, what: str, session: str = "me", **asked: Any) -> dict[str, Any]:
        """What is answered to what is granted; of the shape that the contract states."""
        answer = self.post(what, session, **asked)
        assert answer.status_code == 200, answer.text
        kind = contract.STORE_CALLS[what][1]
        assert kind is not None
        contract.check(answer.json(), (kind,), what)
        return answer.json()


@pytest.fixture(scope="module")
def trace() -> Trace:
    return random_trace(21, 5)


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path)


def save(server: Server, trace: Trace, **more: Any) -> dict[str, Any]:
    return server.done("save", run=kept(server.registry, trace).id, view=view(token=3), **more)


def test_a_link_shows_the_run_as_it_was_saved_and_runs_nothing(server: Server, trace: Trace, tmp_path: Path) -> None:
    saved = save(server, trace)
    after = Server(tmp_path)  # the server was started again
    shown = after.done("open", "another", id=saved["id"])
    run = after.registry.get(shown["snapshot"]["run"])
    assert run is not None
    assert (run.trace, run.session, run.opened, run.finished.is_set()) == (trace, "another", True, True)
    assert shown["snapshot"]["focus"]["token"] == shown["focus"]["token"] == 3
    assert shown["snapshot"]["figures"].keys() == {"convergence", "kv_occupancy"}
    assert shown["until"] == saved["until"]


def test_its_owner_is_told_that_it_is_theirs_and_nobody_else_is(server: Server, trace: Trace) -> None:
    saved = save(server, trace)
    assert server.done("open", "another", id=saved["id"], secret=saved["secret"])["mine"]
    for secret in ("x" * 32, "", saved["secret"][:-1]):
        assert not server.done("open", "another", id=saved["id"], secret=secret)["mine"]
    assert not server.done("open", "another", id=saved["id"])["mine"]


@pytest.mark.parametrize("secret", ["x", "", "\u202e" * 32, "a b" * 11])
def test_a_secret_of_another_form_is_replaced_by_one_that_can_delete(server: Server, trace: Trace, secret: str) -> None:
    saved = save(server, trace, secret=secret)
    assert saved["secret"] != secret
    assert server.done("delete", id=saved["id"], secret=saved["secret"]) == {"kind": "ok"}


def test_its_owner_deletes_it_and_everybody_is_told(server: Server, trace: Trace) -> None:
    saved = save(server, trace)
    again = save(server, trace, secret=saved["secret"])
    assert again["secret"] == saved["secret"]
    assert server.post("delete", id=saved["id"], secret="x" * 32).status_code == 403
    assert server.post("delete", id=saved["id"]).status_code == 403
    server.done("delete", id=saved["id"], secret=saved["secret"])
    for lang in LANGUAGES:
        gone = server.post("open", lang=lang, id=saved["id"])
        assert (gone.status_code, gone.text) == (410, text(lang, "stored.deleted"))
    server.done("open", id=again["id"])


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("name", ["../../../etc/passwd", "x" * 22, "", None, 3, {"a": 1}, "\ud800" * 22])
def test_what_is_no_stored_run_is_told(server: Server, trace: Trace, name: Any, lang: str) -> None:
    save(server, trace)
    body = json.dumps({"id": name})
    headers = {TICKET: server.sharing.visit("me")["ticket"]}
    answer = server.client.post(f"/{PREFIX}/open", content=body, params={"lang": lang}, headers=headers)
    assert (answer.status_code, answer.text) == (404, text(lang, "stored.unknown"))


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b"\xff", b'{"id": NaN}', b"[" * 100_000])
def test_bodies_that_no_page_sends_end_as_words(server: Server, body: bytes) -> None:
    headers = {TICKET: server.sharing.visit("me")["ticket"]}
    for what, (kind, _) in CALLS.items():
        if kind is not None:
            assert server.client.post(f"/{PREFIX}/{what}", content=body, headers=headers).status_code in (200, 403, 404)
    assert server.stored.store.held() == (0, 0)


def test_a_stranger_without_a_ticket_may_do_nothing(server: Server, trace: Trace) -> None:
    run = kept(server.registry, trace).id
    for what, (kind, _) in CALLS.items():
        for ticket in ("", "a.b") if kind is not None else ():
            answer = server.client.post(f"/{PREFIX}/{what}", json={"run": run, "id": run}, headers={TICKET: ticket})
            assert answer.status_code == 403
    assert server.stored.store.held() == (0, 0)


def test_a_run_that_is_not_there_or_not_ended_is_not_saved(server: Server, trace: Trace) -> None:
    assert server.post("save", run="nobody's", view="").status_code == 404
    assert server.post("save").status_code == 404
    assert server.post("save", run=kept(server.registry, trace, finished=False).id).status_code == 409


def test_quotas_are_told_in_the_visitor_s_language_and_nothing_is_lost(tmp_path: Path, trace: Trace) -> None:
    server = Server(tmp_path, PUBLIC, store_visitor_runs=1)
    saved = save(server, trace)
    run = kept(server.registry, trace).id
    for lang in LANGUAGES:
        full = server.post("save", lang=lang, run=run, secret=saved["secret"])
        assert (full.status_code, full.text) == (507, text(lang, "stored.owner_runs", limit=1))
    assert server.registry.get(run) is not None
    server.done("open", id=saved["id"])


def test_every_refusal_of_the_store_has_words_and_a_status() -> None:
    from loopviz.app.sessions.store_desk import STATUS

    assert set(STATUS) == set(SAID)
    for lang in LANGUAGES:
        for fault in SAID:
            assert text(lang, f"stored.{fault}", size="1", limit="2", reason="3", minutes="4", dataset="a/b")


def test_where_no_folder_is_configured_nothing_is_kept_and_it_is_said(trace: Trace) -> None:
    server = Server(None, PUBLIC)
    assert server.sharing.visit("me")["keeps"] == 0
    assert server.post("save", run=kept(server.registry, trace).id).status_code == 404
    assert server.post("open", id="x" * 22).status_code == 404
    assert server.client.get(f"/{PREFIX}/gallery").json()["runs"] == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path, trace: Trace) -> None:
    (tmp_path / "file").write_text("no folder")
    server = Server(tmp_path / "file")
    answer = server.post("save", run=kept(server.registry, trace).id)
    assert answer.status_code == 503
    assert str(tmp_path) not in answer.text


def test_the_gallery_shows_what_the_host_chose(server: Server, trace: Trace, tmp_path: Path) -> None:
    assert server.client.get(f"/{PREFIX}/gallery").json() == {"name": "", "runs": [], "answers": []}
    saved = save(server, trace)
    save(server, trace)
    server.stored.store.feature(saved["id"])
    found = server.client.get(f"/{PREFIX}/gallery").json()
    contract.check(found, (contract.KeptList,), "gallery")
    assert [run["id"] for run in found["runs"]] == [saved["id"]]
    assert server.done("open", id=saved["id"])["until"] is None


def test_a_visit_alone_makes_no_folder(tmp_path: Path) -> None:
    server = Server(tmp_path / "store")
    assert server.client.get(f"/{PREFIX}/gallery").status_code == 200
    assert not (tmp_path / "store").exists()


def test_a_class_folder_is_read_by_its_teacher_alone(server: Server, trace: Trace) -> None:
    made = server.done("class/new", name="7b")
    mine = save(server, trace, folder=made["folder"], student="Ada")
    save(server, trace)
    pupil = server.done("class", "pupil", folder=made["folder"])
    assert pupil == {"name": "7b", "runs": [], "answers": []}
    (found,) = server.done("class", "teacher", folder=made["folder"], secret=made["secret"])["runs"]
    assert (found["id"], found["student"]) == (mine["id"], "Ada")
    assert server.post("class", folder=made["folder"], secret=mine["secret"]).status_code == 403
    assert server.post("class", folder="x" * 22).status_code == 404
    assert server.post("save", run=kept(server.registry, trace).id, folder="../x").status_code == 404


def test_on_a_public_server_only_the_host_makes_class_folders(tmp_path: Path) -> None:
    server = Server(tmp_path, PUBLIC)
    assert server.sharing.visit("me")["folders"] is False
    assert server.post("class/new", name="mine").status_code == 403
    assert server.stored.store.class_folders() == []


def test_no_prompt_no_name_and_no_secret_comes_into_the_log(
    server: Server, trace: Trace, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    saved = save(server, trace, student="Ada Lovelace")
    server.done("open", id=saved["id"])
    server.post("open", id="x" * 22)
    assert saved["secret"] not in caplog.text
    assert trace.meta["prompt"] not in caplog.text
    assert "Ada" not in caplog.text


def test_a_teacher_deletes_a_run_and_then_the_folder(server: Server, trace: Trace) -> None:
    made = server.done("class/new", name="7b")
    folder, teacher = {"folder": made["folder"]}, {"folder": made["folder"], "secret": made["secret"]}
    one, two = (save(server, trace, **folder)["id"] for _ in range(2))
    alone = save(server, trace)
    for secret in (alone["secret"], "x" * 32, "", None):
        for what in ("class/delete", "class/run/delete", "class/answer/delete"):
            answer = server.post(what, **folder, secret=secret, id=one)
            assert (answer.status_code, answer.text) == (403, text("en", "stored.owner")), (what, secret)
    assert server.post("class/run/delete", **teacher, id=alone["id"]).status_code == 404, "it lies in no folder of hers"
    assert server.post("class/run/delete", **teacher).status_code == 404
    assert server.post("class/answer/delete", **teacher, id="x").status_code == 404
    server.done("class/run/delete", **teacher, id=one)
    assert server.post("open", id=one).status_code == 410
    assert [run["id"] for run in server.done("class", **teacher)["runs"]] == [two]
    assert server.done("class/delete", **teacher) == {"runs": 1, "answers": 0}
    for lang in LANGUAGES:
        for what in ("class", "class/delete"):
            gone = server.post(what, lang=lang, **teacher)
            assert (gone.status_code, gone.text) == (404, text(lang, "stored.no_folder"))
    assert server.post("open", id=two).status_code == 410
    server.done("open", id=alone["id"])
