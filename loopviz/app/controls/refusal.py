"""A refusal in the visitor's language."""

from __future__ import annotations

from loopviz.app.texts import table
from loopviz.app.texts.rules import TERMS_IN
from loopviz.checks import FieldError, Term


def told(error: BaseException, lang: str) -> str:
    """An error's words: a field's in `lang`, any other's as they are."""
    if not isinstance(error, FieldError) or lang == "en":
        return str(error)
    terms = TERMS_IN[lang]
    places = {name: value.said(terms) if isinstance(value, Term) else value for name, value in error.places.items()}
    return error.subject("：") + table(lang)[f"rule.{error.rule}"].format(**places)
