"""What programs ask of a server, in all three ways, of one that is really served: typed, limited, refused by name, ended with its caller."""

from __future__ import annotations

import base64
import functools
import json
import re
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import gradio_client
import httpx
import jsonschema
import pytest
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

from loopviz.app.explore.page import ExplorePage
from loopviz.app.main import build, launch
from loopviz.app.profile import PUBLIC
from loopviz.app.server.api import ADDRESS
from loopviz.app.server.mcp_tools import ADDRESS as MCP
from loopviz.app.sessions.tools import Calls, ToolRefused
from loopviz.app.texts import text
from loopviz.app.ttt.opened import stored as recorded_ttt
from loopviz.engine.local import LocalEngine
from loopviz.store import new_secret
from loopviz.trace import Trace
from loopviz.trace.file import loads
from loopviz.trace.schema import check_frame
from tests.trace.synthetic import random_trace

TOOLS = {"run", "open_run", "compare", "measure"}
SHORT = {"max_new_tokens": 4, "block_start": 1, "block_end": 1, "loop_count": 3}
README = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(endless: LocalEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExplorePage]:
    """A public server that keeps runs, whose every model is a tiny one."""
    folder = str(tmp_path_factory.mktemp("store"))
    made = build("stories-loop", profile=replace(PUBLIC, calls_of_one=3, store=folder))
    made.service.room._load = lambda *_: endless
    launch(made, wait=False)
    yield made
    made.demo.close()


@pytest.fixture
def client(page: ExplorePage) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=page.demo.local_url, timeout=120) as found:
        yield found


@pytest.fixture(scope="module")
def gradio(page: ExplorePage) -> gradio_client.Client:
    return gradio_client.Client(page.demo.local_url, verbose=False)


def by_http(client: httpx.Client, name: str, **arguments: Any) -> Any:
    return client.post(f"{ADDRESS}/{name}", json=arguments)


def by_mcp(page: ExplorePage, ask: Callable[[ClientSession], Any]) -> Any:
    """What a client of the SDK's is told, in a session of its own."""

    async def session() -> Any:
        url = page.demo.local_url.rstrip("/") + MCP
        async with streamable_http_client(url) as (read, write, *_), ClientSession(read, write) as asks:
            await asks.initialize()
            return await ask(asks)

    return anyio.run(session)


def idle(page: ExplorePage) -> bool:
    """Whether nothing computes and nothing is kept, soon."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if not page.service.places.taken() and not len(page.service.registry):
            return True
        time.sleep(0.02)
    return False


# --- what there is ---------------------------------------------------------------------------------------------------------


def test_the_tools_are_these_and_say_what_they_take(
    page: ExplorePage, client: httpx.Client, gradio: gradio_client.Client
) -> None:
    """What is callable is listed here: another one must be looked at first."""
    listed = {tool["name"]: tool for tool in client.get(ADDRESS).json()["tools"]}
    by_gradio = gradio.view_api(return_format="dict")
    tools = by_mcp(page, lambda asks: asks.list_tools()).tools
    assert set(listed) == TOOLS == {name.strip("/") for name in by_gradio["named_endpoints"]}
    assert {tool.name for tool in tools} == TOOLS
    assert by_gradio["unnamed_endpoints"] == {}
    for tool in tools:
        schema = listed[tool.name]["arguments"]
        assert tool.description == listed[tool.name]["description"]
        assert set(tool.inputSchema["properties"]) == set(schema["properties"])
        names = {one["parameter_name"] for one in by_gradio["named_endpoints"][f"/{tool.name}"]["parameters"]}
        assert names == set(schema["properties"])
        for name, one in schema["properties"].items():
            assert one["description"], (tool.name, name)
            assert {"type", "anyOf"} & set(one), (tool.name, name)
    settings = listed["run"]["arguments"]["properties"]["settings"]
    assert settings["properties"]["loop_count"]["type"] == "integer"
    assert listed["run"]["arguments"]["required"] == ["prompt"]


def test_what_is_answered_is_of_the_shape_that_is_stated(page: ExplorePage, client: httpx.Client) -> None:
    """The SDK's client holds every answer to the schema, and raises; so does whoever asks by plain HTTP."""
    listed = {tool["name"]: tool for tool in client.get(ADDRESS).json()["tools"]}
    for tool in by_mcp(page, lambda asks: asks.list_tools()).tools:
        assert tool.outputSchema == listed[tool.name]["answer"]
        jsonschema.Draft202012Validator.check_schema(tool.outputSchema)
    for trace in ("json", "file", "none"):
        asked = {"prompt": "Once", "settings": SHORT, "trace": trace, "panels": ["loops_per_token"]}
        jsonschema.validate(by_http(client, "run", **asked).json(), listed["run"]["answer"])
    found = listed["run"]["answer"]["properties"]
    assert found["tokens"]["items"]["properties"]["loops"] == {"type": "array", "items": {"type": "integer"}}
    assert found["summary"]["properties"]["new_tokens"] == {"type": "integer"}
    assert {"trace", "file"} == set(found) - set(listed["run"]["answer"]["required"])
    assert "until" in listed["open_run"]["answer"]["required"]


# --- what they do ------------------------------------------------------------------------------------------------------------


def test_a_run_is_the_same_whoever_asks_and_nothing_of_it_is_kept(
    page: ExplorePage, client: httpx.Client, gradio: gradio_client.Client
) -> None:
    asked = {"prompt": "Once upon", "settings": SHORT}
    plain = by_http(client, "run", **asked, panels=["loops_per_token"]).json()
    assert plain["end"] == "length"
    assert plain["text"].startswith("Once upon")
    assert plain["text"].endswith(plain["completion"])
    assert plain["summary"]["new_tokens"] == 4
    assert {tuple(token["loops"]) for token in plain["tokens"]} == {(3,)}
    assert plain["panels"]["loops_per_token"]["rows"]
    for frame in plain["trace"]["frames"]:
        check_frame(frame)
    filed = gradio.predict(**asked, trace="file", api_name="/run")
    opened = loads(base64.b64decode(filed["file"]["data"]))
    assert opened.meta["prompt"] == "Once upon"
    told = by_mcp(page, lambda asks: asks.call_tool("run", asked))
    assert not told.isError
    assert "trace" not in told.structuredContent, "too long for who reads it, unless it is asked for"
    assert json.loads(told.content[0].text) == told.structuredContent
    assert plain["completion"] == filed["completion"] == told.structuredContent["completion"]
    assert idle(page)


def test_who_asks_by_mcp_is_told_how_far_it_is(page: ExplorePage) -> None:
    lines: list[str | None] = []

    async def told(progress: float, total: float | None, message: str | None) -> None:
        lines.append(message)

    asked = {"prompt": "Once", "settings": SHORT}
    by_mcp(page, lambda asks: asks.call_tool("run", asked, progress_callback=told))
    assert any(lines)


def test_a_comparison(page: ExplorePage, client: httpx.Client, gradio: gradio_client.Client) -> None:
    cards = [{"name": "three", "settings": {**SHORT} | {"loop_count": 3}}, {"name": "plain", "plain": True}]
    del cards[0]["settings"]["max_new_tokens"]  # type: ignore[attr-defined]
    asked = {"prompt": "Once upon", "configurations": cards, "settings": {"max_new_tokens": 3}}
    plain = by_http(client, "compare", **asked).json()
    assert plain["end"] == "done"
    assert [row["setup"] for row in plain["rows"]] == ["three", "plain"] == [*plain["texts"]]
    assert plain["verdict"]
    assert plain["manifest"]["task"] == "compare"
    assert gradio.predict(**asked, api_name="/compare")["texts"] == plain["texts"]
    told = by_mcp(page, lambda asks: asks.call_tool("compare", asked))
    assert not told.isError
    assert told.structuredContent["texts"] == plain["texts"]
    assert [row["setup"] for row in told.structuredContent["rows"]] == ["three", "plain"]


def test_a_measurement(page: ExplorePage, client: httpx.Client) -> None:
    values = {"text": "Once upon a time there was a loop. " * 4, "loops": [1, 2], "window": 16}
    plain = by_http(client, "measure", task="perplexity", values=values).json()
    assert plain["end"] == "done", plain
    assert plain["rows"]
    assert plain["manifest"]["params"]["loops"] == [1, 2]
    asked = {"task": "perplexity", "values": values}
    told = by_mcp(page, lambda asks: asks.call_tool("measure", asked)).structuredContent
    assert [row["nats"] for row in told["rows"]] == [row["nats"] for row in plain["rows"]]


def test_a_run_that_is_kept_is_opened_by_its_id_and_by_its_link_and_nothing_is_run(
    page: ExplorePage, client: httpx.Client, gradio: gradio_client.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace, store = random_trace(21, 5, prompt_tokens=2), page.sharing.stored.store
    kept = store.save(trace, new_secret())
    monkeypatch.setattr(page.service.room, "get", None)  # no model is asked for
    plain = by_http(client, "open_run", run=kept.id, panels=["loops_per_token"]).json()
    assert Trace(plain["trace"]["meta"], plain["trace"]["frames"]) == trace
    assert plain["text"] == trace.text
    assert (plain["id"], plain["end"], plain["until"]) == (
        kept.id,
        trace.frames[-1]["finish"] or "stopped",
        round(kept.expires),
    )
    assert plain["panels"]["loops_per_token"]["rows"]
    filed = gradio.predict(run=f"https://loops.example.org/?run={kept.id}&lang=zh", trace="file", api_name="/open_run")
    assert loads(base64.b64decode(filed["file"]["data"])) == trace
    told = by_mcp(page, lambda asks: asks.call_tool("open_run", {"run": kept.id}))
    assert not told.isError
    assert "trace" not in told.structuredContent
    assert told.structuredContent["tokens"] == plain["tokens"]
    store.remove(kept.id)
    gone = by_http(client, "open_run", run=kept.id, lang="zh")
    assert (gone.status_code, gone.json()["error"]) == (422, text("zh", "stored.deleted"))
    again = by_mcp(page, lambda asks: asks.call_tool("open_run", {"run": kept.id}))
    assert again.isError
    assert again.content[0].text == text("en", "stored.deleted")
    assert idle(page)


def test_a_ttt_run_that_is_kept_is_opened_whole(
    page: ExplorePage, client: httpx.Client, gradio: gradio_client.Client
) -> None:
    trace = recorded_ttt()
    assert trace is not None
    kept = page.sharing.stored.store.save(trace, new_secret())
    plain = by_http(client, "open_run", run=kept.id, panels=["drift"]).json()
    assert Trace(plain["trace"]["meta"], plain["trace"]["frames"]) == trace
    assert (plain["id"], plain["model"], plain["text"]) == (kept.id, trace.meta["model"], trace.text)
    assert {tuple(token["loops"]) for token in plain["tokens"]} == {()}, "it has no loops"
    assert plain["panels"]["drift"]["rows"]
    address = f"https://loops.example.org/ttt?run={kept.id}"
    filed = gradio.predict(run=address, trace="file", api_name="/open_run")
    assert loads(base64.b64decode(filed["file"]["data"])) == trace
    told = by_mcp(page, lambda asks: asks.call_tool("open_run", {"run": address}))
    assert not told.isError
    assert told.structuredContent["tokens"] == plain["tokens"]
    other = by_http(client, "open_run", run=kept.id, panels=["convergence"])
    assert other.status_code == 422
    assert "panels" in other.json()["fields"], "that is a panel of Explore's"
    page.sharing.stored.store.remove(kept.id)


# --- refusals ----------------------------------------------------------------------------------------------------------------

REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    ("run", {}, "prompt", "is missing"),
    ("run", {"prompt": 3}, "prompt", "must be text"),
    ("run", {"prompt": "  "}, "prompt", ""),
    ("run", {"prompt": "x", "promt": "y"}, "promt", "not a field"),
    ("run", {"prompt": "x", "settings": {"loops": 3}}, "settings.loops", "not a field"),
    ("run", {"prompt": "x", "settings": {"loop_count": 10**6}}, "loop_count", ""),
    ("run", {"prompt": "x", "settings": [1]}, "settings", "mapping"),
    ("run", {"prompt": "x", "trace": "yes"}, "trace", "must be one of"),
    ("run", {"prompt": "x", "panels": ["none"]}, "panels", "must be one of"),
    ("run", {"prompt": "x", "model": "someone/else"}, "model", ""),
    ("run", {"prompt": "x", "model": "/etc/passwd"}, "model", ""),
    # what the model cannot have, or has no place for: on the page a control shows that it gave way
    ("run", {"prompt": "x", "settings": {"chat": True, "template": "alpaca"}}, "template", "alpaca"),
    ("run", {"prompt": "x", "settings": {"input": "y"}}, "input", "only template='alpaca' has a place for it"),
    ("run", {"prompt": "x", "settings": {"loop_norm": True}}, "loop_norm", ""),
    ("run", {"prompt": "x", "settings": {"block_end": 60}}, "block_end", ""),
    ("run", {"prompt": "x", "settings": {"loop_count": 9, "max_loop_count": 3}}, "loop_count", ""),
    ("open_run", {}, "run", "is missing"),
    ("open_run", {"run": "AAAAAAAAAAAAAAAAAAAAAA"}, "run", "no saved run"),
    ("open_run", {"run": "../../etc/passwd"}, "run", "no saved run"),
    ("open_run", {"run": "http://[?run=" + "x" * 5_000}, "run", "no saved run"),
    ("open_run", {"run": "x", "trace": "yes"}, "trace", "must be one of"),
    ("open_run", {"run": "x", "panels": ["none"]}, "panels", "must be one of"),
    ("compare", {"prompt": "x", "configurations": [{}]}, "cards", ""),
    ("compare", {"prompt": "x", "configurations": [{"name": 1}]}, "configurations.name", "must be text"),
    (
        "compare",
        {"prompt": "x", "configurations": [{"settings": {"greedy": 1}}]},
        "configurations.0.settings.greedy",
        "",
    ),
    ("measure", {"task": "none"}, "task", "perplexity"),
    ("measure", {"task": "perplexity", "values": {"loop": 1, "none": 2}}, "values.none", "not a field"),
    ("measure", {"task": "perplexity", "values": {"file": "/etc/passwd"}}, "file", ""),
]


@pytest.mark.parametrize(("tool", "asked", "field", "words"), REFUSED)
def test_what_is_wrong_is_refused_by_name(
    client: httpx.Client, tool: str, asked: dict[str, Any], field: str, words: str
) -> None:
    answer = by_http(client, tool, **asked)
    assert answer.status_code == 422, answer.text
    assert words in answer.json()["error"]
    assert field in answer.json()["fields"], answer.json()


def test_a_refusal_is_in_the_asked_language_and_the_same_in_every_way(
    page: ExplorePage, client: httpx.Client, gradio: gradio_client.Client
) -> None:
    asked = {"prompt": " ", "lang": "zh"}
    words = by_http(client, "run", **asked).json()["error"]
    assert re.search(r"[一-鿿]", words)
    told = by_mcp(page, lambda asks: asks.call_tool("run", asked))
    assert told.isError
    assert told.content[0].text == words
    with pytest.raises(gradio_client.exceptions.AppError, match=re.escape(words)):
        gradio.predict(**asked, api_name="/run")


def test_what_is_no_tool_is_no_tool(page: ExplorePage, client: httpx.Client) -> None:
    answer = by_http(client, "delete", prompt="x")
    assert answer.status_code == 404
    assert "run, open_run, compare, measure" in answer.json()["error"]
    assert client.post(f"{ADDRESS}/run", json=[1]).status_code == 422
    assert (
        client.post(f"{ADDRESS}/run", content="[" * 3000, headers={"content-type": "application/json"}).status_code
        == 400
    )
    assert client.post(f"{ADDRESS}/run", content="prompt=x").status_code == 415
    assert client.get(f"{ADDRESS}/run").status_code == 405
    assert client.get(MCP).status_code == 405
    foreign = {"origin": "http://evil.test"}
    assert client.post(MCP, json={}, headers=foreign).status_code == 403
    assert client.post(f"{ADDRESS}/run", json={"prompt": "x"}, headers=foreign).status_code == 403
    assert by_mcp(page, lambda asks: asks.call_tool("delete", {})).isError


def test_a_trace_that_is_too_large_is_refused_and_says_what_is_not(
    page: ExplorePage, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page.service.room, "profile", replace(page.service.room.profile, answer_bytes=100))
    answer = by_http(client, "run", prompt="Once", settings=SHORT)
    assert answer.status_code == 422
    assert "'none'" in answer.json()["error"]
    assert by_http(client, "run", prompt="Once", settings=SHORT, trace="none").status_code == 200


# --- as the README says ------------------------------------------------------------------------------------------------------

SAID = "http://127.0.0.1:7860"


def written(what: str) -> str:
    """The README's code for programs that speaks with a server by this package."""
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", README, re.S) if what in block]
    return code


def carried_out(code: str, page: ExplorePage) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(code.replace(SAID, page.demo.local_url.rstrip("/")), "README.md", "exec"), names)
    return names


def test_the_readme_s_python_asks_as_it_is_written(page: ExplorePage) -> None:
    trace = random_trace(21, 5)
    kept = page.sharing.stored.store.save(trace, new_secret())
    names = carried_out(written("gradio_client").replace("YOUR-RUN", kept.id), page)
    assert [row["setup"] for row in names["rows"]] == ["four loops", "plain"]
    assert names["saved"] == trace
    assert names["trace"].meta["prompt"] == "Once upon a time"
    assert len(names["trace"].steps)
    assert {row["loops"] for row in names["table"]} == {1, 2}


def test_the_readme_s_mcp_client_asks_as_it_is_written(page: ExplorePage) -> None:
    names = carried_out(written("ClientSession"), page)
    assert names["found"]["summary"]["new_tokens"] == 8
    part = README.split("## API")[1].split("\n## ")[0]
    (settings,) = map(json.loads, re.findall(r"```json\n(.*?)```", part, re.S))
    (server,) = settings["mcpServers"].values()
    assert server["url"] == f"{SAID}{MCP}"


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
def test_the_readme_s_curl_asks_as_it_is_written(page: ExplorePage) -> None:
    part = README.split("## API")[1].split("\n## ")[0]
    index, run = re.findall(r"^curl .*", part, re.M)
    told = []
    for line in (index, run):
        command = shlex.split(line.replace(SAID, page.demo.local_url.rstrip("/")))
        told.append(json.loads(subprocess.run(command, capture_output=True, check=True, timeout=120).stdout))
    assert {tool["name"] for tool in told[0]["tools"]} == TOOLS
    assert told[1]["summary"]["new_tokens"] == 8


# --- many --------------------------------------------------------------------------------------------------------------------

ENDLESS = {"prompt": "Once", "settings": {**SHORT, "max_new_tokens": 120, "loop_count": 16}, "trace": "none"}


def test_a_call_ends_when_its_caller_hangs_up(
    page: ExplorePage, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By plain HTTP and by MCP; a run that nobody waits for held its place to its end."""
    begun, seen = threading.Semaphore(0), []
    begin = page.service._begin

    def slow(wish: Any, asked: Any, loaded: Any) -> Any:
        run, frames = begin(wish, asked, loaded)

        def slowly() -> Iterator[Any]:
            for frame in frames:
                begun.release()
                time.sleep(0.05)
                yield frame

        seen.append(run)
        return run, slowly()

    monkeypatch.setattr(page.service, "_begin", slow)
    url = page.demo.local_url.rstrip("/")
    headers = {"accept": "application/json, text/event-stream"}
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "run", "arguments": ENDLESS}}
    for address, body in ((f"{url}{ADDRESS}/run", ENDLESS), (f"{url}{MCP}", call)):

        async def hang_up(address: str = address, body: Any = body) -> None:
            async with httpx.AsyncClient(timeout=60, headers=headers) as asks, anyio.create_task_group() as group:
                group.start_soon(functools.partial(asks.post, address, json=body))
                assert await anyio.to_thread.run_sync(lambda: begun.acquire(timeout=60))
                group.cancel_scope.cancel()

        anyio.run(hang_up)
        assert idle(page), address
        assert len(seen[-1].trace) < 100, "it has not run to its end"


def test_nobody_has_all_the_calls() -> None:
    calls = Calls(replace(PUBLIC, calls_of_one=1, calls_at_once=2))
    with calls.taken("a", "en"), calls.taken("b", "en"):
        with pytest.raises(ToolRefused, match="from your address") as own:
            calls.taken("a", "en").__enter__()
        with pytest.raises(ToolRefused, match="2 calls of programs") as all_of_them:
            calls.taken("c", "en").__enter__()
    assert own.value.full
    assert all_of_them.value.full
    with calls.taken("a", "zh"):
        pass
