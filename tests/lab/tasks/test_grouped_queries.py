"""Shared keys and values: at the model's own number its loss, copies change nothing, means as they are written out, bytes counted."""

from __future__ import annotations

import copy

import pandas as pd
import pytest
import torch

from loopviz.lab import TASKS, Experiment
from loopviz.lab.tasks.grouped_queries import GroupedParams
from loopviz.model import LoopCache
from tests.lab.subject import TEXT, exact_loss, exact_subject

TASK = TASKS["grouped_queries"]
LOOPS = [
    {},
    {"loop_layers": (1, 2), "loop_count": 3, "virtual_layer_count": 3},
    {"loop_layers": (0, 4), "loop_count": 2},
]


def measured(subject, **more) -> pd.DataFrame:
    params = GroupedParams(text=TEXT, limit_tokens=40, window=64, draws=0, **more)
    return Experiment(TASK, subject, params).run().frame.set_index("kv_heads")


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("seed", [0, 3])
def test_at_its_own_number_the_loss_is_the_models_and_copies_change_nothing(loop: dict, seed: int) -> None:
    subject = exact_subject(seed, **loop)
    frame = measured(subject)
    ids = torch.tensor([subject.tokenizer(TEXT)["input_ids"][:41]])
    assert list(frame.index) == [2, 4, 1], "the model's own first, against which the others are held"
    assert frame.loc[2, "nats"] == pytest.approx(exact_loss(subject.model, ids), abs=1e-11)
    assert frame.loc[2, "delta"] == 0
    assert frame.loc[4, "nats"] == pytest.approx(frame.loc[2, "nats"], abs=1e-11)
    assert abs(frame.loc[1, "delta"]) > 1e-4
    assert list(frame["own"]) == [True, False, False]
    assert list(frame["group"]) == [2, 1, 4]


@pytest.mark.parametrize("loop", LOOPS[:2])
def test_one_head_is_the_mean_of_all_written_into_a_models_weights(loop: dict) -> None:
    """Each head of the model itself becomes the mean of both: the same loss, with nothing of the view's."""
    subject = exact_subject(**loop)
    frame = measured(subject)
    pooled = copy.deepcopy(subject.model)
    with torch.no_grad():
        for layer in pooled.model.layers:
            for name in ("k_proj", "v_proj"):
                weight = getattr(layer.self_attn, name).weight
                mean = weight.unflatten(0, (2, -1)).mean(0)
                weight.copy_(torch.cat((mean, mean)))
    ids = torch.tensor([subject.tokenizer(TEXT)["input_ids"][:41]])
    assert frame.loc[1, "nats"] == pytest.approx(exact_loss(pooled, ids), abs=1e-11)


def test_bytes_are_those_that_a_cache_holds_and_the_loop_multiplies_them() -> None:
    subject = exact_subject(loop_layers=(1, 2), loop_count=3, virtual_layer_count=3)
    frame = measured(subject)
    cache = LoopCache(subject.model.config)
    subject.model(torch.tensor([[1, 2, 3, 4]]), past_key_values=cache, use_cache=True)
    config = subject.model.config
    each = 2 * config.num_key_value_heads * config.head_dim * 8  # a key and a value, float64
    assert frame.loc[2, "kv_bytes"] == 5 * each
    assert frame.loc[2, "kv_bytes_loop"] == (3 + 2 * 3) * each
    assert frame.loc[2, "kv_bytes_loop"] * 4 == cache.occupancy().bytes_used
    for column in ("kv_bytes", "kv_bytes_loop"):
        assert frame.loc[2, column] == 2 * frame.loc[1, column] == frame.loc[4, column] / 2


def test_without_its_loop_a_model_is_measured_without_it() -> None:
    looped = exact_subject(loop_layers=(1, 2), loop_count=3)
    assert measured(looped, loop=None).loc[2, "nats"] == pytest.approx(measured(exact_subject()).loc[2, "nats"])


def row(kv_heads: int, perplexity: float, size: float, own: bool = False) -> dict:
    return {"kv_heads": kv_heads, "perplexity": perplexity, "kv_bytes_loop": size, "own": own}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([row(4, 11.4, 32768, True)], "With its own 4 K/V heads: perplexity 11.4, 32.8 kB of cache a token."),
        ([row(4, 11.4, 32768, True), row(2, 28.5, 16384)],
         "With 2 K/V heads of 4 a token's cache is 16.4 kB instead of 32.8 kB, and perplexity goes from 11.4 to 28.5."),
        ([row(4, 11.4, 32768, True), row(2, 28.5, 16384), row(1, 65.6, 8192)],
         "With one K/V head of 4 a token's cache is 8.19 kB instead of 32.8 kB, and perplexity goes from 11.4 to 65.6."),
        ([row(1, 11.4, 1024, True), row(4, 11.4, 4096)], "With 4 K/V heads perplexity is 11.4, as with its own 1: copies change nothing."),
        ([row(2, 11.4, 1024)], ""),
    ],
)  # fmt: skip
def test_the_headline(rows: list, said: str) -> None:
    assert TASK.headline(rows, "en") == said
    assert bool(TASK.headline(rows, "zh")) == bool(said)


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_figure_has_a_point_for_each_number_of_heads(lang: str) -> None:
    frame = measured(exact_subject()).reset_index()
    [line] = TASK.plot(frame, lang).data
    assert list(line.x) == sorted(frame["kv_bytes_loop"] / 1e3)
    assert len(line.text) == 3
    assert not TASK.plot(frame.iloc[:0], lang).data
