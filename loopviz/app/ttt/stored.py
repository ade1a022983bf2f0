"""Runs of the TTT page that this server keeps: saved, and opened by their link with nothing run. Routes of our own beside Gradio's:

* `POST loopviz-store/ttt/save`, `loopviz-store/ttt/open`: JSON, from a page that shows the ticket of its visit.

They lie where those of Explore do, with the same limits (:mod:`loopviz.app.sessions.store_desk`), and are deleted, listed and swept as
those are (:mod:`loopviz.app.explore.stored`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from starlette.routing import Route

from loopviz.app import contract
from loopviz.app.contract import STORE, TICKET_HEADER
from loopviz.app.sessions.file_desk import FileDesk
from loopviz.app.sessions.store_desk import about, store_desk
from loopviz.app.sessions.untrusted import read
from loopviz.trace import Trace

Finished = Callable[[Any, str], Trace]
Take = Callable[[Trace, str, Mapping[str, Any]], dict[str, Any]]


class StoredTTT:
    """The kept TTT runs of one server.

    Args:
        desk: where files come and go, and runs are kept.
        finished: the trace of a visitor's run by its id and their language; raises FileRefused.
        take: makes a trace a run of a session, looked at from there (`contract.PlaceTTT`); a snapshot of it.
    """

    def __init__(self, desk: FileDesk, finished: Finished, take: Take) -> None:
        self._kept, self._finished, self._take = store_desk(desk), finished, take

    @property
    def days(self) -> int:
        """That a run is kept; 0 where none is."""
        return self._kept.days

    def routes(self) -> list[Route]:
        """The routes to add to Gradio's application."""
        made = []
        for name, act in (("ttt/save", self._save), ("ttt/open", self._open)):
            kind = contract.STORE_CALLS[name][0]
            assert kind is not None
            endpoint = self._kept.answering(name, "ttt", kind, act, TICKET_HEADER)
            made.append(Route(f"/{STORE}/{name}", endpoint, methods=["POST"]))
        return made

    def _save(self, asked: Mapping[str, Any], session: str, lang: str, address: str) -> dict[str, Any]:
        return self._kept.keep(self._finished(asked.get("run"), lang), asked, address)

    def _open(self, asked: Mapping[str, Any], session: str, lang: str, address: str) -> dict[str, Any]:
        entry, trace = self._kept.open(asked.get("id"), lang, of_ttt=True)
        place = {"layer": 0, "head": None, "token": None} | read(entry.view, contract.PlaceTTT)
        return {
            **about(entry, asked.get("secret")),
            "place": place,
            "snapshot": self._take(trace, session, {**place, "lang": lang}),
        }
