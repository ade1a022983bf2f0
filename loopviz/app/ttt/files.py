"""What leaves the TTT page and comes back to it as a file: a run. Routes of our own beside Gradio's:

* `POST loopviz-share/ttt/open?lang=`: a saved run, as the request's body; answers with a snapshot of it.
* `GET loopviz-share/ttt/<run>/trace?lang=`: a run's file.

Runs that the server keeps: :mod:`loopviz.app.ttt.stored`. Whose they are and how large: :mod:`loopviz.app.sessions.file_desk`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from loopviz.app.contract import FILES, MOST_SLUG, TICKET_HEADER
from loopviz.app.sessions.file_desk import File, FileDesk, FileRefused, base_name, run_file
from loopviz.app.sessions.messages import wire
from loopviz.app.sessions.models import ModelRoom
from loopviz.app.texts import text
from loopviz.app.ttt.opened import ModelOfRun, TTTRuns, run_of
from loopviz.app.ttt.run import focus_of
from loopviz.app.ttt.stored import StoredTTT
from loopviz.trace import Trace


class TTTFiles:
    """The files of one server's TTT runs.

    Args:
        runs: what is opened becomes one of them.
        room: of TTT models.
        desk: where files come and go, the same for all pages.
    """

    def __init__(self, runs: TTTRuns, room: ModelRoom, desk: FileDesk) -> None:
        self._runs, self._room, self._desk = runs, room, desk
        self.stored = StoredTTT(desk, self._finished, self._shown)

    def visit(self, session: str) -> str:
        """The message that a page is told as its visit begins."""
        return wire({"kind": "visit", **self._desk.visit(session), "keeps": self.stored.days})

    def session(self, ticket: str) -> str:
        """Whose page shows this ticket of its visit; "": nobody's that is known."""
        return self._desk.session(ticket) or ""

    def routes(self) -> list[Route]:
        """The routes to add to Gradio's application."""
        return [
            Route(f"/{FILES}/ttt/open", self._open, methods=["POST"]),
            Route(f"/{FILES}/ttt/{{run}}/trace", self._send, methods=["GET"]),
            *self.stored.routes(),
        ]

    def _finished(self, run_id: Any, lang: str) -> Trace:
        """The trace of a run that nothing is added to any more."""
        run = self._runs.get(run_id)
        if run is None:
            raise FileRefused(404, text(lang, "share.gone"))
        if not run.finished.is_set():
            raise FileRefused(409, text(lang, "share.running"))
        return run.trace

    async def _send(self, request: Request) -> Response:
        async def work(lang: str) -> Response:
            trace = self._finished(request.path_params["run"], lang)

            def make() -> tuple[str, File]:
                file = run_file(trace)
                return f"{base_name(trace, MOST_SLUG)}{file.ending}", file

            return await self._desk.hand(make)

        return await self._desk.answer(request, work, "file/save", "ttt")

    async def _open(self, request: Request) -> Response:
        async def work(lang: str) -> Response:
            ticket = request.headers.get(TICKET_HEADER, "")
            return await self._desk.bring(
                request, ticket, lang, lambda trace, session: self._shown(trace, session, {"lang": lang}), of_ttt=True
            )

        return await self._desk.answer(request, work, "file/open", "ttt")

    def _shown(self, trace: Trace, session: str, place: Mapping[str, Any]) -> dict[str, Any]:
        """Keep what was read as a run of the session in place of an earlier file, and draw it from where one looks."""
        run = run_of(trace, ModelOfRun(self._room, trace.meta["model"]), focus_of(place), session)
        drawn = run.snapshot()  # first of all: a run that cannot be drawn is not kept
        self._runs.open(run)
        return drawn
