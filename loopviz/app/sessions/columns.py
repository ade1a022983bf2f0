"""What a measurement's columns and fields are called on pages: in words, with the technical name beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loopviz.app.texts import table, text

if TYPE_CHECKING:
    from loopviz.lab.task import Column

UNITS = ("loops", "nats", "steps", "tokens", "tokens/s", "windows")  # that are words


def title_of(task: str, name: str, lang: str) -> str:
    """What a field is called: in words, with the parameter's name in brackets; without words, the name alone."""
    words = table(lang)
    title = words.get(f"field.{task}.{name}") or words.get(f"field.{name}")
    return name if title is None else text(lang, "field.titled", title=title, name=name)


def column_words(column: Column, lang: str) -> dict[str, Any]:
    """A column for the page's script: the heading is what comes before the colon of its words."""
    words = column.words[lang]
    at = min((place for place in (words.find(": "), words.find("：")) if place > 0), default=len(words))
    head, says = words[:at], words[at + 1 :].strip() or words
    return {
        "name": column.name,
        "unit": column.unit,
        "called": unit_words(column.unit, lang),
        "head": head,
        "says": says,
    }


def unit_words(unit: str, lang: str) -> str:
    """A unit as the page writes it; symbols are the same in every language."""
    return text(lang, f"unit.{unit}") if unit in UNITS else unit
