"""Four inner rules on a run's own keys and values: TTT-Linear gives the run's own numbers, the others a few lines by hand."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch

from loopviz.engine.engine import RulesHeld
from loopviz.engine.ttt_rules import FADE, held_by_rules, read_layer
from loopviz.panels.ttt import rules
from tests.engine import tiny_ttt
from tests.engine.test_ttt_stream import made, numbers

IDS = [5, 9, 200, 33, 41, 7, 120, 88, 9, 200, 61, 14, 5, 5, 73, 101, 33]


def found(head: int | None = None, **fields: Any) -> RulesHeld:
    told = held_by_rules(tiny_ttt.model(**fields), IDS, 1, head, threading.Event())
    assert told is not None
    assert tuple(told.rules) == rules.RULES
    return told


@pytest.mark.parametrize("head", [0, 2])
def test_deltanet_and_its_kin_by_hand(head: int) -> None:
    """As published: keys of length 1, β the learned gate, from 0 to 1."""
    model = tiny_ttt.model()
    step = read_layer(model, IDS, 1)
    keys, values, rate = (each[0, head].double() for each in (step.keys, step.values, step.lr))
    keys = keys / keys.norm(dim=-1, keepdim=True)
    rate = rate * model.config.head_dim / model.config.ttt_base_lr
    assert rate.min() > 0
    assert rate.max() < 1
    for name in ("linear_attention", "deltanet", "gated_deltanet"):
        W, after = torch.zeros(keys.shape[1], keys.shape[1], dtype=torch.double), []
        for k, v, beta in zip(keys, values, rate, strict=True):
            W = FADE * W if name == "gated_deltanet" else W
            said = 0 if name == "linear_attention" else k @ W
            W = W + beta * torch.outer(k, v - said)
            after.append(0.5 * (k @ W - v).square().sum().item())
        told = found(head).rules[name]
        np.testing.assert_allclose(told["after"], after, rtol=1e-4)
        np.testing.assert_allclose(told["held"], 0.5 * (keys @ W - values).square().sum(-1).numpy(), rtol=1e-4)
        np.testing.assert_allclose(told["start"], 0.5 * values.square().sum(-1).numpy(), rtol=1e-5)


@pytest.mark.parametrize("head", [None, 1])
@pytest.mark.parametrize("fields", [{}, {"share_qk": True, "pre_conv": True, "use_gate": True}])
def test_ttt_linear_is_what_the_run_did(head: int | None, fields: dict[str, Any]) -> None:
    engine = tiny_ttt.engine(**fields)
    trace = made(engine)
    told = engine.inner_rules(trace, 1, head, threading.Event())
    assert told is not None
    for name, column in {"after": "loss_after", "start": "loss_start"}.items():
        own = numbers(trace, column)[1]
        wanted = own.mean(0) if head is None else own[head]
        np.testing.assert_allclose(told.rules["ttt_linear"][name], wanted, rtol=2e-3)


def test_an_mlp_has_no_such_rule_and_a_stop_is_heard() -> None:
    assert held_by_rules(tiny_ttt.model(ttt_layer_type="mlp"), IDS, 0, None, threading.Event()) is None
    stop = threading.Event()
    stop.set()
    engine = tiny_ttt.engine()
    with pytest.raises(ValueError, match="left before it was done"):
        engine.inner_rules(made(engine), 0, None, stop)


@pytest.mark.parametrize("length", [1, 30, 1000])
def test_long_keys_leave_no_rule_beyond_reason(length: float) -> None:
    """DeltaNet's step is a share β of the error, whatever the keys' length; of linear attention words pile up at most once each."""
    model = tiny_ttt.model()
    for layer in model.model.ttt_layers:
        layer.k_proj.weight.data *= length
    told = held_by_rules(model, IDS, 0, None, threading.Event())
    assert told is not None
    for name in ("deltanet", "gated_deltanet"):
        # what is found may be another word's, at most 2 of a value's length away, and (1 - β)² of the error stays
        assert max(told.rules[name]["after"]) <= 4 * max(told.rules[name]["start"])
    assert max(told.rules["linear_attention"]["held"]) <= (len(IDS) + 1) ** 2 * max(
        told.rules["linear_attention"]["start"]
    )


def test_a_model_that_does_not_learn_writes_nothing() -> None:
    told = found(ttt_base_lr=0.0)
    for name in rules.RULES:
        np.testing.assert_allclose(told.rules[name]["held"], told.rules[name]["start"], rtol=1e-5)
