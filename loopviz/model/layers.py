"""Decoder layers whose norms stand elsewhere than Llama's, or that norm queries and keys: transformers' parts, rearranged.

Attention and MLP are transformers' own, called as they are. A plain Llama's layers are left alone: this file then does
nothing at all.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaDecoderLayer, LlamaRMSNorm

from .configuration import LoopLlamaConfig


class PlacedNormLayer(LlamaDecoderLayer):
    """A Llama layer with a norm n' after attention and MLP, beside (or instead of) the norm n before each.

    `pre_branch`: `x + n'(f(n x))`; `pre_stream`: `n'(x + f(n x))`; `branch`: `x + n'(f(x))`.

    Args:
        config: with one of these as `norm_placement`.
        layer_idx: of the layer.
    """

    def __init__(self, config: LoopLlamaConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        self.on_stream = config.norm_placement == "pre_stream"
        for name in ("input_layernorm", "post_attention_layernorm"):
            setattr(self, f"{name}_2", LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps))
            if config.norm_placement == "branch":
                setattr(self, name, nn.Identity())

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """As `LlamaDecoderLayer.forward`; states `[B, T, H]` in and out."""
        attended, _ = self.self_attn(self.input_layernorm(hidden_states), *args, **kwargs)
        hidden_states = self._joined(hidden_states, attended, self.input_layernorm_2)
        made = self.mlp(self.post_attention_layernorm(hidden_states))
        return self._joined(hidden_states, made, self.post_attention_layernorm_2)

    def _joined(self, stream: Tensor, branch: Tensor, norm: nn.Module) -> Tensor:
        joined: Tensor = norm(stream + branch) if self.on_stream else stream + norm(branch)
        return joined


class NormedProjection(nn.Linear):
    """A projection to queries or keys with an RMSNorm on what it gives, before RoPE.

    Args:
        plain: the projection that it takes the place of.
        width: numbers that are normed together: those of a head, or of all heads.
        eps: of the norm.
    """

    def __init__(self, plain: nn.Linear, width: int, eps: float) -> None:
        of_it = {"device": plain.weight.device, "dtype": plain.weight.dtype}
        super().__init__(plain.in_features, plain.out_features, plain.bias is not None, **of_it)
        self.norm = LlamaRMSNorm(width, eps=eps)
        self.width = width

    def forward(self, input: Tensor) -> Tensor:
        """`[..., H]` to `[..., heads * head_dim]`."""
        projected = super().forward(input).unflatten(-1, (-1, self.width))
        normed: Tensor = self.norm(projected)
        return normed.flatten(-2)


def arrange_layers(layers: nn.ModuleList, config: LoopLlamaConfig) -> None:
    """Give a new model's layers the norms that its configuration asks for, before its weights are drawn or read."""
    for index in range(len(layers)):
        if config.norm_placement != "pre":
            layers[index] = PlacedNormLayer(config, index)
        if config.qk_norm != "none":
            _norm_queries_and_keys(layers[index].self_attn, config)


def _norm_queries_and_keys(attention: LlamaAttention, config: LoopLlamaConfig) -> None:
    for name in ("q_proj", "k_proj"):
        plain = getattr(attention, name)
        width = attention.head_dim if config.qk_norm == "head" else plain.out_features
        setattr(attention, name, NormedProjection(plain, width, config.rms_norm_eps))
