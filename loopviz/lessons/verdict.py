"""What the right answer to a step is, by what was measured, and how near a guess came."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loopviz.checks import finite
from loopviz.lessons.measurements import Measured
from loopviz.lessons.schema import Choice, ChoicePrediction, LinePrediction, NumberPrediction, Prediction

ROUNDING = 1e-9  # of a number, as a share of it: no difference
LINE_RIGHT = 0.85  # a line this near, on its own axis, has the shape of what was measured
LINE_CLOSE = 0.95


@dataclass(frozen=True)
class Verdict:
    """How a guess stands to what was measured.

    Attributes:
        right: whether it is right; None where nothing can be right: no choice is what was measured.
        score: how near it came, 0 to 1.
        grade: of a line or number: `same`, `close` or `far`; of others `right`, `wrong` or `none`.
    """

    right: bool | None
    score: float
    grade: str


def right_choice(predict: ChoicePrediction, measured: Mapping[str, Measured]) -> int | None:
    """The place of the one choice that is right; None where none is, or more than one."""
    rule, of = predict["right"]["rule"], predict["right"]["of"]
    if rule in ("largest", "smallest"):
        values = {name: float(measured[name]) for name in of}  # type: ignore[arg-type]  # numbers: `faults` has seen to it
        best = (max if rule == "largest" else min)(values.values())
        first = [name for name, value in values.items() if _equal(value, best)]
        fitting = [i for i, choice in enumerate(predict["choices"]) if first == [choice.get("value")]]
    else:
        fits = _between if rule == "between" else _is
        fitting = [i for i, choice in enumerate(predict["choices"]) if fits(choice, measured[of[0]])]
    return fitting[0] if len(fitting) == 1 else None


def _equal(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=ROUNDING, abs_tol=ROUNDING)


def _between(choice: Choice, value: Any) -> bool:
    return choice.get("low", -math.inf) <= value <= choice.get("high", math.inf)


def _is(choice: Choice, value: Any) -> bool:
    wanted = choice.get("value")
    if isinstance(value, str):
        return isinstance(wanted, str) and wanted.strip() == value.strip()
    if isinstance(value, bool) or isinstance(wanted, bool):
        return wanted is value
    return isinstance(wanted, (int, float)) and _equal(wanted, value)


def judge(predict: Prediction, measured: Mapping[str, Measured], guess: Any) -> Verdict | None:
    """How a guess stands to what was measured; None for what is no guess at all, for nothing in it is trusted.

    Args:
        guess: of a choice its place, of a blind one the name of a run, of a number a number, of a line a number a loop.
    """
    if predict["kind"] == "choice":
        if type(guess) is not int or not 0 <= guess < len(predict["choices"]):
            return None
        right = right_choice(predict, measured)
        return Verdict(None, 0.0, "none") if right is None else _verdict(guess == right)
    if predict["kind"] == "blind":
        return _verdict(guess == predict["find"]) if guess in predict["runs"] else None
    return _number(predict, measured, guess) if predict["kind"] == "number" else _line(predict, measured, guess)


def _verdict(right: bool) -> Verdict:
    return Verdict(right, float(right), "right" if right else "wrong")


def _number(predict: NumberPrediction, measured: Mapping[str, Measured], guess: Any) -> Verdict | None:
    value, number = finite(measured[predict["of"]]), finite(guess)
    if number is None or value is None:
        return None
    off = abs(number - value)
    near = off <= predict["near"] * (1 + ROUNDING)
    score = max(0.0, 1 - off / (predict["high"] - predict["low"]))
    return Verdict(near, score, "same" if off <= predict["step"] / 2 else "close" if near else "far")


def _line(predict: LinePrediction, measured: Mapping[str, Measured], guess: Any) -> Verdict | None:
    """By the mean distance over the loops there are, as a share of the axis' height; what lies beyond the axis is at its end."""
    curve: Any = measured[predict["of"]]
    drawn = [finite(one) for one in guess] if isinstance(guess, list) else []
    if len(drawn) != predict["loops"] or None in drawn:
        return None
    pairs = [(a, b) for a, b in zip(drawn, curve, strict=False) if a is not None and b is not None]
    if not pairs:
        return Verdict(None, 0.0, "none")
    off = sum(abs(height(predict, a) - height(predict, b)) for a, b in pairs) / len(pairs)
    score = 1 - off
    return Verdict(
        score >= LINE_RIGHT, score, "same" if score >= LINE_CLOSE else "close" if score >= LINE_RIGHT else "far"
    )


def height(predict: LinePrediction, value: float) -> float:
    """Where a number lies on a line's axis, 0 at its foot to 1 at its top."""
    low, high = predict["low"], predict["high"]
    value = min(max(value, low), high)
    if predict["scale"] == "log":
        return (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))
    return (value - low) / (high - low)
