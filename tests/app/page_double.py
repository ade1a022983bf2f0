"""Messages as the page's script reads them: the other half of `loopviz.app.explore.run.wire` and `pack`."""

from __future__ import annotations

import json
from typing import Any

_SWAP = str.maketrans("\"'", "'\"")


def unwire(text: str) -> dict[str, Any]:
    """A message from what is sent; anything JSON does not know fails."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text.translate(_SWAP), parse_constant=refuse)


def unpack(packed: list[list[Any]]) -> list[dict[str, Any]]:
    """Ops from their packed form."""
    ops, path = [], []
    for code, shared, *rest, value in packed:
        path = [*path[:shared], *rest]
        ops.append({"op": ("set", "append", "splice")[code], "path": path, "value": value})
    return ops
