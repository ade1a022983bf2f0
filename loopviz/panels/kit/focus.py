"""What the reader is looking at: shared by all panels of a page, so that a click on one selects in all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from loopviz.checks import is_number, is_whole

METRICS = ("cosine", "kl", "rel_delta", "contraction", "entropy", "rank", "norm")
LANGUAGES = ("en", "zh")
LENSES = ("direct", "exit")
MOST_PINS = 6
CONTEXTS = (2048, 8192, 32768, 131072)  # tokens a projection counts for
BATCHES = (1, 8, 64)  # sequences at once
_WHOLE = {"dims": (2, 3), "context": CONTEXTS, "batch": BATCHES}


@dataclass(frozen=True)
class Focus:
    """The selection of a page.

    Args:
        token: position selected, 0-based; None follows the newest token.
        block: looped block shown, 0-based.
        step: loop step pointed at, 1-based; None: none.
        metric: one of ``METRICS``; what the token x loop map shows.
        lang: one of ``LANGUAGES``; the language of every text in a figure.
        pins: positions kept in view beside the selected one, each once, at most ``MOST_PINS``.
        layer: physical layer shown where a panel shows one, 0-based; None: the block's first.
        lens: one of ``LENSES``; through which a state is read. None: as the model would really say it, where the run
            recorded that, else straight from the state (see :func:`loopviz.panels.kit.follower.lens_of`).
        dims: 2 or 3; dimensions a trajectory is drawn in.
        context: one of ``CONTEXTS``; tokens of context a projection to another model counts.
        batch: one of ``BATCHES``; sequences at once it counts.
        threshold: 0 to 1; what an exit gate would choose with it is shown. None: what it chose in the run.

    Raises:
        ValueError: a field out of these rules, by name.
    """

    token: int | None = None
    block: int = 0
    step: int | None = None
    metric: str = "cosine"
    lang: str = "en"
    pins: tuple[int, ...] = ()
    layer: int | None = None
    lens: str | None = None
    dims: int = 2
    context: int = 8192
    batch: int = 1
    threshold: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "pins", self._read_pins())
        for name, least, optional in (("token", 0, True), ("block", 0, False), ("step", 1, True), ("layer", 0, True)):
            value = getattr(self, name)
            if value is None and optional:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                none = " or None" if optional else ""
                raise ValueError(f"focus.{name}={value!r}: must be a whole number >= {least}{none}")
        self._check_threshold()
        for name, known in (("metric", METRICS), ("lang", LANGUAGES), ("lens", (*LENSES, None)), *_WHOLE.items()):
            value = getattr(self, name)
            if value not in known or (name in _WHOLE and type(value) is not int):  # 2.0 == 2 and True == 1
                raise ValueError(f"focus.{name}={value!r}: must be one of {', '.join(map(str, known))}")

    def _check_threshold(self) -> None:
        value = self.threshold
        if value is not None and not (is_number(value) and 0 <= value <= 1):
            raise ValueError(f"focus.threshold={value!r}: must be a number from 0 to 1 or None")

    def _read_pins(self) -> tuple[int, ...]:
        """The pins as a tuple (JSON brings a list); ValueError when they are none."""
        rule = f"must be at most {MOST_PINS} different whole numbers >= 0"
        if not isinstance(self.pins, (list, tuple)):
            raise ValueError(f"focus.pins={self.pins!r}: {rule}")
        whole = all(is_whole(pin) and pin >= 0 for pin in self.pins)
        if not whole or len(set(self.pins)) != len(self.pins) or len(self.pins) > MOST_PINS:
            raise ValueError(f"focus.pins={self.pins!r}: {rule}")
        return tuple(self.pins)

    def to_json(self) -> dict[str, Any]:
        """The focus as a plain dict."""
        return {**asdict(self), "pins": list(self.pins)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Focus:
        """Undo :meth:`to_json`; missing keys take their defaults.

        Raises:
            ValueError: not a mapping, an unknown key, or a value that does not fit.
        """
        if not isinstance(data, Mapping):
            raise ValueError(
                f"focus={data!r}: must be a mapping with the keys {', '.join(f.name for f in fields(cls))}"
            )
        unknown = sorted(str(key) for key in data if key not in {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(f"focus: unknown keys {', '.join(unknown)}")
        return cls(**data)

    def selected(self, tokens: int) -> int | None:
        """The position selected in a trace of ``tokens`` frames; None when that frame is not there (yet)."""
        position = tokens - 1 if self.token is None else self.token
        return position if 0 <= position < tokens else None
