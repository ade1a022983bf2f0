"""The Explore page: a prompt, a looped model, and every loop of every token drawn as it is made."""

from __future__ import annotations

import html
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gradio as gr

from loopviz.app import linking
from loopviz.app import settings as st
from loopviz.app.faces import all_faces, example_faces, make, prompt_face
from loopviz.app.library import EXAMPLES_SHOWN, is_example, offer_of
from loopviz.app.page_config import page_config
from loopviz.app.presets import PRESETS
from loopviz.app.questions import View
from loopviz.app.server import opening_urls, places
from loopviz.app.service import Service, status
from loopviz.app.sharing import Sharing
from loopviz.app.shell import PRIVATE, RUNS_AT_ONCE, askable, nav
from loopviz.app.texts import LANGUAGES, pick_language, text
from loopviz.app.url_state import QUERY, opens
from loopviz.app.wire import wire
from loopviz.panels import PANELS, formulas

_JS_ON_LOAD = """
const root = element.querySelector('.lv-place');
import(new URL(root.dataset.script, document.baseURI).href)
  .then((live) => live.mount({ element, server, props, watch, tell: {
    loaded: () => trigger('loaded'),
    rerun: (asked) => trigger('rerun', asked),
    retype: (asked) => trigger('retype', asked),
    link: (asked) => trigger('link', asked),
  } }))
  .catch((error) => { console.error(error); root.textContent = 'The page script could not be loaded. Reload the page.'; });
"""
# The language and the look (see loopviz.app.look) are remembered where the visitor is, not on the server.
_JS_OPEN = "(...values) => { try { values[0] = localStorage.getItem('loopviz.lang') ?? ''; } catch {} return values; }"
_JS_SPEAK = """(...values) => { try { localStorage.setItem('loopviz.lang', values[1]); } catch {} return values; }"""
_JS_DARK = """() => {
  const dark = document.body.classList.toggle('dark');
  try { localStorage.setItem('loopviz.dark', dark ? '1' : '0'); } catch {}
}"""
# The page's script says where the model is that this visitor has chosen.
_JS_CHOSEN = "(name) => { window.loopvizModel = name; document.querySelector('.lv')?.page?.model.watch(); }"
_JS_LOADED = "() => document.querySelector('.lv')?.page?.model.watch()"
_JS_WISHES = "() => document.querySelector('.lv')?.page?.wishes() ?? ''"
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
                value=offer_of(self.service.room.default).examples[0],
                lines=1,
                max_lines=8,
                elem_id="ctl-prompt",
                **prompt_face([], lang),
            )
            with gr.Column(elem_id="lv-buttons", scale=0):
                self.run = gr.Button(text(lang, "run"), variant="primary", elem_id="lv-run")
                self.stop = gr.Button(text(lang, "stop"), variant="secondary", elem_id="lv-stop")
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
        # what the page's script wishes for the next run; filled by it as a run starts
        self.wishes = gr.Textbox(elem_id="lv-wishes", elem_classes="lv-away", container=False, show_label=False)
        # the model whose prompt a link has set: it stays until another model is chosen
        self.linked = gr.State("")
        # the model whose settings the controls hold, "" until one has arrived: kept where they are, to come with them
        self.suits = gr.Textbox(elem_id="lv-suits", elem_classes="lv-away", container=False, show_label=False)

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
                            self.controls[control.name] = make(control, lang, self.service.room.default)
                    members = members[2:]
                for control in members:
                    self.controls[control.name] = make(control, lang, self.service.room.default)

    # --- events ---------------------------------------------------------------------------------------------------

    def _events(self) -> None:
        order = [self.controls[control.name] for control in st.CONTROLS]
        everything = [self.prompt, self.lang, *order, self.suits]
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

        opened = [self.wishes, *everything]
        self.demo.load(self._open, opened, [self.lang, self.linked, self.suits, *words, *faces], js=_JS_OPEN, **quick)
        self.lang.input(self._speak, everything, [*words, *faces], js=_JS_SPEAK, **quick)
        self.dark.click(None, None, None, js=_JS_DARK, **quick)
        gr.on(
            # by the visitor: what is set from here comes with its faces, and would be looked at half set
            [component.input for component in order],
            self._check,
            everything,
            [self.live, *faces],
            trigger_mode="always_last",
            **quick,
        )
        self.live.loaded(self._suit, everything, [self.suits, *faces], **quick)
        self.controls["model"].change(None, self.controls["model"], None, js=_JS_CHOSEN, **quick)
        named = [self.linked, self.prompt, self.lang, self.controls["model"]]
        self.controls["model"].change(self._introduce, named, [self.linked, self.prompt, *self.examples], **quick)
        loading = self.controls["model"].change(
            self._load_model,
            everything,
            [self.live, self.suits, *faces],
            concurrency_limit=1,
            concurrency_id="load",
            **PRIVATE,
        )
        loading.then(None, None, None, js=_JS_LOADED, **quick)  # it was another try, perhaps
        self.live.link(self._link, everything, self.live, **quick)
        # the script puts the text of a run into the prompt, to be changed there
        self.live.retype(self._retype, None, self.prompt, **quick)
        self._starts(everything, faces)
        self.demo.unload(self._leave)

    def _starts(self, everything: list[Any], faces: list[Any]) -> None:
        """All that begins a run, and what ends one. A start first sets what it sets, then runs; each ends the one before."""
        quick: dict[str, Any] = {"queue": False, **PRIVATE}
        starts = [self.run.click, self.prompt.submit]
        set_up = [gr.on(starts, None, None, None, js="() => {}", **quick)]
        for button in self.examples:
            set_up.append(button.click(None, button, self.prompt, js="(example) => example", **quick))
            starts.append(button.click)
        for preset, button in zip(PRESETS, self.presets, strict=True):
            controls = [self.controls[name] for name in preset.values]
            set_up.append(
                button.click(None, None, controls, js=f"() => ({json.dumps([*preset.values.values()])})", **quick)
            )
            starts.append(button.click)
        # the script asks for a run: of another prompt, or of this one again
        set_up.append(self.live.rerun(self._take, None, [self.prompt, self.controls["chat"]], **quick))
        runs = [self._run_after(ready.then, everything, faces) for ready in set_up]
        gr.on(starts, None, None, None, cancels=runs, **quick)
        self.live.rerun(None, None, None, cancels=runs, **quick)
        self.stop.click(self._stop, None, self.live, cancels=runs, **quick)

    def _run_after(self, then: Any, everything: list[Any], faces: list[Any]) -> Any:
        """Check, run, and show beside the controls what the run was refused for. Returns the run's event."""
        wished = then(None, None, self.wishes, js=_JS_WISHES, queue=False, **PRIVATE)
        checked = wished.then(self._begin, everything, [self.live, *faces], queue=False, **PRIVATE)
        run = checked.then(
            self._run,
            [self.wishes, *everything],
            self.live,
            concurrency_limit=RUNS_AT_ONCE,
            concurrency_id="run",
            trigger_mode="multiple",
            **PRIVATE,
        )
        run.then(self._settle, everything, faces, queue=False, **PRIVATE)
        run.then(None, None, None, js=_JS_LOADED, queue=False, **PRIVATE)  # it may have, or have tried in vain
        return run

    def _values(self, values: tuple[Any, ...]) -> dict[str, Any]:
        return dict(zip((*(control.name for control in st.CONTROLS), st.SUITS), values, strict=True))

    def _introduce(self, linked: str, prompt: str, lang: str, name: Any) -> list[Any]:
        """Another model was chosen: its own prompts to try; a suggested prompt gives way to its suggestion.

        By a link (`linked` is its model): the link's prompt stays.
        """
        name = name if isinstance(name, str) else ""
        if linked and linked == name:
            return [gr.skip(), gr.skip(), *example_faces(name)]
        suggestion = offer_of(name).examples[0]
        replaced = suggestion if is_example(prompt) and prompt not in offer_of(name).examples else gr.skip()
        return ["", replaced, *example_faces(name)]

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
        visit = self.sharing.visit(str(request.session_hash))
        named = self._values(values)
        if not opens(word):
            return [lang, "", *self._suited(named, lang, self._words(lang, str(named["model"]), visit=visit))]
        state, _ = linking.read(word, self.service.room, lang)
        prompt, named = prompt if state.prompt is None else state.prompt, dict(state.values)
        faces, model = all_faces(self.service, named, lang, changed=named), named["model"]
        faces[0]["value"] = prompt
        return [lang, model, model, *self._words(lang, model, visit=visit), *faces]

    def _speak(self, prompt: str, lang: str, *values: Any) -> list[Any]:
        lang = pick_language(lang)
        named = self._values(values)
        return [*self._words(lang, str(named["model"])), *all_faces(self.service, named, lang)]

    def _link(self, event: gr.EventData, prompt: str, lang: str, *values: Any) -> str:
        """The message with a link to what is set up."""
        return self.sharing.link(event._data, prompt, self._values(values), pick_language(lang))

    def _check(self, request: gr.Request, prompt: str, lang: str, *values: Any) -> list[Any]:
        """A control was changed: what applies now, what is refused; and what a run being made takes of it."""
        lang, named = pick_language(lang), self._values(values)
        cleaned, problems = st.clean(named)
        changed = {} if problems else st.fitted(cleaned)
        said, later = self.service.steer({**named, **changed}, lang, str(request.session_hash))
        if said is None and changed:
            said = status(text(lang, "live.fitted", slots=changed["virtual_layer_count"]))
        return [
            gr.skip() if said is None else said,
            *all_faces(self.service, named, lang, changed=changed, later=later),
        ]

    def _suited(self, named: Mapping[str, Any], lang: str, between: Sequence[Any] = ()) -> list[Any]:
        """Whose settings the controls hold, and the faces, with `between` between them: a model's own if it is there."""
        changed = self.service.own_settings(named)
        if changed is None:
            return [gr.skip(), *between, *all_faces(self.service, named, lang)]
        named = {**named, st.SUITS: st.clean(named)[0]["model"]}
        return [named[st.SUITS], *between, *all_faces(self.service, named, lang, changed=changed)]

    def _suit(self, prompt: str, lang: str, *values: Any) -> list[Any]:
        """The model has arrived: the settings become its own, unless they are already, or a link has set them."""
        return self._suited(self._values(values), pick_language(lang))

    def _load_model(self, prompt: str, lang: str, *values: Any) -> Iterator[list[Any]]:
        lang = pick_language(lang)
        rest = [gr.skip()] * (3 + len(PRESETS) + len(st.CONTROLS))
        for line in self.service.load(self._values(values)["model"], lang):
            yield [status(*line), *rest]
        yield [gr.skip(), *self._suit(prompt, lang, *values)]

    def _begin(self, prompt: str, lang: str, *values: Any) -> list[Any]:
        """Run was pressed: what is refused is said beside the controls, and a full house is said at once."""
        lang, named = pick_language(lang), self._values(values)
        problems = self.service.problems(named, lang, prompt)
        full = not problems and self.service.registry.active() >= RUNS_AT_ONCE
        return [
            status(text(lang, "live.queued")) if full else gr.skip(),
            *all_faces(self.service, named, lang, problems, hint=self._hint(named, prompt, lang)),
        ]

    def _hint(self, named: Mapping[str, Any], prompt: str, lang: str) -> str:
        """What is said beside a prompt that the model can hardly read."""
        return self.service.prompt_hint(str(named["model"]), prompt, lang)

    def _run(self, request: gr.Request, wishes: str, prompt: str, lang: str, *values: Any) -> Iterator[str]:
        session, view = str(request.session_hash), View.read(wishes)
        yield from self.service.run(prompt, self._values(values), pick_language(lang), session, view)

    @staticmethod
    def _retype(event: gr.EventData) -> Any:
        """The prompt the page's script asks for; the one that is there when it asks for none."""
        prompt = (event._data or {}).get("prompt")
        return prompt if isinstance(prompt, str) else gr.skip()

    def _take(self, event: gr.EventData) -> list[Any]:
        """As :meth:`_retype`; a text that has been through the chat template once is not put into it again."""
        prompt = self._retype(event)
        return [prompt, False if isinstance(prompt, str) else gr.skip()]

    def _settle(self, request: gr.Request, prompt: str, lang: str, *values: Any) -> list[Any]:
        lang, named = pick_language(lang), self._values(values)
        refused = self.service.refused(str(request.session_hash))
        return all_faces(self.service, named, lang, refused or None, hint=self._hint(named, prompt, lang))

    def _stop(self, request: gr.Request) -> Any:
        message = self.service.stop(str(request.session_hash))
        return gr.skip() if message is None else message

    def _leave(self, request: gr.Request) -> None:
        self.service.registry.forget(str(request.session_hash))
