"""Answers that a class hands in to its folder, and their teacher's file of them. Routes of our own beside Gradio's:

* `POST loopviz-store/learn/hand_in`: a pupil's answers to a lesson; `loopviz-store/learn/withdraw`: she takes them back;
  `loopviz-store/learn/handed`: all of a class, for its teacher.

JSON, from a page that shows the ticket of its visit. They lie where stored runs do, with the same limits
(:mod:`loopviz.app.sessions.store_desk`), and go with their folder. What a teacher's link lists, and deletes: :mod:`loopviz.app.explore.stored`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.routing import Route

from loopviz.app import contract
from loopviz.app.contract import STORE, TICKET_HEADER
from loopviz.app.learn import answer_file
from loopviz.app.sessions.file_desk import FileDesk, FileRefused
from loopviz.app.sessions.messages import wire
from loopviz.app.sessions.store_desk import milliseconds, store_desk
from loopviz.app.texts import text
from loopviz.store import StoreError, new_secret
from loopviz.store.marks import is_secret


class Handing:
    """Where one server's pupils hand in answers.

    Args:
        desk: where files come and go, the same for all pages.
    """

    def __init__(self, desk: FileDesk) -> None:
        self._desk, self._kept = desk, store_desk(desk)

    def visit(self, session: str) -> str:
        """The message that a page is told as its visit begins."""
        return wire({"kind": "visit", "ticket": self._desk.visit(session)["ticket"], "keeps": self._kept.days})

    def routes(self) -> list[Route]:
        """The routes to add to Gradio's application."""
        made = []
        acts = {"learn/hand_in": self._hand_in, "learn/withdraw": self._withdraw, "learn/handed": self._handed}
        for name, act in acts.items():
            kind = contract.STORE_CALLS[name][0]
            assert kind is not None
            endpoint = self._kept.answering(name, "learn", kind, act, TICKET_HEADER)
            made.append(Route(f"/{STORE}/{name}", endpoint, methods=["POST"]))
        return made

    def _hand_in(self, asked: Mapping[str, Any], session: str, lang: str, address: str) -> dict[str, Any]:
        found = answer_file.answers_of(asked)
        if not found["answers"]:
            raise FileRefused(422, text(lang, "stored.no_answers"))
        own: Any = asked.get("secret")
        secret: str = own if is_secret(own) else new_secret()
        kept = self._kept.store.hand_in(
            asked.get("folder"),
            secret,
            json.dumps(found, ensure_ascii=False),
            lesson=found["lesson"],
            title=found["title"],
            student=found["name"],
            address=address,
            right=sum(one["right"] is True for one in found["answers"]),
            answered=len(found["answers"]),
        )
        return {"secret": secret, "at": milliseconds(kept.at)}

    def _withdraw(self, asked: Mapping[str, Any], session: str, lang: str, address: str) -> dict[str, Any]:
        named = answer_file.answers_of(asked)  # cut as they were when they were handed in
        self._kept.store.withdraw(asked.get("folder"), asked.get("secret"), named["lesson"], named["name"])
        return {"kind": "ok"}

    def _handed(self, asked: Mapping[str, Any], session: str, lang: str, address: str) -> dict[str, Any]:
        store = self._kept.store
        handed = store.answers_of(asked.get("folder"), asked.get("secret"))
        found = store.class_folder(asked.get("folder"))
        if found is None:  # its time was over meanwhile
            raise StoreError("no_folder")
        try:
            answers = [json.loads(one.data) for one in handed]
            return answer_file.file_of_class(found.name, answers, asked, self._desk.profile.table_characters)
        except answer_file.TableFull:
            raise FileRefused(413, text(lang, "stored.table_full")) from None
