"""In a real browser: the policy the pages run under, what another site can do (nothing), a link that names a model."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from playwright.sync_api import Browser, BrowserContext, Page, expect

from loopviz.app import controls as st
from loopviz.app.contract import QUERIES
from loopviz.app.controls.link_word import PageState, encode
from loopviz.panels.loop import state_trajectory
from loopviz.trace.file import save
from scripts.serving import served
from tests.app.server.test_request_guard import CLOSED, GRADIO_S_OPEN, OURS_OPEN, filled, listed
from tests.browser.conftest import PATIENCE, left, opened
from tests.browser.test_explore import data, drawn, ended, inside, reached, run, settle
from tests.browser.test_sharing import saved, short_run
from tests.conftest import make_llama
from tests.trace.synthetic import random_trace

Visit = Callable[..., Page]
_WATCH = """window.broken = [];
document.addEventListener('securitypolicyviolation', (e) => window.broken.push(`${e.effectiveDirective} ${e.blockedURI}`));"""


@pytest.fixture
def watched(visit: Visit, usual_context: BrowserContext) -> Visit:
    """As `visit`, with every breach of the page's policy noted from the beginning; a page not watched has no list to be empty."""

    def open_watched(query: str = "", **options: Any) -> Page:
        usual_context.once("page", lambda page: page.add_init_script(_WATCH))
        return visit(query, **options)

    return open_watched


def _kept(page: Page) -> None:
    assert page.evaluate("window.broken") == []


# --- the policy ----------------------------------------------------------------------------------------------------------


def test_explore_keeps_the_policy_it_runs_under(watched: Visit, tmp_path: Path) -> None:
    """Opened in Chinese, with a picture in space, and made English; :func:`test_explore_in_english_makes_no_script_of_a_text_tells_what_failed_and_keeps_its_policy` opens it in English."""
    page = watched("?lang=zh")
    short_run(page)
    page.get_by_label(state_trajectory.TEXTS["zh"]["dims"], exact=True).select_option(
        label=state_trajectory.TEXTS["zh"]["dims_3"]
    )
    expect(page.locator("[data-panel=state_trajectory] .gl-container canvas").first).to_be_attached()
    _kept(page)
    page.click("#lv-lang label:has-text('English')")
    expect(page.locator("#lv-run")).to_have_text("Run")
    assert saved(page, "Report", tmp_path).stat().st_size > 10**5
    file = saved(page, "Save run", tmp_path)
    page.locator(".lv input[type=file]").set_input_files(file)
    expect(page.locator(".lv-badge")).to_contain_text("opened file")
    _kept(page)


# what the server answers to a question that failed
_FAILED = json.dumps({"kind": "failed", "state": "failed", "text": "something went wrong. Reference 0a1b2c3d"})


def test_compare_and_the_lab_keep_their_policy_and_a_question_that_failed_is_told(
    watched: Visit, tmp_path: Path
) -> None:
    page = watched(at="compare")
    page.locator(".lv-asking > details > summary").click()
    page.locator("[data-field=max_new_tokens] input").fill("4")
    page.locator(".lv-go").click()
    expect(page.locator('.lv-page[data-end="done"][data-drawn="true"]')).to_be_visible()
    _kept(page)
    # a question that failed is told with its reference
    page.route("**/component_server**", lambda route: route.fulfill(json=_FAILED))
    page.evaluate("document.querySelector('.lv-page').page.check(0)")
    expect(page.locator(".lv-asking .lv-status.lv-bad")).to_contain_text("0a1b2c3d")
    page = watched(at="lab")
    page.locator("[data-field=text] textarea").fill("Once upon a time there was a little loop. " * 3)
    page.locator(".lv-sizes button").first.click()
    expect(page.locator('.lv-page[data-end="done"][data-drawn="true"]')).to_be_visible()
    for button in page.locator(".lv-files button").all():
        with page.expect_download() as chosen:
            button.click()
        assert Path(chosen.value.path()).stat().st_size > 100
    _kept(page)


def test_explore_in_english_makes_no_script_of_a_text_tells_what_failed_and_keeps_its_policy(
    watched: Visit, tmp_path: Path
) -> None:
    """One visit: texts that would be scripts, a line that is full, a run, a file with an override, a question that fails."""
    page = watched()

    # no text becomes a script
    made = """(source) => { try { return Function(source)(); } catch (error) { return error.name; } }"""
    later = """async (source) => {
      const Async = Object.getPrototypeOf(async function () {}).constructor;
      try { return await Async(source)(); } catch (error) { return error.name; }
    }"""
    for attempt in (made, later):
        assert page.evaluate(attempt, "return 'ran'") == "EvalError"
        assert page.evaluate(attempt, "return `${1 + 1}`;") == "EvalError"
    assert page.evaluate(made, 'return "words";') == "words", "a text without a field is what it says"

    # a line that is full is said beside Run, until a run starts
    inside(
        page, "page.status({ text: 'Not started: 64 runs are waiting', bad: true, over: true, full: true, n: page.n })"
    )
    inside(page, "page.mark()")
    expect(page.locator("#lv-buttons .lv-state")).to_have_text("Not started: 64 runs are waiting")
    short_run(page)
    expect(page.locator("#lv-buttons .lv-state")).not_to_contain_text("Not started")

    # L17: a token may end in an unclosed right-to-left override; it turns no other around
    trace = random_trace(3, 9)
    for at, said in enumerate(("one ", "\u202etwo ", "three ", "four ")):
        trace.frames[at]["text"] = said
    save(trace, tmp_path / "override.loopviz")
    page.locator(".lv input[type=file]").set_input_files(tmp_path / "override.loopviz")
    expect(page.locator(".lv-badge")).to_contain_text("opened file")
    expect(page.locator(".lv-text .lv-tok").nth(3)).to_contain_text("four")  # the text of the run before has gone
    drawn(page)
    lefts = [box["x"] for token in page.locator(".lv-text .lv-tok").all()[:4] if (box := token.bounding_box())]
    assert lefts == sorted(lefts)
    assert len(lefts) == 4
    assert inside(page, "page.tokens[1][0]") == "\u202etwo "
    _kept(page)

    # a question that failed is told with its reference
    page.route("**/component_server**", lambda route: route.fulfill(json=_FAILED))
    inside(page, "page.look({ token: 1 })")
    page.wait_for_function("() => document.querySelector('.lv').page.said.includes('0a1b2c3d')")


@pytest.fixture(scope="module")
def space_url() -> Iterator[str]:
    """The app as a Space starts it."""
    space = {"SYSTEM": "spaces", "SPACE_ID": "someone/loopviz", "SPACE_HOST": "someone-loopviz.hf.space"}
    with served([sys.executable, "app.py"], env={**os.environ, **space, "OMP_NUM_THREADS": "1"}) as (url, _):
        yield url


def test_a_space_asks_nobody_else_for_anything(browser: Browser, space_url: str) -> None:
    """L12: Gradio's script asked a font server, and the Hub about the Space."""
    context = browser.new_context()
    page, asked, said = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    for at, ready in (("", "#lv-run"), ("compare", ".lv-go"), ("lab", ".lv-tasks")):
        page.goto(space_url + at)
        page.wait_for_selector(f'[data-ready="1"] {ready}, {ready}', timeout=PATIENCE)
        page.wait_for_load_state("load")
    context.close()
    assert [url for url in asked if not url.startswith((space_url, "data:", "blob:"))] == []
    assert said == []


# --- other sites ---------------------------------------------------------------------------------------------------------

_ATTACK = """async ([base, addresses, question, run]) => {
  const found = [];
  const attempt = async (method, path, mode, type, body) => {
    try {
      const options = { method, mode, credentials: "include" };
      if (method === "POST") Object.assign(options, { body, headers: { "Content-Type": type } });
      const stop = AbortSignal.timeout(5000);
      const answer = await fetch(base + path, { ...options, signal: stop });
      if (answer.type !== "opaque") found.push([method, path, answer.status]);
    } catch {}
  };
  const waiting = [];
  for (const [method, path] of addresses) {
    for (const mode of ["cors", "no-cors"]) {
      for (const type of method === "POST" ? ["text/plain", "application/json", "application/octet-stream"] : [""]) {
        const body = path.includes("component_server") ? question : JSON.stringify({ data: [], fn_index: 0, session_hash: "x" });
        waiting.push(attempt(method, path, mode, type, body));
      }
    }
  }
  waiting.push(attempt("POST", `loopviz-run/${run}`, "no-cors", "text/plain", "{}"));
  waiting.push(attempt("GET", `loopviz-run/${run}`, "cors", "", ""));
  waiting.push(attempt("GET", `loopviz-share/${run}/trace`, "cors", "", ""));
  await Promise.all(waiting);
  const form = Object.assign(document.createElement("form"), { method: "POST", action: `${base}gradio_api/component_server`, enctype: "text/plain", target: "inner" });
  form.append(Object.assign(document.createElement("input"), { name: question.slice(0, -1) + ', "x": "', value: '"}' }));
  document.body.append(form);
  form.submit();
  return found;
}"""


class _Elsewhere(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"<!doctype html><title>another site</title><iframe name=inner width=600 height=400></iframe>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[int]:
    """The port of another site."""
    server = HTTPServer(("0.0.0.0", 0), _Elsewhere)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


def test_visits_that_are_not_from_the_page_start_stop_and_read_nothing(
    visit: Visit, browser: Browser, app_url: str, elsewhere: int
) -> None:
    """From another site, another name of this machine, another port of it: every address of the app, while a run is made."""
    page = visit()
    settle(page, "sampling", "max_new_tokens", 60)
    config = httpx.get(f"{app_url}config").json()
    element = next(c["id"] for c in config["components"] if c["props"].get("elem_id") == "lv-live")
    wanted = {"component_id": element, "fn_name": "model_status", "session_hash": "x"}
    question = json.dumps({**wanted, "data": json.dumps({"model": "stories-noinject"})})
    asked = {**wanted, "data": json.dumps({"model": "stories-noinject", "look": True})}
    addresses = [
        [m, filled(path)[1:]] for m, path in sorted(listed(GRADIO_S_OPEN) | listed(OURS_OPEN) | listed(CLOSED))
    ]
    for host in ("127.0.0.2", "localhost", "127.0.0.1"):
        running = run(page, "Once upon a time")
        reached(page, 8)
        context = browser.new_context()
        evil = context.new_page()
        evil.goto(f"http://{host}:{elsewhere}/")
        found = evil.evaluate(_ATTACK, [app_url, addresses, question, running])
        assert [one for one in found if one[2] != 403] == [], host
        evil.evaluate("(base) => { document.querySelector('iframe').src = base; }", app_url)
        evil.wait_for_timeout(1000)
        assert all(frame.locator("gradio-app").count() == 0 for frame in evil.frames), f"the page is framed by {host}"
        context.close()
        ended(page)  # it went on to its end
        assert data(page, "run") == running, host
        state = json.loads(httpx.post(f"{app_url}gradio_api/component_server", json=asked).json())["state"]
        assert state == "waiting", f"another site has begun to load a model: {host}"


# --- links ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("lang", "asks"), [("en", "This link asks for the model"), ("zh", "此链接要求使用模型")])
def test_link_that_downloads_asks_first(
    usual_context: BrowserContext, app_url: str, tmp_path: Path, tiny_tokenizer: Any, lang: str, asks: str
) -> None:
    folder = tmp_path / "driveby"
    make_llama(num_hidden_layers=12, hidden_size=64, max_position_embeddings=1024).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    with torch.no_grad():
        word, _ = encode(PageState({**st.defaults(), "model": str(folder), "max_new_tokens": 4}, "Once upon a time"))
    config = httpx.get(f"{app_url}config").json()
    element = next(c["id"] for c in config["components"] if c["props"].get("elem_id") == "lv-live")
    asked = {"component_id": element, "fn_name": "model_status", "session_hash": "x"}
    asked["data"] = json.dumps({"model": str(folder), "look": True})

    def state() -> str:
        return json.loads(httpx.post(f"{app_url}gradio_api/component_server", json=asked).json())["state"]

    for at in ("", "compare"):
        page = opened(usual_context)
        page.goto(f"{app_url}{at}?{QUERIES['link']}={word}&lang={lang}")
        asking = page.locator(".lv-ask-model")
        expect(asking).to_contain_text(str(folder), timeout=PATIENCE)
        if not at or lang == "en":
            expect(asking).to_contain_text(asks)
        page.wait_for_timeout(2000)
        expect(asking).to_be_visible()
        assert state() == "waiting", "the link has opened a folder"
        if at:
            asking.locator("button").click()
            expect(asking).to_be_hidden()
            page.wait_for_selector('[data-ready="1"][data-model="ready"]', timeout=PATIENCE)
            assert state() == "ready"
        left(page)
