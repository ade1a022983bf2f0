"""What the Explore page's form is made of: the component of each control, the words of the prompt, the prompts to try."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from loopviz.app import controls as st
from loopviz.app.contract import CLASSES, ELEMENTS
from loopviz.app.controls.examples import EXAMPLES_SHOWN, offer_of
from loopviz.app.controls.face import face
from loopviz.app.sessions.models import ModelRoom
from loopviz.app.texts import text


def make(
    control: st.Control, lang: str, room: ModelRoom, opening: Mapping[str, Any] | None = None
) -> gr.components.Component:
    """The Gradio component of a control; `opening`: the values the page opens with."""
    values = opening or st.defaults()
    told = {"models": room.told(lang), "server": room.precision}
    looks = face(control, values, [], lang, **told) | {"elem_id": ELEMENTS["control"] + control.name}
    if control.kind == "name":
        return gr.Dropdown(room.names, value=room.default, allow_custom_value=True, **looks)
    if control.kind == "choice":
        kind = gr.Radio if len(control.choices) == 2 else gr.Dropdown
        return kind(value=values[control.name], **looks)
    if control.kind == "flag":
        return gr.Checkbox(value=values[control.name], **looks)
    if control.kind == "long":
        return gr.Textbox(value=values[control.name], lines=2, max_lines=8, **looks)
    if control.high > 999:  # a range too long to slide over
        return gr.Number(value=values[control.name], precision=0, **looks)
    if control.name in ("block_start", "block_end"):
        return gr.Number(value=values[control.name], precision=0, minimum=0, **looks)
    return gr.Slider(control.low, control.high, value=values[control.name], step=control.step, buttons=[], **looks)


def prompt_face(problems: list[st.Problem], lang: str, hint: str = "") -> dict[str, Any]:
    """What the prompt's box looks like: its words, what is refused, and what the model makes of the prompt (`hint`)."""
    refused = next((problem.reason for problem in problems if problem.control == "prompt"), None)
    return {
        "label": text(lang, "prompt.label"),
        "placeholder": text(lang, "prompt.placeholder"),
        "info": hint or text(lang, "prompt.info") if refused is None else text(lang, "refused", reason=refused),
        "elem_classes": [] if refused is None else [CLASSES["refused"]],
    }


def examples_of(model: str) -> list[str | None]:
    """The prompts to try with a model, as many as there are buttons; None for a button without one."""
    offered = offer_of(model).examples
    return [*offered, *[None] * (EXAMPLES_SHOWN - len(offered))]
