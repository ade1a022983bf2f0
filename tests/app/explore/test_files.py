"""Files that leave the page and come back: whose they are, what is refused and in which words, and that nothing is lost."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import re
import zipfile
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.testclient import TestClient

from loopviz.app.explore import first_run
from loopviz.app.explore.answers import Questions
from loopviz.app.explore.files import PREFIX, TICKET, Sharing
from loopviz.app.explore.run import Registry, Run
from loopviz.app.profile import LOCAL, PUBLIC
from loopviz.app.sessions.models import ModelRoom
from loopviz.app.texts import text
from loopviz.export.panel_table import panel_table
from loopviz.panels import PANELS, Focus
from loopviz.trace import Trace
from loopviz.trace.file import dumps, loads
from tests.trace.synthetic import make_meta, random_trace


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def shared(registry: Registry) -> Sharing:
    return Sharing(registry, ModelRoom("none"))


@pytest.fixture
def client(shared: Sharing) -> TestClient:
    return TestClient(Starlette(routes=shared.routes()), raise_server_exceptions=False)


@pytest.fixture(scope="module")
def trace() -> Trace:
    return random_trace(21, 9)


def kept(registry: Registry, trace: Trace, session: str = "me", *, finished: bool = True) -> Run:
    """A run of a session, as the page made it."""
    run = Run(trace.meta, first_run.usual_panels(), session)
    run.trace = trace
    if finished:
        run.end = "length"
        run.finished.set()
    registry.begin(run)
    return run


def view(**focus: Any) -> str:
    return json.dumps({"panels": ["convergence", "kv_occupancy"], "focus": focus})


def get(client: TestClient, path: str, **query: str) -> Response:
    return client.get(f"/{PREFIX}/{path}", params=query)


def post(
    client: TestClient, shared: Sharing, data: bytes, session: str = "me", lang: str = "en", **headers: str
) -> Response:
    headers = {TICKET: shared.visit(session)["ticket"], **headers}
    return client.post(f"/{PREFIX}/open", content=data, params={"lang": lang, "view": view()}, headers=headers)


def file_name(response: Response) -> str:
    assert response.status_code == 200, response.text
    disposition = response.headers["content-disposition"]
    name = re.fullmatch(r'attachment; filename="([A-Za-z0-9._-]+)"', disposition, re.ASCII)
    assert name, disposition
    assert not name[1].startswith(".")
    return name[1]


# --- a run saved and opened -------------------------------------------------------------------------------------------


def test_a_saved_run_opens_again_as_it_was(
    client: TestClient, shared: Sharing, registry: Registry, trace: Trace
) -> None:
    mine = kept(registry, trace)
    saved = get(client, f"{mine.id}/trace")
    assert file_name(saved).endswith(".loopviz")
    assert saved.headers["cache-control"] == "no-store"
    assert saved.headers["x-content-type-options"] == "nosniff"
    assert loads(saved.content) == trace

    shown = post(client, shared, saved.content).json()
    opened = registry.get(shown["run"])
    assert opened is not None
    assert opened is not mine
    assert opened.trace == trace
    assert (shown["kind"], shown["seq"], shown["total"]) == ("snapshot", 9, 9)
    assert shown["end"] == first_run.ending(trace)
    assert shown["figures"].keys() == {"convergence", "kv_occupancy"}
    # it is replayed, looked at and saved like any other run
    questions = Questions(registry, ModelRoom("none"))
    seen = json.loads(questions.focus(json.dumps({"run": opened.id, "focus": {"token": 2}, "shown": 4})))
    assert (seen["seq"], seen["focus"]["token"]) == (4, 2)
    went = json.loads(questions.advance(json.dumps({"run": opened.id, "epoch": seen["epoch"], "from": 4, "to": 7})))
    assert went["steps"][-1]["last"] == 7
    assert get(client, f"{opened.id}/trace").content == saved.content


def test_the_recorded_run_is_everybody_s(client: TestClient, trace: Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_run, "stored", lambda: trace)
    assert loads(get(client, "recorded/trace").content) == trace
    monkeypatch.setattr(first_run, "stored", lambda: None)
    assert get(client, "recorded/trace").status_code == 404


def test_an_opened_file_is_its_visitor_s(client: TestClient, shared: Sharing, registry: Registry, trace: Trace) -> None:
    data = dumps(trace)
    mine, yours = kept(registry, trace, "me"), post(client, shared, data, "you").json()["run"]
    opened = post(client, shared, data, "me").json()["run"]
    assert [run.id for run in registry.of_session("me")] == [mine.id, opened]
    assert len({mine.id, yours, opened}) == 3
    # one file a visitor; a run of their own takes the place of the earlier run, but not of the file
    again = post(client, shared, data, "me").json()["run"]
    assert registry.get(opened) is None
    new = kept(registry, trace, "me")
    registry.supersede(new)
    assert [run.id for run in registry.of_session("me")] == [again, new.id]
    registry.forget("me")
    assert registry.get(again) is None
    assert registry.get(yours) is not None


@pytest.mark.parametrize("ticket", ["", "bWU=", "bWU=.", "bWU=.00", "é.x", "{other}", "{swapped}"])
def test_a_file_is_taken_only_from_a_page_of_this_server(
    client: TestClient, shared: Sharing, registry: Registry, trace: Trace, ticket: str
) -> None:
    """Else anyone could fill a visitor's place, or the server's memory, without a page."""
    mine, other = shared.visit("me")["ticket"], Sharing(registry, ModelRoom("none")).visit("me")["ticket"]
    swapped = shared.visit("you")["ticket"].split(".")[0] + "." + mine.split(".")[1]
    sent = ticket.format(other=other, swapped=swapped).encode()
    for lang in ("en", "zh"):
        answer = client.post(f"/{PREFIX}/open", content=dumps(trace), params={"lang": lang}, headers={TICKET: sent})
        assert (answer.status_code, answer.text) == (403, text(lang, "share.stranger"))
    assert len(registry) == 0


def _repacked(data: bytes, **change: bytes | None) -> bytes:
    """A trace file with other contents for some members ("meta" is meta.json); None leaves one out."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = change.get(name.split(".")[0], old.read(name))
            if content is not None:
                new.writestr(name, content)
    return out.getvalue()


def _header(data: bytes, **change: Any) -> bytes:
    header = json.loads(zipfile.ZipFile(io.BytesIO(data)).read("meta.json"))
    return json.dumps({**header, **change}).encode()


WRONG: dict[str, tuple[Any, str]] = {
    "nothing": (lambda good: b"", "short"),
    "a picture": (lambda good: b"\x89PNG\r\n\x1a\n" + bytes(300), "foreign"),
    "l15: half of one": (lambda good: good[: len(good) // 2], "short"),
    "l9: one with bytes before it": (lambda good: b"x" + good, "foreign"),
    "l9: one with bytes after it": (lambda good: good + b"x", "foreign"),
    "l7: trace_unknown_attention_mode": (
        lambda good: _repacked(good, meta=_header(good, meta=make_meta(attention_mode="sideways"))),
        "damaged",
    ),
    "a zip of something": (lambda good: _repacked(good, meta=None), "foreign"),
    "another version": (lambda good: _repacked(good, meta=_header(good, version=1)), "version"),
    "a changed table": (lambda good: _repacked(good, steps=b"PAR1"), "damaged"),
    "a lie about the model": (
        lambda good: _repacked(good, meta=_header(good, meta={**make_meta(), "prompt_tokens": -5})),
        "damaged",
    ),
    "a bomb": (lambda good: _repacked(good, steps=bytes(2**20 + 1)), "large"),
    "m6: trace_120000_tokens": (lambda good: dumps(random_trace(1, 31, blocks=[])), "large"),
    "no tokens": (lambda good: dumps(Trace(make_meta())), "empty"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_run_is_refused_in_words_and_takes_nothing_away(
    client: TestClient, shared: Sharing, registry: Registry, trace: Trace, wrong: str
) -> None:
    shared._room.profile = dataclasses.replace(PUBLIC, trace_bytes=2**20, trace_tokens=30)
    make, kind = WRONG[wrong]
    good = dumps(trace)
    mine, before = kept(registry, trace), post(client, shared, good).json()["run"]
    data = make(good)
    for lang in ("en", "zh"):
        answer = post(client, shared, data, lang=lang)
        assert answer.status_code == 422
        assert answer.headers["content-type"].startswith("text/plain")
        assert answer.text.startswith(text(lang, f"share.open.{kind}", reason="\0").partition("\0")[0])
    assert [run.id for run in registry.of_session("me")] == [mine.id, before]


@pytest.mark.parametrize("declared", [True, False])
def test_a_file_that_is_too_large_is_not_taken_in(
    client: TestClient, shared: Sharing, registry: Registry, declared: bool
) -> None:
    shared._room.profile = dataclasses.replace(PUBLIC, trace_bytes=1000)
    assert shared.visit("me")["largest"] == 1000, "the page knows before it sends"
    taken = []

    def parts() -> Any:
        for _ in range(5):
            taken.append(1)
            yield bytes(400)

    headers = {TICKET: shared.visit("me")["ticket"]}
    content = bytes(2000) if declared else parts()
    answer = client.post(f"/{PREFIX}/open", content=content, headers=headers)
    assert answer.status_code == 413
    assert "1,000 bytes" in answer.text
    assert len(registry) == 0
    assert not shared._desk.coming


def test_only_so_many_files_come_at_once(client: TestClient, shared: Sharing, trace: Trace) -> None:
    shared._room.profile = dataclasses.replace(PUBLIC, files_at_once=0)
    assert post(client, shared, dumps(trace)).status_code == 503
    shared._room.profile = dataclasses.replace(PUBLIC, files_at_once=1)
    assert post(client, shared, b"nothing of use").status_code == 422
    assert post(client, shared, dumps(trace)).status_code == 200, "a refused one has given its place back"


async def _slowly(shared: Sharing, session: str, parts: asyncio.Queue[bytes | None]) -> Response:
    """Open a file whose parts come when they are put; None is its end."""

    async def receive() -> dict[str, Any]:
        part = await parts.get()
        return {"type": "http.request", "body": part or b"", "more_body": part is not None}

    scope = {
        "type": "http",
        "method": "POST",
        "path": f"/{PREFIX}/open",
        "query_string": b"lang=en",
        "headers": [(TICKET.encode(), shared.visit(session)["ticket"].encode())],
    }
    return await shared._open(Request(scope, receive))


def test_four_slow_files_of_one_visitor_do_not_shut_the_others_out(shared: Sharing, trace: Trace) -> None:
    """L6: one visitor has one file on its way, whatever the number of places."""

    async def try_it() -> tuple[list[int], int, int]:
        slow: asyncio.Queue[bytes | None] = asyncio.Queue()
        slow.put_nowait(b"P")
        first = asyncio.create_task(_slowly(shared, "me", slow))
        await asyncio.sleep(0)
        more = [await _slowly(shared, "me", slow) for _ in range(3)]
        quick: asyncio.Queue[bytes | None] = asyncio.Queue()
        for part in (dumps(trace), None):
            quick.put_nowait(part)
        other = await _slowly(shared, "you", quick)
        slow.put_nowait(None)
        return [answer.status_code for answer in more], other.status_code, (await first).status_code

    assert asyncio.run(try_it()) == ([409] * 3, 200, 422)
    assert not shared._desk.coming


def test_a_file_that_rests_on_its_way_is_not_waited_for(registry: Registry) -> None:
    shared = Sharing(registry, ModelRoom("none", profile=replace(LOCAL, pause_seconds=0.01)))
    parts: asyncio.Queue[bytes | None] = asyncio.Queue()
    parts.put_nowait(b"P")

    async def try_it() -> Response:
        return await _slowly(shared, "me", parts)

    assert asyncio.run(try_it()).status_code == 408
    assert not shared._desk.coming


def test_a_run_that_cannot_be_drawn_is_not_kept(
    client: TestClient, shared: Sharing, registry: Registry, trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(trace: Trace, focus: Focus) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(PANELS["convergence"], "data", broken)
    answer = post(client, shared, dumps(trace), lang="zh")
    assert answer.status_code == 500
    assert "ZeroDivision" not in answer.text
    assert re.search(r"编号 [0-9a-f]{8}", answer.text)
    assert len(registry) == 0


# --- files of a run -----------------------------------------------------------------------------------------------------

PATHS = ["trace", "report", "python", "notebook", "panel/convergence/csv", "panel/convergence/parquet"]


@pytest.mark.parametrize("path", PATHS)
def test_a_run_that_is_gone_is_told_in_words_for_the_page(client: TestClient, registry: Registry, path: str) -> None:
    mine = kept(registry, random_trace(1, 2))
    registry.forget("me")
    for run in (mine.id, "guess", "..", "%2e%2e", "me"):
        for lang in ("en", "zh"):
            answer = get(client, f"{run}/{path}", lang=lang)
            assert answer.status_code == 404
            if not run.startswith((".", "%")):  # those are other addresses
                assert answer.text == text(lang, "share.gone")


@pytest.mark.parametrize("path", PATHS)
def test_a_run_that_is_being_made_is_not_sent(client: TestClient, registry: Registry, trace: Trace, path: str) -> None:
    mine = kept(registry, trace, finished=False)
    answer = get(client, f"{mine.id}/{path}", lang="zh")
    assert (answer.status_code, answer.text) == (409, text("zh", "share.running"))


@pytest.mark.parametrize("name", ["convergence", "token_loop_map"])
def test_a_panel_s_data_is_the_whole_run_s_as_it_is_looked_at(
    client: TestClient, registry: Registry, trace: Trace, name: str
) -> None:
    mine = kept(registry, trace)
    looking = {"token": 3, "metric": "kl", "lang": "zh"}
    wanted = panel_table(trace, name, Focus(**looking))
    csv = get(client, f"{mine.id}/panel/{name}/csv", view=view(**looking))
    assert file_name(csv).endswith(f"-{name}-token-3.csv")
    assert csv.headers["content-type"] == "text/csv; charset=utf-8"
    assert csv.content.decode() == wanted.to_csv(index=False, lineterminator="\n")
    parquet = get(client, f"{mine.id}/panel/{name}/parquet", view=view(**looking))
    assert file_name(parquet).endswith(f"-{name}-token-3.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(io.BytesIO(parquet.content)), wanted)
    assert file_name(get(client, f"{mine.id}/panel/{name}/csv")).endswith("-token-8.csv"), "the newest"


def test_there_is_no_data_of_what_is_no_panel_or_was_not_recorded(client: TestClient, registry: Registry) -> None:
    mine = kept(registry, random_trace(5, 4))
    for path in ("nope/csv", "convergence/xlsx", "convergence/exe", "__init__/csv"):
        answer = get(client, f"{mine.id}/panel/{path}")
        assert (answer.status_code, answer.text) == (404, text("en", "share.no_panel"))
    needing = next(name for name, panel in PANELS.items() if getattr(panel, "NEEDS", ()))
    mine.trace.meta["settings"]["extras"] = []
    answer = get(client, f"{mine.id}/panel/{needing}/csv", lang="zh")
    assert (answer.status_code, answer.text) == (409, text("zh", "share.not_recorded"))
    assert get(client, f"{mine.id}/nothing").status_code == 404


def test_python_and_notebook_load_what_the_visitor_named_but_a_public_server_names_no_folder(
    registry: Registry, trace: Trace
) -> None:
    mine = kept(registry, trace)
    mine.values = {"model": "/home/me/models/mine"}
    for profile, named in ((LOCAL, "/home/me/models/mine"), (PUBLIC, trace.meta["model"])):
        client = TestClient(Starlette(routes=Sharing(registry, ModelRoom("none", profile=profile)).routes()))
        code = get(client, f"{mine.id}/python")
        assert file_name(code).endswith(".py")
        assert f"load_checkpoint({named!r})" in code.text
        book = get(client, f"{mine.id}/notebook", lang="zh")
        assert file_name(book).endswith(".ipynb")
        assert book.headers["content-type"] == "application/x-ipynb+json"
        cells = json.loads(book.text)["cells"]
        assert f"load_checkpoint({named!r})" in "".join(cells[2]["source"])
        assert "模型" in "".join(cells[1]["source"])
    assert get(client, f"{first_run.RUN}/python").status_code == 200, "the recorded run is everybody's"


def test_the_report_is_of_the_panels_that_are_on_and_the_selection(
    client: TestClient, registry: Registry, trace: Trace
) -> None:
    mine = kept(registry, trace)
    report = get(client, f"{mine.id}/report", view=view(token=3, lang="zh"))
    assert file_name(report).endswith("-report.html")
    assert report.headers["content-type"].startswith("text/html")
    page = report.text
    assert set(re.findall(r"<article data-panel='(\w+)'", page)) == {"convergence", "kv_occupancy"}
    assert '<html lang="zh' in page or "<html lang='zh" in page
    assert "选中词元 3" in _unpacked(page)
    assert PANELS["convergence"].summary(trace, Focus(token=3, lang="zh")) in page.replace("&quot;", '"')


def test_b8_a_report_holds_the_panels_of_all_groups_that_are_on(
    client: TestClient, registry: Registry, trace: Trace
) -> None:
    """Whichever group is open as it is saved."""
    mine, every = kept(registry, trace), ["convergence", "would_say", "kv_occupancy", "cost"]
    looking = json.dumps({"panels": ["kv_occupancy"], "on": every, "focus": {}})
    page = get(client, f"{mine.id}/report", view=looking).text
    assert re.findall(r"<article data-panel='(\w+)'", page) == sorted(every, key=list(PANELS).index)


def _unpacked(page: str) -> str:
    """The report's own data, as its script reads it."""
    import base64
    import gzip

    packed = re.search(r"id='lv-data'>([^<]+)<", page)
    assert packed
    return json.dumps(json.loads(gzip.decompress(base64.b64decode(packed[1]))), ensure_ascii=False)


@pytest.mark.parametrize(
    ("model", "created"),
    [
        ("../../etc/passwd", "2026-01-02T03:04:05+00:00"),
        ('a"\r\nSet-Cookie: x=1', "2026-01-02T03:04\r\nSet-Cookie: x=1"),
        ("模型", "٢٠٢٦-٠١-٠٢T٠٣:٠٤"),
        (".hidden", '"; filename="x.exe'),
        ("x" * 500, "2026" * 100),
        ("-rf", ""),
        ("a/b\\c:d\0", "/etc"),
        ("…", "…"),
    ],
)
def test_a_stranger_s_names_make_safe_names_of_files(
    client: TestClient, registry: Registry, model: str, created: str
) -> None:
    trace = random_trace(6, 2)
    trace.meta |= {"model": model, "created": created}
    mine = kept(registry, trace)
    answer = get(client, f"{mine.id}/panel/convergence/csv")
    name = file_name(answer)
    assert len(name) <= 110
    assert name.endswith("-convergence-token-1.csv")
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("odd", ["", "[]", "{", '{"focus": {"token": -1}}', '{"focus": {"token": 99999}}', "x" * 9000])
def test_a_view_that_is_none_is_the_usual_one(client: TestClient, registry: Registry, trace: Trace, odd: str) -> None:
    mine = kept(registry, trace)
    assert file_name(get(client, f"{mine.id}/panel/convergence/csv", view=odd, lang="../x"))
