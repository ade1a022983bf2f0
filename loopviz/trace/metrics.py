"""The numbers of a trace, as pure functions on tensors.

States are ``[..., H]``, logits and log-probabilities ``[..., vocab]``; a result has the leading shape. Everything is
computed in float32 whatever comes in (float64 stays float64). Where a quantity is undefined the result is NaN (the
recorder writes None): each function says when. What a loop can stop by is the model's own measure, used here as it is.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loopviz.model.measures import cosine, kl, log_probs, wide

__all__ = ["cosine", "entropy", "halves", "kl", "log_probs", "norm", "plain", "rank", "rel_delta", "top_k", "wide"]


def norm(state: Tensor) -> Tensor:
    """Euclidean length ``|s|``, in units of the state itself."""
    return torch.linalg.vector_norm(wide(state), dim=-1)


def rel_delta(new: Tensor, old: Tensor) -> Tensor:
    """``|new - old| / |new|``, dimensionless: the step size Huginn's latent-difference exit watches (arXiv 2502.05171).

    NaN when ``new`` is zero.
    """
    new = wide(new)
    length = torch.linalg.vector_norm(new, dim=-1)
    delta = torch.linalg.vector_norm(new - wide(old), dim=-1)
    return torch.where(length > 0, delta / length, torch.nan)


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


def halves(values: Tensor) -> np.ndarray:
    """Numbers as a Frame keeps them, clipped and in float16 (:func:`loopviz.trace.packed.clipped`), on the CPU.

    They are made so where they are: half as many bytes leave the device as of float32.
    """
    top = torch.finfo(torch.float16).max
    kept = values.float().nan_to_num(nan=0.0, posinf=top, neginf=-top).clamp_(-top, top)
    return kept.half().cpu().numpy()


def plain(values: Tensor) -> list[Any]:
    """Nested lists of floats with None where a number is not finite."""
    nested = values.tolist()
    return nested if bool(torch.isfinite(values).all()) else _without_infinities(nested)


def _without_infinities(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_infinities(item) for item in value]
    return value if math.isfinite(value) else None
