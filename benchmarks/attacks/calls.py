"""Random hostile calls over every callable address: no answer 500, none late, none that tells of the server."""

from __future__ import annotations

import json
import random
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import quote

from benchmarks.attacks.addresses import addresses, events, functions
from benchmarks.attacks.far_ends import warm
from benchmarks.attacks.finding import Finding, Options, most
from benchmarks.attacks.serving import MIB, ROOT, Attacked, attacked
from benchmarks.attacks.visiting import API, Answer, Visitor, ready, request

CALLS = 2_000
LATE = 5.0  # seconds
FLAT = 12  # threads and files that may be more than before: connections close when they like
SETTLES = 30.0  # seconds in which what a call began may end
STREAMS = re.compile(
    rf"{API}/(heartbeat|queue/data)|/loopviz-run/|/loopviz-mcp$"
)  # lines that stand, by intent, and MCP's answers
_TELLS = (
    "Traceback (most recent call last)",
    'File "/',
    "site-packages",
    str(ROOT),
    sys.prefix,
    str(Path.home()) + "/",
)


def row(options: Options) -> Finding:
    calls, wrong = options.trials or CALLS, []
    with attacked() as server:
        ready(server, "stories-loop")
        warm(server)
        server.rest()
        counts, before = server.counts(), server.held()
        answers = attack(server, calls, options.seed, wrong)
        alive = server.alive
        until = time.monotonic() + SETTLES
        while alive and time.monotonic() < until:
            now = server.counts()
            if all(new - old <= FLAT for new, old in zip(now, counts, strict=True)):
                break
            time.sleep(1)
        if not alive:
            wrong.append(f"the server is gone: {server.ended or server.words()[-400:]}")
        else:
            if any(new - old > FLAT for new, old in zip(now, counts, strict=True)):
                wrong.append(f"threads, files: {counts} before, {now} after")
            page = request(server, "GET", "/")
            if page.status != 200:
                wrong.append(f"GET / after it all: {page.status}")
        grown = server.held() - before if alive else 0
    statuses = Counter(answer.status for answer in answers)
    told = ", ".join(f"{n} x {status or 'cut'}" for status, n in sorted(statuses.items()))
    found = f"{len(answers)} calls: {told}; slowest {most([a.seconds for a in answers]):.1f} s; "
    found += f"threads, files {counts} -> {now}; memory {grown / MIB:+.0f} MiB" if alive else "the server is gone"
    bar = f"0 answers 500, 0 over {LATE:g} s, 0 paths or stacks; alive, threads and files as before"
    return Finding(f"{calls:,} random hostile calls over every callable address", bar, found, wrong)


def attack(server: Attacked, calls: int, seed: int, wrong: list[str]) -> list[Answer]:
    """Make the calls; what is wrong with an answer goes into `wrong`."""
    rng, visitor, answers = random.Random(seed), Visitor(server), []
    makers = (an_event, an_event, a_question, a_question, an_address, a_tool)
    for number in range(calls):
        method, path, body, headers = rng.choice(makers)(rng, visitor)
        answer = request(server, method, path, body, headers, patience=LATE + 3, most=2_000_000)
        answers.append(answer)
        said = fault(method, path, answer)
        if said and (reference := re.search(r"[Rr]eference (\w+)", answer.text)):
            said += f"; in the log: {cause(server, reference.group(1))}"
        if said:
            shown = (body or b"")[:160].decode("utf-8", "replace")
            wrong.append(f"call {number} {method} {path[:120]} {headers.get('Content-Type', '')} {shown!r}: {said}")
        if not server.alive:
            break
        if not number % 50:
            visitor.leave()
            visitor = Visitor(server)
    visitor.leave()
    return answers


def cause(server: Attacked, reference: str) -> str:
    """The end of what the log says under a reference: the lines of our code, and the error."""
    logged = server.words().partition(reference)[2][:20_000]
    lines = logged.splitlines()
    last = next((n for n, line in enumerate(lines) if re.match(r"[\w.]+(Error|Exception|Warning|Exit)?: ", line)), 0)
    own = [line.strip() for line in lines[:last] if "File " in line]
    return " < ".join([lines[last][:200] if lines else "nothing", *own[-3:][::-1]])


def fault(method: str, path: str, answer: Answer) -> str:
    """What is wrong with an answer."""
    streamed = answer.headers.get("content-type", "").startswith("text/event-stream")
    if streamed and not STREAMS.match(path):
        return "a stream that nothing uses"
    if answer.status >= 500 and answer.status != 503:
        return f"status {answer.status}: {answer.text[:100]!r}"
    if answer.seconds > LATE and not streamed:
        return f"{answer.seconds:.1f} s"
    source = path.startswith(("/loopviz-source", "/loopviz-assets", "/assets", "/static"))
    tells = () if source and answer.status == 200 else (*_TELLS, tempfile.gettempdir() + "/")
    return next((f"tells {word!r}" for word in tells if word in answer.text), "")


# --- what is sent ---------------------------------------------------------------------------------------------------------

Call = tuple[str, str, bytes | None, dict[str, str]]


def an_event(rng: random.Random, visitor: Visitor) -> Call:
    event = rng.choice(events(visitor))
    data = [value(rng) for _ in event["inputs"]] if rng.random() < 0.5 else form(rng, visitor, event)
    if rng.random() < 0.2:
        data = [*data[: rng.randrange(len(data) + 1)], value(rng)]
    asked = {"data": data, "fn_index": event["id"], "session_hash": visitor.session, "event_data": told(rng)}
    if rng.random() < 0.3:
        asked[rng.choice([*list(asked), "trigger_id", "simple_format", "batched", "event_id"])] = value(rng)
    path = rng.choice((f"{API}/run/predict", f"{API}/queue/join", f"{API}/call/predict", f"{API}/api/predict"))
    return "POST", path, *packed(rng, asked)


def form(rng: random.Random, visitor: Visitor, event: dict[str, Any]) -> list[Any]:
    """What a page would send, but for one value."""
    parts = {c["id"]: c["props"].get("value") for c in visitor.server.config["components"]}
    data = [parts.get(n) for n in event["inputs"]]
    if data:
        data[rng.randrange(len(data))] = value(rng)
    return data


def told(rng: random.Random) -> Any:
    """The data of an event: a measurement, a comparison, a start; or anything."""
    known = {"n": 1, "wishes": "{}", "lang": "en", "ticket": "t" * 32, "model": "stories-loop", "prompt": "Once"}
    known |= {"task": rng.choice(("perplexity", "exits", "nothing")), "run": "recorded"}
    known |= {"values": {"text": "Once upon a time", "loops": "1"}, "cards": [{"values": {}}, {"values": {}}]}
    if rng.random() < 0.4:
        return value(rng)
    known[rng.choice(list(known))] = value(rng)
    if rng.random() < 0.3:
        known["values"] = {rng.choice(("text", "loops", "batch", "window", "file", "paths")): value(rng)}
    return known


def a_question(rng: random.Random, visitor: Visitor) -> Call:
    component, name = rng.choice(functions(visitor))
    asked = {rng.choice(("run", "focus", "view", "model", "cards", "place", "row", "lang", "word", "kind")): value(rng)}
    asked |= {"run": "recorded"} if rng.random() < 0.5 else {}
    data = rng.choice((json.dumps(asked), json.dumps(value(rng)), value(rng), "[" * 3000, "{" * 1000))
    body = {"data": data, "fn_name": name, "component_id": component, "session_hash": visitor.session}
    if rng.random() < 0.3:
        body[rng.choice(list(body))] = value(rng)
    return "POST", f"{API}/component_server", *packed(rng, body)


def a_tool(rng: random.Random, visitor: Visitor) -> Call:
    """What a program asks, but for one value or two; by plain HTTP, or by MCP."""
    name = rng.choice(("run", "compare", "measure", word(rng)))
    asked: dict[str, Any] = {"prompt": "Once upon a time", "settings": {"max_new_tokens": 2}, "trace": "none"}
    if name == "compare":
        asked = {"prompt": "Once", "configurations": [{"loop_count": 1}, {"loop_count": 2}]}
    if name == "measure":
        asked = {"task": "perplexity", "values": {"text": "Once upon a time. " * 9, "loops": [1], "window": 16}}
    for _ in range(rng.choice((1, 1, 2))):
        asked[rng.choice((*asked, "settings", "values", "model", "lang", "panels", "trace", "task"))] = value(rng)
    if rng.random() < 0.2:
        asked["settings"] = {
            rng.choice(("loop_count", "model", "max_new_tokens", "temperature", word(rng))): value(rng)
        }
    if rng.random() < 0.3:
        called = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": asked}}
        body, kind = packed(rng, called)
        return "POST", "/loopviz-mcp", body, {**kind, "Accept": "application/json, text/event-stream"}
    return "POST", f"/loopviz-api/{quote(name, safe='')}", *packed(rng, asked)


def an_address(rng: random.Random, visitor: Visitor) -> Call:
    address = rng.choice(addresses())
    path = re.sub(r"\{\w+\}", lambda place: quote(word(rng), safe=rng.choice(("", "/%"))), address.path)
    path += rng.choice(("", "", "?session_hash=x", f"?lang={quote(word(rng))}", "?view=%5B%5B%5B&lang=zh"))
    methods = (address.method,) * 4 + ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH")
    method = rng.choice(methods)
    if method in ("GET", "HEAD", "OPTIONS"):
        return method, path, None, {}
    known = {"session_hash": "x", "fn_index": rng.choice((0, 66, 9_999)), "event_id": "x", "data": [value(rng)]}
    return method, path, *packed(rng, known)


WORDS = (
    "",
    "x",
    "recorded",
    "..",
    "../../../../etc/passwd",
    "~",
    "~root",
    "/etc/passwd",
    "C:\\x",
    "%00",
    "\x00",
    "loopviz/app/main.py",
)
WORDS += (
    "http://127.0.0.1:9/",
    "file:///etc/passwd",
    "a" * 5_000,
    "\u202eabc",
    "页",
    "None",
    "-1",
    "1e400",
    "explore/main.js",
    "{{7*7}}",
)


def word(rng: random.Random) -> str:
    return rng.choice(WORDS)


def value(rng: random.Random, depth: int = 0) -> Any:
    """Anything that JSON can hold, and what it should not."""
    kinds = [
        None,
        True,
        0,
        -1,
        10**18,
        -(10**30),
        1e308,
        0.5,
        "",
        [],
        {},
        "stories-loop",
        "a\x00b",
        "\ud800",
        "<script>",
    ]
    kinds += [word(rng), [[[]]], {"__type__": "update"}, {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}]
    kinds += [float("nan"), float("inf"), "x" * rng.choice((10, 5_000, 300_000)), Nested(rng.choice((10, 900, 3_000)))]
    if depth < 3 and rng.random() < 0.2:
        return [value(rng, depth + 1) for _ in range(rng.randrange(6))]
    if depth < 3 and rng.random() < 0.2:
        return {word(rng)[:60]: value(rng, depth + 1) for _ in range(rng.randrange(4))}
    return rng.choice(kinds)


class Nested(str):
    """So many brackets, once it is written: deeper than Python itself writes them."""

    def __new__(cls, depth: int) -> Nested:
        made = super().__new__(cls, f"@@{depth}@@")
        return made


def packed(rng: random.Random, asked: Any) -> tuple[bytes, dict[str, str]]:
    """A body and its kind: mostly what it says it is."""
    text = re.sub(r'"@@(\d+)@@"', lambda m: "[" * int(m.group(1)) + "]" * int(m.group(1)), json.dumps(asked))
    kinds = (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/xml",
        "",
    )
    body, kind = text.encode(), "application/json" if rng.random() < 0.75 else rng.choice(kinds)
    if rng.random() < 0.1:
        body = rng.choice((b"", b"{", b"\xff\xfe\x00", body[: len(body) // 2], b"[" * 100_000, b'{"data":' * 2_000))
    if kind.startswith("multipart"):
        body = (
            b'--x\r\nContent-Disposition: form-data; name="files"; filename="../a.txt"\r\n\r\n'
            + body
            + b"\r\n--x--\r\n"
        )
    return body, {"Content-Type": kind} if kind else {}
