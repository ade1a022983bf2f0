"""Another site's page in a Chromium: what it can start, stop and read of a server on the visitor's own machine."""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from benchmarks.attacks.addresses import addresses, events, functions
from benchmarks.attacks.finding import Finding, Options
from benchmarks.attacks.hub import TEMPLATE, standing_in
from benchmarks.attacks.left import FOX, SMOLLM2
from benchmarks.attacks.serving import Attacked, attacked
from benchmarks.attacks.visiting import API, Visitor, ready

SITE = "evil.test"
KINDS = ("application/json", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x")
SAFE = ("GET", "HEAD", "OPTIONS")
# Sends everything; says what it could read. What became of the others is seen in the browser's own list of answers.
SCRIPT = """async (asked) => {
  const read = [];
  for (const one of asked) {
    try {
      const body = one.method === 'GET' || one.method === 'HEAD' ? undefined : one.body;
      const headers = body === undefined || !one.kind ? {} : { 'Content-Type': one.kind };
      const options = { method: one.method, mode: one.mode, body, headers, credentials: one.credentials };
      const answer = await fetch(one.url, { ...options, signal: AbortSignal.timeout(2000) });
      if (answer.type !== 'opaque') read.push(`${one.method} ${one.url} ${answer.status}`);
    } catch {}
  }
  return read;
}"""
LISTEN = """async (urls) => {
  const heard = [];
  for (const url of urls) {
    const line = new EventSource(url);
    line.onmessage = () => heard.push(url);
    await new Promise((done) => setTimeout(done, 700));
    line.close();
  }
  return heard;
}"""
EMBED = """async (urls) => {
  const got = [];
  for (const [url, tag] of urls) {
    await new Promise((done) => {
      const made = Object.assign(document.createElement(tag), { src: url, onload: () => { got.push(`${tag} ${url}`); done(); }, onerror: done });
      document.body.append(made);
      setTimeout(done, 1500);
    });
  }
  return got;
}"""


def row(options: Options) -> Finding:
    from playwright.sync_api import sync_playwright

    from scripts.run import find_chromium

    wrong: list[str] = []
    with (
        standing_in() as hub,
        attacked("local", environ={"HF_ENDPOINT": hub.url}) as server,
        another_site() as site,
        sync_playwright() as playwright,
    ):
        ready(server, SMOLLM2)
        victim, measuring = Visitor(server), Visitor(server, "lab")
        victim.begin(
            ("Once upon a time", {"model": SMOLLM2, "block_start": 10, "block_end": 14, "max_new_tokens": 1024})
        )
        task = {"model": SMOLLM2, "task": "perplexity", "values": {"text": FOX * 400, "loops": "8", "window": "512"}}
        measuring.begin(task)
        run = victim.wait(lambda said: "run" in said, 60) or {}
        measuring.wait(lambda said: "run" in said, 60)
        rules = f"MAP {SITE} 127.0.0.1"
        arguments = ["--no-sandbox", f"--host-resolver-rules={rules}"]
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=arguments)
        page = browser.new_page()
        answers: list[tuple[str, str, int]] = []
        page.context.on("response", lambda answer: answers.append((answer.request.method, answer.url, answer.status)))
        page.goto(f"http://{SITE}:{site}/")
        asked = requests(server, victim, measuring, str(run.get("run")))
        options.say(f"{len(asked)} requests")
        hub.asked.clear()
        read = [said for said in page.evaluate(SCRIPT, asked) if said]
        lines = [f"/loopviz-run/{run.get('run')}", f"{API}/queue/data?session_hash={victim.session}"]
        lines += [f"{API}/heartbeat/{victim.session}", f"{API}/dev/reload"]
        read += [f"stream {said}" for said in page.evaluate(LISTEN, [server.url + line for line in lines])]
        places = [(server.url + path, "iframe") for path in ("/", "/lab", "/compare", "/config")]
        page.evaluate(EMBED, [*places, (f"{server.url}/config", "script"), (f"{server.url}/config", "img")])
        framed = [frame.url for frame in page.frames[1:] if "data-script" in content_of(frame)]
        read += [f"framed: {url}" for url in framed]
        started = [
            f"{method} {urlsplit(url).path} answered {status}"
            for method, url, status in answers
            if url.startswith(server.url) and method not in SAFE and status < 400
        ]
        rebound = rebinding(browser, server, wrong)
        linked(browser, server, hub.asked, wrong)
        asked_hub = [path for path in hub.asked if "agent" not in path]
        wrong += [f"started: {said}" for said in started] + [f"read: {said}" for said in read]
        wrong += [f"started: the Hub was asked for {path}" for path in asked_hub]
        stopped = stopped_of(victim) + stopped_of(measuring)
        wrong += [f"stopped: {said}" for said in stopped]
        browser.close()
        for visitor in (victim, measuring):
            visitor.stop(patience=10)
            visitor.leave()
    found = f"{len(asked) + len(lines) + len(places) + rebound} requests: {len(started) + len(asked_hub)} started, "
    found += f"{len(stopped)} stopped, {len(read)} read"
    return Finding("from another origin, in Chromium: every address", "0 started, 0 stopped, 0 read", found, wrong)


def requests(server: Attacked, victim: Visitor, measuring: Visitor, run: str) -> list[dict[str, Any]]:
    """Every address, in every way a page can ask; knowing what a stranger cannot know: the run, the session, the ticket."""
    found: list[dict[str, Any]] = []

    def send(method: str, path: str, body: str = "", kinds: tuple[str, ...] = KINDS) -> None:
        for kind in kinds if method not in SAFE else ("",):
            for mode in ("no-cors", "cors"):
                if mode == "no-cors" and method not in ("GET", "HEAD", "POST"):
                    continue
                one = {"method": method, "url": server.url + path, "mode": mode, "kind": kind, "body": body}
                found.append({**one, "credentials": "include" if mode == "no-cors" else "omit"})

    for address in addresses():
        path = address.path.replace("{run}", run).replace("{session_hash}", victim.session)
        send(address.method, re.sub(r"\{\w+\}", "x", path), "{}", KINDS[:2])
    question = json.dumps({"model": TEMPLATE, "lang": "en", "ticket": measuring.ticket, "run": run, "again": True})
    for component, name in functions(victim):
        body = {"data": question, "component_id": component, "fn_name": name, "session_hash": victim.session}
        send("POST", f"{API}/component_server", json.dumps(body))
    for event in events(victim):
        asked = {"data": [None] * len(event["inputs"]), "fn_index": event["id"], "session_hash": victim.session}
        for path in (f"{API}/queue/join", f"{API}/run/predict", f"{API}/call/predict"):
            send("POST", path, json.dumps(asked), KINDS[:2])
    send("POST", f"/loopviz-run/{run}", "")
    send("POST", f"{API}/cancel", json.dumps({"session_hash": victim.session, "fn_index": 66, "event_id": "x"}))
    form = '--x\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\nhello\r\n--x--\r\n'
    send("POST", f"{API}/upload", form, KINDS[3:])
    return found


def content_of(frame: Any) -> str:
    """A frame's document; "" of one that shows nothing of ours."""
    with contextlib.suppress(Exception):
        return frame.content()
    return ""


def rebinding(browser: Any, server: Attacked, wrong: list[str]) -> int:
    """The other site's own name, pointed at this server: its page would be of the same origin. How many were asked."""
    page, paths = browser.new_page(), ("/", "/config", "/lab", f"{API}/info")
    for path in paths:
        answer = page.goto(f"http://{SITE}:{server.port}{path}")
        if answer is not None and answer.status < 400:
            wrong.append(f"read: http://{SITE} pointed at the server: {path} answered {answer.status}")
    page.close()
    return len(paths)


def linked(browser: Any, server: Attacked, hub: list[str], wrong: list[str]) -> None:
    """A link that names a model of the Hub, followed: nothing is fetched before anything is clicked."""
    from loopviz.app import controls as st
    from loopviz.app.controls.link_word import PageState, encode

    word, _ = encode(PageState(values={**st.defaults(), "model": TEMPLATE}, prompt="hello"))
    for path in (f"/?s={word}", f"/compare?s={word}", f"/lab?s={word}"):
        page, before = browser.new_page(), len(hub)
        page.goto(server.url + path)
        page.wait_for_timeout(4_000)
        if len(hub) > before:
            wrong.append(f"started: the link {path[:12]}... had {hub[before]} fetched")
        page.close()


def stopped_of(visitor: Visitor) -> list[str]:
    """Whether a visitor's run has been ended by another; what was said of it."""
    since = time.monotonic()
    ended = [said for _, said in visitor.told if said["kind"] == "completed" or said.get("end")]
    if ended:
        return [f"{visitor.page}: {str(ended[-1])[:160]}"]
    alive = visitor.wait(lambda said: said["kind"] in ("frames", "news"), 30, since)
    return [] if alive else [f"{visitor.page}: nothing came for 30 s"]


@contextlib.contextmanager
def another_site() -> Iterator[int]:
    """A page of nobody's, and its port."""

    class Page(http.server.BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><meta charset=utf-8><title>another site</title><body>")

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
