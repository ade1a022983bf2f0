"""A dataclass's values from JSON, by its hints: the one reader of recipes and of a measurement's parameters."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from loopviz.checks import FieldError
from loopviz.fields import kind_of, typed_values


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    pair: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class Outer:
    name: str
    counts: tuple[int, ...] = ()
    depth: int | None = None
    on: bool = False
    more: dict[str, Any] = field(default_factory=dict)
    inner: Inner | None = None


def test_json_becomes_what_the_fields_say():
    values = {"name": "x", "counts": [1, 2], "depth": None, "more": {"a": [1]}, "inner": {"rate": 1, "pair": [0, 2]}}
    made = Outer(**typed_values(Outer, values))
    assert made == Outer("x", (1, 2), None, False, {"a": [1]}, Inner(1.0, (0.0, 2.0)))
    assert type(made.inner.rate) is float
    assert Outer(**typed_values(Outer, {"name": "x"})) == Outer("x")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "name: is missing"),
        ({"name": 3}, "name=3: must be text"),
        ({"name": "x", "nome": 1}, "nome=1: not a field; there are name, counts, depth, on, more, inner"),
        ({"name": "x", "depth": True}, "depth=True: must be a whole number or null"),
        ({"name": "x", "depth": 1.0}, "depth=1.0: must be a whole number or null"),
        ({"name": "x", "counts": 3}, "counts=3: must be a list, each entry a whole number"),
        ({"name": "x", "counts": [1, "2"]}, "counts='2': must be a whole number"),
        ({"name": "x", "on": 1}, "on=1: must be true or false"),
        ({"name": "x", "more": []}, "more=[]: must be a mapping"),
        ({"name": "x", "inner": 3}, "inner=3: must be a mapping or null"),
        ({"name": "x", "inner": {"rate": float("nan")}}, "inner.rate=nan: must be a finite number"),
        ({"name": "x", "inner": {"rate": 10**400}}, "inner.rate=≥10^400: must be a finite number"),
        ({"name": "x", "inner": {"rat": 1}}, "inner.rat=1: not a field; there are inner.rate, inner.pair"),
        ({"name": "x", "inner": {"pair": [1]}}, "inner.pair=[1]: must be a list of 2, each entry a finite number"),
        ({"name": ["x" * 99]}, f"name=['{'x' * 57}…: must be text"),
    ],
)
def test_another_type_is_refused_by_name(values, said):
    with pytest.raises(FieldError) as refused:
        typed_values(Outer, values)
    assert str(refused.value) == said


def test_a_type_is_said_in_words():
    assert str(kind_of(tuple[int, ...] | None)) == "a list, each entry a whole number or null"
    assert str(kind_of(dict[str, int])) == "a mapping"
