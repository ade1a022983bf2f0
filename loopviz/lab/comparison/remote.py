"""A comparison whose models are a cluster's: it is made at one replica, and its results fill here as they do there.

It is made where the model that is compared is, or else the first of the others that is a cluster's; the rest are loaded there
beside it, by name, for as long as it takes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loopviz.engine.engine import EngineLost
from loopviz.engine.replica import plain
from loopviz.lab.comparison.result import MEASURED
from loopviz.lab.fellows import fellow
from loopviz.lab.remote_subject import RemoteSubject, subject_there
from loopviz.lab.task import Subject
from loopviz.lab.tasks.compare import CompareParams, Comparison, Event
from loopviz.model.interrupt import check, stopped

if TYPE_CHECKING:
    from loopviz.engine.ray_engine import RayEngine
    from loopviz.engine.ray_line import RemoteWork
    from loopviz.engine.replica import Bench


def comparison_of(subject: Subject, params: CompareParams) -> Comparison:
    """The comparison, to be made where its models are; raises as :class:`Comparison`."""
    for each in (subject, *subject.beside.values()):
        if isinstance(each, RemoteSubject) and each.engine is not None:
            return RemoteComparison(subject, params, each.engine)
    return Comparison(subject, params)


@dataclass(frozen=True)
class _Moved:
    """An event of a comparison, with what it changed of its result beside the pass of a token.

    Attributes:
        measured: by name (`MEASURED`).
    """

    event: Event
    measured: dict[str, Any]


class RemoteComparison(Comparison):
    """A comparison that a replica makes; see :class:`Comparison`.

    Args:
        engine: at whose replica it is made.
    """

    def __init__(self, subject: Subject, params: CompareParams, engine: RayEngine) -> None:
        super().__init__(subject, params)
        self._engine, self._told = engine, set[int]()

    def events(self) -> Iterator[Event]:
        """As :meth:`Comparison.events`; raises EngineLost too."""
        for each in (self.subject, *self.subject.beside.values()):
            if isinstance(each, RemoteSubject):
                each.identify()
        args = (self.params, self.subject.name, self._engine.name)
        with closing(self._engine.work(compare_there, *args)) as work:

            def over() -> bool:
                self._tell_stops(work)
                return stopped()

            while (step := work.step(over)) is not None:
                moved: _Moved = step[0]
                event, result = moved.event, self.results[moved.event.setup]
                with self.lock:
                    if event.frame is not None:
                        result.take(event.frame)
                    for name, value in moved.measured.items():
                        setattr(result, name, value)
                yield event
        check()

    def _tell_stops(self, work: RemoteWork) -> None:
        """Those that were ended here end there; where it has not begun yet, or is gone, at the next look."""
        for i, stop in enumerate(self.stops):
            if stop.is_set() and i not in self._told:
                with suppress(EngineLost):
                    work.ask("stop", i)
                    self._told.add(i)


# -- at the replica ----------------------------------------------------------------------------------------------------


def compare_there(bench: Bench, params: CompareParams, subject: str, here: str) -> Iterator[_Moved]:
    """Work: a comparison.

    Args:
        subject: the model that is compared, by name; `here` is how the replica's own is called.
    """
    own = dataclasses.replace(subject_there(bench, free=True), name=here)
    main = own
    if subject != here:
        main = dataclasses.replace(fellow(own, subject, "model"), beside={here: own}, free=True)
    comparison = Comparison(main, params)

    def answer(method: str, setup: int) -> None:
        if method == "stop":
            comparison.stops[setup].set()

    bench.answer = answer
    with closing(comparison.events()) as events:  # type: ignore[type-var]  # a generator
        for event in events:
            yield _moved(comparison, event)


def _moved(comparison: Comparison, event: Event) -> _Moved:
    measured: dict[str, Any] = {}
    if event.kind in ("begin", "row"):
        result = comparison.results[event.setup]
        measured = {name: getattr(result, name) for name in MEASURED}
    error = None if event.error is None else plain(event.error)
    return _Moved(dataclasses.replace(event, error=error), measured)
