"""The recorded run, with which the page opens where no run was taken along: the one that Explore opens with."""

from __future__ import annotations

import functools
import logging

from loopviz.app import contract
from loopviz.app.sessions.carried import CarriedRun
from loopviz.paths import ASSETS

log = logging.getLogger(__name__)
FILE = ASSETS / "runs" / "first.loopviz"


@functools.cache
def recorded() -> CarriedRun | None:
    """The run; None when there is none that this version can read, and the log says why."""
    from loopviz.trace.file import load

    try:
        trace = load(FILE)
    except (OSError, ValueError) as error:
        log.warning("no recorded run to take apart: %s", error)
        return None
    return CarriedRun(contract.RECORDED, trace, trace.meta["model"], own=True)
