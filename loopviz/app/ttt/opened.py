"""TTT runs that were not made here: the recorded one, which the page opens with, and those of visitors' files.

Their pictures need no model. What does is asked of the model of the run's name, once it is there and turns out to be the same.
"""

from __future__ import annotations

import functools
import logging
import secrets
import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from loopviz.app import contract
from loopviz.app.sessions.models import ModelRoom
from loopviz.app.sessions.registry import Registry
from loopviz.app.ttt.run import Asked, TTTRun
from loopviz.checks import FieldError
from loopviz.engine.engine import AttentionBeside, Handle, RulesHeld, TTTEngine
from loopviz.panels.ttt import TTTFocus
from loopviz.paths import ASSETS
from loopviz.trace import Trace

if TYPE_CHECKING:
    from loopviz.trace.schema import TTTChange

log = logging.getLogger(__name__)
FILE = ASSETS / "runs" / "ttt.loopviz"
RUN = contract.RECORDED


@functools.cache
def stored(path: Path = FILE) -> Trace | None:
    """The recorded run; None when there is none that this version can read, and the log says why."""
    from loopviz.trace.file import load

    try:
        found = load(path)
    except (OSError, ValueError) as error:
        log.warning("no recorded TTT run to open with: %s", error)
        return None
    return found if "ttt" in found.meta and len(found) else None


class ModelOfRun:
    """Of a run that was not made here, the model that may be asked about it: one that is loaded here by its name, and is the same.

    Args:
        room: of TTT models; nothing is loaded for a file's sake.
        name: of the model, as the run says.
    """

    def __init__(self, room: ModelRoom, name: str) -> None:
        self._room, self._name = room, name
        # The model last asked, and whether it made the run; one that the room lets go of goes.
        self._known: tuple[weakref.ref[TTTEngine], bool] | None = None

    def _model(self, trace: Trace, stop: threading.Event) -> TTTEngine:
        """The model; FieldError where it is not here, or is another one."""
        engine = cast("TTTEngine | None", self._room.ready(self._name))
        if engine is None:
            raise FieldError("model", self._name, "ttt_absent")
        if self._known is None or self._known[0]() is not engine:
            self._known = (weakref.ref(engine), engine.made(trace, stop))
        if not self._known[1]:
            raise FieldError("model", self._name, "ttt_other")
        return engine

    def read_under(self, trace: Trace, changes: Sequence[TTTChange], stop: threading.Event) -> list[float]:
        """As the model's own; FieldError where there is none."""
        return self._model(trace, stop).read_under(trace, changes, stop)

    def attention_beside(self, trace: Trace, index: int, stop: threading.Event) -> AttentionBeside | None:
        """As the model's own; FieldError where there is none."""
        return self._model(trace, stop).attention_beside(trace, index, stop)

    def inner_rules(self, trace: Trace, layer: int, head: int | None, stop: threading.Event) -> RulesHeld | None:
        """As the model's own; FieldError where there is none."""
        return self._model(trace, stop).inner_rules(trace, layer, head, stop)


def run_of(trace: Trace, model: ModelOfRun, focus: TTTFocus, session: str = "") -> TTTRun:
    """A run that is finished, of a trace that was not made here."""
    handle = Handle(trace.meta, iter(()), lambda **how: None, lambda: None)
    run = TTTRun(cast(Any, model), handle, focus, session, secrets.token_hex(16))
    run.trace, run.end, run.opened = trace, trace.frames[-1]["finish"] or "stopped", True
    run.finished.set()
    return run


class TTTRuns(Registry[TTTRun]):
    """The runs of the page's visitors, and the recorded one, which is everybody's: whoever asks for it gets one of their own."""

    def __init__(self, room: ModelRoom, keeper: Any) -> None:
        super().__init__(keeper)
        self._recorded = ModelOfRun(room, room.default)
        # By visitor, what they had the recorded run read again for: kept of those who were here last.
        self._visitors = room.profile.pages
        self._asked: OrderedDict[str, Asked] = OrderedDict()
        self._asking = threading.Lock()

    def get(self, run_id: Any, session: str = "") -> TTTRun | None:
        """As of any; the recorded run by its name.

        Args:
            session: who asks for it, where that is known: of the recorded run the same question is answered once at a time for each.
        """
        if run_id != RUN:
            return super().get(run_id)
        trace = stored()
        if trace is None:
            return None
        run = run_of(trace, self._recorded, TTTFocus(), session)
        run.id = run.ticket = RUN
        if session:
            with self._asking:
                run.asked = self._asked.setdefault(session, run.asked)
                self._asked.move_to_end(session)
                while len(self._asked) > self._visitors:
                    self._asked.popitem(last=False)
        return run

    def forget(self, session: str) -> None:
        """As of any; nothing is read for them any more."""
        super().forget(session)
        with self._asking:
            asked = self._asked.pop(session, None)
        if asked is not None:
            asked.leave()
