"""What every page beside Explore is: one element that a script of ours fills, its words in both languages, its address.

The script gets everything as data (`page_data`), so the language changes without asking anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr

from loopviz.app import settings as st
from loopviz.app.library import OFFERED
from loopviz.app.server import asset_url
from loopviz.app.texts import LANGUAGES, table, text
from loopviz.app.wire import wire
from loopviz.panels import theme

# The pages in the order in which they are offered: name (`nav.<name>` in the texts) and address beside the root.
PAGES: Mapping[str, str] = {"explore": "./", "compare": "./compare", "lab": "./lab"}

# Of all texts, those that are about other pages' things.
_ELSEWHERE = ("live.key", "look.", "examples", "prompt.label", "stage.", "refused")

_JS_ON_LOAD = """
const root = element.querySelector('.lv');
import(new URL(root.dataset.script, document.baseURI).href)
  .then((page) => page.mount({ root, server, props, watch, begin: (asked) => trigger('begin', asked) }))
  .catch((error) => { console.error(error); root.textContent = 'The page script could not be loaded. Reload the page.'; });
"""


def nav(here: str, lang: str) -> str:
    """The links between the pages; `here` is the one they are on."""
    links = []
    for name, address in PAGES.items():
        current = ' aria-current="page"' if name == here else ""
        links.append(f'<a class="lv-way" data-page="{name}" href="{address}"{current}>{text(lang, f"nav.{name}")}</a>')
    return f'<nav class="lv-nav" aria-label="{text(lang, "nav.label")}">{"".join(links)}</nav>'


def page_data(here: str, default_model: str, **more: Any) -> dict[str, Any]:
    """What a page's script is told once."""
    texts = {
        lang: {key: value for key, value in table(lang).items() if not key.startswith(_ELSEWHERE)} for lang in LANGUAGES
    }
    controls = [
        {
            "name": c.name,
            "kind": c.kind,
            "group": c.group,
            "low": c.low,
            "high": c.high,
            "step": c.step,
            "choices": c.choices,
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
        "templates": {page: theme.template(page) for page in theme.PAGES},
        "controls": controls,
        "models": [default_model, *(name for name in OFFERED if name != default_model)],
        **more,
    }


def element(script: str, data: Mapping[str, Any], functions: list[Callable[[str], str]], elem_id: str) -> gr.HTML:
    """The page's one component: its value carries messages (`wire`), its script draws them."""
    template = f'<div class="lv lv-page" data-ready="0" data-script="{asset_url(script)}" data-plotly="{asset_url("plotly.js")}"></div>'
    return gr.HTML(
        wire(data),
        html_template=template,
        js_on_load=_JS_ON_LOAD,
        apply_default_css=False,
        elem_id=elem_id,
        elem_classes="lv-whole",
        server_functions=functions,
    )
