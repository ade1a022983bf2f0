"""Values from text as people type them in options and forms, by the type they belong to.

On the ground floor: it imports nothing of LoopViz, and nothing heavy.
"""

from __future__ import annotations

import argparse
import json
import types
import typing
from typing import Any


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
    for kind in typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,):
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
