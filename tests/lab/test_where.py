"""Where to loop: influence is ShortGPT's formula on the layers' real inputs and outputs; the map is Δ perplexity."""

from __future__ import annotations

import math

import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from loopviz.lab import TASKS, Experiment
from loopviz.lab.where import InfluenceParams, WhereParams, range_order
from loopviz.panels import theme

from .subject import TEXT, subject

TEXTS = {"text": TEXT, "limit_tokens": 20, "batch": 2}


def hidden_states(model, ids):
    """What enters and leaves each layer, by torch's own hooks on the layers."""
    seen = []
    handles = [
        layer.register_forward_hook(lambda _, args, out: seen.append((args[0], out))) for layer in model.model.layers
    ]
    with torch.no_grad():
        model.with_loop(loop_layers=None)(ids)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("loop", [{}, {"loop_layers": (1, 2), "loop_damping": 0.5, "loop_injection": "add"}])
def test_influence_is_one_minus_the_mean_cosine_of_a_layers_input_and_output(loop: dict) -> None:
    tiny = subject(**loop)
    frame = Experiment(TASKS["influence"], tiny, InfluenceParams(**TEXTS, window=10)).run().frame
    ids = torch.tensor(tiny.tokenizer(TEXT)["input_ids"][:20]).view(2, 10)
    expected = [1 - F.cosine_similarity(new, old, dim=-1).mean().item() for old, new in hidden_states(tiny.model, ids)]
    assert frame["layer"].to_list() == list(range(5))
    assert frame["influence"].to_list() == pytest.approx(expected, abs=1e-5)
    assert (frame["low"] <= frame["influence"]).all()
    assert (frame["influence"] <= frame["high"]).all()
    assert max(expected) > 2 * min(expected), "the layers are too alike to tell"


@pytest.mark.parametrize("damping", [1.0, 0.5])
def test_the_map_is_the_change_of_perplexity_when_a_range_is_looped(damping: float) -> None:
    tiny = subject(loop_layers=(1, 2), loop_count=4)  # its own loop plays no part
    params = WhereParams(**TEXTS, window=21, loops=3, damping=damping)
    frame = Experiment(TASKS["where"], tiny, params).run().frame
    assert len(frame) == 15
    ids = torch.tensor([tiny.tokenizer(TEXT)["input_ids"][:21]])

    def loss(**loop) -> float:
        with torch.no_grad():
            return tiny.model.with_loop(**loop)(ids, labels=ids, use_cache=False).loss.item()

    plain = loss(loop_layers=None)
    for row in frame.sample(4, random_state=0).itertuples():
        looped = loss(
            loop_layers=(int(row.start), int(row.end)),
            loop_count=3,
            loop_damping=damping,
            virtual_attention_mode="serial",
        )
        assert row.nats == pytest.approx(looped, abs=1e-5)
        assert row.delta_nats == pytest.approx(looped - plain, abs=1e-5)
        assert row.delta_perplexity == pytest.approx(math.exp(looped) - math.exp(plain), rel=1e-4)
    assert frame["nats"].nunique() == 15


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
    for _ in zip(range(3), experiment, strict=False):
        pass
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
def test_plots_draw_what_was_measured(lang: str) -> None:
    influence = pd.DataFrame({"layer": [0, 1], "influence": [0.5, 0.1], "low": [0.2, 0.1], "high": [0.9, 0.3]})
    assert list(TASKS["influence"].plot(influence, lang).data[0].y) == [0.5, 0.1]
    rows = {"start": [0, 0, 1], "end": [1, 3, 2], "grid": [2, 4, 1], "delta_nats": [0.5, -0.1, 9.0]}
    table = pd.DataFrame({**rows, "delta_perplexity": [1.0, -0.2, 1e3]})
    worse, better = TASKS["where"].plot(table, lang).data
    assert (list(worse.x), list(worse.y), list(better.x), list(better.y)) == ([1, 2], [0, 1], [3], [0])
    assert worse.marker.colorscale[0][1] == theme.SCALE[0][1]
    for name in ("where", "influence"):
        assert not TASKS[name].plot(table.iloc[:0], lang).data
