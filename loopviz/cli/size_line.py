"""What a model takes, told before its weights are read: parameters, bytes in its files, memory; from headers alone."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loopviz.model.checkpoints.load import PreparedCheckpoint

LEAST = 100_000_000  # bytes of memory: what needs less is there sooner than a line about it is read


class SizeLine:
    """Says it once of a model, though it may be read twice.

    Args:
        name: of the model, as it was asked for.
    """

    def __init__(self, name: str) -> None:
        self._name, self._said = name, False

    def say(self, found: PreparedCheckpoint, need: int) -> PreparedCheckpoint:
        """A line on stderr: "135.3 M parameters, 0.54 GB stored, needs about 0.60 GB of memory". None of a model below `LEAST`.

        Args:
            found: the checkpoint, given back.
            need: bytes of memory.
        """
        if need >= LEAST and not self._said:
            of, self._said = found.found, True
            sizes = f"{parameters(of.n_weights)} parameters, {size(of.n_bytes)} stored"
            print(f"loopviz: {self._name}: {sizes}, needs about {size(need)} of memory", file=sys.stderr)
        return found


def packed_need(found: PreparedCheckpoint, kind: str, dtype: Any) -> int:
    """Bytes that a model needs which bitsandbytes packs, float32 included, which is read first where it fits.

    Args:
        found: the checkpoint, for float32.
        kind, dtype: how its layers are packed, and what all else is held in.
    """
    from loopviz.model.checkpoints import inspect

    packed = replace(found, quantization=kind, dtype=dtype).need
    beside = found.found.packing is None and found.need <= inspect.available_memory()
    return max(packed, found.need) if beside else packed


def parameters(n: int) -> str:
    """A number of parameters: "135.3 M", "1.40 B", "24,576"."""
    if n >= 10**9:
        return f"{n / 1e9:.2f} B"
    return f"{n / 1e6:.1f} M" if n >= 10**6 else f"{n:,}"


def size(n_bytes: int) -> str:
    """Bytes: "0.54 GB", "98.3 kB"."""
    for unit, each, digits in (("GB", 10**9, 2), ("MB", 10**6, 1)):
        if n_bytes >= each / 10:
            return f"{n_bytes / each:.{digits}f} {unit}"
    return f"{n_bytes / 1e3:.1f} kB"
