"""RMSNorm beside LayerNorm and BatchNorm, on the very same states: what each takes away, and what is left.

All three without their learned gain and offset, so that only what they compute differs. BatchNorm looks down a feature over the
tokens of a text instead of along a token's features: what a token becomes then depends on which others are read with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


def rms_norm(states: Tensor) -> Tensor:
    """`x / sqrt(mean(x^2))` of each token, `[T, H]`; a token of zeros stays zero."""
    return _divided(states, states.pow(2).mean(-1, keepdim=True).sqrt())


def layer_norm(states: Tensor) -> Tensor:
    """`(x - mean) / std` of each token, over its features, `[T, H]`."""
    centred = states - states.mean(-1, keepdim=True)
    return _divided(centred, centred.pow(2).mean(-1, keepdim=True).sqrt())


def batch_norm(states: Tensor) -> Tensor:
    """`(x - mean) / std` of each feature, over the tokens, `[T, H]`."""
    centred = states - states.mean(0, keepdim=True)
    return _divided(centred, centred.pow(2).mean(0, keepdim=True).sqrt())


def _divided(x: Tensor, by: Tensor) -> Tensor:
    return torch.where(by == 0, torch.zeros_like(x), x / by.clamp_min(torch.finfo(x.dtype).tiny))  # NaN stays NaN


NORMS: Mapping[str, Callable[[Tensor], Tensor]] = {"rms": rms_norm, "layer": layer_norm, "batch": batch_norm}
# Operations for each number: square and add, divide; and for the others a mean, and taking it away.
OPERATIONS: Mapping[str, int] = {"rms": 3, "layer": 5, "batch": 5}


@dataclass(frozen=True)
class NormRow:
    """What one norm makes of a text's states.

    Attributes:
        norm: rms, layer or batch.
        mean, std: of a token's features afterwards, mean over tokens.
        cosine: of the angle between a token's state before and after, mean over tokens: RMSNorm never turns a state.
        to_rms: of the angle between what this norm makes of a token and what RMSNorm makes of it.
        alone: the largest change of a number when the text's second half is left out: 0 where a token's norm is its own.
    """

    norm: str
    mean: float
    std: float
    cosine: float
    to_rms: float
    alone: float


def compare(states: Tensor) -> list[NormRow]:
    """Each norm on the states of a text, `[T, H]`, computed in float64.

    Raises:
        ValueError: fewer than two tokens, which have no half.
    """
    if states.dim() != 2 or len(states) < 2:
        raise ValueError(f"states {list(states.shape)}: must be [T, H] with at least two tokens")
    x, half = states.double(), len(states) // 2
    reference = rms_norm(x)
    rows = []
    for name, norm in NORMS.items():
        y = norm(x)
        cosine = torch.nn.functional.cosine_similarity
        rows.append(
            NormRow(
                norm=name,
                mean=float(y.mean(-1).abs().mean()),
                std=float(y.std(-1, correction=0).mean()),
                cosine=float(cosine(x, y, dim=-1).mean()),
                to_rms=float(cosine(reference, y, dim=-1).mean()),
                alone=float((norm(x[:half]) - y[:half]).abs().max()),
            )
        )
    return rows
