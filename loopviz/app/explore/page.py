"""The Explore page: a prompt, a looped model, and every loop of every token drawn as it is made.

Here is what happens when its components (`layout.py`) are touched. A handler reads the form by component, and answers by
component with what changes. What the page's script alone knows of the form comes with it, in place of the live element's
value; what a handler has to say to that script is a message in it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gradio as gr
from gradio.components import Component
from starlette.routing import Route

from loopviz.app import contract
from loopviz.app import controls as st
from loopviz.app.contract import DIALS, QUERIES, STORED
from loopviz.app.controls.examples import EXAMPLES_SHOWN, OFFERED, OFFERS, OWN, Offer, is_example
from loopviz.app.controls.link_word import opens
from loopviz.app.controls.presets import ARTICLE, PRESETS
from loopviz.app.explore import (
    first_run,
    links,
    served,  # noqa: F401  what this page has the server serve
)
from loopviz.app.explore.answers import View
from loopviz.app.explore.controls_view import prompt_face
from loopviz.app.explore.files import Sharing
from loopviz.app.explore.layout import Layout, Updates
from loopviz.app.explore.service import Service
from loopviz.app.page import PRIVATE, address_of, session_of
from loopviz.app.sessions import faults
from loopviz.app.sessions.job import status
from loopviz.app.sessions.messages import wire
from loopviz.app.sessions.tickets import number
from loopviz.app.sessions.untrusted import fitting
from loopviz.app.texts import LANGUAGES, pick_language, text

Given = Mapping[Component, Any]  # a form, by component

# The look (see loopviz.app.server.document) is remembered where the visitor is, not on the server; so is the language:
# the one that an address asks for until its tab is closed, so that who goes on from there goes on in it.
_JS_DARK = f"""() => {{
  const dark = document.body.classList.toggle('dark');
  try {{ localStorage.setItem('{STORED["dark"]}', dark ? '1' : '0'); }} catch {{}}
}}"""
_JS_OPEN = """(...values) => {
  let kept = null;
  try {
    const asked = new URLSearchParams(location.search).get('%(query)s');
    if (%(languages)s.includes(asked)) sessionStorage.setItem('%(stored)s', asked);
    kept = sessionStorage.getItem('%(stored)s') ?? localStorage.getItem('%(stored)s');
  } catch {}
  values[%(lang)d] = %(languages)s.includes(kept) ? kept : null;
  values[%(live)d] = '';
  return values;
}"""
# The page's script writes what it knows of the form into its place; before there is one nothing is known.
_JS_FORM = """(...values) => {
  const { loopvizForm: form } = window;
  %(first)s
  values[%(live)d] = form ? form.word() : '';
  return values;
}"""
_JS_SPEAK = "try { for (const where of [sessionStorage, localStorage]) where.setItem('%(stored)s', values[%(lang)d]); } catch {}"


def _script(method: str, *known: Any) -> str:
    """A Gradio event's own script: a method of the page's form (`assets/web/explore/form_state.js`).

    It gets what is `known` here, and then the event's values; what it gives is put into the event's components.
    """
    return f"(...values) => window.loopvizForm?.{method}({''.join(f'{json.dumps(one)}, ' for one in known)}...values)"


def _asked(event: gr.EventData, kind: type) -> dict[str, Any]:
    """What the page's script says with an event, one of `contract.EVENTS`; nothing when it is not what the script sends."""
    return fitting(event._data, kind)


class ExplorePage:
    """The page's components and what happens when they are touched.

    Args:
        service: the runs.
        lang: the language of the first paint; a visit then takes its own.
    """

    def __init__(self, service: Service, lang: str = "en") -> None:
        self.service = service
        self.sharing = Sharing(service.registry, service.room, service.files)
        self.beside: list[Route] = []  # routes of the other pages, which are served with this one
        # the controls stand at what the page shows first, so that the first Run goes on with it
        opening, self.opening_prompt = first_run.settings(service.room.default) or (None, None)
        self.suits = service.room.default if opening else ""  # the model whose settings those are
        with gr.Blocks(title="LoopViz", analytics_enabled=False, fill_width=True) as self.demo:
            self.parts = Layout(service.room, service.questions, lang, (opening, self.opening_prompt))
            self.live = self.parts.live
            self._form_events()
            self._model_events()
            self._starts()
            self.demo.unload(faults.guarded(self._leave))

    # --- events ---------------------------------------------------------------------------------------------------

    @property
    def _quick(self) -> dict[str, Any]:
        """Options of an event that is answered at once."""
        return {"queue": False, **PRIVATE}

    def _guarded(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        """A handler whose unforeseen errors become words in the form's language."""
        return faults.guarded(handler, lambda named: (named.get("given") or {}).get(self.parts.lang))

    def _with_form(self, first: str = _JS_FORM, then: str = "") -> dict[str, Any]:
        """Input and script of an event that goes by the form."""
        order = sorted(component._id for component in self.parts.form)  # Gradio's
        place: dict[str, Any] = {name: order.index(getattr(self.parts, name)._id) for name in ("live", "lang")}
        place |= {"stored": STORED["lang"], "query": QUERIES["lang"]}
        more = {"languages": json.dumps([*LANGUAGES]), "first": then % place if then else ""}
        return {"inputs": self.parts.form, "js": first % (place | more)}

    @property
    def _dialled(self) -> list[Component]:
        """The controls of which a page's script must know the values."""
        return [self.parts.controls[name] for name in (*DIALS, "loop_strategy")]

    @property
    def _follow(self) -> dict[str, Any]:
        """Of an event whose inputs are :attr:`_dialled`: the script is told. A control in a closed group says no change itself."""
        return {"js": _script("follow", [*DIALS, "loop_strategy"]), **self._quick}

    def _form_events(self) -> None:
        """A visit begins, the form is changed, a link to it is wished for."""
        parts, quick, form = self.parts, self._quick, self._with_form()
        everything = {parts.lang, *parts.worded, *parts.faced}
        opened = self.demo.load(self._guarded(self._open), outputs=everything, **self._with_form(_JS_OPEN), **quick)
        opened.then(None, self._dialled, None, **self._follow)
        spoken = self._with_form(then=_JS_SPEAK)
        parts.lang.input(
            self._guarded(self._speak), outputs=parts.worded | parts.faced | {parts.keep}, **spoken, **quick
        )
        parts.dark.click(None, None, None, js=_JS_DARK, **quick)
        # by the visitor: what is set from here comes with its faces, and would be looked at half set
        for name, component in parts.controls.items():
            component.input(None, None, None, js=_script("touch", {name: None}), **quick)
        changed = [component.input for component in parts.controls.values()]
        latest = {"trigger_mode": "always_last", **quick}
        gr.on(changed, self._guarded(self._check), outputs={self.live, *parts.faced}, **form, **latest)
        # the sliders above the panels are these controls: what is set there is set here, whoever sets these is told there
        # ... and a way out of what a precision cannot do chooses another, and starts
        turns = (*DIALS, "precision")
        dials = [parts.controls[name] for name in turns]
        turned = self.live.dial(None, None, dials, js=_script("dial", [*turns]), **quick)
        turned.then(self._guarded(self._check), outputs={self.live, *parts.faced}, **form, **quick)
        gr.on([one.change for one in self._dialled], None, self._dialled, None, **self._follow)
        turned.then(None, self._dialled, None, **self._follow)
        turned.then(None, None, None, js=_script("adopted"), **quick)
        self.live.link(self._guarded(self._link), outputs=self.live, **form, **quick)
        # what is typed, or put there, is drawn where the model has a picture of it
        parts.prompt.change(None, parts.prompt, None, js=_script("typed"), **quick)
        # the script puts the text of a run into the prompt, to be changed there
        plain = {parts.prompt, *(parts.controls[name] for name in st.AS_IT_IS)}
        put = self.live.retype(faults.guarded(self._take), None, plain, **quick)
        put.then(self._guarded(self._check), outputs={self.live, *parts.faced}, **form, **quick)
        # the server is another version: what stands in the form is kept in the browser, and is there again once the page is loaded anew
        everything = [parts.prompt, *parts.controls.values()]
        self.live.keep(None, everything, None, js=_script("keep", [*parts.controls]), **quick)
        put = self.live.restore(None, None, everything, js=_script("restore", [*parts.controls]), **quick)
        put.then(self._guarded(self._check), outputs={self.live, *parts.faced}, **form, **quick)
        parts.keep.click(self._guarded(self._shorten), outputs={parts.prompt, parts.keep}, **form, **quick)

    def _model_events(self) -> None:
        """Another model is chosen, and arrives; or one comes with a run's own settings."""
        parts, quick, form = self.parts, self._quick, self._with_form()
        model, order = parts.controls["model"], [*parts.controls.values()]
        offers = {offer.name: offer.examples for offer in (*OFFERS, OWN)}
        known = {"offers": offers, "opening": self.opening_prompt, "shown": EXAMPLES_SHOWN}
        chosen = [parts.prompt, model]
        model.change(None, chosen, [parts.prompt, *parts.examples], js=_script("choose", known), **quick)
        parts.controls["precision"].change(None, parts.controls["precision"], None, js=_script("hold"), **quick)
        # what a model, or a run taken over, brings is put into the form by the script: what was touched meanwhile stays
        brought = {"js": _script("bring", [*parts.controls]), **quick}
        latest = {"trigger_mode": "always_last", **quick}
        arrived = self.live.loaded(self._guarded(self._suit), outputs={self.live, *parts.faced}, **form, **latest)
        put = arrived.then(None, [self.live, model], [parts.prompt, *order], **brought)
        put.then(None, self._dialled, None, **self._follow)
        # a run's own settings, once more; what cannot be taken over is said, and nothing starts
        adopted = self.live.adopt(self._guarded(self._adopt), {parts.prompt, parts.lang}, self.live, **quick)
        taken = adopted.then(None, [self.live, model], [parts.prompt, *order], **brought)
        taken.then(None, self._dialled, None, **self._follow)
        taken.then(None, None, None, js=_script("adopted"), **quick)

    def _starts(self) -> None:
        """All that begins a run, and what ends one. A start first sets what it sets, then the script asks for the run.

        That is one event, whatever began it. The server ends the session's earlier run by itself, in one step with
        beginning the next (:class:`loopviz.app.sessions.tickets.Starts`): Gradio's `cancels` lose a start that meets another.
        """
        parts, form = self.parts, self._with_form()
        quick: dict[str, Any] = {"trigger_mode": "multiple", **self._quick}
        start: dict[str, Any] = {"js": _script("start"), **quick}
        for button in parts.examples:
            button.click(None, button, parts.prompt, js="(example) => example", **quick).then(None, None, None, **start)
        for preset in (*PRESETS, ARTICLE):
            controls = [parts.controls[name] for name in preset.values]
            pressed = parts.presets[preset.name].click(
                None, None, controls, js=_script("touch", preset.values), **quick
            )
            pressed.then(None, self._dialled, None, **self._follow)
            pressed.then(None, None, None, **start)
        # going on from a run: a text that has been through a template once is not put into it again
        goes_on = {parts.prompt, *(parts.controls[name] for name in st.AS_IT_IS)}
        self.live.again(faults.guarded(self._take), None, goes_on, **quick).then(None, None, None, **start)
        waits: dict[str, Any] = {"concurrency_limit": None, "trigger_mode": "multiple", **PRIVATE}  # in a line of ours
        run = self.live.start(self._guarded(self._run), outputs=self.live, **form, **waits)
        settled = run.then(self._guarded(self._settle), outputs={parts.keep, *parts.faced}, **form, **quick)
        refused = [parts.prompt, parts.keep, *parts.groups.values(), *parts.controls.values()]
        said = _script("settled", [*parts.groups], [*parts.controls])
        settled.then(None, None, refused, js=said, **quick)
        self.live.halt(faults.guarded(self._stop), None, None, **quick)
        self.live.visit(faults.guarded(self._revisit), None, self.live, **quick)

    # --- the form ---------------------------------------------------------------------------------------------------

    def _read(self, given: Given) -> tuple[Any, str, st.Form]:
        """The prompt, the page's language, and the form; whose settings these are and what was touched says the script."""
        parts = self.parts
        values = {name: given[component] for name, component in parts.controls.items()}
        form = st.Form.read({**values, st.SUITS: self.suits, **st.marks(given[self.live])})
        return given[parts.prompt], pick_language(given[parts.lang]), form

    def _faces(self, form: st.Form, lang: str, **more: Any) -> Updates:
        """The form's looks, with all that would be refused, as far as it is known."""
        form = form.changed(more.get("changed") or {})  # where something gave way, that is in it
        problems = self.service.problems(form, lang) + self.service.model_problem(form.model, lang, form.precision)
        return self.parts.faces(form, problems, lang, **more)

    def _open(self, request: gr.Request, given: Given) -> Updates:
        """A visit begins: in the language its address asks for, or the visitor chose last time, or the browser prefers.

        What a link in the address asks for is set; what it could not set, the page's script says.
        """
        query = dict(request.query_params or {})
        asked, word = query.get(QUERIES["lang"]), query.get(QUERIES["link"])
        header = (request.headers or {}).get("accept-language", "")
        lang = pick_language(asked if asked in LANGUAGES else given[self.parts.lang], header)
        visit = {"linked": "", "suits": self.suits, **self.sharing.visit(session_of(request))}
        prompt, _, form = self._read(given)
        if not opens(word):
            words = self.parts.words(lang, form.chosen, visit=visit)
            return {self.parts.lang: lang, **words, **self._faces(form, lang)}
        state, _ = links.read(word, self.service.room, lang)
        values, model = state.values, state.values["model"]
        # settings of a model that this server does not name are no other model's
        visit |= {"linked": model, "suits": "" if state.foreign else model}
        faces = self._faces(st.Form.read(values), lang, changed=values)
        faces[self.parts.prompt]["value"] = prompt if state.prompt is None else state.prompt
        return {self.parts.lang: lang, **self.parts.words(lang, model, visit=visit), **faces}

    def _revisit(self, request: gr.Request) -> str:
        """A page that was open while the server was not: it has a ticket that this one has not given."""
        return _visits(self.sharing.visit(session_of(request)))

    def _speak(self, given: Given) -> Updates:
        """Another language. What was said of a start in the other one goes, and so does the button beside it."""
        _, lang, form = self._read(given)
        hidden = {self.parts.keep: gr.update(visible=False)}
        return self.parts.words(lang, form.chosen) | self._faces(form, lang) | hidden

    def _check(self, request: gr.Request, given: Given) -> Updates:
        """A control was changed: what applies now, what is refused; and what a run being made takes of it."""
        _, lang, form = self._read(given)
        changed = {} if form.errors else st.fitted(form.settings, form.touched)
        said, later = self.service.steer(form.changed(changed), lang, session_of(request))
        if said is None and "virtual_layer_count" in changed:
            said = status(text(lang, "live.fitted", slots=changed["virtual_layer_count"]))
        faces = self._faces(form, lang, changed=changed, later=later)
        return faces if said is None else {self.live: said, **faces}

    def _settle(self, given: Given) -> Updates:
        """A run has ended: the form as it is without one. Why one was refused is in its own message."""
        prompt, lang, form = self._read(given)
        hint = self.service.prompt_hint(form.chosen, prompt, lang, form.precision)
        return {self.parts.keep: gr.update(visible=False), **self._faces(form, lang, hint=hint)}

    def _shorten(self, given: Given) -> Updates:
        """The prompt's end, as much of it as the model can hold; the refusal beside it goes."""
        prompt, lang, form = self._read(given)
        cut = self.service.shortened(prompt, form)
        shown = gr.update(**prompt_face([], lang), **({} if cut is None else {"value": cut}))
        return {self.parts.prompt: shown, self.parts.keep: gr.update(visible=False)}

    def _link(self, event: gr.EventData, given: Given) -> str:
        """The message with a link to what is set up."""
        prompt, lang, form = self._read(given)
        return self.sharing.link(event._data, prompt, form, lang)

    # --- models, and runs taken over ----------------------------------------------------------------------------------

    def _suit(self, given: Given) -> Updates:
        """The model has arrived: what it brings, for the page's script to put into the form; and the looks."""
        _, lang, form = self._read(given)
        found = self.service.suited(form)
        if found is None:
            # what is said stays, but that the model cannot be had is news
            failed = self.service.model_problem(form.model, precision=form.precision)
            return self._faces(form, lang) if failed else gr.skip()
        changes, gave = found
        faces = self._faces(form.changed(changes, suits=form.model, gave=gave), lang)
        return {self.live: _brings(form.model, changes, gave=gave), **faces}

    def _adopt(self, event: gr.EventData, given: Given) -> str:
        """Take over the settings of a run: those of the visitor's own form as it began, or those its trace tells of.

        Or those of a model of the list: what the page offers where only that one has what is asked for. Or those of a run
        at one of its words, with another number of loops, to go on from there.
        """
        lang, asked = pick_language(given[self.parts.lang]), _asked(event, contract.Adopt)
        if (offer := OFFERED.get(str(asked.get("model")))) is not None:
            return self._offered(offer, given[self.parts.prompt])
        found = self.service.settings_of(asked.get("run"))
        if found is None:
            return status(text(lang, "live.rerun.gone"), bad=True)
        values, prompt, lost = found
        if lost:
            return status(text(lang, "live.rerun.lost", names=", ".join(lost)), bad=True)
        if "token" in asked and "loops" in asked:
            branch = self.service.branched(asked.get("run"), values, asked["token"], asked["loops"])
            if branch is None:
                return status(text(lang, "live.rerun.gone"), bad=True)
            values, prompt = branch
        if "exit_threshold" in asked:
            values = {**values, "exit_selection": "gate", "exit_threshold": asked["exit_threshold"]}
        return _brings(values["model"], values, whole=True, prompt=prompt)

    def _offered(self, offer: Offer, prompt: str) -> str:
        """What the page's script puts into the form to run a model of the list with what it brings.

        Nobody's settings stand in it then, so that they become the model's own as it arrives; a prompt we suggested gives
        way to its suggestion.
        """
        suggested = (is_example(prompt) or prompt == self.opening_prompt) and prompt not in offer.examples
        more = {"prompt": offer.examples[0]} if suggested else {}
        return _brings(offer.name, {"model": offer.name}, whole=True, suits="", **more)

    # --- runs -------------------------------------------------------------------------------------------------------

    def _run(self, request: gr.Request, event: gr.EventData, given: Given) -> Iterator[str]:
        """A run: its messages."""
        asked, (prompt, lang, form) = _asked(event, contract.Start), self._read(given)
        session, view, n = session_of(request), View.read(asked.get("wishes")), number(asked.get("n"))
        self.service.visits.meet(session, asked.get("visitor"), address_of(request))
        yield from self.service.run(prompt, form, lang, session, view, n)

    def _take(self, event: gr.EventData) -> Updates:
        """The prompt the page's script asks for; the one that is there when it asks for none.

        It is a run's text, and what has been through a template once is not put into it again.
        """
        prompt = _asked(event, contract.Retype).get("prompt")
        plain = {self.parts.controls[name]: value for name, value in st.AS_IT_IS.items()}
        return gr.skip() if prompt is None else {self.parts.prompt: prompt, **plain}

    def _stop(self, request: gr.Request, event: gr.EventData) -> None:
        """Stop was pressed; the run says it has ended when it has."""
        self.service.stop(session_of(request), number(_asked(event, contract.Halt).get("n")))

    def _leave(self, request: gr.Request) -> None:
        self.service.leave(session_of(request))


def _visits(visit: Mapping[str, Any]) -> str:
    """The message with a new ticket; no two are equal, for a page hears of changes alone. What the form holds is known there."""
    return wire({"kind": "visit", "id": secrets.token_hex(8), "visit": {"linked": "", "suits": "", **visit}})


def _brings(model: str, changes: Mapping[str, Any], **more: Any) -> str:
    """The message with what a model brings, or a run that is taken over; no two are equal, for a page hears of changes alone.

    `whole`: it takes the place of everything that was set, and a run of it starts.
    """
    said = {
        "kind": "brought",
        "id": secrets.token_hex(8),
        "model": model,
        "changes": changes,
        "gave": {},
        "whole": False,
    }
    return wire(said | more)
