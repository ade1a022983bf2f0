"""A configuration as the manual (LoopLlama) writes it, and all the loop fields that it means for a model.

What it does not name has the manual's default, whatever the model was trained with; what belongs to the weights stays the
model's own. Where a field that nobody asked for contradicts one that was asked for, the former gives way.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from loopviz.lab.task import Subject
from loopviz.model import LoopLlamaConfig, LoopLlamaForCausalLM
from loopviz.model.configuration import DEFAULT_FLOOR, LOOP_FIELDS

# The manual's own configurations, as written there.
CONFIGURATIONS: tuple[dict[str, Any], ...] = (
    {"loop_count": 3, "kv_cache_mode": "virtual_layers"},
    {"loop_count": 5, "kv_cache_mode": "merge_strategy"},
    {"loop_strategy": "dynamic_stop", "cosine_threshold": 0.95},
)
# What the manual lists as settings of the loop, each with a default; the other loop fields belong to the weights.
MANUAL_FIELDS: tuple[str, ...] = (
    "loop_strategy",
    "loop_count",
    "max_loop_count",
    "min_loop_count",
    "cosine_threshold",
    "kl_threshold",
    "convergence_criterion",
    "kv_cache_mode",
    "virtual_layer_count",
    "virtual_attention_mode",
    "merge_strategy",
    "merge_ema_alpha",
)


@dataclass(frozen=True)
class Setup:
    """A row to come.

    Attributes:
        name: of the configuration.
        asked: the fields it names; `None`: the baseline.
        fields: all its loop fields; `None`: the baseline.
        own: of them, those that stay the model's.
        gave_way: fields that nobody asked to be so, and that are not what they were: (before, now).
        view: the model that is measured.
    """

    name: str
    asked: dict[str, Any] | None
    fields: dict[str, Any] | None
    own: dict[str, Any]
    gave_way: dict[str, tuple[Any, Any]]
    view: LoopLlamaForCausalLM


def name_of(asked: dict[str, Any]) -> str:
    """A configuration's name: what it asks for; texts say by themselves what they are."""
    parts = [value if isinstance(value, str) else f"{name}={shown_value(value)}" for name, value in asked.items()]
    return ", ".join(parts) or "defaults"


def shown_value(value: Any) -> str:
    return "[" + ", ".join(map(shown_value, value)) + "]" if isinstance(value, (list, tuple)) else str(value)


def own_fields(subject: Subject) -> dict[str, Any]:
    """What belongs to the weights: the loop fields that are no setting of the manual's, where they are not the default."""
    config = subject.model.config
    names = [name for name in LOOP_FIELDS if name not in MANUAL_FIELDS]
    return {name: getattr(config, name) for name in names if getattr(config, name) != getattr(LoopLlamaConfig, name)}


def middle_third(n_layers: int) -> tuple[int, int]:
    """The layers that loop in a model that has no loop: as the manual's 4 to 7 of 12."""
    first = n_layers // 3
    return first, max(first, 2 * n_layers // 3 - 1)


def giving_way(fields: dict[str, Any], asked: Iterable[str]) -> dict[str, Any]:
    """Changes of fields that nobody asked for, so that they do not contradict those that were asked for.

    Under `dynamic_stop` V <= `min_loop_count` <= `max_loop_count` must hold, and `loop_count` <= `max_loop_count` under
    `fixed_count`. What was asked for is never changed: if that contradicts itself, the model refuses it by name.
    """
    changes: dict[str, Any] = {}

    def at_most(small: str, large: str) -> None:
        """Make `small` <= `large`, by the one of them that was not asked for."""
        low, high = ({**fields, **changes}[name] for name in (small, large))
        if not isinstance(low, int) or not isinstance(high, int) or low <= high:
            return  # lists, one value a block, are left to the model
        if small not in asked:
            changes[small] = int(high)
        elif large not in asked:
            changes[large] = int(low)

    virtual = fields["kv_cache_mode"] == "virtual_layers"
    if fields["loop_strategy"] == "fixed_count":
        at_most("loop_count", "max_loop_count")
    elif virtual or not isinstance(fields["min_loop_count"], type(DEFAULT_FLOOR)):  # else the floor is 1
        at_most("min_loop_count", "max_loop_count")
        if virtual:
            at_most("virtual_layer_count", "min_loop_count")
    return changes
