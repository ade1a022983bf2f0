"""What is measured of a loop's states: the numbers that decide when a loop stops, and that a trace shows.

States are ``[..., H]``, logits and log-probabilities ``[..., vocab]``; a result has the leading shape. Everything is
computed in float32 whatever comes in (float64 stays float64): near 1 bfloat16 knows only 0.9922, 0.9961 and 1, and a
threshold of 0.999 would mean nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor


def wide(values: Tensor) -> Tensor:
    """``values`` in float32, or in float64 if they are."""
    return values if values.dtype == torch.float64 else values.float()


def cosine(new: Tensor, old: Tensor) -> Tensor:
    """``cos(new, old)``, dimensionless, in [-1, 1]; NaN when either state is zero: no direction, no angle.

    Exactly 1 for equal states, so that a state that stands still reaches every threshold. Otherwise each state is scaled
    to length one before the product. Lengths must be representable: beyond about 1e19 or below 1e-19 their squares leave
    float32.
    """
    new, old = wide(new), wide(old)
    length_new = torch.linalg.vector_norm(new, dim=-1, keepdim=True)
    length_old = torch.linalg.vector_norm(old, dim=-1, keepdim=True)
    angle = ((new / length_new) * (old / length_old)).sum(-1).clamp(-1.0, 1.0)
    return torch.where((new == old).all(-1) & (length_new.squeeze(-1) > 0), 1.0, angle)


def log_probs(logits: Tensor) -> Tensor:
    """``log softmax(logits)`` over the vocabulary, nats. A logit of -inf is a probability of zero."""
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
