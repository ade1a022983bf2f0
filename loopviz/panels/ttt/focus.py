"""Where a visitor of a TTT run looks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from loopviz.checks import check_one_of, check_whole


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

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> TTTFocus:
        """Of fields by name.

        Raises:
            ValueError: a field there is not, or a value it may not have, by name.
        """
        known = [field.name for field in fields(cls)]
        for name, value in said.items():
            if name not in known:
                raise ValueError(f"focus.{name}: no part of where one looks in a TTT run; there are {', '.join(known)}")
            if name == "lang":
                check_one_of("focus.lang", value, ("en", "zh"))
            elif value is not None or name == "layer":
                check_whole(f"focus.{name}", value, 0)
        return cls(**said)

    def selected(self, tokens: int) -> int | None:
        """The position looked at, of so many tokens; None where there is none yet."""
        if not tokens:
            return None
        return tokens - 1 if self.token is None or self.token >= tokens else self.token
