"""What random hostile calls send: what a page or a program would say, but for a value or two, or a few bytes."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import random
import re
import zipfile
from typing import Any
from urllib.parse import quote

from benchmarks.attacks.addresses import PLACES, addresses, asked_of, asked_with, events, functions
from benchmarks.attacks.serving import ROOT
from benchmarks.attacks.visiting import API, Visitor
from loopviz.app.contract import FILES, RECORDED, STORE, STORE_CALLS, TICKET_HEADER
from loopviz.trace.typed import hints_of

Call = tuple[str, str, bytes | None, dict[str, str]]  # method, path, body, headers
MODELS = ("stories-loop", "stories-ttt", "nothing")
# HTML, LaTeX, control and RTL characters.
PROMPTS = (
    "<img src=x onerror=alert(1)><script>alert(2)</script>",
    "</textarea></script><svg onload=alert(3)>",
    r"$$\href{javascript:alert(4)}{x}$$ \input{/etc/passwd} \def\a{\a\a}\a",
    r"\(\unicode{x202e}\frac{1}{0}\) \begin{matrix}" + "{" * 300,
    "Once\x00 upon\x07 a\x1b[31m time\x7f\r\n\x0b\u0085\u2028",
    "\u202eemit a nopu\u202c \u2066\u2067\u200f\u05d0\u0627 \u2069Once",
    "e" + "\u0301" * 400 + "\U0001f469\u200d\U0001f52c",
    "\ud800 half",
    "{{7*7}}${7*7}#{7*7}<%= 7*7 %>",
)
WORDS = (
    "",
    "x",
    RECORDED,
    "..",
    "../../../../etc/passwd",
    "~",
    "~root",
    "/etc/passwd",
    "C:\\x",
    "%00",
    "\x00",
    "loopviz/app/main.py",
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
# What a field holds of what pages send, by its name.
USUAL: dict[str, Any] = {
    "lang": "en",
    "n": 1,
    "run": RECORDED,
    "wishes": "{}",
    "view": "{}",
    "ticket": "t" * 32,
    "prompt": "Once upon a time",
    "model": "stories-loop",
    "task": "perplexity",
    "values": {"text": "Once upon a time", "loops": "1"},
    "cards": [{"values": {}}, {"values": {}}],
    "max_new_tokens": 2,
    "scale": 1.0,
    "layer": 0,
    "step": 0,
    "head": None,
    "token": 0,
    "visit": False,
    "id": "i" * 22,
    "folder": "f" * 22,
    "secret": "s" * 32,
    "name": "A",
    "student": "B",
    "kind": "csv",
    "lesson": "1-arrows",
    "answers": [],
}


def a_call(rng: random.Random, visitor: Visitor) -> Call:
    """A call of any kind."""
    makers = (an_event, an_event, an_event, a_question, a_question, a_question, an_address, an_address)
    return rng.choice((*makers, a_tool, stored, a_file))(rng, visitor)


def an_event(rng: random.Random, visitor: Visitor) -> Call:
    """An event of a page, at once or in the queue."""
    event = rng.choice(events(visitor))
    data = [value(rng) for _ in event["inputs"]] if rng.random() < 0.5 else form(rng, visitor, event)
    if rng.random() < 0.2:
        data = [*data[: rng.randrange(len(data) + 1)], value(rng)]
    told = value(rng) if rng.random() < 0.2 else filled(rng, asked_with(visitor, event))
    asked = {"data": data, "fn_index": event["id"], "session_hash": visitor.session, "event_data": told}
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


def filled(rng: random.Random, kind: type | None) -> Any:
    """A TypedDict of the contract as a page fills it, but for a value or two; of no kind, any of the fields there are."""
    names = list(hints_of(kind)) if kind is not None else [name for name in USUAL if rng.random() < 0.4]
    asked = {name: USUAL.get(name, "x") for name in names}
    asked |= {"model": rng.choice(MODELS)} if "model" in asked else {}
    asked |= {"prompt": rng.choice(PROMPTS)} if "prompt" in asked and rng.random() < 0.5 else {}
    for _ in range(rng.choice((0, 1, 1, 2)) if names else 0):
        asked[rng.choice(names)] = value(rng)
    if "values" in asked and rng.random() < 0.3:
        asked["values"] = {rng.choice(("text", "loops", "batch", "window", "file", "paths")): value(rng)}
    return asked


def a_question(rng: random.Random, visitor: Visitor) -> Call:
    """A question of a page's script."""
    component, name = rng.choice(functions(visitor))
    asked = filled(rng, asked_of(visitor, component, name) if rng.random() < 0.8 else None)
    data = rng.choice((written(asked),) * 4 + (written(value(rng)), value(rng), "[" * 3000, "{" * 1000))
    body = {"data": data, "fn_name": name, "component_id": component, "session_hash": visitor.session}
    if rng.random() < 0.3:
        body[rng.choice(list(body))] = value(rng)
    return "POST", f"{API}/component_server", *packed(rng, body)


def a_tool(rng: random.Random, visitor: Visitor) -> Call:
    """What a program asks, but for one value or two; by plain HTTP, or by MCP."""
    name = rng.choice(("run", "compare", "measure", "open_run", word(rng)))
    asked: dict[str, Any] = {"prompt": "Once upon a time", "settings": {"max_new_tokens": 2}, "trace": "none"}
    if name == "compare":
        asked = {"prompt": "Once", "configurations": [{"loop_count": 1}, {"loop_count": 2}]}
    if name == "measure":
        asked = {"task": "perplexity", "values": {"text": "Once upon a time. " * 9, "loops": [1], "window": 16}}
    if name == "open_run":
        asked = {"run": rng.choice((word(rng), f"https://x/?run={quote(word(rng))}")), "trace": "none"}
    if "prompt" in asked and rng.random() < 0.3:
        asked["prompt"] = rng.choice(PROMPTS)
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


def stored(rng: random.Random, visitor: Visitor) -> Call:
    """A run, a folder or answers: kept, opened, deleted."""
    act, (kind, _) = rng.choice(list(STORE_CALLS.items()))
    path = f"/{STORE}/{act}{rng.choice(('', '?lang=zh', f'?lang={quote(word(rng))}'))}"
    if kind is None:
        return "GET", path, None, shown(rng, visitor)
    body, headers = packed(rng, filled(rng, kind))
    return "POST", path, body, {**headers, **shown(rng, visitor)}


def a_file(rng: random.Random, visitor: Visitor) -> Call:
    """A run's file that is opened, with something wrong in it."""
    path = rng.choice((f"/{FILES}/open", f"/{FILES}/ttt/open"))
    path += rng.choice(("", "?lang=zh", "?view=%5B%5B%5B", f"?view={quote(json.dumps({'panels': word(rng)[:99]}))}"))
    headers = {"Content-Type": "application/octet-stream" if rng.random() < 0.95 else "application/json"}
    name = rng.choice(("first", "ttt"))
    return "POST", path, damaged(rng, recorded(name)), {**headers, **shown(rng, visitor)}


def an_address(rng: random.Random, visitor: Visitor) -> Call:
    """Any address, in any method."""
    address, as_usual = rng.choice(addresses()), rng.random() < 0.4

    def place(found: re.Match[str]) -> str:
        said = PLACES.get(found[1], "x") if as_usual and rng.random() < 0.8 else word(rng)
        return quote(said, safe=rng.choice(("", "/%")))

    path = re.sub(r"\{(\w+)\}", place, address.path)
    more = rng.choice(("", "", "session_hash=x", f"lang={quote(word(rng))}", "view=%5B%5B%5B&lang=zh"))
    path += f"{'&' if '?' in path else '?'}{more}" if more else ""
    methods = (address.method,) * 4 + ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH")
    method = rng.choice(methods)
    if method in ("GET", "HEAD", "OPTIONS"):
        return method, path, None, {}
    known = {"session_hash": "x", "fn_index": rng.choice((0, 66, 9_999)), "event_id": "x", "data": [value(rng)]}
    body, headers = packed(rng, known)
    return method, path, body, {**headers, **(shown(rng, visitor) if rng.random() < 0.5 else {})}


# --- values -------------------------------------------------------------------------------------------------------------


def word(rng: random.Random) -> str:
    """Something where a name or a number is wanted."""
    return rng.choice(WORDS)


def shown(rng: random.Random, visitor: Visitor) -> dict[str, str]:
    """The header of a visit's ticket: mostly the ticket that the visitor was given."""
    ticket = visitor.shown
    odd = ("", "x", ticket[:-1], f"{ticket}x", "=.=", "a" * 5_000, "\xff.\xff")
    return {TICKET_HEADER: ticket if rng.random() < 0.85 else rng.choice(odd)}


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
    kinds += [rng.choice(PROMPTS), rng.choice(PROMPTS)]
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


def written(asked: Any) -> str:
    """As JSON."""
    return re.sub(r'"@@(\d+)@@"', lambda m: "[" * int(m.group(1)) + "]" * int(m.group(1)), json.dumps(asked))


def packed(rng: random.Random, asked: Any) -> tuple[bytes, dict[str, str]]:
    """A body and its kind: mostly what it says it is."""
    kinds = (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/xml",
        "",
    )
    body, kind = written(asked).encode(), "application/json" if rng.random() < 0.75 else rng.choice(kinds)
    if rng.random() < 0.1:
        body = rng.choice((b"", b"{", b"\xff\xfe\x00", body[: len(body) // 2], b"[" * 100_000, b'{"data":' * 2_000))
    if kind.startswith("multipart"):
        body = (
            b'--x\r\nContent-Disposition: form-data; name="files"; filename="../a.txt"\r\n\r\n'
            + body
            + b"\r\n--x--\r\n"
        )
    return body, {"Content-Type": kind} if kind else {}


# --- files --------------------------------------------------------------------------------------------------------------


@functools.cache
def recorded(name: str) -> bytes:
    """A run's file that comes along."""
    return (ROOT / "assets" / "runs" / f"{name}.loopviz").read_bytes()


def damaged(rng: random.Random, data: bytes) -> bytes:
    """A run's file of which bytes are missing, others or there twice; or well packed, with a value or bytes that no run has."""
    a, b = sorted(rng.randrange(len(data)) for _ in range(2))
    ways = (
        lambda: data[:b],
        lambda: data[:a] + data[b:],
        lambda: data[:b] + data[a:],
        lambda: data[:a] + rng.randbytes(rng.choice((1, 4, 200))) + data[a:],
        lambda: rng.randbytes(min(len(data), 5_000)),
        lambda: b"",
        lambda: repacked(rng, data, in_meta=True),
        lambda: repacked(rng, data, in_meta=True),
        lambda: repacked(rng, data, in_meta=False),
        lambda: repacked(rng, data, in_meta=False),
        lambda: data,
    )
    return rng.choice(ways)()


def repacked(rng: random.Random, data: bytes, in_meta: bool) -> bytes:
    """The file with sums that are right: a value of its meta, or some bytes of a table, are others; or one more member."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    header = json.loads(members.pop("meta.json"))
    if in_meta:
        place = header
        while True:
            key = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
            if not (isinstance(place[key], (dict, list)) and place[key]) or rng.random() < 0.2:
                break
            place = place[key]
        place[key] = value(rng)
    else:
        name = rng.choice(list(members))
        table = bytearray(members[name])
        for _ in range(rng.choice((1, 3, 30))):
            table[rng.randrange(len(table))] = rng.randrange(256)
        members[name] = bytes(table)
        header["members"][name]["sha256"] = hashlib.sha256(table).hexdigest()
    if rng.random() < 0.1:
        members[rng.choice(("../../etc/x", "/etc/x", "x" * 300, "states.safetensors"))] = b"x"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, member in {"meta.json": written(header).encode(), **members}.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), member)
    return out.getvalue()
