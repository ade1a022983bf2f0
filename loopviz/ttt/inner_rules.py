"""Linear attention, DeltaNet, Gated DeltaNet and TTT-Linear as one inner rule with switches.

All four keep a matrix W a head and read q W. They differ in what a token writes:

* linear attention (Katharopoulos et al. 2020, arXiv 2006.16236) adds βvkᵀ: one gradient step on ½‖Wk − v‖², taken at W = 0;
* DeltaNet (Schlag et al. 2021, 2102.11174; Yang et al. 2024, 2406.06484) takes that step where W is: what k already says is replaced;
* Gated DeltaNet (Yang et al. 2024, 2412.06464) lets W fade by α_t before it;
* TTT-Linear (Sun et al. 2024, 2407.04620) has a bias, a LayerNorm in the loss and in the reading, v − k as the target and q added to
  what is read, and takes the gradients of a mini-batch of 16 tokens at the same weights.

Written to be read, one token after the other; `layer` is how TTT-Linear is computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from loopviz.checks import check_flag, check_whole

from .norm_loss import HeadNorm, loss, loss_gradient


@dataclass(frozen=True)
class InnerRule:
    """What a token writes, and how it is read.

    Attributes:
        delta: the gradient is taken where W is; otherwise at W = 0.
        decay: everything held fades by α_t before token t writes.
        bias: the inner model is z W + b; otherwise z W.
        norm: a LayerNorm in the loss and in the reading.
        residual: the target is v − k, and what is read is added to q.
        mini_batch: tokens whose gradients are taken at the same weights.

    Raises:
        ValueError: a switch that is neither on nor off, `mini_batch` that is no whole number >= 1.
    """

    delta: bool = True
    decay: bool = False
    bias: bool = False
    norm: bool = False
    residual: bool = False
    mini_batch: int = 1

    def __post_init__(self) -> None:
        for name in ("delta", "decay", "bias", "norm", "residual"):
            check_flag(name, getattr(self, name))
        check_whole("mini_batch", self.mini_batch, 1)


RULES: Mapping[str, InnerRule] = MappingProxyType(
    {
        "linear_attention": InnerRule(delta=False),
        "deltanet": InnerRule(),
        "gated_deltanet": InnerRule(decay=True),
        "ttt_linear": InnerRule(bias=True, norm=True, residual=True, mini_batch=16),
    }
)


@dataclass(frozen=True)
class RuleRun:
    """What a rule did with a text.

    Attributes:
        outputs: what each token reads, `[..., T, D]`.
        before, after: ½‖f(k) − target‖² of each token under the weights that it found and under those it left, `[..., T]`.
        drift: ‖W_t − W_0‖, the bias included, `[..., T]`.
        weights, bias: after the last token, `[..., D, D]` and `[..., D]`.
    """

    outputs: Tensor
    before: Tensor
    after: Tensor
    drift: Tensor
    weights: Tensor
    bias: Tensor


def run_rule(
    rule: InnerRule,
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    rate: Tensor,
    *,
    fade: Tensor | None = None,
    scale: Tensor | None = None,
    norm: HeadNorm | None = None,
    weights: Tensor | None = None,
    bias: Tensor | None = None,
) -> RuleRun:
    """Read a text with a rule.

    Args:
        query, keys, values: `[..., T, D]`.
        rate: the inner learning rate (β) of each token, `[..., T]`.
        fade: α of each token, `[..., T]`; 1 keeps everything. Only and always with `rule.decay`.
        scale: s of each slot of a mini-batch, `[M]`; by default 1 / (i + 1).
        norm: gain and bias of the LayerNorm, `[..., 1, D]`; by default 1 and 0.
        weights, bias: to begin with, `[..., D, D]` and `[..., D]`; by default 0.

    Raises:
        ValueError: shapes that do not fit, `fade` without `rule.decay` or the other way round.
    """
    _check(rule, query, keys, values, rate, fade, scale)
    M, T, D = rule.mini_batch, query.shape[-2], query.shape[-1]
    W = query.new_zeros(*query.shape[:-2], D, D) if weights is None else weights
    b = query.new_zeros(*query.shape[:-2], 1, D) if bias is None else bias.unsqueeze(-2)
    if norm is None:
        norm = HeadNorm(query.new_ones(D), query.new_zeros(D))
    scale = 1 / torch.arange(1, M + 1, device=query.device, dtype=query.dtype) if scale is None else scale
    start, G_W, G_b = (W, b), torch.zeros_like(W), torch.zeros_like(b)
    outputs, before, after, drift = [], [], [], []
    for t in range(T):
        q, k, v = (each[..., t : t + 1, :] for each in (query, keys, values))  # [..., 1, D]
        target = v - k if rule.residual else v
        if fade is not None:
            alpha = fade[..., t, None, None]
            W, b, G_W, G_b = alpha * W, alpha * b, alpha * G_W, alpha * G_b
        found = k @ W + b
        g = _gradient(rule, found if rule.delta else torch.zeros_like(found), target, norm)
        step = rate[..., t, None, None] * g
        G_W = G_W + k.transpose(-1, -2) @ step
        G_b = G_b + step if rule.bias else G_b
        now = W - scale[t % M] * G_W, b - scale[t % M] * G_b
        read = q @ now[0] + now[1]
        read = norm(read) if rule.norm else read
        outputs.append(q + read if rule.residual else read)
        before.append(_loss(rule, found, target, norm))
        after.append(_loss(rule, k @ now[0] + now[1], target, norm))
        away = [(a - c).square().sum((-1, -2)) for a, c in zip(now, start, strict=True)]
        drift.append((away[0] + away[1]).sqrt())
        if t % M == M - 1:
            (W, b), G_W, G_b = now, torch.zeros_like(W), torch.zeros_like(b)
        last = now
    losses, left, moved = (torch.stack(each, dim=-1) for each in (before, after, drift))
    return RuleRun(torch.cat(outputs, dim=-2), losses, left, moved, last[0], last[1].squeeze(-2))


def _gradient(rule: InnerRule, read: Tensor, target: Tensor, norm: HeadNorm) -> Tensor:
    return loss_gradient(read, norm.pull(target), norm.gain.square()) if rule.norm else read - target


def _loss(rule: InnerRule, read: Tensor, target: Tensor, norm: HeadNorm) -> Tensor:
    found = loss(read, target, norm) if rule.norm else 0.5 * (read - target).square().sum(-1)
    return found.squeeze(-1)


def _check(
    rule: InnerRule,
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    rate: Tensor,
    fade: Tensor | None,
    scale: Tensor | None,
) -> None:
    wanted = {"keys": (keys, query.shape), "values": (values, query.shape), "rate": (rate, query.shape[:-1])}
    if fade is not None:
        wanted["fade"] = (fade, query.shape[:-1])
    if scale is not None:
        wanted["scale"] = (scale, torch.Size([rule.mini_batch]))
    for name, (given, shape) in wanted.items():
        if given.shape != shape:
            raise ValueError(f"{name} of shape {list(given.shape)}: must be {list(shape)}")
    if query.ndim < 2 or not query.shape[-2]:
        raise ValueError(f"query of shape {list(query.shape)}: must be [..., T, D] with at least one token")
    if rule.decay != (fade is not None):
        said = (
            "is missing; a rule with decay fades by it"
            if rule.decay
            else "is given, and this rule has no decay; leave it out"
        )
        raise ValueError(f"fade: {said}")
