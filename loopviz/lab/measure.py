"""How a page has a model measured: the one door from an engine to the Lab's tasks.

A task reads states, logits and caches as it likes, so it takes the model itself, and runs where the model is: in this process,
or at a cluster's replica (:mod:`loopviz.lab.remote_subject`). An engine goes in; out comes a :class:`~loopviz.lab.task.Subject`,
which a page hands to a task and never looks into, and then rows, which are plain data.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from loopviz.checks import FieldError
from loopviz.engine.local import LocalEngine
from loopviz.engine.ray_engine import RayEngine
from loopviz.engine.ttt_local import LocalTTT
from loopviz.lab.experiment import Experiment
from loopviz.lab.fellows import TTTSubject
from loopviz.lab.remote_subject import remote_subject
from loopviz.lab.task import Row, Subject, Task
from loopviz.model.interrupt import Interrupted, Stop, interruptible

if TYPE_CHECKING:
    from loopviz.engine.engine import Description, Engine, TTTEngine


def subject_of(
    engine: Engine | TTTEngine, *, paths: bool = False, beside: Mapping[str, Engine | TTTEngine] = MappingProxyType({})
) -> Subject:
    """The model behind an engine, as the thing that is measured.

    Args:
        paths: whether whoever asks may name any model to be measured beside it; else those that come along.
        beside: by name, engines of models that are here to be measured beside it.

    Raises:
        ValueError: a model is neither in this process nor on a cluster. EngineLost: no replica of it answers.
    """
    others = {name: subject_of(other) for name, other in beside.items()}
    if isinstance(engine, RayEngine):
        return remote_subject(engine, paths=paths, beside=others)
    if isinstance(engine, LocalTTT):
        return TTTSubject(engine.model, engine.tokenizer, engine.name, "", beside=others, free=paths)
    if not isinstance(engine, LocalEngine):
        kind = type(engine).__name__
        raise FieldError("engine", kind, "engine_elsewhere", shown=kind)
    return Subject.of_engine(engine, beside=others, free=paths)


def begin(task: Task, subject: Subject, params: Any, folder: Path, stop: Stop) -> Experiment | None:
    """An experiment, nothing of it measured yet: to count what will be read may take a while. None: `stop` was set meanwhile.

    Args:
        folder: of the texts it reads.
    """
    try:
        with interruptible(stop):
            return Experiment(task, subject, params, folder=folder)
    except Interrupted:
        return None


def model_of_row(task: Task, subject: Subject, row: Row, params: Any) -> Description | None:
    """The model that a row speaks of; None where it is no model's, or the task's rows are none."""
    fields: Mapping[str, Any] | None = None if task.settings is None else task.settings(subject, row, params)
    if fields is None:
        return None
    engine = LocalEngine(subject.name, subject.model, subject.tokenizer, subject.source)
    return engine.described(subject.view(dict(fields)).config)
