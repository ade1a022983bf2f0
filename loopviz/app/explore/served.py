"""What the web server has for this page's script, made when it is first asked for: words, the tour, the run it opens with."""

from __future__ import annotations

import functools

from loopviz.app.explore import first_run, links, tour
from loopviz.app.server import assets, glossary, link_preview
from loopviz.app.texts import LANGUAGES


def _opening(lang: str) -> bytes | None:
    return first_run.opening(lang)


def _opening_mark() -> str | None:
    return first_run.mark()


for _lang in LANGUAGES:
    assets.offer(
        {
            f"glossary.{_lang}.json": functools.partial(glossary.document, _lang),
            f"tour.{_lang}.json": functools.partial(tour.document, _lang),
            f"opening.{_lang}.json": functools.partial(_opening, _lang),
        },
        marks={f"opening.{_lang}.json": _opening_mark},
    )

link_preview.describes(links.card)
