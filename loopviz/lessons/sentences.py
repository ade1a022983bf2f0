"""What was measured in words, and sentences with it in their places."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loopviz.lessons.faults import PLACE
from loopviz.lessons.measurements import MEASUREMENTS, Measured, kind_of
from loopviz.lessons.schema import LessonMeasure

_FLAGS: Mapping[str, tuple[str, str]] = {"en": ("no", "yes"), "zh": ("否", "是")}
_QUOTES = "“{}”"
_ARROW = " → "
SMALL = 0.001  # below it a number is written with a power of ten
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def said(asked: LessonMeasure, value: Measured, lang: str) -> str:
    """A measured value as a sentence has it: a text in quotes, a chance as a share of a hundred, a curve by its two ends."""
    if isinstance(value, bool):
        return _FLAGS[lang][value]
    if isinstance(value, str):
        return _quoted(value)
    if kind_of(asked) == "words":
        return _ARROW.join(_quoted(str(word)) for word in value)  # type: ignore[union-attr]  # a list: by its kind
    if isinstance(value, list):
        known: list[Any] = [one for one in value if one is not None]
        return _ARROW.join(number(asked, one) for one in (known[0], known[-1])) if known else "–"
    return number(asked, value)


def number(asked: LessonMeasure, value: float) -> str:
    """A number of a measurement."""
    shown = MEASUREMENTS[asked["what"]].shown
    if shown == "loops":
        return f"{value:.0f}"
    if shown == "mean":
        return f"{value:.1f}"
    if shown == "share":
        return f"{100 * value:.0f} %" if value >= 0.01 or not value else f"{100 * value:.1g} %"
    if shown == "bytes":
        return f"{value / 1000:,.0f} kB"
    if 0 < abs(value) < SMALL:
        digits, power = f"{value:.1e}".split("e")
        return f"{digits} × 10{str(int(power)).translate(_RAISED)}"
    return f"{value:.3g}"


def _quoted(text: str) -> str:
    return _QUOTES.format(text.strip(" ").replace("\n", "↵"))


def filled(sentence: str, measure: Mapping[str, LessonMeasure], values: Mapping[str, Measured], lang: str) -> str:
    """A sentence with measured values in its places; one that was not measured stays as it is written."""

    def word(found: Any) -> str:
        name = found[1]
        return said(measure[name], values[name], lang) if name in values else found[0]

    return PLACE.sub(word, sentence)
