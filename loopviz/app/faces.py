"""What the settings look like: the component of each control, its words, whether it applies, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from loopviz.app import settings as st
from loopviz.app.library import OFFERED
from loopviz.app.texts import text


def _info(control: st.Control, values: Mapping[str, Any], lang: str) -> str:
    """The line under a control that applies."""
    name = control.name
    if name == "cosine_threshold":
        cos = st.cosine_of(values[name])
        return text(lang, f"{name}.info", cos=f"{cos:.7g}", gap=f"{1 - cos:.2g}")
    if name == "kl_threshold":
        return text(lang, f"{name}.info", kl=f"{st.kl_of(values[name]):g}")
    if name == "virtual_layer_count" and values["loop_strategy"] == "dynamic_stop":
        return text(lang, f"{name}.info.dynamic", most=values["min_loop_count"])
    return text(lang, f"{name}.info")


def _choices(control: st.Control, lang: str) -> list[tuple[str, str]]:
    return [(text(lang, f"{control.name}.{choice}"), choice) for choice in control.choices]


def face(
    control: st.Control,
    values: Mapping[str, Any],
    problems: list[st.Problem],
    lang: str,
    later: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What a control looks like under `values`: its words, whether it applies and why not, and what is refused.

    `later`: the controls whose values are for the next run, each with the text key of the reason.
    """
    later = later or {}
    off = st.why_off(control.name, values)
    refused = next((problem.reason for problem in problems if problem.control == control.name), None)
    info = _info(control, values, lang)
    if refused is not None:
        info = text(lang, "refused", reason=refused)
    elif off is not None:
        info = text(lang, off)
    elif control.name in later:
        info = text(lang, "later", reason=text(lang, later[control.name]))
    looks: dict[str, Any] = {
        "label": text(lang, f"{control.name}.label"),
        "info": info,
        "interactive": off is None,
        "elem_classes": ["lv-refused"] if refused is not None else ["lv-later"] if control.name in later else [],
    }
    if control.kind == "choice":
        looks["choices"] = _choices(control, lang)
    return looks


def make(control: st.Control, lang: str, default_model: str) -> gr.components.Component:
    """The Gradio component of a control."""
    values = st.defaults()
    looks = face(control, values, [], lang) | {"elem_id": f"ctl-{control.name}"}
    if control.kind == "name":
        names = [default_model, *(name for name in OFFERED if name != default_model)]
        return gr.Dropdown(names, value=default_model, allow_custom_value=True, **looks)
    if control.kind == "choice":
        kind = gr.Radio if len(control.choices) == 2 else gr.Dropdown
        return kind(value=control.default, **looks)
    if control.kind == "flag":
        return gr.Checkbox(value=control.default, **looks)
    if control.high > 999:  # a range too long to slide over
        return gr.Number(value=control.default, precision=0, **looks)
    if control.name in ("block_start", "block_end"):
        return gr.Number(value=control.default, precision=0, minimum=0, **looks)
    return gr.Slider(control.low, control.high, value=control.default, step=control.step, buttons=[], **looks)
