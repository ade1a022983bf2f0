"""Choosers of layers for the tests: each one twice, for the model and, by the same rule, for the slow reference."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from loopviz.model import CHOOSERS, ChooserContext, register_layer_chooser

from .reference import RefChoice


def by_tokens(tokens: list[int], step: int, layers: int) -> list[bool]:
    """A rule without reason: which layers run depends on the pass's tokens and the step; often none, or a few."""
    draw = random.Random(1000 * (sum(tokens) + 200) + step)
    some = draw.random() > 0.15
    return [some and draw.random() < 0.6 for _ in range(layers)]


def by_tokens_reference(ctx: RefChoice) -> list[bool]:
    return by_tokens(ctx.ids, ctx.step, ctx.block["b"] - ctx.block["a"] + 1)


def by_tokens_model(ctx: ChooserContext) -> Tensor:
    rows = []
    for row, tokens in enumerate(ctx.input_ids.tolist()):
        real = [True] * len(tokens) if ctx.real is None else ctx.real[row].tolist()
        rows.append(by_tokens([t for t, r in zip(tokens, real, strict=True) if r], ctx.step, ctx.n_layers))
    return torch.tensor(rows)


def influence_reference(ctx: RefChoice) -> list[bool]:
    layers = range(ctx.block["a"], ctx.block["b"] + 1)
    if ctx.step == 1:
        measured.clear()
        return [True for _ in layers]
    if ctx.step == 2:
        for layer in layers:
            cosines = [
                (x @ y / (x.norm() * y.norm())).item()
                for x, y in zip(ctx.inputs[layer], ctx.outputs[layer], strict=True)
            ]
            measured.append(1 - sum(cosines) / len(cosines))
        seen.extend(measured)
    return [value >= ctx.block["layer_threshold"] for value in measured]


def difficulty_reference(ctx: RefChoice) -> list[bool]:
    entropies = []
    for x in ctx.entry:
        log_p = torch.log_softmax(ctx.lens(x).double(), dim=0)
        entropies.append(-sum(math.exp(v) * v for v in log_p.tolist()) / math.log(len(log_p)))
    mean = sum(entropies) / len(entropies)
    if ctx.step == 2:
        seen.append(mean)
    hard = ctx.step == 1 or mean >= ctx.block["layer_threshold"]
    return [hard for _ in range(ctx.block["a"], ctx.block["b"] + 1)]


measured: list[float] = []
seen: list[float] = []
"""What the built-in rules measured in the reference since it was last cleared, to put thresholds between."""

REFERENCES: dict[str, Any] = {
    "by_tokens": by_tokens_reference,
    "influence": influence_reference,
    "difficulty": difficulty_reference,
}


@contextmanager
def registered(name: str, function: Any, **how: Any) -> Iterator[str]:
    """A chooser known for the length of a test."""
    register_layer_chooser(name, **how)(function)
    try:
        yield name
    finally:
        del CHOOSERS[name]


def plan(steps: list[list[bool]]) -> Any:
    """A chooser that runs the same layers in step r of every pass; past the plan's end none."""

    def choose(ctx: ChooserContext) -> Tensor:
        now = steps[ctx.step - 1] if ctx.step <= len(steps) else [False] * ctx.n_layers
        return torch.tensor([now] * len(ctx.state))

    return choose
