"""What pages' scripts send, read: strings of JSON of which nothing is trusted."""

from __future__ import annotations

import json
from typing import Any

from loopviz.app import controls as st

QUESTION_LIMIT = 4_000  # characters of a question


def read(question: Any, limit: int = QUESTION_LIMIT) -> dict[str, Any]:
    """The question as a dict; an empty one when it is not what our script sends, or longer than `limit` characters."""
    if not isinstance(question, str) or len(question) > limit:
        return {}
    try:
        found = json.loads(question)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) and not has_halves(found) else {}


def has_halves(asked: Any) -> bool:
    """Whether half a character is somewhere in what was asked (JSON's own kinds): no answer could say it again."""
    return bool(st.HALVES.search(json.dumps(asked, ensure_ascii=False)))
