"""What other inner rules would hold of a run's text: the layer's own keys and values, written by each of them.

The three that are not TTT write as DeltaNet is published: with keys of length 1 and a learned β between 0 and 1 (Yang et al. 2024,
2406.06484, section 3.3; 2412.06464, section 3.4). A step β‖k‖² beyond 2 leaves a larger error than it found, and a TTT layer's keys
are longer than that: its LayerNorm bounds the gradient, and these have none.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from loopviz.engine.engine import RulesHeld
from loopviz.model.interrupt import check, interruptible
from loopviz.trace.schema import RULE_WORDS
from loopviz.ttt.inner_rules import RULES, InnerRule, run_rule
from loopviz.ttt.norm_loss import HeadNorm, loss

if TYPE_CHECKING:
    from loopviz.ttt import InnerStep, TTTForCausalLM

FADE = 0.95  # a TTT model has no decay of its own: one for all words


def read_layer(model: TTTForCausalLM, ids: Sequence[int], layer: int) -> InnerStep:
    """What a layer's inner loop is given when the text is read in one pass."""
    steps: list[InnerStep] = []
    view = model.view()
    view.register_inner_hook(steps.append)
    with torch.inference_mode():
        view.model(torch.tensor([list(ids)], device=model.device))
    return steps[layer]


def held_by_rules(
    model: TTTForCausalLM, ids: Sequence[int], layer: int, head: int | None, stop: threading.Event
) -> RulesHeld | None:
    """What four rules hold of the first `RULE_WORDS` tokens; None for an inner model that is no matrix.

    Args:
        layer, head: where; no head, or one that there is not: the mean over all.

    Raises:
        Interrupted: once `stop` is set.
    """
    if model.config.ttt_layer_type != "linear":
        return None
    with interruptible(stop):
        step, module = read_layer(model, ids[:RULE_WORDS], layer), model.model.ttt_layers[layer]
        query, keys, values, rate = (each[0].clone() for each in (step.query, step.keys, step.values, step.lr))
        unit = functional.normalize(keys, dim=-1)
        gate = rate / module.base_rate if module.base_rate else torch.zeros_like(rate)  # σ(w_h x + b_h)
        norm, start = module.norm(), module.start()
        size = model.config.mini_batch_size
        inverse = 1 / torch.arange(1, size + 1, dtype=keys.dtype, device=keys.device)
        own: dict[str, Any] = {
            "weights": start["W1"],
            "bias": start["b1"][:, 0],
            "scale": module.token_scale(inverse),
            "norm": norm,
        }
        rules: dict[str, dict[str, list[float]]] = {}
        for name, known in RULES.items():
            check()
            trained = name == "ttt_linear"
            rule = InnerRule(**{**vars(known), "mini_batch": size}) if trained else known
            more: dict[str, Any] = own if trained else {}
            written, beta = (keys, rate) if trained else (unit, gate)
            fade = torch.full_like(rate, FADE) if rule.decay else None
            with torch.inference_mode():
                ran = run_rule(rule, query, written, values, beta, fade=fade, **more)
                begun = start["W1"] if more else torch.zeros_like(ran.weights)
                left = start["b1"][:, 0] if more else torch.zeros_like(ran.bias)
                told = {
                    "start": _errors(rule, written, values, begun, left, norm),
                    "after": ran.after,
                    "held": _errors(rule, written, values, ran.weights, ran.bias, norm),
                }
            rules[name] = {key: _of_head(each, head) for key, each in told.items()}
    return RulesHeld(FADE, rules)


def _errors(rule: InnerRule, keys: Tensor, values: Tensor, weights: Tensor, bias: Tensor, norm: HeadNorm) -> Tensor:
    """Error of every token under one matrix a head, `[H, T]`."""
    read = keys @ weights + bias.unsqueeze(-2)
    target = values - keys if rule.residual else values
    return loss(read, target, norm) if rule.norm else 0.5 * (read - target).square().sum(-1)


def _of_head(errors: Tensor, head: int | None) -> list[float]:
    mean = head is None or head >= len(errors)
    return (errors.mean(0) if mean else errors[head]).tolist()
