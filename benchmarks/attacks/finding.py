"""What a row of the table says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass
class Finding:
    """A row: what was tried, the bar, what was found; and every failure, in words that let it be tried again."""

    tried: str
    bar: str
    found: str
    wrong: list[str] = field(default_factory=list)

    def line(self) -> str:
        """As a row of the table."""
        mark = "" if not self.wrong else f" **({len(self.wrong)} not so)**"
        return f"| {self.tried} | {self.bar} | {self.found}{mark} |"


@dataclass(frozen=True)
class Options:
    """What the command line asks for.

    Attributes:
        trials: of each kind, where a row has trials; None: the row's own.
        seed: of what is drawn at random.
        say: takes a line about how far it is.
    """

    trials: int | None = None
    seed: int = 1
    say: Callable[[str], None] = print


def most(numbers: Sequence[float]) -> float:
    """The largest; 0 of none."""
    return max(numbers, default=0.0)
