"""Loops and layers that are no plain Llama's, each by what it has: those of published families one by one, and where they meet."""

from __future__ import annotations

from typing import Any

from tests.model.tiny import LOOP

SERIAL: dict[str, Any] = {**LOOP, "virtual_attention_mode": "serial", "virtual_layer_count": 3}
# The loop ends the model, one of four layers or of five.
ENDS: dict[str, Any] = {**SERIAL, "loop_layers": (1, 3)}
ENDS_OF_5: dict[str, Any] = {**SERIAL, "loop_layers": (2, 4)}
GATE: dict[str, Any] = {"exit_selection": "gate", "exit_threshold": 0.4}
WEIGHTED: dict[str, Any] = {"exit_selection": "gate_weighted"}
DYNAMIC: dict[str, Any] = {
    "loop_strategy": "dynamic_stop",
    "min_loop_count": 1,
    "max_loop_count": 4,
    "virtual_layer_count": 1,
}
LAYERS: dict[str, dict[str, Any]] = {
    "norms on the branches": {**SERIAL, "norm_placement": "pre_branch"},
    "norms on the stream": {**SERIAL, "norm_placement": "pre_stream"},
    "no norms before": {**SERIAL, "norm_placement": "branch"},
    "heads normed": {**SERIAL, "qk_norm": "head"},
    "all heads normed": {**SERIAL, "qk_norm": "full"},
    "scaled": {**SERIAL, "embedding_scale": 5.6},
    "int8": {**SERIAL, "kv_cache_dtype": "int8"},
    "fp8, parallel": {**SERIAL, "virtual_attention_mode": "parallel", "kv_cache_dtype": "fp8"},
    "int8, merged": {**LOOP, "kv_cache_mode": "merge_strategy", "kv_cache_dtype": "int8"},
}


def loops(ends: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Of the loop around the layers.

    Args:
        ends: a loop that ends the model.
    """
    return {
        "steps normed": {**SERIAL, "loop_final_norm": "every_step", "loop_damping": 0.7},
        "steps normed to the end": {**ends, "loop_final_norm": "every_step"},
        "normed once": {**SERIAL, "loop_final_norm": "last_step", "loop_damping": 0.7},
        "from noise": {**SERIAL, "loop_init": "random", "loop_init_std": 0.5, "loop_injection": "linear"},
        "from zeros": {**SERIAL, "loop_init": "zeros", "loop_injection": "add"},
        "gate": {**SERIAL, **GATE},
        "gate at the end": {**ends, **GATE},
        "gate of normed steps": {**ends, **GATE, "loop_final_norm": "every_step", "norm_placement": "pre_branch"},
        "gate, then a norm": {**SERIAL, **GATE, "loop_final_norm": "last_step", "norm_placement": "pre_stream"},
        "weighted normed steps": {**ends, **WEIGHTED, "loop_final_norm": "every_step"},
        "weighted at the end": {**ends, **WEIGHTED},
        "what it would say decides": {**SERIAL, **DYNAMIC, "convergence_criterion": "huginn_kl", "criterion_threshold": 0.05},
        "normed steps decide": {**ends, **DYNAMIC, "loop_final_norm": "every_step", "convergence_criterion": "kl", "kl_threshold": 5.0},
        "chosen layers of normed steps": {
            **SERIAL, "loop_final_norm": "every_step", "layer_chooser": "difficulty", "layer_threshold": 0.5, "virtual_layer_count": 1
        },
    }  # fmt: skip


# A few that have most of it together: what is asked of every kind elsewhere is asked of these.
SOME = ("norms on the stream", "int8", "from noise", "gate of normed steps")
