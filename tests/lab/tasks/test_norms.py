"""The three norms on a loop's real states, held against their formulas written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from loopviz.checks import FieldError
from loopviz.lab import TASKS, Experiment
from loopviz.lab.tasks.norms import NormsParams, states_of
from tests.lab.subject import TEXT, exact_subject

TASK = TASKS["norms"]


def angle(a: torch.Tensor, b: torch.Tensor) -> float:
    return math.degrees(math.acos(min(1.0, float(F.cosine_similarity(a, b, dim=-1).mean()))))


@pytest.mark.parametrize(
    "loop",
    [{}, {"loop_layers": (1, 2)}, {"loop_layers": (1, 3), "loop_damping": 0.5, "loop_injection": "add", "loop_norm": True},
     {"loop_layers": [(0, 1), (3, 3)]}],
)  # fmt: skip
@pytest.mark.parametrize("seed", [0, 1])
def test_each_row_is_the_norm_of_the_state_that_the_model_makes_there(loop: dict, seed: int) -> None:
    tiny = exact_subject(seed, **loop)
    frame = Experiment(TASK, tiny, NormsParams(text=TEXT, tokens=21, loops=3)).run().frame
    ids = torch.tensor([tiny.tokenizer(TEXT)["input_ids"][:21]])
    seen = []
    if loop:
        view = tiny.model.with_loop(loop_strategy="fixed_count", loop_count=3)
        last = len(view.config.loop_blocks()) - 1
        view.register_loop_hook(
            lambda event: (
                seen.extend([event.previous.clone()] * (event.step == 1) + [event.state.clone()])
                if event.block == last
                else None
            )
        )
    else:
        view = tiny.model
        for i, layer in enumerate(view.model.layers):
            layer.register_forward_hook(lambda _, given, made, i=i: seen.extend([given[0]] * (i == 0) + [made]))
    with torch.no_grad():
        view.model(ids, use_cache=False)
    assert len(frame) == 3 * len(seen) == 3 * (4 if loop else 6)
    for place, state in enumerate(seen):
        x = state[0]
        rms = x / x.pow(2).mean(-1, keepdim=True).sqrt()
        layer = F.layer_norm(x, x.shape[-1:], eps=0.0)
        batch = (x - x.mean(0)) / x.std(0, correction=0)
        half = (x[:10] - x[:10].mean(0)) / x[:10].std(0, correction=0)
        rows = frame[frame["place"] == place].set_index("norm")
        assert rows.loc["rms", "angle"] == pytest.approx(0, abs=1e-5)
        for name, made in (("layer", layer), ("batch", batch)):
            assert rows.loc[name, "angle"] == pytest.approx(angle(rms, made), abs=1e-8)
            assert rows.loc[name, "mean"] == pytest.approx(float(made.mean(-1).abs().mean()), abs=1e-10)
            assert rows.loc[name, "std"] == pytest.approx(float(made.std(-1, correction=0).mean()), abs=1e-10)
        assert rows.loc["batch", "alone"] == pytest.approx(float((half - batch[:10]).abs().max()), abs=1e-9)
        assert rows.loc["batch", "alone"] > 0.01
        assert rows.loc[["rms", "layer"], "alone"].max() < 1e-12
        assert rows.loc["rms", "size"] == pytest.approx(float(x.pow(2).mean(-1).sqrt().mean()), abs=1e-10)


def test_the_model_itself_is_left_alone() -> None:
    tiny = exact_subject()
    layers = list(tiny.model.model.layers)
    ids = torch.tensor([[1, 2, 3]])
    before = tiny.model(ids).logits
    assert len(states_of(tiny.model, ids)) == 6
    assert list(tiny.model.model.layers) == layers
    assert not any(layer._forward_hooks for layer in layers)
    assert torch.equal(tiny.model(ids).logits, before)


def test_a_text_of_one_token_is_refused() -> None:
    with pytest.raises(FieldError, match="text"):
        Experiment(TASK, exact_subject(), NormsParams(text="a", tokens=9)).run()


def row(place: int, norm: str, angle: float, alone: float, of: str = "loop") -> dict:
    return {"of": of, "place": place, "norm": norm, "angle": angle, "alone": alone}


def test_the_headline_speaks_of_the_last_place_that_is_whole() -> None:
    rows = [
        row(0, "rms", 0, 0),
        row(0, "layer", 1.25, 0),
        row(0, "batch", 20.5, 0.75),
        row(1, "rms", 0, 0),
        row(1, "layer", 9, 0),
    ]
    said = "Before the first loop LayerNorm's result is 1.25° from RMSNorm's, BatchNorm's 20.5°. With half of the text gone BatchNorm changes a number by up to 0.75, the other two by nothing."
    assert TASK.headline(rows, "en") == said
    assert TASK.headline(rows[:2], "en") == ""
    assert "第一层之前" in TASK.headline([{**one, "of": "layer"} for one in rows], "zh")


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_figure_draws_the_angles(lang: str) -> None:
    frame = Experiment(TASK, exact_subject(loop_layers=(1, 2)), NormsParams(text=TEXT, tokens=12, loops=2)).run().frame
    lines = TASK.plot(frame, lang).data
    assert [list(line.x) for line in lines] == [[0, 1, 2]] * 3
    assert list(lines[2].y) == frame[frame["norm"] == "batch"]["angle"].tolist()
    assert not TASK.plot(frame.iloc[:0], lang).data


@pytest.mark.parametrize("broken", [math.inf, math.nan])
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_state_that_is_no_number_has_no_angle(monkeypatch: pytest.MonkeyPatch, broken: float, lang: str) -> None:
    """It was told as 0 degrees, like RMSNorm, or as a right angle."""
    whole = torch.randn(9, 8, dtype=torch.float64)
    states = whole.clone()
    states[4, 3] = broken
    monkeypatch.setattr("loopviz.lab.tasks.norms.states_of", lambda view, ids: [whole, states])
    experiment = Experiment(TASK, exact_subject(loop_layers=(1, 2)), NormsParams(text=TEXT, tokens=9, loops=1)).run()
    for row in experiment.rows:
        numbers = [row[name] for name in ("angle", "turned", "mean", "std")]
        assert [math.isfinite(value) for value in numbers] == [row["place"] == 0] * 4
    headline = TASK.headline(experiment.rows, lang)
    assert headline.startswith({"en": "Before the first loop", "zh": "第一次循环之前"}[lang]), (
        "the last place that is known"
    )
    assert TASK.headline(experiment.rows[3:], lang) == ""
    for line in TASK.plot(experiment.frame, lang).data:
        assert not math.isfinite(line.y[1])


def test_that_the_other_two_change_by_nothing_is_read_from_the_rows() -> None:
    rows = [row(2, "rms", 0, 0), row(2, "layer", 1.25, 0.125), row(2, "batch", 20.5, 0.75)]
    assert TASK.headline(rows, "en").endswith("BatchNorm changes a number by up to 0.75, the other two by up to 0.125.")
    assert TASK.headline(rows, "zh").endswith("另外两种最多改变 0.125。")
    assert TASK.headline(rows[1:], "en") == "", "of RMSNorm nothing is known"
