"""How much memory plain data takes: dicts, lists, text, numbers, arrays."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

_GRAIN = 15  # Python hands out memory in steps of 16 bytes
_FLOAT = 32
_SHORT = 64  # characters
_KEPT_INTS = range(-5, 257)  # Python has these once


def deep_bytes(value: Any, seen: set[int] | None = None, words: set[int] | None = None) -> int:
    """Bytes of memory that ``value`` takes with all that it is made of, each part once.

    An estimate, and rather too much than too little: numbers count whenever they are met, for most are objects of their
    own. What a view of an array keeps alive counts, not only what it shows. What is none of plain data, arrays, tables,
    tensors and objects made of such counts by its own size alone.

    Args:
        value: what to weigh; it must not change meanwhile.
        seen: identities of parts that have been counted elsewhere; those counted here are added.
        words: as `seen`, of short texts alone: the same few come again in all that is weighed.
    """
    total, seen, stack = 0, set() if seen is None else seen, [value]
    while stack:
        part = stack.pop()
        kind = type(part)
        if kind is float:
            total += _FLOAT
        elif kind is int:
            total += 0 if part in _KEPT_INTS else sys.getsizeof(part) + _GRAIN & ~_GRAIN
        elif part is None or kind is bool:
            continue
        elif words is not None and kind is str and len(part) <= _SHORT:
            if id(part) not in words:
                words.add(id(part))
                total += sys.getsizeof(part) + _GRAIN & ~_GRAIN
        elif id(part) not in seen:
            seen.add(id(part))
            total += sys.getsizeof(part) + _GRAIN & ~_GRAIN
            if isinstance(part, (str, bytes, bytearray)):
                continue
            if isinstance(part, Mapping):
                stack += part.keys()
                stack += part.values()
            elif isinstance(part, (list, tuple, set, frozenset)):
                stack += part
            else:
                total += _buffer(part, seen)
                if not callable(part) and not hasattr(part, "dtype") and not hasattr(part, "memory_usage"):
                    stack += getattr(part, "__dict__", {}).values()
    return total


def _buffer(part: Any, seen: set[int]) -> int:
    """Bytes of the numbers behind an array, a tensor or a table that its own size does not have."""
    if hasattr(part, "memory_usage"):  # pandas: what sys.getsizeof says is all of it
        return 0
    if hasattr(part, "untyped_storage"):  # torch
        storage = part.untyped_storage()
        if storage.data_ptr() in seen:
            return 0
        seen.add(storage.data_ptr())
        return int(storage.nbytes())
    base = getattr(part, "base", None)
    if hasattr(part, "nbytes") and base is not None:  # a view keeps its whole base
        while getattr(base, "base", None) is not None:
            base = base.base
        if id(base) in seen:
            return 0
        seen.add(id(base))
        return sys.getsizeof(base)
    return 0
