"""How fast a run was, and with how many others it shared its passes: one definition, for the page, its panels, the summary and the command line."""

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


@dataclass(frozen=True)
class Sharing:
    """With how many others a run shared the passes that read its generated tokens, itself counted.

    Who tells a time of a shared pass tells this too: what it took is of all that the runs did in it together.

    Args:
        passes: of which it is known: a file before version 6 does not say.
        runs: in all of these together.
    """

    passes: int = 0
    runs: int = 0

    def plus(self, frame: Mapping[str, Any]) -> Sharing:
        """With one more frame."""
        if frame["phase"] == "prompt" or frame["pass_runs"] is None:
            return self
        return Sharing(self.passes + 1, self.runs + frame["pass_runs"])

    @property
    def shared(self) -> bool:
        """Whether any pass was."""
        return self.runs > self.passes

    @property
    def mean(self) -> float | None:
        """Runs a pass; None where it is not known of any."""
        return self.runs / self.passes if self.passes else None


def sharing_of(frames: Sequence[Frame]) -> Sharing:
    """The :class:`Sharing` of a run's frames."""
    sharing = Sharing()
    for frame in frames:
        sharing = sharing.plus(frame)
    return sharing


def tokens_per_second(frames: Sequence[Frame]) -> float | None:
    """The :class:`Pace` of a run's frames."""
    pace = Pace()
    for frame in frames:
        pace = pace.plus(frame)
    return pace.rate
