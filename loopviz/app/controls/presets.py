"""Settings one click sets: six ways to loop and to remember, each to be looked at for one thing (`preset.<name>.look`).

A preset says nothing of which layers loop, of the model or of sampling: it changes how the model at hand loops. One more
(:data:`ARTICLE`) is of sampling alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loopviz.app.controls.controls import BY_NAME
from loopviz.prompt_templates import ARTICLE_SAMPLING


@dataclass(frozen=True)
class Preset:
    """The values a preset sets, by control; the others stay."""

    name: str
    values: Mapping[str, Any]


_FOUR = {"loop_strategy": "fixed_count", "loop_count": 4, "max_loop_count": 10}
_SLOTS = {"kv_cache_mode": "virtual_layers"}
_ONE_SLOT = {**_SLOTS, "virtual_layer_count": 1, "virtual_attention_mode": "serial"}
# The field's thresholds: an angle and a divergence at which a trained loop has settled (Geiping et al. 2025).
_UNTIL = {"loop_strategy": "dynamic_stop", "min_loop_count": 1, "max_loop_count": 16, **_ONE_SLOT}

PRESETS: tuple[Preset, ...] = (
    # a slot a loop, each loop reads its own: exactly the model with its layers repeated
    Preset("four", {**_FOUR, **_SLOTS, "virtual_layer_count": 4, "virtual_attention_mode": "serial"}),
    Preset("cosine", {**_UNTIL, "convergence_criterion": "cosine", "cosine_threshold": -3.0}),
    Preset("kl", {**_UNTIL, "convergence_criterion": "kl", "kl_threshold": -3.3}),
    Preset("one_slot", {**_FOUR, **_ONE_SLOT}),
    Preset("parallel", {**_FOUR, **_SLOTS, "virtual_layer_count": 4, "virtual_attention_mode": "parallel"}),
    Preset("ema", {**_FOUR, "kv_cache_mode": "merge_strategy", "merge_strategy": "ema", "merge_ema_alpha": 0.7}),
)

# The numbers that the article on LLaMA gives for Alpaca, drawn by; that its own call draws nothing is said on the button.
ARTICLE = Preset(
    "article", {"greedy": False, **{name: value for name, value in ARTICLE_SAMPLING.items() if name in BY_NAME}}
)


def matching(values: Mapping[str, Any]) -> Preset | None:
    """The preset that `values` are set to, if they are one's."""
    return next((preset for preset in PRESETS if is_set(preset, values)), None)


def is_set(preset: Preset, values: Mapping[str, Any]) -> bool:
    """Whether `values` are set to a preset."""
    return all(values.get(name) == value for name, value in preset.values.items())
