"""How fast a run was: one definition of tokens a second, for the page, its panels, the summary and the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loopviz.trace.schema import Frame


@dataclass(frozen=True)
class Pace:
    """Tokens a second by the clock.

    The time is that from the end of the prompt's pass to the last token read, and all that went on meanwhile counts:
    the model, choosing words, recording them, and waiting for whoever took the frames. So nothing that is said or changed
    while a run is made, and no Stop, moves it but by the time it takes.

    Args:
        began: ``wall_ms`` of the last frame of the prompt; None when it is not known.
        tokens: read since then, one a pass.
        until: ``wall_ms`` of the last of them.
    """

    began: float | None = None
    tokens: int = 0
    until: float | None = None

    def plus(self, frame: Mapping[str, Any]) -> Pace:
        """With one more frame."""
        if frame["phase"] == "prompt":
            return Pace(frame["wall_ms"], 0, frame["wall_ms"])
        return Pace(self.began, self.tokens + 1, frame["wall_ms"])

    @property
    def rate(self) -> float | None:
        """Tokens a second; None before the first token after the prompt, and where the clock is not known."""
        if not self.tokens or self.began is None or self.until is None or self.until <= self.began:
            return None
        return 1000 * self.tokens / (self.until - self.began)


def tokens_per_second(frames: Sequence[Frame]) -> float | None:
    """The :class:`Pace` of a run's frames."""
    pace = Pace()
    for frame in frames:
        pace = pace.plus(frame)
    return pace.rate
