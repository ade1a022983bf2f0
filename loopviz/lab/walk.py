"""A walk along a measurement: what a slider under its figure goes along, and what each place comes to in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MOST_STOPS = 240  # of a slider; of more values every so-manieth and the last

Row = dict[str, Any]  # as a task yields it


def alone(rows: Sequence[Row], column: str, value: object) -> list[Row]:
    """The rows of one value."""
    return [row for row in rows if row[column] == value]


def until(rows: Sequence[Row], column: str, value: object) -> list[Row]:
    """The rows up to the last one of a value."""
    last = max(i for i, row in enumerate(rows) if row[column] == value)
    return list(rows[: last + 1])


@dataclass(frozen=True)
class Walk:
    """What a figure's slider goes along.

    Attributes:
        column: whose values are its stops, each once.
        words: what that is called, by language.
        x: a row -> its place on the figure's axis, in the axis' own numbers.
        said: `(rows, language)` -> what a stop comes to, by rules from its rows; "" where they say nothing.
        of: `(rows, column, value)` -> the rows that a stop's sentence is made of.
    """

    column: str
    words: Mapping[str, str]
    x: Callable[[Row], float]
    said: Callable[[Sequence[Row], str], str]
    of: Callable[[Sequence[Row], str, object], list[Row]] = alone


@dataclass(frozen=True)
class Stop:
    """A place of the slider.

    Attributes:
        at: the column's value, as it is said.
        x: on the figure's axis.
        said: what it comes to.
    """

    at: str
    x: float
    said: str


def stops(walk: Walk, rows: Sequence[Row], lang: str) -> list[Stop]:
    """The places of a measurement's slider, from left to right in its figure."""
    first: dict[object, Row] = {}
    for row in rows:
        first.setdefault(row[walk.column], row)
    places = sorted((x, value) for value, row in first.items() if math.isfinite(x := walk.x(row)))
    every = max(1, math.ceil(len(places) / MOST_STOPS))
    found = []
    for x, value in places[(len(places) - 1) % every :: every] if places else []:
        said = walk.said(walk.of(rows, walk.column, value), lang)
        if said:
            found.append(Stop(f"{value:,}" if isinstance(value, int) else str(value), x, said))
    return found
