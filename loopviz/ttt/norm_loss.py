"""The inner loss, ½‖LN(z) − target‖², and its gradient with respect to z in one fused step.

Every head has its own LayerNorm. With x̂ = (z − μ)/σ and h = (γ x̂ + β − target) γ the gradient is
(D h − Σh − x̂ Σ(h x̂)) / (D σ): what PyTorch's own backward of a LayerNorm without weights does to h, in one call. That call can
be differentiated again, so the outer loss's gradient flows through the inner steps.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

EPS = 1e-6  # of the heads' LayerNorm and of `post_norm`: not a field


class HeadNorm(NamedTuple):
    """The learned affine part of a LayerNorm a head.

    Attributes:
        gain, bias: gamma and beta, broadcastable to `[..., K, D]`.
    """

    gain: Tensor
    bias: Tensor

    def __call__(self, z: Tensor) -> Tensor:
        """LN(z), `[..., K, D]`."""
        return torch.addcmul(self.bias, self.gain, F.layer_norm(z, z.shape[-1:], None, None, EPS))

    def pull(self, target: Tensor) -> Tensor:
        """γ(β − target): what of the gradient is known before z, `[..., K, D]`."""
        return self.gain * (self.bias - target)


def loss(z: Tensor, target: Tensor, norm: HeadNorm) -> Tensor:
    """½‖LN(z) − target‖² of every token, `[..., K, D] -> [..., K]`."""
    return 0.5 * (norm(z) - target).square().sum(-1)


def loss_gradient(z: Tensor, pull: Tensor, gain_squared: Tensor) -> Tensor:
    """∂loss/∂z, fused, `[..., K, D]`.

    Args:
        pull: `norm.pull(target)`.
        gain_squared: `norm.gain ** 2`.
    """
    shape = z.shape[-1:]
    normed, mean, rstd = torch.native_layer_norm(z, shape, None, None, EPS)
    h = torch.addcmul(pull, gain_squared, normed)
    backward = torch.ops.aten.native_layer_norm_backward
    return backward(h, z, shape, mean, rstd, None, None, [True, False, False])[0]
