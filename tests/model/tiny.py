"""Tiny random models for the tests: small enough to compare with Python lists, wild enough to tell errors apart.

Weights are drawn far wider than a fresh Llama's: at the usual 0.02 every attention is nearly uniform, a block hardly
changes its state, and a cache that read the wrong slot would pass at 1e-5.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama import modeling_llama

from loopviz.model import LoopLlamaConfig, LoopLlamaForCausalLM, LoopStep

from .reference import Reference

SHAPE: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
}

MODES: dict[str, dict[str, Any]] = {
    "serial": {"virtual_attention_mode": "serial", "virtual_layer_count": 3},
    "serial_wrapping": {"virtual_attention_mode": "serial", "virtual_layer_count": 2},
    "parallel": {"virtual_attention_mode": "parallel", "virtual_layer_count": 3},
    "parallel_wrapping": {"virtual_attention_mode": "parallel", "virtual_layer_count": 2},
    "ema": {"kv_cache_mode": "merge_strategy", "merge_strategy": "ema"},
    "average": {"kv_cache_mode": "merge_strategy", "merge_strategy": "average"},
    "last": {"kv_cache_mode": "merge_strategy", "merge_strategy": "last"},
}
"""Every way of keeping K/V, for 3 loop steps; "wrapping" has fewer slots than steps."""

TOLERANCE = {torch.float32: 5e-5, torch.float64: 1e-9}
"""Absolute and relative. 1e-5 in float32 belongs to the usual initialisation; these weights are ten times wider and
the logits with them. What float32 might hide, float64 shows."""

WIDE = TOLERANCE[torch.float32]

LOOP = {"loop_layers": (1, 2), "loop_count": 3}
DYNAMIC = {
    "loop_layers": (1, 2),
    "loop_strategy": "dynamic_stop",
    "convergence_criterion": "cosine",
    "min_loop_count": 2,
    "virtual_layer_count": 2,
    "cosine_threshold": 0.95,
    "loop_damping": 0.5,
}
TWO = {"loop_layers": [(0, 0), (2, 3)], "loop_count": [2, 3]}


def build(loop: dict[str, Any] | None = None, *, seed: int = 0, **shape: Any) -> LoopLlamaForCausalLM:
    """A tiny random LoopLlama in eval mode; norm weights and the loop's own weights are random too."""
    torch.manual_seed(seed)
    config = LoopLlamaConfig(**{**SHAPE, **shape}, **(loop or {}))
    model = LoopLlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1 or parameter.shape == (config.hidden_size, 2 * config.hidden_size):
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def loop_weights(model: LoopLlamaForCausalLM) -> dict[str, Tensor]:
    """The parameters a plain Llama has not, named as the reference wants them, in order of blocks."""
    plain = set(LlamaForCausalLM(plain_config(model)).state_dict())
    extra = [value for name, value in model.state_dict().items() if name not in plain]
    found: dict[str, Tensor] = {}
    hidden = model.config.hidden_size
    for kind, shape, field in (("injection", (hidden, 2 * hidden), "linear"), ("loop_norm", (hidden,), True)):
        tensors = [value for value in extra if tuple(value.shape) == shape]
        owners = [
            i
            for i, block in enumerate(model.config.loop_blocks())
            if (block.injection if kind == "injection" else block.norm) == field
        ]
        assert len(tensors) == len(owners), f"{kind}: {len(tensors)} weights for blocks {owners}"
        found.update({f"{kind}.{owner}": tensor for owner, tensor in zip(owners, tensors, strict=True)})
    return found


def plain_weights(model: LoopLlamaForCausalLM) -> dict[str, Tensor]:
    """The parameters a plain Llama has too, under the same names."""
    plain = LlamaForCausalLM(plain_config(model)).state_dict()
    return {name: value for name, value in model.state_dict().items() if name in plain}


def reference(model: LoopLlamaForCausalLM, loop: dict[str, Any], chooser: Any = None) -> Reference:
    return Reference(model.config, {**plain_weights(model), **loop_weights(model)}, loop, chooser)


def plain_config(model: LoopLlamaForCausalLM, **changes: Any) -> LlamaConfig:
    """A `LlamaConfig` of the same shape, without loops."""
    fields = {name: getattr(model.config, name) for name in SHAPE}
    fields |= {
        "head_dim": model.config.head_dim,
        "tie_word_embeddings": model.config.tie_word_embeddings,
        "rope_parameters": model.config.rope_parameters,
        "rms_norm_eps": model.config.rms_norm_eps,
        "attn_implementation": model.config._attn_implementation,
    }
    return LlamaConfig(**{**fields, **changes})


def plain_twin(model: LoopLlamaForCausalLM) -> LlamaForCausalLM:
    """transformers' own Llama with the same weights, its layers called once."""
    twin = LlamaForCausalLM(plain_config(model)).to(model.dtype).eval()
    twin.load_state_dict(plain_weights(model))
    return twin


def unrolled(model: LoopLlamaForCausalLM, steps: list[int]) -> LlamaForCausalLM:
    """A plain Llama whose layer list repeats block i `steps[i]` times, with the same weights."""
    order: list[int] = []
    blocks = {block.a: (block, n) for block, n in zip(model.config.loop_blocks(), steps, strict=True)}
    layer = 0
    while layer < model.config.num_hidden_layers:
        if layer in blocks:
            block, n = blocks[layer]
            order += list(range(block.a, block.b + 1)) * n
            layer = block.b + 1
        else:
            order.append(layer)
            layer += 1
    return repeated(model, order)


def repeated(model: LoopLlamaForCausalLM, order: list[int]) -> LlamaForCausalLM:
    """A plain Llama whose layers are these of `model`, in this order, with the same weights."""
    weights = plain_weights(model)
    renamed = {name: value for name, value in weights.items() if ".layers." not in name}
    for new, old in enumerate(order):
        prefix = f"model.layers.{old}."
        renamed |= {
            f"model.layers.{new}.{name.removeprefix(prefix)}": value
            for name, value in weights.items()
            if name.startswith(prefix)
        }
    deep = LlamaForCausalLM(plain_config(model, num_hidden_layers=len(order))).to(model.dtype).eval()
    deep.load_state_dict(renamed)
    return deep


@contextlib.contextmanager
def precision(dtype: torch.dtype) -> Iterator[float]:
    """The tolerance of `dtype`; inside, float64 is float64 all the way.

    transformers' Llama rounds every RMSNorm, RoPE table and eager softmax to float32 whatever the model's dtype, which
    would hide real errors below 1e-7. For float64 they are replaced by the same formulas without the rounding.
    """
    if dtype != torch.float64:
        yield TOLERANCE[dtype]
        return
    norm, rotary = modeling_llama.LlamaRMSNorm, modeling_llama.LlamaRotaryEmbedding
    kept = norm.forward, rotary.forward, modeling_llama.eager_attention_forward

    def exact_norm(self: Any, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))

    def exact_rotary(self: Any, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        angle = position_ids[..., None].to(x.dtype) * self.inv_freq.to(x.dtype)
        angle = torch.cat((angle, angle), dim=-1)
        return angle.cos(), angle.sin()

    def exact_eager(
        module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float, **_: Any
    ) -> tuple[Tensor, Tensor]:
        groups = module.num_key_value_groups
        key, value = (modeling_llama.repeat_kv(x, groups) for x in (key, value))
        scores = query @ key.transpose(2, 3) * scaling
        weights = torch.softmax(scores if mask is None else scores + mask, dim=-1)
        return (weights @ value).transpose(1, 2).contiguous(), weights

    norm.forward, rotary.forward, modeling_llama.eager_attention_forward = exact_norm, exact_rotary, exact_eager
    try:
        yield TOLERANCE[dtype]
    finally:
        norm.forward, rotary.forward, modeling_llama.eager_attention_forward = kept


def close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """Equal to `tolerance`, absolute and relative."""
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)


def ids(count: int, seed: int = 0, rows: int = 1, vocab: int = SHAPE["vocab_size"]) -> Tensor:
    """Random token ids `[rows, count]`, never the padding id 0."""
    generator = torch.Generator().manual_seed(1000 + seed)
    return torch.randint(1, vocab, (rows, count), generator=generator)


def random_shapes() -> st.SearchStrategy[dict[str, Any]]:
    """Random model shapes: 3-6 layers, every ratio of query to KV heads, tied or not, own head sizes."""
    heads = st.sampled_from([(1, 1), (2, 1), (4, 1), (4, 2), (4, 4), (8, 2)])
    return st.builds(
        lambda layers, pair, hidden, dim, tied: {
            "num_hidden_layers": layers,
            "num_attention_heads": pair[0],
            "num_key_value_heads": pair[1],
            "hidden_size": hidden,
            "head_dim": dim,
            "tie_word_embeddings": tied,
        },
        st.integers(3, 6),
        heads,
        st.sampled_from([32, 64]),
        st.sampled_from([None, 6]),
        st.booleans(),
    )


@st.composite
def random_blocks(draw: st.DrawFn, layers: int) -> Any:
    """One or two blocks anywhere in a model of `layers` layers, the whole model included."""
    a = draw(st.integers(0, layers - 1))
    b = draw(st.integers(a, layers - 1))
    if b + 1 < layers and draw(st.booleans()):
        c = draw(st.integers(b + 1, layers - 1))
        return [(a, b), (c, draw(st.integers(c, layers - 1)))]
    return (a, b)


@st.composite
def any_loop(draw: st.DrawFn, layers: int, kept: tuple[str, ...] = ()) -> dict[str, Any]:
    """Any loop configuration the semantics allow, small enough for the reference; `kept`: of these `kv_cache_dtype`."""
    where = draw(random_blocks(layers))
    blocks = 1 if isinstance(where, tuple) else 2

    def each(strategy: st.SearchStrategy) -> Any:
        """One value for all blocks, or a list."""
        one = [draw(strategy) for _ in range(blocks)]
        return one if blocks > 1 and draw(st.booleans()) else one[0]

    return {
        "loop_layers": where,
        "loop_strategy": each(st.sampled_from(["fixed_count", "dynamic_stop"])),
        "loop_count": each(st.integers(1, 5)),
        "max_loop_count": each(st.integers(5, 6)),
        "min_loop_count": each(st.integers(3, 4)),
        "cosine_threshold": each(st.sampled_from([0.8, 0.9, 0.97])),
        "kl_threshold": each(st.sampled_from([0.001, 0.02, 0.2])),
        "convergence_criterion": each(st.sampled_from(["cosine", "kl", "either", "both"])),
        "kv_cache_mode": each(st.sampled_from(["virtual_layers", "virtual_layers", "merge_strategy"])),
        "virtual_layer_count": each(st.integers(1, 3)),
        "virtual_attention_mode": each(st.sampled_from(["parallel", "serial"])),
        "merge_strategy": each(st.sampled_from(["ema", "average", "last"])),
        "merge_ema_alpha": each(st.sampled_from([0.3, 0.7])),
        "loop_damping": each(st.sampled_from([1.0, 0.5])),
        "loop_injection": each(st.sampled_from(["none", "add", "linear"])),
        "loop_norm": each(st.booleans()),
    } | ({"kv_cache_dtype": each(st.sampled_from(kept))} if kept else {})


def record(model: LoopLlamaForCausalLM) -> tuple[list[LoopStep], Any]:
    """The loop steps of the model's passes from now on, as they come, and the hook's handle."""
    events: list[LoopStep] = []
    return events, model.register_loop_hook(events.append)
