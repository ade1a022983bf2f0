"""The controls of a run: what each holds and between which ends, which apply when.

Those of the loop are made of the table of loop fields (:mod:`loopviz.loop_fields`). Free of torch, transformers and Gradio.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from loopviz import loop_fields as table
from loopviz.checks import FieldError, shortened
from loopviz.loop_fields import LoopField, Needs, comes_with_loopviz
from loopviz.machine import PRECISIONS
from loopviz.prompt_templates import TEMPLATES, template_of


@dataclass(frozen=True)
class Control:
    """One setting of a run.

    name: its key among a run's settings, and in the texts (`<name>.label`, `<name>.info`).
    kind: `"whole"`, `"number"`, `"choice"`, `"flag"`, `"name"` or `"long"` (a text; `high`: its characters at most).
    low, high, step: limits of a number, inclusive.
    choices: the values of a choice that are offered, of those that come with LoopViz.
    needs: of other controls, what makes this one do anything.
    """

    name: str
    kind: str
    default: Any
    group: str
    low: float = 0
    high: float = 0
    step: float = 1
    choices: tuple[str, ...] = ()
    needs: tuple[Needs, ...] = ()


LAYERS = ("block_start", "block_end")  # the two controls of `loop_layers`


def _of_field(field: LoopField) -> Iterable[Control]:
    """The controls that a loop field has."""
    dial = field.dial
    if field.kind == "layers":
        for name, default in zip(LAYERS, dial.default, strict=True):
            yield Control(name, "whole", default, dial.group, dial.low, dial.high)
        return
    start = field.default if dial.default is table.UNSAID else dial.default
    offered = tuple(choice for choice in field.choices if choice not in dial.kept_back)
    yield Control(field.name, field.kind, start, dial.group, dial.low, dial.high, dial.step, offered, needs=field.needs)


CLUSTER = "cluster"  # what a server says of its precision whose models a cluster holds
SERVER = "server"  # the precision in which a server holds its models for who chooses none
PROMPT_LIMIT = 20_000  # characters; a model's own context is checked by the engine
_SAMPLED = (Needs("greedy", "sampling_only", among=(False,)),)
CONTROLS: tuple[Control, ...] = (
    Control("model", "name", "stories-loop", "model"),
    Control("precision", "choice", SERVER, "model", choices=(SERVER, *PRECISIONS)),
    *(control for field in table.FIELDS for control in _of_field(field)),
    Control("max_new_tokens", "whole", 64, "sampling", 1, 1024),
    Control("greedy", "flag", True, "sampling"),
    Control("temperature", "number", 0.8, "sampling", 0.05, 3.0, 0.05, needs=_SAMPLED),
    Control("top_k", "whole", 50, "sampling", 0, 1000, needs=_SAMPLED),
    Control("top_p", "number", 0.95, "sampling", 0.05, 1.0, 0.01, needs=_SAMPLED),
    Control("min_p", "number", 0.0, "sampling", 0.0, 0.9, 0.01, needs=_SAMPLED),
    Control("repetition_penalty", "number", 1.0, "sampling", 0.5, 2.0, 0.05),
    Control("seed", "whole", 0, "sampling", 0, 2**31 - 1, needs=_SAMPLED),
    Control("template", "choice", "none", "sampling", choices=TEMPLATES),
    Control(
        "input", "long", "", "sampling", 0, PROMPT_LIMIT, needs=(Needs("template", "alpaca_only", among=("alpaca",)),)
    ),
)
BY_NAME: Mapping[str, Control] = {control.name: control for control in CONTROLS}
GROUPS: tuple[str, ...] = ("model", "loop", "kv", "step", "sampling")
# What a model has a say in, and a configuration of a comparison has of its own; everything else is the visitor's alone.
LOOP_GROUPS = ("loop", "kv", "step")
BROUGHT: tuple[str, ...] = tuple(control.name for control in CONTROLS if control.group in LOOP_GROUPS)

# What not every model has, and one of the page's list that has it: the way out that a refusal offers.
HAS: Mapping[str, str] = {
    "loop_injection": "glassbox",
    "loop_norm": "stories-loop",
    "template": "smollm2-135m-instruct",
}


# What settings were called before: links, programs and lessons of then have it, and it means the same.
OLD_NAMES = ("chat",)


def renamed(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Raw values by today's names: `chat`, which was on or off, is one of the templates.

    Raises:
        FieldError: it is neither on nor off.
    """
    if "chat" not in values:
        return values
    chat = values["chat"]
    if not isinstance(chat, bool):
        raise FieldError("chat", chat, "on_off", shown=shortened(chat))
    own, rest = values.get("template", "none"), {name: value for name, value in values.items() if name != "chat"}
    return {**rest, "template": template_of({"chat": chat}) if own == "none" else own}


AS_IT_IS: Mapping[str, Any] = {"template": "none", "input": ""}  # a prompt that nothing is put around


def wording(values: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of an engine that say how a prompt is put, for settings."""
    used = {name: values[name] for name in ("template", "input")}
    return used if why_off("input", values) is None else {**used, "input": BY_NAME["input"].default}


def choices(control: Control) -> tuple[str, ...]:
    """The values of a choice that are offered: those of LoopViz, then whatever people have registered by name here."""
    field = table.BY_NAME.get(control.name)
    registered = (field and field.registered) or {}
    return (*control.choices, *(name for name, one in registered.items() if not comes_with_loopviz(one)))


def defaults() -> dict[str, Any]:
    """The values a page starts with."""
    return {control.name: control.default for control in CONTROLS}


def why_off(name: str, values: Mapping[str, Any]) -> str | None:
    """The text key of the reason why control `name` does nothing under these settings, or None when it applies.

    A control is off when one of its needs does not hold; the first such need gives the reason.
    """
    needs = BY_NAME[name].needs if name in BY_NAME else ()
    return next((f"off.{need.why}" for need in needs if not need.holds(values[need.field])), None)


def effective(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with every control that does not apply at its default: it can then neither act nor be refused."""
    return {
        control.name: values[control.name] if why_off(control.name, values) is None else control.default
        for control in CONTROLS
    }


def _neutral() -> dict[str, Any]:
    plain = {field.name: field.plain for field in table.BLOCK_FIELDS}
    return {name: value for name, value in plain.items() if why_off(name, plain) is None}


# The plain model in the words of the controls, one loop of which nothing is kept but what every layer keeps: of every loop
# field that applies then, the value that changes nothing. So it was before there was the field.
NEUTRAL: Mapping[str, Any] = _neutral()
