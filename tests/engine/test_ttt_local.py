"""A TTT model's engine: how fast it says that its model is."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

import pytest
import torch

from loopviz.engine import rate as rate_module
from loopviz.engine.rate import rate_of
from loopviz.engine.work import Rate
from tests.engine import tiny_ttt

LAYERS = 3


def test_a_rate_is_of_one_layer_and_of_the_head_and_nothing_is_attended_to(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = tiny_ttt.engine(num_hidden_layers=LAYERS)
    inside, other = rate_module._quickest, []

    def seconds(work: Any, device: torch.device) -> float:
        """What work would take of which each layer costs 2 and 1 a token, the head 5 and a half."""
        other.append(inside(work, device))
        out = work()
        states = getattr(out, "last_hidden_state", None)
        return 5 + out.shape[1] / 2 if states is None else LAYERS * (2 + states.shape[1])

    monkeypatch.setattr(rate_module, "_quickest", seconds)
    rate = engine.rate()
    assert astuple(rate) == pytest.approx(astuple(Rate(2, 1, 0, 5, 0.5)))
    assert len(other) == 4
    assert all(each > 0 for each in other)


def test_a_rate_is_measured_once_for_all_views_and_leaves_the_model_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = tiny_ttt.engine()
    ids = torch.arange(6)[None]
    with torch.no_grad():
        before = engine.model(ids).logits
        rate = engine.rate()
        assert engine.rate() is rate_of(engine.model.view()) is rate
        assert torch.equal(engine.model(ids).logits, before)
    assert len(engine.model.model.layers) == engine.layers
    assert min(rate.layer_token, rate.head_token) > 0
    monkeypatch.setattr(rate_module, "AGAIN", 0.0)
    again = engine.rate(doubted=True)
    assert again is not rate
    assert all(new <= old for new, old in zip(astuple(again), astuple(rate), strict=True)), "the quickest seen"
