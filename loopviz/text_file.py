"""The one reader of text files: training, evaluation, measurements, sweeps and the command line read a file alike.

A file is UTF-8, or UTF-16 if it says so by its signature (Windows' "Unicode"). The signature is no part of the text, every
line end is ``\\n``, and documents end at lines that hold ``<|endoftext|>`` alone. Nothing else is changed. ``-`` is standard
input.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

END = "<|endoftext|>"  # alone on a line, it ends a document
STDIN = "-"
PIECE = 1 << 20  # characters of one document that are held at once
CHUNK = 1 << 16  # bytes read at once
_SIGNATURES = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


class TextError(ValueError):
    """A text that cannot be used, or a file that is none."""


@dataclass(frozen=True)
class Piece:
    """A document, or a part of a long one.

    Attributes:
        text: without the line breaks around a document.
        begins: a document begins with it.
        ends: a document ends with it.
        marked: ... at a line ``<|endoftext|>``, not because the text is over.
    """

    text: str
    begins: bool
    ends: bool
    marked: bool


def read_text(path: str | os.PathLike[str], name: str = "") -> str:
    """The whole text of a file.

    Args:
        name: what the file is called in messages; "": its path.

    Raises:
        TextError: it is not there, cannot be read, or is no text; with the file's name and the byte.
    """
    called = name or _called(path)
    try:
        return "".join(_decoded(path, called))
    except OSError as error:
        raise TextError(f"{called}: cannot be read ({error.strerror or error})") from None


def read_lines(path: str | os.PathLike[str]) -> Iterator[str]:
    """A file's lines, each with its ``\\n``, without holding more than one; raises as :func:`read_text` does, but OSError as it is."""
    rest = ""
    for part in _decoded(path, _called(path)):
        *lines, rest = (rest + part).split("\n")
        yield from (line + "\n" for line in lines)
    if rest:
        yield rest


def lines_of(text: str) -> Iterator[str]:
    """The lines of a text as :func:`read_lines` gives those of a file: only ``\\n`` ends one."""
    return (line for line in io.StringIO(text, newline="\n"))


def pieces(lines: Iterable[str]) -> Iterator[Piece]:
    """The documents of a text in order, empty ones left out, long ones in pieces cut at a line's end.

    Args:
        lines: each with its ``\\n``.
    """
    held: list[str] = []
    size = 0
    inside = False  # a piece of the present document has been given already
    for line in lines:
        if line.strip() == END:
            yield from _closed(held, inside, marked=True)
            held, size, inside = [], 0, False
            continue
        held.append(line)
        size += len(line)
        if size >= PIECE:
            yield Piece("".join(held), not inside, False, False)
            held, size, inside = [], 0, True
    yield from _closed(held, inside, marked=False)


def _closed(held: list[str], inside: bool, marked: bool) -> Iterator[Piece]:
    text = "".join(held).strip("\n")
    if text or inside:
        yield Piece(text, not inside, True, marked)


def _called(path: str | os.PathLike[str]) -> str:
    return "standard input" if os.fspath(path) == STDIN else os.fspath(path)


@lru_cache(maxsize=1)
def _stdin() -> bytes:
    """Standard input, kept: it can be read once only."""
    return sys.stdin.buffer.read()


def _open(path: str | os.PathLike[str]) -> BinaryIO:
    return io.BytesIO(_stdin()) if os.fspath(path) == STDIN else Path(path).open("rb")


def _decoded(path: str | os.PathLike[str], called: str) -> Iterator[str]:
    """The text in parts, line ends made one."""
    with _open(path) as file:
        head = file.read(CHUNK)
        mark, encoding = next(((m, e) for m, e in _SIGNATURES if head.startswith(m)), (b"", "utf-8"))
        decoder = codecs.getincrementaldecoder(encoding)()
        ends = io.IncrementalNewlineDecoder(None, translate=True)
        at, data = len(mark), head[len(mark) :] or file.read(CHUNK)  # `at`: of `data` in the file
        while True:
            begun = len(decoder.getstate()[0])
            try:
                text = decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                kind = "UTF-8 text" if encoding == "utf-8" else "UTF-8 text, nor UTF-16 as its signature says"
                where = at - begun + error.start
                raise TextError(f"{called}: not a {kind} (byte {where:,}: {error.reason}); save it as UTF-8") from None
            yield ends.decode(text, final=not data)
            if not data:
                return
            at += len(data)
            data = file.read(CHUNK)
