"""What every page beside Explore is: one element that a script of ours fills, its words in both languages, its address.

The script gets everything as data (`page_data`), so the language changes without asking anybody.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Protocol

import gradio as gr

from loopviz.app import contract
from loopviz.app import controls as st
from loopviz.app.contract import PAGES as PAGES  # a page is named `nav.<name>` in the texts
from loopviz.app.contract import QUERIES
from loopviz.app.server.api import address_of as address_of
from loopviz.app.server.assets import asset_url
from loopviz.app.server.source_code import locate as locate
from loopviz.app.sessions import untrusted
from loopviz.app.sessions.chosen_precision import face_of
from loopviz.app.sessions.faults import guarded, kinds, unforeseen
from loopviz.app.sessions.job import Jobs
from loopviz.app.sessions.messages import dumps, wire
from loopviz.app.sessions.models import ModelRoom
from loopviz.app.texts import LANGUAGES, pick_language, table, text
from loopviz.figures import theme, toolbar

# Of all texts, those that are about other pages' things.
_ELSEWHERE = ("live.key", "look.", "examples", "prompt.label", "stage.", "refused", "rule.", "checkpoint.")
_OWN = {
    "lesson.": ("learn",),
    "anatomy.": ("anatomy",),
    "ttt.": ("ttt",),
    "teach.": ("teach",),
    "stored.": ("explore",),
    "live.stored.": ("explore", "learn", "ttt"),
}  # texts that are few pages' alone, by how their keys begin

# What the place says when its script cannot be had: nobody has told the page its language then but the address, or the browser.
JS_LOST = f"""(error) => {{
    const said = {json.dumps({lang: text(lang, "page.lost") for lang in LANGUAGES})};
    const asked = new URLSearchParams(location.search).get({json.dumps(QUERIES["lang"])}) ?? navigator.language.slice(0, 2);
    console.error(error);
    root.textContent = said[asked] ?? said.en;
  }}"""
_JS_ON_LOAD = f"""
const root = element.querySelector('.lv');
import(new URL(root.dataset.script, document.baseURI).href)
  .then((page) => page.mount({{ root, server, props, watch, begin: (asked) => trigger('begin', asked) }}))
  .catch({JS_LOST});
"""

PRIVATE: Mapping[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}  # of every event


def session_of(request: gr.Request) -> str:
    """Whose request it is. One without a session is nobody else's: it gets one that no other request has."""
    return request.session_hash or secrets.token_urlsafe(16)


def nav(here: str, lang: str) -> str:
    """The links between the pages; `here` is the one they are on."""
    links = []
    for name, address in PAGES.items():
        current = ' aria-current="page"' if name == here else ""
        links.append(f'<a class="lv-way" data-page="{name}" href="{address}"{current}>{text(lang, f"nav.{name}")}</a>')
    return f'<nav class="lv-nav" aria-label="{text(lang, "nav.label")}">{"".join(links)}</nav>'


def page_data(here: str, room: ModelRoom, **more: Any) -> dict[str, Any]:
    """What a page's script is told once."""
    # a name that somebody registered is its own word
    own = {f"{c.name}.{name}": name for c in st.CONTROLS for name in st.choices(c) if name not in c.choices}
    elsewhere = (*_ELSEWHERE, *(key for key, pages in _OWN.items() if here not in pages))
    texts = {
        lang: {key: value for key, value in table(lang).items() if not key.startswith(elsewhere)}
        | own
        | {"model.info": room.told(lang), "precision.now": face_of(st.SERVER, [], room, lang)["info"]}
        for lang in LANGUAGES
    }
    controls = [
        {
            "name": c.name,
            "kind": c.kind,
            "group": c.group,
            "low": c.low,
            "high": c.high,
            "step": c.step,
            "choices": st.choices(c),
            "value": c.default,
        }
        for c in st.CONTROLS
    ]
    return {
        "kind": "config",
        "page": here,
        "pages": PAGES,
        "languages": LANGUAGES,
        "texts": texts,
        "toolbar": {lang: toolbar.dictionary(lang) for lang in LANGUAGES},
        "templates": {page: theme.template(page) for page in theme.PAGES},
        "controls": controls,
        "models": room.names,
        **more,
    }


def element(script: str, data: Mapping[str, Any], functions: list[Callable[[str], str]], elem_id: str) -> gr.HTML:
    """The page's one component: its value carries messages (`wire`), its script draws them."""
    own = {"script": script, "plotly": "plotly.js", "whole": "plotly-whole.js"}
    places = " ".join(f'data-{place}="{asset_url(name)}"' for place, name in own.items())
    template = f'<div class="lv lv-page" data-ready="0" {places}></div>'
    return gr.HTML(
        wire(data),
        html_template=template,
        js_on_load=_JS_ON_LOAD,
        apply_default_css=False,
        elem_id=elem_id,
        elem_classes="lv-whole",
        server_functions=functions,
    )


def askable(of: Any, *names: str) -> list[Callable[[str], str]]:
    """Methods as what a page's script may ask, under their names: Gradio marks functions, which it cannot do to methods."""

    def function(name: str) -> Callable[[str], str]:
        def ask(question: str) -> str:
            try:
                return getattr(of, name)(question)
            except kinds() as error:
                asked = untrusted.read(question, contract.InLanguage, len(question) if isinstance(question, str) else 0)
                said = unforeseen(error, pick_language(asked.get("lang")), f"the question {name!r}")
                return dumps({"kind": "failed", "state": "failed", "text": said})

        ask.__name__ = name
        return ask

    return [function(name) for name in names]


class Work(Protocol):
    """What a page does for its visitors."""

    jobs: Jobs

    def run(self, payload: Any, session: str) -> Iterator[str]:
        """What the page's script asked to begin: messages for it."""

    def forget(self, session: str) -> None:
        """A visitor left."""


class ScriptedPage:
    """A page's one component and its events, on a route of `demo`: what its script begins is run, and ends with the visit.

    Args:
        demo: the app.
        work: what the page does.
        data: what its script is told once (`page_data`).
    """

    name: ClassVar[
        str
    ]  # as in PAGES; its script is `<name>/main.js`, what it may ask of `work` is in `contract.QUESTIONS`
    title: ClassVar[str]
    element_id: ClassVar[str] = ""  # of its one component; "": `lv-` and its name

    def __init__(self, demo: gr.Blocks, work: Work, data: Mapping[str, Any]) -> None:
        self.work = work
        with demo.route(self.title, PAGES[self.name].removeprefix("."), show_in_navbar=False):
            functions = askable(work, *contract.QUESTIONS[self.name])
            self.live = element(f"{self.name}/main.js", data, functions, self.element_id or f"lv-{self.name}")
            # who comes waits in a line of ours, which says how long it is (see loopviz.app.sessions.waiting_line)
            limits = {"concurrency_limit": None, "trigger_mode": "multiple"}
            self.live.begin(guarded(self._run), None, self.live, **limits, **PRIVATE)
            demo.unload(guarded(self._leave))

    def _run(self, request: gr.Request, event: gr.EventData) -> Iterator[str]:
        asked = event._data if isinstance(event._data, dict) else {}
        if untrusted.has_halves(asked):
            lang = pick_language(asked.get("lang"))
            yield wire({"kind": "status", "text": text(lang, "door.json"), "bad": True, "over": True})
            return
        session = session_of(request)
        said = untrusted.fitting(asked, contract.Begun)
        self.work.jobs.visits.meet(session, said.get("visitor"), address_of(request))
        yield from self.work.run(asked, session)

    def _leave(self, request: gr.Request) -> None:
        self.work.forget(session_of(request))
