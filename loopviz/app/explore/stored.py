"""Runs that this server keeps: saved, opened by their link, deleted; the gallery and class folders (`loopviz.store` has them).

Routes of our own beside Gradio's (`/loopviz-store/...`), their bodies and answers in `contract/stored.py`:

* `POST save`, `open`, `delete`, `class`, `class/new`: JSON, from a page that shows the ticket of its visit.
* `GET gallery`: what the host chose to show.

A stored run that is opened becomes a run of the visitor's, as a file does; nothing is run. Refusals are words in their language.
Nothing of a run, no name and no secret comes into the log.
"""

from __future__ import annotations

import json
import threading
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
from loopviz.app.profile import Profile
from loopviz.app.sessions.file_desk import FileDesk, FileRefused, json_response
from loopviz.app.sessions.untrusted import fitting, has_halves
from loopviz.app.texts import text
from loopviz.panels import group_of
from loopviz.store import Entry, Quotas, Store, Stored, StoreError, new_secret
from loopviz.store.marks import fits, is_secret
from loopviz.store.quotas import DAY
from loopviz.trace import Trace

FULL = ("owner_runs", "owner_bytes", "place_bytes", "all_bytes", "folders")  # faults of a quota
_STATUS = {"unknown": 404, "no_folder": 404, "expired": 410, "deleted": 410, "owner": 403, "run_bytes": 413}
_STATUS |= dict.fromkeys(FULL, 507) | dict.fromkeys(("disk", "unread", "lost"), 503)


def quotas_of(profile: Profile) -> Quotas:
    """How much a server of this profile keeps, and how long."""
    return Quotas(
        run_bytes=profile.store_run_bytes,
        run_tokens=profile.trace_tokens,
        run_rows=profile.trace_rows,
        owner_runs=profile.store_visitor_runs,
        owner_bytes=profile.store_place_bytes,
        place_bytes=profile.store_place_bytes,
        all_bytes=profile.store_bytes,
        folders=profile.store_folders,
        seconds=profile.store_days * DAY,
        folder_seconds=profile.store_days * DAY,
    )


class StoredRuns:
    """The stored runs of one server.

    Args:
        registry: the visitors' runs; what is opened becomes one of them.
        profile: says where runs are kept, how many, how long.
        desk: knows who has a ticket; its threads write and read.
        finished: the trace of a visitor's run by its id; raises FileRefused.
    """

    def __init__(self, registry: Runs, profile: Profile, desk: FileDesk, finished: Callable[[Any, str], Trace]) -> None:
        self._registry, self._profile, self._desk, self._finished = registry, profile, desk, finished
        self._lock = threading.Lock()
        self._store: Store | None = None

    def visit(self) -> dict[str, Any]:
        """What a page is told of them as its visit begins."""
        profile = self._profile
        keeps = profile.store_days if profile.store else 0
        return {"keeps": keeps, "folders": bool(keeps) and profile.store_new_folders}

    @property
    def store(self) -> Store:
        """The store, opened when it is first needed; raises StoreError where there is none."""
        if not self._profile.store:
            raise StoreError("unknown")
        with self._lock:
            if self._store is None:
                self._store = Store(Path(self._profile.store), quotas_of(self._profile))
            return self._store

    # --- routes ---------------------------------------------------------------------------------------------------

    def routes(self) -> list[Route]:
        """The routes to add to Gradio's application."""
        acts = {"save": self._save, "open": self._open, "delete": self._delete}
        acts |= {"class": self._class, "class/new": self._new_class}
        posts = [Route(f"/{PREFIX}/{name}", self._answering(name, act), methods=["POST"]) for name, act in acts.items()]
        return [*posts, Route(f"/{PREFIX}/gallery", self._gallery, methods=["GET"])]

    def _answering(self, name: str, act: Callable[[Mapping[str, Any], str, str, str], Any]) -> Callable[..., Any]:
        """The endpoint of an act `(asked, session, lang, address)`, done in a thread of the desk's."""
        kind = contract.STORE_CALLS[name][0]
        assert kind is not None

        async def answer(request: Request) -> Response:
            async def work(lang: str) -> Response:
                session = self._desk.guest(request.headers.get(TICKET_HEADER, ""), lang)
                asked = _read(await request.body(), kind)
                address = request.client.host if request.client else ""
                done = await anyio.to_thread.run_sync(
                    lambda: _told(lambda: act(asked, session, lang, address), lang), limiter=self._desk.making
                )
                return json_response(request, done)

            return await self._desk.answer(request, work)

        return answer

    async def _gallery(self, request: Request) -> Response:
        async def work(lang: str) -> Response:
            found = await anyio.to_thread.run_sync(lambda: _told(self._chosen, lang), limiter=self._desk.making)
            return json_response(request, {"name": "", "runs": _listed(found)})

        return await self._desk.answer(request, work)

    def _chosen(self) -> Sequence[Entry]:
        """The gallery; of a store that nobody has made yet nothing is made."""
        folder = self._profile.store
        return self.store.gallery() if folder and Path(folder).exists() else []

    # --- what is done -----------------------------------------------------------------------------------------------

    def _save(self, asked: Mapping[str, Any], session: str, lang: str, address: str) -> dict[str, Any]:
        """Keep a run of the visitor's."""
        trace = self._finished(asked.get("run"), lang)
        own = asked.get("secret")
        secret = own if is_secret(own) else new_secret()  # by another form nothing could be deleted
        more = {"folder": asked.get("folder"), "student": asked.get("student", "")}
        kept = self.store.save(trace, secret, address=address, view=asked.get("view", ""), **more)
        return {"id": kept.id, "secret": secret, "until": _milliseconds(kept.expires)}

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
        until = None if entry.featured is not None else _milliseconds(entry.expires)
        looks = {"panels": list(view.every), "group": group_of(view.panels) if view.panels else None}
        return {
            "id": entry.id,
            "title": entry.title,
            "until": until,
            "mine": fits(asked.get("secret"), entry.owner),
            **looks,
            "focus": focus.to_json(),
            "snapshot": drawn,
        }

    def read(self, run: Any, lang: str) -> Stored:
        """A stored run by its id; raises StoreError, and FileRefused for one that is not Explore's."""
        found = self.store.open(run)
        entry, trace = found
        if entry.of_ttt or not len(trace):
            raise FileRefused(
                422, text(lang, "share.open.ttt" if entry.of_ttt else "share.open.empty", model=trace.meta["model"])
            )
        return found

    def _delete(self, asked: Mapping[str, Any], session: str, lang: str, address: str) -> dict[str, Any]:
        self.store.delete(asked.get("id"), asked.get("secret"))
        return {"kind": "ok"}

    def _class(self, asked: Mapping[str, Any], session: str, lang: str, address: str) -> dict[str, Any]:
        """A class folder's name, for whoever has its link; what lies in it, for its teacher."""
        found = self.store.class_folder(asked.get("folder"))
        if found is None:
            raise StoreError("no_folder")
        runs = self.store.runs_of(found.id, asked["secret"]) if "secret" in asked else []
        return {"name": found.name, "runs": _listed(runs)}

    def _new_class(self, asked: Mapping[str, Any], session: str, lang: str, address: str) -> dict[str, Any]:
        if not self._profile.store_new_folders:
            raise FileRefused(403, text(lang, "stored.folders.host"))
        folder, secret = self.store.new_folder(asked.get("name", ""))
        return {"folder": folder.id, "secret": secret, "name": folder.name}


def _read(body: bytes, kind: type) -> dict[str, Any]:
    """What a page asks; nothing of what is not as the contract has it."""
    try:
        asked = json.loads(body)
        return {} if has_halves(asked) else fitting(asked, kind)
    except (ValueError, RecursionError):
        return {}


def words_of(error: StoreError, lang: str) -> str:
    """A refusal of the store's in a visitor's language."""
    named = {name: f"{value:,}" if isinstance(value, int) else value for name, value in error.named.items()}
    return text(lang, f"stored.{error.fault}", **named)


def _told(work: Callable[[], Any], lang: str) -> Any:
    """What `work` gives; the store's refusals in the visitor's language."""
    try:
        return work()
    except StoreError as error:
        raise FileRefused(_STATUS[error.fault], words_of(error, lang)) from error


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _listed(runs: Sequence[Entry]) -> list[dict[str, Any]]:
    names = ("id", "title", "model", "tokens", "student")
    return [{name: getattr(run, name) for name in names} | {"created": _milliseconds(run.created)} for run in runs]
