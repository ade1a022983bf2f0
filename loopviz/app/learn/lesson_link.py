"""A teacher's own lesson in a link: its JSON, packed, behind the address's #, which no browser sends; and links as QR codes.

The page that is opened by it asks its server to unpack and check it.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from typing import Any

from loopviz.lessons.schema import LONGEST_FILE

VERSION = "1"
MOST_CHARACTERS = 24_000  # of the word: browsers and mail programs take an address that long
MOST_IN_CODE = (
    2_300  # bytes of an address: a QR code of the usual correction holds no more, and a phone reads none larger
)
_MOST_BYTES = 4 * LONGEST_FILE


def pack(source: str) -> str | None:
    """The word of a link that holds a lesson (its file's text, which is one); None where it would be too long."""
    short = json.dumps(json.loads(source), ensure_ascii=False, separators=(",", ":"))
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(short.encode()) + packer.flush()
    word = VERSION + base64.urlsafe_b64encode(packed).rstrip(b"=").decode()
    return word if len(word) <= MOST_CHARACTERS else None


def unpack(word: Any) -> str | None:
    """The text of the lesson that a word holds; None of what is no such word. It is not checked yet. Never raises."""
    if not isinstance(word, str) or word[:1] != VERSION or len(word) > MOST_CHARACTERS:
        return None
    if not re.fullmatch(r"[A-Za-z0-9_-]*", word, re.ASCII):
        return None
    unpacker = zlib.decompressobj(-15)
    try:
        raw = unpacker.decompress(base64.urlsafe_b64decode(word[1:] + "=" * (-len(word[1:]) % 4)), _MOST_BYTES)
        return raw.decode() if unpacker.eof and not unpacker.unused_data else None
    except (ValueError, zlib.error):
        return None


def code_of(url: str) -> tuple[int, str] | None:
    """A link as a QR code: how many squares it is wide, its quiet border included, and its dark ones as the path of a drawing.

    None of what is too long for one.
    """
    import segno

    if not url or len(url.encode()) > MOST_IN_CODE:
        return None
    code = segno.make(url, micro=False, error="m", boost_error=False)
    rows = list(code.matrix_iter(border=4))
    dark = [f"M{x} {y}h1v1h-1z" for y, row in enumerate(rows) for x, square in enumerate(row) if square]
    return len(rows), "".join(dark)
