"""A Trace as one file, and as CSV and JSON.

The file is a zip: Parquet tables (:mod:`loopviz.trace.tables`), the states in safetensors, and ``meta.json`` with the
format's version and every member's size and SHA-256. Nothing in it is ever executed or unpickled, no member is ever
written to disk under its own name, and no more is read than the limits allow: a file may come from anyone.

The Parquet inside is plain and uncompressed: only the zip compresses, so its sizes bound what a reader will hold. A
token costs more when it is read than it weighs in the file, so tokens and rows are counted before any is spelled out.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from loopviz import outputs
from loopviz.csv_file import write_table
from loopviz.loop_fields import before
from loopviz.trace.packed import encode_floats
from loopviz.trace.plausible import check_frames_sense, check_meta_sense, check_steps
from loopviz.trace.schema import READABLE, SCHEMA_VERSION, check_frame, check_meta, encode_states
from loopviz.trace.tables import INDEXES, PACKED, SINCE, TABLES, attention_sizes, columns, frames_from, packed
from loopviz.trace.trace import Trace
from loopviz.trace.ttt_plausible import check_ttt_frames, check_ttt_meta
from loopviz.trace.ttt_tables import TTT_TABLES, add_ttt, ttt_arrays, ttt_columns

FORMAT = "loopviz-trace"
MAX_BYTES = 256 * 2**20  # of the file, and of its members together when unpacked
MAX_ROWS = 4_000_000  # of all tables together
TOKEN_ROOM = 2_400  # bytes of the limit that a token takes, however little it weighs: read, it takes twice as much
MAX_META = 4 * 2**20  # bytes of meta.json: Python's objects take many times the room of the JSON they come from
_TABLES = [name for name in TABLES if name not in (*PACKED, "state_index")]
_KEPT = {**{name: TABLES[name] for name in _TABLES}, "ttt": TTT_TABLES["ttt"]}  # in a file as Parquet
_EXPORTED = [name for name in TABLES if name not in INDEXES]
_EXPORTED_OF_TTT = ["tokens", "next_topk", *TTT_TABLES]
_MEMBERS = [*(f"{name}.parquet" for name in _TABLES), "states.safetensors", "attention.safetensors"]
_OF_TTT = ["ttt.parquet", "ttt.safetensors"]  # a TTT run's file has these as well
_EPOCH = (1980, 1, 1, 0, 0, 0)  # equal traces make equal files


class TraceFileError(ValueError):
    """A file that is not a readable trace; the message says what is wrong with it.

    Args:
        fault: of which kind that is: "foreign" (no trace), "short" (cut short), "version" (of another one), "large" (beyond
            a limit) or "damaged".
    """

    def __init__(self, message: str, fault: str = "damaged") -> None:
        super().__init__(message)
        self.fault = fault


def _arrow_schema(table: str, version: int = SCHEMA_VERSION) -> Any:
    import pyarrow as pa

    kinds = {"int": pa.int64(), "int?": pa.int64(), "float": pa.float64(), "str": pa.string(), "bool": pa.bool_()}
    there = {n: kind for n, kind in _KEPT[table].items() if version >= SINCE.get(f"{table}.{n}", 0)}
    return pa.schema([(name, kinds[kind]) for name, kind in there.items()])


def dumps(trace: Trace) -> bytes:
    """The file of ``trace`` as bytes. ValueError when its meta or a frame is not well-formed plain data."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from safetensors.numpy import save

    check_meta(trace.meta)
    if json.loads(json.dumps(trace.meta, allow_nan=False)) != trace.meta:
        raise ValueError("meta: not plain JSON data (a tuple, or a key that is no string)")
    for frame in trace.frames:
        _named(frame, trace.meta["shape"]["hidden"])
    check_ttt_frames(trace.frames, trace.meta)  # how long a TTT run's arrays are is not said in the file
    members: dict[str, bytes] = {}
    of_ttt = trace.meta.get("ttt")
    for name in _TABLES if of_ttt is None else _KEPT:
        sink = io.BytesIO()
        held = ttt_columns(trace.frames, name, of_ttt) if name == "ttt" else columns(trace.frames, name)
        table = pa.table(held, schema=_arrow_schema(name))
        pq.write_table(table, sink, compression="none", use_dictionary=False, column_encoding="PLAIN")
        members[f"{name}.parquet"] = sink.getvalue()
    members["states.safetensors"] = save({"states": np.ascontiguousarray(trace.states)})
    members["attention.safetensors"] = save({table: _flat(trace, table) for table in PACKED})
    if of_ttt is not None:
        members["ttt.safetensors"] = save(ttt_arrays(trace.frames, of_ttt))
    sums = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in members.items()}
    header = {"format": FORMAT, "version": SCHEMA_VERSION, "meta": trace.meta, "members": sums}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {"meta.json": json.dumps(header, ensure_ascii=False).encode(), **members}.items():
            info = zipfile.ZipInfo(name, _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    return out.getvalue()


def _flat(trace: Trace, table: str) -> np.ndarray:
    """All packed numbers of ``table``, float16, in the order of ``attention_index``."""
    return np.concatenate([np.zeros(0, "<f2"), *(values.ravel() for _, values in packed(trace.frames, table))])


def save(trace: Trace, path: str | os.PathLike[str]) -> None:
    """Write ``trace`` to ``path``, whole or not at all (an existing file stays until the new one is complete).

    Raises:
        OutputError: the system would not write; an OSError and a ValueError, naming the path.
    """
    outputs.write(path, dumps(trace))


def load(
    path: str | os.PathLike[str],
    *,
    max_bytes: int = MAX_BYTES,
    max_tokens: int | None = None,
    max_rows: int | None = None,
) -> Trace:
    """Read the trace at ``path``.

    Args:
        path: the file.
        max_bytes: it may have, as a file and unpacked.
        max_tokens: it may have; None: as many as ``max_bytes`` has room for (:data:`TOKEN_ROOM`).
        max_rows: its tables may have together; None: :data:`MAX_ROWS`.

    Raises:
        TraceFileError: not a trace, of another version, cut short, damaged, or larger than the limits.
        OSError: the file cannot be opened.
    """
    with open(path, "rb") as file:
        data = file.read(max_bytes + 1)
    try:
        return loads(data, max_bytes=max_bytes, max_tokens=max_tokens, max_rows=max_rows)
    except TraceFileError as error:
        raise TraceFileError(f"{os.fspath(path)}: {error}", error.fault) from error


def loads(
    data: bytes, *, max_bytes: int = MAX_BYTES, max_tokens: int | None = None, max_rows: int | None = None
) -> Trace:
    """Undo :func:`dumps`; limits and refusals as of :func:`load`."""
    if len(data) > max_bytes:
        raise TraceFileError(f"larger than {max_bytes:,} bytes, the most a trace file may have", "large")
    try:
        header, members = _open(data, max_bytes)
        limits = _Limits(
            max_bytes,
            max_bytes // TOKEN_ROOM if max_tokens is None else max_tokens,
            MAX_ROWS if max_rows is None else max_rows,
        )
        return _assemble(header, members, limits)
    except (TraceFileError, MemoryError):
        raise
    except Exception as error:  # the zip, JSON, Arrow and safetensors readers raise whatever they like
        raise TraceFileError(f"damaged: {' '.join(str(error).split()) or type(error).__name__}") from error


class _Limits(NamedTuple):
    """What a file may hold."""

    bytes: int  # of all tables' numbers, and of all texts, when they are spelled out
    tokens: int
    rows: int  # of all tables


def _check_whole(data: bytes) -> None:
    """Tell a file of ours that ends too early from one that is none."""
    begins = b"PK\x03\x04"
    ours = data[30:39] == b"meta.json"[: len(data[30:39])]  # the first member's name, as far as it is there
    if not data or (data[:4] == begins[: len(data)] and ours):
        raise TraceFileError(f"cut short: the file ends after {len(data):,} bytes, before its list of members", "short")
    raise TraceFileError("not a trace file (not a zip)", "foreign")


def _check_tiled(archive: zipfile.ZipFile, data: bytes) -> None:
    """Members, list and end lie one after the other, with nothing before, between or after them."""
    end = 0
    for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
        if info.header_offset != end or info.flag_bits & 0x8:
            raise TraceFileError(f"not a trace file: bytes that belong to no member before {info.filename}", "foreign")
        name, extra = struct.unpack("<HH", data[end + 26 : end + 30])
        end += 30 + name + extra + info.compress_size
    listed = sum(46 + len(i.orig_filename.encode()) + len(i.extra) + len(i.comment) for i in archive.infolist())
    if archive.start_dir != end or len(data) != end + listed + 22:
        raise TraceFileError("not a trace file: bytes that belong to no member after the last one", "foreign")


def _open(data: bytes, max_bytes: int) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Check the zip from outside in, and return its header and checked members."""
    # A central directory may list millions of members in few bytes, and zipfile makes an object of each.
    if data.count(b"PK\x01\x02") > 100 * len(_MEMBERS):
        raise TraceFileError("not a trace file (a zip of far too many members)", "foreign")
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except zipfile.BadZipFile:
        _check_whole(data)
    with archive:
        infos = archive.infolist()
        names = [info.filename for info in infos]
        if "meta.json" not in names:
            raise TraceFileError("not a trace file (a zip without meta.json)", "foreign")
        foreign = sorted(set(names) - {"meta.json", *_MEMBERS, *_OF_TTT})
        if foreign or len(names) != len(set(names)):
            raise TraceFileError(f"not a trace file: it holds {foreign or 'the same member twice'}", "foreign")
        declared = sum(info.file_size for info in infos)
        if declared > max_bytes:
            raise TraceFileError(f"unpacks to {declared:,} bytes, over the limit of {max_bytes:,}", "large")
        for info in infos:
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 0x1:
                raise TraceFileError(f"{info.filename}: compressed or encrypted in a way trace files are not")
        _check_tiled(archive, data)
        header = json.loads(_member(archive, "meta.json", MAX_META))
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise TraceFileError("not a trace file (its meta.json is another program's)", "foreign")
        version = header.get("version")
        if version not in READABLE or type(version) is not int:
            readable = f"{', '.join(map(str, READABLE[:-1]))} and {READABLE[-1]}"
            raise TraceFileError(f"version {version!r}; this LoopViz reads versions {readable}", "version")
        members = {}
        expected = _members(version, isinstance(header.get("meta"), dict) and "ttt" in header["meta"])
        if strange := sorted({*names} & {*_OF_TTT} - {*expected}):
            raise TraceFileError(f"{strange[0]}: of a TTT run, and meta.json is of no such run")
        for name in expected:
            if name not in names:
                raise TraceFileError(f"{name} is missing")
            members[name] = _member(archive, name, max_bytes)
            if hashlib.sha256(members[name]).hexdigest() != header["members"][name]["sha256"]:
                raise TraceFileError(f"{name} is damaged (its checksum differs)")
    return header, members


def _members(version: int, of_ttt: bool) -> list[str]:
    """The members a file of ``version`` has."""
    found = [name for name in _MEMBERS if version >= SINCE.get(name.removesuffix(".parquet"), 0)]
    return [*found, *_OF_TTT] if of_ttt else found


def _this_version(header: dict[str, Any]) -> dict[str, Any]:
    """The Meta of a readable file as one of this version; ValueError when it says another version than its file."""
    meta = header["meta"]
    if type(meta["version"]) is not int or meta["version"] != header["version"]:
        raise ValueError(f"meta.version={meta['version']!r} in a file of version {header['version']!r}")
    if meta["version"] >= SCHEMA_VERSION:
        return meta
    lacking = before(meta["version"])
    older = {**meta, "version": SCHEMA_VERSION, "blocks": [{**block, **lacking} for block in meta["blocks"]]}
    if "changes" in meta:
        older["changes"] = [
            {**change, "blocks": [{**block, **lacking} for block in change["blocks"]]} for change in meta["changes"]
        ]
    return older


def _member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """One member. ``ZipFile.read`` would unpack a gigabyte before it compares the size with the declared one."""
    size = archive.getinfo(name).file_size
    if size > limit:
        raise TraceFileError(f"{name}: {size:,} bytes, over the limit of {limit:,}", "large")
    with archive.open(name) as member:
        data = member.read(size)
        if len(data) != size or member.read(1):
            raise TraceFileError(f"{name} is damaged (its size is not the declared one)")
    return data


def _assemble(header: dict[str, Any], members: dict[str, bytes], limits: _Limits) -> Trace:
    from safetensors.numpy import load as load_safetensors

    meta = _this_version(header)
    check_meta(meta)
    check_meta_sense(meta)
    check_ttt_meta(meta)
    tables = _read_tables(members, limits, header["version"])
    check_steps(tables["blocks"]["n_steps"])
    states = load_safetensors(members["states.safetensors"])["states"]
    hidden, rows = meta["shape"]["hidden"], [n + 1 for n in _recorded(tables["blocks"])]
    if states.dtype != np.float16 or states.shape != (sum(rows), hidden):
        raise TraceFileError(f"states: {states.dtype} {states.shape}, where float16 {(sum(rows), hidden)} belongs")
    if not np.isfinite(states).all():
        raise TraceFileError("states: a number that is not finite")
    of_blocks = [encode_states(part) for part in np.split(states, np.cumsum(rows)[:-1])] if rows else []
    frames = frames_from(tables, of_blocks, _attention(tables, members["attention.safetensors"]))
    if "ttt" in meta:
        add_ttt(frames, tables["ttt"], load_safetensors(members["ttt.safetensors"]), meta["ttt"])
    trace = Trace(meta, frames)
    for frame in trace.frames:
        check_frame(frame, hidden)
    check_frames_sense(trace.frames, meta)
    check_ttt_frames(trace.frames, meta)
    return trace


def _attention(tables: dict[str, dict[str, list[Any]]], data: bytes) -> list[tuple[str, str]]:
    """The packed weights and slot shares of each row of ``attention_index``."""
    from safetensors.numpy import load as load_safetensors

    arrays, sizes, parts = load_safetensors(data), attention_sizes(tables), []
    for table, own in zip(PACKED, zip(*sizes, strict=True) if sizes else ((), ()), strict=True):
        values = arrays[table]
        if values.dtype != np.float16 or values.shape != (sum(own),):
            raise TraceFileError(f"{table}: {values.dtype} {values.shape}, where float16 {(sum(own),)} belongs")
        parts.append([encode_floats(part) for part in np.split(values, np.cumsum(own)[:-1])] if own else [])
    return list(zip(*parts, strict=True))


def _recorded(blocks: dict[str, list[Any]]) -> list[int]:
    return [n for n, has in zip(blocks["n_steps"], blocks["has_states"], strict=True) if has]


def _read_tables(members: dict[str, bytes], limits: _Limits, version: int) -> dict[str, dict[str, list[Any]]]:
    """The Parquet members as columns; one that the file's version lacks has no rows.

    Everything that says how much they hold is looked at before any of them is read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    there = [name for name in _KEPT if f"{name}.parquet" in members]
    schemas = {name: _arrow_schema(name, version) for name in there}
    texts = {name: [field.name for field in schemas[name] if field.type == pa.string()] for name in there}
    # Dictionary-coded text can stand for far more than it weighs: read it coded, and weigh it before spelling it out.
    files = {
        name: pq.ParquetFile(io.BytesIO(members[f"{name}.parquet"]), read_dictionary=texts[name]) for name in there
    }
    rows, spelled = 0, 0
    for name, file in files.items():
        count = file.metadata.num_rows
        if name == "tokens" and count > limits.tokens:
            raise TraceFileError(f"tokens: {count:,} of them, over the limit of {limits.tokens:,}", "large")
        if file.schema_arrow.names != schemas[name].names:
            raise TraceFileError(f"{name}: columns {file.schema_arrow.names}, where {schemas[name].names} belong")
        rows += count
        if rows > limits.rows:
            raise TraceFileError(
                f"{name}: {count:,} rows, with other tables' over the limit of {limits.rows:,}", "large"
            )
        # Numbers can be coded to next to nothing as well: what they take when spelled out is known before.
        numbers = 8 * count * (len(schemas[name].names) - len(texts[name]))
        spelled += numbers
        _check_room(name, numbers, spelled, "numbers", limits)
    read, spelled = {}, 0
    for name, file in files.items():
        read[name] = file.read()
        for column in texts[name]:
            weight = _spelled(read[name][column])
            spelled += weight
            _check_room(name, weight, spelled, f"text in column {column}", limits)
    tables: dict[str, dict[str, list[Any]]] = {name: {column: [] for column in _KEPT[name]} for name in _KEPT}
    for name in there:
        table = read.pop(name)
        columns = table.cast(schemas[name]).to_pydict()
        lacking = [column for column in _KEPT[name] if column not in columns]
        tables[name] = columns | {column: [None] * table.num_rows for column in lacking}
    return tables


def _check_room(table: str, weight: int, together: int, what: str, limits: _Limits) -> None:
    if together > limits.bytes:
        more = "" if weight > limits.bytes else f", with what was before {together:,}"
        raise TraceFileError(f"{table}: {weight:,} bytes of {what}{more}, over the limit of {limits.bytes:,}", "large")


def _spelled(text: Any) -> int:
    """Bytes of a column of text when it is spelled out."""
    import pyarrow as pa
    import pyarrow.compute as pc

    weight = 0
    for chunk in text.chunks:
        if pa.types.is_dictionary(chunk.type):
            weight += pc.sum(pc.binary_length(chunk.dictionary).take(chunk.indices)).as_py() or 0
    return weight


def to_csv(trace: Trace, path: str | os.PathLike[str]) -> list[Path]:
    """Write one CSV a table (tokens, blocks, steps, topk, kv, ...) and ``meta.json`` into the folder ``path``.

    Undefined numbers are empty cells; a table of something that was not recorded has its header alone. The states are not in the CSV: they are in the trace file.
    Of a TTT run: tokens, next_topk, ttt, ttt_reads, ttt_held.
    Returns the files. ValueError, before any is written, when the meta or a frame is not well-formed plain data.
    """
    return _tables(trace, Path(path), "csv")


def to_parquet(trace: Trace, path: str | os.PathLike[str]) -> list[Path]:
    """As :func:`to_csv`, in Parquet: smaller, and with the types of the columns."""
    return _tables(trace, Path(path), "parquet")


def _check(trace: Trace) -> None:
    """ValueError, naming the token and the field, for what no file can hold."""
    check_meta(trace.meta)
    for frame in trace.frames:
        _named(frame)


def _named(frame: Any, hidden: int | None = None) -> None:
    """As :func:`check_frame`, naming the token too."""
    try:
        check_frame(frame, hidden)
    except ValueError as error:
        raise ValueError(f"token {frame['index']}: {error}") from error


def _tables(trace: Trace, folder: Path, kind: str) -> list[Path]:
    _check(trace)
    with outputs.naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in _EXPORTED_OF_TTT if "ttt" in trace.meta else _EXPORTED:
        written.append(folder / f"{name}.{kind}")
        with outputs.replacing(written[-1]) as part:
            if kind == "csv":
                write_table(getattr(trace, name), part)
            else:
                getattr(trace, name).to_parquet(part, index=False)
    written.append(folder / "meta.json")
    outputs.write(written[-1], json.dumps(trace.meta, ensure_ascii=False, indent=1).encode())
    return written


def to_json(trace: Trace, path: str | os.PathLike[str]) -> None:
    """Write ``{"meta": ..., "frames": [...]}`` to ``path``: the frames exactly as they are, states included.

    ValueError when its meta or a frame is not well-formed plain data.
    """
    _check(trace)
    data = {"meta": trace.meta, "frames": trace.frames}
    outputs.write(path, json.dumps(data, ensure_ascii=False, allow_nan=False).encode())
