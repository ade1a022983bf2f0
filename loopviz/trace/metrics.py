"""The numbers of a trace, as pure functions on tensors.

States are ``[..., H]``, logits and log-probabilities ``[..., vocab]``; a result has the leading shape. Everything is
computed in float32 whatever comes in (float64 stays float64). Where a quantity is undefined the result is NaN (the
recorder writes None): each function says when.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def wide(values: Tensor) -> Tensor:
    """``values`` in float32, or in float64 if they are."""
    return values if values.dtype == torch.float64 else values.float()


def norm(state: Tensor) -> Tensor:
    """Euclidean length ``|s|``, in units of the state itself."""
    return torch.linalg.vector_norm(wide(state), dim=-1)


def cosine(new: Tensor, old: Tensor) -> Tensor:
    """``cos(new, old)``, dimensionless, in [-1, 1]; NaN when either state is zero: no direction, no angle.

    Each state is scaled to length one before the product. Lengths must be representable: beyond about 1e19 or below
    1e-19 their squares leave float32.
    """
    new, old = wide(new), wide(old)
    unit_new = new / torch.linalg.vector_norm(new, dim=-1, keepdim=True)
    unit_old = old / torch.linalg.vector_norm(old, dim=-1, keepdim=True)
    return (unit_new * unit_old).sum(-1).clamp(-1.0, 1.0)


def rel_delta(new: Tensor, old: Tensor) -> Tensor:
    """``|new - old| / |new|``, dimensionless: the step size Huginn's latent-difference exit watches (arXiv 2502.05171).

    NaN when ``new`` is zero.
    """
    new = wide(new)
    length = torch.linalg.vector_norm(new, dim=-1)
    delta = torch.linalg.vector_norm(new - wide(old), dim=-1)
    return torch.where(length > 0, delta / length, torch.nan)


def log_probs(logits: Tensor) -> Tensor:
    """``log softmax(logits)`` over the vocabulary, nats, float32. A logit of -inf is a probability of zero."""
    return torch.log_softmax(wide(logits), dim=-1)


def kl(log_p: Tensor, log_q: Tensor, p: Tensor | None = None) -> Tensor:
    """``KL(p || q) = sum_v p(v) (log p(v) - log q(v))``, nats, >= 0.

    The direction is the arguments' order: how surprised ``q`` is by ``p``. The convergence measure is
    ``kl(log p_{r-1}, log p_r)``. Tokens with ``p = 0`` add nothing; infinite where ``q = 0`` and ``p > 0``.

    Args:
        log_p, log_q: normalised log-probabilities ``[..., vocab]``.
        p: ``log_p.exp()`` when the caller already has it.
    """
    p = log_p.exp() if p is None else p
    difference = log_p - log_q
    total = torch.linalg.vecdot(p, difference)
    if bool(torch.isnan(total).any()):  # a probability of zero: 0 * inf, which counts as 0
        total = (p * difference).masked_fill_(p == 0, 0.0).sum(-1)
    return total.clamp_min(0.0)  # rounding of equal distributions may fall a hair below zero


def entropy(log_p: Tensor, p: Tensor | None = None) -> Tensor:
    """``H(p) = -sum_v p(v) log p(v)``, nats, in [0, log vocab]; ``0 log 0 = 0``."""
    p = log_p.exp() if p is None else p
    total = torch.linalg.vecdot(p, log_p)
    if bool(torch.isnan(total).any()):
        total = (p * log_p).masked_fill_(p == 0, 0.0).sum(-1)
    return -total.clamp_max(0.0)


def rank(scores: Tensor, token: Tensor) -> Tensor:
    """1-based rank of ``token`` (``[...]``, int64) in ``scores`` (``[..., vocab]``): 1 + how many score higher.

    Tied tokens share the better rank. ``scores`` may be logits or (log-)probabilities.
    """
    own = scores.gather(-1, token.unsqueeze(-1))  # [..., 1]
    higher = torch.gt(scores, own, out=torch.empty_like(scores))  # ones and zeros: their sum is several times faster
    return higher.sum(-1, dtype=torch.float64 if scores.shape[-1] > 2**24 else None).long() + 1


def top_k(log_p: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` most likely tokens, best first: log-probabilities and ids, both ``[..., min(k, vocab)]``."""
    values, ids = log_p.topk(min(k, log_p.shape[-1]), dim=-1)
    return values, ids


def plain(values: Tensor) -> list[Any]:
    """Nested lists of floats with None where a number is not finite."""
    nested = values.tolist()
    return nested if bool(torch.isfinite(values).all()) else _without_infinities(nested)


def _without_infinities(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_infinities(item) for item in value]
    return value if math.isfinite(value) else None
