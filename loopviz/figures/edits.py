"""Edits of a figure's JSON: what a panel sends instead of a new figure.

An Op is data, so the same list can be applied here (tests, exports) and by the page's script:

* ``{"op": "append", "path": [...], "value": [...]}`` extends the list at ``path``;
* ``{"op": "splice", "path": [..., start], "value": [...]}`` replaces as many values of the list, from index ``start`` on;
* ``{"op": "set", "path": [...], "value": ...}`` replaces what is at ``path``, or adds that key to a dict; an index of a
  list must exist.

Pages and reports get them packed (:func:`pack`) and fold them in `assets/web/core/messages.js`, which does as :func:`apply`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypedDict

import plotly.graph_objects as go

Path = tuple[str | int, ...]


class Op(TypedDict):
    """One edit; ``path`` is walked from the figure's root (``{"data": [...], "layout": {...}}``)."""

    op: Literal["append", "set", "splice"]
    path: list[str | int]
    value: Any


def append(path: Iterable[str | int], values: list[Any]) -> Op:
    """The Op that extends the list at ``path`` by ``values``."""
    return {"op": "append", "path": list(path), "value": values}


def put(path: Iterable[str | int], value: Any) -> Op:
    """The Op that sets ``path`` to ``value``."""
    return {"op": "set", "path": list(path), "value": value}


def splice(path: Iterable[str | int], start: int, values: list[Any]) -> Op:
    """The Op that puts ``values`` in the place of as many of the list at ``path``, from index ``start`` on."""
    return {"op": "splice", "path": [*path, start], "value": values}


def changes(before: Mapping[Path, Any], after: Mapping[Path, Any]) -> list[Op]:
    """``set`` Ops for the paths of ``after`` whose value is not the one of ``before``; both have the same paths."""
    return [put(path, value) for path, value in after.items() if before[path] != value]


def apply(figure: dict[str, Any], ops: Iterable[Op]) -> dict[str, Any]:
    """Apply ``ops`` in order to ``figure`` (JSON data, changed in place) and return it.

    Raises:
        ValueError: an unknown op, or a path that is not in the figure.
    """
    for op in ops:
        *parents, last = op["path"]
        try:
            place: Any = figure
            for key in parents:
                place = place[key]
            if op["op"] == "append":
                place[last].extend(copy.deepcopy(op["value"]))
            elif op["op"] == "splice":
                if not isinstance(last, int) or not 0 <= last <= len(place) - len(op["value"]):
                    raise IndexError(f"{len(place)} values")
                place[last : last + len(op["value"])] = copy.deepcopy(op["value"])
            elif op["op"] == "set":
                place[last] = copy.deepcopy(op["value"])
            else:
                raise ValueError(f"op={op['op']!r}: must be 'append', 'set' or 'splice'")
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise ValueError(f"path={op['path']!r}: not in this figure ({error})") from error
    return figure


CODES = {"set": 0, "append": 1, "splice": 2}  # what a packed edit begins with


def pack(ops: Iterable[Op]) -> list[list[Any]]:
    """Ops as short as they can simply be written: `[code, shared, *rest of the path, value]`.

    `code` is of `CODES`; `shared` counts the path's leading parts that are those of the op before.
    """
    packed: list[list[Any]] = []
    before: list[str | int] = []
    for op in ops:
        path = op["path"]
        shared = 0
        while shared < min(len(path), len(before)) and path[shared] == before[shared]:
            shared += 1
        packed.append([CODES[op["op"]], shared, *path[shared:], op["value"]])
        before = path
    return packed


def fill(figure: dict[str, Any], values: Mapping[Path, Any]) -> dict[str, Any]:
    """Set every path of ``values`` in ``figure`` (a panel's skeleton, changed in place) and return it."""
    return apply(figure, [put(path, value) for path, value in values.items()])


def extend(figure: dict[str, Any], ops: Iterable[Op]) -> None:
    """Make appends to lists of a figure's traces in ``figure`` (a panel's skeleton, changed in place); their values become its own."""
    for op in ops:
        _, trace, name = op["path"]
        figure["data"][trace][name] += op["value"]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if value is None or type(value) in (str, int, float, bool):
        return value
    raise TypeError(
        f"{type(value).__name__} in a figure: only plain lists, dicts, numbers, text and None can be patched"
    )


def figure_json(figure: go.Figure) -> dict[str, Any]:
    """``figure`` as plain JSON data, the form Ops apply to. TypeError when it holds arrays of another kind."""
    return _plain(figure.to_plotly_json())


def differences(before: Any, after: Any, path: Path = ()) -> list[Op]:
    """Ops that turn one figure's JSON into another: what is new at a list's end is appended, all else that changed is set.

    For figures whose data grow and whose words change; `apply(before, differences(before, after)) == after`.
    """
    if type(before) is type(after) and before == after:
        return []
    if isinstance(before, dict) and isinstance(after, dict) and before.keys() <= after.keys():
        found = [op for key in before for op in differences(before[key], after[key], (*path, key))]
        return found + [put((*path, key), after[key]) for key in after if key not in before]
    if path and isinstance(before, list) and isinstance(after, list) and before and after[: len(before)] == before:
        return [append(path, after[len(before) :])]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after) and _holders(before):
        return [op for i, old in enumerate(before) for op in differences(old, after[i], (*path, i))]
    if not path:
        raise ValueError("differences: a figure is a dict, and keeps its keys")
    return [put(path, after)]


def _holders(values: list[Any]) -> bool:
    """Whether a list is of traces, shapes, annotations: edited one by one."""
    return bool(values) and all(isinstance(value, dict) for value in values)
