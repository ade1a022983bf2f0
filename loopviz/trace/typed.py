"""Plain data against TypedDicts: the one reader of the schema's declarations."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

from loopviz.checks import finite, spelled

_SURROGATE = re.compile("[\ud800-\udfff]")
_HINTS: dict[type, dict[str, Any]] = {}


def hints_of(kind: type) -> dict[str, Any]:
    """The type of each key of a TypedDict."""
    if kind not in _HINTS:
        _HINTS[kind] = get_type_hints(kind)
    return _HINTS[kind]


def check_type(value: Any, kind: Any, path: str) -> None:
    """Raise ValueError, naming ``path``, unless ``value`` has the type ``kind``.

    Of a TypedDict: its keys and no others. A tuple is written as JSON does, as a list of so many entries.
    """
    origin = get_origin(kind)
    if kind is Any:
        return
    if is_typeddict(kind):
        hints = hints_of(kind)
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
    elif origin is tuple:
        if not isinstance(value, list) or len(value) != len(get_args(kind)):
            raise ValueError(f"{path}: {value!r:.80} where a list of {len(get_args(kind))} belongs")
        for i, (entry, item) in enumerate(zip(value, get_args(kind), strict=True)):
            check_type(entry, item, f"{path}[{i}]")
    elif origin in (Union, UnionType):
        if value is not None or type(None) not in get_args(kind):
            _check_either(value, [one for one in get_args(kind) if one is not type(None)], path)
    elif kind is float:
        if finite(value) is None:
            raise ValueError(f"{path}: {spelled(value)} is not a finite number")
    elif not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{path}: {value!r} is not {kind.__name__}")
    elif kind is str and _SURROGATE.search(value):
        raise ValueError(f"{path}: half a character (a lone surrogate), which no file can hold")


def _check_either(value: Any, kinds: list[Any], path: str) -> None:
    """Raise ValueError, naming ``path``, unless ``value`` has one of these types."""
    if len(kinds) == 1:
        return check_type(value, kinds[0], path)
    for kind in kinds:
        try:
            return check_type(value, kind, path)
        except ValueError:
            continue
    raise ValueError(
        f"{path}: {value!r:.80} is none of {', '.join(getattr(kind, '__name__', str(kind)) for kind in kinds)}"
    )
