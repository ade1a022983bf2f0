"""LoopLM-135M-naive: a small Llama with one looped layer, reminded of its input by addition."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loopviz.checks import finite
from loopviz.model.checkpoints.errors import CheckpointRuleError, Note
from loopviz.model.checkpoints.keys import HARMLESS, READ, REFUSED, Key, shown
from loopviz.model.configuration import LoopLlamaConfig

from .family import Family, Part, count, fused, looped

GPT2_END = 50256  # its only mark, which begins and ends a text
START_STD = 0.02
KEYS = (
    *(
        Key(name, READ, "a size")
        for name in ("d_model", "n_prelude", "n_coda", "n_q_heads", "n_kv_heads", "head_dim", "dense_ffn")
    ),
    Key("mu_rec", READ, "loops, on average in training"),
    Key("qk_norm", READ, "a norm on each head of queries and keys"),
    Key("init_std", READ, "of the start state too"),
    Key("tie_embeddings", READ, "the head is the embedding"),
    Key("use_a_matrix", REFUSED, "a learned decay of the state between loops needs weights of its own", example=True),
    Key("use_input_norm", REFUSED, "a norm of the input before the loop needs weights of its own", example=True),
    Key("final_z_loss_coef", HARMLESS, "of training"),
)


def fields(raw: Mapping[str, Any], file: Path, notes: list[Note]) -> dict[str, Any]:
    """The fields of a `LoopLlamaConfig`."""
    prelude, coda = count(raw, "n_prelude", file, least=0), count(raw, "n_coda", file, least=0)
    std = finite(raw.get("init_std", START_STD))
    if std is None or std < 0:
        raise CheckpointRuleError("not_negative", field="init_std", value=shown(raw["init_std"]), file=file)
    vocab = count(raw, "vocab_size", file)
    marks = {name: raw.get(name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    if marks["eos_token_id"] is None and vocab > GPT2_END:
        marks |= {"bos_token_id": GPT2_END, "eos_token_id": GPT2_END}
    return {
        **looped(prelude, prelude, count(raw, "mu_rec", file)),
        **marks,
        "loop_init": "random",
        "loop_init_std": std,
        "loop_injection": "add",
        "qk_norm": "head" if raw.get("qk_norm", True) else "none",
        "vocab_size": vocab,
        "hidden_size": count(raw, "d_model", file),
        "intermediate_size": count(raw, "dense_ffn", file),
        "num_hidden_layers": prelude + 1 + coda,
        "num_attention_heads": count(raw, "n_q_heads", file),
        "num_key_value_heads": count(raw, "n_kv_heads", file),
        "head_dim": count(raw, "head_dim", file),
        "rms_norm_eps": raw.get("rms_norm_eps", 1e-6),
        "rope_theta": raw.get("rope_theta", 10_000.0),
        "tie_word_embeddings": raw.get("tie_embeddings", True),
    }


def sources(config: LoopLlamaConfig) -> dict[str, Part]:
    """Names of its own, projections stored together."""
    (block,) = config.loop_blocks()
    hidden, width, vocab = config.hidden_size, config.head_dim, config.vocab_size
    found = {
        "model.embed_tokens.weight": Part("model.embed.weight", (vocab, hidden)),
        "model.norm.weight": Part("model.final_norm.weight", (hidden,)),
    }
    if not config.tie_word_embeddings:
        found["lm_head.weight"] = Part("model.lm_head.weight", (vocab, hidden))
    for index in range(config.num_hidden_layers):
        part = f"prelude.{index}" if index < block.a else "loop" if index == block.a else f"coda.{index - block.a - 1}"
        target, source = f"model.layers.{index}.", f"model.{part}."
        names = ("attn.qkv", "attn.proj", "ffn.w13", "ffn.w2")
        found |= fused(config, target, [f"{source}{name}.weight" for name in names])
        found[f"{target}input_layernorm.weight"] = Part(f"{source}attn_norm.weight", (hidden,))
        found[f"{target}post_attention_layernorm.weight"] = Part(f"{source}ffn_norm.weight", (hidden,))
        if config.qk_norm == "head":
            for name in "qk":
                norm = Part(f"{source}attn.{name}_norm.weight", (width,))
                found[f"{target}self_attn.{name}_proj.norm.weight"] = norm
    return found


FAMILY = Family(
    "looplm",
    "LoopLM",
    ("looplm",),
    KEYS,
    fields,
    sources,
    says="LoopLM: layer {first} begins at a random state, is reminded of the input by addition before every loop, and runs {loops} times",
    own=("d_model", "mu_rec", "n_prelude"),  # its published config.json was not seen, and "looplm" is a guess
    left_out={"model.lm_head.weight": "model.embed.weight"},
)
