"""Values of a dataclass's fields by the types they are declared with: from text as people type it, from JSON.

On the ground floor: it imports nothing heavy.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from typing import Any

from loopviz.checks import ABSENT, FieldError, Term, finite, shortened


def layers(text: str) -> Any:
    """``10-14``, ``3`` or ``2-3,6-7`` as what ``loop_layers`` takes."""
    pairs = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        try:
            pairs.append((int(first), int(last) if dash else int(first)))
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r}: write 10-14, or 2-3,6-7 for several blocks") from None
    return pairs[0] if len(pairs) == 1 else pairs


def read_value(text: str, hint: Any) -> Any:
    """A parameter's value from an option's text.

    Args:
        text: as typed: a value, several with commas, or JSON for lists and mappings.
        hint: the parameter's type.

    Raises:
        ValueError: it is not of that type.
    """
    for kind in options_of(hint):
        if kind is type(None) and text in ("null", "none", "None"):
            return None
        if typing.get_origin(kind) is tuple:
            inner = typing.get_args(kind)[0]
            if text.lstrip().startswith("["):
                return _json(text)
            return [read_value(part.strip(), inner) for part in text.split(",")] if text else []
        if kind is dict or typing.get_origin(kind) is dict:
            if text.lstrip().startswith("{"):
                return _json(text)
            continue
        if kind is bool:
            known = {"yes": True, "true": True, "no": False, "false": False}
            if text.lower() in known:
                return known[text.lower()]
            continue
        if kind is str:
            return text
        try:
            return kind(text)
        except (TypeError, ValueError):
            continue
    raise ValueError(text)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def options_of(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the one type."""
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def kind_of(hint: Any) -> Term:
    """A type in words, for messages."""
    options = options_of(hint)
    lists = [option for option in options if typing.get_origin(option) is tuple]
    if not lists:
        return Term(tuple(_WORDS.get(option, "mapping") for option in options))
    args = typing.get_args(lists[0])
    n = None if args[-1] is Ellipsis else len(args)
    key = "list" if n is None else "list_of"
    return Term(
        tuple(key if option in lists else _WORDS.get(option, "mapping") for option in options), kind_of(args[0]), n
    )


_WORDS = {str: "text", int: "whole", float: "finite", bool: "yes_no", type(None): "null"}


def typed_values(
    kind: type, values: Mapping[str, Any], *, prefix: str = "", unknown: str = "not_a_field"
) -> dict[str, Any]:
    """What JSON holds for a dataclass, as its fields are declared: what is missing takes its default.

    Args:
        kind: the dataclass; its fields may be others.
        prefix: before a field's name in messages: `section.`.
        unknown: the rule for a name that it has no field of.

    Raises:
        FieldError: an unknown name, a field that must be given and is not, a value of another type.
    """
    hints = typing.get_type_hints(kind)
    fields = {thing.name: thing for thing in dataclasses.fields(kind)}
    for name, value in values.items():
        if name not in fields:
            known = ", ".join(prefix + known for known in fields)
            raise FieldError(f"{prefix}{name}", value, unknown, shown=shortened(value), known=known)
    for name, thing in fields.items():
        required = thing.default is dataclasses.MISSING and thing.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise FieldError(f"{prefix}{name}", ABSENT, "missing")
    return {name: typed(f"{prefix}{name}", value, hints[name]) for name, value in values.items()}


def typed(name: str, value: Any, hint: Any) -> Any:
    """`value`, as JSON has it, as what `hint` says: lists as tuples, whole numbers as floats where a float is wanted.

    Raises:
        FieldError: it is not of that type.
    """
    for option in options_of(hint):
        if option is type(None) and value is None:
            return None
        origin, args = typing.get_origin(option), typing.get_args(option)
        if isinstance(option, type) and dataclasses.is_dataclass(option) and isinstance(value, Mapping):
            return option(**typed_values(option, value, prefix=f"{name}."))
        if origin is tuple and isinstance(value, (list, tuple)) and (args[-1] is Ellipsis or len(value) == len(args)):
            return tuple(typed(name, item, args[0]) for item in value)
        if (origin is dict or option is dict) and isinstance(value, Mapping):
            return dict(value)
        if option is float and (number := finite(value)) is not None:
            return number
        if option in (str, int, bool) and type(value) is option:
            return value
    raise FieldError(name, value, "kind", shown=shortened(value), kind=kind_of(hint))
