"""A model of a cluster as the thing that is measured: what it is is known here, and every measurement is made where its weights are.

Of the model a skeleton is here (:mod:`loopviz.model.skeleton`) and its tokenizer, so that settings are checked and costs are told
as of any other; rows come from a replica, as they are made there.
"""

from __future__ import annotations

import dataclasses
import pickle
import shutil
import weakref
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopviz import outputs
from loopviz.engine.local import LocalEngine
from loopviz.lab.task import Row, Subject, Task
from loopviz.model.interrupt import check, stopped
from loopviz.model.skeleton import from_skeleton, skeleton_of

if TYPE_CHECKING:
    from loopviz.engine.ray_engine import RayEngine
    from loopviz.engine.replica import Bench


@dataclass(frozen=True)
class RemoteSubject(Subject):
    """A model whose weights are elsewhere.

    Attributes:
        engine: of the model; None of one that was loaded beside another, where that is.
        said: what is told of it there: `digest` and `gates` (as :class:`Subject` has them), `machine` and `versions`.
    """

    engine: RayEngine | None = None
    said: dict[str, Any] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    def identify(self) -> dict[str, Any]:
        """Have said which weights these are, so that a table can be kept wherever its model then is; raises EngineLost."""
        if not self.said:
            assert self.engine is not None
            with closing(self.engine.work(_identity)) as work:
                self.said.update(work.first())
        return self.said

    @property
    def digest(self) -> str:
        """As :attr:`Subject.digest`; raises EngineLost."""
        return self.identify()["digest"]

    @property
    def gates(self) -> str:
        """As :attr:`Subject.gates`; raises EngineLost."""
        return self.identify()["gates"]

    @property
    def machine(self) -> dict[str, Any]:
        """Of the replica; raises EngineLost."""
        return self.identify()["machine"]

    @property
    def versions(self) -> dict[str, str]:
        """Of the replica; raises EngineLost."""
        return self.identify()["versions"]

    def measured(self, task: Task, params: Any) -> Iterator[Row | float | None]:
        """The rows of a measurement that a replica makes; raises as :meth:`Task.run`, and EngineLost."""
        assert self.engine is not None
        self.identify()
        args = (task.name, params, texts_of(params), self.free)
        with closing(self.engine.work(measure_there, *args)) as work:
            while (step := work.step(stopped)) is not None:
                if isinstance(step[0], _Beside):
                    self.beside[step[0].name] = step[0].subject()
                    continue
                yield step[0]
        check()


# -- what passes -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _About:
    """What is told of a model: all of a :class:`Subject` but its weights."""

    model: bytes
    tokenizer: bytes
    name: str
    source: str
    notes: tuple[str, ...]

    @classmethod
    def of(cls, subject: Subject) -> _About:
        model, tokenizer = skeleton_of(subject.model), pickle.dumps(subject.tokenizer)
        return cls(model, tokenizer, subject.name, subject.source, subject.notes)

    def fields(self) -> dict[str, Any]:
        """Of the subject that it stands for."""
        same = {name: getattr(self, name) for name in ("name", "source", "notes")}
        return same | {"model": from_skeleton(self.model), "tokenizer": pickle.loads(self.tokenizer)}


@dataclass(frozen=True)
class _Beside:
    """A model that was loaded beside the one that is measured."""

    name: str
    about: _About
    identity: dict[str, Any]

    def subject(self) -> RemoteSubject:
        return RemoteSubject(**self.about.fields(), said=self.identity)


# Of each engine the fields of its subjects: they are asked for at every keystroke, and hold nothing that is changed.
_KNOWN: weakref.WeakKeyDictionary[RayEngine, dict[str, Any]] = weakref.WeakKeyDictionary()


def remote_subject(engine: RayEngine, *, paths: bool, beside: dict[str, Subject]) -> RemoteSubject:
    """The model behind a cluster's engine; asked once as long as the engine lives. Raises EngineLost."""
    known = _KNOWN.get(engine)
    if known is None:
        with closing(engine.work(_about)) as work:
            about: _About = work.first()
        known = _KNOWN[engine] = about.fields() | {"name": engine.name, "said": {}}
    return RemoteSubject(**known, beside=beside, free=paths, engine=engine)


def texts_of(params: Any) -> dict[str, list[tuple[str, bytes]]]:
    """By parameter (kind "file"), the texts it names: each file's own name and its bytes. OSError where one cannot be read."""
    found: dict[str, list[tuple[str, bytes]]] = {}
    for thing in dataclasses.fields(params):
        value = getattr(params, thing.name)
        if thing.metadata["kind"] == "file" and value:
            paths = value if isinstance(value, tuple) else (value,)
            found[thing.name] = [(Path(path).name, Path(path).read_bytes()) for path in paths]
    return found


# -- at the replica ----------------------------------------------------------------------------------------------------


def subject_there(bench: Bench, *, free: bool) -> Subject:
    """The model of a replica, which has it itself."""
    assert isinstance(bench.engine, LocalEngine)
    return Subject.of_engine(bench.engine, free=free)


def _about(bench: Bench) -> Iterator[_About]:
    """Work: what the model is."""
    yield _About.of(subject_there(bench, free=True))


def _identity(bench: Bench) -> Iterator[dict[str, Any]]:
    """Work: which weights these are, and where they are."""
    yield identity_of(subject_there(bench, free=True))


def identity_of(subject: Subject) -> dict[str, Any]:
    """Which weights these are, and where they are."""
    return {name: getattr(subject, name) for name in ("digest", "gates", "machine", "versions")}


def measure_there(
    bench: Bench, name: str, params: Any, texts: dict[str, list[tuple[str, bytes]]], free: bool
) -> Iterator[Row | float | _Beside | None]:
    """Work: a measurement, and the models that it loads beside its own.

    Args:
        name: of the task; `params` are its parameters.
        texts: as :func:`texts_of`; they are written where the replica reads them.
        free: whether any model may be named beside it.
    """
    from loopviz.lab import TASKS

    subject, known = subject_there(bench, free=free), set[str]()
    folder = outputs.scratch_folder()
    try:
        params = dataclasses.replace(params, **_written(params, texts, folder))
        for row in TASKS[name].run(subject, params):
            for other in [name for name in subject.beside if name not in known]:
                known.add(other)
                yield beside_of(other, subject.beside[other])
            yield row
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def beside_of(name: str, subject: Subject) -> _Beside:
    """What is told of a model that was loaded beside another."""
    return _Beside(name, _About.of(subject), identity_of(subject))


def _written(params: Any, texts: dict[str, list[tuple[str, bytes]]], folder: Path) -> dict[str, Any]:
    """The texts as files, by parameter."""
    found: dict[str, Any] = {}
    for name, files in texts.items():
        paths = []
        for i, (called, content) in enumerate(files):
            path = folder / name / str(i) / called
            path.parent.mkdir(parents=True)
            outputs.write(path, content)
            paths.append(str(path))
        found[name] = tuple(paths) if isinstance(getattr(params, name), tuple) else paths[0]
    return found
