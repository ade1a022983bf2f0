"""Plain data against TypedDicts: the one reader of the schema's declarations."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

_SURROGATE = re.compile("[\ud800-\udfff]")
_HINTS: dict[type, dict[str, Any]] = {}


def _hints(kind: type) -> dict[str, Any]:
    if kind not in _HINTS:
        _HINTS[kind] = get_type_hints(kind)
    return _HINTS[kind]


def check_type(value: Any, kind: Any, path: str) -> None:
    """Raise ValueError, naming ``path``, unless ``value`` has the type ``kind`` (TypedDicts: their keys and no others)."""
    origin = get_origin(kind)
    if kind is Any:
        return
    if is_typeddict(kind):
        hints = _hints(kind)
        if not isinstance(value, Mapping):
            raise ValueError(f"{path}: {type(value).__name__} where a mapping {kind.__name__} belongs")
        missing, unknown = kind.__required_keys__ - value.keys(), value.keys() - hints.keys()
        if missing or unknown:
            raise ValueError(f"{path}: missing keys {sorted(missing)}, unknown keys {sorted(map(str, unknown))}")
        for key, hint in hints.items():
            if key in value:
                check_type(value[key], hint, f"{path}.{key}" if path else key)
    elif origin is list:
        if not isinstance(value, list):
            raise ValueError(f"{path}: {type(value).__name__} where a list belongs")
        (item,) = get_args(kind)
        for i, entry in enumerate(value):
            check_type(entry, item, f"{path}[{i}]")
    elif origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{path}: {type(value).__name__} where a dict belongs")
        for key, entry in value.items():
            check_type(key, get_args(kind)[0], f"{path} key")
            check_type(entry, get_args(kind)[1], f"{path}.{key}")
    elif origin is Literal:
        if not any(type(value) is type(one) and value == one for one in get_args(kind)):
            raise ValueError(f"{path}: {value!r} is none of {', '.join(map(repr, get_args(kind)))}")
    elif origin is Union:
        if value is not None:  # every union here is "or None"
            check_type(value, next(a for a in get_args(kind) if a is not type(None)), path)
    elif kind is float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"{path}: {value!r} is not a finite number")
    elif not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{path}: {value!r} is not {kind.__name__}")
    elif kind is str and _SURROGATE.search(value):
        raise ValueError(f"{path}: half a character (a lone surrogate), which no file can hold")
