"""What passes the door: addresses, hosts, other sites' requests, bodies; and that every error ends as words."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from loopviz.app import contract
from loopviz.app import controls as st
from loopviz.app.compare.request import Asked
from loopviz.app.compare.service import Comparisons
from loopviz.app.contract import PAGES
from loopviz.app.explore.page import ExplorePage
from loopviz.app.lab.service import Laboratory
from loopviz.app.main import build, launch
from loopviz.app.profile import LOCAL
from loopviz.app.server.request_guard import API, JSON, USED, Door, Known, Rules, is_ours, rules_of
from loopviz.app.sessions.mailbox import Mailbox
from loopviz.app.sessions.waiting_line import Places
from tests.app.page_double import unwire

HERE = "http://127.0.0.1"


def _no_model(name: str, progress: Any, local: bool) -> Any:
    raise ValueError("no model is loaded in these tests")


@pytest.fixture(scope="module")
def page() -> Iterator[ExplorePage]:
    """The app as it is served, its model never loaded."""
    made = build()
    made.service.room._load = _no_model
    launch(made, wait=False)
    yield made
    made.demo.close()


@pytest.fixture(scope="module")
def app(page: ExplorePage) -> Any:
    return page.demo.app


@pytest.fixture
def client(page: ExplorePage) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=page.demo.local_url, timeout=120) as found:
        yield found


def _every_route(app: Any) -> Iterator[tuple[str, str]]:
    """Method and path of every route, as Gradio and we declare it."""
    for route in app.routes:
        for one in route.original_router.routes if hasattr(route, "original_router") else [route]:
            for method in sorted(one.methods):
                yield method, one.path


GRADIO_S_OPEN = """
GET /  HEAD /  GET /learn  GET /learn/  GET /anatomy  GET /anatomy/  GET /ttt  GET /ttt/  GET /compare  GET /compare/  GET /lab  GET /lab/
GET /teach  GET /teach/
GET /assets/{path:path}  GET /static/{path:path}  GET /theme.css  GET /gradio_api/theme.css
GET /favicon.ico  GET /manifest.json  GET /pwa_icon  GET /pwa_icon/{size}  GET /robots.txt
GET /config  GET /config/  GET /gradio_api/info  GET /gradio_api/info/  GET /gradio_api/app_id  GET /gradio_api/app_id/
GET /gradio_api/startup-events  GET /gradio_api/heartbeat/{session_hash}  GET /gradio_api/queue/data
POST /gradio_api/queue/join  POST /gradio_api/run/{api_name}  POST /gradio_api/run/{api_name}/
POST /gradio_api/component_server  POST /gradio_api/component_server/
POST /gradio_api/cancel  POST /gradio_api/reset  POST /gradio_api/reset/
"""
OURS_OPEN = """
GET /loopviz-assets/{mark}/{name:path}  HEAD /loopviz-assets/{mark}/{name:path}
GET /loopviz-source/{path:path}  HEAD /loopviz-source/{path:path}  GET /loopviz-card  HEAD /loopviz-card
GET /loopviz-health  HEAD /loopviz-health  GET /loopviz-metrics
GET /loopviz-run/{run}  POST /loopviz-run/{run}  GET /loopviz-share/link  POST /loopviz-share/open
GET /loopviz-share/{run}/{kind}  GET /loopviz-share/{run}/panel/{panel}/{kind}
POST /loopviz-share/ttt/open  GET /loopviz-share/ttt/{run}/trace  GET /loopviz-share/teach/{run}/adapter
POST /loopviz-store/save  POST /loopviz-store/open  POST /loopviz-store/delete
POST /loopviz-store/class  POST /loopviz-store/class/new  GET /loopviz-store/gallery
POST /loopviz-store/class/delete  POST /loopviz-store/class/run/delete  POST /loopviz-store/class/answer/delete
POST /loopviz-store/learn/hand_in  POST /loopviz-store/learn/withdraw  POST /loopviz-store/learn/handed
POST /loopviz-store/ttt/save  POST /loopviz-store/ttt/open
GET /loopviz-api  POST /loopviz-api/{tool}  POST /loopviz-mcp
"""
CLOSED = """
HEAD /loopviz-store/gallery  HEAD /loopviz-api
HEAD /loopviz-metrics  HEAD /loopviz-run/{run}  HEAD /loopviz-share/link  HEAD /loopviz-share/{run}/{kind}
HEAD /loopviz-share/{run}/panel/{panel}/{kind}  HEAD /loopviz-share/ttt/{run}/trace
HEAD /loopviz-share/teach/{run}/adapter
GET /openapi.json  HEAD /openapi.json  POST /login  POST /login/  GET /logout  GET /svelte/{path:path}
GET /monitoring  GET /monitoring/summary  GET /monitoring/{key}  GET /gradio_api/deep_link
GET /gradio_api/user  GET /gradio_api/user/  GET /gradio_api/login_check  GET /gradio_api/login_check/
GET /gradio_api/token  GET /gradio_api/token/  GET /gradio_api/dev/reload  GET /gradio_api/runs  GET /gradio_api/runs/
GET /gradio_api/openapi.json  GET /gradio_api/custom_component/{id}/{environment}/{type}/{file_name}
GET /gradio_api/proxy={url_path:path}  HEAD /gradio_api/proxy={url_path:path}
GET /gradio_api/file={path_or_url:path}  HEAD /gradio_api/file={path_or_url:path}  GET /gradio_api/file/{path:path}
POST /gradio_api/stream/{event_id}  POST /gradio_api/stream/{event_id}/close
GET /gradio_api/stream/{session_hash}/{run}/{component_id}/playlist.m3u8
GET /gradio_api/stream/{session_hash}/{run}/{component_id}/{segment_id}.{ext}
GET /gradio_api/stream/{session_hash}/{run}/{component_id}/playlist-file
POST /gradio_api/api/{api_name}  POST /gradio_api/api/{api_name}/
POST /gradio_api/call/{api_name}  POST /gradio_api/call/{api_name}/  GET /gradio_api/call/{api_name}/{event_id}
POST /gradio_api/call/v2/{api_name}  POST /gradio_api/call/v2/{api_name}/  GET /gradio_api/call/v2/{api_name}/{event_id}
GET /gradio_api/queue/status  GET /gradio_api/upload_progress  POST /gradio_api/upload  POST /gradio_api/process_recording
POST /gradio_api/vibe-edit  POST /gradio_api/vibe-edit/  POST /gradio_api/undo-vibe-edit  POST /gradio_api/undo-vibe-edit/
GET /gradio_api/vibe-code  GET /gradio_api/vibe-code/  POST /gradio_api/vibe-code  POST /gradio_api/vibe-code/
POST /gradio_api/vibe-starter-queries  POST /gradio_api/vibe-starter-queries/
"""
_FILLED = {"size": "192", "mark": "0a1b", "api_name": "predict"}


def listed(table: str) -> set[tuple[str, str]]:
    words = table.split()
    return set(zip(words[::2], words[1::2], strict=True))


def filled(path: str) -> str:
    return re.sub(r"\{(\w+)(?::path)?\}", lambda found: _FILLED.get(found[1], "word"), path)


def test_every_address_of_the_app_is_either_used_or_closed(app: Any, client: httpx.Client) -> None:
    """An update of Gradio that brings another address must be looked at: what is not listed here fails."""
    routes, used, closed = set(_every_route(app)), listed(GRADIO_S_OPEN) | listed(OURS_OPEN), listed(CLOSED)
    written = {
        (method, path)
        for method, path in routes
        if re.fullmatch(r"/loopviz-assets/\w{16}/core/gradio_functions\.js", path)
    }
    assert {method for method, _ in written} == {"GET", "HEAD"}
    assert not used & closed
    assert routes - written == used | closed
    for method, path in closed:
        answer = client.request(method, filled(path), headers={"content-type": JSON})
        assert answer.status_code in (404, 405), (method, path)


@pytest.mark.parametrize("address", [beside[1:] for name, beside in PAGES.items() if name != "explore"])
def test_a_slash_at_the_end_of_a_page_s_address_loses_nothing_of_it(client: httpx.Client, address: str) -> None:
    """A link with one lost its language and all it held: Gradio leads to the address without, and drops what follows `?`."""
    answer = client.get(f"{address}/?lang=zh&s=a%26b%2F..", follow_redirects=False)
    assert answer.status_code == 307
    assert str(answer.next_request.url) == str(client.base_url.join(f"{address}?lang=zh&s=a%26b%2F.."))  # type: ignore[union-attr]
    assert client.get(f"{address}/", follow_redirects=True).url.path == address
    assert client.get(f"/x{address}/?lang=zh").status_code == 404


def test_upload_that_nothing_uses_takes_nothing(client: httpx.Client, app: Any) -> None:
    folder = Path(app.uploaded_file_dir)
    before = set(folder.rglob("*")) if folder.exists() else set()
    for path in ("upload", "upload?upload_id=x", "run/predict", "component_server"):
        answer = client.post(f"{API}/{path}", files={"files": ("big.bin", b"x" * 2**20)})
        assert answer.status_code in (404, 415)
        assert str(folder) not in answer.text
    assert (set(folder.rglob("*")) if folder.exists() else set()) == before


# --- hosts ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["localhost:7860", "127.0.0.1", "[::1]:80", "192.168.1.5:7860", "LOCALHOST", "app.localhost"]
)
def test_a_loopback_name_or_a_number_is_this_server(host: str) -> None:
    assert is_ours(host, Rules())


@pytest.mark.parametrize(
    "host", ["evil.test", "evil.test:7860", "127.0.0.1.evil.test", "localhost.evil.test", "", "[", "a b"]
)
def test_another_name_is_not(client: httpx.Client, host: str) -> None:
    assert not is_ours(host, Rules())
    assert not is_ours(host, rules_of("0.0.0.0", {}))
    answer = client.get("/config", headers={"host": host})
    assert answer.status_code == 421
    assert "LOOPVIZ_HOSTS" in answer.text


def test_the_host_lists_names_and_a_space_has_its_own() -> None:
    rules = rules_of("0.0.0.0", {"LOOPVIZ_HOSTS": "loops.example.org, *.school.example"})
    assert is_ours("loops.example.org:443", rules)
    assert is_ours("room3.school.example", rules)
    assert not is_ours("example.org", rules)
    space = rules_of("0.0.0.0", {"SPACE_ID": "someone/loopviz", "SPACE_HOST": "someone-loopviz.hf.space"})
    assert is_ours("someone-loopviz.hf.space", space)
    assert not is_ours("hf.space.evil.test", space)
    assert is_ours("lab-3.example", rules_of("lab-3.example", {}))


def test_a_frame_that_is_no_origin_is_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match=r"LOOPVIZ_FRAMES='example\.org'"):
        rules_of("127.0.0.1", {"LOOPVIZ_FRAMES": "example.org"})


# --- other sites ---------------------------------------------------------------------------------------------------------

FOREIGN = [
    {"origin": "http://evil.test"},
    {"origin": "http://127.0.0.1:1"},
    {"origin": "null"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
    {"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors"},
    {"sec-fetch-site": "cross-site", "origin": "http://127.0.0.1"},
]


@pytest.mark.parametrize("said", FOREIGN[:5])
def test_visits_that_are_not_from_the_page_start_and_read_nothing(
    client: httpx.Client, page: ExplorePage, said: dict[str, str]
) -> None:
    asked: list[str] = []
    page.service.questions.model_status, kept = asked.append, page.service.questions.model_status
    try:
        for method, path in sorted(listed(GRADIO_S_OPEN) | listed(OURS_OPEN)):
            for kind in (JSON, "text/plain", "multipart/form-data; boundary=x"):
                question = {"component_id": _live(page), "fn_name": "model_status", "session_hash": "x", "data": "{}"}
                answer = client.request(
                    method, filled(path), headers={**said, "content-type": kind}, content=json.dumps(question)
                )
                assert answer.status_code == 403, (method, path)
    finally:
        page.service.questions.model_status = kept
    assert asked == []


@pytest.mark.parametrize(
    "kind", ["text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", ""]
)
def test_what_computes_takes_json_only(client: httpx.Client, page: ExplorePage, kind: str) -> None:
    question = {"component_id": _live(page), "fn_name": "model_status", "session_hash": "x", "data": "{}"}
    for method, path in sorted(listed(GRADIO_S_OPEN) | listed(OURS_OPEN)):
        if method == "POST":
            answer = client.post(filled(path), headers={"content-type": kind}, content=json.dumps(question))
            assert answer.status_code == 415, path


def test_a_link_from_another_site_leads_to_the_page_and_to_nothing_else(client: httpx.Client) -> None:
    led = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert client.get("/", headers=led).status_code == 200
    assert client.get("/lab", headers=led).status_code == 200
    assert client.get("/config", headers=led).status_code == 403
    assert client.get("/loopviz-share/link?s=x", headers=led).status_code == 403
    assert client.get("/", headers={**led, "sec-fetch-dest": "iframe"}).status_code == 403


def test_a_program_without_an_origin_is_served(client: httpx.Client, page: ExplorePage) -> None:
    question = {"component_id": _live(page), "fn_name": "resync", "session_hash": "x", "data": "{}"}
    for more in (
        {},
        {"origin": str(client.base_url).rstrip("/")},
        {"sec-fetch-site": "same-origin", "origin": "https://proxied.example"},
    ):
        answer = client.post(f"{API}/component_server", json=question, headers=more)
        assert (answer.status_code, json.loads(answer.json())) == (200, {"kind": "gone"})


def test_gradio_s_own_client_for_python_still_speaks_to_the_server(page: ExplorePage) -> None:
    from gradio_client import Client

    told = Client(page.demo.local_url, verbose=False).view_api(return_format="dict")
    assert set(told) == {"named_endpoints", "unnamed_endpoints"}


def _live(page: ExplorePage) -> int:
    return int(page.live._id)


# --- headers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/", "/lab", "/config", "/nothing", "/assets/x.js", f"{API}/upload", "/loopviz-share/x/trace"]
)
def test_every_answer_carries_the_headers_of_safety(client: httpx.Client, path: str) -> None:
    said = client.get(path).headers
    assert said["x-content-type-options"] == "nosniff"
    assert said["referrer-policy"]
    assert "camera=()" in said["permissions-policy"]
    assert said["cross-origin-resource-policy"] == "same-origin"
    assert said["x-frame-options"] == "DENY"
    assert "frame-ancestors 'none'" in said["content-security-policy"]
    assert said.get_list("content-security-policy") == [said["content-security-policy"]]


def test_the_pages_run_no_text_as_a_script_and_ask_nobody_else(client: httpx.Client) -> None:
    for path in ("/", "/learn", "/anatomy", "/ttt", "/compare", "/lab"):
        first, second = client.get(path), client.get(path)
        policy = dict(part.split(" ", 1) for part in first.headers["content-security-policy"].split("; "))
        (nonce,) = re.findall(r"'nonce-([^']+)'", policy["script-src"])
        assert policy["script-src"] == f"'self' 'nonce-{nonce}'"
        assert policy["connect-src"] == policy["script-src"].split()[0] == "'self'"
        assert policy["default-src"] == "'none'"
        assert nonce not in second.text
        tags = re.findall(r"<script\b[^>]*>", first.text)
        assert len(tags) > 3
        assert all(f'nonce="{nonce}"' in tag for tag in tags)


def test_a_frame_is_allowed_to_whom_the_host_lists(page: ExplorePage) -> None:
    def answered(rules: Rules) -> Any:
        inner = Starlette(routes=[Route("/", lambda _: PlainTextResponse("page"))])
        led = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}
        return TestClient(Door(inner, rules), base_url=HERE).get("/", headers=led)

    space = answered(rules_of("0.0.0.0", {"SPACE_ID": "someone/loopviz"}))
    assert space.status_code == 200
    assert "frame-ancestors https://huggingface.co https://*.hf.space" in space.headers["content-security-policy"]
    assert "x-frame-options" not in space.headers
    listed = answered(rules_of("127.0.0.1", {"LOOPVIZ_FRAMES": "https://course.example"}))
    assert "frame-ancestors https://course.example" in listed.headers["content-security-policy"]
    assert answered(Rules()).status_code == 403


# --- bodies --------------------------------------------------------------------------------------------------------------

BAD_JSON = {
    "nested": "[" * 3000,
    "nested_whole": "[" * 100 + "]" * 100,
    "not_a_number": '{"data": [NaN]}',
    "infinite": '{"data": [1e999]}',
    "endless": '{"data": [' + "9" * 4000 + "]}",
    "large_whole": '{"data": [99999999999999999999]}',
    "cut": '{"data": [',
    "empty": "",
}
JSON_TAKERS = [path for path, (methods, kind) in USED.items() if kind == JSON and path.startswith(API)]


@pytest.mark.parametrize("body", BAD_JSON.values(), ids=BAD_JSON)
@pytest.mark.parametrize("path", JSON_TAKERS)
def test_a_body_that_is_no_plain_json_is_refused_in_words(client: httpx.Client, path: str, body: str) -> None:
    answer = client.post(path.removesuffix("/?"), content=body, headers={"content-type": JSON})
    assert answer.status_code == 400
    assert "cannot be read" in answer.json()["detail"]


@pytest.mark.parametrize("path", JSON_TAKERS)
def test_a_body_has_an_end_declared_or_not(client: httpx.Client, path: str) -> None:
    most = LOCAL.body_bytes if "join" in path or "run" in path else LOCAL.question_bytes
    address, kind = path.removesuffix("/?"), {"content-type": JSON}
    assert client.post(address, content=b" " * (most + 1), headers=kind).status_code == 413
    assert client.post(address, content=iter([b" " * most, b" "]), headers=kind).status_code == 413


def test_a_call_is_short_unless_it_may_bring_a_text_for_the_lab(client: httpx.Client, page: ExplorePage) -> None:
    """Gradio remembers of each page what its form was sent with: prompts of ten megabytes were kept, of every page."""
    known, text = Known.of(page.demo), "x" * LOCAL.question_bytes
    long = [n for n in known.long if page.demo.fns[n].name.startswith("_run")]
    assert len(long) == 6, "of Learn, Anatomy, TTT, Compare, Teach and the Lab"
    for n, values in known.events.items():
        asked = {"fn_index": n, "data": [text] + [None] * (values - 1) if values else [], "session_hash": "long"}
        asked |= {} if values else {"event_data": {"task": "none", "values": {"text": text}, "cards": []}}
        answer = client.post(f"{API}/queue/join", json=asked)
        if n not in known.long:
            assert answer.status_code == 413, n
            assert f"{LOCAL.question_bytes:,}" in answer.json()["detail"]
        elif n in long:
            assert answer.status_code == 200, n


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    async def receive() -> Any:
        await asyncio.sleep(60)

    async def try_it() -> list[Any]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"host", b"127.0.0.1"), (b"content-type", JSON.encode())]
        scope = {"type": "http", "method": "POST", "path": f"{API}/cancel", "query_string": b"", "headers": headers}
        await Door(Starlette(), Rules(profile=replace(LOCAL, body_seconds=0.01)))(scope, receive, send)
        return sent

    start, body = asyncio.run(try_it())
    assert start["status"] == 408
    assert b"in time" in body["body"]


@pytest.mark.parametrize(
    "asked",
    [
        [],
        {},
        "x",
        {"fn_index": 10**6, "data": [], "session_hash": "x"},
        {"fn_index": "0", "data": [], "session_hash": "x"},
        {"fn_index": True, "data": [], "session_hash": "x"},
        {"fn_index": [], "data": [], "session_hash": "x"},
        {"fn_index": 0, "data": [], "session_hash": "x"},
        {"fn_index": 0, "data": {}, "session_hash": "x"},
        {"fn_index": 0, "data": [None] * 500, "session_hash": "x"},
        {"fn_index": 1, "data": None, "session_hash": "../x"},
        {"component_id": [], "fn_name": "resync", "session_hash": "x", "data": ""},
        {"component_id": 10**6, "fn_name": "resync", "session_hash": "x", "data": ""},
        {"component_id": 1, "fn_name": "__init__", "session_hash": "x", "data": ""},
    ],
)
def test_a_call_that_no_page_makes_is_refused_in_words(client: httpx.Client, asked: Any) -> None:
    for path in (f"{API}/queue/join", f"{API}/run/predict", f"{API}/component_server"):
        answer = client.post(path, json=asked)
        assert answer.status_code == 422, path
        assert "reload the page" in answer.json()["detail"]


# --- the queue's end -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("lang", "words"), [("en", "2 runs are waiting already"), ("zh", "已有 2 个运行在等待")])
def test_queue_without_an_end_refuses_by_name_and_who_waits_keeps_their_turn(
    page: ExplorePage, monkeypatch: pytest.MonkeyPatch, lang: str, words: str
) -> None:
    service, served = page.service, []
    monkeypatch.setattr(service, "places", Places(1, longest=2))
    monkeypatch.setattr(service, "waiting", lambda *_, **__: iter(()))
    monkeypatch.setattr(service.room, "get", lambda *_, **__: None)
    monkeypatch.setattr(service, "_make", lambda wish, *_: iter([served.append(wish.session) or "made"]))

    def run(session: str) -> Iterator[str]:
        return service.run("Once upon a time", st.defaults(), lang, session)

    with service.places.join("lab"):
        waiting = {session: run(session) for session in ("first", "second")}
        told = {session: unwire(next(messages)) for session, messages in waiting.items()}
        assert not any(message.get("over") for message in told.values())
        for n in range(100):
            (refused,) = map(unwire, run(f"stranger {n}"))
            assert words in refused["text"]
            assert (refused["over"], refused["bad"], refused["full"]) == (True, True, True)
    for messages in waiting.values():
        assert list(messages)[-1] == "made"
    assert served == ["first", "second"]


def test_gradio_s_queue_has_an_end_too(page: ExplorePage) -> None:
    queue = page.demo._queue
    assert queue.max_size == LOCAL.queue
    assert isinstance(queue.pending_messages_per_session, Mailbox)


# --- errors --------------------------------------------------------------------------------------------------------------


class PanicException(BaseException):
    """As native code raises it: none of Python's Exceptions."""


def _failing(error: BaseException) -> TestClient:
    async def fail(request: Request) -> None:
        raise error

    app = Door(Starlette(routes=[Route("/config", fail)]))
    return TestClient(app, base_url=HERE, raise_server_exceptions=False)


@pytest.mark.parametrize("error", [RuntimeError("/secret/path"), RecursionError(), PanicException("/secret/path")])
@pytest.mark.parametrize(("lang", "words"), [("en", "Reference"), ("zh-CN", "编号")])
def test_whatever_goes_wrong_ends_as_words_and_a_reference_that_is_in_the_log(
    error: BaseException, lang: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer = _failing(error).get("/config", headers={"accept-language": lang})
    assert answer.status_code == 500
    assert words in answer.text
    (ref,) = re.findall(r"\b[0-9a-f]{8}\b", answer.text)
    assert "secret" not in answer.text
    assert ref in caplog.text
    assert any(record.exc_info and record.exc_info[1] is error for record in caplog.records)


def _call(client: httpx.Client, page: ExplorePage, name: str, event_data: Any) -> Any:
    """The event `name` as the page calls it, with another event data."""
    fns = page.demo.fns
    at = min(n for n, fn in fns.items() if getattr(fn.fn, "__name__", "") == name)
    data = [component.value if not callable(component.value) else None for component in fns[at].inputs]
    body = {"fn_index": at, "data": data, "session_hash": "x", "event_data": event_data, "trigger_id": _live(page)}
    return client.post(f"{API}/run/predict", json=body)


@pytest.mark.parametrize(
    "said", [[1], "x", None, 3, {"prompt": ["x"]}, {"prompt": 3}, {"run": []}, {"n": [], "view": {}}]
)
@pytest.mark.parametrize("name", ["_take", "_adopt", "_link"])
def test_event_data_that_is_no_mapping_is_nothing_asked(
    client: httpx.Client, page: ExplorePage, name: str, said: Any
) -> None:
    answer = _call(client, page, name, said)
    assert answer.status_code == 200, answer.text


def test_an_event_that_fails_is_words_and_a_reference(
    client: httpx.Client, page: ExplorePage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for error in (RuntimeError("/secret"), PanicException("/secret")):
        monkeypatch.setattr(page.sharing, "link", _raise(error))
        answer = _call(client, page, "_link", {})
        assert answer.status_code < 500
        assert "secret" not in answer.text
        assert any(record.exc_info and record.exc_info[1] is error for record in caplog.records)


def test_a_panic_of_a_tokenizer_ends_the_run_in_words_on_every_page(
    page: ExplorePage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """M7: it is no Exception, and the page waited for ever."""
    service = page.service
    monkeypatch.setattr(service.room, "get", _raise(PanicException("index out of bounds")))
    monkeypatch.setattr(service, "waiting", lambda *_, **__: iter(()))
    monkeypatch.setattr(Asked, "problems", lambda self: [])
    comparisons, laboratory = Comparisons(service), Laboratory(service)
    for messages in (
        service.run("Once", st.defaults(), "en", "panics"),
        comparisons.run({"n": 1, "prompt": "Once"}, "panics too"),
        laboratory.run({"n": 1, "task": "perplexity"}, "panics as well"),
    ):
        last = unwire(list(messages)[-1])
        assert last["over"] is True
        (ref,) = re.findall(r"\b[0-9a-f]{8}\b", last["text"])
        assert ref in caplog.text
        assert "bounds" not in last["text"]


def _raise(error: BaseException) -> Any:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    return fail


def test_a_question_that_fails_is_words_and_a_reference(
    client: httpx.Client, page: ExplorePage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for error in (RuntimeError("/secret"), PanicException("/secret")):
        monkeypatch.setattr(page.service.questions, "resync", _raise(error))
        question = {"component_id": _live(page), "fn_name": "resync", "session_hash": "x", "data": '{"lang": "zh"}'}
        answer = client.post(f"{API}/component_server", json=question)
        assert answer.status_code == 200
        told = json.loads(answer.json())
        assert (told["kind"], told["state"]) == ("failed", "failed")
        (ref,) = re.findall(r"\b[0-9a-f]{8}\b", told["text"])
        assert ref in caplog.text
        assert "secret" not in answer.text


def _asked_of(page: ExplorePage) -> list[tuple[int, str]]:
    return [(element, name) for element, names in Known.of(page.demo).functions.items() for name in sorted(names)]


def test_a_question_nested_3000_deep_is_a_question_that_no_page_asks(client: httpx.Client, page: ExplorePage) -> None:
    questions = _asked_of(page)
    assert len(questions) == sum(map(len, contract.QUESTIONS.values()))
    for element, name in questions:
        for data in (
            "[" * 3000,
            '{"a":' * 650,
            '{"model": "\\ud800"}',
            '{"run": "\\ud800", "lang": "\\ud800"}',
            "",
            3,
            [],
            {},
            None,
        ):
            question = {"component_id": element, "fn_name": name, "session_hash": "x", "data": data}
            answer = client.post(f"{API}/component_server", json=question)
            assert answer.status_code == 200, (name, data)
            assert json.loads(answer.json()).get("kind") != "failed", (name, data)


# --- hostile calls -------------------------------------------------------------------------------------------------------

ODD: list[Any] = [
    None,
    True,
    -1,
    10**18,
    1e308,
    "",
    "x" * 30_000,
    "\u202e\u0000",
    "\ud800 half",
    "../../etc/passwd",
    "{{7*7}}${7*7}<script>",
    "[" * 3000,
    '{"model": 3, "run": [], "touched": {}, "gave": 1, "lang": []}',
    [],
    [[[]]],
    {},
    {"__type__": "update", "value": 1},
    {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}},
    {"n": 10**15, "view": [], "wishes": {}, "values": 3, "cards": [1, {}], "model": {}, "task": [], "ticket": 3},
]


@pytest.mark.parametrize("seed", range(4))
def test_hostile_calls_of_every_event_and_question_never_end_in_an_error_of_ours(
    client: httpx.Client, page: ExplorePage, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    chance, known = random.Random(seed), Known.of(page.demo)
    quick = [n for n in known.events if not page.demo.fns[n].queue]
    queued = [n for n in known.events if page.demo.fns[n].queue and page.demo.fns[n].inputs]
    assert len(quick) >= 10
    calls: list[tuple[str, dict[str, Any]]] = []
    for n in quick * 3:
        usual = [None if callable(one.value) else one.value for one in page.demo.fns[n].inputs]
        given = [chance.choice(ODD) if chance.random() < 0.3 else value for value in usual]
        calls.append(("run/predict", {"fn_index": n, "data": given, "event_data": chance.choice(ODD)}))
    calls += [("run/predict", {"fn_index": n, "data": [None] * known.events[n]}) for n in queued]
    for element, name in _asked_of(page) * 3:
        asked = chance.choice(
            [*ODD, *(json.dumps({"lang": "zh", "run": "recorded", word: chance.choice(ODD)}) for word in WORDS)]
        )
        calls.append(("component_server", {"component_id": element, "fn_name": name, "data": asked}))
    for path, body in calls:
        answer = client.post(
            f"{API}/{path}", content=json.dumps({"session_hash": f"fuzz{seed}", **body}), headers={"content-type": JSON}
        )
        assert answer.status_code < 500, (path, body)
        assert not re.search(r"Traceback|site-packages|/loopviz/app|File \\?\"", answer.text), (path, body)
    assert [record.getMessage() for record in caplog.records if "reference" in record.getMessage()] == []


def test_question_with_half_a_character_in_any_value_of_any_event_ends_in_words(
    client: httpx.Client, page: ExplorePage, caplog: pytest.LogCaptureFixture
) -> None:
    """A prompt may hold one, and is told so beside it; Gradio's refusal of any other value failed as it was written."""
    known, half = Known.of(page.demo), "\ud800"
    calls: list[dict[str, Any]] = []
    for n in (n for n in known.events if not page.demo.fns[n].queue):
        usual = [None if callable(one.value) else one.value for one in page.demo.fns[n].inputs]
        for place in range(len(usual)):
            calls.append({"fn_index": n, "data": [*usual[:place], half, *usual[place + 1 :]]})
        for name in ("event_data", "trigger_id", "simple_format", "event_id", "batched"):
            calls.append({"fn_index": n, "data": usual, name: half})
    assert len(calls) > 100
    for body in calls:
        for path in ("run/predict", "queue/join"):
            if path == "queue/join" and "trigger_id" not in body:
                continue
            sent = json.dumps({"session_hash": "half", **body})
            answer = client.post(f"{API}/{path}", content=sent, headers={"content-type": JSON})
            assert answer.status_code < 500, (path, body)
    assert [record.getMessage() for record in caplog.records if "reference" in record.getMessage()] == []


@pytest.mark.parametrize("place", ["static", "assets"])
@pytest.mark.parametrize("name", ["a" * 300, "a" * 5_000, "\u9875" * 190, "a/" * 99 + "a" * 300])
def test_a_file_s_name_longer_than_names_can_be_is_not_looked_for(
    client: httpx.Client, place: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert client.get(f"/{place}/{name}").status_code == 404
    assert [record.getMessage() for record in caplog.records if "reference" in record.getMessage()] == []


WORDS = (
    "focus",
    "panels",
    "shown",
    "from",
    "to",
    "epoch",
    "token",
    "piece",
    "model",
    "word",
    "cards",
    "shared",
    "row",
    "view",
    "kind",
)
