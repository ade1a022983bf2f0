"""The Explore page: a prompt, a looped model, and every loop of every token drawn as it is made."""

from __future__ import annotations

import html
import itertools
import json
from collections.abc import Iterator
from typing import Any

import gradio as gr

from loopviz.app import controls as st
from loopviz.app.controls.examples import EXAMPLES_SHOWN, OFFERED, OFFERS, OWN, Offer, is_example, offer_of
from loopviz.app.controls.link_word import QUERY, opens
from loopviz.app.controls.presets import PRESETS
from loopviz.app.explore import (
    first_run,
    links,
    served,  # noqa: F401  what this page has the server serve
)
from loopviz.app.explore.answers import View
from loopviz.app.explore.config import page_config
from loopviz.app.explore.controls_view import all_faces, example_faces, make, prompt_face
from loopviz.app.explore.files import Sharing
from loopviz.app.explore.service import Service
from loopviz.app.page import PRIVATE, askable, nav, session_of
from loopviz.app.server.assets import opening_urls, places
from loopviz.app.sessions.faults import guarded
from loopviz.app.sessions.job import status
from loopviz.app.sessions.messages import wire
from loopviz.app.sessions.tickets import MOST_NUMBER, number
from loopviz.app.texts import LANGUAGES, pick_language, text
from loopviz.panels import PANELS
from loopviz.panels.kit import formulas

_JS_ON_LOAD = """
const root = element.querySelector('.lv-place');
import(new URL(root.dataset.script, document.baseURI).href)
  .then((live) => live.mount({ element, server, props, watch, tell: {
    loaded: () => trigger('loaded'),
    start: (asked) => trigger('start', asked),
    again: (asked) => trigger('again', asked),
    adopt: (asked) => trigger('adopt', asked),
    retype: (asked) => trigger('retype', asked),
    link: (asked) => trigger('link', asked),
  } }))
  .catch((error) => { console.error(error); root.textContent = 'The page script could not be loaded. Reload the page.'; });
"""
# The language and the look (see loopviz.app.server.document) are remembered where the visitor is, not on the server.
_JS_OPEN = "(...values) => { try { values[0] = localStorage.getItem('loopviz.lang') ?? ''; } catch {} return values; }"
_JS_SPEAK = """(...values) => { try { localStorage.setItem('loopviz.lang', values[1]); } catch {} return values; }"""
_JS_DARK = """() => {
  const dark = document.body.classList.toggle('dark');
  try { localStorage.setItem('loopviz.dark', dark ? '1' : '0'); } catch {}
}"""
# The page's script says where the model is that this visitor has chosen.
_JS_CHOSEN = "(name) => { window.loopvizModel = name; document.querySelector('.lv')?.page?.model.watch(true); }"
_JS_LOADED = "() => document.querySelector('.lv')?.page?.model.watch()"
# Begin a run: the page's script numbers it and asks for it, with what is wished for it (see `assets/web/explore/run_starts.js`).
_JS_START = "() => { document.querySelector('.lv')?.page?.start(); }"
_JS_ADOPTED = "(word) => { if (word) document.querySelector('.lv')?.page?.start(); }"
_JS_STOP = "() => String(document.querySelector('.lv')?.page?.stopping() ?? '')"
_JS_REFUSED = "() => document.querySelector('.lv')?.page?.refusals(%(groups)s, %(names)s)"
# Which controls the visitor has touched, and what gave way to a model, is known in the page alone, so that no answer that
# is on its way can be behind: it goes along with every question as its last part.
_JS_MARKS = """(...values) => {
  const { loopvizTouched: touched = [], loopvizGave: gave = {} } = window;
  values[values.length - 1] = JSON.stringify({ touched: [...touched], gave });
  return values;
}"""
_JS_TOUCH = """() => {
  window.loopvizTouched ??= new Set();
  for (const name of %(names)s) {
    window.loopvizTouched.add(name);
    if (window.loopvizGave) delete window.loopvizGave[name];
  }
  return %(values)s;
}"""
# A model has brought its settings, or a run's own are taken over: what the visitor touched meanwhile stays.
_JS_BRING = """(word, chosen) => {
  const names = %(names)s;
  if (!word) return [];
  const { model, changes, gave, whole, prompt, suits = model } = JSON.parse(word);
  const touched = (window.loopvizTouched ??= new Set());
  if (whole) touched.clear();
  else if (model !== String(chosen).trim()) return [];
  for (const name of Object.keys(gave)) touched.delete(name);
  window.loopvizGave = gave;
  const brought = names.map((name) => (name in changes && !touched.has(name) ? changes[name] : undefined));
  return [suits, whole ? model : undefined, whole ? prompt : undefined, ...brought];
}"""
# Another model was chosen: its own prompts to try; a suggested prompt gives way to its suggestion. By a link, or with a
# run taken over (`linked` is its model), the prompt stays.
_JS_INTRODUCE = """(linked, prompt, chosen) => {
  const offers = %(offers)s;
  const examples = offers[String(chosen)] ?? offers[''];
  const shown = Array.from({ length: %(shown)d }, (_, i) => ({
    __type__: 'update', value: examples[i] ?? '', visible: i < examples.length,
  }));
  if (linked && linked === chosen) return [undefined, undefined, ...shown];
  const ours = [%(opening)s, ...Object.values(offers).flat()];
  const suggested = ours.includes(prompt) && !examples.includes(prompt);
  return ['', suggested ? examples[0] : undefined, ...shown];
}"""
# What the page's script may ask, of `Questions`.
_QUESTIONS = ("resync", "focus", "advance", "text_until", "model_status")


def _title(lang: str) -> str:
    return f"<h1>LoopViz</h1>{nav('explore', lang)}<p>{text(lang, 'page.tagline')}</p>"


def _template() -> str:
    """The live part's element, with the addresses its script needs."""
    data = " ".join(f'data-{name}="{url}"' for name, url in places().items())
    openings = html.escape(json.dumps(opening_urls()))
    # it is the page's part only once the script has taken it: the early one is there before
    return f'<div class="lv-place" {data} data-opening="{openings}"></div>'


def _asked(event: gr.EventData) -> dict[str, Any]:
    """What the page's script says with an event; nothing when it is not what the script sends."""
    return event._data if isinstance(event._data, dict) else {}


class ExplorePage:
    """The page's components and what happens when they are touched.

    Args:
        service: the runs.
        lang: the language of the first paint; a visit then takes its own.
    """

    def __init__(self, service: Service, lang: str = "en") -> None:
        self.service = service
        self.sharing = Sharing(service.registry, service.room)
        self.first = lang
        # the controls stand at what the page shows first, so that the first Run goes on with it
        self.opening, self.opening_prompt = first_run.settings(service.room.default) or (None, None)
        with gr.Blocks(title="LoopViz", analytics_enabled=False, fill_width=True) as self.demo:
            self._layout()
            self._events()

    # --- layout ---------------------------------------------------------------------------------------------------

    def _layout(self) -> None:
        lang = self.first
        with gr.Row(elem_id="lv-head"):
            self.title = gr.HTML(_title(lang), elem_id="lv-title")
            gr.HTML(
                '<div class="lv-learn"></div>', elem_id="lv-learn"
            )  # the script puts the tour and the glossary here
            languages = [(name, key) for key, name in LANGUAGES.items()]
            self.lang = gr.Radio(
                languages,
                value=lang,
                label=" / ".join(LANGUAGES.values()),
                show_label=False,
                container=False,
                elem_id="lv-lang",
            )
            self.dark = gr.Button("◐", elem_id="lv-dark", size="sm", variant="secondary")
        with gr.Row(elem_id="lv-page"):
            with gr.Column(elem_id="lv-ask"):
                self._ask(lang)
            with gr.Column(elem_id="lv-settings"):
                self._settings(lang)
            with gr.Column(elem_id="lv-live-column"):
                self.live = gr.HTML(
                    wire(page_config(lang)),
                    html_template=_template(),
                    js_on_load=_JS_ON_LOAD,
                    apply_default_css=False,
                    elem_id="lv-live",
                    server_functions=askable(self.service.questions, *_QUESTIONS),
                )
        # Gradio typesets these with the KaTeX it ships; the panels show copies
        with gr.Column(elem_id="lv-formulas"):
            for lang, (name, panel) in itertools.product(LANGUAGES, PANELS.items()):
                gr.Markdown(
                    f"$${formulas.spoken(panel.TEXTS['en']['formula'], lang)}$$",
                    elem_id=f"lv-formula-{lang}-{name}",
                    latex_delimiters=[{"left": "$$", "right": "$$", "display": True}],
                )

    def _ask(self, lang: str) -> None:
        with gr.Row(elem_id="lv-prompt-row"):
            self.prompt = gr.Textbox(
                value=self.opening_prompt or offer_of(self.service.room.default).examples[0],
                lines=1,
                max_lines=8,
                elem_id="ctl-prompt",
                **prompt_face([], lang),
            )
            with gr.Column(elem_id="lv-buttons", scale=0):
                self.run = gr.Button(text(lang, "run"), variant="primary", elem_id="lv-run")
                self.stop = gr.Button(text(lang, "stop"), variant="secondary", elem_id="lv-stop")
        self.keep = gr.Button(visible=False, size="sm", elem_id="lv-keep")
        self.kinds = {
            key: gr.HTML(text(lang, key), elem_classes="lv-what", render=False) for key in ("examples", "presets")
        }
        with gr.Row(elem_id="lv-examples"):
            self.kinds["examples"].render()
            # worded from the beginning, as are the presets: what is worded later moves what is below it
            offered = offer_of(self.service.room.default).examples
            self.examples = [
                gr.Button(example or "", size="sm", elem_classes="lv-example", visible=example is not None)
                for example in (*offered, *[None] * (EXAMPLES_SHOWN - len(offered)))
            ]
        with gr.Row(elem_id="lv-presets"):
            self.kinds["presets"].render()
            self.presets = [
                gr.Button(
                    text(lang, f"preset.{preset.name}.label"),
                    size="sm",
                    elem_classes="lv-preset",
                    elem_id=f"lv-preset-{preset.name}",
                )
                for preset in PRESETS
            ]
        self.look = gr.HTML(text(lang, f"look.{offer_of(self.service.room.default).name or 'own'}"), elem_id="lv-look")
        away: dict[str, Any] = {"elem_classes": "lv-away", "container": False, "show_label": False}
        # the model whose prompt a link, or a run taken over, has set: it stays until another model is chosen
        self.linked = gr.Textbox(elem_id="lv-linked", **away)
        # the model whose settings the controls hold, "" until one has arrived: kept where they are, to come with them
        self.suits = gr.Textbox(self.service.room.default if self.opening else "", elem_id="lv-suits", **away)
        # filled by the page's script as it asks something: what the visitor has touched
        self.marks = gr.Textbox(elem_id="lv-marks", **away)
        # what an arrived model, or a run taken over, brings: put into the controls by the page's script
        self.brought = gr.Textbox(elem_id="lv-brought", **away)

    def _settings(self, lang: str) -> None:
        self.controls: dict[str, gr.components.Component] = {}
        self.groups: dict[str, gr.Accordion] = {}
        for group in st.GROUPS:
            with gr.Accordion(
                text(lang, f"group.{group}"), open=group in ("model", "loop"), elem_id=f"lv-group-{group}"
            ) as self.groups[group]:
                members = [control for control in st.CONTROLS if control.group == group]
                if group == "loop":
                    with gr.Row(elem_classes="lv-pair"):
                        for control in members[:2]:
                            self.controls[control.name] = make(control, lang, self.service.room, self.opening)
                    members = members[2:]
                for control in members:
                    self.controls[control.name] = make(control, lang, self.service.room, self.opening)

    # --- events ---------------------------------------------------------------------------------------------------

    def _events(self) -> None:
        order = [self.controls[control.name] for control in st.CONTROLS]
        everything = [self.prompt, self.lang, *order, self.suits, self.marks]
        faces = [self.prompt, *self.presets, self.look, *order]
        words = [
            self.title,
            self.run,
            self.stop,
            *self.kinds.values(),
            *self.examples,
            *self.groups.values(),
            self.live,
        ]
        quick: dict[str, Any] = {"queue": False, **PRIVATE}
        marked: dict[str, Any] = {"js": _JS_MARKS, **quick}

        # its first input carries what the visitor's browser remembers
        opened = [self.linked, *everything]
        self.demo.load(
            guarded(self._open), opened, [self.lang, self.linked, self.suits, *words, *faces], js=_JS_OPEN, **quick
        )
        self.lang.input(guarded(self._speak), everything, [*words, *faces], js=_JS_SPEAK, **quick)
        self.dark.click(None, None, None, js=_JS_DARK, **quick)
        # by the visitor: what is set from here comes with its faces, and would be looked at half set
        for name, component in self.controls.items():
            component.input(None, None, None, js=_JS_TOUCH % {"names": json.dumps([name]), "values": "[]"}, **quick)
        changes = [component.input for component in order]
        gr.on(changes, guarded(self._check), everything, [self.live, *faces], trigger_mode="always_last", **marked)

        model = self.controls["model"]
        offers = {offer.name: offer.examples for offer in (*OFFERS, OWN)}
        introduce = _JS_INTRODUCE % {
            "offers": json.dumps(offers),
            "opening": json.dumps(self.opening_prompt),
            "shown": EXAMPLES_SHOWN,
        }
        introduced = [self.linked, self.prompt, *self.examples]
        model.change(None, [self.linked, self.prompt, model], introduced, js=introduce, **quick)
        model.change(None, model, None, js=_JS_CHOSEN, **quick)
        arrived = self.live.loaded(
            guarded(self._suit), everything, [self.brought, *faces], trigger_mode="always_last", **marked
        )
        bring = _JS_BRING % {"names": json.dumps([control.name for control in st.CONTROLS])}
        taking = ([self.brought, model], [self.suits, self.linked, self.prompt, *order])
        arrived.then(None, *taking, js=bring, **quick)

        self.live.link(guarded(self._link), everything, self.live, **marked)
        # the script puts the text of a run into the prompt, to be changed there
        self.live.retype(guarded(self._retype), None, self.prompt, **quick)
        self.keep.click(guarded(self._shorten), everything, [self.prompt, self.keep], **marked)
        self._starts(everything, faces, taking, bring)
        self.demo.unload(guarded(self._leave))

    def _starts(self, everything: list[Any], faces: list[Any], taking: tuple[Any, Any], bring: str) -> None:
        """All that begins a run, and what ends one. A start first sets what it sets, then the script asks for the run.

        That is one event, whatever began it. The server ends the session's earlier run by itself, in one step with
        beginning the next (:class:`loopviz.app.sessions.tickets.Starts`): Gradio's `cancels` lose a start that meets another.
        """
        quick: dict[str, Any] = {"queue": False, "trigger_mode": "multiple", **PRIVATE}
        start: dict[str, Any] = {"js": _JS_START, **quick}
        self.run.click(None, None, None, **start)
        for button in self.examples:
            button.click(None, button, self.prompt, js="(example) => example", **quick).then(None, None, None, **start)
        for preset, button in zip(PRESETS, self.presets, strict=True):
            controls = [self.controls[name] for name in preset.values]
            said = {"names": json.dumps([*preset.values]), "values": json.dumps([*preset.values.values()])}
            button.click(None, None, controls, js=_JS_TOUCH % said, **quick).then(None, None, None, **start)
        # a run's own settings, once more; what cannot be taken over is said, and nothing starts
        asked = [self.prompt, self.lang]
        adopted = self.live.adopt(guarded(self._adopt), asked, [self.live, self.brought], **quick)
        adopted.then(None, *taking, js=bring, **quick).then(None, self.brought, None, **quick, js=_JS_ADOPTED)
        # going on from a run: a text that has been through the chat template once is not put into it again
        self.live.again(guarded(self._take), None, [self.prompt, self.controls["chat"]], **quick).then(
            None, None, None, **start
        )
        run = self.live.start(
            guarded(self._run),
            everything,
            self.live,
            concurrency_limit=None,  # who comes waits in a line of ours (see loopviz.app.sessions.waiting_line)
            js=_JS_MARKS,
            trigger_mode="multiple",
            **PRIVATE,
        )
        settled = run.then(guarded(self._settle), everything, [self.keep, *faces], js=_JS_MARKS, **quick)
        refused = _JS_REFUSED % {"groups": json.dumps([*self.groups]), "names": json.dumps([*self.controls])}
        blamed = [self.prompt, self.keep, *self.groups.values(), *self.controls.values()]
        settled.then(None, None, blamed, js=refused, **quick)
        run.then(None, None, None, js=_JS_LOADED, **quick)  # it may have, or have tried in vain
        self.stop.click(guarded(self._stop), self.marks, self.live, js=_JS_STOP, **quick)

    @staticmethod
    def _form(values: tuple[Any, ...]) -> st.Form:
        """What an event's inputs say: the controls, whose they are, and the page's marks. Read here, and nowhere after."""
        *own, marks = values
        named = dict(zip((*(control.name for control in st.CONTROLS), st.SUITS), own, strict=True))
        return st.Form.read({**named, **st.marks(marks)})

    def _words(self, lang: str, model: str, **more: Any) -> list[Any]:
        return [
            _title(lang),
            gr.update(value=text(lang, "run")),
            gr.update(value=text(lang, "stop")),
            *(text(lang, key) for key in self.kinds),
            *example_faces(model),
            *(gr.update(label=text(lang, f"group.{group}")) for group in self.groups),
            wire(page_config(lang) | more),
        ]

    def _open(self, request: gr.Request, remembered: str, prompt: str, lang: str, *values: Any) -> list[Any]:
        """A visit begins: in the language its address asks for, or the visitor chose last time, or the browser prefers.

        What a link in the address asks for is set; what it could not set, the page's script says.
        """
        query = dict(request.query_params or {})
        asked, word = query.get("lang"), query.get(QUERY)
        header = (request.headers or {}).get("accept-language", "")
        lang = pick_language(asked if asked in LANGUAGES else remembered, header)
        visit = self.sharing.visit(session_of(request))
        form = self._form(values)
        if not opens(word):
            words = self._words(lang, form.chosen, visit=visit)
            return [lang, "", gr.skip(), *words, *all_faces(self.service, form, lang)]
        state, _ = links.read(word, self.service.room, lang)
        prompt, named = prompt if state.prompt is None else state.prompt, state.values
        faces, model = all_faces(self.service, named, lang, changed=named), named["model"]
        faces[0]["value"] = prompt
        # settings of a model that this server does not name are no other model's
        suits = "" if state.foreign else model
        return [lang, model, suits, *self._words(lang, model, visit=visit), *faces]

    def _speak(self, prompt: str, lang: str, *values: Any) -> list[Any]:
        lang = pick_language(lang)
        form = self._form(values)
        return [*self._words(lang, form.chosen), *all_faces(self.service, form, lang)]

    def _link(self, event: gr.EventData, prompt: str, lang: str, *values: Any) -> str:
        """The message with a link to what is set up."""
        return self.sharing.link(event._data, prompt, self._form(values), pick_language(lang))

    def _check(self, request: gr.Request, prompt: str, lang: str, *values: Any) -> list[Any]:
        """A control was changed: what applies now, what is refused; and what a run being made takes of it."""
        lang, form = pick_language(lang), self._form(values)
        changed = {} if form.errors else st.fitted(form.settings, form.touched)
        said, later = self.service.steer(form.changed(changed), lang, session_of(request))
        if said is None and "virtual_layer_count" in changed:
            said = status(text(lang, "live.fitted", slots=changed["virtual_layer_count"]))
        return [
            gr.skip() if said is None else said,
            *all_faces(self.service, form, lang, changed=changed, later=later),
        ]

    def _suit(self, prompt: str, lang: str, *values: Any) -> list[Any]:
        """The model has arrived: what it brings, for the page's script to put into the controls; and the faces."""
        lang, form = pick_language(lang), self._form(values)
        found = self.service.suited(form)
        if found is None and not self.service.model_problem(form.model):
            return ["", *[gr.skip()] * (2 + len(PRESETS) + len(st.CONTROLS))]  # what is said stays
        if found is None:
            return ["", *all_faces(self.service, form, lang)]
        changes, gave = found
        form = form.changed(changes, suits=form.model, gave=gave)
        word = json.dumps({"model": form.model, "changes": changes, "gave": gave})
        return [word, *all_faces(self.service, form, lang)]

    def _hint(self, form: st.Form, prompt: str, lang: str) -> str:
        """What is said beside a prompt that the model can hardly read."""
        return self.service.prompt_hint(form.chosen, prompt, lang)

    def _adopt(self, event: gr.EventData, prompt: str, lang: str) -> list[Any]:
        """Take over the settings of a run: those of the visitor's own form as it began, or those its trace tells of.

        Or those of a model of the list: what the page offers where only that one has what is asked for.
        """
        lang, asked = pick_language(lang), _asked(event)
        if (offer := OFFERED.get(str(asked.get("model")))) is not None:
            return [gr.skip(), json.dumps(self._offered(offer, prompt))]
        found = self.service.settings_of(asked.get("run"))
        if found is None:
            return [status(text(lang, "live.rerun.gone"), bad=True), ""]
        values, prompt, lost = found
        if lost:
            return [status(text(lang, "live.rerun.lost", names=", ".join(lost)), bad=True), ""]
        word = {"model": values["model"], "changes": values, "gave": {}, "whole": True, "prompt": prompt}
        return [gr.skip(), json.dumps(word)]

    def _offered(self, offer: Offer, prompt: str) -> dict[str, Any]:
        """What the page's script puts into the controls to run a model of the list with what it brings.

        Nobody's settings stand in them then, so that they become the model's own as it arrives; a prompt we suggested gives
        way to its suggestion.
        """
        word: dict[str, Any] = {"model": offer.name, "changes": {"model": offer.name}, "gave": {}, "whole": True}
        suggested = (is_example(prompt) or prompt == self.opening_prompt) and prompt not in offer.examples
        return word | {"suits": ""} | ({"prompt": offer.examples[0]} if suggested else {})

    def _run(self, request: gr.Request, event: gr.EventData, prompt: str, lang: str, *values: Any) -> Iterator[str]:
        asked = _asked(event)
        session, view, n = session_of(request), View.read(asked.get("wishes")), number(asked.get("n"))
        yield from self.service.run(prompt, self._form(values), pick_language(lang), session, view, n)

    @staticmethod
    def _retype(event: gr.EventData) -> Any:
        """The prompt the page's script asks for; the one that is there when it asks for none."""
        prompt = _asked(event).get("prompt")
        return prompt if isinstance(prompt, str) else gr.skip()

    def _take(self, event: gr.EventData) -> list[Any]:
        """As :meth:`_retype`; a text that has been through the chat template once is not put into it again."""
        prompt = self._retype(event)
        return [prompt, False if isinstance(prompt, str) else gr.skip()]

    def _settle(self, prompt: str, lang: str, *values: Any) -> list[Any]:
        """A run has ended: the form as it is without one. Of one that was refused the script knows what to say where."""
        lang, form = pick_language(lang), self._form(values)
        faces = all_faces(self.service, form, lang, hint=self._hint(form, prompt, lang))
        return [gr.update(visible=False), *faces]

    def _shorten(self, prompt: str, lang: str, *values: Any) -> list[Any]:
        """The prompt's end, as much of it as the model can hold; the refusal beside it goes."""
        cut = self.service.shortened(prompt, self._form(values))
        words = prompt_face([], pick_language(lang))
        return [gr.update(**words, **({} if cut is None else {"value": cut})), gr.update(visible=False)]

    def _stop(self, request: gr.Request, n: Any) -> Any:
        counted = isinstance(n, str) and n.isascii() and n.isdigit() and len(n) <= len(str(MOST_NUMBER))
        self.service.stop(session_of(request), number(int(n)) if counted else None)
        return gr.skip()  # the run says it has ended when it has

    def _leave(self, request: gr.Request) -> None:
        self.service.leave(session_of(request))
