"""How a message is written: as JSON, as Gradio's string, and edits of figures packed short.

The page's script undoes what is done here: `assets/web/core/messages.js`. What is in messages: :mod:`loopviz.app.contract`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from loopviz.figures.edits import pack as pack


def dumps(value: Any) -> str:
    """Compact JSON; numpy numbers as numbers, NaN and infinity as null."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY).decode()


_SWAP = str.maketrans("\"'", "'\"")


def wire(message: Mapping[str, Any]) -> str:
    """The message as it is sent: JSON with its two kinds of quotes exchanged.

    Gradio puts the string into JSON of its own, which would write every `"` as `\\"`.
    """
    return dumps(message).translate(_SWAP)


def unwire(message: str) -> dict[str, Any]:
    """What :func:`wire` has written, read again."""
    found: dict[str, Any] = orjson.loads(message.translate(_SWAP))
    return found
