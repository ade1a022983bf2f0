"""The cache ablation: every mode as the model really runs it, and refusals as rows."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch

from loopviz.lab.experiment import Experiment, to_frame
from loopviz.lab.reading.cached import score_cached, through_cache
from loopviz.lab.reading.windows import encode
from loopviz.lab.tasks.ablation import ABLATION, COLUMNS, MODES, AblationParams, kept_as, settings
from loopviz.model import MERGES, LoopCache
from tests.lab.small import SMALL, TEXT, subject
from tests.model.tiny import build, ids


def table(thing, **values):
    return Experiment(ABLATION, thing, AblationParams(text=TEXT, **{**SMALL, **values})).run().frame


def test_every_mode_is_measured_as_the_model_runs_it():
    thing = subject(loop_count=3)
    frame = table(thing, alphas=(0.5, 0.9), overlap=0, window=16, limit_tokens=24)
    wanted = [("serial", 1), ("serial", 2), ("serial", 3), ("parallel", 3), ("ema", 0.5), ("ema", 0.9)]
    wanted += [("average", None), ("last", None), ("first", None)]
    shown = frame[["mode", "slots", "alpha"]].to_dict("records")
    found = [(r["mode"], next((r[k] for k in ("slots", "alpha") if pd.notna(r[k])), None)) for r in shown]
    assert found == wanted
    assert len(frame) == ABLATION.cells(thing, AblationParams(text=TEXT, alphas=(0.5, 0.9)))
    assert frame["reason"].isna().all()
    assert set(frame["mean_loops"]) == {3.0}
    tokens = torch.from_numpy(encode(thing.tokenizer, TEXT, 25))[None]
    for row in frame[frame["mode"].isin(["parallel", "first"])].to_dict("records"):
        merge = {"kv_cache_mode": "merge_strategy", "merge_strategy": "first"}
        fields = merge if row["mode"] == "first" else {"virtual_layer_count": 3, "virtual_attention_mode": "parallel"}
        scores = [
            score_cached(thing.model.with_loop(**fields), x, fidelity=True) for x in (tokens[:, :17], tokens[:, 16:])
        ]
        nats, full, kl = (torch.cat([getattr(s, n) for s in scores], dim=1)[0] for n in ("nats", "full_nats", "kl"))
        assert row["perplexity"] == pytest.approx(nats.mean().exp().item(), rel=1e-5)
        assert row["full_perplexity"] == pytest.approx(full.mean().exp().item(), rel=1e-5)
        assert row["gap"] == pytest.approx((nats - full).mean().item(), abs=1e-5)
        assert row["gap_low"] is row["gap_high"] is None  # two windows say nothing of others
        assert row["kl_mean"] == pytest.approx(kl.mean().item(), rel=1e-3)
        assert row["kl_worst"] == pytest.approx(kl.max().item(), rel=1e-3)
        assert row["worst_position"] == int(kl.argmax()) + 1
        assert row["worst_token"] == thing.tokenizer.decode([int(tokens[0, row["worst_position"]])])
        entry = 2 * 8 * 2 * 4  # keys and values, head dim, KV heads, float32
        assert row["bytes_per_token"] == entry * (2 + 2 * (3 if row["mode"] == "parallel" else 1))


def test_the_gap_has_an_interval_over_windows():
    frame = table(subject(loop_count=3), modes=("serial", "last"), slots=(1,), overlap=0, window=4, limit_tokens=24)
    assert (frame["gap_low"] < frame["gap"]).all()
    assert (frame["gap"] < frame["gap_high"]).all()


def test_serial_with_a_slot_a_loop_is_faithful_and_with_fewer_is_not():
    frame = table(subject(loop_count=4), modes=("serial",), slots=(2, 4, 6), limit_tokens=24).set_index("slots")
    for v in (4, 6):
        assert frame.loc[v, "kl_worst"] < 1e-6
        assert frame.loc[v, "perplexity"] == pytest.approx(frame.loc[v, "full_perplexity"], rel=1e-5)
        assert frame.loc[v, "agreement"] == 1
        assert frame.loc[v, "bytes_per_token"] == frame.loc[4, "bytes_per_token"]  # slots beyond the loops stay empty
    assert frame.loc[2, "kl_worst"] > 1e-3
    assert frame.loc[2, "bytes_per_token"] < frame.loc[4, "bytes_per_token"]


def test_what_the_model_refuses_is_a_row_with_the_reason():
    loop = {
        "loop_strategy": "dynamic_stop",
        "min_loop_count": 2,
        "cosine_threshold": 0.98,
        "convergence_criterion": "cosine",
    }
    frame = table(subject(), loop=loop, loops=(1, 4), modes=("serial", "last"), slots=(2, 3), limit_tokens=24)
    assert frame["reason"].notna().tolist() == [True, True, True, False, True, False]
    assert "max_loop_count=1: must be >= min_loop_count=2" in frame["reason"][0]
    assert "virtual_layer_count=3: must be <= min_loop_count=2" in frame["reason"][4]
    assert frame["perplexity"].isna().tolist() == frame["reason"].notna().tolist()
    assert 2 <= frame["mean_loops"][5] < 4
    with pytest.raises(ValueError, match="nothing loops"):
        table(subject(), loop={"loop_layers": None})


def test_loops_past_the_upper_bound_raise_it():
    frame = table(subject(loop_count=2), loops=(1, 12), modes=("last",), limit_tokens=10)
    assert frame["mean_loops"].tolist() == [1.0, 12.0]


def test_every_field_of_keeping_kv_is_set_anew_by_some_row():
    """What is said to vary is what rows set: no field of the table's group is forgotten, none is in it for nothing."""
    thing, params = subject(), AblationParams(text=TEXT, **{**SMALL, "limit_tokens": 8})
    rows = Experiment(ABLATION, thing, params).run().rows
    found = {name for row in rows for name in settings(thing, row, params) or {}}
    assert found - {"loop_count", "max_loop_count"} == set(ABLATION.varies)


def test_rows_of_8_bits_say_what_they_cost_and_hold():
    thing = subject(loop_count=3)
    asked = tuple(f"{mode}{kept}" for mode in ("serial", "last") for kept in ("", "-int8", "-fp8"))
    frame = table(thing, modes=asked, slots=(3,), limit_tokens=24)
    assert tuple(frame["mode"]) == asked
    frame = frame.set_index("mode")
    for mode, entries in (("serial", 2 + 2 * 3), ("last", 4)):
        exact, int8, fp8 = (frame.loc[f"{mode}{kept}", "bytes_per_token"] for kept in ("", "-int8", "-fp8"))
        assert exact == entries * 2 * 2 * 8 * 4  # keys and values, KV heads, head dim, float32
        assert int8 == fp8 == entries * 2 * 2 * (8 + 4)  # a byte a number, and a scale
    assert frame.loc["serial", "kl_worst"] < 1e-6
    assert 1e-6 < frame.loc["serial-int8", "kl_mean"] < frame.loc["serial-fp8", "kl_mean"]
    params = AblationParams(text=TEXT, modes=asked, slots=(3,))
    for mode, dtype in (("serial", "exact"), ("last-fp8", "fp8")):
        row = frame.loc[mode].to_dict() | {"mode": mode, "slots": 3 if mode == "serial" else None, "alpha": None}
        found = settings(thing, {**row, "reason": None}, params)
        assert found is not None
        assert found["kv_cache_dtype"] == dtype


def test_a_merge_of_somebody_s_own_is_kept_in_8_bits_too(monkeypatch):
    assert kept_as("my-merge-int8") == ("my-merge", "int8")
    assert kept_as("my-merge") == ("my-merge", "exact")
    with monkeypatch.context() as patch:
        patch.setitem(MERGES, "ema-int8", MERGES["last"])  # it was computed as ema in 8 bits, under its own name
        assert kept_as("ema-int8") == ("ema-int8", "exact")
    with pytest.raises(ValueError, match=r"alphas=\(\)"):
        AblationParams(text="a", modes=("ema-int8",), alphas=())


def test_first_keeps_the_first_steps_keys():
    """What is left in the cache is what the first step wrote."""
    loop = {"loop_layers": (1, 2), "loop_count": 3, "kv_cache_mode": "merge_strategy", "merge_strategy": "first"}
    model = build(loop).double()
    tokens = ids(6, rows=2)
    written = {}

    def watch(event):
        for layer in (1, 2):
            if event.step == 1:
                written[layer] = tuple(x.clone() for x in event.kv(layer))

    cache = LoopCache(model.config)
    model.register_loop_hook(watch)
    for t, _ in through_cache(model, tokens, cache=cache):
        for layer, (k, v) in written.items():
            assert torch.equal(cache.layers[layer].keys[:, :, t : t + 1, 0], k)
            assert torch.equal(cache.layers[layer].values[:, :, t : t + 1, 0], v)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"modes": ("smallest",)}, r"modes=\('smallest',\)"),
        ({"alphas": ()}, r"alphas=\(\)"),
        ({"slots": (0,)}, r"slots=\(0,\)"),
        ({"loops": (2, 1)}, r"loops=\(2, 1\)"),
        ({"modes": ("serial-int4",)}, r"modes=\('serial-int4',\)"),
    ],
)
def test_refusals(values, says):
    with pytest.raises(ValueError, match=says):
        AblationParams(text="a", **values)


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_plot_shows_every_measured_row(lang):
    empty = {column.name: None for column in COLUMNS}
    rows = [
        {**empty, "mode": mode, "loops": 4, "perplexity": 9.5 + i, "bytes_per_token": 64 * i}
        for i, mode in enumerate(MODES)
    ]
    rows += [{**empty, "mode": "serial", "slots": 3, "loops": 4, "perplexity": 7.25, "bytes_per_token": 640.0}]
    rows += [{**empty, "mode": "ema", "alpha": 0.25, "loops": 4, "reason": "no"}]
    figure = ABLATION.plot(to_frame(ABLATION, rows), lang)
    assert sorted(y for trace in figure.data for y in trace.y) == [7.25, *np.arange(9.5, 15)]
    assert len({(trace.marker.color, trace.marker.symbol) for trace in figure.data}) == len(MODES)
    assert figure.data[0].customdata[1].startswith("serial V=3")
    assert math.isclose(figure.data[0].x[1], 640)
    assert ABLATION.plot(to_frame(ABLATION, []), lang).data == ()
