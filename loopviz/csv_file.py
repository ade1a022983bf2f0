"""Tables as CSV, the same under every Python: what must stand in quotes (RFC 4180) does, a carriage return alone included.

Python's ``csv`` quotes one only from 3.11.9, 3.12.3 and 3.13 on, unless it is part of the line end; ``pandas`` writes with
``csv``. So rows are written with both characters as line end, and leave here with ``\\n``.
"""

from __future__ import annotations

import csv
import io
import os
from typing import TYPE_CHECKING, Any, Protocol

from loopviz import outputs

if TYPE_CHECKING:
    import pandas as pd

_BOTH = "\r\n"


class Writable(Protocol):
    """What takes text."""

    def write(self, text: str, /) -> Any: ...


class _Rows:
    """A file that takes rows ending in ``\\r\\n``, one a call, and keeps them with ``\\n``."""

    def __init__(self, file: Writable) -> None:
        self._file = file

    def write(self, row: str) -> Any:
        return self._file.write(row.removesuffix(_BOTH) + "\n")


def writer(file: Writable) -> Any:
    """As ``csv.writer(file)``; a file on disk must be opened with ``newline=""``."""
    return csv.writer(_Rows(file), lineterminator=_BOTH)


def table_bytes(table: pd.DataFrame) -> bytes:
    """``table`` as a CSV file, UTF-8, without its index; missing values are empty cells."""
    out = io.StringIO(newline="")
    table.to_csv(_Rows(out), index=False, lineterminator=_BOTH)
    return out.getvalue().encode()


def write_table(table: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """:func:`table_bytes` as a file, whole or not at all.

    Raises:
        OutputError: it cannot be written; an OSError, naming the file.
    """
    outputs.write(path, table_bytes(table))
