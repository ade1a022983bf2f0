"""Messages as the pages' scripts read them, each checked against the contract; tests/browser/test_messages.py holds it to the scripts."""

from __future__ import annotations

import json
from typing import Any

from loopviz.app import contract
from loopviz.figures.edits import CODES, Op

_ANY = tuple(dict.fromkeys(kind for kinds in contract.MESSAGES.values() for kind in kinds))
_NAMES = {code: name for name, code in CODES.items()}
_SWAP = str.maketrans("\"'", "'\"")


def unwire(text: str) -> dict[str, Any]:
    """A message from what is sent; one that no page hears fails."""
    message = unwire_any(text)
    contract.check(message, _ANY, "message")
    return message


def unwire_any(text: str) -> dict[str, Any]:
    """As :func:`unwire`, of messages that a test has made up; anything JSON does not know fails."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text.translate(_SWAP), parse_constant=refuse)


def unpack(packed: list[list[Any]]) -> list[Op]:
    """Ops from their packed form."""
    ops: list[Op] = []
    path: list[str | int] = []
    for code, shared, *rest, value in packed:
        path = [*path[:shared], *rest]
        ops.append({"op": _NAMES[code], "path": path, "value": value})
    return ops
