"""Nanbeige 4.2: a Llama whose layers run several times, with the final norm after every loop."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loopviz.checks import finite
from loopviz.model.checkpoints.errors import CheckpointRuleError, Note
from loopviz.model.checkpoints.keys import HARMLESS, ONLY, READ, REFUSED, Key, shown
from loopviz.model.configuration import LoopLlamaConfig

from .family import TIED, Family, Part, count, looped, own_names
from .llama import llama_fields

_OWN = "needs weights of its own, which a looped Llama does not have"
KEYS = (
    Key("num_loops", READ, "loops"),
    Key("loop_loss_weights", READ, "weights of the loops' losses; one less than the loops, whose number it overrides"),
    Key("skip_loop_final_norm", READ, "no norm between loops"),
    Key("kv_channels", READ, "width of a head"),
    Key("enable_double_loop_split", READ, "only the middle layers loop"),
    Key("loop_middle_layers", READ, "how many those are"),
    Key("qk_layernorm", REFUSED, f"norms of queries and keys: {_OWN}", example=True),
    Key("loop_share_kv", REFUSED, "loops that read one another's keys are another attention", example=True),
    Key("emb_neighbor_num", REFUSED, f"n-gram embeddings: {_OWN}", example=2),
    Key("emb_split_num", REFUSED, f"n-gram embeddings: {_OWN}", example=2),
    Key("insert_ngram_layer_idx", REFUSED, f"n-gram layers: {_OWN}", example=[1]),
    Key("ngram_insert_all_layers", REFUSED, f"n-gram layers: {_OWN}", example=True),
    Key("ngram_*", HARMLESS, "of n-gram embeddings, which are refused where they are on"),
    Key("enable_hyper_connection", REFUSED, f"several residual streams: {_OWN}", example=True),
    Key("enable_mhc", REFUSED, f"several residual streams: {_OWN}", example=True),
    Key("mhc_diff_for_loop", REFUSED, f"several residual streams: {_OWN}", example=True),
    Key("mhc_*", HARMLESS, "of several residual streams, which are refused where they are on"),
    Key("num_residual_streams", HARMLESS, "of several residual streams, which are refused where they are on"),
    Key("enable_depth_attention", REFUSED, f"attention over depth: {_OWN}", example=True),
    Key("depth_attention_*", HARMLESS, "of attention over depth, which is refused where it is on"),
    Key("attention_bias", ONLY, "the published weights have no biases", (False,), True),
)


def fields(raw: Mapping[str, Any], file: Path, notes: list[Note]) -> dict[str, Any]:
    """The fields of a `LoopLlamaConfig`."""
    own, layers = llama_fields(raw), count(raw, "num_hidden_layers", file)
    width = raw.get("kv_channels")
    if width is not None and raw.get("head_dim") not in (None, width):
        raise CheckpointRuleError("head_width", value=shown(width), file=file, other=shown(raw["head_dim"]))
    if width is not None:
        own["head_dim"] = width
    if raw.get("enable_double_loop_split"):
        middle = count(raw, "loop_middle_layers", file)
        if middle > layers:
            raise CheckpointRuleError("middle_layers", value=middle, file=file, layers=layers)
        first = (layers - middle) // 2
        return {**own, **looped(first, first + middle - 1, (layers + middle) // middle)}
    normed = {} if raw.get("skip_loop_final_norm") else {"loop_final_norm": "every_step"}
    return {**own, **looped(0, layers - 1, _loops(raw, file, notes)), **normed}


def _loops(raw: Mapping[str, Any], file: Path, notes: list[Note]) -> int:
    """`num_loops`, unless the losses' weights say another number: theirs counts, as in the published code."""
    loops, weights = count(raw, "num_loops", file, 1), raw.get("loop_loss_weights")
    if not weights:
        return loops
    if not isinstance(weights, list) or any(finite(weight) is None for weight in weights):
        value = shown(weights)
        raise CheckpointRuleError("numbers_or_empty", field="loop_loss_weights", value=value, file=file)
    if len(weights) + 1 != loops:
        notes.append(
            Note(
                "loops_overridden",
                f"loop_loss_weights in {file}: {len(weights)} weights of losses mean {len(weights) + 1} loops, whatever "
                f"num_loops={loops} says; the model runs {len(weights) + 1}, as in the published code",
                {"num_loops": loops, "loops": len(weights) + 1},
            )
        )
    return len(weights) + 1


def sources(config: LoopLlamaConfig) -> dict[str, Part]:
    """Llama's names."""
    return own_names(config, ("input_layernorm", "post_attention_layernorm"), {})


FAMILY = Family(
    "nanbeige",
    "Nanbeige 4.2",
    ("nanbeige",),
    KEYS,
    fields,
    sources,
    says="Nanbeige 4.2: layers {first} to {last} run {loops} times, each loop with keys and values of its own",
    left_out=TIED,
)
