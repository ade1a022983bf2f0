"""The stored run a page opens with: finished, drawn at once, and nobody's in particular.

Reading it needs neither torch nor a model, so it is there before either.
"""

from __future__ import annotations

import functools
import hashlib
import logging
from pathlib import Path
from typing import Any

from loopviz.app import contract
from loopviz.app.controls import of_run
from loopviz.app.controls.controls import SERVER
from loopviz.app.explore import replay, snapshot
from loopviz.app.explore.config import page_config
from loopviz.app.server import source_code
from loopviz.app.sessions.messages import dumps
from loopviz.panels import GROUPS, PANELS, Focus, group_of, hero
from loopviz.paths import ASSETS
from loopviz.trace import Trace

log = logging.getLogger(__name__)

FILE = ASSETS / "runs" / "first.loopviz"
RUN = contract.RECORDED


def usual_panels() -> snapshot.Panels:
    """The panels that are on until a visitor says otherwise, of all groups."""
    return {name: panel for name, panel in PANELS.items() if snapshot.usual(panel)}


def opening_panels() -> snapshot.Panels:
    """Those of them that are drawn as a page opens: its first group's."""
    return {name: panel for name, panel in usual_panels().items() if group_of([name]) == GROUPS[0]}


def ending(trace: Trace) -> str:
    """Why the run of a finished trace ended."""
    return (trace.frames[-1]["finish"] if trace.frames else None) or "stopped"


@functools.cache
def stored(path: Path = FILE) -> Trace | None:
    """The stored run; None when there is none that this version can read, and the log says why."""
    from loopviz.trace.file import load

    try:
        return load(path)
    except (OSError, ValueError) as error:
        log.warning("no recorded run to open with: %s", error)
        return None


def settings(model: str) -> tuple[dict[str, Any], str] | None:
    """The controls' values and the prompt under which the stored run was made, for a page that opens on `model`.

    None when there is no stored run, or it is of another model, or of settings that the controls cannot hold.
    """
    trace = stored()
    if trace is None or trace.meta["model"] != model:
        return None
    values, lost = of_run(trace.meta)
    # whatever it was recorded in: nobody has chosen that here
    return None if lost else ({**values, "precision": SERVER}, str(trace.meta["prompt"]))


def mark() -> str | None:
    """What tells :func:`opening` from that of another version without making it: the stored run's file and this package's code.

    None when there is no stored run.
    """
    return None if stored() is None else _mark(FILE)


@functools.cache
def _mark(path: Path) -> str:
    whole = hashlib.sha256(path.read_bytes())
    for name, file in source_code.files().items():
        whole.update(name.encode() + file.read_bytes())
    return whole.hexdigest()[:16]


@functools.cache
def opening(lang: str) -> bytes | None:
    """What a page opens with, before anything else is there: `{"config", "snapshot"}` as JSON.

    The page's words, and the stored run, all of it shown by the panels it opens with, from the word that tells most of loops. None
    when there is no stored run.
    """
    trace = stored()
    if trace is None:
        return None
    place = {"run": RUN, "epoch": 0, "end": ending(trace)}
    drawn = replay.snapshot(trace, Focus(lang=lang, token=hero.telling(trace)), opening_panels(), **place)
    return dumps({"config": page_config(lang), "snapshot": drawn}).encode()
