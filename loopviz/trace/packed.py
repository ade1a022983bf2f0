"""Arrays as text: base64 of float16 or float32, little-endian, so that a Frame stays plain JSON-able data and small."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np


def clipped(values: Any) -> np.ndarray:
    """Numbers that float16 can hold, in the dtype they came in: what is larger becomes its largest.

    A NaN becomes 0: a float16 that a reader cannot draw is worth less than one it can.
    """
    top = float(np.finfo(np.float16).max)
    return np.clip(np.nan_to_num(values, nan=0.0, posinf=top, neginf=-top), -top, top)


def encode_floats(values: Any) -> str:
    """Pack ``values`` (array-like ``[rows, columns]``, any float dtype), :func:`clipped`."""
    return encode_halves(np.asarray(clipped(values), dtype="<f2"))


def encode_halves(values: np.ndarray) -> str:
    """Pack ``values`` (``[rows, columns]``) that are float16 already, and :func:`clipped`."""
    return base64.b64encode(np.ascontiguousarray(values, dtype="<f2").tobytes()).decode("ascii")


def decode_floats(text: str, columns: int) -> np.ndarray:
    """Undo :func:`encode_floats`: float16 ``[rows, columns]``. ValueError when the length does not fit."""
    flat = np.frombuffer(base64.b64decode(text, validate=True), dtype="<f2")
    if columns < 1 or flat.size % columns:
        raise ValueError(f"{flat.size} packed numbers do not make rows of {columns}")
    return flat.reshape(-1, columns)


def encode_singles(values: Any) -> str:
    """Pack ``values`` (array-like) as float32: what is to be read back to more than three digits.

    Raises:
        ValueError: a number that is not finite.
    """
    single = np.ascontiguousarray(values, dtype="<f4")
    if not np.isfinite(single).all():
        raise ValueError("a number that is not finite cannot be packed")
    return base64.b64encode(single.tobytes()).decode("ascii")


def decode_singles(text: str, columns: int) -> np.ndarray:
    """Undo :func:`encode_singles`: float32 ``[rows, columns]``. ValueError when the length does not fit."""
    flat = np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4")
    if columns < 1 or flat.size % columns:
        raise ValueError(f"{flat.size} packed numbers do not make rows of {columns}")
    return flat.reshape(-1, columns)


def encode_states(states: np.ndarray) -> str:
    """Pack ``states`` (``[N + 1, H]``, s_0..s_N) as :func:`encode_floats` does."""
    return encode_floats(states)


def decode_states(text: str, hidden: int) -> np.ndarray:
    """Undo :func:`encode_states`: float16 ``[N + 1, H]`` for ``hidden`` = H. ValueError when the length does not fit."""
    try:
        return decode_floats(text, hidden)
    except ValueError as error:
        raise ValueError(f"states: {error}, hidden size {hidden}") from error
