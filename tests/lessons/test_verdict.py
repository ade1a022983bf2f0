"""Which answer is right follows from what was measured; how near a guess came."""

from __future__ import annotations

import math
from typing import Any

import pytest

from loopviz.lessons.verdict import judge, right_choice
from tests.lessons.toy import step, toy, words


def predicts(name: str) -> Any:
    return step(toy(), name)["predict"]


def offers(rule: str, of: list[str], *choices: dict[str, Any]) -> Any:
    made = [{"text": words(str(i)), **choice} for i, choice in enumerate(choices)]
    return {"kind": "choice", "choices": made, "right": {"rule": rule, "of": of}}


@pytest.mark.parametrize(("measured", "right"), [(2, 0), (4, 1), (4.0, 1), (3, None), (True, None), (4.0000000001, 1)])
def test_by_value_the_choice_that_was_measured_is_right(measured: Any, right: int | None) -> None:
    assert right_choice(predicts("count"), {"loops": measured}) == right


def test_words_are_the_same_with_blanks_around_them() -> None:
    predict = offers("value", ["said"], {"value": "Paris"}, {"value": "not"})
    assert right_choice(predict, {"said": " Paris"}) == 0
    assert right_choice(predict, {"said": "paris"}) is None


def test_flags_are_not_numbers() -> None:
    predict = offers("value", ["same"], {"value": True}, {"value": False})
    assert right_choice(predict, {"same": False}) == 1
    assert right_choice(predict, {"same": 0}) is None


@pytest.mark.parametrize(("measured", "right"), [(-5, 0), (3, 0), (3.5, None), (4, 1), (9, 1), (10, 2), (1e9, 2)])
def test_between_two_ends_both_included(measured: float, right: int | None) -> None:
    predict = offers("between", ["n"], {"high": 3}, {"low": 4, "high": 9}, {"low": 9.5})
    assert right_choice(predict, {"n": measured}) == right


def test_the_largest_and_the_smallest_of_several_and_none_of_two_that_are_equal() -> None:
    values = {"a": 3, "b": 7, "c": 5}
    choices = [{"value": name} for name in "abc"]
    assert right_choice(offers("largest", [*"abc"], *choices), values) == 1
    assert right_choice(offers("smallest", [*"abc"], *choices), values) == 0
    assert right_choice(offers("largest", [*"abc"], *choices), values | {"c": 7}) is None
    assert right_choice(offers("largest", [*"abc"], *choices[:1]), values) is None, "the largest is not offered"


def test_a_choice_is_right_or_wrong_or_nothing_is() -> None:
    predict = predicts("count")
    right, wrong = judge(predict, {"loops": 4}, 1), judge(predict, {"loops": 4}, 0)
    assert (right.right, right.score, right.grade) == (True, 1.0, "right")
    assert (wrong.right, wrong.score, wrong.grade) == (False, 0.0, "wrong")
    assert judge(predict, {"loops": 5}, 0).right is None


def test_a_blind_guess_names_a_run() -> None:
    predict = predicts("blind")
    assert judge(predict, {}, "one").right is True
    assert judge(predict, {}, "four").right is False


@pytest.mark.parametrize(
    ("guess", "right", "grade"),
    [(4, True, "same"), (4.25, True, "same"), (5, True, "close"), (3, True, "close"), (6, False, "far")],
)
def test_a_number_is_right_where_it_is_near(guess: float, right: bool, grade: str) -> None:
    verdict = judge(predicts("number"), {"mean": 4.0}, guess)
    assert (verdict.right, verdict.grade) == (right, grade)
    assert verdict.score == pytest.approx(1 - abs(guess - 4) / 7)


def test_a_line_is_held_against_the_curve_on_its_own_axis() -> None:
    """On a log axis from 0.001 to 1 a factor of ten is a third of it, wherever."""
    predict, curve = predicts("line"), [1.0, 0.1, 0.01, 0.001]
    assert judge(predict, {"curve": curve}, curve).score == pytest.approx(1)
    ten_times = judge(predict, {"curve": curve}, [1.0, 1.0, 0.1, 0.01])
    assert ten_times.score == pytest.approx(1 - 3 * (1 / 3) / 4)
    flat = judge(predict, {"curve": curve}, [math.sqrt(0.001)] * 4)
    assert (flat.right, flat.grade) == (False, "far")


def test_of_a_curve_only_what_is_there_counts() -> None:
    predict = predicts("line")
    assert judge(predict, {"curve": [None, 0.1]}, [1.0, 0.1, 1.0, 1.0]).score == pytest.approx(1)
    assert judge(predict, {"curve": [None]}, [1.0, 0.1, 1.0, 1.0]).right is None
    assert judge(predict, {"curve": [50.0, 1e-9, 0.1, 0.1]}, [1.0, 0.001, 0.1, 0.1]).score == pytest.approx(1), (
        "at the axis' ends"
    )


@pytest.mark.parametrize(
    "guess", [None, "", "x", -1, 2, True, 1.0, [], {}, [1], [None] * 4, ["a"] * 4, math.nan, 10**400, [10**400] * 4]
)
def test_what_is_no_guess_is_none(guess: Any) -> None:
    values = {"loops": 4, "mean": 4.0, "curve": [0.1] * 4}
    for name in ("count", "line", "blind"):
        assert judge(predicts(name), values, guess) is None, name
    if not isinstance(guess, (int, float)) or isinstance(guess, bool) or guess != guess or guess > 1e300:
        assert judge(predicts("number"), values, guess) is None
