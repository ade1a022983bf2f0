"""Where runs come that the server keeps, and where they are opened again: once for all pages (`loopviz.store` has them).

A page's own routes (`/loopviz-store/...`) end here; what becomes of a run that was opened is the page's. Bodies and answers stand in
`contract/stored.py`, refusals are words in the visitor's language. Nothing of a run, no name and no secret comes into the log.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import Response

from loopviz.app.profile import Profile
from loopviz.app.sessions.file_desk import FileDesk, FileRefused, json_response
from loopviz.app.sessions.untrusted import fitting, has_halves
from loopviz.app.texts import text
from loopviz.store import Entry, Mirror, Quotas, Store, Stored, StoreError, new_secret
from loopviz.store.marks import fits, is_secret
from loopviz.store.quotas import DAY
from loopviz.trace import Trace

Act = Callable[[Mapping[str, Any], str, str, str], Any]  # of what was asked, a session, its language, its address

FULL = (
    "owner_runs",
    "owner_answers",
    "folder_answers",
    "owner_bytes",
    "place_bytes",
    "all_bytes",
    "folders",
)  # faults of a quota
STATUS = {
    "unknown": 404,
    "no_folder": 404,
    "no_answer": 404,
    "expired": 410,
    "deleted": 410,
    "owner": 403,
    "run_bytes": 413,
    "answer_bytes": 413,
}
STATUS |= dict.fromkeys(FULL, 507) | dict.fromkeys(("disk", "unread", "lost", "copy", "copy_often", "copy_public"), 503)


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


class StoreDesk:
    """The place of a server for runs that are kept; :func:`store_desk` gives all pages the same one.

    Args:
        desk: knows who has a ticket; its threads write and read, its profile says where runs are kept, how many, how long.
    """

    def __init__(self, desk: FileDesk) -> None:
        self._desk = desk
        self._lock = threading.Lock()
        self._store: Store | None = None

    @property
    def days(self) -> int:
        """That a run is kept; 0 where none is."""
        profile = self._desk.profile
        return profile.store_days if profile.store else 0

    @property
    def store(self) -> Store:
        """The store, opened when it is first needed; raises StoreError where there is none."""
        profile = self._desk.profile
        if not profile.store:
            raise StoreError("unknown")
        with self._lock:
            if self._store is None:
                mirror = Mirror(profile.store_dataset) if profile.store_dataset else None
                self._store = Store(Path(profile.store), quotas_of(profile), mirror=mirror)
            return self._store

    def answering(self, name: str, page: str, kind: type, act: Act, header: str) -> Callable[..., Any]:
        """The endpoint of an act, done in a thread of the desk's.

        Args:
            name, page: of its line in the log.
            kind: a TypedDict of the contract: what is asked, in the request's body.
            header: in which a page shows its ticket.
        """

        async def answer(request: Request) -> Response:
            async def work(lang: str) -> Response:
                session = self._desk.guest(request.headers.get(header, ""), lang)
                asked = _read(await request.body(), kind)
                address = request.client.host if request.client else ""
                done = await anyio.to_thread.run_sync(
                    lambda: told(lambda: act(asked, session, lang, address), lang), limiter=self._desk.making
                )
                return json_response(request, done)

            return await self._desk.answer(request, work, name, page)

        return answer

    def keep(self, trace: Trace, asked: Mapping[str, Any], address: str) -> dict[str, Any]:
        """Keep a run as it was asked for (`contract.KeepRun`); the answer. Raises StoreError."""
        own: Any = asked.get("secret")
        secret: str = own if is_secret(own) else new_secret()  # by another form nothing could be deleted
        more = {"folder": asked.get("folder"), "student": asked.get("student", "")}
        kept = self.store.save(trace, secret, address=address, view=asked.get("view", ""), **more)
        return {"id": kept.id, "secret": secret, "until": milliseconds(kept.expires)}

    def open(self, run: Any, lang: str, *, of_ttt: bool | None) -> Stored:
        """A run that is kept, of the page's kind.

        Args:
            of_ttt: whether it is to be a TTT model's; None: it may be.

        Raises:
            StoreError: there is none, or it cannot be read.
            FileRefused: it is one of the other kind, which is told where it belongs, or an empty one.
        """
        entry, trace = self.store.open(run)
        other = of_ttt is not None and entry.of_ttt != of_ttt
        if other or not len(trace):
            key = "empty" if not other else "loops" if of_ttt else "ttt"
            raise FileRefused(422, text(lang, f"share.open.{key}", model=trace.meta["model"]))
        return Stored(entry, trace)


def store_desk(desk: FileDesk) -> StoreDesk:
    """The place for kept runs of the server whose files come to `desk`."""
    if desk.kept is None:
        desk.kept = StoreDesk(desk)
    return desk.kept


def about(entry: Entry, secret: Any) -> dict[str, Any]:
    """What an answer says of a run that is kept: its id and title, until when, whether the secret is its owner's."""
    until = None if entry.featured is not None else milliseconds(entry.expires)
    return {"id": entry.id, "title": entry.title, "until": until, "mine": fits(secret, entry.owner)}


def words_of(error: StoreError, lang: str) -> str:
    """A refusal of the store's in a visitor's language."""
    named = {name: f"{value:,}" if isinstance(value, int) else value for name, value in error.named.items()}
    return text(lang, f"stored.{error.fault}", **named)


def told(work: Callable[[], Any], lang: str) -> Any:
    """What `work` gives; the store's refusals in the visitor's language, as FileRefused."""
    try:
        return work()
    except StoreError as error:
        raise FileRefused(STATUS[error.fault], words_of(error, lang), error.fault) from error


def milliseconds(seconds: float) -> int:
    """A time as pages take it."""
    return round(seconds * 1000)


def _read(body: bytes, kind: type) -> dict[str, Any]:
    """What a page asks; nothing of what is not as the contract has it."""
    try:
        asked = json.loads(body)
        return {} if has_halves(asked) else fitting(asked, kind)
    except (ValueError, RecursionError):
        return {}
