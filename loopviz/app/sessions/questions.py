"""What every page's script may ask of its visitors' work: where a model is, and that what a ticket stands for end.

What is asked comes as the page's contract has it (:func:`loopviz.app.sessions.untrusted.read`); its values are not trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from loopviz.app import controls as st
from loopviz.app.sessions.messages import dumps
from loopviz.app.sessions.model_status import Status
from loopviz.app.sessions.models import ModelRoom
from loopviz.app.sessions.tickets import Starts, is_ticket
from loopviz.app.texts import pick_language
from loopviz.engine.engine import Engine


def where_is(
    asked: Mapping[str, Any],
    room: ModelRoom,
    unnamed: str = "",
    more: Callable[[Engine | None, Status], Mapping[str, Any]] | None = None,
    precision: str = "",
) -> str:
    """`{model, lang, linked, look}`: where a model is, as JSON.

    One that is not here begins to be loaded; of one that a link named (`linked`) the visitor is asked first; who only looks
    (`look`) does not want it.

    Args:
        unnamed: the model that is meant where none is named; "": that is refused.
        more: what else is answered, given the model, or None while it is not here, and where it is; a model that it is asked of
            counts as worked with.
        precision: what the model is to be held in; "": as the server has it.
    """
    lang = pick_language(asked.get("lang"))
    name, problems = st.clean_name(asked.get("model") or unnamed, lang)
    if problems:
        return dumps({"kind": "model", "name": "", "state": "failed", "text": problems[0].reason})
    now = room.want(name, lang, linked=asked.get("linked", False), look=asked.get("look", False), precision=precision)
    told = {"kind": "model", "name": name, "state": now.state, "text": now.tell(lang)}
    # after it was asked where it is: one that is ready is here
    return dumps(told if more is None else {**told, **more(room.ready(name, precision), now)})


def stop(asked: Mapping[str, Any], starts: Starts, runs: Iterable[Any]) -> str:
    """`{ticket}`: end what was asked for by this ticket, also what has not begun yet.

    Args:
        runs: of the page's visitors.
    """
    ticket = asked.get("ticket")
    starts.cancel(ticket)
    for run in runs:
        if is_ticket(ticket) and run.ticket == ticket:
            run.halt()
    return dumps({"kind": "ok"})
