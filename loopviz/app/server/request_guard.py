"""Who may ask the server what: every request passes here before Gradio or a route of ours sees it.

* `Host` is one this server is known by: a name that somebody points at it (DNS rebinding) is none.
* A request that another site's page makes is refused. What changes or computes something takes JSON only, which no page
  can send to another site without being asked first.
* Only the addresses that the pages use are open (`USED`); Gradio has many more.
* A body has an end, is JSON of bounded depth, and is what the pages send: a known event with as many values as it has.
* Whatever goes wrong ends as words; of what nobody foresaw the log has the stack, under the reference in the answer.

Nothing here knows what is asked. A program that is no browser sends no `Origin` and is served as before.
"""

from __future__ import annotations

import fnmatch
import ipaddress
import json
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import anyio
import gradio as gr
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from loopviz.app import contract
from loopviz.app.profile import LOCAL, Profile, is_loopback
from loopviz.app.server import security_headers
from loopviz.app.sessions.faults import kinds, unforeseen
from loopviz.app.sessions.untrusted import HALVES
from loopviz.app.texts import pick_language, text
from loopviz.checks import is_whole

API = "/gradio_api"
_WORD = r"[A-Za-z0-9_-]{1,64}"
_FILE = r"[A-Za-z0-9_.@/-]{1,200}"  # longer than a file system's names, Gradio fails
JSON, FILE = "application/json", "application/octet-stream"
# A page's own addresses: another site may lead here, and nothing happens there.
PAGES = tuple("/" if beside == "./" else f"{beside[1:]}/?" for beside in contract.PAGES.values())
# Every address that is open: its path, the methods it takes, and what a body must be.
USED: Mapping[str, tuple[tuple[str, ...], str | None]] = {
    **dict.fromkeys(PAGES, (("GET", "HEAD"), None)),
    r"/loopviz-assets/[0-9a-f]+/(?:\w+/)?[\w.-]+": (("GET", "HEAD"), None),
    r"/loopviz-source/[\w./-]+": (("GET", "HEAD"), None),
    r"/loopviz-card": (("GET", "HEAD"), None),
    r"/loopviz-health": (("GET", "HEAD"), None),
    r"/loopviz-metrics": (("GET",), None),
    r"/loopviz-run/[^/]+": (("GET", "POST"), JSON),
    r"/loopviz-share/link": (("GET",), None),
    r"/loopviz-share/ttt/open": (("POST",), FILE),
    r"/loopviz-share/ttt/[^/]+/trace": (("GET",), None),
    r"/loopviz-share/teach/[^/]+/adapter": (("GET",), None),
    r"/loopviz-share/open": (("POST",), FILE),
    r"/loopviz-share/[^/]+/[^/]+": (("GET",), None),
    r"/loopviz-share/[^/]+/panel/[^/]+/[^/]+": (("GET",), None),
    r"/loopviz-store/(?:save|open|delete|class|class/new|class/delete|class/(?:run|answer)/delete)": (("POST",), JSON),
    r"/loopviz-store/(?:learn/hand_in|learn/withdraw|learn/handed|ttt/save|ttt/open)": (("POST",), JSON),
    r"/loopviz-store/gallery": (("GET",), None),
    # for programs
    r"/loopviz-api": (("GET",), None),
    r"/loopviz-api/[a-z_]{1,40}": (("POST",), JSON),
    r"/loopviz-mcp": (("POST",), JSON),
    # Gradio's: what its script loads
    rf"/assets/{_FILE}": (("GET",), None),
    rf"/static/{_FILE}": (("GET",), None),
    rf"(?:{API})?/theme\.css": (("GET",), None),
    r"/favicon\.ico": (("GET",), None),
    r"/manifest\.json": (("GET",), None),
    r"/pwa_icon(?:/\d{1,4})?": (("GET",), None),
    r"/robots\.txt": (("GET",), None),
    # ... and what it, or Gradio's client for Python, asks; at the start the server asks itself for its events
    r"/config/?": (("GET",), None),
    rf"{API}/info/?": (("GET",), None),
    rf"{API}/app_id/?": (("GET",), None),
    rf"{API}/startup-events": (("GET",), None),
    rf"{API}/heartbeat/{_WORD}": (("GET",), None),
    rf"{API}/queue/data": (("GET",), None),
    rf"{API}/queue/join": (("POST",), JSON),
    rf"{API}/run/predict/?": (("POST",), JSON),
    rf"{API}/component_server/?": (("POST",), JSON),
    rf"{API}/cancel": (("POST",), JSON),
    rf"{API}/reset/?": (("POST",), JSON),
}
_USED = [(re.compile(path), *how) for path, how in USED.items()]
_PAGES = re.compile("|".join(f"(?:{page})" for page in PAGES))
# Bodies that are calls of events: as large as a text for the Lab may be; the others are short.
_CALLS = re.compile(rf"{API}/(?:queue/join|run/predict/?)")
# For programs: JSON, looked at here; a measurement may bring a text too.
_PROGRAMS, _TOOLS = ("/loopviz-api/", "/loopviz-mcp"), "/loopviz-api/"
_QUESTIONS = re.compile(rf"{API}/component_server/?")
SHORT = 2**16  # bytes of a body that is read at once: no Stop waits for a thread
NESTING = 64  # of JSON in JSON; the pages' own is some ten deep
LARGEST_WHOLE = 2**63  # beyond it nothing here counts


class Refused(Exception):
    """A request that goes no further: the status of the answer, and the key of its words with what they name."""

    def __init__(self, status: int, key: str, **named: object) -> None:
        super().__init__(key)
        self.status, self.key, self.named = status, key, named


def _public(fn: Any) -> bool:
    """Whether an event is one for programs (`gr.api`), of which Gradio looks at no value."""
    return bool(fn.api_visibility == "public")


@dataclass(frozen=True)
class Known:
    """What the pages may call: of each event, how many values it takes; of each element, which functions it answers.

    long: the events that may bring a text for the Lab. Of all others Gradio remembers, a page, what they brought.
    """

    events: Mapping[int, int] = field(default_factory=dict)
    functions: Mapping[int, frozenset[str]] = field(default_factory=dict)
    long: frozenset[int] = frozenset()

    @classmethod
    def of(cls, demo: gr.Blocks) -> Known:
        """Those of an app."""
        events = {
            n: len(fn.inputs) for n, fn in demo.fns.items() if fn.fn is not None and (fn.preprocess or _public(fn))
        }
        functions = {
            n: frozenset(name for name, value in vars(block).items() if getattr(value, "_is_server_fn", False))
            for n, block in demo.blocks.items()
        }
        long = frozenset(n for n in events if demo.fns[n].queue and not events[n])
        return cls(events, {n: names for n, names in functions.items() if names}, long)


@dataclass(frozen=True)
class Rules:
    """What a door goes by.

    Attributes:
        hosts: names this server is known by, beside loopback's and any number: as in an address, without a port; `*.x` is
            every name below x, `*` any.
        frames: origins whose pages may show ours in a frame.
        profile: how large a body may be.
        known: what may be called; None: whatever there is.
    """

    hosts: tuple[str, ...] = ()
    frames: tuple[str, ...] = ()
    profile: Profile = LOCAL
    known: Known | None = None


SPACE_HOSTS = ("*.hf.space",)
SPACE_FRAMES = ("https://huggingface.co", "https://*.hf.space")


def rules_of(host: str, environ: Mapping[str, str], profile: Profile = LOCAL, known: Known | None = None) -> Rules:
    """The rules of a server that listens at `host`.

    Args:
        environ: `LOOPVIZ_HOSTS` and `LOOPVIZ_FRAMES`: more names of this server, and origins that may frame it, with commas.
            `SPACE_ID` and `SPACE_HOST` are a Space's, which Hugging Face frames.

    Raises:
        ValueError: a frame is no origin.
    """
    hosts, frames = _listed(environ.get("LOOPVIZ_HOSTS", "")), _listed(environ.get("LOOPVIZ_FRAMES", ""))
    for frame in frames:
        if not re.fullmatch(r"https?://[\w.*-]+(?::\d+)?", frame):
            raise ValueError(f"LOOPVIZ_FRAMES={frame!r}: must be an origin, such as https://example.org")
    if host and not is_loopback(host):
        own = socket.gethostname().lower()
        hosts += (host.lower(), own, f"{own.partition('.')[0]}.local")
    if "SPACE_ID" in environ:
        hosts += (*_listed(environ.get("SPACE_HOST", "")), *SPACE_HOSTS)
        frames += SPACE_FRAMES
    return Rules(hosts, frames, profile, known)


def _listed(names: str) -> tuple[str, ...]:
    return tuple(name.strip().lower() for name in names.split(",") if name.strip())


def host_of(netloc: str) -> str:
    """The name in `name:port`, as it is compared; "" when there is none."""
    try:
        return (urlsplit(f"//{netloc}").hostname or "").lower().rstrip(".")
    except ValueError:
        return ""


def _numeric(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_ours(netloc: str, rules: Rules) -> bool:
    """Whether a `Host` is this server's: a number always is, for nobody can point a number somewhere else."""
    name = host_of(netloc)
    if not name:
        return False
    near = name == "localhost" or name.endswith(".localhost") or _numeric(name)
    return near or any(fnmatch.fnmatchcase(name, own) for own in rules.hosts)


def _netloc(address: str) -> str:
    """Name and port as they are compared: the usual ports are not said."""
    return re.sub(r":(?:80|443)$", "", address.lower())


def is_foreign(headers: Headers) -> bool:
    """Whether another site's page makes this request; what the browser itself says of it counts first."""
    site, origin = headers.get("sec-fetch-site", ""), headers.get("origin", "")
    if site == "same-origin":
        return False
    if origin:
        scheme, _, netloc = origin.partition("://")
        return scheme not in ("http", "https") or _netloc(netloc) != _netloc(headers.get("host", ""))
    return site not in ("", "none")


def _leads_here(scope: Scope, headers: Headers, path: str, rules: Rules) -> bool:
    """Whether another site only leads to a page of ours, or shows one where it may."""
    if scope["method"] not in ("GET", "HEAD") or "origin" in headers or not _PAGES.fullmatch(path):
        return False
    framed = headers.get("sec-fetch-dest", "document") not in ("document", "empty")
    return headers.get("sec-fetch-mode") == "navigate" and (not framed or bool(rules.frames))


# --- bodies ------------------------------------------------------------------------------------------------------------


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def read_json(body: bytes, halves: bool = False) -> Any:
    """A body's JSON; what no page sends raises Refused: nested too deep, numbers without end.

    `halves`: a text may hold half characters: it is somebody's prompt, and refused beside it.
    """
    try:
        found = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise Refused(400, "door.json") from None
    level, depth = [found], 0
    while level:
        if (depth := depth + 1) > NESTING:
            raise Refused(400, "door.json")
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                below += [*value.keys(), *value.values()]
            elif isinstance(value, list):
                below += value
            elif isinstance(value, str):
                if not halves and not value.isascii() and HALVES.search(value):
                    raise Refused(400, "door.json")
            elif isinstance(value, (int, float)) and not -LARGEST_WHOLE <= value <= LARGEST_WHOLE:
                raise Refused(400, "door.json")
        level = below
    return found


def check_call(path: str, asked: Any, known: Known) -> None:
    """Raises Refused for a call that no page makes: of another event, with more or fewer values, for no session."""
    if not isinstance(asked, dict):
        raise Refused(422, "door.call")
    session = asked.get("session_hash")
    named = session is None or (isinstance(session, str) and re.fullmatch(_WORD, session))
    if not named:
        raise Refused(422, "door.call")
    if _CALLS.fullmatch(path):
        fn, data = asked.get("fn_index"), asked.get("data")
        fits = is_whole(fn) and isinstance(data, list) and known.events.get(fn) == len(data)
        if not fits or (session is None and path.endswith("/join")):
            raise Refused(422, "door.call")
    elif _QUESTIONS.fullmatch(path):
        element, name = asked.get("component_id"), asked.get("fn_name")
        there = is_whole(element) and isinstance(name, str) and name in known.functions.get(element, ())
        if not there or not isinstance(session, str) or "data" not in asked:
            raise Refused(422, "door.call")


async def _whole_body(receive: Receive, headers: Headers, most: int, seconds: float) -> bytes:
    """All of a request's body, of which no more is taken than it may have, and no longer waited for."""
    declared = headers.get("content-length", "")
    if declared.isdigit() and int(declared[:20]) > most:
        raise Refused(413, "door.large", limit=f"{most:,}")
    parts, size = [], 0
    try:
        with anyio.fail_after(seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > most:
                    raise Refused(413, "door.large", limit=f"{most:,}")
                if not message.get("more_body"):
                    return b"".join(parts)
    except TimeoutError:
        raise Refused(408, "door.slow") from None


# --- the door ----------------------------------------------------------------------------------------------------------


_SLASHED = {f"{beside[1:]}/": beside for beside in contract.PAGES.values() if beside != "./"}


async def _without_slash(scope: Scope, receive: Receive, send: Send) -> None:
    """A page's address with a slash at its end leads to the one without, and what it asks for goes along: Gradio drops that."""
    name = scope["path"].rstrip("/").rpartition("/")[2]
    query = scope.get("query_string", b"").decode("latin-1")
    await RedirectResponse(f"../{name}{'?' * bool(query)}{query}", 307)(scope, receive, send)


class Door:
    """Middleware (see above).

    Args:
        app: all that is behind it.
        rules: which requests pass.
    """

    def __init__(self, app: ASGIApp, rules: Rules | None = None) -> None:
        self.app = app
        self.rules = rules or Rules()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it in words; headers of safety are in every answer."""
        if scope["type"] == "websocket":  # nothing here speaks it
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        answer = Answer(scope, headers, path, send, self.rules)
        try:
            receive = await self._admit(scope, headers, path, receive)
            within = _without_slash if path in _SLASHED else self.app
            await within(scope, receive, answer.send)
            await answer.end()
        except Refused as refused:
            await answer.refuse(refused)
        except ClientDisconnect:
            return
        except HTTPException as error:  # in a stream that has begun: it ends here
            if not answer.begun:
                await answer.words(error.status_code, text(answer.lang, "door.call"))
        except kinds() as error:
            if isinstance(error, UnicodeEncodeError) and _CALLS.fullmatch(path):
                # half a character, where no prompt is: Gradio has refused it, and failed to say so
                await answer.words(422, text(answer.lang, "door.call"))
            else:
                await answer.failed(error)

    async def _admit(self, scope: Scope, headers: Headers, path: str, receive: Receive) -> Receive:
        """Raises Refused, or gives what the app reads the request by."""
        rules, method = self.rules, scope["method"]
        host = headers.get("host", "")
        if not is_ours(host, rules):
            raise Refused(421, "door.host", host=host_of(host)[:80] or "?")
        if is_foreign(headers) and not _leads_here(scope, headers, path, rules):
            raise Refused(403, "door.foreign")
        found = next(((methods, kind) for known, methods, kind in _USED if known.fullmatch(path)), None)
        if found is None:
            raise Refused(404, "door.closed")
        methods, kind = found
        if method not in methods:
            raise Refused(405, "door.closed")
        if method != "POST":
            return receive
        if headers.get("content-type", "").partition(";")[0].strip().lower() != kind:
            raise Refused(415, "door.kind", kind=kind)
        if kind != JSON:
            return receive
        profile = rules.profile
        long = _CALLS.fullmatch(path) or path.startswith(_TOOLS)
        most = profile.body_bytes if long else profile.question_bytes
        body = await _whole_body(receive, headers, most, profile.body_seconds)
        if path.startswith((API, *_PROGRAMS)):
            halves = bool(_CALLS.fullmatch(path))
            if len(body) <= SHORT:
                asked = read_json(body, halves)
            else:
                asked = await anyio.to_thread.run_sync(read_json, body, halves)
            if rules.known is not None and path.startswith(API):
                check_call(path, asked, rules.known)
                if len(body) > profile.question_bytes and asked["fn_index"] not in rules.known.long:
                    raise Refused(413, "door.large", limit=f"{profile.question_bytes:,}")
        return _again(body, receive)


def _again(body: bytes, receive: Receive) -> Receive:
    """What has been read of a request, for whoever reads it next."""
    told = False

    async def first() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return first


class Answer:
    """What goes back for one request: with the headers of safety, and words in place of what Gradio says of its errors."""

    def __init__(self, scope: Scope, headers: Headers, path: str, send: Send, rules: Rules) -> None:
        self.scope, self.path, self.begun = scope, path, False
        self.lang = pick_language(None, headers.get("accept-language", ""))
        self._send, self._rules = send, rules
        self._held: Message | None = None  # the beginning of an answer that is to be put into words
        self._safe = security_headers.safety(scope, headers, rules.frames, page=bool(_PAGES.fullmatch(path)))

    async def send(self, message: Message) -> None:
        """The app's answer, part by part."""
        if message["type"] == "http.response.start":
            wrong = message["status"] >= 500 or message["status"] == 422
            if wrong and self.path.startswith((API, "/config")):
                self._held = message
                return
            self.begun = True
            message = {**message, "headers": security_headers.added(message.get("headers", []), self._safe)}
        elif self._held is not None:
            return
        await self._send(message)

    async def end(self) -> None:
        """The app has answered: an error of Gradio's becomes words."""
        if self._held is None:
            return
        status, self._held = self._held["status"], None
        if status == 503:
            await self.words(503, text(self.lang, "door.full"))
        else:  # Gradio has refused a value, and put its stack into the log
            await self.words(422, text(self.lang, "door.call"))

    async def refuse(self, refused: Refused) -> None:
        """Words for a request that goes no further."""
        await self.words(refused.status, text(self.lang, refused.key, **refused.named))

    async def failed(self, error: BaseException) -> None:
        """Words for what nobody foresaw."""
        await self.words(500, unforeseen(error, self.lang, self.path[:200]))

    async def words(self, status: int, said: str) -> None:
        """A whole answer that says something."""
        if self.begun:
            return
        self.begun = True
        made: Response = PlainTextResponse(said, status)
        if self.path.startswith(API):  # Gradio's script reads these
            made = JSONResponse({"detail": said, "error": said}, status)
        headers = security_headers.added(made.raw_headers, {**self._safe, "Cache-Control": "no-store"})
        if self.scope["method"] == "POST" and status not in (400, 422):  # what was not read is not waited for
            headers = security_headers.added(headers, {"Connection": "close"})
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        body = b"" if self.scope["method"] == "HEAD" else made.body
        await self._send({"type": "http.response.body", "body": body})
