"""The controls of a run: their limits, which apply when, and how their values become a loop and sampling settings.

Free of torch, transformers and Gradio: a page, a test and a check on every keystroke all call it.
A *values* mapping holds one entry per control name of `CONTROLS`. Whatever a visitor sends is checked here first
(:func:`clean`); the rules of a loop are the model configuration's own (:func:`check_loop`), told beside the control they
name.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from loopviz.app.controls.refusal import told
from loopviz.app.texts import text
from loopviz.checks import FieldError

# Beside the controls in a values mapping: the model whose settings they are, where that may be another one than chosen;
# the controls the visitor has set on this page; and what of those gave way to a model that cannot have it, as it was.
SUITS, TOUCHED, GAVE = "suits", "touched", "gave"
PROMPT_LIMIT = 20_000  # characters; a model's own context is checked by the engine
HALVES = re.compile("[\ud800-\udfff]")  # of characters: no text can be written with them
MODEL_NAME_LIMIT = 300
MARKS_LIMIT = 4_000


class Problem(NamedTuple):
    """A refusal: the control it belongs to, what to say beside it, and a model of the page's list that has what is lacking."""

    control: str
    reason: str
    model: str = ""


@dataclass(frozen=True)
class Control:
    """One setting of a run.

    name: its key in a values mapping, and in the texts (`<name>.label`, `<name>.info`).
    kind: `"whole"`, `"number"`, `"choice"`, `"flag"` or `"name"`.
    low, high, step: limits of a number, inclusive.
    choices: the values of a choice.
    """

    name: str
    kind: str
    default: Any
    group: str
    low: float = 0
    high: float = 0
    step: float = 1
    choices: tuple[str, ...] = ()


CONTROLS: tuple[Control, ...] = (
    Control("model", "name", "stories-loop", "model"),
    Control("block_start", "whole", 10, "loop", 0, 999),
    Control("block_end", "whole", 14, "loop", 0, 999),
    Control("loop_strategy", "choice", "fixed_count", "loop", choices=("fixed_count", "dynamic_stop")),
    Control("loop_count", "whole", 4, "loop", 1, 32),
    Control("max_loop_count", "whole", 10, "loop", 1, 64),
    Control("min_loop_count", "whole", 5, "loop", 1, 32),
    Control("convergence_criterion", "choice", "either", "loop", choices=("either", "both", "cosine", "kl")),
    # log sliders: the manual's thresholds are where they start
    Control("cosine_threshold", "number", -1.3, "loop", -6.0, -0.1, 0.1),
    Control("kl_threshold", "number", -2.0, "loop", -6.0, 1.0, 0.1),
    Control("kv_cache_mode", "choice", "virtual_layers", "kv", choices=("virtual_layers", "merge_strategy")),
    Control("virtual_layer_count", "whole", 5, "kv", 1, 16),
    Control("virtual_attention_mode", "choice", "parallel", "kv", choices=("parallel", "serial")),
    Control("merge_strategy", "choice", "ema", "kv", choices=("ema", "average", "last")),
    Control("merge_ema_alpha", "number", 0.7, "kv", 0.01, 0.99, 0.01),
    Control("loop_damping", "number", 1.0, "step", 0.05, 1.0, 0.05),
    Control("loop_injection", "choice", "none", "step", choices=("none", "add", "linear")),
    Control("loop_norm", "flag", False, "step"),
    Control("layer_chooser", "choice", "none", "step", choices=("none", "influence", "difficulty")),
    Control("layer_threshold", "number", 0.15, "step", 0.0, 2.0, 0.01),
    Control("max_new_tokens", "whole", 64, "sampling", 1, 1024),
    Control("greedy", "flag", True, "sampling"),
    Control("temperature", "number", 0.8, "sampling", 0.05, 3.0, 0.05),
    Control("top_k", "whole", 50, "sampling", 0, 1000),
    Control("top_p", "number", 0.95, "sampling", 0.05, 1.0, 0.01),
    Control("min_p", "number", 0.0, "sampling", 0.0, 0.9, 0.01),
    Control("repetition_penalty", "number", 1.0, "sampling", 0.5, 2.0, 0.05),
    Control("seed", "whole", 0, "sampling", 0, 2**31 - 1),
    Control("chat", "flag", False, "sampling"),
)
# Choices that people add to by name: where the names are. What is listed above comes with LoopViz and can be shown before
# torch and the model package have been imported, which takes seconds.
_REGISTRIES = {
    "convergence_criterion": ("loopviz.model.criteria", "CRITERIA"),
    "merge_strategy": ("loopviz.model.merges", "MERGES"),
    "layer_chooser": ("loopviz.model.choosers", "CHOOSERS"),
}
BY_NAME: Mapping[str, Control] = {control.name: control for control in CONTROLS}
GROUPS: tuple[str, ...] = ("model", "loop", "kv", "step", "sampling")

# What not every model has, and one of the page's list that has it: the way out that a refusal offers.
HAS: Mapping[str, str] = {
    "loop_injection": "glassbox",
    "loop_norm": "stories-loop",
    "chat": "smollm2-135m-instruct",
}
# Fields of LoopLlamaConfig and StreamSettings that a control of another name decides.
_FIELD_CONTROL = {"loop_layers": "block_start", "do_sample": "greedy", "prompt": "prompt"}


def choices(control: Control) -> tuple[str, ...]:
    """The values of a choice: those of LoopViz, then whatever its users have registered by name in this process."""
    module, registry = _REGISTRIES.get(control.name, ("", ""))
    known: Mapping[str, Any] = getattr(sys.modules.get(module), registry, {})
    return (*control.choices, *(name for name, registered in known.items() if _of_a_user(registered)))


def _of_a_user(registered: Any) -> bool:
    function = getattr(registered, "function", registered)
    return (getattr(function, "__module__", None) or "").partition(".")[0] != "loopviz"


def defaults() -> dict[str, Any]:
    """The values a page starts with."""
    return {control.name: control.default for control in CONTROLS}


def _show(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 40 else shown[:39] + "…"


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def _clean_one(control: Control, value: Any, lang: str) -> Any:
    """The value as its own type; ValueError, in `lang`, for one of another type or outside the limits."""
    shown = {"name": control.name, "value": _show(value), "low": f"{control.low:g}", "high": f"{control.high:g}"}
    if control.kind == "whole":
        number = _number(value)
        if number is None or number != int(number) or not control.low <= number <= control.high:
            shown |= {"low": str(int(control.low)), "high": str(int(control.high))}
            raise ValueError(text(lang, "refused.whole", **shown))
        return int(number)
    if control.kind == "number":
        number = _number(value)
        if number is None or not control.low <= number <= control.high:
            raise ValueError(text(lang, "refused.number", **shown))
        return number
    if control.kind == "choice":
        if value not in choices(control):
            raise ValueError(text(lang, "refused.choice", **shown, choices=", ".join(choices(control))))
        return value
    if control.kind == "flag":
        if not isinstance(value, bool):
            raise ValueError(text(lang, "refused.flag", **shown))
        return value
    if not isinstance(value, str) or not 0 < len(value.strip()) <= MODEL_NAME_LIMIT:
        raise ValueError(text(lang, "refused.model_name", limit=MODEL_NAME_LIMIT))
    if HALVES.search(value):
        raise ValueError(text(lang, "refused.half", value=shown["value"]))
    return value.strip()


def clean(values: Mapping[str, Any], lang: str = "en") -> tuple[dict[str, Any], list[Problem]]:
    """Every control's value with its right type, and a problem for each that is not of it or outside its limits.

    A refused value is replaced by the control's default, so that the rest can still be checked.
    """
    found: dict[str, Any] = {}
    problems: list[Problem] = []
    for control in CONTROLS:
        try:
            found[control.name] = _clean_one(control, values.get(control.name), lang)
        except (ValueError, OverflowError) as error:
            found[control.name] = control.default
            problems.append(Problem(control.name, str(error)))
    return found, problems


def marks(word: Any) -> dict[str, Any]:
    """What the page's script says of the controls, as parts of a values mapping: which were touched, what gave way.

    Args:
        word: JSON, `{"touched": [name, ...], "gave": {name: value}}`; what is not well-formed is left out.
    """
    try:
        found = json.loads(word) if isinstance(word, str) and len(word) <= MARKS_LIMIT else {}
    except (ValueError, RecursionError):
        found = {}
    found = found if isinstance(found, dict) else {}
    touched, gave = found.get("touched"), found.get("gave")
    return {
        TOUCHED: tuple(n for n in BY_NAME if n in touched) if isinstance(touched, list) else (),
        GAVE: {n: v for n, v in gave.items() if _is_value(n, v)} if isinstance(gave, dict) else {},
    }


def _is_value(name: str, value: Any) -> bool:
    """Whether a control could hold this value."""
    try:
        _clean_one(BY_NAME[name], value, "en")
    except (KeyError, TypeError, ValueError, OverflowError):
        return False
    return True


def clean_name(name: Any, lang: str = "en") -> tuple[str, list[Problem]]:
    """A model's name without blanks around it, or a problem."""
    cleaned, problems = clean({**defaults(), "model": name}, lang)
    return cleaned["model"], problems


def check_prompt(prompt: Any, lang: str = "en") -> list[Problem]:
    """What is wrong with the prompt before any model sees it."""
    if not isinstance(prompt, str) or not prompt.strip():
        return [Problem("prompt", text(lang, "refused.empty"))]
    if len(prompt) > PROMPT_LIMIT:
        return [Problem("prompt", text(lang, "refused.long", n=len(prompt), limit=PROMPT_LIMIT))]
    return []


# --- which control applies when -------------------------------------------------------------------------------------

_Rule = tuple[Callable[[Mapping[str, Any]], bool], str]


def _dynamic(values: Mapping[str, Any]) -> bool:
    return values["loop_strategy"] == "dynamic_stop"


def _virtual(values: Mapping[str, Any]) -> bool:
    return values["kv_cache_mode"] == "virtual_layers"


# A control is off when one of its rules does not hold; the first such rule gives the reason.
_DYNAMIC: _Rule = (_dynamic, "off.dynamic_only")
_VIRTUAL: _Rule = (_virtual, "off.virtual_only")
_SAMPLED: _Rule = (lambda values: not values["greedy"], "off.sampling_only")
_RULES: Mapping[str, tuple[_Rule, ...]] = {
    "loop_count": ((lambda values: not _dynamic(values), "off.fixed_only"),),
    "min_loop_count": (_DYNAMIC,),
    "convergence_criterion": (_DYNAMIC,),
    "cosine_threshold": (_DYNAMIC, (lambda values: values["convergence_criterion"] != "kl", "off.cosine_only")),
    "kl_threshold": (_DYNAMIC, (lambda values: values["convergence_criterion"] != "cosine", "off.kl_only")),
    "virtual_layer_count": (_VIRTUAL,),
    "virtual_attention_mode": (_VIRTUAL,),
    "merge_strategy": ((lambda values: not _virtual(values), "off.merge_only"),),
    "merge_ema_alpha": (
        (lambda values: not _virtual(values), "off.merge_only"),
        (lambda values: values["merge_strategy"] == "ema", "off.ema_only"),
    ),
    "layer_threshold": ((lambda values: values["layer_chooser"] != "none", "off.chooser_only"),),
    "temperature": (_SAMPLED,),
    "top_k": (_SAMPLED,),
    "top_p": (_SAMPLED,),
    "min_p": (_SAMPLED,),
    "seed": (_SAMPLED,),
}


def why_off(name: str, values: Mapping[str, Any]) -> str | None:
    """The text key of the reason why control `name` does nothing under `values` (cleaned), or None when it applies."""
    return next((reason for holds, reason in _RULES.get(name, ()) if not holds(values)), None)


# --- values to fields -----------------------------------------------------------------------------------------------


def cosine_of(exponent: float) -> float:
    """The cosine threshold of a log slider: 1 − 10^exponent, the gap rounded to two digits (−1.3 is exactly 0.95)."""
    return 1 - float(f"{10**exponent:.1e}")


def kl_of(exponent: float) -> float:
    """The KL threshold of a log slider, nats, rounded to two digits."""
    return float(f"{10**exponent:.1e}")


def effective(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with every control that does not apply at its default: it can then neither act nor be refused."""
    return {
        control.name: values[control.name] if why_off(control.name, values) is None else control.default
        for control in CONTROLS
    }


def loop_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """The loop fields of `LoopLlamaConfig` for cleaned `values`: all of them, so that none is left to the checkpoint."""
    used = effective(values)
    own = ("block_start", "block_end", "cosine_threshold", "kl_threshold")
    fields = {c.name: used[c.name] for c in CONTROLS if c.group in ("loop", "kv", "step") and c.name not in own}
    return {
        "loop_layers": (used["block_start"], used["block_end"]),
        "cosine_threshold": cosine_of(used["cosine_threshold"]),
        "kl_threshold": kl_of(used["kl_threshold"]),
        **fields,
    }


def stream_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of the engine's `StreamSettings` for cleaned `values`.

    Under greedy choice the distribution's controls are off, and passed as what they then are: no restriction at all.
    """
    same = ("max_new_tokens", "repetition_penalty", "chat")
    fields: dict[str, Any] = {name: values[name] for name in same} | {"do_sample": not values["greedy"]}
    if values["greedy"]:
        return fields
    return fields | {name: values[name] for name in ("temperature", "top_k", "top_p", "min_p", "seed")}


def exponent_of(gap: float, name: str) -> float:
    """The place of a threshold (1 − cos, or KL in nats) on its log slider, to the slider's precision."""
    control = BY_NAME[name]
    return round(min(max(math.log10(max(gap, 1e-300)), control.low), control.high), 1)


# What a model has a say in; everything else is the visitor's alone.
BROUGHT: tuple[str, ...] = tuple(control.name for control in CONTROLS if control.group in ("loop", "kv", "step"))


def brought(config: Any) -> dict[str, Any]:
    """What the model of `config` (a `LoopLlamaConfig`) brings for every control of :data:`BROUGHT`.

    A model made as a loop brings its own loop; what this page's controls cannot hold of it (a registered criterion, a
    count past a slider's end) is the default. Any other brings the defaults, with a block in the middle: the same
    fractions of the depth as 10..14 of 30.
    """
    layers, blocks = config.num_hidden_layers, config.loop_blocks()
    own = {name: BY_NAME[name].default for name in BROUGHT}
    if not blocks:
        return own | {"block_start": layers // 3, "block_end": max(layers // 3, layers // 2 - 1)}
    found = _values_of(blocks[0])
    unheld = {problem.control for problem in clean({**defaults(), **found})[1]}
    own |= {name: value for name, value in found.items() if name not in unheld}
    return own | following(own, found.keys() - unheld)


def suited(
    values: Mapping[str, Any], config: Any, touched: Collection[str] = ()
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The rule by which a model brings its settings: cleaned `values` as they become those of the model of `config`.

    Every control that the visitor did not touch takes what the model brings (:func:`brought`). What was touched stays
    unless this model cannot have it; then it gives way. What depends on another control follows.

    Args:
        touched: the controls the visitor has set.

    Returns:
        The new values, and those that gave way, as they were.
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
    return found, {name: values[name] for name in BROUGHT if name in lost and found[name] != values[name]}


def _clash(values: Mapping[str, Any]) -> str | None:
    """Of two controls that no loop can have together, the one that gives way; None when they all agree."""
    pairs = [("block_start", "block_end")]
    pairs += [("min_loop_count" if _dynamic(values) else "loop_count", "max_loop_count")]
    pairs += [("virtual_layer_count", "min_loop_count")] if _dynamic(values) and _virtual(values) else []
    if values["layer_chooser"] == "difficulty" and values["layer_threshold"] > 1:  # a share of what can be said
        return "layer_threshold"
    return next((low for low, high in pairs if values[low] > values[high]), None)


def suit_model(values: Mapping[str, Any], config: Any, touched: Collection[str] = ()) -> dict[str, Any]:
    """The values to change so that they are those of the model of `config`: see :func:`suited`."""
    found, _ = suited(values, config, touched)
    return {name: found[name] for name in BROUGHT if values.get(name) != found[name]}


def following(values: Mapping[str, Any], kept: Collection[str]) -> dict[str, Any]:
    """What must follow other values, of the controls that are not `kept`: a bound moves out of the way of what it bounds.

    Within the loop's rules: a <= b; never more than the upper bound; under dynamic_stop as many slots as least loops.
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
    elif not _virtual(found):
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


def _impossible(name: str, value: Any, config: Any) -> bool:
    """Whether no loop of the model of `config` can have this value: a layer it lacks, weights it was not trained with."""
    if name in ("block_start", "block_end"):
        return bool(value >= config.num_hidden_layers)
    if name == "loop_injection":
        return value == "linear" and "linear" not in _each(config.loop_injection)
    return name == "loop_norm" and bool(value) and not any(_each(config.loop_norm))


def _each(value: Any) -> list[Any]:
    """The values of a field that may hold one for each block."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


def of_run(meta: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The controls' values under which the run of `meta` (a trace's Meta) was made, and what of it they cannot hold.

    Its model's name is as the trace has it; controls that did nothing in that run are at their defaults.
    """
    loop, settings, blocks = meta["loop"], meta["settings"], meta["blocks"]
    found = defaults() | {"model": meta["model"]}
    if len(blocks) == 1:
        block = blocks[0]
        found |= {name: loop[name] for name in BROUGHT if name in loop}
        found |= {"block_start": block["layers"][0], "block_end": block["layers"][1], "min_loop_count": block["floor"]}
        found["cosine_threshold"] = exponent_of(1 - block["cosine_threshold"], "cosine_threshold")
        found["kl_threshold"] = exponent_of(block["kl_threshold"], "kl_threshold")
        if block["kv_mode"] == "virtual_layers":
            found["virtual_layer_count"] = block["slots"]
    names = ["max_new_tokens", "repetition_penalty", "chat"]
    names += ["temperature", "top_k", "top_p", "min_p", "seed"] if settings.get("do_sample") else []
    found |= {name: settings[name] for name in names if name in settings} | {"greedy": not settings.get("do_sample")}
    cleaned, problems = clean(found)
    lost = [problem.control for problem in problems if why_off(problem.control, cleaned) is None]
    return cleaned, lost if len(blocks) == 1 else ["loop_layers", *lost]


def unheld(config: Any) -> list[str]:
    """What the controls cannot hold of the loop of `config`, by name; thresholds are held to a slider's precision."""
    blocks = config.loop_blocks()
    if len(blocks) != 1:
        return ["loop_layers"]
    found = {**defaults(), **_values_of(blocks[0])}
    return [problem.control for problem in clean(found)[1] if why_off(problem.control, found) is None]


def _values_of(block: Any) -> dict[str, Any]:
    """The controls' values for a `LoopBlock`, whether they can hold them or not."""
    found = {
        "block_start": block.a,
        "block_end": block.b,
        "loop_strategy": block.strategy,
        "loop_count": block.count,
        "max_loop_count": block.max_count,
        "convergence_criterion": block.criterion,
        "cosine_threshold": exponent_of(1 - block.cosine_threshold, "cosine_threshold"),
        "kl_threshold": exponent_of(block.kl_threshold, "kl_threshold"),
        "kv_cache_mode": block.kv_mode,
        "virtual_attention_mode": block.attention_mode,
        "merge_strategy": block.merge,
        "merge_ema_alpha": block.ema_alpha,
        "loop_damping": block.damping,
        "loop_injection": block.injection,
        "loop_norm": block.norm,
        "layer_chooser": block.chooser,
        "layer_threshold": block.layer_threshold,
    }
    found["min_loop_count"] = block.floor
    if block.kv_mode == "virtual_layers":
        found["virtual_layer_count"] = block.slots
    return found


def block_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """What `about_loop` reads of a block, from cleaned values."""
    fixed = values["loop_strategy"] == "fixed_count"
    return {
        "layers": [values["block_start"], values["block_end"]],
        "max_steps": values["loop_count" if fixed else "max_loop_count"],
        "strategy": values["loop_strategy"],
        "criterion": values["convergence_criterion"],
        "kv_mode": values["kv_cache_mode"],
        "slots": values["virtual_layer_count"],
        "attention_mode": values["virtual_attention_mode"],
        "merge": values["merge_strategy"],
        "chooser": values["layer_chooser"],
        "layer_threshold": values["layer_threshold"],
    }


def fitted(values: Mapping[str, Any], touched: Collection[str] = BROUGHT) -> dict[str, Any]:
    """What must follow other (cleaned) `values` after the visitor changed one: what was not `touched`, and the slots.

    Under dynamic_stop there are no more slots than least loops: so that to let a loop stop by itself is one click,
    whatever number of slots served a fixed count.
    """
    found = {**values, **following(values, touched)}
    if _dynamic(found) and _virtual(found):
        found["virtual_layer_count"] = min(found["virtual_layer_count"], found["min_loop_count"])
    return {name: value for name, value in found.items() if values[name] != value}


def control_of(error: BaseException) -> str:
    """The control of the field an error is about; the prompt's when it is about none of ours."""
    if not isinstance(error, FieldError):
        return "prompt"
    if error.field == "loop_layers":
        return "block_end" if error.part == "end" else "block_start"
    name = _FIELD_CONTROL.get(error.field, error.field)
    return name if name in BY_NAME else "prompt"


def check_loop(values: Mapping[str, Any], model: Any, lang: str = "en") -> list[Problem]:
    """What `model` refuses of cleaned `values`: its own words, beside the control they name.

    What only a model trained as a loop has (a mixing matrix, a loop norm) is refused on others in plain words: fresh
    weights would be noise, or nothing, and look like a setting that works.

    Args:
        model: an engine (:class:`loopviz.engine.engine.Engine`); a script may have a LoopLlama at hand instead.
    """
    from loopviz.engine.local import engine_of

    engine, problems = engine_of(model), []
    described = engine.describe()
    for name, reason in (("loop_injection", "refused.linear"), ("loop_norm", "refused.norm")):
        if _impossible(name, values[name], described):
            problems.append(Problem(name, text(lang, reason), HAS[name]))
    if problems:
        return problems
    return [Problem(control_of(error), told(error, lang)) for error in engine.check(loop_fields(values))]
