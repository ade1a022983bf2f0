"""Perplexity by loops: both paths against one window and one token at a time, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from loopviz.lab.experiment import Experiment
from loopviz.lab.reading.windows import encode
from loopviz.lab.tasks.perplexity import PERPLEXITY, PerplexityParams
from loopviz.model import LoopCache
from loopviz.train.evaluate import evaluate_text
from tests.lab.small import SMALL, TEXT, subject

SERIAL = {"virtual_attention_mode": "serial", "virtual_layer_count": 5, "loop_count": 2}


def table(thing, **values):
    return Experiment(PERPLEXITY, thing, PerplexityParams(text=TEXT, **{**SMALL, **values})).run().frame


def test_both_paths_agree_where_the_cache_forgets_nothing_and_only_there():
    frame = table(subject(**SERIAL), loops=(1, 3, 6))
    full, cache = (frame[frame["path"] == path].set_index("loops") for path in ("full", "cache"))
    assert list(full.index) == list(cache.index) == [1, 3, 6]
    for r in (1, 3):
        assert cache.loc[r, "nats"] == pytest.approx(full.loc[r, "nats"], abs=1e-5)
        assert cache.loc[r, "low"] == pytest.approx(full.loc[r, "low"], abs=1e-3)
    assert abs(cache.loc[6, "nats"] - full.loc[6, "nats"]) > 1e-3  # 6 steps, 5 slots
    assert frame["perplexity"].tolist() == pytest.approx(np.exp(frame["nats"]).tolist(), rel=1e-12)
    assert (frame["low"] < frame["perplexity"]).all()
    assert (frame["perplexity"] < frame["high"]).all()
    assert set(frame["tokens"]) == {40}
    assert (frame["seconds"] >= 0).all()


def test_the_full_path_is_what_training_measures():
    thing = subject(loop_norm=True, **SERIAL)
    frame = table(thing, loops=(1, 2, 5), paths=("full",), overlap=4, draws=0)
    ids = encode(thing.tokenizer, TEXT, 41)
    expected = evaluate_text(thing.model, ids, (1, 2, 5), 12, 2, overlap=4)
    assert frame["nats"].tolist() == pytest.approx(list(expected.loss), abs=1e-5)
    assert frame["low"].isna().all()


def test_the_cache_path_is_one_token_at_a_time_in_the_settings_mode():
    loop = {"kv_cache_mode": "merge_strategy", "merge_strategy": "average"}
    thing = subject()
    frame = table(thing, loops=(4,), paths=("cache",), loop=loop, overlap=0, window=30)
    ids = torch.from_numpy(encode(thing.tokenizer, TEXT, 41))[None]
    total = 0.0
    for start, end in ((0, 30), (30, 40)):
        view = thing.model.with_loop(loop_count=4, **loop)
        cache = LoopCache(view.config)
        for t in range(start, end):
            with torch.no_grad():
                logits = view(ids[:, t : t + 1], past_key_values=cache, use_cache=True).logits[0, -1]
            total -= float(logits.log_softmax(-1)[ids[0, t + 1]])
    assert frame["nats"][0] == pytest.approx(total / 40, abs=1e-5)
    assert frame["windows"][0] == 2


def test_damping_is_compared_and_a_plain_model_has_one_row_a_path():
    thing = subject(loop_count=4)
    frame = table(thing, loops=(1, 4), paths=("full",), dampings=(1.0, 0.5))
    assert frame["damping"].tolist() == [1.0, 1.0, 0.5, 0.5]
    assert frame["nats"].nunique() == 4
    plain = table(thing, loop=None, dampings=(0.5,))
    assert plain["loops"].tolist() == [1, 1]
    assert plain["nats"][0] == pytest.approx(plain["nats"][1], abs=1e-5)
    assert plain["damping"].isna().all()
    assert PERPLEXITY.cells(thing, PerplexityParams(text=TEXT, loop=None)) == 2
    assert PERPLEXITY.cells(thing, PerplexityParams(text=TEXT, loops=(1, 2), dampings=(1.0, 0.5))) == 8


def test_rows_come_as_they_are_known():
    thing = subject()
    rows = (row for row in Experiment(PERPLEXITY, thing, PerplexityParams(text=TEXT, loops=(1, 2), **SMALL)) if row)
    assert (next(rows)["path"], next(rows)["path"], next(rows)["path"]) == ("full", "full", "cache")


def test_long_rows_tell_how_far_they_are():
    experiment = Experiment(PERPLEXITY, subject(), PerplexityParams(text=TEXT, loops=(1, 2), **SMALL))
    shares, between = [experiment.share], 0
    for row in experiment:
        shares.append(experiment.share)
        between += row is None and experiment.done == 3  # within the last row
    assert between > 10, "the last row cannot be left: no stop before its end"
    assert shares[0] == 0
    assert shares[-1] == experiment.share == 1
    assert shares == sorted(shares)
    assert len(set(shares)) > 2 * between


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"loops": (0, 1)}, r"loops=\(0, 1\)"),
        ({"paths": ("half",)}, r"paths=\('half',\)"),
        ({"paths": ()}, r"paths=\(\)"),
        ({"dampings": (0.0,)}, r"dampings=\(0.0,\)"),
        ({"draws": -1}, "draws=-1"),
    ],
)
def test_refusals(values, says):
    with pytest.raises(ValueError, match=says):
        PerplexityParams(text="a", **values)


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_plot_shows_every_row(lang):
    rows = [(path, damping, r) for path in ("full", "cache") for damping in (1.0, 0.5) for r in (1, 2)]
    frame = pd.DataFrame(rows, columns=["path", "damping", "loops"])
    frame["perplexity"] = range(10, 18)
    frame["low"], frame["high"] = frame["perplexity"] - 1, frame["perplexity"] + 2
    figure = PERPLEXITY.plot(frame, lang)
    assert [value for trace in figure.data for value in trace.y] == list(range(10, 18))
    assert {(tuple(trace.error_y.array), tuple(trace.error_y.arrayminus)) for trace in figure.data} == {
        ((2, 2), (1, 1))
    }
    assert len({(trace.line.color, trace.line.dash, trace.marker.symbol) for trace in figure.data}) == 4
    assert figure.layout.yaxis.title.text == PERPLEXITY.words[lang]["y"]
    frame["low"] = None  # a single window
    assert all(trace.error_y.array is None for trace in PERPLEXITY.plot(frame, lang).data)
    assert PERPLEXITY.plot(frame[:0], lang).data == ()
