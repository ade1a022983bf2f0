"""Where visitors bring saved runs, and are handed files: whose they are, how large, how many at a time; once for all pages.

A file may be brought by a page that Gradio knows: it shows the ticket it was given as its visit began. What becomes of a run
that was read is the page's. Refusals are words in the visitor's language, as plain text.
"""

from __future__ import annotations

import base64
import gzip
import hmac
import re
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from loopviz.app.profile import Profile
from loopviz.app.sessions import run_log
from loopviz.app.sessions.counted import Counted
from loopviz.app.sessions.faults import kinds, noted
from loopviz.app.sessions.messages import dumps
from loopviz.app.sessions.models import ModelRoom
from loopviz.app.texts import pick_language, text
from loopviz.trace import Trace

PLAIN = "text/plain; charset=utf-8"
_KEPT = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class FileRefused(Exception):
    """A wish that is not granted: the status of the answer, and what the page shows.

    Args:
        fault: what the log says of it; "": the status. Nothing that a visitor wrote.
    """

    def __init__(self, status: int, reason: str, fault: str = "") -> None:
        super().__init__(reason)
        self.status, self.fault = status, fault or str(status)


class File(NamedTuple):
    """A file to send: the end of its name, its kind, its content."""

    ending: str
    kind: str
    content: bytes


class FileDesk:
    """The one place of a server for files that come and go.

    Args:
        room: its profile says how large and how many they may be.
        counted: what is counted of a server's work; None: for this desk alone.
    """

    def __init__(self, room: ModelRoom, counted: Counted | None = None) -> None:
        self._room = room
        self._counted = counted or Counted()
        self._key = secrets.token_bytes(32)
        self.kept: Any = None  # where runs are kept, once a page asks for it (`store_desk.store_desk`)
        self.coming: set[str] = set()  # whose file is on its way: one a visitor
        # threads of their own, few: reading and writing files must not take all that other visitors' events need
        self._reading = anyio.CapacityLimiter(room.profile.files_read_at_once)
        self.making = anyio.CapacityLimiter(room.profile.files_made_at_once)

    @property
    def profile(self) -> Profile:
        """What the server allows."""
        return self._room.profile

    # --- who brings it --------------------------------------------------------------------------------------------

    def visit(self, session: str) -> dict[str, Any]:
        """What a page is told as its visit begins: the ticket to open files with, and how large they may be."""
        shown = base64.urlsafe_b64encode(session.encode("utf-8", "replace")).decode()
        return {"ticket": f"{shown}.{self._mark(shown)}", "largest": self._room.profile.trace_bytes}

    def _mark(self, shown: str) -> str:
        return hmac.new(self._key, shown.encode(), "sha256").hexdigest()

    def session(self, ticket: str) -> str | None:
        """The session a ticket was given to; None for one that was not given by this server."""
        shown, _, mark = ticket.partition(".")
        if not hmac.compare_digest(mark.encode(), self._mark(shown).encode()):
            return None
        return base64.urlsafe_b64decode(shown).decode()

    def guest(self, ticket: str, lang: str) -> str:
        """The session of a page that shows its ticket; raises FileRefused for a stranger."""
        session = self.session(ticket)
        if session is None:
            raise FileRefused(403, text(lang, "share.stranger"))
        return session

    # --- answers --------------------------------------------------------------------------------------------------

    def note(self, act: str, page: str, began: float, end: str, refused: Sequence[str] | None = None) -> None:
        """Count something that was asked for and was no run, and write its line.

        Args:
            act: what it was; one of few names of ours.
            page: where from.
            began: when, by the monotonic clock.
            end: done, refused, left, error.
            refused: as of :func:`loopviz.app.sessions.run_log.note`.
        """
        self._counted.note(act, end)
        run_log.note(act, page, time.monotonic() - began, end, refused)

    async def answer(
        self, request: Request, work: Callable[[str], Awaitable[Response]], act: str = "", page: str = "explore"
    ) -> Response:
        """What `work(lang)` answers; a refusal, or a failure, in words.

        Args:
            act, page: of its line in the log (:meth:`note`); "": it has none.
        """
        lang = pick_language(request.query_params.get("lang"))
        began, end = time.monotonic(), "left"  # who hangs up has it cancelled
        why: list[str] | None = None
        try:
            answered = await work(lang)
            end = "done"
            return answered
        except FileRefused as refused:
            end, why = "refused", [refused.fault]
            status, reason = refused.status, str(refused)
        except ClientDisconnect:
            return Response(status_code=400)
        except kinds() as error:
            end = "error"
            status, reason = 500, text(lang, "share.unexpected", ref=noted(error, request.url.path))
        finally:
            if act:
                self.note(act, page, began, end, why)
        return Response(reason, status_code=status, media_type=PLAIN, headers=_KEPT)

    async def hand(self, make: Callable[[], tuple[str, File]]) -> Response:
        """A file to keep, made in a thread of the desk's own: its whole name, and the file."""
        name, file = await anyio.to_thread.run_sync(make, limiter=self.making)
        headers = {**_KEPT, "Content-Disposition": f'attachment; filename="{name}"'}
        return Response(file.content, media_type=file.kind, headers=headers)

    async def bring(
        self, request: Request, ticket: str, lang: str, take: Callable[[Trace, str], dict[str, Any]], *, of_ttt: bool
    ) -> Response:
        """A saved run comes as the request's body; what `take(trace, session)` makes of it is the answer.

        Args:
            ticket: that the page shows.
            of_ttt: whether it is to be a TTT model's; one of the other kind is refused, and told where it belongs.

        Raises:
            FileRefused: a stranger, too many, too large, too slow, or no such file.
        """
        session = self.guest(ticket, lang)
        if session in self.coming:
            raise FileRefused(409, text(lang, "share.busy.own"))
        if len(self.coming) >= self._room.profile.files_at_once:
            raise FileRefused(503, text(lang, "share.busy"))
        self.coming.add(session)
        try:
            data = await _body(request, lang, self._room.profile)

            def work() -> dict[str, Any]:
                return take(read_run(data, lang, self._room.profile, of_ttt), session)

            taken = await anyio.to_thread.run_sync(work, limiter=self._reading)
        finally:
            self.coming.discard(session)
        return json_response(request, taken)


def json_response(request: Request, value: Any) -> Response:
    """A value as JSON, packed where that is worth it and understood."""
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


async def _body(request: Request, lang: str, profile: Profile) -> bytes:
    """The request's body, of which no more is taken than a file may have."""
    declared, most = request.headers.get("content-length", ""), profile.trace_bytes
    large = FileRefused(413, text(lang, "share.open.large", reason=f"> {most:,} bytes"))
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
        raise FileRefused(408, text(lang, "share.slow")) from error
    return b"".join(parts)


def read_run(data: bytes, lang: str, profile: Profile, of_ttt: bool) -> Trace:
    """The run in a file that may come from anyone.

    Args:
        of_ttt: whether it is to be a TTT model's.

    Raises:
        FileRefused: in words, when there is none, or one of the other kind.
    """
    from loopviz.trace.file import TraceFileError, loads

    try:
        limits = {"max_tokens": profile.trace_tokens, "max_rows": profile.trace_rows}
        trace = loads(data, max_bytes=profile.trace_bytes, **limits)
    except TraceFileError as error:
        raise FileRefused(422, text(lang, f"share.open.{error.fault}", reason=str(error)[:300])) from error
    except MemoryError as error:
        raise FileRefused(413, text(lang, "share.open.large", reason="MemoryError")) from error
    if ("ttt" in trace.meta) != of_ttt:
        raise FileRefused(
            422, text(lang, "share.open.loops" if of_ttt else "share.open.ttt", model=trace.meta["model"])
        )
    if not len(trace):
        raise FileRefused(422, text(lang, "share.open.empty"))
    return trace


# --- files that go -----------------------------------------------------------------------------------------------------


def run_file(trace: Trace) -> File:
    """A run's own file."""
    from loopviz.trace.file import dumps as pack

    return File(".loopviz", "application/octet-stream", pack(trace))


def slug(name: str, most: int) -> str:
    """A stranger's name as part of a file's name, of so many characters at most."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:most].strip("-.")


def base_name(trace: Trace, most: int) -> str:
    """How the names of a run's files begin: its model (as :func:`slug`), and when it was made."""
    when = re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d", trace.meta["created"], re.ASCII)
    made = re.sub(r"\D", "", when.group()) if when else ""
    return "-".join(filter(None, [slug(trace.meta["model"], most) or "run", made[:8], made[8:]]))
