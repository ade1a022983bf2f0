"""What a control looks like under the values of the others: its words, whether it applies and why not, what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loopviz.app.contract import CLASSES
from loopviz.app.controls.controls import BY_NAME, CLUSTER, SERVER, Control, choices, why_off
from loopviz.app.controls.loop_values import cosine_of, kl_of
from loopviz.app.controls.model_name import short_name
from loopviz.app.controls.refusal import Problem
from loopviz.app.texts import text


def _info(control: Control, values: Mapping[str, Any], lang: str, server: str) -> str:
    """The line under a control that applies."""
    name = control.name
    if name == "precision" and server == CLUSTER:
        return text(lang, "precision.info.cluster")
    if name == "precision":
        chosen = server if values[name] == SERVER else values[name]
        own = text(lang, "precision.info.server", precision=text(lang, f"precision.{server}"))
        said = [own] if values[name] == SERVER else []
        said += [text(lang, f"precision.info.{chosen}"), *([] if chosen == "exact" else [text(lang, "precision.info")])]
        return " ".join(said)
    if name == "cosine_threshold":
        cos = cosine_of(values[name])
        return text(lang, f"{name}.info", cos=f"{cos:.7g}", gap=f"{1 - cos:.2g}")
    if name == "kl_threshold":
        return text(lang, f"{name}.info", kl=f"{kl_of(values[name]):g}")
    if name == "virtual_layer_count" and values["loop_strategy"] == "dynamic_stop":
        return text(lang, f"{name}.info.dynamic", most=values["min_loop_count"])
    if name == "layer_threshold" and values["layer_chooser"] in BY_NAME["layer_chooser"].choices:
        return text(lang, f"{name}.info.{values['layer_chooser']}")
    if name == "template":
        return f"{text(lang, f'{name}.info.{values[name]}')} {text(lang, f'{name}.info') if values[name] != 'none' else ''}".strip()
    return text(lang, f"{name}.info")


def _word(control: Control, choice: str, lang: str) -> str:
    """A choice in words; a name that somebody registered is its own word."""
    return text(lang, f"{control.name}.{choice}") if choice in control.choices else choice


def face(
    control: Control,
    values: Mapping[str, Any],
    problems: list[Problem],
    lang: str,
    later: Mapping[str, str] | None = None,
    gave: Mapping[str, Any] | None = None,
    models: str | None = None,
    server: str = "exact",
) -> dict[str, Any]:
    """What a control looks like under `values`: its words, whether it applies and why not, and what is refused.

    `later`: the controls whose values are for the next run, each with the text key of the reason. `gave`: what the
    visitor had set and gave way to the model. `models`: what may be named as the model (:meth:`ModelRoom.told`). `server`: the
    precision in which this server holds its models.
    """
    later, gave = later or {}, gave or {}
    off = why_off(control.name, values)
    refused = next((problem.reason for problem in problems if problem.control == control.name), None)
    info = models if models is not None and control.name == "model" else _info(control, values, lang, server)
    if refused is not None:
        info = text(lang, "refused", reason=refused)
    elif control.name in gave:
        info = text(lang, "gave", was=_shown(control, gave[control.name], lang), model=short_name(values["model"]))
    elif off is not None:
        info = text(lang, off)
    elif control.name in later:
        info = text(lang, "later", reason=text(lang, later[control.name]))
    marked = ["lv-later"] if control.name in {*later, *gave} else []
    looks: dict[str, Any] = {
        "label": text(lang, f"{control.name}.label"),
        "info": info,
        "interactive": off is None,
        "elem_classes": [CLASSES["refused"]] if refused is not None else marked,
    }
    if control.kind == "choice":
        looks["choices"] = [(_word(control, choice, lang), choice) for choice in choices(control)]
    return looks


def plain_face(
    control: Control, values: Mapping[str, Any], problems: list[Problem], lang: str, server: str = "exact"
) -> dict[str, Any]:
    """A control as the script of a page shows it: the line under it, whether it applies, whether it is refused."""
    made = face(control, values, problems, lang, server=server)
    return {"info": made["info"], "on": made["interactive"], "bad": CLASSES["refused"] in made["elem_classes"]}


def _shown(control: Control, value: Any, lang: str) -> str:
    """A control's value in words."""
    if control.kind == "choice":
        return _word(control, value, lang)
    return text(lang, f"gave.{str(value).lower()}") if control.kind == "flag" else f"{value:g}"
