"""What leaves the page and comes back to it as files: a run, a report, a panel's data; and the links to it.

Routes of our own beside Gradio's (`/loopviz-share/...`):

* `GET link?s=<word>&lang=`: what a link asks the page's script to do (:func:`loopviz.app.explore.links.opening`).
* `POST open?lang=&view=`: a trace file, as the request's body; answers with a snapshot of the run it becomes.
* `GET <run>/trace`, `<run>/report`, `<run>/python`, `<run>/notebook`, `<run>/panel/<name>/<csv or parquet>`, with
  `?lang=&view=`: a file to keep.

A run is found by its unguessable id, or is the recorded one. A file may be opened by a page that Gradio knows: it shows
the ticket it was given as its visit began. What is read becomes a run of that visitor's, which nobody else can find, and
which goes when they leave. Refusals are words in the visitor's language, as plain text.
"""

from __future__ import annotations

import base64
import gzip
import hmac
import re
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from loopviz.app.contract import MOST_SLUG
from loopviz.app.contract import TICKET_HEADER as TICKET
from loopviz.app.controls import Form
from loopviz.app.explore import first_run, links, snapshot
from loopviz.app.explore.answers import View
from loopviz.app.explore.run import Run, Runs
from loopviz.app.server.assets import SHARE as PREFIX
from loopviz.app.sessions.faults import kinds, noted
from loopviz.app.sessions.messages import dumps, wire
from loopviz.app.sessions.models import ModelRoom
from loopviz.app.texts import pick_language, text
from loopviz.panels import PANELS
from loopviz.trace import Trace

_PLAIN = "text/plain; charset=utf-8"
_KEPT = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class Refused(Exception):
    """A wish that is not granted: the status of the answer, and what the page shows."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class File(NamedTuple):
    """A file to send: the end of its name, its kind, its content."""

    ending: str
    kind: str
    content: bytes


class Sharing:
    """Links and files of one server's runs.

    Args:
        registry: the visitors' runs; what is opened becomes one of them.
        room: the models, for what a link may name.
    """

    def __init__(self, registry: Runs, room: ModelRoom) -> None:
        self._registry = registry
        self._room = room
        self._key = secrets.token_bytes(32)
        self._coming: set[str] = set()  # whose file is on its way: one a visitor
        # threads of their own, few: reading and writing files must not take all that other visitors' events need
        self._reading = anyio.CapacityLimiter(room.profile.files_read_at_once)
        self._making = anyio.CapacityLimiter(room.profile.files_made_at_once)

    # --- what the page's events ask -------------------------------------------------------------------------------

    def visit(self, session: str) -> dict[str, Any]:
        """What a page is told as its visit begins: the ticket to open files with, and how large they may be."""
        return {"ticket": self._ticket(session), "largest": self._room.profile.trace_bytes}

    def link(self, asked: Any, prompt: Any, values: Mapping[str, Any] | Form, lang: str) -> str:
        """The message with a link to what is set up (:func:`loopviz.app.explore.links.message`)."""
        return wire(links.message(asked, prompt, values, lang, registry=self._registry, room=self._room))

    def _ticket(self, session: str) -> str:
        shown = base64.urlsafe_b64encode(session.encode("utf-8", "replace")).decode()
        return f"{shown}.{self._mark(shown)}"

    def _mark(self, shown: str) -> str:
        return hmac.new(self._key, shown.encode(), "sha256").hexdigest()

    def _session(self, ticket: str) -> str | None:
        """The session a ticket was given to; None for one that was not given by this server."""
        shown, _, mark = ticket.partition(".")
        if not hmac.compare_digest(mark.encode(), self._mark(shown).encode()):
            return None
        return base64.urlsafe_b64decode(shown).decode()

    # --- routes ---------------------------------------------------------------------------------------------------

    def routes(self) -> list[Route]:
        """The routes to add to Gradio's application."""
        return [
            Route(f"/{PREFIX}/link", self._link, methods=["GET"]),
            Route(f"/{PREFIX}/open", self._open, methods=["POST"]),
            Route(f"/{PREFIX}/{{run}}/{{kind}}", self._send, methods=["GET"]),
            Route(f"/{PREFIX}/{{run}}/panel/{{panel}}/{{kind}}", self._send, methods=["GET"]),
        ]

    async def _answer(self, request: Request, work: Callable[[str], Awaitable[Response]]) -> Response:
        """What `work(lang)` answers; a refusal, or a failure, in words."""
        lang = pick_language(request.query_params.get("lang"))
        try:
            return await work(lang)
        except Refused as refused:
            status, reason = refused.status, str(refused)
        except ClientDisconnect:
            return Response(status_code=400)
        except kinds() as error:
            status, reason = 500, text(lang, "share.unexpected", ref=noted(error, request.url.path))
        return Response(reason, status_code=status, media_type=_PLAIN, headers=_KEPT)

    async def _link(self, request: Request) -> Response:
        async def work(lang: str) -> Response:
            word = request.query_params.get("s")
            found = await anyio.to_thread.run_sync(links.opening, word, self._room, lang, limiter=self._making)
            return _json(request, found)

        return await self._answer(request, work)

    async def _send(self, request: Request) -> Response:
        """A file made of a run."""

        async def work(lang: str) -> Response:
            run, panel, kind = (request.path_params.get(key) for key in ("run", "panel", "kind"))
            trace, model = self._finished(run, lang), self._model_of(run)
            view = View.read(request.query_params.get("view"))

            def make() -> tuple[str, File]:
                file = (
                    _panel_file(trace, view, panel, kind, lang) if panel else _run_file(trace, view, kind, lang, model)
                )
                return f"{_base(trace)}{file.ending}", file

            name, file = await anyio.to_thread.run_sync(make, limiter=self._making)
            headers = {**_KEPT, "Content-Disposition": f'attachment; filename="{name}"'}
            return Response(file.content, media_type=file.kind, headers=headers)

        return await self._answer(request, work)

    def _finished(self, run_id: Any, lang: str) -> Trace:
        """The trace of a run that nothing is added to any more."""
        if run_id == first_run.RUN and (stored := first_run.stored()) is not None:
            return stored
        run = self._registry.get(run_id)
        if run is None:
            raise Refused(404, text(lang, "share.gone"))
        if not run.finished.is_set():
            raise Refused(409, text(lang, "share.running"))
        return run.trace

    def _model_of(self, run_id: Any) -> str | None:
        """What to load to make a run again: the model's whole name, where visitors may name places of this machine."""
        run = self._registry.get(run_id)
        name = run.values.get("model") if run is not None and run.values and self._room.profile.paths else None
        return name if isinstance(name, str) else None

    async def _open(self, request: Request) -> Response:
        """A visitor's file becomes a run of theirs."""

        async def work(lang: str) -> Response:
            session = self._session(request.headers.get(TICKET, ""))
            if session is None:
                raise Refused(403, text(lang, "share.stranger"))
            if session in self._coming:
                raise Refused(409, text(lang, "share.busy.own"))
            if len(self._coming) >= self._room.profile.files_at_once:
                raise Refused(503, text(lang, "share.busy"))
            view = View.read(request.query_params.get("view"))
            self._coming.add(session)
            try:
                data = await _body(request, lang, self._room)
                drawn = await anyio.to_thread.run_sync(self._take, data, session, view, lang, limiter=self._reading)
            finally:
                self._coming.discard(session)
            return _json(request, drawn)

        return await self._answer(request, work)

    def _take(self, data: bytes, session: str, view: View, lang: str) -> dict[str, Any]:
        """Read a file, keep it as a run of the session in place of an earlier one, and draw it."""
        trace = _read(data, lang, self._room)
        run = Run(trace.meta, view.panels, session, view.fresh(lang))
        run.trace, run.end = trace, first_run.ending(trace)
        run.opened = True
        run.finished.set()
        drawn = run.snapshot()  # first of all: a run that cannot be drawn is not kept
        for other in self._registry.of_session(session):
            if other.opened:
                self._registry.drop(other)
        self._registry.begin(run)
        return drawn


def _json(request: Request, value: Any) -> Response:
    content, headers = dumps(value).encode(), dict(_KEPT)
    if len(content) > 2_000 and "gzip" in request.headers.get("accept-encoding", ""):
        content, headers["Content-Encoding"] = gzip.compress(content, 5, mtime=0), "gzip"
    return Response(content, media_type="application/json", headers=headers)


# --- files that come ---------------------------------------------------------------------------------------------------


async def _steady(request: Request, pause: float) -> AsyncIterator[bytes]:
    """The parts of a request's body; TimeoutError when nothing comes for so many seconds."""
    parts: AsyncGenerator[bytes, None] = request.stream()
    while True:
        try:
            with anyio.fail_after(pause):
                part = await anext(parts)
        except StopAsyncIteration:
            return
        yield part


async def _body(request: Request, lang: str, room: ModelRoom) -> bytes:
    """The request's body, of which no more is taken than a file may have."""
    profile, declared = room.profile, request.headers.get("content-length", "")
    most = profile.trace_bytes
    large = Refused(413, text(lang, "share.open.large", reason=f"> {most:,} bytes"))
    if declared.isdigit() and int(declared) > most:
        raise large
    parts, size = [], 0
    try:
        with anyio.fail_after(profile.file_seconds):
            async for part in _steady(request, profile.pause_seconds):
                size += len(part)
                if size > most:
                    raise large
                parts.append(part)
    except TimeoutError as error:
        raise Refused(408, text(lang, "share.slow")) from error
    return b"".join(parts)


def _read(data: bytes, lang: str, room: ModelRoom) -> Trace:
    """The trace in a file that may come from anyone; Refused, in words, when there is none."""
    from loopviz.trace.file import TraceFileError, loads

    try:
        limits = {"max_tokens": room.profile.trace_tokens, "max_rows": room.profile.trace_rows}
        trace = loads(data, max_bytes=room.profile.trace_bytes, **limits)
    except TraceFileError as error:
        raise Refused(422, text(lang, f"share.open.{error.fault}", reason=str(error)[:300])) from error
    except MemoryError as error:
        raise Refused(413, text(lang, "share.open.large", reason="MemoryError")) from error
    if not len(trace):
        raise Refused(422, text(lang, "share.open.empty"))
    return trace


# --- files that go -----------------------------------------------------------------------------------------------------


def _slug(name: str) -> str:
    """A stranger's name as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:MOST_SLUG].strip("-.")


def _base(trace: Trace) -> str:
    """How the names of a run's files begin: its model, and when it was made."""
    when = re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d", trace.meta["created"], re.ASCII)
    made = re.sub(r"\D", "", when.group()) if when else ""
    return "-".join(filter(None, [_slug(trace.meta["model"]) or "run", made[:8], made[8:]]))


def _run_file(trace: Trace, view: View, kind: Any, lang: str, model: str | None) -> File:
    if kind == "trace":
        from loopviz.trace.file import dumps as pack

        return File(".loopviz", "application/octet-stream", pack(trace))
    if kind == "report":
        from loopviz.export.report import to_html

        page = to_html(trace, view.focus, panels=list(view.every))
        return File("-report.html", "text/html; charset=utf-8", page.encode())
    if kind == "python":
        from loopviz.export.python_code import python_code

        return File(".py", _PLAIN, python_code(trace, model).encode("utf-8", "replace"))
    if kind == "notebook":
        from loopviz.export.jupyter import notebook_bytes

        return File(".ipynb", "application/x-ipynb+json", notebook_bytes(trace, model, lang))
    raise Refused(404, text(lang, "share.gone"))


def _panel_file(trace: Trace, view: View, panel: Any, kind: Any, lang: str) -> File:
    from loopviz.export.panel_table import KINDS, panel_file

    if panel not in PANELS or kind not in KINDS:
        raise Refused(404, text(lang, "share.no_panel"))
    if panel not in snapshot.drawable(trace, PANELS):
        raise Refused(409, text(lang, "share.not_recorded"))
    _, content = panel_file(trace, panel, kind, view.focus)
    token = view.focus.selected(len(trace))
    return File(f"-{panel}" + ("" if token is None else f"-token-{token}") + f".{kind}", KINDS[kind], content)
