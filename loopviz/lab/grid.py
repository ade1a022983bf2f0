"""What a sweep's grid file asks for, as cells: each is one experiment, as data that travels to a process or a machine."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from loopviz import imports
from loopviz.checks import FieldError
from loopviz.loop_fields import BLOCK_FIELDS
from loopviz.machine import HELD_IN

from .experiment import read_file, sources
from .grid_yaml import Path_, meant_as_boolean, read_yaml
from .task import Task, options_of, params_from_json, params_to_json

FIELDS = ("task", "models", "configurations", "texts", "params", "dtype", "device", "imports")
AXES = ("model", "configuration", "text")
_FLAGS = {field.name for field in BLOCK_FIELDS if field.kind == "flag"}


@dataclass(frozen=True)
class Cell:
    """One experiment of a grid, as data that travels to a process or a machine.

    Attributes:
        model, configuration, text: names, the grid's axes.
        task: the task's name.
        params: its parameters, JSON-able.
        dtype: what the weights are held in: no `half` or `auto`, for a cell means the same on every machine.
        device: where it runs.
        texts: sha256 of the texts it reads.
        folder: that relative paths are relative to.
        made_of: everything that decides the result, JSON-able; `{}` until the model has been looked at.
    """

    model: str
    configuration: str
    text: str
    task: str
    params: dict[str, Any]
    dtype: str
    device: str
    texts: tuple[str, ...]
    folder: str
    made_of: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def key(self) -> str:
        """sha256 of everything that decides the result."""
        return hashlib.sha256(json.dumps(self.made_of, sort_keys=True).encode()).hexdigest()

    @property
    def axes(self) -> tuple[str, ...]:
        """Its place in the grid."""
        return tuple(getattr(self, name) for name in AXES)

    @property
    def name(self) -> str:
        """Its place in the grid, to be read."""
        return " / ".join(filter(None, self.axes))


def read_grid(path: Path, device: str | None = None) -> list[Cell]:
    """The cells of a grid file, models outermost, so that a process seldom loads another model.

    Args:
        path: the YAML file; what it `imports` is imported now, for it may register the task.
        device: instead of the file's.

    Raises:
        ValueError: not YAML, or a grid that is refused, by field and line.
    """
    values, lines = read_yaml(read_file(path), path)
    if not isinstance(values, dict):
        raise ValueError(f"{path}: must be a mapping with {', '.join(FIELDS)}")
    for name in values:
        if name not in FIELDS:
            raise ValueError(f"{name}: no field of a grid{_at(lines, name)}; there are {', '.join(FIELDS)}")
    imports.load(grid_imports(values), [path.parent])
    task = task_named(values.get("task"))
    dtype = values.get("dtype", "float32")
    if dtype not in HELD_IN:
        raise ValueError(f"dtype={dtype!r}{_at(lines, 'dtype')}: must be one of {', '.join(HELD_IN)}")
    device = _device(values.get("device", "cpu") if device is None else device, dtype)
    models = values.get("models")
    if not isinstance(models, list) or not models or not all(isinstance(name, str) and name for name in models):
        raise ValueError(f"models={models!r}{_at(lines, 'models')}: must be a list of names or folders, at least one")
    common = _mapping("params", values.get("params"))
    groups = [_named(name, values.get(name)) for name in ("configurations", "texts")]
    found = []
    for (configuration, changes), (text, source) in itertools.product(*(group.items() for group in groups)):
        try:
            merged = _meant(_merged(common, source, changes), task)
            _check_loop_fields(merged, task)
            params = params_from_json(task.params, merged)
            texts = sources(params)
        except ValueError as error:
            places = (("configurations", configuration), ("texts", text), ("params",))
            where = f"configuration {configuration!r}, text {text!r}"
            raise ValueError(f"{where}: {error}{_line_of(error, places, lines)}") from None
        found.append((configuration, text, params_to_json(params), tuple(source.sha256 for source in texts)))
    folder = os.getcwd()
    return [
        Cell(model, configuration, text, task.name, params, dtype, device, texts, folder)
        for model in dict.fromkeys(models)
        for configuration, text, params, texts in found
    ]


def grid_imports(values: Mapping[str, Any]) -> list[str]:
    """What a grid `imports`."""
    names = values.get("imports") or []
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"imports={names!r}: must be a list of modules or .py files")
    return names


def _at(lines: Mapping[Path_, int], *keys: str) -> str:
    return f" (line {lines[keys]})" if keys in lines else ""


def _line_of(error: ValueError, places: Sequence[Path_], lines: Mapping[Path_, int]) -> str:
    """The line of the field that a refusal speaks of."""
    field = error.field if isinstance(error, FieldError) else ""
    found = [at for place in places for at in lines if at[: len(place)] == place and at[-1] == field]
    return f" (line {lines[found[0]]})" if found else ""


def _device(name: Any, dtype: str) -> str:
    import torch

    from loopviz.model.devices import resolve_device

    if not isinstance(name, str):
        raise ValueError(f"device={name!r}: must be text, like cpu or cuda:1")
    return str(resolve_device(name, getattr(torch, dtype)))


def _meant(values: dict[str, Any], task: Task) -> dict[str, Any]:
    """`yes` and `no` as booleans where the task or the loop wants one."""
    hints, kinds = get_type_hints(task.params), {f.name: f.metadata["kind"] for f in dataclasses.fields(task.params)}
    meant = {}
    for name, value in values.items():
        if kinds.get(name) == "loop":
            value = _in_loops(value)
        elif bool in options_of(hints.get(name)):
            value = meant_as_boolean(value)
        meant[name] = value
    return meant


def _in_loops(value: Any) -> Any:
    if isinstance(value, list):
        return [_in_loops(item) for item in value]
    if not isinstance(value, dict):
        return value
    meant = dict(value)
    for name in _FLAGS & value.keys():
        flag = value[name]
        meant[name] = [meant_as_boolean(item) for item in flag] if isinstance(flag, list) else meant_as_boolean(flag)
    return meant


def _check_loop_fields(values: Mapping[str, Any], task: Task) -> None:
    """Names of loop fields that there are none of, told before a model is loaded."""
    from loopviz.model.configuration import LOOP_FIELDS

    for thing in dataclasses.fields(task.params):
        value = values.get(thing.name)
        if thing.metadata["kind"] != "loop" or value is None:
            continue
        for loop in value if isinstance(value, list) else [value]:
            for name in loop if isinstance(loop, dict) else ():
                if name not in LOOP_FIELDS:
                    raise FieldError(name, loop[name], "not_a_loop_field", known=", ".join(LOOP_FIELDS))


def task_named(name: Any) -> Task:
    from . import TASKS as known

    if name not in known:
        raise ValueError(f"task={name!r}: unknown; there are {', '.join(known)}")
    return known[name]


def _mapping(name: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{name}={value!r}: must be a mapping")
    return value


def _named(name: str, value: Any) -> dict[str, dict[str, Any]]:
    """Parameters by name; without any, one entry that changes nothing."""
    groups = {str(key): _mapping(f"{name}.{key}", item) for key, item in _mapping(name, value).items()}
    return groups or {"": {}}


def _merged(*groups: Mapping[str, Any]) -> dict[str, Any]:
    """Later values win; of mappings (loop settings) field by field."""
    merged: dict[str, Any] = {}
    for name, value in itertools.chain.from_iterable(group.items() for group in groups):
        old = merged.get(name)
        merged[name] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
