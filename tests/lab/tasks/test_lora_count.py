"""LoRA's numbers are those of two matrices that are really made."""

from __future__ import annotations

import pytest
from torch import nn

from loopviz.lab import TASKS, Experiment
from loopviz.lab.tasks.lora_count import LoraParams
from tests.lab.subject import subject

TASK = TASKS["lora_count"]


@pytest.mark.parametrize("loop", [{}, {"loop_layers": (1, 3), "loop_count": 7, "loop_norm": True}])
@pytest.mark.parametrize("rank", [1, 5, 13])
def test_counts_are_those_of_pairs_of_matrices_however_often_a_layer_loops(loop: dict, rank: int) -> None:
    tiny = subject(**loop)
    article, model = Experiment(TASK, tiny, LoraParams(ranks=(rank,))).run().rows
    made = 0
    for layer in tiny.model.model.layers:
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            projection = getattr(layer.self_attn, name)
            pair = (
                nn.Linear(projection.in_features, rank, bias=False),
                nn.Linear(rank, projection.out_features, bias=False),
            )
            made += sum(one.weight.numel() for one in pair)
    assert model["trained"] == made
    assert model["weights"] == sum(weight.numel() for weight in tiny.model.parameters())
    assert model["share"] == made / model["weights"]
    assert (article["trained"], article["weights"]) == (rank * 600, 50_000)


def test_article_4_five_times_a_hundred_and_five_hundred_times_five_is_6_percent() -> None:
    rows = Experiment(TASK, subject(), LoraParams()).run().rows
    [row] = [row for row in rows if row["of"] == "article" and row["rank"] == 5]
    assert row["trained"] == 5 * 100 + 500 * 5
    assert row["share"] == 0.06
    said = TASK.headline(rows, "en")
    assert said.startswith(
        "At rank 5 the article's matrix of 100 by 500 takes 3,000 numbers instead of 50,000: 6 %. This"
    )
    assert "6 %" in TASK.headline(rows, "zh")
    assert TASK.headline(rows[:1], "en").startswith("At rank 1 ")


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_figure(lang: str) -> None:
    frame = Experiment(TASK, subject(), LoraParams()).run().frame
    article, _ = TASK.plot(frame, lang).data
    assert list(article.x) == [1, 2, 4, 5, 8, 16, 32, 64]
    assert list(article.y)[3] == 6.0
    assert not TASK.plot(frame.iloc[:0], lang).data
