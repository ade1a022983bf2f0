"""Numbers on their way to the page, so that each keeps the three digits that are written of it, whatever its size.

A tensor is float16 by its largest number, or float32 where that would keep fewer digits of a small one.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

KINDS = {"float16": "<f2", "float32": "<f4"}


def pack(array: Any) -> dict[str, Any]:
    """`{"shape", "dtype", "scale", "data"}`: a number is its float16 or float32 times `scale`; what is not finite becomes NaN."""
    values = np.asarray(array, np.float64)
    values = np.where(np.isfinite(values), values, np.nan)
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    scale = float(sizes.max()) if sizes.size else 1.0
    least = float(np.finfo(np.float16).tiny)  # of what is smaller it keeps fewer digits, of a hundredth hardly one
    dtype = "float32" if sizes.size and sizes.min() < least * scale else "float16"
    data = np.ascontiguousarray(values / scale, dtype=KINDS[dtype]).tobytes()
    return {
        "shape": list(values.shape),
        "dtype": dtype,
        "scale": scale,
        "data": base64.b64encode(data).decode("ascii"),
    }


def packed(arrays: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """All of several."""
    return {name: pack(array) for name, array in arrays.items()}
