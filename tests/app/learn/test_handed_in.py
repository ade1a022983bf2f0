"""A pupil hands answers in, their teacher's link lists them and has them as a file."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
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
from loopviz.app.learn.service import Lessons
from loopviz.app.profile import LOCAL
from loopviz.app.server.request_guard import USED
from loopviz.app.sessions.models import ModelRoom
from loopviz.app.texts import LANGUAGES, text
from tests.app.learn.test_answer_file import asked
from tests.app.page_double import unwire


class Server:
    """Explore and Learn of one server, which keeps runs in a folder."""

    def __init__(self, folder: Path | None, **limits: Any) -> None:
        profile = replace(LOCAL, store="" if folder is None else str(folder), **limits)
        service = Service(ModelRoom("none", profile=profile), Registry())
        self.lessons, self.sharing = Lessons(service), Sharing(Registry(), service.room, service.files)
        routes = [*self.sharing.routes(), *self.lessons.handing.routes()]
        self.client = TestClient(Starlette(routes=routes), raise_server_exceptions=False)

    def visit(self, session: str = "me") -> dict[str, Any]:
        (told,) = self.lessons.run({"visit": True, "lang": "en"}, session)
        contract.check(unwire(told), contract.MESSAGES["learn"], "learn")
        return unwire(told)

    def post(self, what: str, body: Any, lang: str = "en") -> Response:
        headers = {TICKET_HEADER: self.visit()["ticket"]}
        return self.client.post(f"/{STORE}/{what}", json=body, params={"lang": lang}, headers=headers)

    def done(self, what: str, body: Any) -> dict[str, Any]:
        answer = self.post(what, body)
        assert answer.status_code == 200, answer.text
        kind = contract.STORE_CALLS[what][1]
        assert kind is not None
        contract.check(answer.json(), (kind,), what)
        return answer.json()


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path)


def test_answers_gather_for_the_teacher_and_for_nobody_else(server: Server) -> None:
    made = server.done("class/new", {"name": "7b"})
    folder, teacher = {"folder": made["folder"]}, {"folder": made["folder"], "secret": made["secret"]}
    first = server.done("learn/hand_in", {**asked(), **folder})
    again = server.done("learn/hand_in", {**asked(student="李 雷"), **folder, "secret": first["secret"]})
    assert again["secret"] == first["secret"]
    server.done("learn/hand_in", {**asked(student="=Ben", title="Arrows"), **folder})
    assert server.done("class", folder)["answers"] == [], "a pupil sees nobody's"
    listed = server.done("class", teacher)["answers"]
    assert [(one["student"], one["title"], one["right"], one["answered"]) for one in listed] == [
        ("=Ben", "Arrows", 0, 2),
        ("李 雷", "Arrows", 0, 2),
    ]
    file = server.done("learn/handed", {**teacher, "kind": "csv"})
    assert file["name"] == "loopviz-7b.csv"
    rows = list(csv.DictReader(io.StringIO(base64.b64decode(file["data"]).decode().removeprefix("\ufeff"))))
    assert [(row["name"], row["step"]) for row in rows] == [
        ("'=Ben", "four"),
        ("'=Ben", "five"),
        ("李 雷", "four"),
        ("李 雷", "five"),
    ], "a spreadsheet computes nothing of it"
    found = json.loads(base64.b64decode(server.done("learn/handed", {**teacher, "kind": "json"})["data"]))
    assert [one["name"] for one in found] == ["=Ben", "李 雷"]


def test_what_is_handed_in_small_makes_no_table_that_fills_the_memory(tmp_path: Path) -> None:
    """Every row says anew what it was made with: 100 kB came back as 21 MB, and four of them took 346 MB."""
    server = Server(tmp_path, table_characters=10_000)
    made = server.done("class/new", {"name": "7b"})
    teacher = {"folder": made["folder"], "secret": made["secret"]}
    much = {"made_with": {f"{n}{'k' * 1_900}": "v" * 1_900 for n in range(20)}}
    server.done("learn/hand_in", {**asked(), **much, "folder": made["folder"]})
    data = server.done("learn/handed", {**teacher, "kind": "csv"})["data"]
    assert len(data) < 2 * 20 * 200 * 4 / 3 * 1.2 + 2_000  # two rows, twenty pairs of 80 and 80
    server.done("learn/hand_in", {**asked(), **much, "folder": made["folder"]})  # another pupil, with as much
    answer = server.post("learn/handed", {**teacher, "kind": "csv"})
    assert answer.status_code == 413
    assert answer.text == text("en", "stored.table_full")


def test_a_pupil_takes_back_what_she_handed_in(server: Server) -> None:
    made = server.done("class/new", {"name": "7b"})
    folder, teacher = {"folder": made["folder"]}, {"folder": made["folder"], "secret": made["secret"]}
    name = "  " + "Ada\t" * 30  # longer than a name may be, and no line
    mine = server.done("learn/hand_in", {**asked(student=name), **folder})
    own = {**folder, "secret": mine["secret"], "lesson": asked()["lesson"], "student": name}
    server.done("learn/hand_in", {**asked(student="Ben"), **folder})
    for wrong in ({"secret": made["secret"]}, {"student": "Ben"}, {"lesson": "x"}):
        answer = server.post("learn/withdraw", own | wrong, "zh")
        assert (answer.status_code, answer.text) == (404, text("zh", "stored.no_answer")), wrong
    assert server.done("learn/withdraw", own) == {"kind": "ok"}
    assert [one["student"] for one in server.done("class", teacher)["answers"]] == ["Ben"]
    assert server.post("learn/withdraw", own).status_code == 404
    assert server.post("learn/withdraw", {**own, "secret": "x"}).status_code == 403


def test_a_teacher_deletes_answers(server: Server) -> None:
    made = server.done("class/new", {"name": "7b"})
    folder, teacher = {"folder": made["folder"]}, {"folder": made["folder"], "secret": made["secret"]}
    for student in ("Ada", "Ben", "Eve"):
        server.done("learn/hand_in", {**asked(student=student), **folder})
    listed = {one["student"]: one["id"] for one in server.done("class", teacher)["answers"]}
    server.done("class/answer/delete", {**teacher, "id": listed["Ben"]})
    assert {one["student"] for one in server.done("class", teacher)["answers"]} == {"Ada", "Eve"}
    gone = server.post("class/answer/delete", {**teacher, "id": listed["Ben"]})
    assert (gone.status_code, gone.text) == (404, text("en", "stored.no_answer"))
    assert server.done("class/delete", teacher) == {"runs": 0, "answers": 2}
    assert server.post("learn/handed", {**teacher, "kind": "csv"}).status_code == 404


@pytest.mark.parametrize("lang", LANGUAGES)
def test_what_is_not_granted_is_told_in_the_visitors_language(server: Server, lang: str) -> None:
    made = server.done("class/new", {"name": "7b"})
    folder = {"folder": made["folder"]}
    for what, body, status, key in (
        ("learn/hand_in", {**asked(), "folder": "a" * 22}, 404, "stored.no_folder"),
        ("learn/hand_in", {**asked(answers=[]), **folder}, 422, "stored.no_answers"),
        ("learn/hand_in", {**asked(answers="many"), **folder}, 422, "stored.no_answers"),
        ("learn/handed", {**folder, "secret": "x", "kind": "csv"}, 403, "stored.owner"),
        ("learn/handed", {"secret": made["secret"]}, 404, "stored.no_folder"),
        ("learn/handed", [], 404, "stored.no_folder"),
    ):
        answer = server.post(what, body, lang)
        assert (answer.status_code, answer.text) == (status, text(lang, key)), what
    answer = server.client.post(f"/{STORE}/learn/hand_in", json={**asked(), **folder}, headers={TICKET_HEADER: "x.y"})
    assert answer.status_code == 403, "no page of ours"


def test_a_server_that_keeps_nothing_says_so_as_a_visit_begins(tmp_path: Path) -> None:
    assert Server(None).visit()["keeps"] == 0
    assert Server(tmp_path).visit()["keeps"] == LOCAL.store_days
    assert list(tmp_path.iterdir()) == [], "a visit alone makes nothing"


def test_the_guard_lets_every_call_of_stored_runs_pass() -> None:
    allowed = "|".join(path for path in USED if path.startswith("/loopviz-store/("))
    for call, (kind, _) in contract.STORE_CALLS.items():
        assert kind is None or re.fullmatch(allowed, f"/{STORE}/{call}"), call
