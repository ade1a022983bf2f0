"""How a measurement's result is said in a sentence: numbers as people say them, and which of several is best.

A task's headline is made of its rows alone by rules (`Task.headline`): every number in it is one of the table's, or a share or a
ratio of two of a column. Values that look the same as they are said are the same: of two none is called better.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from loopviz.lab.task import Row

Thing = TypeVar("Thing")
_NINES = 15  # digits, as many as a float has for certain
TIED = {"en": " (others the same)", "zh": "（另有相同者）"}
UNITS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def number(value: float) -> str:
    """A number in three digits, as it stands in a sentence."""
    size = abs(value)
    if not math.isfinite(value):
        return "∞" if value > 0 else "−∞" if value < 0 else "–"
    if size and (size < 1e-3 or size >= 1e6):
        return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")
    if 0.9995 <= size < 1:
        return f"{value:.{_NINES}g}"  # what is less than one, a threshold above all, is not called one
    return f"{value:,.0f}" if size >= 999.5 else f"{value:.3g}"


def percent(share: float) -> str:
    """A share of 1 as a percentage: all and none are said of nothing else."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    said = number(100 * share)
    return "> 99.9 %" if share < 1 and said == "100" else f"{said} %"


def known(rows: Sequence[Row], *names: str) -> list[Row]:
    """The rows that have a finite number in each of these columns."""
    return [row for row in rows if all(is_finite(row.get(name)) for name in names)]


def is_finite(value: object) -> bool:
    """Whether it is a number that can be compared."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def same(one: float, other: float) -> bool:
    """Whether two numbers look the same as they are said."""
    return number(one) == number(other)


def least(things: Sequence[Thing], value: Callable[[Thing], float], cost: Callable[[Thing], Any]) -> Thing:
    """The thing of the least value; of those that look the same, the one that costs least."""
    best = min(map(value, things))
    return min((thing for thing in things if same(value(thing), best)), key=cost)


def tied(things: Sequence[Thing], value: Callable[[Thing], float], best: Thing, lang: str) -> str:
    """Words behind a value that says it is not `best`'s alone: "" where no other looks the same."""
    others = (thing for thing in things if thing is not best)
    return TIED[lang] if any(same(value(thing), value(best)) for thing in others) else ""


def byte_words(count: float) -> str:
    """Bytes as people say them."""
    unit, each = next(((unit, each) for unit, each in UNITS if count >= each), ("B", 1))
    return f"{number(count / each)} {unit}"
