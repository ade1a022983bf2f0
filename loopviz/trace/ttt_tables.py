"""A TTT run's Frames as flat columns, and back: the tables that a run of a loop has none of.

Kept in a file are ``ttt`` and two arrays, as many numbers as the Meta says: ``L * H`` rows a token, in each ``i + 1`` of what
it reads (``i`` its place in its mini-batch of M) and ``min(t + 1, ages)`` of what is held. So nothing says how long they are
but the token's position.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from loopviz.trace.packed import decode_floats, decode_singles, encode_floats, encode_singles
from loopviz.trace.schema import Frame

TTT_NUMBERS = ("loss_before", "loss_after", "loss_start", "drift", "lr")
_PLACE = {"token": "int", "layer": "int", "head": "int"}
# table -> column -> type, as `loopviz.trace.tables.TABLES`
TTT_TABLES: dict[str, dict[str, str]] = {
    "ttt": {**_PLACE, **dict.fromkeys(TTT_NUMBERS, "float")},
    "ttt_reads": {**_PLACE, "position": "int", "weight": "float"},
    "ttt_held": {**_PLACE, "position": "int", "loss": "float"},
}
TTT_PACKED = {"ttt_reads": np.float32, "ttt_held": np.float16}  # kept as arrays, spelled out on demand
_KEYS = {"ttt_reads": "reads", "ttt_held": "held"}


def slot_of(index: int, meta: Mapping[str, Any]) -> int:
    """Place of a position in its mini-batch. `meta` here and below is a :class:`~loopviz.trace.schema.TTTMeta`."""
    return index % int(meta["mini_batch"])


def numbers_of(table: str, index: int, meta: Mapping[str, Any]) -> int:
    """How many numbers a token has for each head: of what it reads, or of what is held."""
    return slot_of(index, meta) + 1 if table == "ttt_reads" else min(index + 1, int(meta["ages"]))


def heads_of(meta: Mapping[str, Any]) -> int:
    """Heads of all layers together: the rows of a token."""
    return int(meta["layers"]) * int(meta["heads"])


def ttt_columns(frames: Sequence[Frame], table: str, meta: Mapping[str, Any] | None) -> dict[str, np.ndarray]:
    """The columns of a table of :data:`TTT_TABLES`; ``meta`` None: of a run of no TTT model, no rows.

    The numbers of a position are in the order of layers, then heads; ``position`` is the token that is read, or held.
    """
    names = TTT_TABLES[table]
    if meta is None or not frames:
        return {name: np.zeros(0, np.int64 if kind == "int" else np.float64) for name, kind in names.items()}
    parts = [_rows(frame, table, meta) for frame in frames]
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def _rows(frame: Frame, table: str, meta: Mapping[str, Any]) -> dict[str, np.ndarray]:
    found: Mapping[str, Any] = frame["ttt"]
    t, each = frame["index"], 1 if table == "ttt" else numbers_of(table, frame["index"], meta)
    layer, head = (place.ravel().repeat(each) for place in np.indices((meta["layers"], meta["heads"])))
    columns: dict[str, np.ndarray] = {"token": np.full(len(layer), t), "layer": layer, "head": head}
    if table == "ttt":
        return columns | {name: decode_singles(found[name], 1)[:, 0].astype(float) for name in TTT_NUMBERS}
    columns["position"] = np.tile(np.arange(t + 1 - each, t + 1), len(layer) // each)
    value = list(TTT_TABLES[table])[-1]
    return columns | {value: _unpacked(found, table, each).ravel().astype(float)}


def _unpacked(found: Mapping[str, Any], table: str, columns: int) -> np.ndarray:
    decode = decode_singles if table == "ttt_reads" else decode_floats
    return decode(found[_KEYS[table]], columns)


def ttt_arrays(frames: Sequence[Frame], meta: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """By table of :data:`TTT_PACKED` all of its numbers, token after token, layer after layer, head after head."""
    found = {}
    for table, dtype in TTT_PACKED.items():
        parts = [_unpacked(frame["ttt"], table, numbers_of(table, frame["index"], meta)).ravel() for frame in frames]
        found[table] = np.concatenate([np.zeros(0, dtype), *parts])
    return found


def add_ttt(
    frames: Sequence[Frame],
    columns: Mapping[str, Sequence[Any]],
    arrays: Mapping[str, np.ndarray],
    meta: Mapping[str, Any],
) -> None:
    """Undo :func:`ttt_columns` and :func:`ttt_arrays`: every frame gets its ``ttt``.

    Raises:
        ValueError: naming the table, rows that are no token's, layer's or head's, too few or too many numbers, one that is
            not finite.
    """
    singles = _singles(columns, len(frames), meta)
    packed = {table: _split(arrays, table, len(frames), meta) for table in TTT_PACKED}
    for frame, reads, held in zip(frames, packed["ttt_reads"], packed["ttt_held"], strict=True):
        t = frame["index"]
        one = {name: encode_singles(singles[name][t]) for name in TTT_NUMBERS}
        frame["ttt"] = {
            "slot": slot_of(t, meta),
            "loss_before": one["loss_before"],
            "loss_after": one["loss_after"],
            "loss_start": one["loss_start"],
            "drift": one["drift"],
            "lr": one["lr"],
            "reads": encode_singles(reads),
            "held": encode_floats(held),
        }


def _singles(columns: Mapping[str, Sequence[Any]], tokens: int, meta: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The columns of the table ``ttt`` by token: float32 `[T, L * H]`."""
    rows, count = heads_of(meta), len(columns["token"])
    if count != tokens * rows:
        raise ValueError(
            f"ttt: {count:,} rows where {tokens * rows:,} belong: {tokens:,} tokens, {meta['layers']} layers, {meta['heads']} heads"
        )
    wanted = np.indices((tokens, meta["layers"], meta["heads"])).reshape(3, -1)
    for name, places in zip(_PLACE, wanted, strict=True):
        wrong = np.flatnonzero(np.asarray(columns[name]) != places)
        if wrong.size:
            at = int(wrong[0])
            raise ValueError(f"ttt: {name} {columns[name][at]} in row {at}, where {places[at]} belongs")
    found = {}
    for name in TTT_NUMBERS:
        with np.errstate(over="ignore"):  # what float32 cannot hold is told as what is no number is
            found[name] = np.asarray(columns[name], float).astype("<f4").reshape(tokens, rows)
        _check_finite(f"ttt: {name}", found[name])
    return found


def _split(arrays: Mapping[str, np.ndarray], table: str, tokens: int, meta: Mapping[str, Any]) -> Iterator[np.ndarray]:
    """One of the arrays, a part a token."""
    if table not in arrays:
        raise ValueError(f"{table}: missing")
    values, rows = arrays[table], heads_of(meta)
    own = [rows * numbers_of(table, index, meta) for index in range(tokens)]
    dtype = TTT_PACKED[table]
    if values.dtype != dtype or values.shape != (sum(own),):
        raise ValueError(f"{table}: {values.dtype} {values.shape}, where {dtype.__name__} {(sum(own),)} belongs")
    _check_finite(table, values)
    return iter(np.split(values, np.cumsum(own)[:-1]) if own else [])


def _check_finite(path: str, values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise ValueError(f"{path}: a number that is not finite")
