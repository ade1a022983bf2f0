"""The inner model: z W1 + b1, or gelu(z W1 + b1) W2 + b2, whose weights are the layer's memory.

`theta` is its weights as a tuple (W1, b1) or (W1, b1, W2, b2), each `[N, in, out]` or `[N, 1, out]`: N models, one a row of the
batch and head, or, with one more dimension, one a token. Both kinds are one stack of affine maps with gelu in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .norm_loss import loss_gradient

NAMES = {"linear": ("W1", "b1"), "mlp": ("W1", "b1", "W2", "b2")}
MLP_FACTOR = 4  # hidden width of the inner MLP, in widths of a head

Theta = tuple[Tensor, ...]


def shapes(kind: str, heads: int, width: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the inner model's parameters, by name."""
    if kind == "linear":
        return {"W1": (heads, width, width), "b1": (heads, 1, width)}
    inner = MLP_FACTOR * width
    return {
        "W1": (heads, width, inner),
        "b1": (heads, 1, inner),
        "W2": (heads, inner, width),
        "b2": (heads, 1, width),
    }


def gelu(z: Tensor) -> Tensor:
    """The inner MLP's activation, in its tanh form."""
    return F.gelu(z, approximate="tanh")


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x W + b, `[N, K, in] -> [N, K, out]`."""
    return torch.baddbmm(bias, x, weight)


def read(theta: Sequence[Tensor], x: Tensor) -> Tensor:
    """f(x; θ), `[..., K, D] -> [..., K, D]`, for weights of any number of leading dimensions."""
    for depth in range(0, len(theta), 2):
        x = (x if depth == 0 else gelu(x)) @ theta[depth] + theta[depth + 1]
    return x


class Gradients(NamedTuple):
    """Gradients of the inner loss with respect to every map's output, and what each map was given.

    The gradient with respect to W of one token is `inputs[l]ᵀ outputs[l]`, with respect to b `outputs[l]`.

    Attributes:
        inputs, outputs: by map, `[N, K, in]` and `[N, K, out]`.
        read: f(keys), `[N, K, D]`.
    """

    inputs: list[Tensor]
    outputs: list[Tensor]
    read: Tensor


def gradients(theta: Theta, keys: Tensor, pull: Tensor, gain_squared: Tensor) -> Gradients:
    """Inner gradients of K tokens at the same weights, by hand.

    Args:
        keys: `[N, K, D]`.
        pull, gain_squared: of the tokens' targets and the heads' norms, see `norm_loss`.
    """
    inputs, before = [keys], []
    z = affine(keys, theta[0], theta[1])
    for depth in range(2, len(theta), 2):
        before.append(z)
        inputs.append(gelu(z))
        z = affine(inputs[-1], theta[depth], theta[depth + 1])
    outputs = [loss_gradient(z, pull, gain_squared)]
    for depth in range(len(theta) - 2, 0, -2):
        back = torch.bmm(outputs[0], theta[depth].transpose(1, 2))
        outputs.insert(0, torch.ops.aten.gelu_backward(back, before.pop(), approximate="tanh"))
    return Gradients(inputs, outputs, z)
