"""What the preview of a stored run's link tells (:mod:`loopviz.app.server.link_preview`): of the run itself, and of nobody who saved it.

Its title comes of the index; its picture is drawn of its file, where that is small enough to be read for a picture.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from loopviz.app.controls.about import about_loop, held_in
from loopviz.app.controls.model_name import short_name
from loopviz.app.server.link_card import Card
from loopviz.app.sessions.faults import kinds, noted
from loopviz.app.sessions.store_desk import StoreDesk
from loopviz.app.texts import text
from loopviz.store import Entry, StoreError
from loopviz.trace import Trace

MOST_BYTES = 4 * 2**20  # of a file that is read for its picture; of a larger one the picture tells what the index has


class RunCards:
    """The cards of the runs that one server keeps. Its methods may be called from any thread, and never raise.

    Args:
        kept: where they are.
    """

    def __init__(self, kept: StoreDesk) -> None:
        self._kept = kept

    def mark(self, run: str) -> str | None:
        """What a run's file is known by, as long as it is kept; None: there is none of this id, or none any more."""
        entry = self._entry(run)
        return None if entry is None else entry.sha256

    def told(self, run: str, lang: str, of_ttt: bool) -> Card | None:
        """What is said of a run of a page's kind without reading its file."""
        entry = self._entry(run)
        return None if entry is None or entry.of_ttt != of_ttt else _card(entry, lang)

    def card(self, run: str, lang: str) -> Card | None:
        """All that its picture says."""
        entry = self._entry(run)
        if entry is None or entry.bytes > MOST_BYTES:
            return None if entry is None else _card(entry, lang)
        try:
            return _card(entry, lang, self._kept.store.open(run).trace)
        except StoreError:
            return None  # damaged, or deleted meanwhile
        except kinds() as error:
            noted(error, "the picture of a stored run")
            return None

    def _entry(self, run: str) -> Entry | None:
        if not self._kept.days:
            return None
        try:
            return self._kept.store.entry(run)
        except StoreError:
            return None


def _card(entry: Entry, lang: str, trace: Trace | None = None) -> Card:
    blocks: list[Any] = [] if trace is None else list(trace.meta["blocks"])
    facts = [] if trace is None or entry.of_ttt else about_loop(blocks, lang)[:1]
    facts.append(text(lang, "preview.card.model", model=short_name(asdict(entry)["model"])))
    held = [] if trace is None else held_in(trace.meta, lang)
    facts.append(" · ".join([text(lang, "preview.card.tokens", n=entry.tokens), *held]))
    first = blocks[0] if blocks else None
    above = "" if first is None or first["strategy"] == "fixed_count" else text(lang, "preview.card.most")
    prompt = entry.title if trace is None else trace.meta["prompt"]
    loops = 0 if first is None else first["max_steps"]
    return Card(text(lang, "preview.card.run"), prompt, tuple(facts), loops, text(lang, "preview.card.loops"), above)
