"""What was measured in words, and sentences with it in their places."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any

from loopviz.lessons.faults import PLACE
from loopviz.lessons.measurements import MEASUREMENTS, Measured, kind_of
from loopviz.lessons.schema import LessonMeasure

_FLAGS: Mapping[str, tuple[str, str]] = {"en": ("no", "yes"), "zh": ("否", "是")}
_QUOTES = "“{}”"
_ARROW = " → "
SMALL, LARGE = 0.001, 1e6  # below, and from there on, a number is written with a power of ten
WHOLE = 999.5  # from there on a number of a table is written to its last digit before the point
NEARLY_ALL = 99.5  # of a hundred: from there on it is not rounded to all
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
    return written(MEASUREMENTS[asked["what"]].shown, value)


def written(shown: str, value: float) -> str:
    """A number as it is `shown` (:class:`Measurement`); `written` of assets/web/learn/measured.js writes the same."""
    if shown == "loops":
        return _fixed(value, 0)
    if shown == "mean":
        return _fixed(value, 1)
    if shown == "share":
        return f"{_share(100 * value)} %"
    if shown == "bytes":
        return f"{int(_fixed(value / 1000, 0)):,} kB"
    if shown == "table" and abs(value) >= WHOLE:
        return f"{int(_fixed(value, 0)):,}"
    return _short(value, 3)


def _share(value: float) -> str:
    """Of a hundred: nearly all is not all, and hardly any is not none."""
    if NEARLY_ALL <= value < 100:
        return _fixed(min(value, 99.9), 1)
    return _fixed(value, 0) if value >= 1 or not value else _short(value, 1)


def _short(value: float, digits: int) -> str:
    """A number of so many digits that count; with a power of ten where it is very small, or very large."""
    if value and not SMALL <= abs(value) < LARGE:
        number, power = f"{_rounded(value, 2):.1e}".split("e")
        return f"{number} × 10{str(int(power)).translate(_RAISED)}"
    return f"{float(_rounded(value, digits)):.12g}"


def _fixed(value: float, places: int) -> str:
    return str(Decimal(value).quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP))


def _rounded(value: float, digits: int) -> Decimal:
    """To so many digits that count; halves go up, as they do in the page's script."""
    return Context(prec=digits, rounding=ROUND_HALF_UP).create_decimal_from_float(value)


def _quoted(text: str) -> str:
    return _QUOTES.format(text.strip(" ").replace("\n", "↵"))


def filled(sentence: str, measure: Mapping[str, LessonMeasure], values: Mapping[str, Measured], lang: str) -> str:
    """A sentence with measured values in its places; one that was not measured stays as it is written."""

    def word(found: Any) -> str:
        name = found[1]
        return said(measure[name], values[name], lang) if name in values else found[0]

    return PLACE.sub(word, sentence)
