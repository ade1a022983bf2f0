"""The stages of a decoder layer, in the order in which they run: what each is called, computes, and gave for a token.

Their list is :mod:`loopviz.anatomy.stage_list`; :func:`facts` are the numbers that go with one in words. Nothing here runs a model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .llama import LlamaRMSNorm, rotary_frequencies
from .probe import LayerRun, StepRun
from .stage_list import BETAS
from .stage_list import BY_NAME as BY_NAME
from .stage_list import STAGES as STAGES
from .stage_list import Stage as Stage

Facts = dict[str, float]


def shape_of(stage: Stage, run: LayerRun) -> dict[str, int]:
    """Its axes with their sizes in a run of a layer."""
    return dict(zip(stage.axes, getattr(run, stage.tensors[0]).shape, strict=True))


# -- numbers that go with a stage --------------------------------------------------------------------------------------


def rms(x: Tensor) -> float:
    """Root of the mean square, without eps."""
    return float(x.double().pow(2).mean().sqrt())


def layer_norm(x: Tensor) -> Tensor:
    """What a LayerNorm without gain and bias makes of the same vector, `[..., H]`: mean 0, standard deviation 1."""
    return torch.nn.functional.layer_norm(x.double(), x.shape[-1:], eps=0.0)


def cosine(a: Tensor, b: Tensor) -> float:
    """Cosine of the angle between two vectors; NaN where one is zero."""
    a, b = a.double(), b.double()
    size = float(a.norm() * b.norm())
    return float(a @ b) / size if size else math.nan


def moves(before: Tensor, added: Tensor) -> Facts:
    """How far something that is added moves a state: norms (before, of what is added, after), the ratio, and the angle between
    the state before and after."""
    start, step = float(before.double().norm()), float(added.double().norm())
    turn = cosine(before, before + added)
    return {
        "state_norm": start,
        "added_norm": step,
        "after_norm": float((before.double() + added.double()).norm()),
        "ratio": step / start if start else math.nan,
        "degrees": math.nan if math.isnan(turn) else math.degrees(math.acos(max(-1.0, min(1.0, turn)))),
    }


def norm_facts(x: Tensor) -> Facts:
    plain = x.double() / rms(x) if rms(x) else x.double()
    layered = layer_norm(x)
    return {
        "rms": rms(x),
        "mean": float(x.double().mean()),
        "std": float(x.double().std(correction=0)),
        "layer_norm_cosine": cosine(plain, layered),  # 1: there was no mean to take away
    }


def _attention_facts(run: LayerRun) -> Facts:
    weights = run.weights.double()
    entropy = -torch.special.xlogy(weights, weights).sum(-1)  # [N]
    positions, _ = run.columns()
    here = weights[:, positions.to(weights.device) == run.past + row_of(run)].sum(-1)
    first = weights[:, positions.to(weights.device) == 0].sum(-1)
    return {
        "seen": float(run.visible.sum()),
        "entropy": float(entropy.mean()),  # nats, mean over heads
        "itself": float(here.mean()),
        "first": float(first.mean()),  # where attention rests that has nothing to look for (a sink)
    }


def row_of(run: LayerRun) -> int:
    """Which of the pass's tokens the run is of: the last one it sees."""
    positions, _ = run.columns()
    return int(positions[run.visible.cpu()].max()) - run.past


def _mixed_facts(run: LayerRun) -> Facts:
    """How far the weights shown, times the values, are from what attention really gave."""
    groups = run.weights.unflatten(0, (run.values.shape[0], -1))  # [K, N / K, S]
    again = (groups.double() @ run.values.double()).flatten(0, 1)  # [N, D]
    return {"difference": float((again - run.mixed.double()).abs().max()), "largest": float(run.mixed.abs().max())}


def _swish_facts(run: LayerRun) -> Facts:
    gate = run.gate.double()
    closed = float((gate < 0).double().mean())
    return {"negative": closed} | {
        f"beta_{beta:g}": float((gate * torch.sigmoid(beta * gate)).norm()) for beta in BETAS
    }


def _product_facts(run: LayerRun) -> Facts:
    squares = run.product.double().pow(2).sort(descending=True).values
    total = float(squares.sum())
    half = int((squares.cumsum(0) < total / 2).sum()) + 1 if total else 0
    return {"norm": math.sqrt(total), "half": float(half), "width": float(len(squares))}


_FACTS: Mapping[str, Callable[[LayerRun], Facts]] = {
    "state": lambda run: {"norm": float(run.state.double().norm())},
    "norm": lambda run: norm_facts(run.state),
    "norm_mlp": lambda run: norm_facts(run.between),
    "weights": _attention_facts,
    "mixed": _mixed_facts,
    "between": lambda run: moves(run.state, run.attended),
    "swish": _swish_facts,
    "product": _product_facts,
    "result": lambda run: moves(run.between, run.down),
}


def facts(stage: Stage, run: LayerRun) -> Facts:
    """The numbers that go with a stage in words; NaN is a number that is not defined (the angle of a zero)."""
    return _FACTS[stage.name](run) if stage.name in _FACTS else {}


# -- positions ---------------------------------------------------------------------------------------------------------


def angles(config: Any, position: int) -> Tensor:
    """Radians by which each pair of a head has turned at a position, `[D/2]` float64."""
    return rotary_frequencies(config).double() * position


def unturned(keys: Tensor, positions: Tensor, config: Any) -> Tensor:
    """Keys as they were before RoPE: turned back by their positions.

    Args:
        keys: `[K, S, D]`, after RoPE.
        positions: `[S]`.

    Returns:
        `[K, S, D]` float64; to rounding what the projection gave.
    """
    turned = positions[:, None].double() * rotary_frequencies(config).double()  # [S, D/2]
    cos, sin = turned.cos().repeat(1, 2), -turned.sin().repeat(1, 2)
    a, b = keys.double().chunk(2, dim=-1)
    return keys.double() * cos + torch.cat((-b, a), dim=-1) * sin


def score_by_distance(query: Tensor, key: Tensor, config: Any, distances: Tensor) -> Tensor:
    """What one query head would score with one key at other distances between the two.

    Args:
        query, key: `[D]`, before RoPE.
        distances: `[M]`, in tokens, the query behind the key.

    Returns:
        `[M]` float64, `q . k / sqrt(D)` after RoPE: it depends on the distance alone.
    """
    turned = distances[:, None].double() * rotary_frequencies(config).double()  # [M, D/2]
    (a, b), (c, d) = query.double().chunk(2), key.double().chunk(2)
    along, across = a * c + b * d, a * d - b * c  # of each pair: |q||k| cos and sin of the angle from q to k
    return (turned.cos() * along + turned.sin() * across).sum(-1) * len(query) ** -0.5


# -- a loop step around the layers -------------------------------------------------------------------------------------


def step_facts(step: StepRun, damping: float) -> Facts:
    """What a loop step made of the state: how far the block wanted to move it, and how far damping let it."""
    wanted = moves(step.previous, step.left - step.previous)
    return {f"wanted_{name}": value for name, value in wanted.items()} | {
        "damping": damping,
        "change": float((step.state - step.previous).double().norm() / max(float(step.state.double().norm()), 1e-300)),
        "entered_cosine": cosine(step.previous, step.entered),  # 1: nothing is injected and nothing normed
    }


def gain(model: Any, stage: str, layer: int) -> Tensor:
    """The learned gain g of a norm, `[H]`."""
    decoder = model.model.layers[layer]
    norm: LlamaRMSNorm = decoder.input_layernorm if stage == "norm" else decoder.post_attention_layernorm
    return norm.weight.detach()
