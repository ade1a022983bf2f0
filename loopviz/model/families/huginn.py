"""Huginn (Geiping et al. 2025) and, in `retrofitted`, what others made by its code of stock models.

They share config.json and names: a prelude, a recurrent core that mixes its state with the prelude's output, a coda.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loopviz.checks import finite
from loopviz.model.checkpoints.errors import CheckpointRuleError, Note
from loopviz.model.checkpoints.keys import HARMLESS, ONLY, READ, REFUSED, Key, shown
from loopviz.model.configuration import LoopLlamaConfig

from .family import Family, Part, count, fused, looped, pairs_to_halves

END_OF_TURN = 65508  # a chat's end of turn, where Huginn's own code stops beside the end of text
_NAMES = {"n_embd": "hidden_size", "n_heads": "num_attention_heads", "n_layers": "num_hidden_layers"}
RAVEN_KEYS = (
    *(Key(name, READ, f"Llama's {other}") for name, other in _NAMES.items()),
    *(Key(f"n_layers_in_{part}", READ, "layers of a part") for part in ("prelude", "recurrent_block", "coda")),
    Key("mean_recurrence", READ, "loops"),
    Key("norm_eps", READ, "epsilon of the norms"),
    Key("rope_base", READ, "base of the rotary frequencies"),
    Key("padded_vocab_size", READ, "rows of the embedding"),
    Key("block_size", READ, "context"),
    Key("init_values", READ, "of the start state, and the scale of embeddings"),
    Key("tie_embeddings", READ, "the head is the embedding"),
    Key("qk_bias", READ, "a bias of queries and keys"),
    Key(
        "initial_state_mode",
        ONLY,
        "a first loop without its adapter is another loop",
        ("random", "embed-init"),
        "skip-adapter",
    ),
    Key("injection_type", ONLY, "the state meets the input in a linear layer", ("linear",), "add"),
    Key("state_init", ONLY, "another start state", ("like-init",), "zero"),
    Key("test_time_noise", ONLY, "noise in every loop, never the same twice", (0, 0.0), 0.1),
    Key("mlp_class_name", ONLY, "another MLP", ("GatedMLP",), "BaseMLP"),
    Key("nonlin_name", ONLY, "another activation", ("SiLU",), "GELU"),
    Key("norm_class_name", ONLY, "another norm", ("RMSNorm_llama",), "LayerNorm"),
    Key("bias", REFUSED, "biases of every projection are not mapped", example=True),
    Key("init_*", HARMLESS, "of training"),
    Key("mean_backprop_depth", HARMLESS, "of training"),
)


def raven_fields(raw: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """What all families of this config.json have in common."""
    prelude, core, coda = (
        count(raw, f"n_layers_in_{part}", file, least=least)
        for part, least in (("prelude", 0), ("recurrent_block", 1), ("coda", 0))
    )
    hidden, heads = count(raw, "n_embd", file), count(raw, "n_heads", file)
    values = raw.get("init_values")
    std, scale = (finite(values.get(name)) if isinstance(values, dict) else None for name in ("std", "embed_scale"))
    if std is None or std < 0 or scale is None or scale <= 0:
        raise CheckpointRuleError("init_values", value=shown(values), file=file)
    start: dict[str, Any] = {"loop_init": "entry"}
    if raw.get("initial_state_mode") != "embed-init":
        start = {"loop_init": "random", "loop_init_std": std * scale}
    return {
        **looped(prelude, prelude + core - 1, count(raw, "mean_recurrence", file)),
        **start,
        "loop_injection": "linear",
        "embedding_scale": scale,
        "vocab_size": count(raw, "padded_vocab_size", file, raw.get("vocab_size")),
        "hidden_size": hidden,
        "intermediate_size": count(raw, "intermediate_size", file),
        "num_hidden_layers": prelude + core + coda,
        "num_attention_heads": heads,
        "num_key_value_heads": count(raw, "num_key_value_heads", file, heads),
        "head_dim": count(raw, "head_dim", file, hidden // heads),
        "rms_norm_eps": raw.get("norm_eps", 1e-6),
        "max_position_embeddings": count(raw, "max_position_embeddings", file, raw.get("block_size")),
        "tie_word_embeddings": raw.get("tie_embeddings", raw.get("tie_word_embeddings", True)),
        **{name: raw.get(name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")},
    }


def raven_layers(config: LoopLlamaConfig) -> dict[str, str]:
    """Each layer's name in the model, with a dot at its end, and its stored one."""
    (block,) = config.loop_blocks()
    found = {}
    for index in range(config.num_hidden_layers):
        part = "prelude" if index < block.a else "core_block" if index <= block.b else "coda"
        start = {"prelude": 0, "core_block": block.a, "coda": block.b + 1}[part]
        found[f"model.layers.{index}."] = f"transformer.{part}.{index - start}."
    return found


def raven_sources(config: LoopLlamaConfig) -> dict[str, Part]:
    """What stands outside the layers."""
    hidden, vocab = config.hidden_size, config.vocab_size
    found = {
        "model.embed_tokens.weight": Part("transformer.wte.weight", (vocab, hidden)),
        "model.norm.weight": Part("transformer.ln_f.weight", (hidden,)),
        "model.loop_injections.0.weight": Part("transformer.adapter.weight", (hidden, 2 * hidden)),
    }
    if not config.tie_word_embeddings:
        found["lm_head.weight"] = Part("lm_head.weight", (vocab, hidden))
    return found


def _fields(raw: Mapping[str, Any], file: Path, notes: list[Note]) -> dict[str, Any]:
    found = raven_fields(raw, file)
    if raw.get("qk_bias") is not True:
        raise CheckpointRuleError("huginn_weights", value=shown(raw.get("qk_bias")), file=file)
    ends = found["eos_token_id"]
    if ends == 65505 and found["vocab_size"] > END_OF_TURN:
        found["eos_token_id"] = [ends, END_OF_TURN]
    return {
        **found,
        "norm_placement": "pre_stream",
        "loop_final_norm": "last_step",
        "attention_bias": True,
        "rope_theta": raw.get("rope_base", 50_000.0),
    }


def _sources(config: LoopLlamaConfig) -> dict[str, Part]:
    heads, width, hidden = config.num_attention_heads, config.head_dim, config.hidden_size
    kv, turn = config.num_key_value_heads * width, pairs_to_halves(width)
    found = raven_sources(config)
    for target, source in raven_layers(config).items():
        names = ("attn.Wqkv", "attn.proj", "mlp.fc", "mlp.proj")
        found |= fused(config, target, [f"{source}{name}.weight" for name in names], turn)
        for place, name in (("q_proj", 0), ("k_proj", 1)):
            bias = Part(f"{source}attn.qk_bias", (2, 1, heads, width), (name, name + 1), _turned_bias(width))
            found[f"{target}self_attn.{place}.bias"] = bias
        found[f"{target}self_attn.v_proj.bias"] = Part("", (kv,))
        found[f"{target}self_attn.o_proj.bias"] = Part("", (hidden,))
        norms = ("input_layernorm", "input_layernorm_2", "post_attention_layernorm", "post_attention_layernorm_2")
        found |= {
            f"{target}{name}.weight": Part(f"{source}norm_{i}.weight", (hidden,)) for i, name in enumerate(norms, 1)
        }
    return found


def _turned_bias(width: int) -> Callable[[Tensor], Tensor]:
    turn = pairs_to_halves(width)

    def turned(values: Tensor) -> Tensor:
        return turn(torch.flatten(values))

    return turned


LEFT_OUT: Mapping[str, str] = {"freqs_cis": ""}
FAMILY = Family(
    "huginn",
    "Huginn",
    ("huginn_raven",),
    RAVEN_KEYS,
    _fields,
    _sources,
    mark=".norm_4.weight",
    claim="qk_bias",
    says="Huginn: its core, layers {first} to {last}, begins at a random state, is reminded of the input before every loop, and runs {loops} times",
    left_out={**LEFT_OUT, "lm_head.weight": "transformer.wte.weight"},
)
