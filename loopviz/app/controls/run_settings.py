"""What a visitor, a link, a preset or a command asks of a run, read once: every value of a control checked and typed.

Raw values come from anywhere, and nothing in them is trusted. :func:`parse` makes a :class:`RunSettings` of them, and says
what it could not take; who is handed a `RunSettings` need not look again. Free of torch, transformers and Gradio.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from loopviz.app.controls.controls import (
    BY_NAME,
    CONTROLS,
    PROMPT_LIMIT,
    Control,
    choices,
    defaults,
    renamed,
    wording,
)
from loopviz.app.controls.refusal import Problem, told
from loopviz.checks import ABSENT, FieldError, check_characters, finite, shortened

# Beside the controls in raw values: the model whose settings they are, where that may be another one than chosen;
# the controls the visitor has set on this page; and what of those gave way to a model that cannot have it, as it was.
SUITS, TOUCHED, GAVE = "suits", "touched", "gave"
HALVES = re.compile("[\ud800-\udfff]")  # of characters: no text can be written with them
MODEL_NAME_LIMIT = 300
MARKS_LIMIT = 4_000


class RunSettings(dict[str, Any]):
    """The settings of a run: a value for every control, each one that the control can hold. Never changed.

    Made by :func:`parse` (of anything) and :meth:`changed`. A dict, so that it can be sent as it is; what is made of it with
    `|` or `{**settings}` is raw again.
    """

    def _frozen(self, *_: Any, **__: Any) -> Any:
        raise TypeError("settings do not change; make others with changed(), or raw ones with |")

    __setitem__ = __delitem__ = update = pop = popitem = clear = setdefault = _frozen

    def __ior__(self, more: Any) -> Any:  # type: ignore[misc]  # not in place: `settings |= ...` gives another
        return self | more

    def __reduce__(self) -> tuple[Any, ...]:
        return RunSettings, (dict(self),)

    @property
    def model(self) -> str:
        """The name of the model."""
        return str(self["model"])

    @property
    def precision(self) -> str:
        """What the model is to be held in."""
        return str(self["precision"])

    @property
    def chat(self) -> bool:
        """Whether the prompt is sent as a chat message, in the model's own template."""
        return bool(self["template"] == "chat")

    @property
    def wording(self) -> dict[str, Any]:
        """The keywords of an engine that say how the prompt is put."""
        return wording(self)

    @property
    def max_new_tokens(self) -> int:
        """Tokens to add at most."""
        return int(self["max_new_tokens"])

    def changed(self, changes: Mapping[str, Any]) -> RunSettings:
        """With other values of some controls.

        Raises:
            FieldError: a control cannot hold one of them.
            KeyError: there is no such control.
        """
        return RunSettings(
            self | {name: read_control(BY_NAME[name], value) for name, value in renamed(changes).items()}
        )


def read_control(control: Control, value: Any) -> Any:
    """A control's value from what was sent for it, as the control's own type.

    Raises:
        FieldError: it is of another type, or outside the limits.
    """
    return _READERS[control.kind](control, value)


def _whole(control: Control, value: Any) -> int:
    number = finite(value)
    if number is None or number != int(number) or not control.low <= number <= control.high:
        ends: dict[str, Any] = {"low": int(control.low), "high": int(control.high)}
        raise FieldError(control.name, value, "whole_in", shown=shortened(value), **ends)
    return int(number)


def _real(control: Control, value: Any) -> float:
    number = finite(value)
    if number is None or not control.low <= number <= control.high:
        ends = {"low": f"{control.low:g}", "high": f"{control.high:g}"}
        raise FieldError(control.name, value, "number_in", shown=shortened(value), **ends)
    return number


def _choice(control: Control, value: Any) -> str:
    if not isinstance(value, str) or value not in choices(control):
        raise FieldError(control.name, value, "one_of", shown=shortened(value), choices=", ".join(choices(control)))
    return value


def _flag(control: Control, value: Any) -> bool:
    if not isinstance(value, bool):
        raise FieldError(control.name, value, "on_off", shown=shortened(value))
    return value


def _name(control: Control, value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value.strip()) <= MODEL_NAME_LIMIT:
        raise FieldError(control.name, ABSENT, "model_name", limit=MODEL_NAME_LIMIT)
    if HALVES.search(value):
        raise FieldError(control.name, ABSENT, "half_text", said=shortened(value))
    return value.strip()


def _long(control: Control, value: Any) -> str:
    if not isinstance(value, str):
        raise FieldError(control.name, value, "text_kind", shown=shortened(value))
    if len(value) > control.high:
        raise FieldError(control.name, ABSENT, "characters", n=f"{len(value):,}", most=f"{control.high:,}")
    check_characters(control.name, value)
    return value


_READERS = {"long": _long, "whole": _whole, "number": _real, "choice": _choice, "flag": _flag, "name": _name}


def parse(values: Mapping[str, Any]) -> tuple[RunSettings, list[FieldError]]:
    """Raw values, one for each control, as settings; and an error for each that its control cannot hold.

    A refused value is replaced by the control's default, so that the rest can still be checked.
    """
    if isinstance(values, RunSettings):
        return values, []
    found: dict[str, Any] = {}
    errors: list[FieldError] = []
    try:
        values = renamed(values)
    except FieldError as error:
        errors.append(error)
    for control in CONTROLS:
        try:
            found[control.name] = read_control(control, values.get(control.name))
        except FieldError as error:
            found[control.name] = control.default
            errors.append(error)
    return RunSettings(found), errors


@dataclass(frozen=True)
class Form:
    """The controls of a page, or of a card, as they stand: read once, and handed on.

    Attributes:
        settings: what they ask for; a default in place of what was refused.
        errors: what was refused.
        chosen: the model's name as it was typed; suits: the model whose settings they are.
        touched: the controls the visitor has set; gave: what of those gave way to a model that cannot have it, as it was.
    """

    settings: RunSettings
    errors: tuple[FieldError, ...] = ()
    chosen: str = ""
    suits: Any = None
    touched: tuple[str, ...] = ()
    gave: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, values: Mapping[str, Any] | Form) -> Form:
        """Of raw values, and what is beside the controls among them; where nothing is said, settings are the chosen model's."""
        if isinstance(values, Form):
            return values
        settings, errors = parse(values)
        beside = {"touched": values.get(TOUCHED, ()), "gave": values.get(GAVE) or {}}
        chosen = values.get("model")
        chosen = chosen if isinstance(chosen, str) else ""
        return cls(settings, tuple(errors), chosen, values.get(SUITS, settings.model), **beside)

    @property
    def model(self) -> str:
        """The name of the model that is chosen."""
        return str(self.settings["model"])

    @property
    def precision(self) -> str:
        """What that is to be held in."""
        return str(self.settings["precision"])

    @property
    def suited(self) -> bool:
        """Whether the settings are for the chosen model: it has been there, or a link has set them."""
        return bool(self.suits == self.model)

    def problems(self, lang: str) -> list[Problem]:
        """What was refused, in `lang`."""
        return [Problem(error.field, told(error, lang)) for error in self.errors]

    def changed(self, changes: Mapping[str, Any], **beside: Any) -> Form:
        """With other values of some controls, and other attributes of its own."""
        if not changes:
            return replace(self, **beside) if beside else self
        settings, errors = parse(self.settings | dict(changes))
        still = (error for error in self.errors if error.field not in changes)
        return replace(self, settings=settings, errors=(*still, *errors), **beside)


def clean(values: Mapping[str, Any], lang: str = "en") -> tuple[RunSettings, list[Problem]]:
    """As :func:`parse`, with what is to be said beside the controls in `lang`."""
    found, errors = parse(values)
    return found, [Problem(error.field, told(error, lang)) for error in errors]


def clean_name(name: Any, lang: str = "en") -> tuple[str, list[Problem]]:
    """A model's name without blanks around it, or a problem and the default's."""
    control = BY_NAME["model"]
    try:
        return read_control(control, name), []
    except FieldError as error:
        return control.default, [Problem(control.name, told(error, lang))]


def default_settings() -> RunSettings:
    """What a page starts with."""
    return RunSettings(defaults())


def check_prompt(prompt: Any, lang: str = "en") -> list[Problem]:
    """What is wrong with the prompt before any model sees it."""
    if not isinstance(prompt, str) or not prompt.strip():
        return [Problem("prompt", told(FieldError("prompt", ABSENT, "prompt_blank"), lang))]
    if len(prompt) > PROMPT_LIMIT:
        error = FieldError("prompt", ABSENT, "prompt_long", n=len(prompt), limit=PROMPT_LIMIT)
        return [Problem("prompt", told(error, lang))]
    return check_text("prompt", prompt, lang)


def check_text(name: str, typed: str, lang: str) -> list[Problem]:
    """What is wrong with the characters of a text that was typed beside the control `name`."""
    try:
        check_characters(name, typed)
    except FieldError as error:
        return [Problem(name, told(error, lang))]
    return []


def marks(word: Any) -> dict[str, Any]:
    """What the page's script says of the controls, as parts of raw values: which were touched, what gave way, and whose
    settings they hold, where it says so.

    Args:
        word: JSON, `{"touched": [name, ...], "gave": {name: value}, "suits": name}`; what is not well-formed is left out.
    """
    try:
        found = json.loads(word) if isinstance(word, str) and len(word) <= MARKS_LIMIT else {}
    except (ValueError, RecursionError):
        found = {}
    found = found if isinstance(found, dict) else {}
    touched, gave, suits = (found.get(key) for key in ("touched", "gave", "suits"))
    return {
        **({SUITS: suits} if isinstance(suits, str) else {}),
        TOUCHED: tuple(n for n in BY_NAME if n in touched) if isinstance(touched, list) else (),
        GAVE: {n: v for n, v in gave.items() if _is_value(n, v)} if isinstance(gave, dict) else {},
    }


def _is_value(name: str, value: Any) -> bool:
    """Whether a control could hold this value."""
    try:
        read_control(BY_NAME[name], value)
    except (KeyError, FieldError):
        return False
    return True
