"""How a message is written: as JSON, as Gradio's string, and edits of figures packed short.

The page's script undoes what is done here: `assets/web/core/messages.js`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from loopviz.panels import Op


def dumps(value: Any) -> str:
    """Compact JSON; numpy numbers as numbers, NaN and infinity as null."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY).decode()


def pack(ops: list[Op]) -> list[list[Any]]:
    """Ops as short as they can simply be written: `[code, shared, *rest of the path, value]`.

    `code` 0 sets, 1 appends, 2 splices; `shared` counts the path's leading parts that are those of the op before.
    """
    packed: list[list[Any]] = []
    before: list[Any] = []
    for op in ops:
        path = op["path"]
        shared = 0
        while shared < min(len(path), len(before)) and path[shared] == before[shared]:
            shared += 1
        packed.append([CODES[op["op"]], shared, *path[shared:], op["value"]])
        before = path
    return packed


CODES = {"set": 0, "append": 1, "splice": 2}
_SWAP = str.maketrans("\"'", "'\"")


def wire(message: Mapping[str, Any]) -> str:
    """The message as it is sent: JSON with its two kinds of quotes exchanged.

    Gradio puts the string into JSON of its own, which would write every `"` as `\\"`.
    """
    return dumps(message).translate(_SWAP)
