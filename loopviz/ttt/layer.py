"""The TTT layer: what stands where attention stands in a Transformer. Its memory are the weights of an inner model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init

from .chunk import Chunk
from .configuration import TTTConfig
from .conv import causal_conv, convolve
from .inner_model import NAMES, Theta, gelu, shapes
from .inner_step import Carry, DualPart, MiniBatch, dual_part, step
from .norm_loss import EPS, HeadNorm
from .scan import scan


@dataclass
class LayerState:
    """What a layer keeps between passes, by row: constant in size, however much was read.

    Attributes:
        weights: θ₀ of the running mini-batch by name, `[B, H, in, out]` or `[B, H, 1, out]`; float32 at least.
        sums: G, the gradients of its tokens so far times their learning rates, of the same shapes; `None` for zeros.
        convs: last inputs of each convolution by name, `[B, C, kernel]`.
    """

    weights: dict[str, Tensor]
    sums: dict[str, Tensor] | None = None
    convs: dict[str, Tensor] = field(default_factory=dict)


class Tables(NamedTuple):
    """By slot of a mini-batch, the same for all layers.

    Attributes:
        rotation: cos + i sin of every pair's angle, for each column of the grid, `[1 or B, 1, G, D/2]`, complex.
        inverse: 1 / (i + 1), `[M]`.
    """

    rotation: Tensor
    inverse: Tensor


class Inner(NamedTuple):
    """What entered a layer's inner loop in a pass, for those who watch; columns are the grid's.

    Attributes:
        query, keys, values: `[B, H, G, D]`; query and keys after RoPE.
        lr: `[B, H, G]`; 0 in empty columns.
        scale: `[1 or B, G]`.
        norm: gain and bias `[N, 1, D]`.
        steps: every part's carry and mini-batch.
    """

    query: Tensor
    keys: Tensor
    values: Tensor
    lr: Tensor
    scale: Tensor
    norm: HeadNorm
    steps: list[tuple[Carry, MiniBatch]]


def tables(config: TTTConfig, slots: Tensor, dtype: torch.dtype) -> Tables:
    """Computed for every pass, and no buffers: what is not saved cannot come back as anything else.

    Args:
        slots: `[1 or B, G]`.
        dtype: of the inner loop.
    """
    D, M = config.head_dim, config.mini_batch_size
    pairs = torch.arange(0, D, 2, device=slots.device, dtype=dtype) / D
    angles = slots[:, None, :, None] * config.rope_theta**-pairs
    inverse = 1 / torch.arange(1, M + 1, device=slots.device, dtype=dtype)
    return Tables(torch.polar(torch.ones_like(angles), angles), inverse)


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """RoPE over adjacent pairs, which are complex numbers here: `[B, H, G, D]`."""
    pairs = torch.view_as_complex(x.contiguous().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotation).flatten(-2)


def _plain(device: str) -> AbstractContextManager[None]:
    """Inside, nothing is cast to a smaller type behind our back."""
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


class TTTLayer(nn.Module):
    """Test-time training as a layer: one inner model a head learns to say v − k of k, and is asked q.

    Args:
        config: of the model; its `ttt_layer_type` is the inner model's kind.

    Attributes:
        names: the inner model's parameters, in order.
    """

    def __init__(self, config: TTTConfig) -> None:
        super().__init__()
        C, H, D = config.hidden_size, config.num_attention_heads, config.head_dim
        # Asked in every pass, and a configuration's own attributes take longer than some of the arithmetic.
        self.head_dim, self.base_rate, self.group_size = D, config.ttt_base_lr / D, config.scan_checkpoint_group_size
        self.share_qk, self.use_gate, self.names = config.share_qk, config.use_gate, NAMES[config.ttt_layer_type]
        self.q_proj = nn.Linear(C, C, bias=False)
        if config.share_qk:
            self.conv_q, self.conv_k = causal_conv(config), causal_conv(config)
        else:
            self.k_proj = nn.Linear(C, C, bias=False)
        self.v_proj, self.o_proj = nn.Linear(C, C, bias=False), nn.Linear(C, C, bias=False)
        if config.use_gate:
            self.g_proj = nn.Linear(C, C, bias=False)
        self.learnable_token_idx = nn.Parameter(torch.empty(config.mini_batch_size))
        self.learnable_ttt_lr_weight = nn.Parameter(torch.empty(H, 1, C))
        self.learnable_ttt_lr_bias = nn.Parameter(torch.empty(H, 1))
        self.ttt_norm_weight, self.ttt_norm_bias = nn.Parameter(torch.empty(H, D)), nn.Parameter(torch.empty(H, D))
        self.post_norm = nn.LayerNorm(C, eps=EPS)
        for name, shape in shapes(config.ttt_layer_type, H, D).items():
            self.register_parameter(name, nn.Parameter(torch.empty(shape)))

    def init_weights(self, std: float) -> None:
        """Give the parameters of this module itself their first values (its children have their own)."""
        for name in self.names:
            value = getattr(self, name)
            init.normal_(value, mean=0.0, std=std) if name.startswith("W") else init.zeros_(value)
        init.normal_(self.learnable_ttt_lr_weight, mean=0.0, std=std)
        init.ones_(self.ttt_norm_weight)
        for value in (self.ttt_norm_bias, self.learnable_ttt_lr_bias, self.learnable_token_idx):
            init.zeros_(value)

    @property
    def inner_dtype(self) -> torch.dtype:
        """What the inner loop computes in: float32 at least, whatever the weights are stored in."""
        return torch.promote_types(self.ttt_norm_weight.dtype, torch.float32)

    def start(self) -> dict[str, Tensor]:
        """W_0: the inner model before the first token, by name, `[H, in, out]`."""
        return {name: getattr(self, name).to(self.inner_dtype) for name in self.names}

    def norm(self, rows: int = 1) -> HeadNorm:
        """The heads' LayerNorm, for `rows * H` inner models."""
        gain, bias = (
            each.to(self.inner_dtype).repeat(rows, 1).unsqueeze(1)
            for each in (self.ttt_norm_weight, self.ttt_norm_bias)
        )
        return HeadNorm(gain, bias)

    def token_scale(self, inverse: Tensor) -> Tensor:
        """s_i of each slot, `[M]`: 1 / (i + 1) and what was learned on top, never below 0."""
        return (inverse + self.learnable_token_idx.to(inverse.dtype)).clamp(min=0)

    def learning_rate(self, x: Tensor) -> Tensor:
        """ttt_base_lr σ(w_h x_t + b_h) / D of every token and head, `[B, P, C] -> [B, H, P]`."""
        dtype = self.inner_dtype
        weight, bias = self.learnable_ttt_lr_weight[:, 0].to(dtype), self.learnable_ttt_lr_bias[:, 0].to(dtype)
        rate = torch.sigmoid(F.linear(x.to(dtype), weight, bias)).transpose(1, 2)
        return rate * self.base_rate

    def forward(
        self,
        x: Tensor,
        chunk: Chunk,
        given: Tables,
        state: LayerState | None = None,
        *,
        keep: bool = False,
        watched: bool = False,
        lr_scale: Tensor | None = None,
    ) -> tuple[Tensor, LayerState | None, Inner | None]:
        """One pass.

        Args:
            x: the block's normed state, `[B, P, C]`.
            chunk: the pass's layout.
            given: `tables` of its slots.
            state: after the pass before; `None` at the beginning.
            keep: the state after this pass is wanted.
            watched: what entered the inner loop is wanted.
            lr_scale: factor on every token's inner learning rate, `[B, P]`.

        Returns:
            Output `[B, P, C]`, the state, and what entered; the last two where they are wanted.
        """
        query, keys, values, convs = self._project(x, chunk, state)
        with _plain(x.device.type):
            lr = self.learning_rate(x)
            if lr_scale is not None:
                lr = lr * lr_scale[:, None].to(lr.dtype)
            z, carry, inner = self._learn((query, keys, values), lr, chunk, given, state, keep, watched)
            z = chunk.from_grid(z).transpose(1, 2).flatten(2)  # [B, P, C]
            weight, bias = self.post_norm.weight.to(z.dtype), self.post_norm.bias.to(z.dtype)
            z = F.layer_norm(z, z.shape[-1:], weight, bias, EPS).to(x.dtype)
        if self.use_gate:
            z = gelu(self.g_proj(x)) * z
        return self.o_proj(z), self._state(carry, convs, len(x)) if keep else None, inner

    def _project(
        self, x: Tensor, chunk: Chunk, state: LayerState | None
    ) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """Query, keys and values, `[B, P, C]`, and the convolutions' last inputs."""
        if not self.share_qk:
            return self.q_proj(x), self.k_proj(x), self.v_proj(x), {}
        both, last = self.q_proj(x), {} if state is None else state.convs
        query, after_q = convolve(self.conv_q, both, last.get("ttt_conv_q"), chunk.counts)
        keys, after_k = convolve(self.conv_k, both, last.get("ttt_conv_k"), chunk.counts)
        return query, keys, self.v_proj(x), {"ttt_conv_q": after_q, "ttt_conv_k": after_k}

    def _learn(
        self,
        projected: Sequence[Tensor],
        lr: Tensor,
        chunk: Chunk,
        given: Tables,
        state: LayerState | None,
        keep: bool,
        watched: bool,
    ) -> tuple[Tensor, Carry, Inner | None]:
        """The inner loop over the grid: output `[B, H, G, D]`, what comes after it, what entered it."""
        B, D, dtype = len(lr), self.head_dim, self.inner_dtype
        query, keys, values = (
            chunk.to_grid(each.to(dtype).unflatten(-1, (-1, D)).transpose(1, 2)) for each in projected
        )
        query, keys, lr = rotate(query, given.rotation), rotate(keys, given.rotation), chunk.to_grid(lr)
        if chunk.valid is not None:
            lr = lr * chunk.valid[:, None]
        scales = self.token_scale(given.inverse)
        norm = self.norm(B)
        inner = Inner(query, keys, values, lr, scales[chunk.slots], norm, [])
        parts = mini_batches(inner, chunk, scales[-1], keep)
        gain_squared = norm.gain.square()

        def one(carry: Carry, part: MiniBatch) -> tuple[Carry, Tensor]:
            if watched:
                inner.steps.append((carry, part))
            return step(carry, part, gain_squared)

        group = 0 if watched else self.group_size
        carry, read = scan(one, self._carry(state, B, chunk), parts, group)
        z = query + norm(torch.cat(read, dim=1)).unflatten(0, (B, -1))
        return z, carry, inner if watched else None

    def _carry(self, state: LayerState | None, B: int, chunk: Chunk) -> Carry:
        """The inner models where the pass begins, `N = B * H` of each."""
        if state is None:
            # Copied for one row too: a state that is the parameters themselves would let whoever writes into it change them.
            return Carry(tuple(w.repeat(B, 1, 1) for w in self.start().values()), None)
        sums = state.sums if chunk.begun else None
        return Carry(
            tuple(state.weights[name].flatten(0, 1) for name in self.names),
            None if sums is None else tuple(sums[name].flatten(0, 1) for name in self.names),
        )

    def _state(self, carry: Carry, convs: dict[str, Tensor], B: int) -> LayerState:
        """Detached: a later pass learns from its own tokens only."""

        def named(values: Theta) -> dict[str, Tensor]:
            pairs = zip(self.names, values, strict=True)
            return {name: value.detach().unflatten(0, (B, -1)) for name, value in pairs}

        sums = None if carry.sums is None else named(carry.sums)
        return LayerState(named(carry.theta), sums, {name: last.detach() for name, last in convs.items()})


def mini_batches(inner: Inner, chunk: Chunk, last_scale: Tensor, keep: bool) -> list[MiniBatch]:
    """A pass as mini-batches; what needs no weights is computed for all of one width at once.

    Args:
        inner: what enters the inner loop.
        chunk: the pass's layout.
        last_scale: s of a mini-batch's last slot.
        keep: what comes after the last one is wanted.
    """
    H = inner.lr.shape[1]
    query, keys = inner.query.flatten(0, 1), inner.keys.flatten(0, 1)  # [N, G, D]
    pull = inner.norm.pull((inner.values - inner.keys).flatten(0, 1))
    lr, scale = inner.lr.flatten(0, 1).unsqueeze(-1), inner.scale.unsqueeze(-1)
    if len(scale) > 1:
        scale = scale.repeat_interleave(H, dim=0)
    made: list[MiniBatch] = []
    for n, width, columns in _runs(chunk):
        cut = [each[:, columns].unflatten(1, (n, width)) for each in (query, keys, pull, lr, scale)]
        q, k, p, rates, s = (each.unbind(1) for each in cut)
        duals: list[DualPart | None] = [None] * n
        if width > 1:
            shared = dual_part(cut[0], cut[1], cut[3], cut[4], last_scale)
            duals = [DualPart(*each) for each in zip(*(value.unbind(1) for value in shared), strict=True)]
        for j in range(n):
            closing = _closing(chunk, len(made), keep, H, lr)
            made.append(MiniBatch(q[j], k[j], p[j], rates[j], s[j], closing, duals[j], last_scale))
    return made


def _runs(chunk: Chunk) -> list[tuple[int, int, slice]]:
    """Parts of the grid of equal width side by side: how many, how wide, which columns."""
    found: list[tuple[int, int, slice]] = []
    for part in chunk.parts:
        width = part.stop - part.start
        if found and found[-1][1] == width:
            n, _, columns = found.pop()
            found.append((n + 1, width, slice(columns.start, part.stop)))
        else:
            found.append((1, width, slice(part.start, part.stop)))
    return found


def _closing(chunk: Chunk, index: int, keep: bool, H: int, like: Tensor) -> bool | Tensor | None:
    closing = chunk.parts[index].closing
    if not keep and index == len(chunk.parts) - 1:
        return None
    if isinstance(closing, bool):
        return closing
    return like.new_tensor(closing).repeat_interleave(H)[:, None, None]
