"""A finished measurement as a file that comes along: its rows and its manifest, to be looked at before anything has run.

The file is JSON, one object:

    {"format": "loopviz-measurement", "version": 1, "manifest": {...}, "rows": [...], "trained": [1, 16] or null, "digest": "..."}

`manifest` is what `Experiment.manifest` gives and what `loopviz eval --from` repeats; `rows` are the table's, complete; `trained`
is :func:`loopviz.lab.trained.trained_loops` of its model; `digest` is the SHA-256 of all the rest, as :func:`sealed` has it. A file of
another version, of a task that has other columns now, or whose digest is not its own is refused by name: it is recorded anew
(`scripts/record_measurements.py`), not mended.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from loopviz.lab.experiment import Experiment, check_manifest, file_of, held_of, to_frame
from loopviz.lab.task import Row, Task, params_from_json
from loopviz.text_file import read_text

FORMAT, VERSION = "loopviz-measurement", 1


@dataclass(frozen=True)
class Kept:
    """A measurement that was read from a file: as an `Experiment` that is complete, without its model.

    Attributes:
        task: what was measured.
        params: with what.
        rows: all of its table.
        manifest: how it came about.
        trained: the numbers of loops its model was trained at, first and last; None: not known.
    """

    task: Task
    params: Any
    rows: list[Row]
    manifest: dict[str, Any]
    trained: tuple[int, int] | None = None
    complete: bool = True

    @property
    def model_name(self) -> str:
        """The name of the model."""
        return str(self.manifest["model"]["name"])

    @property
    def held(self) -> dict[str, str]:
        """By name, what its models were held in."""
        return held_of(self.manifest)

    @property
    def seconds(self) -> float:
        """Spent in the task."""
        return float(self.manifest["seconds"])

    @property
    def done(self) -> int:
        """Rows."""
        return len(self.rows)

    @property
    def frame(self) -> pd.DataFrame:
        """The table."""
        return to_frame(self.task, self.rows)

    def file(self, kind: str) -> bytes:
        """As `Experiment.file`."""
        return file_of(self, kind)


def kept_json(experiment: Experiment, trained: tuple[int, int] | None) -> dict[str, Any]:
    """A finished experiment as the file's object.

    Raises:
        ValueError: it is not finished, or a cell is no plain value.
    """
    if not experiment.complete:
        raise ValueError("experiment: not complete; run it to its end")
    for row in experiment.rows:
        _check_cells(row)
    held = {"manifest": experiment.manifest, "rows": experiment.rows, "trained": trained}
    return sealed({"format": FORMAT, "version": VERSION, **held})


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same with the digest of all of it."""
    held = json.loads(json.dumps({name: value for name, value in values.items() if name != "digest"}))
    return {**held, "digest": digest(held)}


def digest(values: Mapping[str, Any]) -> str:
    """SHA-256 of a file's object but for its digest: of its JSON, keys in order, no spaces."""
    held = {name: value for name, value in values.items() if name != "digest"}
    return hashlib.sha256(json.dumps(held, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_sealed(path: Path, form: str, version: int) -> dict[str, Any]:
    """The object in a file of this form and version, whole.

    Raises:
        ValueError: it is none; naming the file and what is wrong.
        OSError: it cannot be read.
    """
    try:
        values = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path.name}: not JSON ({error}); record it again") from None
    if not isinstance(values, dict) or values.get("format") != form:
        raise ValueError(f"{path.name}: no {form}; record it again")
    if values.get("version") != version:
        raise ValueError(
            f"{path.name}: version={values.get('version')!r}: this LoopViz reads {version}; record it again"
        )
    if values.get("digest") != digest(values):
        raise ValueError(f"{path.name}: not as it was written (its digest is another); record it again")
    return values


def read_kept(path: Path, task: Task | None = None) -> Kept:
    """The measurement in a file.

    Args:
        task: that it must be of; None: any.

    Raises:
        ValueError: no such file of this version, or one of a task or of columns that there are no more.
        OSError: it cannot be read.
    """
    values = read_sealed(path, FORMAT, VERSION)
    return kept_of(values, path.name, task)


def kept_of(values: Mapping[str, Any], name: str, task: Task | None = None) -> Kept:
    """The measurement in an object with `manifest`, `rows`, `trained`.

    Raises:
        ValueError: as :func:`read_kept`, naming `name`.
    """
    from loopviz.lab import TASKS

    manifest, rows = values.get("manifest"), values.get("rows")
    if not isinstance(manifest, dict) or not isinstance(rows, list):
        raise ValueError(f"{name}: manifest or rows missing; record it again")
    check_manifest(manifest)
    found = TASKS.get(manifest["task"])
    if found is None or (task is not None and found is not task):
        raise ValueError(f"{name}: task={manifest['task']!r}: not the measurement that is looked for")
    columns = {column.name for column in found.columns}
    for row in rows:
        if not isinstance(row, dict) or row.keys() != columns:
            raise ValueError(f"{name}: a row has not the columns of {found.name!r}; record it again")
        _check_cells(row)
    if not rows or len(rows) != manifest.get("rows") or manifest.get("complete") is not True:
        raise ValueError(f"{name}: not a complete table; record it again")
    return Kept(found, params_from_json(found.params, manifest["params"]), rows, manifest, _trained(values, name))


def _trained(values: Mapping[str, Any], name: str) -> tuple[int, int] | None:
    ends = values.get("trained")
    if ends is None:
        return None
    if not isinstance(ends, list) or len(ends) != 2 or not all(type(end) is int and end > 0 for end in ends):
        raise ValueError(f"{name}: trained={ends!r}: must be two whole numbers or null; record it again")
    return ends[0], ends[1]


def _check_cells(row: Mapping[str, Any]) -> None:
    """Refuse a cell that JSON would not give back as it is."""
    for name, value in row.items():
        if not (value is None or isinstance(value, (str, bool, int, float))):
            raise ValueError(f"{name}={value!r}: a cell is text, a number, yes, no or nothing")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name}={value!r}: not finite; JSON has no such number")
