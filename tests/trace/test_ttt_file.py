"""The trace file of a TTT run: what goes in comes out equal; whatever no TTT model could have said is refused by name."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from loopviz.trace import Trace
from loopviz.trace.file import TraceFileError, dumps, load, loads, save, to_csv, to_json, to_parquet
from loopviz.trace.schema import decode_floats, decode_singles, encode_floats, encode_singles
from loopviz.trace.ttt_tables import TTT_NUMBERS
from tests.engine.test_ttt_stream import KINDS, made, numbers
from tests.engine.tiny_ttt import engine
from tests.trace.synthetic import random_trace
from tests.trace.test_file import in_header, rezip


@functools.cache
def kept(kind: str = "linear") -> Trace:
    return made(engine(**KINDS[kind]))


@functools.cache
def file() -> bytes:
    return dumps(kept())


def copy() -> Trace:
    trace = kept()
    return Trace(json.loads(json.dumps(trace.meta)), json.loads(json.dumps(trace.frames)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_round_trip_is_equal(kind: str, tmp_path: Path) -> None:
    trace = kept(kind)
    trace.meta["ttt"]["changes"] = [
        {"index": 3, "forget": True, "inner_lr_scale": 0.5},
        {"index": 99, "forget": False, "inner_lr_scale": 2.0},  # one that no word was read under any more
    ]
    save(trace, tmp_path / "a")
    back = load(tmp_path / "a")
    assert back == trace
    assert dumps(back) == dumps(trace), "equal traces make equal files"
    assert loads(dumps(Trace(trace.meta))) == Trace(trace.meta), "one of no word, too"


def test_the_tables_are_the_frames_own_numbers() -> None:
    trace = kept()
    meta, T = trace.meta["ttt"], len(trace)
    L, H, M = meta["layers"], meta["heads"], meta["mini_batch"]
    table = trace.ttt
    assert len(table) == T * L * H
    for name in TTT_NUMBERS:
        told = table[name].to_numpy().reshape(T, L, H).transpose(1, 2, 0)
        np.testing.assert_array_equal(told, numbers(trace, name))
    reads, held = trace.ttt_reads, trace.ttt_held
    for t in (0, M - 1, M, T - 1):
        row = L * H - 1
        own = reads[(reads.token == t) & (reads.layer == L - 1) & (reads["head"] == H - 1)]
        assert own.position.tolist() == list(range(t - t % M, t + 1))
        packed = decode_singles(trace.frames[t]["ttt"]["reads"], t % M + 1)[row]
        np.testing.assert_array_equal(own.weight, packed.astype(float))
        old = held[(held.token == t) & (held.layer == 0) & (held["head"] == 1)]
        assert old.position.tolist() == list(range(t + 1))
        packed = decode_floats(trace.frames[t]["ttt"]["held"], t + 1)[1]
        np.testing.assert_array_equal(old.loss, packed.astype(float))
    assert random_trace(0, 3).ttt.empty


def test_its_numbers_are_exported_and_none_of_loops(tmp_path: Path) -> None:
    names = {"tokens", "next_topk", "ttt", "ttt_reads", "ttt_held"}
    assert {path.stem for path in to_csv(kept(), tmp_path / "csv")} == {*names, "meta"}
    assert {path.stem for path in to_parquet(kept(), tmp_path / "parquet")} == {*names, "meta"}
    head = (tmp_path / "csv" / "ttt.csv").read_text(encoding="utf-8").splitlines()[0]
    assert head.lstrip("\ufeff") == "token,layer,head,loss_before,loss_after,loss_start,drift,lr"
    to_json(kept(), tmp_path / "all.json")
    assert json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))["frames"] == kept().frames
    looped = {path.stem for path in to_csv(random_trace(0, 3), tmp_path / "looped")}
    assert not looped & {"ttt", "ttt_reads", "ttt_held"}


def of_meta(**change: Any) -> Callable[[Any], None]:
    return in_header(lambda header: header["meta"]["ttt"].update(change))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (of_meta(layers=3), r"meta\.ttt\.layers: 3 where 2 belongs"),
        (of_meta(heads=10**9), r"meta\.ttt\.heads"),
        (of_meta(mini_batch=0), r"meta\.ttt\.mini_batch: 0 where 1 to 4096 belongs"),
        (of_meta(mini_batch=10**12), r"meta\.ttt\.mini_batch"),
        (of_meta(mini_batch=3), r"meta\.ttt\.scales\[0\]: numbers: 4 where 3 belongs"),
        (of_meta(ages=0), r"meta\.ttt\.ages"),
        (of_meta(ages=7), "ttt_held: float16"),
        (of_meta(state_bytes=-1), r"meta\.ttt\.state_bytes"),
        (of_meta(kind="x" * 10**5), r"meta\.ttt\.kind: 'xxx.* is none of 'linear', 'mlp'"),
        (of_meta(base_lr=-1.0), r"meta\.ttt\.base_lr"),
        (of_meta(inner_lr_scale=float("nan")), r"meta\.ttt\.inner_lr_scale: nan is not a finite number"),
        (of_meta(inner_lr_scale=1e39), r"meta\.ttt\.inner_lr_scale"),
        (of_meta(scales=[]), r"meta\.ttt\.scales: rows: 0 where 2 belongs"),
        (of_meta(scales=[[1.0, 0.5, 0.3, -0.2], [1.0, 0.5, 0.3, 0.2]]), r"meta\.ttt\.scales\[0\]: -0\.2"),
        (of_meta(start_norm=[[1.0, 1.0, 1.0]]), r"meta\.ttt\.start_norm: rows: 1 where 2 belongs"),
        (of_meta(kv_beside={"x" * 9_000: 1.0}), r"meta\.ttt\.kv_beside key: text too long"),
        (of_meta(kv_beside={str(i): 1.0 for i in range(40)}), r"meta\.ttt\.kv_beside: models: 40"),
        (of_meta(kv_beside={"a": -1.0}), r"meta\.ttt\.kv_beside\.a"),
        (of_meta(changes=[{"index": 2, "forget": True, "inner_lr_scale": 1.0}] * 2), r"meta\.ttt\.changes\[1\]\.index"),
        (of_meta(changes=[{"index": 2, "forget": True, "inner_lr_scale": -1.0}]), r"changes\[0\]\.inner_lr_scale"),
        (of_meta(changes=[{"index": 2, "forget": 1, "inner_lr_scale": 1.0}]), r"changes\[0\]\.forget"),
        (of_meta(more=1), "unknown keys"),
        (in_header(lambda h: h["meta"].update(changes=[])), r"meta\.blocks: a TTT model has no looped blocks"),
        (in_header(lambda h: h["meta"].update(ttt=None)), "meta.ttt"),
        (in_header(lambda h: h["meta"].pop("ttt")), r"ttt\.parquet: of a TTT run, and meta\.json is of no such run"),
        (lambda members: members.pop("ttt.parquet"), r"ttt\.parquet is missing"),
        (lambda members: members.pop("ttt.safetensors"), r"ttt\.safetensors is missing"),
        (lambda members: members.update({"ttt.parquet": members["kv.parquet"]}), r"ttt\.parquet is damaged"),
    ],
)
def test_a_meta_no_ttt_run_could_have_is_refused_by_name(change: Callable[[Any], None], says: str) -> None:
    with pytest.raises(TraceFileError, match=says):
        loads(rezip(file(), change))


def test_a_looped_run_s_file_that_calls_itself_a_ttt_run_s_is_refused() -> None:
    meta = kept().meta["ttt"]
    with pytest.raises(TraceFileError, match=r"ttt\.parquet is missing"):
        loads(rezip(dumps(random_trace(0, 3)), in_header(lambda header: header["meta"].update(ttt=meta))))


def sealed(name: str, content: bytes) -> Callable[[dict[str, bytes]], None]:
    """Another member, and its checksum."""
    import hashlib

    def put(members: dict[str, bytes]) -> None:
        members[name] = content
        header = json.loads(members["meta.json"])
        header["members"][name]["sha256"] = hashlib.sha256(content).hexdigest()
        members["meta.json"] = json.dumps(header).encode()

    return put


def table(change: Callable[[dict[str, list[Any]]], Any]) -> Callable[[dict[str, bytes]], None]:
    """The table of another content."""

    def put(members: dict[str, bytes]) -> None:
        import io

        import pyarrow.parquet as pq

        columns = pq.read_table(io.BytesIO(members["ttt.parquet"])).to_pydict()
        change(columns)
        places = dict.fromkeys(("token", "layer", "head"), pa.int64())
        kinds = {name: places.get(name, pa.float64()) for name in columns}
        sink = io.BytesIO()
        pq.write_table(pa.table({name: pa.array(values, kinds[name]) for name, values in columns.items()}), sink)
        sealed("ttt.parquet", sink.getvalue())(members)

    return put


def arrays(change: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, bytes]], None]:
    """Arrays of another content."""

    def put(members: dict[str, bytes]) -> None:
        found = {name: values.copy() for name, values in load_arrays(members["ttt.safetensors"]).items()}
        change(found)
        sealed("ttt.safetensors", save_arrays(found))(members)

    return put


def with_keys(members: dict[str, bytes]) -> None:
    """A layer that holds keys."""
    import io

    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(pa.table({name: pa.array([0], pa.int64()) for name in ("token", "layer", "slot", "tokens")}), sink)
    sealed("kv.parquet", sink.getvalue())(members)


def put(at: int, value: Any) -> Callable[[Any], None]:
    def change(values: Any) -> None:
        values[at] = value

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            table(lambda c: [values.pop() for values in c.values()]),
            r"ttt: 143 rows where 144 belong: 24 tokens, 2 layers",
        ),
        (table(lambda c: put(7, 5)(c["layer"])), "ttt: layer 5 in row 7, where 0 belongs"),
        (table(lambda c: put(7, None)(c["head"])), "ttt: head None in row 7, where 1 belongs"),
        (table(lambda c: put(0, -3)(c["token"])), "ttt: token -3 in row 0, where 0 belongs"),
        (table(lambda c: put(3, float("nan"))(c["drift"])), "ttt: drift: a number that is not finite"),
        (table(lambda c: put(3, None)(c["lr"])), "ttt: lr: a number that is not finite"),
        (table(lambda c: put(3, 1e300)(c["loss_before"])), "ttt: loss_before: a number that is not finite"),
        (table(lambda c: put(3, -1.0)(c["loss_after"])), r"token 0: ttt\.loss_after: -1\.0 to"),
        (table(lambda c: c.pop("lr")), "ttt: columns"),
        (arrays(lambda a: a.pop("ttt_reads")), "ttt_reads: missing"),
        (arrays(lambda a: a.update(ttt_reads=a["ttt_reads"][:-1])), r"ttt_reads: float32 \(\d+,\), where float32"),
        (arrays(lambda a: a.update(ttt_held=a["ttt_held"].astype(np.float32))), "ttt_held: float32"),
        (arrays(lambda a: put(5, np.inf)(a["ttt_reads"])), "ttt_reads: a number that is not finite"),
        (arrays(lambda a: put(5, np.nan)(a["ttt_held"])), "ttt_held: a number that is not finite"),
        (arrays(lambda a: put(5, -2)(a["ttt_held"])), r"token 0: ttt\.held: -2\.0 to"),
        (with_keys, "token 0: kv: 1 layers where a TTT model keeps none"),
        (sealed("ttt.safetensors", b"\xff" * 64), "damaged"),
        (sealed("ttt.parquet", b"PAR1"), "damaged"),
    ],
)
def test_numbers_no_ttt_run_could_have_are_refused_by_name(change: Callable[[Any], None], says: str) -> None:
    with pytest.raises(TraceFileError, match=says):
        loads(rezip(file(), change))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda frame: frame.pop("ttt"), "token 2: ttt: in the frame or the meta alone"),
        (lambda frame: frame["ttt"].update(slot=1), r"token 2: ttt\.\w+"),
        (
            lambda frame: frame["ttt"].update(held=encode_floats(np.ones((6, 2)))),
            r"token 2: ttt\.held: heads of all layers: 4 where 6",
        ),
        (lambda frame: frame["ttt"].update(lr=encode_singles(np.ones(5))), r"token 2: ttt\.lr"),
        (lambda frame: frame["ttt"].update(drift=encode_singles(-np.ones(6))), r"token 2: ttt\.drift: -1\.0"),
    ],
)
def test_a_trace_that_no_file_could_hold_is_not_written(change: Callable[[Any], Any], says: str) -> None:
    trace = copy()
    change(trace.frames[2])
    with pytest.raises(ValueError, match=says):
        dumps(trace)


def test_a_stranger_s_file_is_held_to_the_limits() -> None:
    with pytest.raises(TraceFileError, match="tokens: 24 of them, over the limit of 20") as refused:
        loads(file(), max_tokens=20)
    assert refused.value.fault == "large"
    with pytest.raises(TraceFileError, match=r"with other tables' over the limit of 250"):
        loads(file(), max_rows=250)
    with pytest.raises(TraceFileError, match=r"larger than 1,000 bytes"):
        loads(file(), max_bytes=1_000)


def test_a_looped_run_s_file_is_as_it_was() -> None:
    import io
    import zipfile

    names = zipfile.ZipFile(io.BytesIO(dumps(random_trace(0, 3)))).namelist()
    assert not any("ttt" in name for name in names)
