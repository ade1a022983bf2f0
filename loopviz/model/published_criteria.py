"""Stop rules as Huginn's authors published them, beside ours and named apart.

Source: Geiping et al. 2025, "Scaling up Test-Time Compute with Latent Reasoning", and the exit evaluators of
github.com/seal-rg/recurrent-pretraining at commit 59e0b69. They differ from ours of similar names in what they read: the last four
look at the last token alone, and at what the model would say if it stopped now (through the layers that follow), not at the mean over
tokens and the direct lens; their comparison is strict.
"""

from __future__ import annotations

import torch
from torch import Tensor

from loopviz.loop_fields import PUBLISHED_CRITERIA

from .criteria import CriterionContext, register_criterion

FIRST_ENTROPY = 100.0  # nats, "before the first step"
LEAST = 1e-10  # added before a logarithm
MIN_P = 0.1  # of the largest probability: what is below is replaced


def _verdict(ctx: CriterionContext, name: str, value: Tensor) -> Tensor:
    """Rows whose value is below the threshold, `[B]`; a NaN is not."""
    ctx.measured[name] = value
    return (value < _threshold(ctx, name)) | ctx.without_tokens()


def _threshold(ctx: CriterionContext, name: str) -> float:
    return ctx.block.criterion_threshold or PUBLISHED_CRITERIA[name]


@register_criterion("huginn_latent_diff")
def latent_diff(ctx: CriterionContext) -> Tensor:
    """Stop when the mean over real tokens of |s_r - s_{r-1}| / |s_r| < threshold."""
    new, old = ctx.wide(ctx.state), ctx.wide(ctx.previous)
    return _verdict(ctx, "huginn_latent_diff", ctx.mean((new - old).norm(dim=-1) / new.norm(dim=-1)))


@register_criterion("huginn_cosine")
def cosine(ctx: CriterionContext) -> Tensor:
    """Stop when 1 - the mean over real tokens of cos(s_r, s_{r-1}) < threshold. A start of zeros has no direction: NaN."""
    new, old = ctx.wide(ctx.state), ctx.wide(ctx.previous)
    found = (new * old).sum(-1) / new.norm(dim=-1) / old.norm(dim=-1)
    return _verdict(ctx, "huginn_cosine", 1 - ctx.mean(found))


@register_criterion("huginn_kl", every_step=True, reads_exit=True)
def kl(ctx: CriterionContext) -> Tensor:
    """Stop when KL(p_{r-1} || p_r) < threshold, in nats; p_0 is uniform."""
    return _kl(ctx, "huginn_kl", torch.log_softmax(ctx.exit_logits(), dim=-1))


@register_criterion("huginn_minp_kl", every_step=True, reads_exit=True)
def minp_kl(ctx: CriterionContext) -> Tensor:
    """As `huginn_kl`, of distributions whose unlikely words (p < 0.1 max p) have been given 1 / vocabulary."""
    p = torch.softmax(ctx.exit_logits(), dim=-1)
    p = torch.where(p < MIN_P * p.max(-1, keepdim=True).values, 1 / p.shape[-1], p)
    return _kl(ctx, "huginn_minp_kl", (p / p.sum(-1, keepdim=True)).log())


def _kl(ctx: CriterionContext, name: str, log_p: Tensor) -> Tensor:
    uniform = torch.full_like(log_p, 1 / log_p.shape[-1]).log()
    before = ctx.memory.get("log_p", uniform)
    ctx.memory["log_p"] = log_p
    return _verdict(ctx, name, (before.exp() * (before - log_p)).sum(-1))


@register_criterion("huginn_entropy_diff", every_step=True, reads_exit=True)
def entropy_diff(ctx: CriterionContext) -> Tensor:
    """Stop when the entropy of what would be said changed by less than threshold nats; H_0 = 100."""
    p = torch.softmax(ctx.exit_logits(), dim=-1)
    entropy = -(p * (p + LEAST).log()).sum(-1)
    before = ctx.memory.get("entropy", torch.full_like(entropy, FIRST_ENTROPY))
    ctx.memory["entropy"] = entropy
    return _verdict(ctx, "huginn_entropy_diff", (entropy - before).abs())


@register_criterion("huginn_argmax_stability", every_step=True, reads_exit=True)
def argmax_stability(ctx: CriterionContext) -> Tensor:
    """Stop when the likeliest word has stayed the same for threshold steps in a row."""
    best = ctx.exit_logits().argmax(-1)
    stable = ctx.memory.get("stable", torch.zeros_like(best))
    stable = torch.where(best == ctx.memory.get("best", torch.full_like(best, -1)), stable + 1, 0)
    ctx.memory.update(best=best, stable=stable)
    ctx.measured["huginn_argmax_stability"] = stable.float()
    return (stable >= _threshold(ctx, "huginn_argmax_stability")) | ctx.without_tokens()
