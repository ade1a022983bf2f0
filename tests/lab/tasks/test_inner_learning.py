"""Learning while reading against a TTT model called by hand: every factor, forgetting, the layers' inner losses; what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from loopviz.checks import FieldError
from loopviz.lab import TASKS, Experiment
from loopviz.lab.fellows import TTTSubject
from loopviz.lab.tasks.inner_learning import LearningParams, headline, plot, summary
from loopviz.ttt import TTTCache
from tests.engine import tiny, tiny_ttt
from tests.lab.subject import TEXT, subject

TASK = TASKS["inner_learning"]


def learner(**fields: Any) -> TTTSubject:
    return TTTSubject(tiny_ttt.model(**fields), tiny.tokenizer(), "tiny-ttt", "made here")


def rows_of(params: LearningParams, **fields: Any) -> list[dict[str, Any]]:
    return Experiment(TASK, learner(**fields), params).run().rows


@torch.no_grad()
def by_hand(model: Any, ids: list[int], rate: float, forgets: int) -> list[float]:
    """Losses of the text, a token a call."""
    cache, found = TTTCache(model), []
    cache.inner_lr_scale = rate
    for t, token in enumerate(ids[:-1]):
        if forgets and t == forgets:
            cache.forget()
        logits = model(torch.tensor([[token]]), past_key_values=cache, use_cache=True).logits[0, -1].double()
        found.append(-float(logits.log_softmax(-1)[ids[t + 1]]))
    return found


@pytest.mark.parametrize(
    "fields", [{}, {"ttt_layer_type": "mlp"}, {"share_qk": True, "pre_conv": True, "use_gate": True}]
)
def test_every_reading_is_the_models_own(fields: dict[str, Any]) -> None:
    params = LearningParams(text=TEXT, limit_tokens=40, rates=(0.0, 1.0, 2.0), forget_after=13)
    rows = rows_of(params, **fields)
    model, ids = learner(**fields).model, tiny.tokenizer()(TEXT)["input_ids"][:40]
    ways = [(1.0, 0), (0.0, 0), (2.0, 0), (1.0, 13)]
    assert [(row["rate"], row["forgets"]) for row in rows if row["layer"] == 0] == ways
    for rate, forgets in ways:
        losses = by_hand(model, ids, rate, forgets)
        own = [row for row in rows if (row["rate"], row["forgets"]) == (rate, forgets)]
        assert [row["layer"] for row in own] == list(range(model.config.num_hidden_layers))
        for row in own:
            assert row["tokens"] == 39
            assert row["nats"] == pytest.approx(sum(losses) / 39, abs=1e-4)
            assert row["perplexity"] == pytest.approx(math.exp(row["nats"]), rel=1e-12)
            assert row["later_tokens"] == 26
            assert row["later_nats"] == pytest.approx(sum(losses[13:]) / 26, abs=1e-4)
            more = sum(losses[13:]) - sum(by_hand(model, ids, 1.0, 0)[13:])
            assert row["later_more"] == pytest.approx(more / 26, abs=1e-4)
            assert row["inner_left"] == row["inner_after"] / row["inner_before"]
    never = [row for row in rows if row["rate"] == 0]
    assert all(row["drift"] == 0 == row["inner_rate"] for row in never)
    assert all(row["inner_before"] == pytest.approx(row["inner_after"], rel=1e-6) for row in never)
    cache = TTTCache(model)
    with torch.no_grad():
        model(torch.tensor([ids]), past_key_values=cache, use_cache=True)
    assert {row["state_bytes"] for row in rows} == {cache.nbytes}
    config = model.config
    assert {row["kv_bytes"] for row in rows} == {2 * config.num_hidden_layers * config.hidden_size * 4 * 40}


def test_inner_losses_are_those_that_the_layers_tell() -> None:
    params = LearningParams(text=TEXT, limit_tokens=24, rates=(1.0,))
    model, ids = learner().model, tiny.tokenizer()(TEXT)["input_ids"][:23]
    steps: list[Any] = []
    view = model.view()
    view.register_inner_hook(steps.append)
    with torch.no_grad():
        view(torch.tensor([ids]))
    for row in rows_of(params)[: len(steps)]:
        step = steps[row["layer"]]
        assert row["inner_before"] == pytest.approx(float(step.loss_before.mean()), rel=1e-4)
        assert row["inner_after"] == pytest.approx(float(step.loss_after.mean()), rel=1e-4)
        assert row["inner_rate"] == pytest.approx(float(step.lr.mean()), rel=1e-4)
        assert row["drift"] == pytest.approx(float((step.drift[0, :, -1] / step.start_norm).mean()), rel=1e-4)
        assert 0 < row["inner_after"] != row["inner_before"]


def test_it_forgets_half_way_unless_told_and_is_said_in_words() -> None:
    import pandas as pd

    rows = rows_of(LearningParams(text=TEXT, limit_tokens=30))
    assert {row["forgets"] for row in rows} == {0, 15}
    table = pd.DataFrame(rows)
    assert summary(table)["rate"].tolist() == [1.0, 0.0, 0.5, 2.0, 1.0]
    for lang in ("en", "zh"):
        said = headline(rows, lang)
        assert "15" in said
        assert f"{rows[0]['perplexity']:.3g}"[:3] in said
        figure = plot(table, lang)
        assert len(figure.data[0].x) == len(set(figure.data[0].x)) == 5
        assert list(figure.data[0].y) == [rows[i]["perplexity"] for i in (2, 4, 0, 6, 8)]
        assert headline([], lang) == ""
        assert headline(rows[:2], lang) == ""
        assert not plot(table.iloc[:0], lang).data


def test_a_looped_model_is_measured_by_a_ttt_model_that_is_named() -> None:
    main = subject()
    main.beside["tiny-ttt"] = learner()
    params = LearningParams(text=TEXT, limit_tokens=20, rates=(1.0,), learner="tiny-ttt")
    assert Experiment(TASK, main, params).run().rows == rows_of(
        LearningParams(text=TEXT, limit_tokens=20, rates=(1.0,))
    )


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"rates": ()}, "rates"),
        ({"rates": (0.0, -0.0)}, "rates"),
        ({"rates": (1.0, 1.0)}, "rates"),
        ({"rates": (-0.5,)}, "rates"),
        ({"rates": (float("nan"),)}, "rates"),
        ({"rates": (1e9,)}, "rates"),
        ({"limit_tokens": 3}, "limit_tokens"),
        ({"forget_after": -1}, "forget_after"),
        ({"forget_after": 1}, "forget_after"),
        ({"forget_after": 19}, "forget_after"),
        ({"text": "a"}, "text"),
    ],
)
def test_what_is_refused(change: dict[str, Any], field: str) -> None:
    with pytest.raises(FieldError) as told:
        rows_of(LearningParams(**{"text": TEXT, "limit_tokens": 20} | change))
    assert told.value.field == field


def test_a_looped_model_alone_is_refused_by_name() -> None:
    with pytest.raises(FieldError, match="stories-ttt") as told:
        Experiment(TASK, subject(), LearningParams(text=TEXT)).run()
    assert told.value.field == "learner"


def test_an_inner_loss_that_is_no_number_is_said() -> None:
    broken = learner(tie_word_embeddings=False)
    ids = tiny.tokenizer()(TEXT)["input_ids"]
    with torch.no_grad():
        broken.model.model.embed_tokens.weight[ids[5]] = float("nan")
    with pytest.raises(FieldError) as told:
        Experiment(TASK, broken, LearningParams(text=TEXT, limit_tokens=20)).run()
    assert told.value.field == "inner_loss"
