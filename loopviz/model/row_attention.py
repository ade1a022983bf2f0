"""Attention of rows that have caches of their own: layers in which everything is computed for all rows, and attention row by row."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaAttention, eager_attention_forward

from .cache import LoopCache
from .lean_layers import one_token_attention
from .watching import shallow

_NAME = "loopviz_by_row"


class RowCaches:
    """What a layer sees as its cache: each row writes into its own, and gets its own keys and values, one tensor a row."""

    def __init__(self, caches: Sequence[LoopCache]) -> None:
        self.caches = caches

    def update(self, k: Tensor, v: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        pairs = zip(self.caches, k.split(1), v.split(1), strict=True)
        return tuple(zip(*(cache.layers[layer_idx].update(a, b) for cache, a, b in pairs), strict=True))  # type: ignore[return-value]  # two of them


def by_row(layer: Any) -> Any:
    """A decoder layer over the same parameters whose attention is computed row by row."""
    twin, attention = shallow(layer), shallow(layer.self_attn)
    twin._modules["self_attn"] = attention
    attention.config = copy.copy(attention.config)
    attention.config._attn_implementation = _NAME
    attention.loop_plain_config = layer.self_attn.config
    for module in (twin, attention):
        module._compiled_call_impl = None  # a compiled call would still run the plain layer
    return twin


def _attention_by_row(
    module: LlamaAttention, query: Tensor, key: Sequence[Tensor], value: Sequence[Tensor], mask: None, **kwargs: Any
) -> tuple[Tensor, None]:
    """An attention function of transformers' over rows `[B, H, 1, D]` with keys `[1, K, S, D]` of a length of their own."""
    plain: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS.get_interface(
        module.loop_plain_config._attn_implementation, eager_attention_forward
    )
    rows = zip(query.split(1), key, value, strict=True)
    if plain is sdpa_attention_forward and mask is None:
        heads = [one_token_attention(module, q, k, v).view(1, 1, -1, q.shape[-1]) for q, k, v in rows]
        return torch.cat(heads), None
    return torch.cat([plain(module, q, k, v, mask, **kwargs)[0] for q, k, v in rows]), None


ALL_ATTENTION_FUNCTIONS.register(_NAME, _attention_by_row)
