"""What the Explore page's parts look like: the component of each control, its words, whether it applies, what is refused.

Beside the controls: the prompt, the prompts to try, the presets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gradio as gr

from loopviz.app import controls as st
from loopviz.app.controls.examples import EXAMPLES_SHOWN, offer_of
from loopviz.app.controls.face import face
from loopviz.app.controls.presets import PRESETS, matching
from loopviz.app.sessions.models import ModelRoom
from loopviz.app.texts import text

if TYPE_CHECKING:
    from loopviz.app.explore.service import Service


def make(
    control: st.Control, lang: str, room: ModelRoom, opening: Mapping[str, Any] | None = None
) -> gr.components.Component:
    """The Gradio component of a control; `opening`: the values the page opens with."""
    values = opening or st.defaults()
    looks = face(control, values, [], lang, models=room.told(lang)) | {"elem_id": f"ctl-{control.name}"}
    if control.kind == "name":
        return gr.Dropdown(room.names, value=room.default, allow_custom_value=True, **looks)
    if control.kind == "choice":
        kind = gr.Radio if len(control.choices) == 2 else gr.Dropdown
        return kind(value=values[control.name], **looks)
    if control.kind == "flag":
        return gr.Checkbox(value=values[control.name], **looks)
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
        "elem_classes": [] if refused is None else ["lv-refused"],
    }


def example_faces(model: str) -> list[Any]:
    """The prompts to try with a model."""
    offer = offer_of(model)
    shown = [*offer.examples, *[None] * (EXAMPLES_SHOWN - len(offer.examples))]
    return [gr.update(value=example or "", visible=example is not None) for example in shown]


def all_faces(
    service: Service,
    values: Mapping[str, Any] | st.Form,
    lang: str,
    problems: list[st.Problem] | None = None,
    changed: Mapping[str, Any] | None = None,
    later: Mapping[str, str] | None = None,
    hint: str = "",
) -> list[Any]:
    """Updates of the prompt, the presets, what to look for, and every control; no value but those `changed`.

    Args:
        problems: what is refused; None for all that would be, as far as it is known.
        later: as :func:`face` has it.
        hint: as :func:`prompt_face` has it.
    """
    changed = changed or {}
    form = st.Form.read(values).changed(changed)  # where something gave way, that is in it
    if problems is None:
        problems = service.problems(form, lang) + service.model_problem(form.model, lang)
    chosen = matching(form.settings)
    look = f"preset.{chosen.name}.look" if chosen else f"look.{offer_of(form.model).name or 'own'}"
    made = [gr.update(**prompt_face(problems, lang, hint))]
    for preset in PRESETS:
        marks = ["lv-preset", "lv-on"] if preset is chosen else ["lv-preset"]
        made.append(gr.update(value=text(lang, f"preset.{preset.name}.label"), elem_classes=marks))
    made.append(text(lang, look))
    for control in st.CONTROLS:
        looks = face(control, form.settings, problems, lang, later, form.gave, service.room.told(lang))
        made.append(gr.update(**looks, **({"value": changed[control.name]} if control.name in changed else {})))
    return made
