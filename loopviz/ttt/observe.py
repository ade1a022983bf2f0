"""What hooks are told: by layer, head and token, what the inner loop did in a pass. Without a hook none of it is computed."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from .chunk import Chunk
from .inner_model import Gradients, Theta, gradients, read
from .inner_step import Carry, MiniBatch, sums_by_token, weights_by_token
from .layer import Inner, TTTLayer
from .norm_loss import HeadNorm, loss


class DualMatrix(NamedTuple):
    """The dual form's matrix of one mini-batch, or of the part that a pass brought.

    Attributes:
        tokens: the pass's column of each row and column of the matrix, `[B, K]`; -1 where a row has none.
        values: η ⊙ tril(X_Q X_Kᵀ), `[B, H, K, K]`: how strongly token i reads the gradient of token j.
    """

    tokens: Tensor
    values: Tensor


class _Curves(NamedTuple):
    """By token of a part, `[N, K]`."""

    before: Tensor
    after: Tensor
    drift: Tensor
    gathered: Tensor


class InnerStep:
    """What one layer's inner loop did in one pass. Everything is detached, computed when it is asked for, and kept.

    Tensors by token are of the pass's columns as they were given, `[B, H, T]`; padding is 0 there.

    Attributes:
        layer: index of the layer.
        positions: how many of its row's tokens came before each, `[B, T]`.
        real: `[B, T]` bool, True where the token is not padding; `None` when all are.
        n_tokens: T.
    """

    def __init__(self, layer: int, module: TTTLayer, chunk: Chunk, inner: Inner) -> None:
        self.layer, self.n_tokens, self.real = layer, chunk.n_tokens, chunk.real
        self.positions = chunk.positions
        self._module, self._chunk, self._inner = module, chunk, inner

    @property
    def lr(self) -> Tensor:
        """Inner learning rate of each token (steering included), `[B, H, T]`."""
        return self._chunk.as_given(self._inner.lr.detach())

    @property
    def token_scale(self) -> Tensor:
        """Token scale s_i of each token, `[B, T]`."""
        scale = self._inner.scale.detach()
        return self._chunk.as_given(scale.expand(len(self._inner.lr), -1)[:, None])[:, 0]

    @property
    def query(self) -> Tensor:
        """After RoPE, `[B, H, T, D]`."""
        return self._chunk.as_given(self._inner.query.detach())

    @property
    def keys(self) -> Tensor:
        """After RoPE, `[B, H, T, D]`."""
        return self._chunk.as_given(self._inner.keys.detach())

    @property
    def values(self) -> Tensor:
        """`[B, H, T, D]`; what a key is to be turned into is `values - keys`."""
        return self._chunk.as_given(self._inner.values.detach())

    @property
    def loss_before(self) -> Tensor:
        """Inner loss of each token under its mini-batch's starting weights, `[B, H, T]`."""
        return self._by_token.before

    @property
    def loss_after(self) -> Tensor:
        """Inner loss of each token under its own weights, its update included, `[B, H, T]`."""
        return self._by_token.after

    @property
    def drift(self) -> Tensor:
        """‖W_t − W_0‖ over all parameters of a head's inner model, `[B, H, T]`."""
        return self._by_token.drift

    @property
    def gathered(self) -> Tensor:
        """‖G_t‖: the mini-batch's gradients so far times their learning rates, `[B, H, T]`."""
        return self._by_token.gathered

    @cached_property
    def start_norm(self) -> Tensor:
        """‖W_0‖ of each head, `[H]`: what `drift` may be divided by."""
        return _norm(tuple(value.detach() for value in self._module.start().values()))

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """W_t of the last part's tokens by name, `[B, H, K, in, out]`: the columns of the last of `dual_matrices`."""
        carry, part = self._inner.steps[-1]
        with torch.no_grad():
            found = self._found(carry, part)
            B = len(self._inner.lr)
            theta = weights_by_token(_detached(carry), part, sums_by_token(_detached(carry), part, found))
        pairs = zip(self._module.names, theta, strict=True)
        return {name: value.unflatten(0, (B, -1)) for name, value in pairs}

    def dual_matrices(self) -> list[DualMatrix]:
        """η ⊙ tril(X_Q X_Kᵀ) of every mini-batch of the pass."""
        B, tokens, found = len(self._inner.lr), self._chunk.tokens(), []
        with torch.no_grad():
            for part, (_, made) in zip(self._chunk.parts, self._inner.steps, strict=True):
                scores = made.query @ made.keys.transpose(1, 2)
                values = (made.scale * made.lr.transpose(1, 2) * scores).tril()
                found.append(DualMatrix(tokens[:, part.start : part.stop], values.unflatten(0, (B, -1))))
        return found

    @cached_property
    def _by_token(self) -> _Curves:
        B = len(self._inner.lr)
        targets = (self._inner.values - self._inner.keys).detach().flatten(0, 1)  # [N, G, D]
        start = tuple(value.detach().repeat(B, 1, 1).unsqueeze(1) for value in self._module.start().values())
        with torch.no_grad():
            curves = [
                self._curves(carry, made, targets[:, part.start : part.stop], start)
                for part, (carry, made) in zip(self._chunk.parts, self._inner.steps, strict=True)
            ]
        whole = (torch.cat(each, dim=1).unflatten(0, (B, -1)) for each in zip(*curves, strict=True))
        return _Curves(*(self._chunk.as_given(each) for each in whole))

    def _found(self, carry: Carry, part: MiniBatch) -> Gradients:
        return gradients(carry.theta, part.keys, part.pull, self._inner.norm.gain.square())

    def _curves(self, carry: Carry, part: MiniBatch, target: Tensor, start: Theta) -> _Curves:
        norm, found = self._inner.norm, self._found(carry, part)
        sums = sums_by_token(carry, part, found)
        theta = weights_by_token(carry, part, sums)
        after = read(theta, part.keys.unsqueeze(-2)).squeeze(-2)
        drift = _norm(tuple(now - then for now, then in zip(theta, start, strict=True)))
        return _Curves(loss(found.read, target, norm), loss(after, target, norm), drift, _norm(sums))


def _norm(values: Theta) -> Tensor:
    """Of all of an inner model's parameters together, without their last two dimensions."""
    return torch.stack([value.square().sum((-1, -2)) for value in values]).sum(0).sqrt()


def _detached(carry: Carry) -> Carry:
    return Carry(
        tuple(value.detach() for value in carry.theta),
        None if carry.sums is None else tuple(value.detach() for value in carry.sums),
    )


def reconstruction(theta: Theta, keys: Tensor, targets: Tensor, norm: HeadNorm) -> Tensor:
    """Inner loss of tokens under any weights, `[N, K]`: what these still hold of them.

    Args:
        theta: `[N, in, out]` each.
        keys, targets: `[N, K, D]`.
    """
    return loss(read(theta, keys), targets, norm)
