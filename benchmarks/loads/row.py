"""Rows of the table: what was measured, what was found, the bar."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        what: is measured, in words.
        found: in words.
        bar: that it is held against; "": none.
        met: whether it is; None where there is no bar.
    """

    what: str
    found: str
    bar: str = ""
    met: bool | None = None

    def line(self) -> str:
        """In Markdown."""
        met = "" if self.met is None else "yes" if self.met else "no"
        return f"| {self.what} | {self.found} | {self.bar} | {met} |"


HEAD = "| what | found | bar | met |\n|---|---|---|---|"


def below(what: str, value: float, bar: float, more: str = "") -> Row:
    """Seconds that are to be less than a bar.

    Args:
        more: what is to be known of them.
    """
    return Row(what, f"{value:.2f} s{more}", f"< {bar:g} s", value < bar)


def at_least(what: str, value: float, bar: float, more: str) -> Row:
    """A ratio that is to be a bar or more."""
    return Row(what, f"{value:.2f}x ({more})", f">= {bar:g}x", value >= bar)


def worst_over_mean(what: str, values: Sequence[float], bar: float) -> Row:
    """The worst of some waits against their mean."""
    mean, worst = statistics.fmean(values), max(values)
    found = f"{worst / mean:.2f}x ({worst:.2f} s / {mean:.2f} s)"
    return Row(what, found, f"<= {bar:g}x", worst <= bar * mean)
