"""What pages' scripts send, read: of JSON, of which nothing is trusted, what has the types that `loopviz.app.contract` states."""

from __future__ import annotations

import json
from typing import Any, get_args, get_origin, is_typeddict

from loopviz.app.controls import HALVES as HALVES
from loopviz.trace.typed import check_type, hints_of

QUESTION_LIMIT = 4_000  # characters of a question
# Keys taken as they are: what is no model's name, and no precision, is refused in words, by the rule of its control.
_REFUSED = ("model", "precision")
_NOTHING: Any = object()


def read(question: Any, kind: type, limit: int = QUESTION_LIMIT) -> dict[str, Any]:
    """What :func:`fitting` finds in a string of JSON; nothing when it is not what our script sends, or longer than `limit`.

    Args:
        kind: what is asked, a TypedDict of the contract.
        limit: characters.
    """
    if not isinstance(question, str) or len(question) > limit:
        return {}
    try:
        found = json.loads(question)
    except (ValueError, RecursionError):
        return {}
    return fitting(found, kind) if isinstance(found, dict) and not has_halves(found) else {}


def fitting(said: Any, kind: type) -> dict[str, Any]:
    """Of what a script said, the keys of `kind` whose values have their types; the others are as if nothing were said.

    Of a list the entries that fit, each of them read so where it is a mapping.
    """
    if not isinstance(said, dict):
        return {}
    found = {
        key: said[key] if key in _REFUSED else _fit(said[key], hint)
        for key, hint in hints_of(kind).items()
        if key in said
    }
    return {key: value for key, value in found.items() if value is not _NOTHING}


def _fit(value: Any, hint: Any) -> Any:
    if get_origin(hint) is list and isinstance(value, list):
        (item,) = get_args(hint)
        if is_typeddict(item):
            return [fitting(entry, item) for entry in value if isinstance(entry, dict)]
        return [entry for entry in (_fit(one, item) for one in value) if entry is not _NOTHING]
    try:
        check_type(value, hint, "")
    except ValueError:
        return _NOTHING
    return value


def has_halves(asked: Any) -> bool:
    """Whether half a character is somewhere in what was asked (JSON's own kinds): no answer could say it again."""
    return bool(HALVES.search(json.dumps(asked, ensure_ascii=False)))
