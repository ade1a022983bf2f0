"""Stock models cut into prelude, core and coda and trained on as loops (McLeish et al. 2025): Llama, and OLMo-2.

They say what Huginn's config.json says, often with values that are left of it; what counts is told apart by their tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loopviz.model.checkpoints.errors import CheckpointRuleError, Note
from loopviz.model.checkpoints.keys import shown
from loopviz.model.configuration import LoopLlamaConfig

from .family import Family, Part, fused
from .huginn import LEFT_OUT, RAVEN_KEYS, raven_fields, raven_layers, raven_sources


def _fields(raw: Mapping[str, Any], file: Path, notes: list[Note]) -> dict[str, Any]:
    if raw.get("qk_bias"):
        raise CheckpointRuleError("huginn_config", value=shown(raw["qk_bias"]), file=file)
    # rope_base is Huginn's, left over: the code takes the stock model's rope_theta
    turning = {
        name: raw[name] for name in ("rope_theta", "rope_scaling", "rope_parameters") if raw.get(name) is not None
    }
    return {**raven_fields(raw, file), **turning}


def _olmo2_fields(raw: Mapping[str, Any], file: Path, notes: list[Note]) -> dict[str, Any]:
    return {**_fields(raw, file, notes), "norm_placement": "branch", "qk_norm": "full"}


def _layers(config: LoopLlamaConfig, norms: tuple[str, str]) -> dict[str, Part]:
    found, hidden = raven_sources(config), (config.hidden_size,)
    for target, source in raven_layers(config).items():
        names = ("attn.Wqkv", "attn.proj", "mlp.fc", "mlp.proj")
        found |= fused(config, target, [f"{source}{name}.weight" for name in names])
        found |= {f"{target}{name}.weight": Part(f"{source}norm_{i}.weight", hidden) for i, name in enumerate(norms, 1)}
    return found


def _sources(config: LoopLlamaConfig) -> dict[str, Part]:
    return _layers(config, ("input_layernorm", "post_attention_layernorm"))


def _olmo2_sources(config: LoopLlamaConfig) -> dict[str, Part]:
    found = _layers(config, ("input_layernorm_2", "post_attention_layernorm_2"))
    for target, source in raven_layers(config).items():
        for name, heads in (("q", config.num_attention_heads), ("k", config.num_key_value_heads)):
            norm = Part(f"{source}attn.{name}_norm.weight", (heads * config.head_dim,))
            found[f"{target}self_attn.{name}_proj.norm.weight"] = norm
    return found


FAMILY = Family(
    "retrofitted_llama",
    "a retrofitted Llama",
    ("huginn_raven",),
    RAVEN_KEYS,
    _fields,
    _sources,
    says="a stock Llama cut in three and trained on: its core, layers {first} to {last}, begins at a random state, is reminded of the input before every loop, and runs {loops} times",
    left_out=LEFT_OUT,
)
OLMO2 = Family(
    "retrofitted_olmo2",
    "a retrofitted OLMo-2",
    ("huginn_raven",),
    RAVEN_KEYS,
    _olmo2_fields,
    _olmo2_sources,
    mark=".attn.q_norm.weight",
    says="a stock OLMo-2 cut in three and trained on: its core, layers {first} to {last}, begins at a random state, is reminded of the input before every loop, and runs {loops} times",
    left_out=LEFT_OUT,
)
