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

from collections.abc import Mapping
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from loopviz.app.contract import FILES as PREFIX
from loopviz.app.contract import MOST_SLUG
from loopviz.app.contract import TICKET_HEADER as TICKET
from loopviz.app.controls import Form
from loopviz.app.explore import first_run, links, snapshot
from loopviz.app.explore.answers import View
from loopviz.app.explore.run import Run, Runs
from loopviz.app.explore.stored import StoredRuns
from loopviz.app.sessions.file_desk import PLAIN, File, FileDesk, FileRefused, base_name, json_response, run_file
from loopviz.app.sessions.messages import wire
from loopviz.app.sessions.models import ModelRoom
from loopviz.app.texts import text
from loopviz.panels import PANELS
from loopviz.trace import Trace


class Sharing:
    """Links and files of one server's runs.

    Args:
        registry: the visitors' runs; what is opened becomes one of them.
        room: the models, for what a link may name.
        desk: where files come and go, the same for all pages of a server.
    """

    def __init__(self, registry: Runs, room: ModelRoom, desk: FileDesk | None = None) -> None:
        self._registry = registry
        self._room = room
        self._desk = desk or FileDesk(room)
        self.stored = StoredRuns(registry, self._desk, self._finished)

    # --- what the page's events ask -------------------------------------------------------------------------------

    def visit(self, session: str) -> dict[str, Any]:
        """What a page is told as its visit begins: the ticket to open files with, how large they may be, what is kept here."""
        return {**self._desk.visit(session), **self.stored.visit()}

    def link(self, asked: Any, prompt: Any, values: Mapping[str, Any] | Form, lang: str) -> str:
        """The message with a link to what is set up (:func:`loopviz.app.explore.links.message`)."""
        return wire(links.message(asked, prompt, values, lang, registry=self._registry, room=self._room))

    # --- routes ---------------------------------------------------------------------------------------------------

    def routes(self) -> list[Route]:
        """The routes to add to Gradio's application."""
        return [
            Route(f"/{PREFIX}/link", self._link, methods=["GET"]),
            Route(f"/{PREFIX}/open", self._open, methods=["POST"]),
            Route(f"/{PREFIX}/{{run}}/{{kind}}", self._send, methods=["GET"]),
            Route(f"/{PREFIX}/{{run}}/panel/{{panel}}/{{kind}}", self._send, methods=["GET"]),
            *self.stored.routes(),
        ]

    async def _link(self, request: Request) -> Response:
        async def work(lang: str) -> Response:
            word = request.query_params.get("s")
            found = await anyio.to_thread.run_sync(links.opening, word, self._room, lang, limiter=self._desk.making)
            return json_response(request, found)

        return await self._desk.answer(request, work)

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
                return f"{base_name(trace, MOST_SLUG)}{file.ending}", file

            return await self._desk.hand(make)

        return await self._desk.answer(request, work, "file/save")

    def _finished(self, run_id: Any, lang: str) -> Trace:
        """The trace of a run that nothing is added to any more."""
        if run_id == first_run.RUN and (stored := first_run.stored()) is not None:
            return stored
        run = self._registry.get(run_id)
        if run is None:
            raise FileRefused(404, text(lang, "share.gone"))
        if not run.finished.is_set():
            raise FileRefused(409, text(lang, "share.running"))
        return run.trace

    def _model_of(self, run_id: Any) -> str | None:
        """What to load to make a run again: the model's whole name, where visitors may name places of this machine."""
        run = self._registry.get(run_id)
        name = run.values.get("model") if run is not None and run.values and self._room.profile.paths else None
        return name if isinstance(name, str) else None

    async def _open(self, request: Request) -> Response:
        """A visitor's file becomes a run of theirs."""

        async def work(lang: str) -> Response:
            view = View.read(request.query_params.get("view"))
            ticket = request.headers.get(TICKET, "")
            return await self._desk.bring(
                request, ticket, lang, lambda *taken: self._take(*taken, view, lang), of_ttt=False
            )

        return await self._desk.answer(request, work, "file/open")

    def _take(self, trace: Trace, session: str, view: View, lang: str) -> dict[str, Any]:
        """Keep what was read as a run of the session in place of an earlier one, and draw it."""
        run = Run(trace.meta, view.panels, session, view.fresh(lang))
        run.trace, run.end = trace, first_run.ending(trace)
        run.opened = True
        run.finished.set()
        drawn = run.snapshot()  # first of all: a run that cannot be drawn is not kept
        self._registry.stop(session)  # the page shows the file from now on
        self._registry.open(run)
        return drawn


def _run_file(trace: Trace, view: View, kind: Any, lang: str, model: str | None) -> File:
    if kind == "trace":
        return run_file(trace)
    if kind == "report":
        from loopviz.export.report import to_html

        page = to_html(trace, view.focus, panels=list(view.every))
        return File("-report.html", "text/html; charset=utf-8", page.encode())
    if kind == "python":
        from loopviz.export.python_code import python_code

        return File(".py", PLAIN, python_code(trace, model).encode("utf-8", "replace"))
    if kind == "notebook":
        from loopviz.export.jupyter import notebook_bytes

        return File(".ipynb", "application/x-ipynb+json", notebook_bytes(trace, model, lang))
    raise FileRefused(404, text(lang, "share.gone"))


def _panel_file(trace: Trace, view: View, panel: Any, kind: Any, lang: str) -> File:
    from loopviz.export.panel_table import KINDS, panel_file

    if panel not in PANELS or kind not in KINDS:
        raise FileRefused(404, text(lang, "share.no_panel"))
    if panel not in snapshot.drawable(trace, PANELS):
        raise FileRefused(409, text(lang, "share.not_recorded"))
    _, content = panel_file(trace, panel, kind, view.focus)
    token = view.focus.selected(len(trace))
    return File(f"-{panel}" + ("" if token is None else f"-token-{token}") + f".{kind}", KINDS[kind], content)
