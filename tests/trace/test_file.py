"""The trace file: what goes in comes out equal, and anything else is refused by name."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import random
import zipfile

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopviz import csv_file
from loopviz.loop_fields import before
from loopviz.trace import EXTRAS, Trace
from loopviz.trace import file as trace_io
from loopviz.trace.file import TraceFileError, dumps, load, loads, save, to_csv, to_json
from tests.trace.synthetic import change_loop, make_meta, random_trace, traces


@given(traces())
@settings(max_examples=40, deadline=None)
def test_round_trip_is_equal(trace):
    assert loads(dumps(trace)) == trace


def test_save_and_load_a_file(tmp_path):
    trace = random_trace(7, 6, blocks=[(0, 1), (3, 4)], extras=EXTRAS)
    path = tmp_path / "a trace.loopviz"
    save(trace, path)
    save(trace, path)
    back = load(path)
    assert back == trace
    assert (back.states == trace.states).all()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_failed_save_keeps_the_old_file(tmp_path):
    path = tmp_path / "t"
    save(random_trace(1), path)
    before = path.read_bytes()
    broken = random_trace(1)
    broken.frames[0]["kv"]["bytes_used"] = "many"
    with pytest.raises(ValueError, match="bytes_used"):
        save(broken, path)
    broken = random_trace(1)
    broken.meta["loop"]["loop_layers"] = (1, 2)
    with pytest.raises(ValueError, match="meta"):
        save(broken, path)
    assert path.read_bytes() == before


def rezip(data: bytes, change) -> bytes:
    """The same archive with its members (a dict of bytes) changed."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def in_header(change):
    def apply(members):
        header = json.loads(members["meta.json"])
        change(header)
        members["meta.json"] = json.dumps(header).encode()

    return apply


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: m.pop("meta.json"), r"without meta\.json"),
        (lambda m: m.pop("kv.parquet"), r"kv\.parquet is missing"),
        (lambda m: m.update({"../../evil": b"x"}), r"\.\./\.\./evil"),
        (lambda m: m.update({"/etc/passwd": b"x"}), "/etc/passwd"),
        (lambda m: m.update({"weights.pkl": b"x"}), r"weights\.pkl"),
        (lambda m: m.update({"steps.parquet": m["kv.parquet"]}), r"steps\.parquet is damaged"),
        (lambda m: m.update({"meta.json": b"[1, 2]"}), "another program"),
        (lambda m: m.update({"meta.json": b"\xff{"}), "damaged"),
        (lambda m: m.update({"meta.json": b"[" * 100_000}), "damaged"),
        (in_header(lambda h: h.update(version=99)), "version 99"),
        (in_header(lambda h: h.update(version=1)), "version 1; this LoopViz reads versions 2, 3, 4, 5, 6 and 7"),
        (in_header(lambda h: h.update(format="other")), "another program"),
        (in_header(lambda h: h.update(version=7.0)), r"version 7\.0"),
        (in_header(lambda h: h.update(version=True)), "version True"),
        (in_header(lambda h: h["meta"].update(version=7.0)), r"meta\.version=7\.0"),
        (in_header(lambda h: h["members"].pop("states.safetensors")), "damaged"),
        (in_header(lambda h: h["meta"].pop("shape")), "shape"),
        (in_header(lambda h: h["meta"]["shape"].update(hidden=7)), "states"),
    ],
)
def test_a_foreign_or_damaged_archive_is_refused_by_name(change, says):
    with pytest.raises(TraceFileError, match=says):
        loads(rezip(dumps(random_trace(0, 3)), change))


def test_not_a_zip_and_cut_short(tmp_path):
    (tmp_path / "x").write_bytes(b"hello")
    with pytest.raises(TraceFileError, match=r"x: not a trace file"):
        load(tmp_path / "x")
    data = dumps(random_trace(0, 3))
    for size in (0, 1, 3, 4, 29, 35, 38, 40, len(data) // 2, len(data) - 40, len(data) - 1):
        with pytest.raises(TraceFileError, match=rf"^cut short: the file ends after {size:,} bytes"):  # L15
            loads(data[:size])
    with pytest.raises(TraceFileError, match="not a trace file"):
        loads(b"PK\3\4" + bytes(26) + b"word/document.xml")
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none")


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"x" + data,
        lambda data: b"#!/bin/sh\n" + data,
        lambda data: data + b"x",
        lambda data: data + bytes(1000),
        lambda data: data[:-2] + b"\1\0x",  # as the archive's comment
        lambda data: data + data,
        lambda data: data[: data.rfind(b"PK\1\2")] + b"PK\1\2" + data[data.rfind(b"PK\1\2") :],
        lambda data: data[: data.index(b"PK\3\4", 4)] + b"between" + data[data.index(b"PK\3\4", 4) :],
    ],
)
def test_l9_bytes_before_between_and_after_the_members_are_refused(change):
    data = dumps(random_trace(0, 3))
    assert len(loads(data)) == 3
    with pytest.raises(TraceFileError):
        loads(change(data))


def spread(tokens: int) -> bytes:
    """A small file of very many tokens: as trace_120000_tokens."""
    frames = random_trace(0, 1, blocks=[]).frames * tokens
    trace = Trace(make_meta(blocks=[]), [{**frame, "index": i} for i, frame in enumerate(frames)])
    return dumps(trace)


def test_trace_120000_tokens_is_refused_by_name_before_a_table_is_spelled_out(monkeypatch):
    data, lots = spread(300), 300 * trace_io.TOKEN_ROOM
    assert len(loads(data)) == 300
    assert len(loads(data, max_tokens=300)) == 300
    monkeypatch.setattr(pq.ParquetFile, "read", None)  # no table is from here on
    for limits, says in [
        ({"max_tokens": 299}, "tokens: 300 of them, over the limit of 299"),
        ({"max_bytes": lots - 1}, "tokens: 300 of them, over the limit of 299"),
        ({"max_rows": 1000}, "next_topk: 1,500 rows, with other tables' over the limit of 1,000"),
    ]:
        with pytest.raises(TraceFileError, match=says):
            loads(data, **limits)


def test_trace_unknown_attention_mode_is_refused_by_name():
    meta = make_meta(attention_mode="sideways")
    with pytest.raises(
        ValueError, match=r"meta\.blocks\[0\]\.attention_mode: 'sideways' is none of 'parallel', 'serial'"
    ):
        dumps(Trace(meta))
    with pytest.raises(TraceFileError, match=r"attention_mode: 'sideways' is none of 'parallel', 'serial'"):
        loads(rezip(dumps(Trace(make_meta())), in_header(lambda h: h["meta"]["blocks"][0].update(meta["blocks"][0]))))


def test_what_a_block_may_be_is_what_the_model_can_do():
    from typing import get_args, get_type_hints

    from loopviz.model import configuration
    from loopviz.trace.schema import BlockMeta

    hints = get_type_hints(BlockMeta)
    assert get_args(hints["strategy"]) == configuration.STRATEGIES
    assert get_args(hints["kv_mode"]) == configuration.KV_MODES
    assert get_args(hints["attention_mode"]) == configuration.ATTENTION_MODES
    assert get_args(hints["injection"]) == configuration.INJECTIONS


def test_size_limits(tmp_path):
    data = dumps(random_trace(0, 3))
    with pytest.raises(TraceFileError, match="larger than 100 bytes"):
        loads(data, max_bytes=100)
    with pytest.raises(TraceFileError, match="unpacks to"):
        loads(data, max_bytes=len(data) + 1)
    bomb = rezip(data, lambda m: m.update({"kv.parquet": bytes(50_000_000)}))
    assert len(bomb) < 200_000
    with pytest.raises(TraceFileError, match=r"unpacks to 50,\d+,\d+ bytes"):
        loads(bomb, max_bytes=10_000_000)


def _replaced_table(data: bytes, name: str, table: pa.Table, **how) -> bytes:
    """The archive with one table replaced and its checksum made to fit: a file made on purpose."""
    sink = io.BytesIO()
    pq.write_table(table, sink, **how)
    return replaced_member(data, name, sink.getvalue())


def replaced_member(data: bytes, name: str, content: bytes) -> bytes:
    """The archive with one member replaced and its checksum made to fit."""

    def change(members):
        members[name] = content
        header = json.loads(members["meta.json"])
        header["members"][name]["sha256"] = trace_io.hashlib.sha256(content).hexdigest()
        members["meta.json"] = json.dumps(header).encode()

    return rezip(data, change)


def of_version(version: int, data: bytes) -> bytes:
    """A file as an earlier version wrote it.

    Version 6 knew no K/V in 8 bits, version 5 had no exit gates and did not say how many runs shared a pass, version 4 no fields of published families,
    version 3 no choosers of layers, version 2 neither the model's own likeliest
    next tokens nor the clock.
    """
    lacking = [name for name, since in {"next_topk": 3, "layers_run": 4, "gate": 6}.items() if version < since]

    def change(members):
        header = json.loads(members["meta.json"])
        for name in lacking:
            del members[f"{name}.parquet"], header["members"][f"{name}.parquet"]
        unsaid = [name for name, since in {"wall_ms": 3, "pass_runs": 6}.items() if version < since]
        if unsaid:
            tokens = pq.read_table(io.BytesIO(members["tokens.parquet"])).drop_columns(unsaid)
            sink = io.BytesIO()
            pq.write_table(tokens, sink)
            members["tokens.parquet"] = sink.getvalue()
            header["members"]["tokens.parquet"]["sha256"] = trace_io.hashlib.sha256(sink.getvalue()).hexdigest()
        meta = header["meta"]
        header["version"] = meta["version"] = version
        for blocks in (meta["blocks"], *(change["blocks"] for change in meta.get("changes", ()))):
            for block in blocks:
                for name in before(version):
                    del block[name]
        members["meta.json"] = json.dumps(header).encode()

    return rezip(data, change)


def of_version_2(data: bytes) -> bytes:
    """A file as version 2 wrote it."""
    return of_version(2, data)


def test_a_file_of_version_2_is_read_without_what_it_lacks():
    trace = random_trace(4, 3, extras=EXTRAS)
    old = loads(of_version_2(dumps(trace)))
    for frame in trace.frames:
        frame.update(next_topk_ids=[], next_topk_logprobs=[], next_topk_texts=[], wall_ms=None, pass_runs=None)
    assert old == trace
    assert loads(dumps(old)) == trace, "saved again, it is of this version"
    with pytest.raises(TraceFileError, match="version=3 in a file of version 2"):
        loads(rezip(of_version_2(dumps(trace)), in_header(lambda h: h["meta"].update(version=3))))


def test_a_file_of_version_3_is_read_as_one_without_a_chooser_of_layers():
    trace = random_trace(4, 12, extras=EXTRAS)
    change_loop(trace.meta, 3, damping=0.5)
    old = loads(of_version(3, dumps(trace)))
    blocks = [*old.meta["blocks"], *old.meta["changes"][0]["blocks"]]
    assert [(block.pop("chooser"), block.pop("layer_threshold")) for block in blocks] == [("none", 0.0)] * 2
    for block in (*trace.meta["blocks"], *trace.meta["changes"][0]["blocks"]):
        del block["chooser"], block["layer_threshold"]
    for frame in trace.frames:
        frame["pass_runs"] = None
    assert old == trace
    assert old.layers_run.empty


@pytest.mark.parametrize("version", [2, 3, 4])
def test_a_file_from_before_published_families_is_read_as_one_of_the_loop_that_was_then(version):
    trace = random_trace(4, 3, extras=EXTRAS)
    (block,) = loads(of_version(version, dumps(trace))).meta["blocks"]
    assert {name: block[name] for name in before(4)} == {
        "criterion_threshold": 0.0,
        "unreached": "refuse",
        "final_norm": "none",
        "init": "entry",
        "init_std": 0.0,
        "init_seed": 0,
        "exit_selection": "last",
        "exit_threshold": 1.0,
        "kv_dtype": "exact",
    }


def test_what_a_gate_said_comes_back_from_a_file():
    trace = random_trace(5, 12, max_steps=4, blocks=[(1, 2), (3, 4)], exit_selection="gate", exit_threshold=0.6)
    trace.frames[3]["blocks"][1]["gate"]["read_out"] = None  # all steps, by their probabilities
    again = loads(dumps(trace))
    assert again == trace
    table = again.gate
    assert len(table) == sum(block["n_steps"] for frame in trace.frames for block in frame["blocks"])
    told = trace.frames[7]["blocks"][1]["gate"]
    mine = table[(table.token == 7) & (table.block == 1)]
    assert (mine.p.tolist(), mine.cdf.tolist()) == (told["p"], told["cdf"])
    assert mine.step[mine.read_out].tolist() == [told["read_out"]]
    assert loads(of_version(5, dumps(trace))).gate.empty


def test_a_token_that_a_gate_read_out_at_two_steps_is_refused():
    data = dumps(random_trace(5, 3, max_steps=4, exit_selection="gate"))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        table = pq.read_table(io.BytesIO(archive.read("gate.parquet")))
    everywhere = table.set_column(table.column_names.index("read_out"), "read_out", [[True] * table.num_rows])
    with pytest.raises(TraceFileError, match=r"gate: token \d read out at step 2, and at 1"):
        loads(_replaced_table(data, "gate.parquet", everywhere))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda gate: gate["cdf"].__setitem__(1, 1.7), "gate.cdf: 1.7"),
        (lambda gate: gate["p"].__setitem__(0, -0.5), "gate.p: -0.5"),
        (lambda gate: gate["cdf"].reverse(), "gate.cdf: falls"),
    ],
)
def test_a_gate_that_no_run_could_have_is_refused(change, said):
    trace = random_trace(5, 3, max_steps=4, exit_selection="gate")
    change(trace.frames[1]["blocks"][0]["gate"])
    with pytest.raises(TraceFileError, match=said):
        loads(dumps(trace))


def test_a_file_from_before_shared_passes_does_not_say_who_shared_them():
    trace = random_trace(4, 6, extras=EXTRAS)
    assert {frame["pass_runs"] for frame in loads(dumps(trace)).frames} == {1, 2, 3}
    old = loads(of_version(5, dumps(trace)))
    for frame in trace.frames:
        frame["pass_runs"] = None
    assert old == trace
    assert old.tokens["pass_runs"].isna().all()


def test_which_layers_ran_comes_back_from_a_file():
    trace = random_trace(5, 40, chooser="influence", max_steps=4, blocks=[(1, 3)], extras=EXTRAS)
    assert {block["n_steps"] for frame in trace.frames for block in frame["blocks"]} >= {0, 4}
    again = loads(dumps(trace))
    assert again == trace
    told = trace.layers_run
    assert len(told) == sum(len(ran) for frame in trace.frames for ran in frame["blocks"][0]["layers_run"])
    crafted = pa.table({name: [*told[name].tolist(), told[name].iloc[-1]] for name in told})
    with pytest.raises(TraceFileError, match="layers_run"):
        loads(_replaced_table(dumps(trace), "layers_run.parquet", crafted))


def test_tables_that_unfold_beyond_the_limits_are_refused(monkeypatch):
    data = dumps(random_trace(0, 3))
    rows = 100_000
    kv = pa.table({name: pa.array([0] * rows, pa.int64()) for name in ("token", "layer", "slot", "tokens")})
    monkeypatch.setattr(trace_io, "MAX_ROWS", rows - 1)
    with pytest.raises(TraceFileError, match="kv: 100,000 rows, with other tables' over the limit of 99,999"):
        loads(_replaced_table(data, "kv.parquet", kv))
    monkeypatch.undo()
    zeros = {name: pa.array([0] * rows, pa.int64()) for name in ("token", "block", "step", "place", "token_id")}
    long = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["x" * 100_000]))
    topk = pa.table({**zeros, "logprob": pa.array([0.0] * rows), "text": long})
    crafted = _replaced_table(data, "topk.parquet", topk)
    assert len(crafted) < 1_000_000
    with pytest.raises(TraceFileError, match="10,000,000,000 bytes of text"):
        loads(crafted)


@pytest.mark.parametrize("column", ["token", "layer", "slot"])
def test_rows_that_belong_nowhere_are_refused(column):
    trace = random_trace(0, 3)
    table = pa.table({name: values.tolist() for name, values in trace.kv.items()})
    values = table[column].to_pylist()
    values[5] = 999
    table = table.set_column(table.schema.get_field_index(column), column, pa.array(values, pa.int64()))
    with pytest.raises(TraceFileError, match="999"):
        loads(_replaced_table(dumps(trace), "kv.parquet", table))


@given(st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_flipped_bytes_load_equal_or_are_refused(seed):
    rng = random.Random(seed)
    trace = random_trace(4, 3, hidden=3, extras=EXTRAS)
    data = bytearray(dumps(trace))
    for _ in range(rng.choice([1, 1, 2, 8])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    with contextlib.suppress(TraceFileError):
        assert loads(bytes(data)) == trace


@given(st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_damage_inside_a_member_with_a_fitting_checksum(seed):
    """Flips that the checksum does not catch reach the Parquet, safetensors and JSON readers: still no other error."""
    rng = random.Random(seed)
    data = dumps(random_trace(4, 2, hidden=3, extras=EXTRAS))

    def change(members):
        name = rng.choice(list(members))
        content = bytearray(members[name])
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        members[name] = bytes(content)
        if name != "meta.json":
            header = json.loads(members["meta.json"])
            header["members"][name]["sha256"] = trace_io.hashlib.sha256(members[name]).hexdigest()
            members["meta.json"] = json.dumps(header).encode()

    with contextlib.suppress(TraceFileError):
        assert isinstance(loads(rezip(data, change)), Trace)


def test_csv_and_json_exports(tmp_path):
    trace = random_trace(9, 6, blocks=[(1, 2)], extras=EXTRAS)
    trace.frames[2]["text"] = 'a "quoted", line\nbreak 你好'
    files = to_csv(trace, tmp_path / "out")
    assert sorted(f.name for f in files) == sorted(p.name for p in (tmp_path / "out").iterdir())
    tokens = pd.read_csv(tmp_path / "out" / "tokens.csv", keep_default_na=False)
    assert tokens.text.tolist() == [frame["text"] for frame in trace.frames]
    steps = pd.read_csv(tmp_path / "out" / "steps.csv", float_precision="round_trip")
    pd.testing.assert_frame_equal(steps, trace.steps)
    for name in ("exit", "keys", "attention", "attention_slots", "attention_change"):
        table = pd.read_csv(tmp_path / "out" / f"{name}.csv", float_precision="round_trip")
        assert len(table)
        pd.testing.assert_frame_equal(table, getattr(trace, name))
    to_json(trace, tmp_path / "t.json")
    back = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))
    assert Trace(back["meta"], back["frames"]) == trace


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("attention_index", "slots", 0),
        ("attention_index", "slots", 2**40),
        ("attention_index", "token", 99),
        ("attention_index", "token", -1),
        ("attention_index", "layer", 1),
        ("attention_change", "layer", 0),
        ("attention_change", "step", 77),
        ("attention_change", "head", 3),
        ("keys", "step", 3),
        ("keys", "layer", 5),
        ("exit", "step", 0),
        ("exit_topk", "step", 9),
    ],
)
def test_extras_that_belong_nowhere_are_refused(table, column, value):
    from loopviz.trace.tables import columns

    trace = random_trace(0, 3, extras=EXTRAS)
    changed = columns(trace.frames, table)
    changed[column] = [value, *changed[column][1:]]
    kinds = trace_io._arrow_schema(table)
    with pytest.raises(TraceFileError, match=table.split("_")[0]):
        loads(_replaced_table(dumps(trace), f"{table}.parquet", pa.table(changed, schema=kinds)))


def test_an_empty_trace_and_a_plain_llama():
    empty = Trace(make_meta())
    assert loads(dumps(empty)) == empty
    plain = random_trace(1, 4, blocks=[])
    assert loads(dumps(plain)) == plain
    assert plain.steps.empty
    assert plain.states.shape == (0, 8)


ODD_TEXTS = [
    "One\rtwo\r\nthree",
    "\ufeffOnce",
    "nul\0nul",
    "\u202eright to left\u202c שלום \u2066x\u2069",
    "e\u0301 👩‍👩‍👧",
    "a\ufffdb\ufffd",
    "line\u2028paragraph\u2029end\x85\x1a",
    "x" * 100_000,
    " ",
    "",
    '",\n"',
]


@pytest.mark.parametrize("text", ODD_TEXTS, ids=lambda text: ascii(text)[:20])
def test_any_text_comes_back_from_every_kind_of_file(tmp_path, text):
    trace = random_trace(5, 4, blocks=[(0, 1)])
    trace.meta["prompt"] = trace.frames[1]["text"] = trace.frames[0]["next_text"] = text
    save(trace, tmp_path / "t")
    assert load(tmp_path / "t") == trace
    expected = [frame["text"] for frame in trace.frames]
    to_csv(trace, tmp_path / "csv")
    assert csv_file.read_table(tmp_path / "csv" / "tokens.csv", na_values=[])["text"].tolist() == expected
    with (tmp_path / "csv" / "tokens.csv").open(newline="", encoding="utf-8") as file:
        assert [row["text"] for row in csv_file.dict_reader(file)] == expected
    if "\0" not in text:  # which neither reads everywhere: pandas from 3 on, csv from Python 3.11 on
        assert pd.read_csv(tmp_path / "csv" / "tokens.csv", keep_default_na=False)["text"].tolist() == expected
        with (tmp_path / "csv" / "tokens.csv").open(newline="", encoding="utf-8") as file:
            assert [row["text"] for row in csv.DictReader(file)] == expected
    trace_io.to_parquet(trace, tmp_path / "parquet")
    assert pd.read_parquet(tmp_path / "parquet" / "tokens.parquet")["text"].tolist() == expected
    to_json(trace, tmp_path / "t.json")
    back = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))
    assert Trace(back["meta"], back["frames"]) == trace
    assert json.loads((tmp_path / "csv" / "meta.json").read_text(encoding="utf-8"))["prompt"] == text


@pytest.mark.parametrize("write", [save, to_csv, to_json, trace_io.to_parquet])
def test_half_a_character_is_refused_by_its_place_before_anything_is_written(tmp_path, write):
    for place in ("meta.prompt", "token 2: text"):
        trace = random_trace(5, 4, blocks=[(0, 1)])
        (trace.meta if place == "meta.prompt" else trace.frames[2]).update(
            {place.split()[-1].split(".")[-1]: "a\ud83d"}
        )
        with pytest.raises(ValueError, match=f"{place}: half a character"):
            write(trace, tmp_path / "out")
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "raised", [Exception("odd"), AssertionError(), ZeroDivisionError("x"), StopIteration(), RecursionError()]
)
def test_whatever_a_reader_raises_is_a_damaged_file(monkeypatch, raised):
    """A list of error classes is no border: the readers of zip, Arrow and safetensors raise what they like."""

    def broken(*_):
        raise raised

    monkeypatch.setattr(trace_io, "_assemble", broken)
    with pytest.raises(TraceFileError, match=r"damaged: \S"):
        loads(dumps(random_trace(0, 2)))
