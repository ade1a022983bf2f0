"""Numbers on their way to the page: a tensor as float16 by its largest number, so that each keeps three digits and none is too large."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np


def pack(array: Any) -> dict[str, Any]:
    """`{"shape", "scale", "data"}`: a number is its float16 times `scale`; what is not finite becomes NaN."""
    values = np.asarray(array, np.float64)
    values = np.where(np.isfinite(values), values, np.nan)
    sizes = np.abs(values[np.isfinite(values)])
    scale = float(sizes.max()) if sizes.size and sizes.max() > 0 else 1.0
    data = np.ascontiguousarray(values / scale, dtype="<f2").tobytes()
    return {"shape": list(values.shape), "scale": scale, "data": base64.b64encode(data).decode("ascii")}


def packed(arrays: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """All of several."""
    return {name: pack(array) for name, array in arrays.items()}
