"""The same model with fewer, or more, key/value heads: from multi-head attention over groups to a single pair for all.

Fewer: neighbouring K/V heads become their mean, as Ainslie et al. 2023 (GQA, arXiv:2305.13245, section 2.1) begin with before
they train on; nothing is trained here, so what is lost is what the pooling itself costs. More: each head stands several
times, which changes no result and shows that grouped queries are multi-head attention in which heads share.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from loopviz.checks import FieldError
from loopviz.model import LoopLlamaForCausalLM
from loopviz.model.packed import dense_weight
from loopviz.model.step_adapters import check_one_model
from loopviz.model.watching import shallow


def head_counts(config: Any) -> list[int]:
    """The numbers of K/V heads that a model can be brought to, ascending: 1 up to one a query head."""
    own, most = config.num_key_value_heads, config.num_attention_heads
    return [k for k in range(1, most + 1) if most % k == 0 and (own % k == 0 or k % own == 0)]


def with_kv_heads(model: LoopLlamaForCausalLM, n_heads: int) -> LoopLlamaForCausalLM:
    """A view with so many K/V heads in every layer; only the two projections are new weights.

    Args:
        model: not changed.
        n_heads: one of :func:`head_counts`.

    Raises:
        FieldError: another number; a model whose loop steps have a LoRA each.
    """
    check_one_model(model)
    known = head_counts(model.config)
    if n_heads not in known:
        raise FieldError("heads", n_heads, "one_of", choices=", ".join(map(str, known)))
    view = model.with_loop()
    view.config.num_key_value_heads = n_heads
    view.model.layers = nn.ModuleList(_regrouped(layer, n_heads, model) for layer in view.model.layers)
    return view


def _regrouped(layer: nn.Module, n_heads: int, model: LoopLlamaForCausalLM) -> nn.Module:
    config: Any = model.config
    twin: Any = shallow(layer)
    attention: Any = shallow(twin.self_attn)
    twin._modules["self_attn"] = attention
    for module in (twin, attention):
        module._compiled_call_impl = None  # a compiled call would run the module it was made of
    attention.num_key_value_groups = config.num_attention_heads // n_heads
    for name in ("k_proj", "v_proj"):
        old = getattr(attention, name)
        new = nn.Linear(1, 1, bias=old.bias is not None, device="meta")
        new.in_features, new.out_features = config.hidden_size, n_heads * config.head_dim
        weight = dense_weight(old).to(model.dtype)
        new.weight = nn.Parameter(_by_heads(weight, config.num_key_value_heads, n_heads), requires_grad=False)
        if old.bias is not None:
            new.bias = nn.Parameter(_by_heads(old.bias, config.num_key_value_heads, n_heads), requires_grad=False)
        attention._modules[name] = new
    return twin


@torch.no_grad()
def _by_heads(projection: Tensor, own: int, wanted: int) -> Tensor:
    """Rows of a projection `[K D, ...]` for another number of heads: means of neighbours, or each several times."""
    heads = projection.unflatten(0, (own, -1))  # [K, D, ...]
    if wanted >= own:
        return heads.repeat_interleave(wanted // own, dim=0).flatten(0, 1)
    return heads.unflatten(0, (wanted, -1)).mean(1).flatten(0, 1)
