"""A refusal in the visitor's language, beside the control that it is about."""

from __future__ import annotations

from typing import NamedTuple

from loopviz.app.texts import table
from loopviz.app.texts.checkpoints import WORDS_IN
from loopviz.app.texts.rules import TERMS_IN
from loopviz.checks import RuleError, Words


class Problem(NamedTuple):
    """A refusal: the control it belongs to, what to say beside it, and a model of the page's list that has what is lacking."""

    control: str
    reason: str
    model: str = ""


def told(error: BaseException, lang: str) -> str:
    """An error's words: one that a rule words in `lang`, any other as it is."""
    if not isinstance(error, RuleError) or lang == "en":
        return str(error)
    terms = {**TERMS_IN[lang], **WORDS_IN[lang]}
    places = {name: value.said(terms) if isinstance(value, Words) else value for name, value in error.places.items()}
    if (
        isinstance(error.__cause__, RuleError) and "said" in places
    ):  # what our own configuration says of a file's values
        places["said"] = told(error.__cause__, lang)
    return error.subject("：") + table(lang)[f"{error.texts}.{error.rule}"].format(**places)
