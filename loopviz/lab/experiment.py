"""A task's table so far, and the manifest that says exactly how it came about and repeats it."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import torch

from loopviz import imports, outputs
from loopviz.csv_file import table_bytes
from loopviz.model.exit_gate import GATE_FILE
from loopviz.model.interrupt import Interrupted, Stop, interruptible
from loopviz.model.packed import quantization_of
from loopviz.model.precision import held_name, held_words, words_of
from loopviz.text_file import read_text

from .fellows import fellow, load_subject
from .task import Row, Subject, Task, params_from_json, params_to_json, plain_data

SCHEMA = 1
SUFFIXES = (".csv", ".parquet", ".json")


@dataclass(frozen=True)
class Source:
    """A text that a measurement read.

    Attributes:
        param: the parameter that gave it.
        name: the file's name without its folder; "" for a text given inline.
        sha256: of its UTF-8 bytes as it was read (:mod:`loopviz.text_file`), hex.
        characters: its length.
    """

    param: str
    name: str
    sha256: str
    characters: int


read_file = read_text  # as the measurements call it


def sources(params: Any) -> list[Source]:
    """The texts that parameters name (kinds "text" and "file"), in order."""
    found = []
    for thing in dataclasses.fields(params):
        kind, value = thing.metadata["kind"], getattr(params, thing.name)
        if kind not in ("text", "file") or not value:
            continue
        for item in value if isinstance(value, tuple) else (value,):
            text, name = (item, "") if kind == "text" else (read_file(item), Path(item).name)
            found.append(Source(thing.name, name, hashlib.sha256(text.encode()).hexdigest(), len(text)))
    return found


class Experiment:
    """A run of a task: iterate over it, and it fills.

    Iterating again goes on where the last iteration stopped; what has been yielded stays. It yields `None` where the
    task has no new row but may be left. Once its `stop` is set it ends, inside a pass too, and for good.

    Args:
        task: what to measure.
        subject: the model.
        params: an instance of `task.params`.
        command: the command line that makes it, if there is one.
        folder: where text files are kept only as long as it runs; the manifest has the names of those alone.
        stop: ends it from any thread; default: an event of its own.

    Raises:
        ValueError: parameters of another task, a model in training mode, or what the task refuses (a file that is not
            there).
    """

    def __init__(
        self,
        task: Task,
        subject: Subject,
        params: Any,
        command: str = "",
        *,
        folder: Path | None = None,
        stop: Stop | None = None,
    ) -> None:
        if not isinstance(params, task.params):
            raise ValueError(f"params={type(params).__name__}: task {task.name!r} takes {task.params.__name__}")
        if subject.model.training:
            raise ValueError("model.training=True: dropout would make every run another; call model.eval() first")
        self.task, self.subject, self.command = task, subject, command
        self.params: Any = params
        self.sources, self._folder = sources(params), folder
        self.stop: Stop = threading.Event() if stop is None else stop
        self.total = task.cells(subject, params)
        self.rows: list[Row] = []
        self.complete = False
        self.seconds = 0.0  # spent in the task
        self._share: float | None = None  # of the work done, where the task tells it
        self._created = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._running: Iterator[Row | float | None] | None = None

    def __iter__(self) -> Iterator[Row | None]:
        if self._running is None:
            self._running = iter(self.subject.measured(self.task, self.params))
        while not self.complete and not self.stop.is_set():
            started = time.perf_counter()
            try:
                with interruptible(self.stop):
                    row = next(self._running)
            except StopIteration:
                self.complete = True
                return
            except Interrupted:
                if not self.stop.is_set():  # who runs this is to end
                    raise
                return
            finally:
                self.seconds += time.perf_counter() - started
            if isinstance(row, dict):
                self.rows.append(self._checked(row))
                yield row
            else:
                self._share = self._share if row is None else row
                yield None

    def run(self) -> Experiment:
        """Run to the end."""
        for _ in self:
            pass
        return self

    def close(self) -> None:
        """Cancel; what was yielded is kept."""
        if self._running is not None and hasattr(self._running, "close"):
            self._running.close()

    def _checked(self, row: Row) -> Row:
        names = [column.name for column in self.task.columns]
        if set(row) != set(names):
            raise ValueError(f"task {self.task.name!r}: a row has {sorted(row)}, its columns are {sorted(names)}")
        return row

    @property
    def done(self) -> int:
        """Rows so far, of `total`."""
        return len(self.rows)

    @property
    def share(self) -> float:
        """How much is done, in 0..1: as the task tells it, else by its rows."""
        if self.complete:
            return 1.0
        return self.done / max(self.total, 1) if self._share is None else self._share

    @property
    def eta(self) -> float | None:
        """Seconds left if it goes on as it did; `None` before anything is done."""
        return self.seconds * max(0.0, 1 / self.share - 1) if self.share else None

    @property
    def held(self) -> dict[str, str]:
        """By name, what the model that is measured, and those beside it so far, are held in, for people."""
        return {each.name: held_words(each.model) for each in (self.subject, *[*self.subject.beside.values()])}

    @property
    def frame(self) -> pd.DataFrame:
        """The table so far, columns in the task's order."""
        return to_frame(self.task, list(self.rows))  # rows may come from another thread meanwhile

    @property
    def manifest(self) -> dict[str, Any]:
        """Exact settings, model hash, texts, versions: enough to repeat the run (:func:`repeat`). JSON-able."""
        subject = self.subject
        return {
            "schema": SCHEMA,
            "task": self.task.name,
            "params": params_to_json(self._lasting()),
            "model": {
                "name": subject.name,
                "source": subject.source,
                "digest": subject.digest,
                **({"gates": subject.gates} if subject.gates else {}),  # beside the weights, by their hash
                "dtype": held_name(subject.model),
                **({} if (packed := quantization_of(subject.model)) is None else {"quantization": packed}),
                # a manifest is passed on: not where this machine keeps its files
                "config": plain_data({**subject.model.config.to_dict(), "_name_or_path": subject.name}),
            },
            # models that were measured with it, by name their hashes
            **({"beside": {name: other.digest for name, other in subject.beside.items()}} if subject.beside else {}),
            **({"beside_dtypes": dtypes} if (dtypes := _other_dtypes(subject)) else {}),
            **({"beside_gates": gates} if (gates := _gates_of(subject.beside)) else {}),
            "texts": [dataclasses.asdict(source) for source in self.sources],
            "seed": getattr(self.params, "seed", None),
            "versions": subject.versions,
            "created": self._created,
            "rows": self.done,
            "complete": self.complete,
            "seconds": round(self.seconds, 3),
            "machine": subject.machine,
            "command": self.command,
            **({"imports": imports.loaded()} if imports.loaded() else {}),
        }

    def _lasting(self) -> Any:
        """The parameters, files of the folder that will not last by their names alone."""
        if self._folder is None:
            return self.params
        files = [thing.name for thing in dataclasses.fields(self.params) if thing.metadata["kind"] == "file"]
        paths = {name: Path(getattr(self.params, name)) for name in files if getattr(self.params, name)}
        names = {name: path.name for name, path in paths.items() if self._folder in path.parents}
        return dataclasses.replace(self.params, **names)

    def save(self, stem: str | os.PathLike[str]) -> list[Path]:
        """Write `stem.csv`, `stem.parquet` and the manifest `stem.json`, whole or not at all; returns their paths.

        Raises:
            OutputError: the system would not write; the message names the file.
        """
        paths = [Path(f"{os.fspath(stem)}{suffix}") for suffix in SUFFIXES]
        with outputs.naming(paths[0].parent):
            paths[0].parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:  # all three are whole before the first is put in its place
            csv, parquet, manifest = (stack.enter_context(outputs.replacing(path)) for path in paths)
            csv.write_bytes(self.file("csv"))
            parquet.write_bytes(self.file("parquet"))
            manifest.write_bytes(self.file("json"))
        return paths

    def file(self, kind: str) -> bytes:
        """One of the files of :meth:`save`, by its ending: the table so far (csv, parquet) or the manifest (json)."""
        return file_of(self, kind)


class Filed(Protocol):
    """What has a table and the manifest that repeats it."""

    @property
    def frame(self) -> pd.DataFrame:
        """The table."""

    @property
    def manifest(self) -> dict[str, Any]:
        """How it came about."""


def file_of(found: Filed, kind: str) -> bytes:
    """The table of a measurement (csv, parquet), or its manifest (json), as a file."""
    if kind == "csv":
        return table_bytes(found.frame)
    if kind == "json":
        return (json.dumps(found.manifest, indent=2, ensure_ascii=False) + "\n").encode()
    out = io.BytesIO()
    found.frame.to_parquet(out, index=False)
    return out.getvalue()


def to_frame(task: Task, rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as a table in the task's columns; whole numbers stay whole where some are missing."""
    data = {}
    for column in task.columns:
        values = [row[column.name] for row in rows]
        kinds = {type(value) for value in values if value is not None}
        dtype = None  # pandas knows texts
        if kinds == {int}:
            dtype = "Int64"
        elif kinds == {bool}:
            dtype = "boolean"
        elif kinds and kinds <= {int, float}:
            dtype, values = "float64", [math.nan if value is None else float(value) for value in values]
        data[column.name] = pd.Series(values, dtype=dtype)
    return pd.DataFrame(data, columns=[column.name for column in task.columns])


def repeat(
    manifest: str | os.PathLike[str] | Mapping[str, Any],
    *,
    subject: Subject | Callable[[], Subject] | None = None,
    files: Mapping[str, str] | None = None,
    command: str = "",
) -> Experiment:
    """The experiment that a manifest describes, not yet run.

    Args:
        manifest: path of the JSON file, or its content.
        subject: the model, or what loads it (called when all else is right); `None`: the manifest's name is loaded again.
        files: where text files are now, by parameter, when they have moved.
        command: as in :class:`Experiment`.

    Raises:
        ValueError: no manifest of this version, an unknown task or parameter, a text or a model that is not the same
            (by hash).
    """
    from . import TASKS

    values = manifest if isinstance(manifest, Mapping) else read_manifest(Path(manifest))
    check_manifest(values)
    task = TASKS.get(values["task"])
    if task is None:
        raise ValueError(f"task={values['task']!r}: unknown; there are {', '.join(TASKS)}")
    params = params_from_json(task.params, {**values["params"], **(files or {})})
    _check_texts(values["texts"], sources(params))
    if subject is None:
        said = values["model"]
        subject = load_subject(said["name"], dtype=getattr(torch, said["dtype"]), quantization=said.get("quantization"))
    elif callable(subject):
        subject = subject()
    if subject.digest != values["model"]["digest"]:
        raise ValueError(
            f"model {subject.name!r}: its weights are not the manifest's (sha256 {subject.digest[:12]}..., "
            f"then {values['model']['digest'][:12]}...); give the model that was measured"
        )
    _check_gate(subject, values["model"].get("gates"))
    dtypes = {name: getattr(torch, dtype) for name, dtype in values.get("beside_dtypes", {}).items()}
    for name, digest in values.get("beside", {}).items():
        if fellow(subject, name, "beside", dtypes.get(name)).digest != digest:
            raise ValueError(f"model {name!r}: its weights are not the manifest's; give the model that was measured")
        _check_gate(fellow(subject, name, "beside"), values.get("beside_gates", {}).get(name))
    return Experiment(task, subject, params, command)


def _other_dtypes(subject: Subject) -> dict[str, str]:
    """By name, what models beside a subject are held in, of those that are not held as it is."""
    held = {name: held_name(other.model) for name, other in subject.beside.items()}
    return {name: dtype for name, dtype in held.items() if dtype != held_name(subject.model)}


def held_of(manifest: Mapping[str, Any]) -> dict[str, str]:
    """As :attr:`Experiment.held`, of a manifest."""
    model, others = manifest["model"], manifest.get("beside_dtypes", {})
    own = words_of(model["dtype"], model.get("quantization"))
    return {model["name"]: own, **{name: others.get(name, own) for name in manifest.get("beside", {})}}


def _gates_of(subjects: Mapping[str, Subject]) -> dict[str, str]:
    return {name: subject.gates for name, subject in subjects.items() if subject.gates}


def _check_gate(subject: Subject, then: str | None) -> None:
    """Refuse a gate that is another now; what older manifests, and those of models without one, do not say is not known."""
    if then is not None and subject.gates != then:
        now = f"sha256 {subject.gates[:12]}..." if subject.gates else "there is none now"
        raise ValueError(
            f"model {subject.name!r}: the exit gate beside its weights ({GATE_FILE}) is not the manifest's ({now}, then "
            f"{then[:12]}...); give the one that was measured"
        )


def read_manifest(path: Path) -> Mapping[str, Any]:
    """A manifest's content, checked to be one of this version.

    Raises:
        ValueError: it is not.
    """
    try:
        values = json.loads(read_file(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON ({error}); give the .json written beside a table") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: not a manifest; give the .json written beside a table")
    check_manifest(values)
    return values


def check_manifest(values: Mapping[str, Any]) -> None:
    """Refuse, by name, what is no manifest of this version."""
    if values.get("schema") != SCHEMA:
        raise ValueError(f"schema={values.get('schema')!r}: this version repeats manifests of schema {SCHEMA}")
    missing = [name for name in ("task", "params", "model", "texts") if name not in values]
    if missing:
        raise ValueError(f"manifest: {', '.join(missing)} missing; give the .json written beside a table")


def _check_texts(then: Sequence[Mapping[str, Any]], now: Sequence[Source]) -> None:
    for old, new in zip(then, now, strict=True):
        if old["sha256"] != new.sha256:
            raise ValueError(
                f"{new.param}={new.name!r}: not the text that was measured (sha256 {new.sha256[:12]}..., then "
                f"{old['sha256'][:12]}...); give that file"
            )
