"""As :mod:`loopviz.trace.plausible`, of what a TTT run has besides: that its numbers are ones a TTT model could have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from loopviz.trace.packed import decode_floats, decode_singles
from loopviz.trace.plausible import LARGEST, MOST, MOST_LAYERS, check_plain, within
from loopviz.trace.schema import Frame
from loopviz.trace.ttt_tables import TTT_NUMBERS, heads_of, numbers_of, slot_of

KINDS = ("linear", "mlp")
MOST_MINI_BATCH = 4_096
MOST_AGES = 65_536
MOST_BESIDE = 16  # models that the state is held against


def check_ttt_meta(meta: Mapping[str, Any]) -> None:
    """Raise ValueError, naming the field, unless a Meta (of the right types) of a TTT run is one there could be.

    One of no TTT model passes.
    """
    if "ttt" not in meta:
        return
    said = meta["ttt"]
    if meta["blocks"] or "changes" in meta:
        raise ValueError("meta.blocks: a TTT model has no looped blocks, and no changes of their settings")
    within("meta.ttt.layers", said["layers"], 1, MOST_LAYERS)
    for name in ("layers", "heads"):
        within(f"meta.ttt.{name}", said[name], meta["shape"][name], meta["shape"][name])
    within("meta.ttt.mini_batch", said["mini_batch"], 1, MOST_MINI_BATCH)
    within("meta.ttt.ages", said["ages"], 1, MOST_AGES)
    within("meta.ttt.state_bytes", said["state_bytes"], 0, MOST)
    if said["kind"] not in KINDS:
        raise ValueError(f"meta.ttt.kind: {said['kind']!r:.80} is none of {', '.join(map(repr, KINDS))}")
    for name in ("base_lr", "inner_lr_scale"):
        within(f"meta.ttt.{name}", said[name], 0, LARGEST)
    _check_rows("meta.ttt.scales", said["scales"], said["layers"], said["mini_batch"])
    _check_rows("meta.ttt.start_norm", said["start_norm"], said["layers"], said["heads"])
    check_plain(said["kv_beside"], "meta.ttt.kv_beside")
    within("meta.ttt.kv_beside: models", len(said["kv_beside"]), 0, MOST_BESIDE)
    for name, each in said["kv_beside"].items():
        within(f"meta.ttt.kv_beside.{name}", each, 0, MOST)
    after = -1
    for i, change in enumerate(said["changes"]):
        within(f"meta.ttt.changes[{i}].index", change["index"], after + 1, MOST)
        within(f"meta.ttt.changes[{i}].inner_lr_scale", change["inner_lr_scale"], 0, LARGEST)
        after = change["index"]


def _check_rows(path: str, rows: Sequence[Sequence[float]], count: int, each: int) -> None:
    """So many rows of so many numbers, none below 0."""
    within(f"{path}: rows", len(rows), count, count)
    for i, row in enumerate(rows):
        within(f"{path}[{i}]: numbers", len(row), each, each)
        for value in row:
            within(f"{path}[{i}]", value, 0, LARGEST)


def check_ttt_frames(frames: Sequence[Frame], meta: Mapping[str, Any]) -> None:
    """Raise ValueError, naming the place, unless every frame (of the right types) has what the Meta says of TTT, or none has any.

    As many heads and numbers as belong, each finite; a loss, a drift, a rate is not below 0.
    """
    for frame in frames:
        if ("ttt" in frame) != ("ttt" in meta):
            raise ValueError(f"token {frame['index']}: ttt: in the frame or the meta alone")
        if "ttt" in frame:
            try:
                _check_frame(frame, meta["ttt"])
            except ValueError as error:
                raise ValueError(f"token {frame['index']}: {error}") from error


def _check_frame(frame: Frame, meta: Mapping[str, Any]) -> None:
    found: Mapping[str, Any] = frame["ttt"]
    index, rows = frame["index"], heads_of(meta)
    within("ttt.slot", found["slot"], slot_of(index, meta), slot_of(index, meta))
    for name in TTT_NUMBERS:
        _check_values(f"ttt.{name}", decode_singles(found[name], 1), rows, 0)
    reads, held = numbers_of("ttt_reads", index, meta), numbers_of("ttt_held", index, meta)
    _check_values("ttt.reads", decode_singles(found["reads"], reads), rows, -LARGEST)
    _check_values("ttt.held", decode_floats(found["held"], held), rows, 0)


def _check_values(path: str, values: np.ndarray, rows: int, low: float) -> None:
    within(f"{path}: heads of all layers", len(values), rows, rows)
    least, most = float(values.min()), float(values.max())
    if not (low <= least and most <= LARGEST):  # a NaN is within nothing
        raise ValueError(f"{path}: {least} to {most} where {low} to {LARGEST} belongs")
