"""Ouro (ByteDance 2025): every layer looped, a norm around each branch and after every loop, a learned exit gate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loopviz.checks import finite
from loopviz.model.checkpoints.errors import CheckpointRuleError, Note
from loopviz.model.checkpoints.keys import HARMLESS, READ, REFUSED, Key, shown
from loopviz.model.configuration import LoopLlamaConfig

from .family import TIED, Family, Part, count, looped, own_names
from .llama import llama_fields

_NORMS = ("input_layernorm", "input_layernorm_2", "post_attention_layernorm", "post_attention_layernorm_2")
_MARKS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
KEYS = (
    Key("total_ut_steps", READ, "loops"),
    Key("early_exit_threshold", READ, "of the gate; null: every loop by its weight"),
    Key(
        "early_exit_step",
        REFUSED,
        "one loop for all tokens, counted from 0: leave it out, and give loop_count one more",
    ),
    Key("max_window_layers", HARMLESS, "of windows, which are refused where they are used"),
    Key("chunk_size", HARMLESS, "how many tokens of logits are made at a time"),
)


def fields(raw: Mapping[str, Any], file: Path, notes: list[Note]) -> dict[str, Any]:
    """The fields of a `LoopLlamaConfig`."""
    layers, loops = count(raw, "num_hidden_layers", file), count(raw, "total_ut_steps", file, 4)
    threshold = raw.get("early_exit_threshold", 1.0)
    found = finite(threshold)
    if threshold is not None and (found is None or not 0 <= found <= 1):
        value = shown(threshold)
        raise CheckpointRuleError("share_or_null", field="early_exit_threshold", value=value, file=file)
    own = llama_fields(raw)
    if raw.get("bos_token_id") == raw.get("eos_token_id") == 0:
        own |= _MARKS
        notes.append(
            Note(
                "marks_corrected",
                f"bos_token_id and eos_token_id in {file}: both say 0, which is Ouro's padding; its tokenizer's marks are used: "
                "begin 1, end 2, padding 0",
                dict(_MARKS),
            )
        )
    return {
        **own,
        **looped(0, layers - 1, loops),
        "norm_placement": "pre_branch",
        "loop_final_norm": "every_step",
        "exit_selection": "gate_weighted" if threshold is None else "gate",
        "exit_threshold": 1.0 if threshold is None else found,
    }


def sources(config: LoopLlamaConfig) -> dict[str, Part]:
    """Llama's names, with a second norm after each branch and the gate."""
    gate = {
        "model.loop_gates.0.weight": Part("model.early_exit_gate.weight", (1, config.hidden_size)),
        "model.loop_gates.0.bias": Part("model.early_exit_gate.bias", (1,)),
    }
    return own_names(config, _NORMS, gate)


FAMILY = Family(
    "ouro",
    "Ouro",
    ("ouro",),
    KEYS,
    fields,
    sources,
    says="Ouro: layers {first} to {last} run {loops} times, with a norm after every loop; a learned gate says after each how likely it is to stop there",
    left_out=TIED,
)
