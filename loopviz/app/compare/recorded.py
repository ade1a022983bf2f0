"""The recorded comparison a page opens with: finished, drawn as it comes, and nobody's in particular."""

from __future__ import annotations

import functools
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopviz.app import contract
from loopviz.app.compare.run import ComparisonRun
from loopviz.app.controls import clean
from loopviz.app.controls.link_word import PageState, encode
from loopviz.app.texts import text
from loopviz.paths import ASSETS
from loopviz.trace.typed import check_type

if TYPE_CHECKING:
    from loopviz.lab.comparison.stored import Stored

log = logging.getLogger(__name__)

FILE = ASSETS / "runs" / "compare.json"
RUN = contract.RECORDED


@functools.cache
def stored(path: Path = FILE) -> Stored | None:
    """The recorded comparison; None when there is none that this version can read, and the log says why."""
    from loopviz.lab.comparison.stored import read_stored

    try:
        found = read_stored(path)
        check_type(found.page.get("setups"), contract.RecordedCards, f"{path.name}: page.setups")
        if len(found.page["setups"]["cards"]) != len(found.kept.params.loops):
            raise ValueError(f"{path.name}: page.setups: as many cards as configurations; record it again")
        return found
    except (OSError, ValueError) as error:
        log.warning("no recorded comparison to open with: %s", error)
        return None


@functools.cache
def cards(path: Path = FILE) -> contract.RecordedCards | None:
    """What the recorded comparison was made of, for a page to set up the same cards before it is read; None without one.

    Needs no torch. Whether the file is whole is seen when it is read.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["page"]["setups"]
        check_type(found, contract.RecordedCards, f"{path.name}: page.setups")
        return found
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("no recorded comparison to open with: %s", error)
        return None


def run_in(lang: str, local: bool) -> ComparisonRun | None:
    """The recorded comparison in a language, as if it had just ended; None when there is none.

    Args:
        local: as of a server whose links may name folders of this machine.
    """
    found = stored()
    if found is None:
        return None
    setups: dict[str, Any] = found.page["setups"]
    names = [called(card, lang) for card in setups["cards"]]
    comparison, kept = found.named(names)
    links = {place: _link(values, setups, local, lang) for place, values in enumerate(found.page["settings"])}
    run = ComparisonRun(comparison, kept, list(range(len(names))), links, lang=lang)
    run.id = RUN
    run.rows, run.stages = list(kept.rows), [{"stage": "done"} for _ in kept.rows]
    run.end = "done"
    run.finished.set()
    return run


def called(card: dict[str, Any], lang: str) -> str:
    """What a card is called in a language."""
    return text(lang, card["origin"], most=card["sweep"])


def _link(values: dict[str, Any] | None, setups: dict[str, Any], local: bool, lang: str) -> str | None:
    """The word that opens a card in Explore; None for a sweep, which is no one run."""
    if values is None:
        return None
    settings, _ = clean({**values, "model": setups["model"]})
    return encode(PageState(values=settings, prompt=setups["prompt"]), local=local, lang=lang)[0]
