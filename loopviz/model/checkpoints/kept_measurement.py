"""What has been measured of this machine, once, and is kept in LoopViz's cache: by processor, threads and version of torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from loopviz import outputs
from loopviz.machine import processor

from .find import cache_dir

Measured = TypeVar("Measured")


def kept(file_name: str, of: str, measure: Callable[[], Measured], read: Callable[[Any], Measured | None]) -> Measured:
    """What a file of the cache says of something on this machine; where it says nothing, it is measured and written there.

    Args:
        file_name: in the cache; JSON, an entry for each `of` on each machine.
        of: what was measured.
        measure: does it; of values that JSON has.
        read: an entry as measured, None where it is none.
    """
    try:
        file = cache_dir() / file_name
    except RuntimeError:  # nobody's home
        return measure()
    key = f"{processor()} | {torch.get_num_threads()} threads | {of} | torch {torch.__version__}"
    try:
        before = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        before = {}
    before = before if isinstance(before, dict) else {}
    if (known := read(before.get(key))) is not None:
        return known
    found = measure()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        outputs.write_text(file, json.dumps({**before, key: found}, indent=1, sort_keys=True) + "\n")
    except OSError:  # a cache that cannot be written costs a measurement a load
        pass
    return found
