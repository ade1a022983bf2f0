"""The stages of a decoder layer, in the order in which they run: what each is called, computes, and gave for a token.

Which there are: :func:`stages_of`; :func:`facts` are the numbers that go with one in words. Nothing here runs a model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .llama import rotary_frequencies
from .probed import LayerRun, Probed, StepRun
from .stage_list import AROUND, BETAS
from .stage_list import BY_NAME as BY_NAME
from .stage_list import STAGES as STAGES
from .stage_list import Stage as Stage
from .way import Exit, Traits, way

Facts = dict[str, float]


def traits_of(probed: Probed, run: LayerRun, config: Any) -> Traits:
    """How a run of a layer differs from a plain Llama's.

    Args:
        probed: the token's whole way.
        run: one of its layers.
        config: of the model; of its loop what `probed` says counts.
    """
    block = None if run.block is None else probed.blocks[run.block]
    exit: Exit = "" if run.exits is None else "weighted" if run.exit_step is None else "gate"
    return Traits(
        placement=config.norm_placement,
        qk_norm=config.qk_norm,
        attention_bias=bool(config.attention_bias),
        mlp_bias=bool(config.mlp_bias),
        scaled=probed.scaled is not None,
        kept=run.kept,
        start="entry" if block is None or run.start is None else block.init if bool(run.start.any()) else "zeros",
        injected=block is not None and block.injection != "none",
        step_norm=run.normed_step is not None,
        step_damped=block is not None and block.damping != 1,
        among_normed=block is not None and block.norms_steps,
        exit=exit,
        left_norm=run.left is not None,
        ends=run.layer == config.num_hidden_layers - 1,
        final_norm=probed.final is not None,
    )


def stages_of(probed: Probed, run: LayerRun, config: Any) -> tuple[Stage, ...]:
    """What was computed for a token, in order, with a run of a layer in the middle; of a plain Llama it is `stage_list.ALL`."""
    return way(traits_of(probed, run, config))


def layer_stages(probed: Probed, run: LayerRun, config: Any) -> tuple[Stage, ...]:
    """Of these the run's own."""
    return tuple(stage for stage in stages_of(probed, run, config) if stage.name not in AROUND)


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


def _heads_facts(heads: Tensor) -> Facts:
    """The root of the mean square of each head, `[n, D]`: the least and the largest."""
    sizes = heads.double().pow(2).mean(-1).sqrt()
    return {"least": float(sizes.min()), "largest": float(sizes.max())}


def _rounded_facts(run: LayerRun) -> Facts:
    """The largest difference that rounding made of a number of the key, and of the value, in shares of the largest number there."""
    pairs = {"key": (run.turned_key, run.kept_key), "value": (run.value, run.kept_value)}
    found = {}
    for name, (exact, kept) in pairs.items():
        assert exact is not None
        assert kept is not None
        largest = float(exact.double().abs().max())
        off = float((exact.double() - kept.double()).abs().max())
        found[f"{name}_off"] = off / largest if largest else math.nan
    return found


def _start_facts(run: LayerRun) -> Facts:
    assert run.start is not None
    return {"norm": float(run.start.double().norm()), "std": float(run.start.double().std(correction=0))}


def _exit_facts(run: LayerRun) -> Facts:
    """p_r of each loop step, the step that is read out where one is, and the mean of all by their weights."""
    assert run.exits is not None
    chances = run.exits.double().tolist()
    said = {f"p_{r}": chance for r, chance in enumerate(chances, start=1)}
    expected = sum(r * chance for r, chance in enumerate(chances, start=1))
    return {**said, "expected": expected, **({} if run.exit_step is None else {"step": float(run.exit_step)})}


def left_from(run: LayerRun) -> Tensor:
    """What the norm between a loop and the next layer is given, `[H]`."""
    found = run.damped if run.read_out is None else run.read_out
    assert found is not None
    return found


def _norm_of(name: str) -> Callable[[LayerRun], Facts]:
    def of(run: LayerRun) -> Facts:
        return norm_facts(getattr(run, name))

    return of


_FACTS: Mapping[str, Callable[[LayerRun], Facts]] = {
    "state": lambda run: {"norm": float(run.state.double().norm())},
    "norm": lambda run: norm_facts(run.state),
    "norm_mlp": lambda run: norm_facts(run.entered_mlp),
    "weights": _attention_facts,
    "mixed": _mixed_facts,
    "between": lambda run: moves(run.state, run.added),
    "swish": _swish_facts,
    "product": _product_facts,
    "result": lambda run: moves(run.entered_mlp, run.added_mlp),
    "start": _start_facts,
    "norm_query": lambda run: _heads_facts(run.query),
    "norm_key": lambda run: _heads_facts(run.key),
    "rounded": _rounded_facts,
    "norm_attended": _norm_of("attended"),
    "norm_stream": _norm_of("between"),
    "norm_down": _norm_of("down"),
    "norm_result": _norm_of("result"),
    "step_norm": _norm_of("damped"),
    "read_out": _exit_facts,
    "left_norm": lambda run: norm_facts(left_from(run)),
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


def step_facts(step: StepRun, probed: Probed) -> Facts:
    """What a loop step made of the state: how far the block wanted to move it, and how far damping let it; where it began, what the
    final norm made of it, and how likely the exit gate leaves there, if that is so in this loop."""
    block, last = probed.blocks[step.block], probed.last_run(step.block)
    wanted = moves(step.previous, step.left - step.previous)
    found = {f"wanted_{name}": value for name, value in wanted.items()} | {
        "damping": block.damping,
        "change": float((step.state - step.previous).double().norm() / max(float(step.state.double().norm()), 1e-300)),
        "entered_cosine": cosine(step.previous, step.entered),  # 1: nothing is injected and nothing normed
    }
    if step.step == 1 and block.init != "entry":
        found["random" if bool(step.previous.any()) else "zeros"] = float(step.previous.double().std(correction=0))
    if block.norms_steps:
        found["normed"] = float(step.state.double().norm())
    if last is not None and last.exits is not None:
        found["leaves"] = float(last.exits[step.step - 1])
        found["left"] = float(last.exits[: step.step].double().sum())
    return found


# The gains of a layer's norms that stand as modules in it, by stage.
_GAINS = {
    "norm": "input_layernorm",
    "norm_mlp": "post_attention_layernorm",
    "norm_query": "self_attn.q_proj.norm",
    "norm_key": "self_attn.k_proj.norm",
    "norm_attended": "input_layernorm_2",
    "norm_stream": "input_layernorm_2",
    "norm_down": "post_attention_layernorm_2",
    "norm_result": "post_attention_layernorm_2",
}


def gain(model: Any, stage: str, layer: int) -> Tensor:
    """The learned gain g of a norm, `[H]`; of queries or keys `[D]`, or `[N, D]` of all heads together.

    Norms of the loop (`step_norm`, `left_norm`) are the model's final one.
    """
    if stage not in _GAINS:
        final: Tensor = model.model.norm.weight
        return final.detach()
    found: Tensor = model.model.layers[layer].get_submodule(_GAINS[stage]).weight.detach()
    if stage in ("norm_query", "norm_key") and model.config.qk_norm == "full":
        return found.view(-1, model.config.head_dim)
    return found
