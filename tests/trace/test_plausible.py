"""Trace files made to do harm: each is refused by name, and what is let in can be drawn by every panel."""

from __future__ import annotations

import io
import random
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopviz.panels import PANELS, Focus, apply, figure_json
from loopviz.trace import SCHEMA_VERSION, Trace, encode_floats
from loopviz.trace import file as trace_io
from loopviz.trace.file import TraceFileError, dumps, loads
from tests.trace.synthetic import make_meta, random_trace
from tests.trace.test_file import in_header, replaced_member, rezip


def with_lying_member(data: bytes, name: str, content: bytes) -> bytes:
    """The archive with ``content`` deflated into the member ``name``, whose declared size stays what it was."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(content) + packer.flush()
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.namelist():
            if member != name:
                new.writestr(member, old.read(member))
        new.writestr(name, old.read(name))  # last, so that nothing moves but the directory
    raw = out.getvalue()
    info = zipfile.ZipFile(io.BytesIO(raw)).getinfo(name)
    begin = info.header_offset + 30 + len(name)
    grown = bytearray(raw[:begin] + packed + raw[begin + info.compress_size :])
    end = grown.rfind(b"PK\x05\x06")
    directory = struct.unpack_from("<I", raw, raw.rfind(b"PK\x05\x06") + 16)[0] + len(packed) - info.compress_size
    struct.pack_into("<I", grown, end + 16, directory)
    entry = grown.index(b"PK\x01\x02", directory)
    while grown[entry + 46 : entry + 46 + len(name)] != name.encode():
        entry = grown.index(b"PK\x01\x02", entry + 4)
    struct.pack_into("<I", grown, entry + 20, len(packed))
    return bytes(grown)


def test_a_member_that_lies_about_its_size_is_not_unpacked() -> None:
    data = dumps(random_trace(0, 3))
    for name in ("meta.json", "tokens.parquet", "states.safetensors"):
        bomb = with_lying_member(data, name, bytes(24 * 2**20))
        assert len(bomb) < 200_000
        tracemalloc.start()
        with pytest.raises(TraceFileError, match="damaged"):
            loads(bomb)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 8 * 2**20, f"{name}: {peak:,} bytes were taken"


def test_a_zip_of_very_many_members_is_refused_before_they_are_listed() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for i in range(3_000):
            archive.writestr(f"{i}", b"")
    with pytest.raises(TraceFileError, match="far too many members"):
        loads(out.getvalue())


def test_a_meta_of_many_megabytes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = dumps(random_trace(0, 3))
    monkeypatch.setattr(trace_io, "MAX_META", 100_000)
    with pytest.raises(TraceFileError, match=r"meta\.json: \d+,\d+ bytes, over the limit of 100,000"):
        loads(rezip(data, in_header(lambda h: h["meta"]["settings"].update({str(i): [] for i in range(20_000)}))))


def test_numbers_coded_to_nothing_are_weighed_before_they_are_spelled_out() -> None:
    import pyarrow as pa

    from tests.trace.test_file import _replaced_table

    rows = 2_000_000
    kv = pa.table({name: pa.array([0] * rows, pa.int64()) for name in ("token", "layer", "slot", "tokens")})
    crafted = _replaced_table(dumps(random_trace(0, 3)), "kv.parquet", kv, compression="zstd")
    assert len(crafted) < 100_000
    with pytest.raises(TraceFileError, match="kv: 64,000,000 bytes of numbers, over the limit of 50,000,000"):
        loads(crafted, max_bytes=50_000_000)


def _in(*path: str | int) -> Callable[[Any, Any], None]:
    def put(root: Any, value: Any) -> None:
        for key in path[:-1]:
            root = root[key]
        root[path[-1]] = value

    return put


DEEP: Any = []
for _ in range(50):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("blocks", 0, "max_steps"), 10**9),
        (("blocks", 0, "max_steps"), 0),
        (("blocks", 0, "slots"), 10**12),
        (("blocks", 0, "floor"), -1),
        (("blocks", 0, "layers"), [3, 9]),
        (("blocks", 0, "layers"), [3, 2]),
        (("blocks", 0, "layers"), [2]),
        (("blocks", 0, "criterion"), "x" * 10_000),
        (("blocks", 0, "kl_threshold"), 1e300),
        (("shape", "layers"), 10**9),
        (("shape", "heads"), 0),
        (("shape", "kv_heads"), -2),
        (("shape", "itemsize"), 10**6),
        (("prompt_tokens",), -1),
        (("top_k",), 65),
        (("model",), "m" * 5_000),
        (("prompt",), "half \ud83d"),
        (("versions", "torch"), "\udc00"),
        (("settings", "deep"), DEEP),
        (("settings", "seed"), 10**30),
        (("settings", "seed"), "0"),
        (("settings", "temperature"), True),
        (("settings", "do_sample"), True),
        (("settings", "extras"), [["exit"]]),
        (("settings", "extras"), 3),
        (("loop", "x"), float("nan")),
    ],
)
def test_a_meta_no_run_could_have_is_refused_by_name(path: tuple[Any, ...], value: Any) -> None:
    data = rezip(dumps(random_trace(0, 3)), in_header(lambda h: _in(*path)(h["meta"], value)))
    with pytest.raises(TraceFileError, match=path[-1]):
        loads(data)


def _frame(change: Callable[[Any], Any]) -> Callable[[Trace], Any]:
    return lambda trace: change(trace.frames[1])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_frame(lambda f: f["blocks"].pop()), "blocks: not those of the meta"),
        (_frame(lambda f: f["blocks"][0].update(layers=[0, 1], attention=None)), "blocks: not those of the meta"),
        (_frame(lambda f: f["blocks"][0].update(stop_reason="x" * 9_999)), "stop_reason"),
        (_frame(lambda f: f["kv"]["slots"].pop()), "kv: 5 layers where meta.shape.layers is 6"),
        (_frame(lambda f: f["kv"]["slots"][0].append(-1)), "kv: tokens of a slot: -1"),
        (_frame(lambda f: f["kv"]["slots"][0].append(3)), "kv: tokens of a slot: 3 where 0 to 2"),
        (_frame(lambda f: f["kv"].update(bytes_used=-1)), "bytes_used: -1"),
        (_frame(lambda f: f["kv"].update(bytes_plain=2**62)), "bytes_plain"),
        (_frame(lambda f: f["memory"].update(process=-5)), "process: -5"),
        (_frame(lambda f: f.update(pass_tokens=0)), "pass_tokens: 0"),
        (_frame(lambda f: f.update(next_id=-1)), "next_id: -1"),
        (_frame(lambda f: f["blocks"][0]["steps"]["rank"].__setitem__(0, 0)), "rank: 0 where 1 to 64"),
        (_frame(lambda f: [row.append(row[0]) for row in _topk(f)]), "topk_ids: entries: 6 where 0 to 5"),
        (_frame(lambda f: f["blocks"][0]["steps"]["topk_logprobs"][0].__setitem__(0, 1e30)), r"topk_logprobs: 1e\+30"),
        (_frame(lambda f: f["blocks"][0]["steps"]["exit_logprob"].__setitem__(0, 0.5)), "exit_logprob: 0.5"),
        (_frame(lambda f: [h.append(0.0) for h in _change(f)]), "attention: heads: 5 where 4"),
    ],
)
def test_frames_no_run_could_have_are_refused_by_name(change: Callable[[Trace], Any], says: str) -> None:
    trace = random_trace(0, 3, extras=("exit", "attention"))
    change(trace)
    with pytest.raises(TraceFileError, match=says):
        loads(dumps(trace))


def _step(name: str, value: Any) -> Callable[[Trace], Any]:
    return _frame(lambda f: f["blocks"][0]["steps"][name].__setitem__(0, value))


def _layer(name: str, share: float) -> Callable[[Trace], Any]:
    def change(frame: Any) -> None:
        n, width = frame["blocks"][0]["n_steps"], {"weights": 2, "slots": 2}[name]
        frame["blocks"][0]["attention"]["layers"][0][name] = encode_floats([[share] * width] * n)

    return _frame(change)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_frame(lambda f: f["parts"].update(prelude=1.7e308)), "parts.prelude: 1.7e"),
        (_frame(lambda f: f["parts"].update(block=-5.0)), "parts.block: -5.0"),
        (_frame(lambda f: f.update(pass_ms=-1e-9)), "pass_ms: -1e-09"),
        (_frame(lambda f: f.update(pass_runs=0)), "pass_runs: 0"),
        (_frame(lambda f: f.update(wall_ms=-1.0)), "wall_ms: -1.0"),
        (_frame(lambda f: f.update(wall_ms=1e300)), "wall_ms: 1e"),
        (lambda trace: trace.frames[0].update(wall_ms=9_999.0), "wall_ms: 180.0 after 9999.0"),
        (_frame(lambda f: f.update(token_id=64)), "token_id: 64 where 0 to 63"),
        (_frame(lambda f: f.update(next_id=64)), "next_id: 64 where 0 to 63"),
        (_frame(lambda f: f.update(next_logprob=0.5)), "next_logprob: 0.5"),
        (_frame(lambda f: f["next_topk_ids"].__setitem__(0, 64)), "next_topk_ids: 64"),
        (_frame(lambda f: f["next_topk_logprobs"].__setitem__(0, 2.0)), "next_topk_logprobs: 2.0"),
        (_frame(lambda f: f["kv"].update(bytes_plain=0)), "kv.bytes_plain: 0 where 1"),
        (_frame(lambda f: f["memory"].update(device=-1)), "memory.device: -1"),
        (_step("cosine", 1.1), "steps.cosine: 1.1"),
        (_step("cosine", -1.1), "steps.cosine: -1.1"),
        (_step("kl", -0.1), "steps.kl: -0.1"),
        (_step("kl", 1e300), "steps.kl: 1e"),
        (_step("rel_delta", -0.1), "steps.rel_delta: -0.1"),
        (_step("norm", -1.0), "steps.norm: -1.0"),
        (_step("norm", 1e300), "steps.norm: 1e"),
        (_step("entropy", -0.1), "steps.entropy: -0.1"),
        (_step("entropy", 5.0), "steps.entropy: 5.0 where"),
        (_step("rank", 65), "steps.rank: 65 where 1 to 64"),
        (_step("exit_rank", 65), "steps.exit_rank: 65"),
        (_step("exit_logprob", -1e300), "steps.exit_logprob: -1e"),
        (_step("ms", -0.1), "steps.ms: -0.1"),
        (_step("ms", 1e300), "steps.ms: 1e"),
        (_frame(lambda f: f["blocks"][0]["steps"]["topk_ids"][0].__setitem__(0, 64)), "steps.topk_ids: 64"),
        (_frame(lambda f: f["blocks"][0]["key_cosine"][0].__setitem__(1, -3.0)), "key_cosine: -3.0"),
        (_frame(lambda f: _change(f)[-1].__setitem__(0, 1.5)), "attention.change: 1.5"),
        (_layer("weights", -0.5), "attention.weights: -0.5"),
        (_layer("slots", 7.0), "attention.slots: 7.0"),
    ],
)
def test_every_number_of_a_frame_has_both_ends(change: Callable[[Trace], Any], says: str) -> None:
    """D10: times no run can have, and their siblings; what is undefined stays undefined."""
    trace = random_trace(0, 3, extras=("exit", "keys", "attention"))
    change(trace)
    with pytest.raises(TraceFileError, match=rf"token 1: .*{says}"):
        loads(dumps(trace))


def test_states_that_are_no_numbers_are_refused() -> None:
    import numpy as np
    from safetensors.numpy import save

    trace = random_trace(0, 2)
    states = trace.states.copy()
    states[0, 0] = np.nan
    data = replaced_member(dumps(trace), "states.safetensors", save({"states": states}))
    with pytest.raises(TraceFileError, match="states: a number that is not finite"):
        loads(data)


def _topk(frame: Any) -> list[list[Any]]:
    steps = frame["blocks"][0]["steps"]
    return [row for name in ("topk_ids", "topk_logprobs", "topk_texts") for row in steps[name]]


def _change(frame: Any) -> list[list[Any]]:
    return [heads for layer in frame["blocks"][0]["attention"]["layers"] for heads in layer["change"]]


def test_a_number_of_steps_is_bounded_before_room_is_made_for_them() -> None:
    import pyarrow as pa

    from tests.trace.test_file import _replaced_table

    trace = random_trace(0, 3, record="off", states=False)
    blocks = pa.table({name: values.tolist() for name, values in trace.blocks.items()})
    for n in (-1, 10**12):
        at = blocks.schema.get_field_index("n_steps")
        changed = blocks.set_column(at, "n_steps", pa.array([n] * blocks.num_rows, pa.int64()))
        with pytest.raises(TraceFileError, match=f"n_steps: {n} where 0 to 4096"):
            loads(_replaced_table(dumps(trace), "blocks.parquet", changed))


NUMBERS: dict[type, list[Any]] = {
    int: [0, 1, 2, 3, 7, 64, 4_096, 2**31, 2**53, -1],
    float: [0.0, 1.0, -3.5, 1e-300, 1e30, 1e308],
}


def _mutate(rng: random.Random, value: Any, share: float) -> Any:
    """``value`` with some numbers and texts replaced by others of their type, and some None where one may be."""
    if isinstance(value, dict):
        return {key: _mutate(rng, entry, share) for key, entry in value.items()}
    if isinstance(value, list):
        return [_mutate(rng, entry, share) for entry in value]
    if rng.random() < share:
        if type(value) in NUMBERS:
            return rng.choice(NUMBERS[type(value)])
        if value is None:
            return rng.choice([None, 1e30])
    return value


@given(st.integers(0, 2**32))
@settings(max_examples=6, deadline=None)
def test_whatever_is_let_in_can_be_drawn_by_every_panel(seed: int) -> None:
    rng = random.Random(seed)
    extras = rng.choice([(), ("exit", "keys", "attention")])
    strategy = rng.choice(["fixed_count", "dynamic_stop"])
    trace = random_trace(seed, 3, blocks=[(1, 2), (4, 4)], extras=extras, strategy=strategy, max_steps=3, hidden=3)
    meta, share = trace.meta, rng.choice([0.003, 0.02])
    for name in ("shape", "blocks"):
        meta[name] = _mutate(rng, meta[name], share)
    trace = Trace(
        meta,
        [{**_mutate(rng, frame, share), "version": SCHEMA_VERSION, "index": t} for t, frame in enumerate(trace.frames)],
    )
    try:
        loaded = loads(dumps(trace))
    except ValueError:
        return
    other = Focus(token=1, step=2, block=1, metric="kl", lang="zh", lens="exit", dims=3, pins=(0,))
    for focus in (Focus(), other):
        for panel in PANELS.values():
            seen = Trace(meta)
            shown = figure_json(panel.figure(seen, focus))
            for frame in loaded.frames:
                apply(shown, panel.patch(seen, frame, focus))
                seen.append(frame)
            assert panel.figure(loaded, focus)
            assert panel.summary(loaded, focus)


def test_the_usual_is_let_in() -> None:
    for trace in (
        random_trace(1, 4),
        Trace(make_meta()),
        random_trace(2, 3, blocks=[]),
        random_trace(3, 2, record="off"),
    ):
        assert loads(dumps(trace)) == trace
