"""Where a model is on its way into a server, as a line for pages."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from loopviz.app.controls.model_name import short_name
from loopviz.app.sessions import bounds
from loopviz.app.texts import table, text

STEP = 5.0  # seconds after which it is said again for how long it has been loaded

Words = Callable[[str], str]  # a sentence, in a language


@dataclass(frozen=True)
class Status:
    """Where a model is: `state` waiting, importing, loading, ready, failed, or ask: its visitor is to agree first.

    step: while loading, a stage of the loader; once failed, why. share: how much of the stage is done, 0 to 1, or None.
    need: bytes of memory that reading the weights takes, once that is known; then also weights, how many there are, and stored, their
        bytes in the files.
    words: why it failed, in any language.
    began: when its loading began, by `time.monotonic`; usual: seconds that it took the last time, if that is known.
    precision: what a visitor wants it in; "": as the server has it. field: once it failed, the control that is about.
    """

    state: str
    name: str
    step: str = ""
    share: float | None = None
    need: int = 0
    weights: int = 0
    stored: int = 0
    layers: int = 0
    parameters: int = 0
    words: Words | None = field(default=None, compare=False)
    began: float | None = field(default=None, compare=False)
    usual: float | None = None
    precision: str = ""
    field: str = "model"

    def reason(self, lang: str) -> str:
        """Why it failed."""
        return self.step if self.words is None else self.words(lang)

    def tell(self, lang: str) -> str:
        """One line for the page."""
        key, step = f"model.{self.state}", self.reason(lang)
        if self.state == "loading":
            step = table(lang).get(f"stage.{step}", step)
            step += "" if self.share is None else f" {self.share:.0%}"
            step += self._sizes(lang) if self.need else ""
        name = self.name if self.state == "ask" else short_name(self.name)  # what is agreed to is said in full
        if self.precision:
            name = text(lang, "model.in", name=name, precision=self.precision)
        shown = {"name": name, "step": step, "reason": step}
        line = text(lang, key, **shown, layers=self.layers, params=_millions(self.parameters))
        return line + self._so_far(lang) if self.state in ("importing", "loading") else line

    def _sizes(self, lang: str) -> str:
        """What its weights are and take, as its files say."""
        stored, need = bounds.size(self.stored, lang), bounds.size(self.need, lang)
        return text(lang, "stage.need", params=_millions(self.weights), stored=stored, size=need)

    def _so_far(self, lang: str) -> str:
        """For how long it has been loaded, once that is worth a word, and how long it took the last time."""
        since = 0.0 if self.began is None else time.monotonic() - self.began
        said = text(lang, "model.since", seconds=f"{since // STEP * STEP:.0f}") if since >= STEP else ""
        if self.usual is not None and self.usual >= 1:
            said += text(lang, "model.usual", seconds=f"{self.usual:.0f}")
        return said


def _millions(n: int) -> str:
    """Millions to three digits, of which none before the point is left out: "0.0246", "135", "1,411"."""
    return f"{n / 1e6:,.0f}" if n >= 10**8 else f"{n / 1e6:.3g}"
