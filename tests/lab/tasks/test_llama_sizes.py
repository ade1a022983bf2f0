"""The table of sizes: what is published by formula, what is loaded by counting it."""

from __future__ import annotations

import dataclasses

import pandas as pd
import pytest
import torch

from loopviz.lab import TASKS, Experiment
from loopviz.lab.tasks.llama_sizes import SizesParams
from loopviz.model import LoopCache
from tests.lab.subject import subject

TASK = TASKS["llama_sizes"]


def rows(loaded, **more):
    return {row["model"]: row for row in Experiment(TASK, loaded, SizesParams(**more)).run().rows}


def test_published_sizes_by_hand() -> None:
    found = rows(subject(), context=100)
    one = found["LLaMA 7B"]
    layer = 4 * 4096**2 + 3 * 4096 * 11008
    assert one["parameters"] == 32 * (layer + 2 * 4096) + 2 * 32000 * 4096 + 4096
    assert one["kv_bytes"] == 2 * 32 * 4096 * 2
    assert one["gflop"] == pytest.approx(2 * (32 * (layer + 2 * 4096 * 100) + 4096 * 32000) / 1e9)
    assert one["last_bytes"] == 4 * 32000
    assert one["all_bytes"] == 100 * one["last_bytes"]
    assert one["all_gflop"] == pytest.approx(99 * 2 * 4096 * 32000 / 1e9)
    largest = found["Llama 3.1 405B"]
    assert (largest["runs"], largest["width"], largest["heads"], largest["kv_heads"], largest["inner"]) == (
        126,
        16384,
        128,
        8,
        53248,
    )
    assert largest["kv_bytes"] == 2 * 126 * 8 * 128 * 2
    assert largest["group"] == 16


LOOP = {"loop_layers": (1, 2), "loop_count": 4, "virtual_layer_count": 4, "loop_norm": True}


@pytest.mark.parametrize(
    ("loop", "runs", "keys"),
    [({}, 5, 5), ({**LOOP, "virtual_attention_mode": "serial"}, 11, 11), ({**LOOP, "virtual_attention_mode": "parallel"}, 11, 3 + 8 * 4)],
)  # fmt: skip
def test_the_loaded_model_is_counted(loop: dict, runs: int, keys: int) -> None:
    tiny = subject(**loop)
    own = rows(tiny, context=9)["tiny"]
    assert own["parameters"] == sum(weight.numel() for weight in tiny.model.parameters())
    assert own["runs"] == runs
    cache = LoopCache(tiny.model.config)
    tiny.model(torch.tensor([[1, 2, 3]]), past_key_values=cache, use_cache=True)
    assert own["kv_bytes"] == cache.occupancy().bytes_used / 2 / 3  # two bytes a number
    layer = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48
    head = 32 * tiny.model.config.vocab_size
    assert own["gflop"] == pytest.approx(2 * (runs * layer + keys * 2 * 32 * 9 + head) / 1e9)
    assert own["generation"] is None
    tiny = dataclasses.replace(tiny, name="/private/models/tiny/")
    assert "tiny" in rows(tiny), "where it lies is nobody's business"
    assert rows(tiny, loop=None)["tiny"]["runs"] == 5


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_figure_and_headline(lang: str) -> None:
    experiment = Experiment(TASK, subject(**LOOP), SizesParams()).run()
    lines = TASK.plot(experiment.frame, lang).data
    assert [len(line.x) for line in lines] == [4, 4, 3, 1]
    said = TASK.headline(experiment.rows, lang)
    for word in ("LLaMA 65B", "2.62 MB", "Llama 3.1 405B", "516 kB", "16", "tiny", "11"):
        assert word in said
    assert "2.62 MB" in TASK.headline(experiment.rows[:4], lang)
    assert ("at most 11 layers" if lang == "en" else "最多经过 11 次") in said
    rows = pd.DataFrame(experiment.rows).to_dict("records")
    assert rows[-1]["generation"] != rows[-1]["generation"], "a table has NaN for what is none"
    assert TASK.headline(rows, lang) == said
    assert not TASK.plot(experiment.frame.iloc[:0], lang).data
