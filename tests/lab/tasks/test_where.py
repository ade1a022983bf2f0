"""Where to loop: the map is the change of perplexity when a range of layers is looped."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch

from loopviz.lab import TASKS, Experiment
from loopviz.lab.reading.intervals import mean_interval
from loopviz.lab.tasks.where import WhereParams, range_order
from tests.lab.subject import TEXT, exact_loss, exact_subject, subject

TEXTS = {"text": TEXT, "limit_tokens": 20, "batch": 2}


@pytest.mark.parametrize("damping", [1.0, 0.5])
def test_the_map_is_the_change_of_perplexity_when_a_range_is_looped(damping: float) -> None:
    tiny = exact_subject(loop_layers=(1, 2), loop_count=4)  # its own loop plays no part
    params = WhereParams(**TEXTS, window=21, loops=3, damping=damping)
    frame = Experiment(TASKS["where"], tiny, params).run().frame
    assert len(frame) == 15
    ids = torch.tensor([tiny.tokenizer(TEXT)["input_ids"][:21]])

    def loss(**loop) -> float:
        return exact_loss(tiny.model.with_loop(**loop), ids)

    plain = loss(loop_layers=None)
    for row in frame.sample(4, random_state=0).itertuples():
        looped = loss(
            loop_layers=(int(row.start), int(row.end)),
            loop_count=3,
            loop_damping=damping,
            virtual_attention_mode="serial",
        )
        assert row.nats == pytest.approx(looped, abs=1e-11)
        assert row.delta_nats == pytest.approx(looped - plain, abs=1e-11)
        assert row.delta_perplexity == pytest.approx(math.exp(looped) - math.exp(plain), rel=1e-9)
    assert frame["nats"].nunique() == 15
    assert frame["delta_low"].isna().all()  # of a single window


def test_the_change_has_an_interval_over_the_same_windows() -> None:
    tiny = exact_subject()
    params = WhereParams(text=TEXT, limit_tokens=40, batch=3, window=5, overlap=0, coarsest=5, finest=5)
    frame = Experiment(TASKS["where"], tiny, params).run().frame
    assert (frame["delta_low"] < frame["delta_nats"]).all()
    assert (frame["delta_nats"] < frame["delta_high"]).all()
    ids = torch.tensor(tiny.tokenizer(TEXT)["input_ids"][:41])

    def sums(**loop) -> list[float]:
        view = tiny.model.with_loop(virtual_attention_mode="serial", **loop)
        return [5 * exact_loss(view, ids[t : t + 6][None]) for t in range(0, 40, 5)]

    changes = np.array(sums(loop_layers=(0, 4), loop_count=2)) - np.array(sums(loop_layers=None))
    expected = mean_interval(changes, np.full(8, 5), params.draws, params.seed)
    assert frame[["delta_low", "delta_high"]].iloc[0].tolist() == pytest.approx(expected, abs=1e-11)


def test_ranges_come_coarse_to_fine_and_each_once() -> None:
    order = range_order(30)
    assert order[:8] == [(4, 0, end) for end in (3, 7, 11, 15, 19, 23, 27, 29)]
    grids = [grid for grid, _, _ in order]
    assert grids == sorted(grids, reverse=True)
    assert set(grids) == {4, 2, 1}
    pairs = [(a, b) for _, a, b in order]
    assert len(pairs) == len(set(pairs)) == 30 * 31 // 2
    assert all(0 <= a <= b < 30 for a, b in pairs)


def test_the_grid_can_be_chosen() -> None:
    assert range_order(6, coarsest=3, finest=3) == [(3, 0, 2), (3, 0, 5), (3, 3, 5)]
    assert {grid for grid, _, _ in range_order(7, coarsest=5, finest=2)} == {5, 2}
    assert range_order(1) == [(1, 0, 0)]
    assert range_order(4, finest=4) == [(4, 0, 3)]


def test_stopping_keeps_the_coarse_map() -> None:
    experiment = Experiment(TASKS["where"], subject(), WhereParams(**TEXTS, window=21, coarsest=2))
    for _ in experiment:
        if experiment.done == 3:
            break
    experiment.close()
    assert experiment.frame["grid"].to_list() == [2, 2, 2]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"loops": 1}, "loops=1"),
        ({"damping": 0}, "damping=0"),
        ({"damping": 1.5}, "damping=1.5"),
        ({"coarsest": 1, "finest": 2}, "coarsest=1"),
    ],
)
def test_wrong_parameters_are_refused_by_name(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WhereParams(**{**TEXTS, **wrong})


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_plot_draws_what_was_measured(lang: str) -> None:
    rows = {"start": [0, 0, 1], "end": [1, 3, 2], "grid": [2, 4, 1], "delta_nats": [0.5, -0.1, 9.0]}
    ends = {"delta_low": [0.2, -0.25, None], "delta_high": [0.7, 0.05, None]}
    table = pd.DataFrame({**rows, **ends, "delta_perplexity": [1.0, -0.2, 1e3]})
    figure = TASKS["where"].plot(table, lang)
    shown, better = figure.data
    assert (shown.z[0][1], shown.z[0][3], shown.z[1][2]) == (0.5, -0.1, 9.0)
    assert (round(better.x[0]), round(better.y[0]), len(better.x)) == (3, 0, 1)
    assert "-0.2500" in better.text[0]  # the interval says that it may not be better
    assert "nan" not in shown.customdata[1][2].lower()
    assert not TASKS["where"].plot(table.iloc[:0], lang).data


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a16_the_map_has_whole_layers_a_unit_and_values(lang: str) -> None:
    """Three ranges of a model of two layers, all of them better: what the first visitor of the page sees."""
    rows = {"start": [0, 0, 1], "end": [0, 1, 1], "grid": [1, 1, 1], "delta_nats": [-0.1, -0.4, -0.2]}
    table = pd.DataFrame({**rows, "delta_low": [None] * 3, "delta_high": [None] * 3, "delta_perplexity": [-1.0] * 3})
    figure = TASKS["where"].plot(table, lang)
    for axis in (figure.layout.xaxis, figure.layout.yaxis):
        assert (axis.dtick, axis.tickformat, list(axis.range)) == (1, "d", [-0.5, 1.5])
    shown = figure.data[0]
    assert "nat" in shown.colorbar.title.text
    assert (shown.zmin, shown.zmax) == (-0.4, 0.0)
    assert shown.text[0][1] == "-0.40"
    assert shown.texttemplate == "%{text}"
    assert "-0.400" in figure.layout.title.text, "the best of them in words"


def test_a_coarse_range_fills_its_square_until_finer_ones_come() -> None:
    rows = {"start": [0, 4, 0], "end": [3, 7, 1], "grid": [4, 4, 2], "delta_nats": [0.5, 0.2, 0.9]}
    table = pd.DataFrame({**rows, "delta_low": [None] * 3, "delta_high": [None] * 3, "delta_perplexity": [1.0] * 3})
    z = TASKS["where"].plot(table, "en").data[0].z
    assert (z[0][3], z[1][2], z[0][0], z[0][1], z[5][6]) == (0.5, 0.5, 0.9, 0.9, 0.2)
    assert z[2][7] is None
    assert all(z[start][end] is None for start in range(8) for end in range(start)), "no range ends before it begins"
