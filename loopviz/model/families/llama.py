"""Llama itself, and a loop stored by LoopViz: names and fields are the model's own, nothing is mapped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loopviz.model.checkpoints.errors import Note
from loopviz.model.configuration import LoopLlamaConfig

from .family import Family, Part, own_names

# What other families' config.json say in Llama's words.
_SAME = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "rms_norm_eps",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "attention_bias",
    "mlp_bias",
    "tie_word_embeddings",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)


def llama_fields(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a config.json says in Llama's own words; what it says nothing of is Llama's default."""
    return {name: raw[name] for name in _SAME if raw.get(name) is not None}


def _fields(raw: Mapping[str, Any], file: Path, notes: list[Note]) -> dict[str, Any]:
    return dict(raw)


def _sources(config: LoopLlamaConfig) -> dict[str, Part]:
    return own_names(config, ("input_layernorm", "post_attention_layernorm"), {})


FAMILY = Family("llama", "Llama", ("llama", "loop_llama"), (), _fields, _sources)
