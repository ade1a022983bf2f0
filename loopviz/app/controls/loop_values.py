"""Between a model's loop and the controls: the fields that settings ask for, and the settings that a model or a run brings.

Free of torch, transformers and Gradio: a model's configuration is handed in. The rules of a loop are that configuration's own
(:func:`check_loop`), told beside the control they name.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from loopviz.app.controls.controls import (
    BROUGHT,
    BY_NAME,
    HAS,
    LAYERS,
    NEUTRAL,
    SERVER,
    defaults,
    effective,
    why_off,
    wording,
)
from loopviz.app.controls.refusal import Problem, told
from loopviz.app.controls.run_settings import RunSettings, parse
from loopviz.app.texts import text
from loopviz.checks import FieldError
from loopviz.loop_fields import BLOCK_FIELDS, LoopField
from loopviz.prompt_templates import template_of

# Fields of LoopLlamaConfig and StreamSettings that a control of another name decides.
# What needs weights that a model has or has not, and the words where it has not.
_WEIGHTS = (("loop_injection", "refused.linear"), ("loop_norm", "refused.norm"), ("exit_selection", "refused.gate"))
# What a run is to be made in once more that was made in a dtype.
_PRECISION_OF = {"float32": "exact", "float16": "half", "bfloat16": "half", "int8": "int8"}
_FIELD_CONTROL = {"chat": "template", "loop_layers": "block_start", "do_sample": "greedy", "prompt": "prompt"}


# --- settings to fields -----------------------------------------------------------------------------------------------


def cosine_of(exponent: float) -> float:
    """The cosine threshold of a log slider: 1 − 10^exponent, the gap rounded to two digits (−1.3 is exactly 0.95)."""
    return 1 - float(f"{10**exponent:.1e}")


def kl_of(exponent: float) -> float:
    """The KL threshold of a log slider, nats, rounded to two digits."""
    return float(f"{10**exponent:.1e}")


def _field_value(field: LoopField, setting: Any) -> Any:
    """A field's value from its control's."""
    return {"log": kl_of, "log_gap": cosine_of}[field.dial.scale](setting) if field.dial.scale else setting


def _setting(field: LoopField, value: Any) -> Any:
    """A control's value for its field's, whether the control can hold it or not."""
    if not field.dial.scale:
        return value
    return exponent_of(1 - value if field.dial.scale == "log_gap" else value, field.name)


def exponent_of(gap: float, name: str) -> float:
    """The place of a threshold (1 − cos, or KL in nats) on its log slider, to the slider's precision."""
    control = BY_NAME[name]
    return round(min(max(math.log10(max(gap, 1e-300)), control.low), control.high), 1)


def loop_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """The loop fields of `LoopLlamaConfig` for settings: all of them, so that none is left to the checkpoint."""
    used = effective(values)
    first, last = LAYERS
    own = {field.name: _field_value(field, used[field.name]) for field in BLOCK_FIELDS}
    return {"loop_layers": (used[first], used[last]), **own}


def stream_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of the engine's `StreamSettings` for settings.

    Under greedy choice the distribution's controls are off, and passed as what they then are: no restriction at all.
    """
    same = ("max_new_tokens", "repetition_penalty")
    fields = {name: values[name] for name in same} | wording(values) | {"do_sample": not values["greedy"]}
    if values["greedy"]:
        return fields
    return fields | {name: values[name] for name in ("temperature", "top_k", "top_p", "min_p", "seed")}


def block_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """What `about_loop` reads of a block, from settings."""
    own = {field.meta: _field_value(field, values[field.name]) for field in BLOCK_FIELDS}
    fixed = values["loop_strategy"] == "fixed_count"
    return {**own, "layers": [values[name] for name in LAYERS], "max_steps": own["count" if fixed else "max_steps"]}


# --- what a model and a run bring -------------------------------------------------------------------------------------


def brought(config: Any) -> dict[str, Any]:
    """What the model of `config` (a `LoopLlamaConfig`) brings for every control of :data:`BROUGHT`.

    A model made as a loop brings its own loop; what this page's controls cannot hold of it (a criterion that is registered
    elsewhere, a count past a slider's end) is the default. Any other brings the defaults, with a block in the middle: the
    same fractions of the depth as 10..14 of 30.
    """
    layers, blocks = config.num_hidden_layers, config.loop_blocks()
    own = {name: BY_NAME[name].default for name in BROUGHT}
    if not blocks:
        return own | {"block_start": layers // 3, "block_end": max(layers // 3, layers // 2 - 1)}
    found = _values_of(blocks[0])
    unheld = {error.field for error in parse({**defaults(), **found})[1]}
    own |= {name: value for name, value in found.items() if name not in unheld}
    return own | following(own, found.keys() - unheld)


def suited(values: Mapping[str, Any], config: Any, touched: Collection[str] = ()) -> tuple[RunSettings, dict[str, Any]]:
    """The rule by which a model brings its settings: settings as they become those of the model of `config`.

    Every control that the visitor did not touch takes what the model brings (:func:`brought`). What was touched stays
    unless this model cannot have it; then it gives way. What depends on another control follows.

    Args:
        touched: the controls the visitor has set.

    Returns:
        The new settings, and those that gave way, as they were.
    """
    own = brought(config)
    lost = {name for name in BROUGHT if name in touched and _impossible(name, values[name], config)}
    while True:
        kept = {name for name in BROUGHT if name in touched and name not in lost}
        found = {**values, **{name: value for name, value in own.items() if name not in kept}}
        found |= following(found, kept)
        clash = _clash(found)
        if clash is None:
            break
        lost.add(clash)
    gave = {name: values[name] for name in BROUGHT if name in lost and found[name] != values[name]}
    return RunSettings({name: found[name] for name in BY_NAME}), gave


def suit_model(values: Mapping[str, Any], config: Any, touched: Collection[str] = ()) -> dict[str, Any]:
    """The values to change so that they are those of the model of `config`: see :func:`suited`."""
    found, _ = suited(values, config, touched)
    return {name: found[name] for name in BROUGHT if values.get(name) != found[name]}


def _dynamic(values: Mapping[str, Any]) -> bool:
    return bool(values["loop_strategy"] == "dynamic_stop")


def _virtual(values: Mapping[str, Any]) -> bool:
    return bool(values["kv_cache_mode"] == "virtual_layers")


def _slots_bound(values: Mapping[str, Any]) -> bool:
    """Whether there may be no more slots than least loops."""
    return _dynamic(values) and _virtual(values) and values["unreached_slots"] != "latest"


def _clash(values: Mapping[str, Any]) -> str | None:
    """Of two controls that no loop can have together, the one that gives way; None when they all agree."""
    pairs = [("block_start", "block_end")]
    pairs += [("min_loop_count" if _dynamic(values) else "loop_count", "max_loop_count")]
    pairs += [("virtual_layer_count", "min_loop_count")] if _slots_bound(values) else []
    if values["layer_chooser"] == "difficulty" and values["layer_threshold"] > 1:  # a share of what can be said
        return "layer_threshold"
    return next((low for low, high in pairs if values[low] > values[high]), None)


def following(values: Mapping[str, Any], kept: Collection[str]) -> dict[str, Any]:
    """What must follow other values, of the controls that are not `kept`: a bound moves out of the way of what it bounds.

    Within the loop's rules: a <= b; never more than the upper bound; under dynamic_stop as many slots as least loops, unless
    those that were not reached hold the latest.
    """
    found = dict(values)

    def order(low: str, high: str) -> None:
        if found[low] <= found[high]:
            return
        if high not in kept:
            found[high] = found[low]
        elif low not in kept:
            found[low] = found[high]

    order("block_start", "block_end")
    if not _dynamic(found):
        order("loop_count", "max_loop_count")
    elif not _slots_bound(found):
        order("min_loop_count", "max_loop_count")
    else:
        slots, least = "virtual_layer_count", "min_loop_count"
        if slots not in kept:  # fewer slots take nothing that was asked for; more loops would
            found[slots] = min(found[slots], found[least])
        order(slots, least)
        order(least, "max_loop_count")
        if slots not in kept:
            found[slots] = min(found[slots], found[least])
    return {name: value for name, value in found.items() if values[name] != value}


def fitted(values: Mapping[str, Any], touched: Collection[str] = BROUGHT) -> dict[str, Any]:
    """What must follow other settings after the visitor changed one: what was not `touched`, and the slots.

    Under dynamic_stop there are no more slots than least loops: so that to let a loop stop by itself is one click,
    whatever number of slots served a fixed count.
    """
    found = {**values, **following(values, touched)}
    if _slots_bound(found):
        found["virtual_layer_count"] = min(found["virtual_layer_count"], found["min_loop_count"])
    return {name: value for name, value in found.items() if values[name] != value}


def precision_of(meta: Mapping[str, Any], unsaid: str = "") -> str:
    """The precision in which the run of `meta` is made, or read, once more; `unsaid`: the dtype of one that does not say it."""
    return _PRECISION_OF.get(meta.get("provenance", {}).get("dtype", unsaid), SERVER)


def of_run(meta: Mapping[str, Any]) -> tuple[RunSettings, list[str]]:
    """The settings under which the run of `meta` (a trace's Meta) was made, and what of it the controls cannot hold.

    Its model's name is as the trace has it; controls that did nothing in that run are at their defaults. A loop field that
    there was not yet had what changes nothing.
    """
    loop, settings, blocks = meta["loop"], meta["settings"], meta["blocks"]
    found = defaults() | {"model": meta["model"]}
    if len(blocks) == 1:
        block = blocks[0]
        found |= {name: value for name, value in NEUTRAL.items() if name not in loop}
        found |= {name: loop[name] for name in BROUGHT if name in loop}
        found |= {"block_start": block["layers"][0], "block_end": block["layers"][1], "min_loop_count": block["floor"]}
        found |= {field.name: _setting(field, block[field.meta]) for field in BLOCK_FIELDS if field.dial.scale}
        if block["kv_mode"] == "virtual_layers":
            found["virtual_layer_count"] = block["slots"]
    names = ["max_new_tokens", "repetition_penalty", "input"]
    names += ["temperature", "top_k", "top_p", "min_p", "seed"] if settings.get("do_sample") else []
    found |= {name: settings[name] for name in names if name in settings} | {"greedy": not settings.get("do_sample")}
    found["template"] = template_of(settings)
    found["precision"] = precision_of(meta)
    parsed, errors = parse(found)
    lost = [error.field for error in errors if why_off(error.field, parsed) is None]
    return parsed, lost if len(blocks) == 1 else ["loop_layers", *lost]


def unheld(config: Any) -> list[str]:
    """What the controls cannot hold of the loop of `config`, by name; thresholds are held to a slider's precision."""
    blocks = config.loop_blocks()
    if len(blocks) != 1:
        return ["loop_layers"]
    found = {**defaults(), **_values_of(blocks[0])}
    return [error.field for error in parse(found)[1] if why_off(error.field, found) is None]


def _values_of(block: Any) -> dict[str, Any]:
    """The controls' values for a `LoopBlock`, whether they can hold them or not."""
    found = {"block_start": block.a, "block_end": block.b}
    found |= {field.name: _setting(field, getattr(block, field.block)) for field in BLOCK_FIELDS}
    if block.kv_mode != "virtual_layers":
        del found["virtual_layer_count"]  # its one slot is nobody's wish
    return found


# --- what is refused --------------------------------------------------------------------------------------------------


def _impossible(name: str, value: Any, config: Any) -> bool:
    """Whether no loop of the model of `config` can have this value: a layer it lacks, weights it was not trained with."""
    if name in LAYERS:
        return bool(value >= config.num_hidden_layers)
    if name == "loop_injection":
        return value == "linear" and "linear" not in _each(config.loop_injection)
    if name == "exit_selection":
        gated = getattr(config, "gated", False) or any(one != "last" for one in _each(config.exit_selection))
        return value != "last" and not gated
    return name == "loop_norm" and bool(value) and not any(_each(config.loop_norm))


def _each(value: Any) -> list[Any]:
    """The values of a field that may hold one for each block."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


def control_of(error: BaseException) -> str:
    """The control of the field an error is about; the prompt's when it is about none of ours."""
    if not isinstance(error, FieldError):
        return "prompt"
    if error.field == "loop_layers":
        return "block_end" if error.part == "end" else "block_start"
    name = _FIELD_CONTROL.get(error.field, error.field)
    return name if name in BY_NAME else "prompt"


def check_loop(values: Mapping[str, Any], model: Any, lang: str = "en") -> list[Problem]:
    """What `model` refuses of settings: its own words, beside the control they name.

    What only a model trained as a loop has (a mixing matrix, a loop norm, an exit gate) is refused on others in plain words: fresh
    weights would be noise, or nothing, and look like a setting that works.

    Args:
        model: an engine (:class:`loopviz.engine.engine.Engine`); a script may have a LoopLlama at hand instead.
    """
    engine: Any = model
    if not hasattr(model, "describe"):
        from loopviz.engine.local import engine_of  # imports PyTorch

        engine = engine_of(model)
    problems: list[Problem] = []
    described = engine.describe()
    for name, reason in _WEIGHTS:
        if _impossible(name, values[name], described):
            problems.append(Problem(name, text(lang, reason), HAS.get(name, "")))
    if problems:
        return problems
    return [Problem(control_of(error), told(error, lang)) for error in engine.check(loop_fields(values))]
