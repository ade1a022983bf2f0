"""The verdict of a comparison: true of its table, whatever that holds, in both languages."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopviz.lab import TASKS
from loopviz.lab.comparison.table import COLUMNS
from loopviz.lab.comparison.verdict import FRACTIONS, fraction, multiple, verdict
from loopviz.lab.headline import number, percent, same

EMPTY: dict[str, Any] = {column.name: None for column in COLUMNS}
PLAIN = {"setup": "plain", "stops": "plain", "loops_mean": 1, "baseline": True}


def row(name: str, perplexity: float | None = None, **more: Any) -> dict[str, Any]:
    usual = {"setup": name, "baseline": False, "stops": "count 8", "loops_mean": 8, "perplexity": perplexity}
    return {**EMPTY, **usual, **more}


def plain(perplexity: float | None, **more: Any) -> dict[str, Any]:
    return row("plain", perplexity, **{**PLAIN, **more})


BASE = plain(3.283, ms_per_token=1.0, kv_bytes_per_token=1000)
LOOPED = row("own", 2.571, ms_per_token=7.9, kv_bytes_per_token=8000)
SLOT = row("slot", 2.642, ms_per_token=4.0, kv_bytes_per_token=1000, loops_mean=4)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], ""),
        ([BASE], "Only plain was measured: perplexity 3.28. There is nothing to compare it with."),
        ([BASE, LOOPED], "own (8 loops): perplexity 3.28 → 2.57 for 7.9x the time."),
        (
            [BASE, LOOPED, SLOT],
            "own (8 loops): perplexity 3.28 → 2.57 for 7.9x the time. slot (4 loops) keeps 2.64 with an eighth of the cache.",
        ),
        ([BASE, row("worse", 3.5)], "Nothing beats plain (perplexity 3.28). Nearest: worse (8 loops) with 3.5."),
        ([BASE, row("even", 3.2831)], "All have the same perplexity, 3.28: here looping buys nothing."),
        # without a model that does not loop nothing is known of what looping buys
        ([{**LOOPED, "baseline": True}, row("even", 2.5711)], "All have the same perplexity, 2.57."),
        ([BASE, plain(3.2831, baseline=False)], "All have the same perplexity, 3.28."),
        # none of several that look the same is the best, the nearest, the most
        (
            [BASE, row("worse", 3.5), row("bad", 3.5001)],
            "Nothing beats plain (perplexity 3.28). Nearest: worse (8 loops) with 3.5 (others the same).",
        ),
        ([row("a", 3.5), row("b", 3.5001)], "Best: a (8 loops), perplexity 3.5 (others the same)."),
        (
            [plain(None), row("a", agreement=0.94), row("b", agreement=0.94), row("c", agreement=0.61)],
            "Without a continuation nothing says which is better. a (8 loops) agrees most with plain: 94 % of its words "
            "(others the same). c (8 loops) least: 61 %.",
        ),
        # nearly all is not all, and of two that are said alike none agrees more
        (
            [plain(None), row("a", agreement=0.9999), row("b", agreement=0.61)],
            "Without a continuation nothing says which is better. a (8 loops) agrees most with plain: > 99.9 % of its words. "
            "b (8 loops) least: 61 %.",
        ),
        (
            [plain(None), row("a", agreement=0.9999), row("b", agreement=0.9998)],
            "Without a continuation nothing says which is better. All others would choose > 99.9 % of plain’s words.",
        ),
        (
            [BASE, row("even", 3.2831, ms_per_token=1.02), row("worse", 4.0)],
            "Nothing beats plain (perplexity 3.28); even (8 loops) is as good in the same time.",
        ),
        # of two that look the same, the one that keeps less
        ([BASE, LOOPED, {**SLOT, "perplexity": 2.5711}], "slot (4 loops): perplexity 3.28 → 2.57 for 4x the time."),
        # a time that was too short to be measured is not told
        ([BASE, {**LOOPED, "ms_per_token": None}], "own (8 loops): perplexity 3.28 → 2.57."),
        ([BASE, {**LOOPED, "ms_per_token": 0.5}], "own (8 loops): perplexity 3.28 → 2.57 in 50 % of the time."),
        # a sweep's row is said with its loops
        ([BASE, row("1 to 16", 2.5, swept=12)], "12 loops (1 to 16): perplexity 3.28 → 2.5."),
        # without a continuation
        ([plain(None), row("own")], "Without a continuation nothing says which is better."),
        (
            [plain(None, ms_per_token=1.0), row("own", agreement=0.94, ms_per_token=2.0), row("slot", agreement=0.61)],
            "Without a continuation nothing says which is better. own (8 loops) agrees most with plain: 94 % of its words "
            "for 2x the time. slot (8 loops) least: 61 %.",
        ),
        # stopped before it was scored
        ([BASE, LOOPED, row("cut")], "own (8 loops): perplexity 3.28 → 2.57 for 7.9x the time. No value from: cut (8 loops)."),
        ([plain(None), LOOPED], "Best: own (8 loops), perplexity 2.57. plain has no perplexity to compare with. No value from: plain."),
    ],
)  # fmt: skip
def test_each_case_has_its_sentence(rows: list[dict[str, Any]], said: str) -> None:
    assert verdict(rows, "en") == said


def test_what_was_refused_is_named_and_none_at_all_says_so() -> None:
    assert verdict([BASE, LOOPED], "en", ["far"]).endswith("No value from: far.")
    assert verdict([], "en", ["far"]) == "Nothing was measured: the ⚠ on each card says why."
    assert verdict([], "zh", ["far"]) != ""


def test_what_was_ended_does_not_point_at_refusals_that_are_not_there() -> None:
    assert verdict([], "en", ["far"], refused=False) == "It was ended before anything was measured."
    assert "⚠" not in verdict([], "zh", ["far"], refused=False)


def test_of_a_comparison_ended_before_its_continuation_was_read_no_want_of_one_is_said() -> None:
    said = verdict([plain(None), row("own")], "en", continued=True)
    assert said == "No perplexity was measured: nothing says which is better."
    assert TASKS["compare"].headline([plain(None), row("own")], "en") == said, (
        "its rows do not say whether there was one"
    )


def test_a_fraction_is_called_one_only_where_it_is_one() -> None:
    assert fraction(1 / 8, "en") == "an eighth"
    assert fraction(0.13, "en") == "13 %"
    assert fraction(0.5, "zh") == "一半"
    for lang, names in FRACTIONS.items():
        assert all(fraction(1 / n, lang) == name for n, name in names.items())


FEW = st.sampled_from([0.0, 1.0, 1.0001, 2.5, 2.5004, 3.0, 9.99, 41.2, 1234.5, 1e-4, 1e9])
CELLS = {
    "perplexity": st.one_of(st.none(), FEW.filter(bool), st.just(float("inf"))),
    "ms_per_token": st.one_of(st.none(), FEW.filter(bool)),
    "kv_bytes_per_token": st.one_of(st.none(), FEW.filter(bool)),
    "agreement": st.one_of(st.none(), st.sampled_from([0.0, 0.5, 0.333, 0.9999, 1.0])),
    "loops_mean": st.one_of(st.none(), st.sampled_from([1, 1.0, 2.5, 8, 7.9999])),
    "stops": st.sampled_from(["plain", "count 8", "max 3, kl 2"]),
    "swept": st.one_of(st.none(), st.none(), st.sampled_from([1, 4, 16])),
}
NAMES = ("a", "b {x}", "<i>", "“q”", "%s", "d")


@st.composite
def tables(draw: st.DrawFn) -> list[dict[str, Any]]:
    n = draw(st.integers(0, 6))
    found = [
        {**EMPTY, "setup": NAMES[i], "baseline": False, **{k: draw(v) for k, v in CELLS.items()}} for i in range(n)
    ]
    if found and draw(st.booleans()):
        found[draw(st.integers(0, n - 1))]["baseline"] = True
    return found


DIGITS = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?")


def sayable(rows: list[dict[str, Any]]) -> set[str]:
    """Every number that a true sentence of the table can hold."""
    said = [number(value) for one in rows for value in one.values() if isinstance(value, (int, float))]
    said += [percent(one["agreement"]) for one in rows if one["agreement"] is not None]
    for name in ("ms_per_token", "kv_bytes_per_token"):
        values = [one[name] for one in rows if one[name]]
        said += [shown(a / b) for a, b in itertools.permutations(values, 2) for shown in (multiple, percent)]
    return {found for text in said for found in DIGITS.findall(text)}


@settings(max_examples=600, deadline=None)
@given(tables(), st.lists(st.sampled_from(["x", "{y}"]), max_size=2))
def test_it_never_raises_and_each_number_is_in_the_table(rows: list[dict[str, Any]], missing: list[str]) -> None:
    for lang in ("en", "zh"):
        said = verdict(rows, lang, missing)
        assert set(DIGITS.findall(said)) <= sayable(rows), said
        assert bool(said) == bool(rows or missing)


@settings(max_examples=300, deadline=None)
@given(tables())
def test_none_is_called_better_that_looks_the_same_or_is_worse(rows: list[dict[str, Any]]) -> None:
    said = verdict(rows, "en")
    found = re.search(r"perplexity (\S+) → (\S+?)(?:\.? |\.$)", said)
    scored = [one["perplexity"] for one in rows if one["perplexity"] not in (None, float("inf"))]
    if found:
        assert found[1] != found[2]
        base = next(one["perplexity"] for one in rows if one["baseline"])
        assert min(scored) < base
        assert not same(min(scored), base)
