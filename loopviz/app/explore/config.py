"""What the page's script is told once: its words, its panels and their colours."""

from __future__ import annotations

from typing import Any

from loopviz.app.contract import DIALS
from loopviz.app.controls import BY_NAME
from loopviz.app.explore import snapshot
from loopviz.app.server import glossary, source_code
from loopviz.app.texts import table
from loopviz.figures import toolbar
from loopviz.figures.theme import template
from loopviz.panels import GROUPS, PANELS
from loopviz.panels.kit import formulas

_WORDS = ("title", "question", "how", "units", "source", "no_data", "cost", "not_recorded")
_TERMED = ("how", "units", "source")  # sent in pieces: the glossary's terms are links
_SHOWN = ("live.", "panel.", "page.tagline", "page.dark", "page.field.", "page.server.", "nav.", "arrows.")


def page_config(lang: str) -> dict[str, Any]:
    """The message that sets the page up in `lang`; a panel is found by being in `PANELS`."""
    words = table(lang)
    panels = []
    for name, panel in PANELS.items():
        shown: dict[str, Any] = {key: panel.TEXTS[lang][key] for key in _WORDS if key in panel.TEXTS[lang]}
        shown["formula"] = formulas.spoken(panel.TEXTS["en"]["formula"], lang)
        told: set[str] = set()
        for key in _TERMED:
            shown[key] = glossary.linked(shown[key], lang, told)
        shown["name"] = words.get(f"panel.{name}", shown["title"])
        entry = {"name": name, "group": panel.GROUP, "words": shown, "needs": sorted(snapshot.needs(panel))}
        panels.append(entry | {"usual": snapshot.usual(panel), "code": source_code.listed(panel)})
    return {
        "kind": "config",
        "lang": lang,
        "texts": {key: value for key, value in words.items() if key.startswith(_SHOWN)},
        "groups": list(GROUPS),
        "panels": panels,
        "toolbar": toolbar.dictionary(lang),
        "templates": {page: template(page) for page in ("light", "dark")},
        "dials": {name: [of.low, of.high, of.step] for name, of in BY_NAME.items() if name in DIALS},
    }
