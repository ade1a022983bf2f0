"""Runs that this server keeps: saved, opened by their link, deleted; the gallery and class folders (`loopviz.store` has them).

Routes of our own beside Gradio's (`/loopviz-store/...`), their bodies and answers in `contract/stored.py`:

* `POST save`, `open`, `delete`; `class`, `class/new`, `class/delete`, `class/run/delete`, `class/answer/delete`: JSON, from a page that shows the
  ticket of its visit.
* `GET gallery`: what the host chose to show.

A stored run that is opened becomes a run of the visitor's, as a file does; nothing is run. Refusals are words in their language.
Nothing of a run, no name and no secret comes into the log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from loopviz.app import contract
from loopviz.app.contract import STORE as PREFIX
from loopviz.app.contract import TICKET_HEADER
from loopviz.app.explore import first_run, links
from loopviz.app.explore.answers import View
from loopviz.app.explore.run import Run, Runs
from loopviz.app.explore.run_card import RunCards
from loopviz.app.sessions.file_desk import FileDesk, FileRefused, json_response
from loopviz.app.sessions.store_desk import Act, about, milliseconds, store_desk, told
from loopviz.app.texts import text
from loopviz.panels import group_of
from loopviz.store import Entry, HandedIn, Store, Stored, StoreError
from loopviz.store.index import FILE
from loopviz.trace import Trace


class StoredRuns:
    """The stored runs of one server.

    Args:
        registry: the visitors' runs; what is opened becomes one of them.
        desk: knows who has a ticket; where runs are kept, by its profile, it is asked.
        finished: the trace of a visitor's run by its id; raises FileRefused.
    """

    def __init__(self, registry: Runs, desk: FileDesk, finished: Callable[[Any, str], Trace]) -> None:
        self._registry, self._desk, self._finished = registry, desk, finished
        self._kept = store_desk(desk)
        self.cards = RunCards(self._kept)  # what previews of their links tell

    def visit(self) -> dict[str, Any]:
        """What a page is told of them as its visit begins."""
        keeps = self._kept.days
        return {"keeps": keeps, "folders": bool(keeps) and self._desk.profile.store_new_folders}

    @property
    def store(self) -> Store:
        """The store, opened when it is first needed; raises StoreError where there is none."""
        return self._kept.store

    # --- routes ---------------------------------------------------------------------------------------------------

    def routes(self) -> list[Route]:
        """The routes to add to Gradio's application."""
        acts = {"save": self._save, "open": self._open, "delete": self._delete}
        acts |= {"class": self._class, "class/new": self._new_class, "class/delete": self._delete_class}
        acts |= {"class/run/delete": self._delete_run, "class/answer/delete": self._delete_answer}
        posts = [Route(f"/{PREFIX}/{name}", self._answering(name, act), methods=["POST"]) for name, act in acts.items()]
        return [*posts, Route(f"/{PREFIX}/gallery", self._gallery, methods=["GET"])]

    def _answering(self, name: str, act: Act) -> Callable[..., Any]:
        kind = contract.STORE_CALLS[name][0]
        assert kind is not None
        return self._kept.answering(name, "explore", kind, act, TICKET_HEADER)

    async def _gallery(self, request: Request) -> Response:
        async def work(lang: str) -> Response:
            found = await anyio.to_thread.run_sync(lambda: told(self._chosen, lang), limiter=self._desk.making)
            return json_response(request, {"name": "", "runs": _listed(found), "answers": []})

        return await self._desk.answer(request, work)

    def _chosen(self) -> Sequence[Entry]:
        """The gallery; of a store that nobody has made yet nothing is made."""
        folder = self._desk.profile.store
        return self.store.gallery() if folder and (Path(folder) / FILE).exists() else []

    # --- what is done -----------------------------------------------------------------------------------------------

    def _save(self, asked: Mapping[str, Any], session: str, lang: str, address: str) -> dict[str, Any]:
        """Keep a run of the visitor's."""
        return self._kept.keep(self._finished(asked.get("run"), lang), asked, address)

    def _open(self, asked: Mapping[str, Any], session: str, lang: str, address: str) -> dict[str, Any]:
        """A stored run becomes one of the visitor's, looked at as it was when it was saved."""
        entry, trace = self.read(asked.get("id"), lang)
        view = View.read(entry.view)
        focus, _ = links.within(replace(view.focus, lang=lang), len(trace))
        run = Run(trace.meta, view.panels, session, focus)
        run.trace, run.end, run.opened = trace, first_run.ending(trace), True
        run.finished.set()
        drawn = run.snapshot()  # first of all: a run that cannot be drawn is not kept
        self._registry.stop(session)
        self._registry.open(run)
        looks = {"panels": list(view.every), "group": group_of(view.panels) if view.panels else None}
        return {
            **about(entry, asked.get("secret")),
            **looks,
            "focus": focus.to_json(),
            "snapshot": drawn,
        }

    def read(self, run: Any, lang: str, of_ttt: bool | None = False) -> Stored:
        """A stored run by its id, Explore's if not said otherwise; raises as :meth:`StoreDesk.open`."""
        return self._kept.open(run, lang, of_ttt=of_ttt)

    def _delete(self, asked: Mapping[str, Any], session: str, lang: str, address: str) -> dict[str, Any]:
        self.store.delete(asked.get("id"), asked.get("secret"))
        return {"kind": "ok"}

    def _class(self, asked: Mapping[str, Any], session: str, lang: str, address: str) -> dict[str, Any]:
        """A class folder's name, for whoever has its link; what lies in it, for its teacher."""
        found = self.store.class_folder(asked.get("folder"))
        if found is None:
            raise StoreError("no_folder")
        if "secret" not in asked:
            return {"name": found.name, "runs": [], "answers": []}
        runs = self.store.runs_of(found.id, asked["secret"])
        answers = self.store.answers_of(found.id, asked["secret"], whole=False)
        return {"name": found.name, "runs": _listed(runs), "answers": _handed(answers)}

    def _new_class(self, asked: Mapping[str, Any], session: str, lang: str, address: str) -> dict[str, Any]:
        if not self._desk.profile.store_new_folders:
            raise FileRefused(403, text(lang, "stored.folders.host"))
        folder, secret = self.store.new_folder(asked.get("name", ""))
        return {"folder": folder.id, "secret": secret, "name": folder.name}

    def _delete_class(self, asked: Mapping[str, Any], session: str, lang: str, address: str) -> dict[str, Any]:
        """A folder with all that lies in it, for its teacher."""
        return self.store.delete_folder(asked.get("folder"), asked.get("secret"))._asdict()

    def _delete_run(self, asked: Mapping[str, Any], session: str, lang: str, address: str) -> dict[str, Any]:
        self.store.delete_from(asked.get("folder"), asked.get("secret"), asked.get("id"))
        return {"kind": "ok"}

    def _delete_answer(self, asked: Mapping[str, Any], session: str, lang: str, address: str) -> dict[str, Any]:
        self.store.delete_answer(asked.get("folder"), asked.get("secret"), asked.get("id"))
        return {"kind": "ok"}


def _handed(answers: Sequence[HandedIn]) -> list[dict[str, Any]]:
    names = ("id", "student", "title", "right", "answered")
    return [{name: getattr(one, name) for name in names} | {"at": milliseconds(one.at)} for one in answers]


def _listed(runs: Sequence[Entry]) -> list[dict[str, Any]]:
    names = ("id", "title", "model", "of_ttt", "tokens", "student")
    return [{name: getattr(run, name) for name in names} | {"created": milliseconds(run.created)} for run in runs]
