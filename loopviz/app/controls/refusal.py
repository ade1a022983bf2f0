"""A refusal in the visitor's language."""

from __future__ import annotations

from loopviz.app.texts import text
from loopviz.checks import FieldError


def told(error: BaseException, lang: str) -> str:
    """An error's words: a field's in `lang`, any other's as they are."""
    if not isinstance(error, FieldError) or lang == "en":
        return str(error)
    return error.subject("：") + text(lang, f"rule.{error.rule}", **error.places)
