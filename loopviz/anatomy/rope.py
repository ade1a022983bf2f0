"""Rotary positions (RoPE) as Meta writes them and as transformers does, and the sinusoidal ones they took the place of.

Both turn pairs of a head's dimensions by an angle that grows with the position, so that the product of a query and a key
depends on the distance between them alone. They differ in which dimensions are a pair: neighbours, read as one complex
number (Meta), or one of each half (transformers, :func:`loopviz.anatomy.llama.rotate`). Permuting the rows of `q_proj` and
`k_proj` turns one into the other; scores do not notice, for both sides are permuted alike.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .llama import rotate


def angles(frequencies: Tensor, positions: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Radians by which each pair has turned at each position, `[D/2]`, `[T]` -> `[T, D/2]`."""
    return positions[:, None].to(dtype) * frequencies.to(dtype)


def rotate_halves(x: Tensor, frequencies: Tensor, positions: Tensor) -> Tensor:
    """transformers' form: dimension i turns with i + D/2. `[..., T, D]` -> the same; angles in the dtype of `x`."""
    turned = angles(frequencies, positions, x.dtype).repeat(1, 2)
    return rotate(x, turned.cos(), turned.sin())


def rotate_pairs(x: Tensor, frequencies: Tensor, positions: Tensor) -> Tensor:
    """Meta's form: dimensions 2i and 2i + 1 are one complex number, times `exp(i angle)`. `[..., T, D]` -> the same."""
    turned = angles(frequencies, positions, x.dtype)
    turn = torch.polar(torch.ones_like(turned), turned)  # [T, D/2] complex
    numbers = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2).contiguous())  # [..., T, D/2] complex
    return torch.view_as_real(numbers * turn).flatten(-2)


def pairs_order(width: int) -> Tensor:
    """Where each dimension of Meta's form stands in transformers': `x_halves[..., pairs_order(D)]` is `x_pairs`.

    Raises:
        ValueError: a width that has no pairs.
    """
    if width < 2 or width % 2:
        raise ValueError(f"width={width}: must be even and at least 2, for dimensions turn in pairs")
    return torch.arange(width).view(2, width // 2).T.flatten()  # 0, D/2, 1, D/2 + 1, ...


def halves_order(width: int) -> Tensor:
    """The way back: `x_pairs[..., halves_order(D)]` is `x_halves`."""
    return pairs_order(width).argsort()


def projection_to_pairs(projection: Tensor, n_heads: int) -> Tensor:
    """transformers' `q_proj` or `k_proj` as Meta has it: rows permuted within each head. Weight `[N D, H]` or bias `[N D]`."""
    return _by_head(projection, n_heads, pairs_order(projection.shape[0] // n_heads))


def projection_to_halves(projection: Tensor, n_heads: int) -> Tensor:
    """Meta's `wq` or `wk` as transformers has it, as is done when a published checkpoint is converted."""
    return _by_head(projection, n_heads, halves_order(projection.shape[0] // n_heads))


def _by_head(projection: Tensor, n_heads: int, order: Tensor) -> Tensor:
    heads = projection.view(n_heads, -1, *projection.shape[1:])  # [N, D, ...]
    return heads[:, order.to(projection.device)].reshape(projection.shape)


def sinusoidal(positions: Tensor, width: int, base: float = 10000.0) -> Tensor:
    """Absolute positions of the first Transformer, added to the embedding: `[T]` -> `[T, width]`.

    Dimension 2i is `sin(t / base^(2i/width))`, dimension 2i + 1 the cosine of the same.
    """
    turned = angles(base ** (-torch.arange(0, width, 2, dtype=torch.float64) / width), positions, torch.float64)
    return torch.stack((turned.sin(), turned.cos()), dim=-1).flatten(-2)[:, :width]
