"""One mini-batch of inner steps, in two forms that give the same numbers.

All gradients of a mini-batch are taken at its starting weights θ₀. Token i is read with θ_i = θ₀ − s_i G_i, where
G_i = Σ_{j≤i} lr_j ∇loss_j(θ₀), and after the last slot θ_{M−1} is the next mini-batch's θ₀.

* The **dual form** never makes a θ_i: with η_ij = s_i lr_j,
  Z̄ = X_Q W + b − (η ⊙ tril(X_Q X_Kᵀ + 1)) g. That is masked attention whose values are gradients.
* The **primal form** makes every token's weights. It is taken for a single token, where it is the cheaper one.

A mini-batch that an earlier pass began brings its G along, and one that this pass does not finish hands it on: both forms take
any part of a mini-batch, so a pass may begin and end anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .inner_model import Gradients, Theta, affine, gelu, gradients


class MiniBatch(NamedTuple):
    """A mini-batch, or the part of one that a pass brings. N = rows of the batch times heads, K tokens.

    Attributes:
        query, keys: after RoPE, `[N, K, D]`.
        pull: γ(β − target), `[N, K, D]`.
        lr: `[N, K, 1]`; empty slots of a row have 0.
        scale: token scale s_i, `[N or 1, K, 1]`.
        closing: which of N finish their mini-batch here: all (`True`), none (`False`), or `[N, 1, 1]` of 0 and 1; `None`
            where nobody asks what comes after.
        dual: what the dual form needs, made for all mini-batches at once; `None` where the primal one is taken.
        last_scale: s of the last slot, `[]`.
    """

    query: Tensor
    keys: Tensor
    pull: Tensor
    lr: Tensor
    scale: Tensor
    closing: bool | Tensor | None
    dual: DualPart | None
    last_scale: Tensor


class DualPart(NamedTuple):
    """What of the dual form depends on no weights.

    Attributes:
        eta: tril(s_i lr_j), `[N, K, K]`.
        reads: η ⊙ tril(X_Q X_Kᵀ + 1), `[N, K, K]`.
        rate: s_last lr_j, what a token's gradient is worth at the end of its mini-batch, `[N, K, 1]`.
        rated_keys: rate times keys, `[N, K, D]`.
    """

    eta: Tensor
    reads: Tensor
    rate: Tensor
    rated_keys: Tensor


class Carry(NamedTuple):
    """What goes from one mini-batch to the next.

    Attributes:
        theta: weights at the start of the running mini-batch.
        sums: G, of the shapes of `theta`; `None` where no row has begun one.
    """

    theta: Theta
    sums: Theta | None


def dual_part(query: Tensor, keys: Tensor, lr: Tensor, scale: Tensor, last_scale: Tensor) -> DualPart:
    """Of any number of mini-batches at once, `[..., K, D]` and `[..., K, 1]`."""
    eta = (scale * lr.transpose(-1, -2)).tril()
    reads = torch.addcmul(eta, eta, query @ keys.transpose(-1, -2))
    rate = last_scale * lr
    return DualPart(eta, reads, rate, rate * keys)


def step(carry: Carry, part: MiniBatch, gain_squared: Tensor) -> tuple[Carry, Tensor]:
    """Learn from a part of a mini-batch and read it, in the form for which it is made.

    Returns:
        What comes after it, and f(q_i; θ_i) of its tokens, `[N, K, D]`.
    """
    return (primal if part.dual is None else dual)(carry, part, gain_squared)


def dual(carry: Carry, part: MiniBatch, gain_squared: Tensor) -> tuple[Carry, Tensor]:
    """As `step`, without any token's own weights."""
    assert part.dual is not None
    theta, sums = carry
    found = gradients(theta, part.keys, part.pull, gain_squared)
    y = part.query
    for index, (inputs, outputs) in enumerate(zip(found.inputs, found.outputs, strict=True)):
        weight, bias = theta[2 * index : 2 * index + 2]
        reads = part.dual.reads
        if index:
            y = gelu(y)
            reads = torch.addcmul(part.dual.eta, part.dual.eta, torch.bmm(y, inputs.transpose(1, 2)))
        before = affine(y, weight, bias)
        if sums is not None:
            before = before - part.scale * affine(y, sums[2 * index], sums[2 * index + 1])
        y = torch.baddbmm(before, reads, outputs, alpha=-1)
    if part.closing is None:
        return carry, y
    if part.closing is True and sums is None:
        return Carry(_written(theta, part.dual, found), None), y
    sums = _added(sums, part.lr, found.inputs, found.outputs)
    return _closed(carry, part, sums, None), y


def primal(carry: Carry, part: MiniBatch, gain_squared: Tensor) -> tuple[Carry, Tensor]:
    """As `step`, by making one token's weights after the other."""
    found = gradients(carry.theta, part.keys, part.pull, gain_squared)
    sums, theta, read_out = carry.sums, carry.theta, []
    for i in range(part.keys.shape[1]):
        at = slice(i, i + 1)
        inputs, outputs = ([each[:, at] for each in every] for every in (found.inputs, found.outputs))
        sums = _added(sums, part.lr[:, at], inputs, outputs)
        theta = _moved(carry.theta, part.scale[:, at], sums)
        read_out.append(_read(theta, part.query[:, at]))
    assert sums is not None
    return _closed(carry, part, sums, theta), torch.cat(read_out, dim=1)


def _read(theta: Theta, y: Tensor) -> Tensor:
    for depth in range(0, len(theta), 2):
        y = affine(gelu(y) if depth else y, theta[depth], theta[depth + 1])
    return y


def _written(theta: Theta, made: DualPart, found: Gradients) -> Theta:
    """θ₀ − Σ_j s_last lr_j ∇_j: a mini-batch that began and ends here."""
    after: list[Tensor] = []
    for index, (inputs, outputs) in enumerate(zip(found.inputs, found.outputs, strict=True)):
        left, right = (inputs, made.rate * outputs) if index else (made.rated_keys, outputs)
        after.append(torch.baddbmm(theta[2 * index], left.transpose(1, 2), right, alpha=-1))
        after.append(torch.baddbmm(theta[2 * index + 1], made.rate.transpose(1, 2), outputs, alpha=-1))
    return tuple(after)


def _added(sums: Theta | None, lr: Tensor, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Theta:
    """G + Σ_j lr_j ∇_j."""
    after: list[Tensor] = []
    for index, (given, gradient) in enumerate(zip(inputs, outputs, strict=True)):
        weighted, given = lr * gradient, given.transpose(1, 2)
        total = weighted.sum(1, keepdim=True) if weighted.shape[1] > 1 else weighted
        if sums is None:
            after += [torch.bmm(given, weighted), total]
        else:
            after += [torch.baddbmm(sums[2 * index], given, weighted), sums[2 * index + 1] + total]
    return tuple(after)


def _moved(theta: Theta, rate: Tensor, sums: Theta) -> Theta:
    """θ₀ − rate G."""
    return tuple(torch.addcmul(weight, rate, each, value=-1) for weight, each in zip(theta, sums, strict=True))


def _closed(carry: Carry, part: MiniBatch, sums: Theta, last: Theta | None) -> Carry:
    """The weights and sums after a part.

    Args:
        last: weights of its last token, where they are made.
    """
    if part.closing is None or part.closing is False:
        return Carry(carry.theta, sums)
    if part.closing is True:
        return Carry(_moved(carry.theta, part.last_scale, sums) if last is None else last, None)
    left = 1 - part.closing
    return Carry(_moved(carry.theta, part.closing * part.last_scale, sums), tuple(left * each for each in sums))


def sums_by_token(carry: Carry, part: MiniBatch, found: Gradients) -> Theta:
    """G_i of every token at once, `[N, K, in, out]` and `[N, K, 1, out]`: for those who watch."""
    sums: list[Tensor] = []
    for inputs, outputs in zip(found.inputs, found.outputs, strict=True):
        written = (part.lr * outputs).unsqueeze(-2)  # [N, K, 1, out]
        sums += [inputs.unsqueeze(-1) * written, written]
    sums = [each.cumsum(1) for each in sums]
    if carry.sums is not None:
        sums = [each + before.unsqueeze(1) for each, before in zip(sums, carry.sums, strict=True)]
    return tuple(sums)


def weights_by_token(carry: Carry, part: MiniBatch, sums: Theta) -> Theta:
    """θ_i of every token at once, from `sums_by_token`."""
    scale = part.scale.unsqueeze(-1)
    return tuple(weight.unsqueeze(1) - scale * each for weight, each in zip(carry.theta, sums, strict=True))
