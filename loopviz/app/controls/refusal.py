"""A refusal in the visitor's language, beside the control that it is about."""

from __future__ import annotations

from typing import NamedTuple

from loopviz.app.texts import table
from loopviz.app.texts.rules import TERMS_IN
from loopviz.checks import FieldError, Term


class Problem(NamedTuple):
    """A refusal: the control it belongs to, what to say beside it, and a model of the page's list that has what is lacking."""

    control: str
    reason: str
    model: str = ""


def told(error: BaseException, lang: str) -> str:
    """An error's words: a field's in `lang`, any other's as they are."""
    if not isinstance(error, FieldError) or lang == "en":
        return str(error)
    terms = TERMS_IN[lang]
    places = {name: value.said(terms) if isinstance(value, Term) else value for name, value in error.places.items()}
    return error.subject("：") + table(lang)[f"rule.{error.rule}"].format(**places)
