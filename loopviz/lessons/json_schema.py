"""The published JSON Schema of a lesson file, made of :mod:`loopviz.lessons.schema`: for editors, and for programs that write lessons.

    python -m loopviz lesson schema > docs/lesson.schema.json

It says what types say. What is left (that a name is known, that a choice has what its rule asks for) `loopviz lesson check` says.
"""

from __future__ import annotations

import inspect
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, is_typeddict

from loopviz.lessons import schema
from loopviz.trace.typed import hints_of

_PLAIN: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    Any: {},
}


def json_schema() -> dict[str, Any]:
    """The schema, JSON Schema draft 2020-12; each TypedDict is a definition of its own name."""
    made: dict[str, Any] = {}
    root = _of(schema.Lesson, made)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A lesson of LoopViz",
        **root,
        "$defs": dict(sorted(made.items())),
    }


def _of(kind: Any, made: dict[str, Any]) -> dict[str, Any]:
    """A type as JSON Schema; definitions that it needs are put into `made`."""
    origin = get_origin(kind)
    if kind in _PLAIN:
        return dict(_PLAIN[kind])
    if is_typeddict(kind):
        if kind.__name__ not in made:
            made[kind.__name__] = {}  # one that names itself finds it
            made[kind.__name__] = _mapping(kind, made)
        return {"$ref": f"#/$defs/{kind.__name__}"}
    if origin is list:
        return {"type": "array", "items": _of(get_args(kind)[0], made)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _of(get_args(kind)[1], made)}
    if origin is Literal:
        return {"enum": list(get_args(kind))}
    if origin in (Union, UnionType):
        return {"anyOf": [_of(one, made) for one in get_args(kind)]}
    raise TypeError(f"{kind!r}: no type that JSON can hold")


def _mapping(kind: Any, made: dict[str, Any]) -> dict[str, Any]:
    return {
        "description": " ".join((inspect.getdoc(kind) or "").split()),
        "type": "object",
        "properties": {name: _of(hint, made) for name, hint in hints_of(kind).items()},
        "required": sorted(kind.__required_keys__),
        "additionalProperties": False,
    }
