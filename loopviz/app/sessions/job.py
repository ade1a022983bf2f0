"""What every page's work has in common before it runs: a model to wait for, a place in the line, and what is said meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

from loopviz.app.controls import settings as st
from loopviz.app.sessions.memory_budget import Keeper
from loopviz.app.sessions.messages import wire
from loopviz.app.sessions.models import ModelRefused, ModelRoom
from loopviz.app.sessions.tickets import Starts
from loopviz.app.sessions.waiting_line import Ahead, Places
from loopviz.app.texts import text


def status(line: str, bad: bool = False, **more: Any) -> str:
    """The message that shows one line; what the page shows otherwise stays."""
    return wire({"kind": "status", "text": line, "bad": bad, **more})


def over(ticket: str, line: str, bad: bool = True, **more: Any) -> str:
    """The message that ends what a page asked for by `ticket` before there was anything to show."""
    return status(line, bad, over=True, ticket=ticket, **more)


def in_line(ahead: Ahead, lang: str) -> str:
    """What is said to one who waits for a place: how many are before, and who runs."""
    running = ", ".join(text(lang, f"nav.{page}") for page in ahead.running)
    key = "live.queued" if ahead.waiting else "live.queued.next"
    return text(lang, key, n=ahead.waiting, running=running)


def full(places: Places, lang: str) -> str:
    """What is said to one who cannot even wait."""
    return text(lang, "live.full", n=places.longest)


class Jobs:
    """What the pages of one server share: its models, the places in which runs are made, who has begun what, what is kept.

    Args:
        places: in which runs are made; those of all pages are the same.
    """

    def __init__(self, room: ModelRoom, keeper: Keeper, places: Places | None = None) -> None:
        self.room = room
        self.keeper = keeper
        keeper.profile = room.profile
        self.places = places or Places(longest=room.profile.queue)
        self.starts = Starts()

    def load(self, name: Any, lang: str, gone: Callable[[], bool] = lambda: False) -> Iterator[tuple[str, bool]]:
        """Load a model a visitor named, or wait until `gone()`: lines to show, each with whether it is bad news."""
        name, problems = st.clean_name(name, lang)
        if problems:
            return
        try:
            for line in self.waiting(name, lang, gone):
                yield line, False
            yield "", False
        except ModelRefused as error:
            yield text(lang, "refused", reason=str(error)), True

    def waiting(self, name: str, lang: str, gone: Callable[[], bool] = lambda: False) -> Iterator[str]:
        """Load a model in a thread of its own; meanwhile, yield each new line about it. ModelRefused at the end.

        Ends early when `gone()`: the model is loaded all the same if others want it.
        """
        if self.room.ready(name) is not None:
            return
        refused: list[ModelRefused] = []

        def fetch() -> None:
            try:
                self.room.get(name, lang, gone)
            except ModelRefused as error:
                refused.append(error)

        thread = threading.Thread(target=fetch, name="loopviz-load", daemon=True)
        thread.start()
        said = None
        while thread.is_alive() and not gone():
            line = self.room.status(name).tell(lang)
            if line != said:
                said = line
                yield line
            thread.join(0.25)
        if refused and not gone():
            raise refused[0]
