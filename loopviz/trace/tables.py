"""Frames as flat columns, and back: one place for the tables of :class:`Trace`, of its file and of its CSV export."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from loopviz.trace.schema import SCHEMA_VERSION, STEP_NUMBERS, Frame

# table -> column -> type ("int", "float", "str", "bool"); every table's rows are in token, block, step order
TABLES: dict[str, dict[str, str]] = {
    "tokens": {
        "index": "int",
        "phase": "str",
        "token_id": "int",
        "text": "str",
        "next_id": "int",
        "next_text": "str",
        "next_logprob": "float",
        "pass_tokens": "int",
        "pass_ms": "float",
        "finish": "str",
        "bytes_used": "int",
        "bytes_allocated": "int",
        "bytes_plain": "int",
        "bytes_unrolled": "int",
    },
    "blocks": {
        "token": "int",
        "block": "int",
        "first_layer": "int",
        "last_layer": "int",
        "n_steps": "int",
        "stop_reason": "str",
        "recorded": "bool",
        "has_states": "bool",
    },
    "steps": {
        "token": "int",
        "block": "int",
        "step": "int",
        **{name: "int" if name == "rank" else "float" for name in STEP_NUMBERS},
    },
    "topk": {
        "token": "int",
        "block": "int",
        "step": "int",
        "place": "int",
        "token_id": "int",
        "logprob": "float",
        "text": "str",
    },
    "kv": {"token": "int", "layer": "int", "slot": "int", "tokens": "int"},
    "state_index": {"token": "int", "block": "int", "step": "int"},
}

_FRAME_KEYS = ("index", "phase", "token_id", "text", "next_id", "next_text", "next_logprob", "pass_tokens", "pass_ms")
_BYTES = ("bytes_used", "bytes_allocated", "bytes_plain", "bytes_unrolled")


def _rows(frames: Sequence[Frame], table: str) -> Iterator[tuple[Any, ...]]:
    for frame in frames:
        t = frame["index"]
        if table == "tokens":
            kv = frame["kv"]
            yield (*(frame[key] for key in _FRAME_KEYS), frame["finish"], *(kv[key] for key in _BYTES))
        elif table == "kv":
            for layer, slots in enumerate(frame["kv"]["slots"]):
                yield from ((t, layer, slot, tokens) for slot, tokens in enumerate(slots))
        else:
            for block in frame["blocks"]:
                yield from _block_rows(t, block, table)


def _block_rows(t: int, block: Any, table: str) -> Iterator[tuple[Any, ...]]:
    i, n, steps = block["block"], block["n_steps"], block["steps"]
    if table == "blocks":
        yield (t, i, *block["layers"], n, block["stop_reason"], bool(steps["rank"]), block["states"] is not None)
    elif table == "state_index":
        if block["states"] is not None:
            yield from ((t, i, r) for r in range(n + 1))
    elif table == "steps":
        for r, values in enumerate(zip(*(steps[name] for name in STEP_NUMBERS), strict=True), start=1):
            yield (t, i, r, *values)
    elif table == "topk":
        lists = zip(steps["topk_ids"], steps["topk_logprobs"], steps["topk_texts"], strict=True)
        for r, entries in enumerate(lists, start=1):
            for place, entry in enumerate(zip(*entries, strict=True)):
                yield (t, i, r, place, *entry)


def columns(frames: Sequence[Frame], table: str) -> dict[str, list[Any]]:
    """The columns of ``table`` (a key of :data:`TABLES`) for ``frames``: name to list, all of one length."""
    names = TABLES[table]
    rows = list(_rows(frames, table))
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)) if rows else {name: [] for name in names}


def _by_row(table: dict[str, list[Any]]) -> Iterator[dict[str, Any]]:
    names = list(table)
    for values in zip(*table.values(), strict=True):
        yield dict(zip(names, values, strict=True))


def frames_from(tables: dict[str, dict[str, list[Any]]], states: Sequence[str]) -> list[Frame]:
    """Undo :func:`columns`.

    Args:
        tables: every table of :data:`TABLES` but ``state_index``, as columns.
        states: the packed states of each block row that has some, in order.

    Raises:
        ValueError: rows that belong to no token, block or step, or too few or too many states.
    """
    frames: list[Frame] = []
    for row in _by_row(tables["tokens"]):
        frames.append(
            {
                "version": SCHEMA_VERSION,
                **{key: row[key] for key in _FRAME_KEYS},
                "blocks": [],
                "kv": {"slots": [], **{key: row[key] for key in _BYTES}},
                "finish": row["finish"],
            }  # type: ignore[typeddict-item]
        )
        if row["index"] != len(frames) - 1:
            raise ValueError(f"tokens: index {row['index']} in row {len(frames) - 1}")
    _add_blocks(frames, tables["blocks"], iter(states))
    for row in _by_row(tables["steps"]):
        steps = _block_of(frames, row)["steps"]
        _expect("steps", row, "step", len(steps["rank"]) + 1)
        for name in STEP_NUMBERS:
            steps[name].append(row[name])
        for name in ("topk_ids", "topk_logprobs", "topk_texts"):
            steps[name].append([])
    for row in _by_row(tables["topk"]):
        steps = _block_of(frames, row)["steps"]
        if not 1 <= row["step"] <= len(steps["topk_ids"]):
            raise ValueError(f"topk: step {row['step']} of token {row['token']} is not in the steps table")
        _expect("topk", row, "place", len(steps["topk_ids"][row["step"] - 1]))
        for name, column in (("topk_ids", "token_id"), ("topk_logprobs", "logprob"), ("topk_texts", "text")):
            steps[name][row["step"] - 1].append(row[column])
    for row in _by_row(tables["kv"]):
        layers = _frame_of(frames, row)["kv"]["slots"]
        if row["slot"] == 0:
            _expect("kv", row, "layer", len(layers))
            layers.append([])
        _expect("kv", row, "layer", len(layers) - 1)
        _expect("kv", row, "slot", len(layers[-1]))
        layers[-1].append(row["tokens"])
    return frames


def _add_blocks(frames: list[Frame], table: dict[str, list[Any]], states: Iterator[str]) -> None:
    for row in _by_row(table):
        blocks = _frame_of(frames, row)["blocks"]
        _expect("blocks", row, "block", len(blocks))
        packed = next(states, None) if row["has_states"] else None
        if row["has_states"] and packed is None:
            raise ValueError(f"states: none left for token {row['token']}, block {row['block']}")
        names = (*STEP_NUMBERS[:-1], "topk_ids", "topk_logprobs", "topk_texts", "ms")
        blocks.append(
            {
                "block": row["block"],
                "layers": [row["first_layer"], row["last_layer"]],
                "n_steps": row["n_steps"],
                "stop_reason": row["stop_reason"],
                "steps": {name: [] for name in names},  # type: ignore[typeddict-item]
                "states": packed,
            }
        )
    if next(states, None) is not None:
        raise ValueError("states: more rows than the blocks table speaks of")


def _expect(table: str, row: dict[str, Any], name: str, value: int) -> None:
    if row[name] != value:
        raise ValueError(f"{table}: {name} {row[name]} of token {row['token']}, where {value} belongs")


def _frame_of(frames: list[Frame], row: dict[str, Any]) -> Frame:
    if not 0 <= row["token"] < len(frames):
        raise ValueError(f"token {row['token']} is not in the tokens table (0..{len(frames) - 1})")
    return frames[row["token"]]


def _block_of(frames: list[Frame], row: dict[str, Any]) -> Any:
    blocks = _frame_of(frames, row)["blocks"]
    if not 0 <= row["block"] < len(blocks):
        raise ValueError(f"block {row['block']} of token {row['token']} is not in the blocks table")
    return blocks[row["block"]]
