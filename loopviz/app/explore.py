"""The Explore page: a prompt, a looped model, and every loop of every token drawn as it is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gradio as gr

from loopviz.app import direct
from loopviz.app import settings as st
from loopviz.app.library import EXAMPLES_SHOWN, OFFERED, is_example, offer_of
from loopviz.app.live import wire
from loopviz.app.server import asset_url
from loopviz.app.service import Service, status
from loopviz.app.texts import LANGUAGES, pick_language, table, text
from loopviz.panels import METRICS, PANELS
from loopviz.panels.theme import template

RUNS_AT_ONCE = 2

_JS_ON_LOAD = """
const root = element.querySelector('.lv');
import(new URL(root.dataset.script, document.baseURI).href)
  .then((live) => live.mount({ element, server, props, watch, loaded: () => trigger('loaded') }))
  .catch((error) => { console.error(error); root.textContent = 'The page script could not be loaded. Reload the page.'; });
"""
_JS_DARK = "() => { document.body.classList.toggle('dark'); }"
_PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


def live_config(lang: str) -> str:
    """The message that tells the page's script its words, its panels and their colours."""
    words = table(lang)
    panels = []
    for name, panel in PANELS.items():
        shown = {key: panel.TEXTS[lang][key] for key in ("title", "question", "how", "units", "source", "no_data")}
        shown["formula"] = panel.TEXTS["en"]["formula"]
        # a panel that can show every quantity lets the reader choose one
        if all(metric in panel.TEXTS[lang] for metric in METRICS):
            shown["metrics"] = {metric: words[f"metric.{metric}"] for metric in METRICS}
        panels.append({"name": name, "words": shown})
    return wire(
        {
            "kind": "config",
            "lang": lang,
            "texts": {key: value for key, value in words.items() if key.startswith("live.")},
            "panels": panels,
            "templates": {page: template(page) for page in ("light", "dark")},
            "plotly": asset_url("plotly.js"),
            "line": direct.PREFIX,
        }
    )


def _title(lang: str) -> str:
    return f"<h1>LoopViz</h1><p>{text(lang, 'page.tagline')}</p>"


def _info(control: st.Control, values: Mapping[str, Any], lang: str) -> str:
    """The line under a control that applies."""
    name = control.name
    if name == "cosine_threshold":
        cos = st.cosine_of(values[name])
        return text(lang, f"{name}.info", cos=f"{cos:.7g}", gap=f"{1 - cos:.2g}")
    if name == "kl_threshold":
        return text(lang, f"{name}.info", kl=f"{st.kl_of(values[name]):g}")
    return text(lang, f"{name}.info")


def _choices(control: st.Control, lang: str) -> list[tuple[str, str]]:
    return [(text(lang, f"{control.name}.{choice}"), choice) for choice in control.choices]


def face(control: st.Control, values: Mapping[str, Any], problems: list[st.Problem], lang: str) -> dict[str, Any]:
    """What a control looks like under `values`: its words, whether it applies and why not, and what is refused."""
    off = st.why_off(control.name, values)
    refused = next((problem.reason for problem in problems if problem.control == control.name), None)
    info = _info(control, values, lang)
    if refused is not None:
        info = text(lang, "refused", reason=refused)
    elif off is not None:
        info = text(lang, off)
    looks: dict[str, Any] = {
        "label": text(lang, f"{control.name}.label"),
        "info": info,
        "interactive": off is None,
        "elem_classes": ["lv-refused"] if refused is not None else [],
    }
    if control.kind == "choice":
        looks["choices"] = _choices(control, lang)
    return looks


def _make(control: st.Control, lang: str, default_model: str) -> gr.components.Component:
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


def _questions(service: Service) -> list[Callable[[str], str]]:
    """What the page's script may ask. Gradio marks functions, which it cannot do to methods; the script knows the names."""

    def resync(question: str) -> str:
        return service.resync(question)

    def focus(question: str) -> str:
        return service.focus(question)

    def model_status(question: str) -> str:
        return service.model_status(question)

    return [resync, focus, model_status]


class ExplorePage:
    """The page's components and what happens when they are touched.

    Args:
        service: the runs.
        lang: the language of the first paint; a visit then takes its own.
    """

    def __init__(self, service: Service, lang: str = "en") -> None:
        self.service = service
        self.first = lang
        with gr.Blocks(title="LoopViz", analytics_enabled=False, fill_width=True) as self.demo:
            self._layout()
            self._events()

    # --- layout ---------------------------------------------------------------------------------------------------

    def _layout(self) -> None:
        lang = self.first
        with gr.Row(elem_id="lv-head"):
            self.title = gr.HTML(_title(lang), elem_id="lv-title")
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
                    live_config(lang),
                    html_template=f'<div class="lv" data-ready="0" data-script="{asset_url("live.js")}"></div>',
                    js_on_load=_JS_ON_LOAD,
                    apply_default_css=False,
                    elem_id="lv-live",
                    server_functions=_questions(self.service),
                )
        # Gradio typesets these with the KaTeX it ships; the panels show copies
        with gr.Column(elem_id="lv-formulas"):
            for name, panel in PANELS.items():
                gr.Markdown(
                    f"$${panel.TEXTS['en']['formula']}$$",
                    elem_id=f"lv-formula-{name}",
                    latex_delimiters=[{"left": "$$", "right": "$$", "display": True}],
                )

    def _ask(self, lang: str) -> None:
        with gr.Row(elem_id="lv-prompt-row"):
            self.prompt = gr.Textbox(
                value=offer_of(self.service.room.default).examples[0],
                lines=2,
                max_lines=8,
                elem_id="ctl-prompt",
                **self._prompt_face([], lang),
            )
            with gr.Column(elem_id="lv-buttons", scale=0):
                self.run = gr.Button(text(lang, "run"), variant="primary", elem_id="lv-run")
                self.stop = gr.Button(text(lang, "stop"), variant="secondary", elem_id="lv-stop")
        with gr.Row(elem_id="lv-examples"):
            self.examples = [gr.Button(size="sm", elem_classes="lv-example") for _ in range(EXAMPLES_SHOWN)]
        self.look = gr.HTML(elem_id="lv-look")

    def _settings(self, lang: str) -> None:
        self.controls: dict[str, gr.components.Component] = {}
        self.groups: dict[str, gr.Accordion] = {}
        for group in st.GROUPS:
            with gr.Accordion(
                text(lang, f"group.{group}"), open=group == "loop", elem_id=f"lv-group-{group}"
            ) as self.groups[group]:
                members = [control for control in st.CONTROLS if control.group == group]
                if group == "loop":
                    with gr.Row(elem_classes="lv-pair"):
                        for control in members[:2]:
                            self.controls[control.name] = _make(control, lang, self.service.room.default)
                    members = members[2:]
                for control in members:
                    self.controls[control.name] = _make(control, lang, self.service.room.default)

    @staticmethod
    def _prompt_face(problems: list[st.Problem], lang: str) -> dict[str, Any]:
        refused = next((problem.reason for problem in problems if problem.control == "prompt"), None)
        return {
            "label": text(lang, "prompt.label"),
            "placeholder": text(lang, "prompt.placeholder"),
            "info": text(lang, "prompt.info") if refused is None else text(lang, "refused", reason=refused),
            "elem_classes": [] if refused is None else ["lv-refused"],
        }

    # --- events ---------------------------------------------------------------------------------------------------

    def _events(self) -> None:
        order = [self.controls[control.name] for control in st.CONTROLS]
        everything = [self.prompt, self.lang, *order]
        faces = [self.prompt, *order]
        offered = [*self.examples, self.look]
        words = [self.title, self.run, self.stop, *offered, *self.groups.values(), self.live]
        quick: dict[str, Any] = {"queue": False, **_PRIVATE}

        self.demo.load(self._open, everything, [self.lang, *words, *faces], **quick)
        self.lang.input(self._speak, everything, [*words, *faces], **quick)
        self.dark.click(None, None, None, js=_JS_DARK, **quick)
        gr.on(
            [component.change for component in order],
            self._check,
            everything,
            faces,
            trigger_mode="always_last",
            **quick,
        )
        self.live.loaded(self._suit, everything, faces, **quick)
        named = [self.prompt, self.lang, self.controls["model"]]
        self.controls["model"].change(self._introduce, named, [self.prompt, *offered], **quick)
        self.controls["model"].change(
            self._load_model, everything, [self.live, *faces], concurrency_limit=1, concurrency_id="load", **_PRIVATE
        )

        starts = [self.run.click, self.prompt.submit]
        runs = []
        for button in self.examples:
            filled = button.click(None, button, self.prompt, js="(example) => example", **quick)
            runs.append(self._run_after(filled.then, everything, faces))
        begun = gr.on(starts, None, None, None, js="() => {}", **quick)
        runs.append(self._run_after(begun.then, everything, faces))
        stops = [*starts, *(button.click for button in self.examples)]
        gr.on(stops, None, None, None, cancels=runs, **quick)
        self.stop.click(self._stop, None, self.live, cancels=runs, **quick)
        self.demo.unload(self._leave)

    def _run_after(self, then: Any, everything: list[Any], faces: list[Any]) -> Any:
        """Check, run, and show beside the controls what the run was refused for. Returns the run's event."""
        checked = then(self._begin, everything, [self.live, *faces], queue=False, **_PRIVATE)
        run = checked.then(
            self._run,
            everything,
            self.live,
            concurrency_limit=RUNS_AT_ONCE,
            concurrency_id="run",
            trigger_mode="multiple",
            **_PRIVATE,
        )
        run.then(self._settle, everything, faces, queue=False, **_PRIVATE)
        return run

    def _values(self, values: tuple[Any, ...]) -> dict[str, Any]:
        return dict(zip((control.name for control in st.CONTROLS), values, strict=True))

    def _faces(
        self, prompt: str, values: Mapping[str, Any], lang: str, problems: list[st.Problem] | None = None
    ) -> list[Any]:
        """Updates of the prompt and every control; no value changes."""
        cleaned, _ = st.clean(values)
        if problems is None:
            problems = self.service.problems(values, lang) + self.service.model_problem(cleaned["model"])
        made = [gr.update(**self._prompt_face(problems, lang))]
        return made + [gr.update(**face(control, cleaned, problems, lang)) for control in st.CONTROLS]

    @staticmethod
    def _offer(name: str, lang: str) -> list[Any]:
        """The prompts to try with a model, and what to look for."""
        offer = offer_of(name)
        shown = [*offer.examples, *[None] * (EXAMPLES_SHOWN - len(offer.examples))]
        look = text(lang, f"look.{offer.name or 'own'}")
        return [*(gr.update(value=example or "", visible=example is not None) for example in shown), look]

    def _introduce(self, prompt: str, lang: str, name: Any) -> list[Any]:
        """Another model was chosen: its own prompts to try; a suggested prompt gives way to its suggestion."""
        name = name if isinstance(name, str) else ""
        suggestion = offer_of(name).examples[0]
        replaced = suggestion if is_example(prompt) and prompt not in offer_of(name).examples else gr.skip()
        return [replaced, *self._offer(name, pick_language(lang))]

    def _words(self, lang: str, model: str) -> list[Any]:
        return [
            _title(lang),
            gr.update(value=text(lang, "run")),
            gr.update(value=text(lang, "stop")),
            *self._offer(model, lang),
            *(gr.update(label=text(lang, f"group.{group}")) for group in self.groups),
            live_config(lang),
        ]

    def _open(self, request: gr.Request, prompt: str, lang: str, *values: Any) -> list[Any]:
        """A visit begins: in the language its address or browser asks for."""
        asked = dict(request.query_params or {}).get("lang")
        lang = pick_language(asked, (request.headers or {}).get("accept-language", ""))
        return [lang, *self._speak(prompt, lang, *values)]

    def _speak(self, prompt: str, lang: str, *values: Any) -> list[Any]:
        lang = pick_language(lang)
        named = self._values(values)
        return [*self._words(lang, str(named["model"])), *self._faces(prompt, named, lang)]

    def _check(self, prompt: str, lang: str, *values: Any) -> list[Any]:
        return self._faces(prompt, self._values(values), pick_language(lang))

    def _suit(self, prompt: str, lang: str, *values: Any) -> list[Any]:
        """The model has arrived: settings that cannot be its own become ones that can."""
        named, lang = self._values(values), pick_language(lang)
        cleaned, _ = st.clean(named)
        loaded = self.service.room.ready(cleaned["model"])
        if loaded is None:
            return self._faces(prompt, named, lang)
        changed = st.suit_model(cleaned, loaded.model.config)
        faces = self._faces(prompt, named | changed, lang)
        for control, look in zip(st.CONTROLS, faces[1:], strict=True):
            if control.name in changed:
                look["value"] = changed[control.name]
        return faces

    def _load_model(self, prompt: str, lang: str, *values: Any) -> Iterator[list[Any]]:
        lang = pick_language(lang)
        faces = [gr.skip()] * (1 + len(st.CONTROLS))
        for line in self.service.load(self._values(values)["model"], lang):
            yield [status(*line), *faces]
        yield [gr.skip(), *self._suit(prompt, lang, *values)]

    def _begin(self, prompt: str, lang: str, *values: Any) -> list[Any]:
        """Run was pressed: what is refused is said beside the controls, and a full house is said at once."""
        lang, named = pick_language(lang), self._values(values)
        problems = self.service.problems(named, lang, prompt)
        full = not problems and self.service.registry.active() >= RUNS_AT_ONCE
        return [
            status(text(lang, "live.queued")) if full else gr.skip(),
            *self._faces(prompt, named, lang, problems),
        ]

    def _run(self, request: gr.Request, prompt: str, lang: str, *values: Any) -> Iterator[str]:
        yield from self.service.run(prompt, self._values(values), pick_language(lang), str(request.session_hash))

    def _settle(self, request: gr.Request, prompt: str, lang: str, *values: Any) -> list[Any]:
        lang, named = pick_language(lang), self._values(values)
        refused = self.service.refused(str(request.session_hash))
        return self._faces(prompt, named, lang, refused or None)

    def _stop(self, request: gr.Request) -> Any:
        message = self.service.stop(str(request.session_hash))
        return gr.skip() if message is None else message

    def _leave(self, request: gr.Request) -> None:
        self.service.registry.forget(str(request.session_hash))
