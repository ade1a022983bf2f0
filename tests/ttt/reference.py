"""A TTT model read off the formulas: one row, one token at a time, inner gradients by autograd, no mini-batch in sight."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from loopviz.ttt import TTTForCausalLM


class Reference:
    """`Reference(model)(tokens)` -> logits `[T, vocab]`, in float64. Reads a state dict and a configuration, no code of ours.

    Attributes:
        before, after: inner loss of each token by layer and head, `[layers][T][H]`.
    """

    def __init__(self, model: TTTForCausalLM) -> None:
        self.config = model.config
        self.p = {name: value.detach().double() for name, value in model.state_dict().items()}
        self.before: list[list[list[float]]] = []
        self.after: list[list[list[float]]] = []

    def __call__(self, tokens: list[int]) -> Tensor:
        x = [self.p["model.embed_tokens.weight"][token] for token in tokens]
        self.before, self.after = [], []
        for layer in range(self.config.num_hidden_layers):
            x = self._block(f"model.layers.{layer}.", x)
        head = self.p.get("lm_head.weight", self.p["model.embed_tokens.weight"])
        return torch.stack([head @ self._rms(each, "model.norm.weight") for each in x])

    def _rms(self, x: Tensor, name: str) -> Tensor:
        return self.p[name] * x / (x.square().mean() + self.config.rms_norm_eps).sqrt()

    def _conv(self, x: list[Tensor], name: str) -> list[Tensor]:
        weight, bias = self.p[name + "weight"][:, 0], self.p[name + "bias"]
        n = weight.shape[1]
        return [
            bias + sum(weight[:, n - 1 - back] * x[t - back] for back in range(min(n, t + 1))) for t in range(len(x))
        ]

    def _block(self, at: str, x: list[Tensor]) -> list[Tensor]:
        if self.config.pre_conv:
            out = self._conv([self._rms(each, at + "conv.norm.weight") for each in x], at + "conv.conv.")
            x = [a + b for a, b in zip(x, out, strict=True)]
        out = self._ttt(at + "seq_modeling_block.", [self._rms(each, at + "seq_norm.weight") for each in x])
        x = [a + b for a, b in zip(x, out, strict=True)]
        mlp = {name: self.p[f"{at}mlp.{name}_proj.weight"] for name in ("gate", "up", "down")}
        normed = [self._rms(each, at + "ffn_norm.weight") for each in x]
        return [a + mlp["down"] @ (F.silu(mlp["gate"] @ n) * (mlp["up"] @ n)) for a, n in zip(x, normed, strict=True)]

    def _rotated(self, x: Tensor, slot: int) -> Tensor:
        D = len(x)
        out = torch.empty_like(x)
        for pair in range(0, D, 2):
            angle = torch.tensor(slot * self.config.rope_theta ** (-pair / D))
            out[pair] = x[pair] * angle.cos() - x[pair + 1] * angle.sin()
            out[pair + 1] = x[pair] * angle.sin() + x[pair + 1] * angle.cos()
        return out

    def _ttt(self, at: str, x: list[Tensor]) -> list[Tensor]:
        c, p = self.config, {name.removeprefix(at): v for name, v in self.p.items() if name.startswith(at)}
        H, M = c.num_attention_heads, c.mini_batch_size
        q, v = [p["q_proj.weight"] @ each for each in x], [p["v_proj.weight"] @ each for each in x]
        if c.share_qk:
            q, k = self._conv(q, at + "conv_q."), self._conv(q, at + "conv_k.")
        else:
            k = [p["k_proj.weight"] @ each for each in x]
        names = [name for name in ("W1", "b1", "W2", "b2") if name in p]
        heads: list[list[Tensor]] = []
        before, after = [[0.0] * H for _ in x], [[0.0] * H for _ in x]
        for h in range(H):
            theta, gathered, out = [p[name][h] for name in names], [torch.zeros_like(p[name][h]) for name in names], []
            gain, bias = p["ttt_norm_weight"][h], p["ttt_norm_bias"][h]

            def norm(z: Tensor, gain: Tensor = gain, bias: Tensor = bias) -> Tensor:
                return F.layer_norm(z, z.shape, gain, bias, 1e-6)

            def inner(w: list[Tensor], z: Tensor) -> Tensor:
                z = z @ w[0] + w[1][0]
                return z if len(w) == 2 else F.gelu(z, approximate="tanh") @ w[2] + w[3][0]

            for t, token in enumerate(x):
                slot = t % M
                qt, kt = (self._rotated(each[t].view(H, -1)[h], slot) for each in (q, k))
                target = v[t].view(H, -1)[h] - kt
                lr = c.ttt_base_lr * torch.sigmoid(
                    p["learnable_ttt_lr_weight"][h, 0] @ token + p["learnable_ttt_lr_bias"][h, 0]
                )
                scale = (1 / (slot + 1) + p["learnable_token_idx"][slot]).clamp(min=0)
                leaves = [each.detach().requires_grad_() for each in theta]
                with torch.enable_grad():
                    loss = 0.5 * (norm(inner(leaves, kt)) - target).square().sum()
                    steps = torch.autograd.grad(loss, leaves)
                gathered = [g + lr / c.head_dim * step for g, step in zip(gathered, steps, strict=True)]
                now = [w - scale * g for w, g in zip(theta, gathered, strict=True)]
                before[t][h] = float(loss)
                after[t][h] = float(0.5 * (norm(inner(now, kt)) - target).square().sum())
                out.append(qt + norm(inner(now, qt)))
                if slot == M - 1:
                    theta, gathered = now, [torch.zeros_like(g) for g in gathered]
            heads.append(out)
        self.before.append(before)
        self.after.append(after)
        z = [torch.cat([out[t] for out in heads]) for t in range(len(x))]
        z = [F.layer_norm(each, each.shape, p["post_norm.weight"], p["post_norm.bias"], 1e-6) for each in z]
        if c.use_gate:
            z = [F.gelu(p["g_proj.weight"] @ a, approximate="tanh") * b for a, b in zip(x, z, strict=True)]
        return [p["o_proj.weight"] @ each for each in z]
