"""A visitor without a browser: what a page's script sends, and what it is told, over connections of their own."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.attacks.serving import Attacked
from loopviz.app.contract import PAGES, STORE, TICKET_HEADER

API = "/gradio_api"
# The one element of each page that asks its server: a page that is new is here too.
ELEMENTS = {page: f"lv-{page}" for page in PAGES} | {"explore": "lv-live", "learn": "lv-lessons"}
_RUNS = dict.fromkeys(PAGES, "begin") | {"explore": "start"}
_SWAP = str.maketrans("\"'", "'\"")
READY = 180.0  # seconds that a model may take to be loaded


@dataclass(frozen=True)
class Answer:
    """What came back, and after how long; `status` 0: nothing came (then `text` says why)."""

    status: int
    seconds: float
    text: str
    headers: Mapping[str, str]

    @property
    def said(self) -> dict[str, Any]:
        """What a server function said; empty when it said nothing that is JSON."""
        try:
            found = json.loads(self.text)
            found = json.loads(found) if isinstance(found, str) else found
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


def request(
    server: Attacked,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    patience: float = 30.0,
    most: int = 4_000_000,
) -> Answer:
    """One request on a connection of its own; of a stream nothing is read, of a long answer `most` bytes."""
    began, parts = time.monotonic(), []
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=patience)
    status, told = 0, {}
    try:
        with contextlib.suppress(
            BrokenPipeError, ConnectionResetError
        ):  # refused before all was sent: there is an answer
            connection.request(
                method, path, body, {"Origin": server.url, "Sec-Fetch-Site": "same-origin", **(headers or {})}
            )
        answer = connection.getresponse()
        status, told = answer.status, {name.lower(): value for name, value in answer.getheaders()}
        endless = told.get("content-type", "").startswith("text/event-stream")
        while not endless and sum(map(len, parts)) < most and time.monotonic() - began < patience:
            if not (part := answer.read1(65_536)):
                break
            parts.append(part)
    except (OSError, http.client.HTTPException, ValueError, UnicodeError) as error:
        parts.append(b"" if status else f"{type(error).__name__}: {error}".encode())
    finally:
        connection.close()
    return Answer(status, time.monotonic() - began, b"".join(parts).decode("utf-8", "replace"), told)


def post(server: Attacked, path: str, value: Any, patience: float = 30.0) -> Answer:
    """One request with JSON, as the page's script makes it."""
    return request(server, "POST", path, json.dumps(value).encode(), {"Content-Type": "application/json"}, patience)


class _Stream:
    """A line that stands: server-sent events, read in a thread, cut from outside."""

    def __init__(self, server: Attacked, path: str, tell: Callable[[str], None]) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
        self.connection.connect()
        self.over = threading.Event()
        self._path, self._tell = path, tell
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            self.connection.request("GET", self._path, headers={"Accept": "text/event-stream"})
            answer = self.connection.getresponse()
            while line := answer.readline():
                if line.startswith(b"data:"):
                    self._tell(line[5:].strip().decode("utf-8", "replace"))
        except (OSError, http.client.HTTPException, ValueError, AttributeError):
            pass  # cut
        finally:
            self.over.set()

    def cut(self) -> None:
        """As a closed tab does."""
        if self.connection.sock is not None:
            with contextlib.suppress(OSError):
                self.connection.sock.shutdown(socket.SHUT_RDWR)
        self.over.wait(5)
        self.connection.close()


class Visitor:
    """One open page.

    Args:
        name: what its browser is called in the line; "": nothing, so that its address is.

    Attributes:
        told: what the server has said to it, with when (`time.monotonic`): the page's messages, as they are.
    """

    def __init__(self, server: Attacked, page: str = "explore", name: str = "") -> None:
        self.server, self.page, self.session = server, page, secrets.token_hex(6)
        self.name = name
        self.ticket = secrets.token_hex(16)
        self.told: list[tuple[float, dict[str, Any]]] = []
        self._n = 0
        self._news = threading.Condition()
        self._last: dict[str, str] = {}
        self._lines: _Stream | None = None
        self._left = False
        self._heart = _Stream(server, f"{API}/heartbeat/{self.session}", lambda data: None)

    # --- what it asks ---------------------------------------------------------------------------------------------

    def component(self, page: str = "") -> int:
        """The number of a page's live element."""
        named = ELEMENTS[page or self.page]
        return next(c["id"] for c in self.server.config["components"] if c["props"].get("elem_id") == named)

    def event(self, element: str, name: str) -> dict[str, Any]:
        """An event that the server answers, by the element it is of."""
        ids = {c["id"] for c in self.server.config["components"] if c["props"].get("elem_id") == element}
        events = self.server.config["dependencies"]
        return next(e for e in events if e["backend_fn"] and any(t[0] in ids and t[1] == name for t in e["targets"]))

    def ask(self, function: str, question: Any, page: str = "", patience: float = 30.0) -> Answer:
        """A question to the page's server functions."""
        body = {"data": question if isinstance(question, str) else json.dumps(question), "fn_name": function}
        body |= {"component_id": self.component(page), "session_hash": self.session}
        return post(self.server, f"{API}/component_server", body, patience)

    def call(self, event: Mapping[str, Any], data: list[Any], told: Any = None, patience: float = 30.0) -> Answer:
        """An event that is answered at once."""
        body = {"data": data, "fn_index": event["id"], "session_hash": self.session, "event_data": told}
        return post(self.server, f"{API}/run/predict", body, patience)

    def form(self, prompt: str, values: Mapping[str, Any]) -> list[Any]:
        """Explore's form, with these values of its controls and the others at their defaults."""
        from loopviz.app import controls as st

        event = self.event(ELEMENTS["explore"], "start")
        parts = {c["id"]: c["props"] for c in self.server.config["components"]}
        touched, values = list(values), {**st.defaults(), **values}
        word = json.dumps({"touched": touched, "gave": {}, "suits": values["model"]})
        own = {"ctl-prompt": prompt, ELEMENTS["explore"]: word, "lv-lang": "en"}
        own |= {f"ctl-{name}": value for name, value in values.items()}
        return [own.get(parts[n].get("elem_id"), parts[n].get("value")) for n in event["inputs"]]

    def begin(self, payload: Any, wishes: Any = None) -> Answer:
        """Begin what the page is for.

        Args:
            payload: of Explore `(prompt, values)`; of the others what their script sends.
            wishes: of Explore: `{panels, focus}`.
        """
        self._n += 1
        event = self.event(ELEMENTS[self.page], _RUNS[self.page])
        data, told = [], {"n": self._n, "wishes": json.dumps(wishes or {})}
        if self.page == "explore":
            data = self.form(*payload)
        else:
            told = {"lang": "en", "ticket": self.ticket, "n": self._n, **payload}
        return self.join(event["id"], data, {**told, "visitor": self.name})

    def join(self, fn_index: int, data: list[Any], told: Any) -> Answer:
        """Put an event into the queue, and listen to what becomes of it."""
        body = {"data": data, "fn_index": fn_index, "session_hash": self.session, "event_data": told}
        answer = post(self.server, f"{API}/queue/join", body)
        if answer.status == 200 and (self._lines is None or self._lines.over.is_set()):
            self._lines = _Stream(self.server, f"{API}/queue/data?session_hash={self.session}", self.hear)
        return answer

    def run(self, payload: Any, patience: float = 120.0, wishes: Any = None) -> tuple[float, dict[str, Any] | None]:
        """Begin, and wait for the end: seconds, and what ends it (None: nothing came in time)."""
        began = time.monotonic()
        answer = self.begin(payload, wishes)
        if answer.status != 200:
            return answer.seconds, {"kind": "refused", "status": answer.status, "text": answer.text, "bad": True}
        found = self.wait(is_last, patience, began)
        return time.monotonic() - began, found

    def stop(self, patience: float = 30.0) -> Answer:
        """Press Stop."""
        if self.page != "explore":
            return self.ask("stop", {"ticket": self.ticket}, patience=patience)
        return self.call(self.event(ELEMENTS["explore"], "halt"), [], {"n": self._n}, patience=patience)

    @functools.cached_property
    def shown(self) -> str:
        """The ticket that a page is given as its visit begins, and shows where files and stored runs are."""
        answer = self.call(self.event(ELEMENTS["explore"], "visit"), [])
        try:
            return json.loads(answer.said["data"][0].translate(_SWAP))["visit"]["ticket"]
        except (LookupError, TypeError, AttributeError, ValueError):
            raise RuntimeError(f"a visit is given no ticket: {answer.status} {answer.text[:200]}") from None

    def stored(self, act: str, asked: Any) -> Answer:
        """One of `contract.STORE_CALLS` that has a body, with this visit's ticket."""
        headers = {"Content-Type": "application/json", TICKET_HEADER: self.shown}
        return request(self.server, "POST", f"/{STORE}/{act}", json.dumps(asked).encode(), headers)

    def leave(self) -> None:
        """Close the tab; whoever waits for something here waits no longer."""
        with self._news:
            self._left = True
            self._news.notify_all()
        for stream in (self._lines, self._heart):
            if stream is not None:
                stream.cut()

    # --- what it is told ------------------------------------------------------------------------------------------

    def hear(self, data: str) -> None:
        """A line of its stream."""
        try:
            message = json.loads(data)
        except ValueError:
            return
        kind, name = message.get("msg"), message.get("event_id") or ""
        said: dict[str, Any] | None = None
        if kind == "process_generating":
            said = self._read(name, (message.get("output") or {}).get("data") or [])
        elif kind == "process_completed":
            wrong = (message.get("output") or {}).get("error") or not message.get("success")
            said = {"kind": "completed", "failed": bool(wrong), "text": str(message.get("output"))[:400]}
        elif kind in ("unexpected_error", "server_stopped"):
            said = {"kind": "completed", "failed": True, "text": data[:400]}
        if said is not None:
            with self._news:
                self.told.append((time.monotonic(), said))
                self._news.notify_all()

    def _read(self, event: str, values: list[Any]) -> dict[str, Any] | None:
        """A message out of what Gradio makes of it: the whole string, then edits of it."""
        value = values[0] if values else None
        if isinstance(value, list):
            text = self._last.get(event, "")
            for action, _, part in value:
                text = text + part if action == "append" else part
            value = text
        if not isinstance(value, str):
            return None
        self._last[event] = value
        try:
            return json.loads(value.translate(_SWAP))
        except ValueError:
            return {"kind": "unreadable", "text": value[:200]}

    def wait(
        self, fits: Callable[[dict[str, Any]], bool], patience: float, since: float = 0.0
    ) -> dict[str, Any] | None:
        """The first message that fits, of those that came after `since`; None when none comes in time, or the tab is closed."""
        until, seen = time.monotonic() + patience, 0
        with self._news:
            while True:
                for when, said in self.told[seen:]:
                    seen += 1
                    if when >= since and fits(said):
                        return said
                left = until - time.monotonic()
                if left <= 0 or self._left or not self.server.alive:
                    return None
                self._news.wait(min(left, 1.0))


def pieces(told: Iterable[Mapping[str, Any]]) -> dict[int, list[Any]]:
    """The rows of a run's tokens that its messages brought, by place: each begins with the piece of text."""
    found: dict[int, list[Any]] = {}
    for said in told:
        if said["kind"] in ("snapshot", "frames"):
            found.update(enumerate(said["tokens"], said.get("first", 0)))
    return found


def is_last(said: Mapping[str, Any]) -> bool:
    """Whether nothing comes after it."""
    return said["kind"] == "completed"


def is_refusal(said: Mapping[str, Any]) -> bool:
    """Whether a message refuses what was asked for, in words."""
    return bool(said.get("bad")) and bool(said.get("text"))


def ready(server: Attacked, model: str) -> None:
    """Have a model loaded."""
    visitor, until = Visitor(server), time.monotonic() + READY
    while (said := visitor.ask("model_status", {"model": model, "agreed": True}).said).get("state") != "ready":
        if time.monotonic() > until or said.get("state") == "failed" or not server.alive:
            raise RuntimeError(f"{model} is never ready: {said or server.words()[-2000:]}")
        time.sleep(0.3)
    visitor.leave()
