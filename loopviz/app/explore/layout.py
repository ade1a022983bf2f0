"""What stands on the Explore page: Gradio's components, and their words and looks under a form's values, by component."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from typing import Any

import gradio as gr
from gradio.blocks import Block
from gradio.components import Component

from loopviz.app import contract
from loopviz.app import controls as st
from loopviz.app.contract import CLASSES, ELEMENTS
from loopviz.app.controls.examples import offer_of
from loopviz.app.controls.face import face
from loopviz.app.controls.presets import ARTICLE, PRESETS, Preset, is_set, matching
from loopviz.app.explore.answers import Questions
from loopviz.app.explore.config import page_config
from loopviz.app.explore.controls_view import examples_of, make, prompt_face
from loopviz.app.page import JS_LOST, askable, nav
from loopviz.app.server.assets import opening_urls, places
from loopviz.app.sessions.messages import wire
from loopviz.app.sessions.models import ModelRoom
from loopviz.app.texts import LANGUAGES, text

Updates = dict[Block, Any]  # what an event answers with: by component, what changes of it

_JS_ON_LOAD = f"""
const root = element.querySelector('.lv-place');
const told = {json.dumps([*contract.EVENTS["explore"]])};
import(new URL(root.dataset.script, document.baseURI).href)
  .then((live) => live.mount({{ element, server, props, watch, tell: Object.fromEntries(told.map((name) => [name, (asked) => trigger(name, asked)])) }}))
  .catch({JS_LOST});
"""


def _title(lang: str) -> str:
    return f"<h1>LoopViz</h1>{nav('explore', lang)}<p>{text(lang, 'page.tagline')}</p>"


def _template() -> str:
    """The live part's element, with the addresses its script needs."""
    data = " ".join(f'data-{name}="{url}"' for name, url in places().items())
    openings = html.escape(json.dumps(opening_urls()))
    # it is the page's part only once the script has taken it: the early one is there before
    return f'<div class="lv-place" {data} data-opening="{openings}"></div>'


def _ways(chosen: Preset | None, lang: str) -> str:
    """What the button says that opens the presets: what it is for, and the one that is set."""
    return f"{text(lang, 'presets')}\n{text(lang, f'preset.{chosen.name}.label' if chosen else 'presets.own')}"


def _preset_face(preset: Preset, chosen: bool, lang: str) -> dict[str, Any]:
    """A preset's name, and what it does in a line; lit when the settings are its."""
    words = f"{text(lang, f'preset.{preset.name}.label')}\n{text(lang, f'preset.{preset.name}.line')}"
    return {"value": words, "elem_classes": [CLASSES["preset"], "lv-on"] if chosen else [CLASSES["preset"]]}


class Layout:
    """The page's components, made where they stand.

    Args:
        room: the models.
        questions: what the page's script may ask.
        lang: the language of the first paint.
        opening: the controls' values, and the prompt, of what the page opens with; None: the usual ones.

    Attributes:
        live: holds text and panels, and nothing of Gradio's is inside it. Its value is the last message to the page's script;
            on the way to the server it is what that script knows of the form (`assets/web/explore/form_state.js`).
    """

    def __init__(
        self, room: ModelRoom, questions: Questions, lang: str, opening: tuple[dict[str, Any] | None, str | None]
    ) -> None:
        self.room = room
        self._opening, self._prompt = opening
        self._head(lang)
        with gr.Row(elem_id=ELEMENTS["page"]):
            with gr.Column(elem_id="lv-ask"):
                self._ask(lang)
            with gr.Column(elem_id=ELEMENTS["settings"]):
                self._settings(lang)
            with gr.Column(elem_id="lv-live-column"):
                self.live = gr.HTML(
                    wire(page_config(lang)),
                    html_template=_template(),
                    js_on_load=_JS_ON_LOAD,
                    apply_default_css=False,
                    elem_id="lv-live",
                    server_functions=askable(questions, *contract.QUESTIONS["explore"]),
                )

    # --- where what stands ----------------------------------------------------------------------------------------

    def _head(self, lang: str) -> None:
        with gr.Row(elem_id="lv-head"):
            self.title = gr.HTML(_title(lang), elem_id="lv-title")
            # the script puts the tour and the glossary here
            learn = CLASSES["learn"]
            gr.HTML(f'<div class="{learn}"></div>', elem_id=ELEMENTS["learn"])
            self.lang = gr.Radio(
                [(name, key) for key, name in LANGUAGES.items()],
                value=lang,
                label=" / ".join(LANGUAGES.values()),
                show_label=False,
                container=False,
                elem_id="lv-lang",
            )
            self.dark = gr.Button("◐", elem_id=ELEMENTS["dark"], size="sm", variant="secondary")

    def _ask(self, lang: str) -> None:
        offer = offer_of(self.room.default)
        with gr.Row(elem_id="lv-prompt-row"):
            prompt = self._prompt or offer.examples[0]
            self.prompt = gr.Textbox(
                value=prompt, lines=1, max_lines=8, elem_id=ELEMENTS["prompt"], **prompt_face([], lang)
            )
            with gr.Column(elem_id=ELEMENTS["buttons"], scale=0):  # the script listens to them
                self.run = gr.Button(text(lang, "run"), variant="primary", elem_id=ELEMENTS["run"])
                self.stop = gr.Button(text(lang, "stop"), variant="secondary", elem_id=ELEMENTS["stop"])
            # what can be asked instead, and how else to loop: each a list under its button (assets/web/explore/drops.js)
            with gr.Column(elem_id=ELEMENTS["tries"], elem_classes=CLASSES["drop"], scale=0):
                self.tries = gr.Button(text(lang, "examples"), elem_classes=CLASSES["opens"])
                with gr.Column(elem_id="lv-examples"):
                    self.examples = [
                        gr.Button(
                            example or "", size="sm", elem_classes=CLASSES["example"], visible=example is not None
                        )
                        for example in examples_of(self.room.default)
                    ]
            with gr.Column(elem_id=ELEMENTS["ways"], elem_classes=CLASSES["drop"], scale=0):
                values = self._opening or st.defaults()
                self.ways = gr.Button(_ways(matching(values), lang), elem_classes=CLASSES["opens"])
                with gr.Column(elem_id="lv-presets"):
                    self.presets = {preset.name: self._preset(preset, lang) for preset in PRESETS}
        self.keep = gr.Button(visible=False, size="sm", elem_id="lv-keep")
        self.look = gr.HTML(text(lang, f"look.{offer.name or 'own'}"), elem_id="lv-look")

    def _settings(self, lang: str) -> None:
        self.controls: dict[str, Component] = {}
        self.groups: dict[str, gr.Accordion] = {}
        for group in st.GROUPS:
            opened = group in ("model", "loop")
            with gr.Accordion(text(lang, f"group.{group}"), open=opened, elem_id=f"lv-group-{group}") as self.groups[
                group
            ]:
                members = [control for control in st.CONTROLS if control.group == group]
                if group == "loop":
                    with gr.Row(elem_classes="lv-pair"):
                        self._make(members[:2], lang)
                    members = members[2:]
                if group == "sampling":
                    self.presets[ARTICLE.name] = self._preset(ARTICLE, lang)
                self._make(members, lang)

    def _preset(self, preset: Preset, lang: str) -> gr.Button:
        looks = _preset_face(preset, is_set(preset, self._opening or st.defaults()), lang)
        return gr.Button(size="sm", elem_id=f"lv-preset-{preset.name}", **looks)

    def _make(self, controls: list[st.Control], lang: str) -> None:
        for control in controls:
            self.controls[control.name] = make(control, lang, self.room, self._opening)

    # --- sets of them, for events -----------------------------------------------------------------------------------

    @property
    def form(self) -> set[Component]:
        """What a visitor has set, and what the page's script knows of it: `live`."""
        return {self.prompt, self.lang, *self.controls.values(), self.live}

    @property
    def worded(self) -> set[Block]:
        """What :meth:`words` answers for."""
        return {
            self.title,
            self.run,
            self.stop,
            self.tries,
            *self.examples,
            *self.groups.values(),
            self.live,
        }

    @property
    def faced(self) -> set[Block]:
        """What :meth:`faces` answers for."""
        return {self.prompt, self.ways, *self.presets.values(), self.look, *self.controls.values()}

    # --- words and looks ---------------------------------------------------------------------------------------------

    def words(self, lang: str, model: str, **more: Any) -> Updates:
        """What is said in `lang`, whatever stands in the form; `more` goes to the page's script."""
        examples = [gr.update(value=words or "", visible=words is not None) for words in examples_of(model)]
        return {
            self.title: _title(lang),
            self.run: gr.update(value=text(lang, "run")),
            self.stop: gr.update(value=text(lang, "stop")),
            self.tries: gr.update(value=text(lang, "examples")),
            **dict(zip(self.examples, examples, strict=True)),
            **{group: gr.update(label=text(lang, f"group.{name}")) for name, group in self.groups.items()},
            self.live: wire(page_config(lang) | more),
        }

    def faces(
        self,
        form: st.Form,
        problems: list[st.Problem],
        lang: str,
        changed: Mapping[str, Any] | None = None,
        later: Mapping[str, str] | None = None,
        hint: str = "",
    ) -> Updates:
        """How the prompt, the presets, what to look for, and every control look; no value but those `changed`.

        Args:
            form: as it stands, with what is changed.
            problems: what is refused.
            later: as :func:`loopviz.app.controls.face.face` has it.
            hint: as :func:`prompt_face` has it.
        """
        changed, chosen = changed or {}, matching(form.settings)
        told = {"models": self.room.told(lang), "server": self.room.precision}
        look = f"preset.{chosen.name}.look" if chosen else f"look.{offer_of(form.model).name or 'own'}"
        made: Updates = {self.prompt: gr.update(**prompt_face(problems, lang, hint)), self.look: text(lang, look)}
        made[self.ways] = gr.update(value=_ways(chosen, lang))
        for preset in (*PRESETS, ARTICLE):
            made[self.presets[preset.name]] = gr.update(**_preset_face(preset, is_set(preset, form.settings), lang))
        for control in st.CONTROLS:
            looks = face(control, form.settings, problems, lang, later, form.gave, **told)
            value = {"value": changed[control.name]} if control.name in changed else {}
            made[self.controls[control.name]] = gr.update(**looks, **value)
        return made
