"""One mini-batch of inner steps, in two forms that give the same numbers.

All gradients of a mini-batch are taken at its starting weights θ₀. Token i is read with θ_i = θ₀ − s_i G_i, where
G_i = Σ_{j≤i} lr_j ∇loss_j(θ₀), and after the last slot θ_{M−1} is the next mini-batch's θ₀.

* The **dual form** never makes a θ_i: with η_ij = s_i lr_j,
  Z̄ = X_Q W + b − (η ⊙ tril(X_Q X_Kᵀ + 1)) g. That is masked attention whose values are gradients.
* The **primal form** makes every token's weights. For one token it is the cheaper one, and what is shown of a token needs it.

A mini-batch that an earlier pass began brings its G along, and one that this pass does not finish hands it on: both forms take
any part of a mini-batch, so a pass may begin and end anywhere.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .inner_model import Gradients, Theta, affine, gelu, gradients


class MiniBatch(NamedTuple):
    """A mini-batch, or the part of one that a pass brings. N = rows of the batch times heads, K tokens.

    Attributes:
        query, keys: after RoPE, `[N, K, D]`.
        pull: γ(β − target), `[N, K, D]`.
        scale: token scale s_i, `[N or 1, K, 1]`.
        eta: tril(s_i lr_j), `[N, K, K]`; empty slots of a row have lr 0.
        reads: η ⊙ tril(X_Q X_Kᵀ + 1), `[N, K, K]`; made for all mini-batches at once.
        lr: `[N, K, 1]`.
        last_scale: s of the last slot, `[]`.
        closing: which of N finish their mini-batch here: all (`True`), none (`False`), or `[N, 1, 1]` of 0 and 1; `None`
            where nobody asks what comes after.
    """

    query: Tensor
    keys: Tensor
    pull: Tensor
    scale: Tensor
    eta: Tensor
    reads: Tensor
    lr: Tensor
    last_scale: Tensor
    closing: bool | Tensor | None


class Carry(NamedTuple):
    """What goes from one mini-batch to the next.

    Attributes:
        theta: weights at the start of the running mini-batch.
        sums: G, of the shapes of `theta`; `None` where no row has begun one.
    """

    theta: Theta
    sums: Theta | None


def step(carry: Carry, part: MiniBatch, gain_squared: Tensor) -> tuple[Carry, Tensor]:
    """Learn from a part of a mini-batch and read it.

    Returns:
        What comes after it, and f(q_i; θ_i) of its tokens, `[N, K, D]`.
    """
    if part.keys.shape[1] == 1:
        return primal(carry, part, gain_squared)
    return dual(carry, part, gain_squared)


def dual(carry: Carry, part: MiniBatch, gain_squared: Tensor) -> tuple[Carry, Tensor]:
    """As `step`, without any token's own weights."""
    theta, sums = carry
    found = gradients(theta, part.keys, part.pull, gain_squared)
    y = part.query
    for index, (inputs, outputs) in enumerate(zip(found.inputs, found.outputs, strict=True)):
        weight, bias = theta[2 * index : 2 * index + 2]
        reads = part.reads
        if index:
            y = gelu(y)
            reads = torch.addcmul(part.eta, part.eta, torch.bmm(y, inputs.transpose(1, 2)))
        before = affine(y, weight, bias)
        if sums is not None:
            before = before - part.scale * affine(y, sums[2 * index], sums[2 * index + 1])
        y = torch.baddbmm(before, reads, outputs, alpha=-1)
    return _close(carry, part, found), y


def primal(carry: Carry, part: MiniBatch, gain_squared: Tensor) -> tuple[Carry, Tensor]:
    """As `step`, by every token's own weights, `[N, K, in, out]`."""
    found = gradients(carry.theta, part.keys, part.pull, gain_squared)
    y = part.query.unsqueeze(-2)  # [N, K, 1, D]
    weights = weights_by_token(carry, part, sums_by_token(carry, part, found))
    for depth in range(0, len(weights), 2):
        y = (gelu(y) if depth else y) @ weights[depth] + weights[depth + 1]
    return _close(carry, part, found), y.squeeze(-2)


def sums_by_token(carry: Carry, part: MiniBatch, found: Gradients) -> Theta:
    """G_i of every token, `[N, K, in, out]` and `[N, K, 1, out]`."""
    sums: list[Tensor] = []
    for inputs, outputs in zip(found.inputs, found.outputs, strict=True):
        written = (part.lr * outputs).unsqueeze(-2)  # [N, K, 1, out]
        sums += [inputs.unsqueeze(-1) * written, written]
    if part.keys.shape[1] > 1:
        sums = [each.cumsum(1) for each in sums]
    if carry.sums is not None:
        sums = [each + before.unsqueeze(1) for each, before in zip(sums, carry.sums, strict=True)]
    return tuple(sums)


def weights_by_token(carry: Carry, part: MiniBatch, sums: Theta) -> Theta:
    """θ_i of every token, from `sums_by_token`."""
    scale = part.scale.unsqueeze(-1)
    return tuple(weight.unsqueeze(1) - scale * each for weight, each in zip(carry.theta, sums, strict=True))


def _close(carry: Carry, part: MiniBatch, found: Gradients) -> Carry:
    """The weights and sums after a part of a mini-batch."""
    if part.closing is None:
        return carry
    if part.closing is True and carry.sums is None:
        return Carry(_written(carry.theta, part.last_scale * part.lr, found), None)
    sums = _added(carry.sums, part.lr, found)
    if part.closing is False:
        return Carry(carry.theta, sums)
    if part.closing is True:
        return Carry(_moved(carry.theta, part.last_scale, sums), None)
    left = 1 - part.closing
    return Carry(_moved(carry.theta, part.closing * part.last_scale, sums), tuple(left * each for each in sums))


def _written(theta: Theta, rate: Tensor, found: Gradients) -> Theta:
    """θ₀ − Σ_j rate_j ∇_j: a mini-batch that began and ends here."""
    after: list[Tensor] = []
    for index, (inputs, outputs) in enumerate(zip(found.inputs, found.outputs, strict=True)):
        weighted = rate * outputs
        after.append(torch.baddbmm(theta[2 * index], inputs.transpose(1, 2), weighted, alpha=-1))
        after.append(theta[2 * index + 1] - weighted.sum(1, keepdim=True))
    return tuple(after)


def _added(sums: Theta | None, lr: Tensor, found: Gradients) -> Theta:
    """G + Σ_j lr_j ∇_j."""
    after: list[Tensor] = []
    for inputs, outputs in zip(found.inputs, found.outputs, strict=True):
        weighted = lr * outputs
        after += [torch.bmm(inputs.transpose(1, 2), weighted), weighted.sum(1, keepdim=True)]
    return tuple(after) if sums is None else tuple(a + b for a, b in zip(sums, after, strict=True))


def _moved(theta: Theta, rate: Tensor, sums: Theta) -> Theta:
    return tuple(weight - rate * each for weight, each in zip(theta, sums, strict=True))
