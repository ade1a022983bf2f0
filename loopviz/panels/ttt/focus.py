"""Where a visitor of a TTT run looks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TTTFocus:
    """A place in a TTT run.

    Attributes:
        layer: 0-based.
        head: None: the mean over the layer's heads.
        token: a position; None: the newest.
        lang: "en" or "zh".
    """

    layer: int = 0
    head: int | None = None
    token: int | None = None
    lang: str = "en"

    def selected(self, tokens: int) -> int | None:
        """The position looked at, of so many tokens; None where there is none yet."""
        if not tokens:
            return None
        return tokens - 1 if self.token is None or self.token >= tokens else self.token
