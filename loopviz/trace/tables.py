"""Frames as flat columns, and back: one place for the tables of :class:`Trace`, of its file and of its CSV export."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from loopviz.trace.packed import decode_floats
from loopviz.trace.schema import (
    EXIT_LISTS,
    NEXT_LISTS,
    PARTS,
    SCHEMA_VERSION,
    STEP_LISTS,
    STEP_NUMBERS,
    Frame,
    empty_steps,
)

_TOPK = {
    "token": "int",
    "block": "int",
    "step": "int",
    "place": "int",
    "token_id": "int",
    "logprob": "float",
    "text": "str",
}
_LAYER_STEP = {"token": "int", "block": "int", "layer": "int", "step": "int"}
# table -> column -> type ("int", "int?" with gaps, "float", "str", "bool"); every table's rows are in token, block, step order
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
        "pass_runs": "int?",
        "pass_ms": "float",
        "wall_ms": "float",
        "finish": "str",
        "bytes_used": "int",
        "bytes_allocated": "int",
        "bytes_plain": "int",
        "bytes_unrolled": "int",
        **{f"{part}_ms": "float" for part in PARTS},
        "memory_process": "int",
        "memory_device": "int?",
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
    "topk": _TOPK,
    "next_topk": {"token": "int", "place": "int", "token_id": "int", "logprob": "float", "text": "str"},
    "layers_run": {"token": "int", "block": "int", "step": "int", "layer": "int"},
    "exit": {"token": "int", "block": "int", "step": "int", "rank": "int", "logprob": "float"},
    "exit_topk": _TOPK,
    "gate": {"token": "int", "block": "int", "step": "int", "p": "float", "cdf": "float", "read_out": "bool"},
    "keys": {"token": "int", "block": "int", "layer": "int", "step": "int", "cosine": "float"},
    "attention": {**_LAYER_STEP, "position": "int", "weight": "float"},
    "attention_slots": {**_LAYER_STEP, "slot": "int", "share": "float"},
    "attention_change": {**_LAYER_STEP, "head": "int", "change": "float"},
    "kv": {"token": "int", "layer": "int", "slot": "int", "tokens": "int"},
    "state_index": {"token": "int", "block": "int", "step": "int"},
    "attention_index": {"token": "int", "block": "int", "layer": "int", "slots": "int"},
}
PACKED = ("attention", "attention_slots")  # a number an earlier position or slot: kept as arrays, spelled out on demand
# the first version of a file that has a table, or a column ("table.column"); all versions have what is not named
SINCE = {"next_topk": 3, "tokens.wall_ms": 3, "layers_run": 4, "gate": 6, "tokens.pass_runs": 6}
INDEXES = ("state_index", "attention_index")  # say whose the arrays' rows are

_FRAME_KEYS = (
    "index",
    "phase",
    "token_id",
    "text",
    "next_id",
    "next_text",
    "next_logprob",
    "pass_tokens",
    "pass_runs",
    "pass_ms",
    "wall_ms",
)
_TOPK_TABLES = {"topk": STEP_LISTS, "exit_topk": EXIT_LISTS}
_BYTES = ("bytes_used", "bytes_allocated", "bytes_plain", "bytes_unrolled")


def _rows(frames: Sequence[Frame], table: str) -> Iterator[tuple[Any, ...]]:
    for frame in frames:
        t = frame["index"]
        if table == "tokens":
            whole: Mapping[str, Any] = frame
            kv, parts, memory = whole["kv"], whole["parts"], whole["memory"]
            yield (
                *(whole[key] for key in _FRAME_KEYS),
                frame["finish"],
                *(kv[key] for key in _BYTES),
                *(parts[part] for part in PARTS),
                memory["process"],
                memory["device"],
            )
        elif table == "next_topk":
            likeliest: Mapping[str, Any] = frame
            said = zip(*(likeliest[name] for name in NEXT_LISTS), strict=True)
            yield from ((t, place, *entry) for place, entry in enumerate(said))
        elif table == "kv":
            for layer, slots in enumerate(frame["kv"]["slots"]):
                yield from ((t, layer, slot, tokens) for slot, tokens in enumerate(slots))
        else:
            for block in frame["blocks"]:
                yield from _block_rows(frame, block, table)


def _block_rows(frame: Frame, block: Any, table: str) -> Iterator[tuple[Any, ...]]:
    t, i, n, steps = frame["index"], block["block"], block["n_steps"], block["steps"]
    if table == "blocks":
        yield (t, i, *block["layers"], n, block["stop_reason"], bool(steps["rank"]), block["states"] is not None)
    elif table == "state_index":
        if block["states"] is not None:
            yield from ((t, i, r) for r in range(n + 1))
    elif table == "steps":
        for r, values in enumerate(zip(*(steps[name] for name in STEP_NUMBERS), strict=True), start=1):
            yield (t, i, r, *values)
    elif table == "layers_run":
        yield from ((t, i, r, layer) for r, ran in enumerate(block["layers_run"], start=1) for layer in ran)
    elif table == "exit":
        for r, values in enumerate(zip(steps["exit_rank"], steps["exit_logprob"], strict=True), start=1):
            yield (t, i, r, *values)
    elif table in _TOPK_TABLES:
        lists = zip(*(steps[name] for name in _TOPK_TABLES[table]), strict=True)
        for r, entries in enumerate(lists, start=1):
            for place, entry in enumerate(zip(*entries, strict=True)):
                yield (t, i, r, place, *entry)
    elif table == "gate":
        for r, (p, cdf) in enumerate(
            zip(*(block["gate"][name] for name in ("p", "cdf")), strict=True) if block["gate"] else (), 1
        ):
            yield (t, i, r, p, cdf, r == block["gate"]["read_out"])
    elif table == "keys":
        for layer, column in enumerate(block["key_cosine"], start=block["layers"][0]):
            yield from ((t, i, layer, r, value) for r, value in enumerate(column, start=1))
    elif block["attention"] is not None:
        for layer, seen in enumerate(block["attention"]["layers"], start=block["layers"][0]):
            if table == "attention_index":
                yield (t, i, layer, len(frame["kv"]["slots"][layer]))
            else:
                for r, heads in enumerate(seen["change"], start=1):
                    yield from ((t, i, layer, r, head, value) for head, value in enumerate(heads))


def columns(frames: Sequence[Frame], table: str) -> dict[str, Any]:
    """The columns of ``table`` (a key of :data:`TABLES`) for ``frames``: name to values, all of one length.

    The values are a list; a numpy array in the tables of :data:`PACKED`.
    """
    names = TABLES[table]
    if table in PACKED:
        return _packed_columns(frames, table)
    rows = list(_rows(frames, table))
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)) if rows else {name: [] for name in names}


def packed(frames: Iterable[Frame], table: str) -> Iterator[tuple[tuple[int, int, int], np.ndarray]]:
    """The arrays behind a table of :data:`PACKED`: ``(token, block, layer)`` and float16 ``[N, positions or slots]``."""
    key: Literal["weights", "slots"] = "weights" if table == "attention" else "slots"
    for frame in frames:
        for block in frame["blocks"]:
            if block["attention"] is not None:
                for layer, seen in enumerate(block["attention"]["layers"], start=block["layers"][0]):
                    width = frame["index"] + 1 if key == "weights" else len(frame["kv"]["slots"][layer])
                    yield (frame["index"], block["block"], layer), decode_floats(seen[key], width)


def _packed_columns(frames: Sequence[Frame], table: str) -> dict[str, np.ndarray]:
    rows: list[np.ndarray] = []
    for owner, values in packed(frames, table):
        steps, places = np.indices(values.shape)
        flat = (*(np.full(values.size, name) for name in owner), steps.ravel() + 1, places.ravel(), values.ravel())
        rows.append(np.stack([column.astype(np.float64) for column in flat]))
    whole = np.concatenate(rows, axis=1) if rows else np.zeros((len(TABLES[table]), 0))
    kinds = {"int": np.int64, "float": np.float64}
    return {name: column.astype(kinds[kind]) for (name, kind), column in zip(TABLES[table].items(), whole, strict=True)}


def _by_row(table: dict[str, list[Any]]) -> Iterator[dict[str, Any]]:
    names = list(table)
    for values in zip(*table.values(), strict=True):
        yield dict(zip(names, values, strict=True))


def frames_from(
    tables: dict[str, dict[str, list[Any]]], states: Sequence[str], attention: Sequence[tuple[str, str]]
) -> list[Frame]:
    """Undo :func:`columns`.

    Args:
        tables: every table of :data:`TABLES` but ``state_index`` and those of :data:`PACKED`, as columns.
        states: the packed states of each block row that has some, in order.
        attention: the packed weights and slots of each row of ``attention_index``, in order.

    Raises:
        ValueError: rows that belong to no token, block or step, or too few or too many states.
    """
    frames: list[Frame] = []
    for row in _by_row(tables["tokens"]):
        frames.append(
            {
                "version": SCHEMA_VERSION,
                **{key: row[key] for key in _FRAME_KEYS},  # type: ignore[typeddict-item]  # computed keys
                **{name: [] for name in NEXT_LISTS},
                "parts": {part: row[f"{part}_ms"] for part in PARTS},
                "memory": {"process": row["memory_process"], "device": row["memory_device"]},
                "blocks": [],
                "kv": {"slots": [], **{key: row[key] for key in _BYTES}},
                "finish": row["finish"],
            }
        )
        if row["index"] != len(frames) - 1:
            raise ValueError(f"tokens: index {row['index']} in row {len(frames) - 1}")
    _add_blocks(frames, tables["blocks"], iter(states))
    _add_layers_run(frames, tables["layers_run"])
    _add_steps(frames, tables)
    _add_gates(frames, tables["gate"])
    for row in _by_row(tables["next_topk"]):
        said: Mapping[str, Any] = _frame_of(frames, row)
        _expect("next_topk", row, "place", len(said["next_topk_ids"]))
        for name, column in zip(NEXT_LISTS, ("token_id", "logprob", "text"), strict=True):
            said[name].append(row[column])
    for row in _by_row(tables["kv"]):
        layers = _frame_of(frames, row)["kv"]["slots"]
        if row["slot"] == 0:
            _expect("kv", row, "layer", len(layers))
            layers.append([])
        _expect("kv", row, "layer", len(layers) - 1)
        _expect("kv", row, "slot", len(layers[-1]))
        layers[-1].append(row["tokens"])
    _add_attention(frames, tables, attention)
    return frames


def _add_layers_run(frames: list[Frame], table: dict[str, list[Any]]) -> None:
    for row in _by_row(table):
        ran = _block_of(frames, row)["layers_run"]
        if row["step"] == len(ran) + 1:
            ran.append([])
        _expect("layers_run", row, "step", len(ran))
        ran[-1].append(row["layer"])


def _add_gates(frames: list[Frame], table: dict[str, list[Any]]) -> None:
    for row in _by_row(table):
        block = _block_of(frames, row)
        block["gate"] = gate = block["gate"] or {"p": [], "cdf": [], "read_out": None}
        _expect("gate", row, "step", len(gate["p"]) + 1)
        gate["p"].append(row["p"])
        gate["cdf"].append(row["cdf"])
        if row["read_out"]:
            if gate["read_out"] is not None:
                raise ValueError(
                    f"gate: token {row['token']} read out at step {row['step']}, and at {gate['read_out']}"
                )
            gate["read_out"] = row["step"]


def _add_steps(frames: list[Frame], tables: dict[str, dict[str, list[Any]]]) -> None:
    for row in _by_row(tables["steps"]):
        steps = _block_of(frames, row)["steps"]
        _expect("steps", row, "step", len(steps["rank"]) + 1)
        for name in STEP_NUMBERS:
            steps[name].append(row[name])
        for name in STEP_LISTS:
            steps[name].append([])
    for row in _by_row(tables["exit"]):
        steps = _block_of(frames, row)["steps"]
        _expect("exit", row, "step", len(steps["exit_rank"]) + 1)
        steps["exit_rank"].append(row["rank"])
        steps["exit_logprob"].append(row["logprob"])
        for name in EXIT_LISTS:
            steps[name].append([])
    for table, lists in _TOPK_TABLES.items():
        for row in _by_row(tables[table]):
            steps = _block_of(frames, row)["steps"]
            if not 1 <= row["step"] <= len(steps[lists[0]]):
                raise ValueError(f"{table}: step {row['step']} of token {row['token']} is not in the table of steps")
            _expect(table, row, "place", len(steps[lists[0]][row["step"] - 1]))
            for name, column in zip(lists, ("token_id", "logprob", "text"), strict=True):
                steps[name][row["step"] - 1].append(row[column])
    for row in _by_row(tables["keys"]):
        block = _block_of(frames, row)
        if row["step"] == 1:
            _expect("keys", row, "layer", block["layers"][0] + len(block["key_cosine"]))
            block["key_cosine"].append([])
        _expect("keys", row, "layer", block["layers"][0] + len(block["key_cosine"]) - 1)
        _expect("keys", row, "step", len(block["key_cosine"][-1]) + 1)
        block["key_cosine"][-1].append(row["cosine"])


def _add_attention(
    frames: list[Frame], tables: dict[str, dict[str, list[Any]]], attention: Sequence[tuple[str, str]]
) -> None:
    for row, (weights, slots) in zip(_by_row(tables["attention_index"]), attention, strict=True):
        block = _block_of(frames, row)
        block["attention"] = block["attention"] or {"layers": []}
        layers = block["attention"]["layers"]
        _expect("attention_index", row, "layer", block["layers"][0] + len(layers))
        layers.append({"weights": weights, "slots": slots, "change": [[] for _ in range(block["n_steps"])]})
    for row in _by_row(tables["attention_change"]):
        block = _block_of(frames, row)
        layers, place = (block["attention"] or {"layers": []})["layers"], row["layer"] - block["layers"][0]
        if not 0 <= place < len(layers) or not 1 <= row["step"] <= block["n_steps"]:
            raise ValueError(
                f"attention_change: layer {row['layer']}, step {row['step']} of token {row['token']} "
                "is not in the table of attention"
            )
        heads = layers[place]["change"][row["step"] - 1]
        _expect("attention_change", row, "head", len(heads))
        heads.append(row["change"])


def attention_sizes(tables: dict[str, dict[str, list[Any]]]) -> list[tuple[int, int]]:
    """How many packed weights and slot shares each row of ``attention_index`` owns: ``N (t + 1)`` and ``N S``.

    Raises:
        ValueError: a row of a block that is not in the blocks table, or a layer without slots.
    """
    blocks = tables["blocks"]
    steps = dict(zip(zip(blocks["token"], blocks["block"], strict=True), blocks["n_steps"], strict=True))
    sizes = []
    for row in _by_row(tables["attention_index"]):
        n = steps.get((row["token"], row["block"]), 0)
        if n < 1 or row["token"] < 0 or row["slots"] < 1:
            raise ValueError(f"attention_index: token {row['token']}, block {row['block']}, slots {row['slots']}")
        sizes.append((n * (row["token"] + 1), n * row["slots"]))
    return sizes


def _add_blocks(frames: list[Frame], table: dict[str, list[Any]], states: Iterator[str]) -> None:
    for row in _by_row(table):
        blocks = _frame_of(frames, row)["blocks"]
        _expect("blocks", row, "block", len(blocks))
        packed_states = next(states, None) if row["has_states"] else None
        if row["has_states"] and packed_states is None:
            raise ValueError(f"states: none left for token {row['token']}, block {row['block']}")
        blocks.append(
            {
                "block": row["block"],
                "layers": [row["first_layer"], row["last_layer"]],
                "n_steps": row["n_steps"],
                "stop_reason": row["stop_reason"],
                "layers_run": [],
                "steps": empty_steps(),
                "states": packed_states,
                "key_cosine": [],
                "attention": None,
                "gate": None,
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
