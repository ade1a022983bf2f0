"""Every text a page shows, in English and Chinese, under the same keys (a panel's texts live in the panel's module)."""

from __future__ import annotations

from collections.abc import Mapping

from loopviz.app.texts import (
    anatomy,
    anatomy_others,
    api,
    arrows,
    bounds,
    checkpoints,
    compare,
    door,
    en,
    fields,
    footer,
    hero,
    lab,
    learn,
    lessons,
    models,
    notes,
    play,
    precision,
    preview,
    rules,
    share,
    starts,
    steer,
    stored,
    teach,
    ttt,
    zh,
)
from loopviz.figures.labels import fill

LANGUAGES: dict[str, str] = {"en": "English", "zh": "中文"}
_PARTS = (
    bounds,
    checkpoints,
    play,
    hero,
    learn,
    lessons,
    share,
    stored,
    steer,
    starts,
    compare,
    lab,
    fields,
    footer,
    models,
    precision,
    preview,
    rules,
    door,
    notes,
    arrows,
    anatomy,
    anatomy_others,
    api,
    ttt,
    teach,
)  # texts that have both languages in one module
_TABLES: dict[str, Mapping[str, str]] = {
    lang: {**first.TEXTS, **{key: said for part in _PARTS for key, said in part.TEXTS[lang].items()}}
    for lang, first in (("en", en), ("zh", zh))
}


def text(lang: str, key: str, **values: object) -> str:
    """The text `key` in `lang` (one of `LANGUAGES`), its `{name}` places filled from `values`. KeyError for an unknown key."""
    found = _TABLES[lang][key]
    return fill(found, **values) if values else found


def table(lang: str) -> Mapping[str, str]:
    """All texts of `lang`, by key."""
    return _TABLES[lang]


def pick_language(wanted: object, accept_language: str = "") -> str:
    """The language of a visit: what the address asks for, else the browser's first choice if we speak it, else English."""
    if isinstance(wanted, str) and wanted in LANGUAGES:
        return wanted
    first = accept_language.split(",")[0].strip().lower()
    return "zh" if first.startswith("zh") else "en"
