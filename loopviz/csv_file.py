"""Tables as CSV, the same under every Python: what must stand in quotes (RFC 4180) does, a carriage return alone included.

Python's ``csv`` quotes one only from 3.11.9, 3.12.3 and 3.13 on, unless it is part of the line end; ``pandas`` writes with
``csv``. So rows are written with both characters as line end, and leave here with ``\\n``.

A spreadsheet computes a cell that begins with ``=``, ``+``, ``-`` or ``@``, and a model may write such text. So a cell of
text that begins so, also after tabs, line ends and NULs, or in full width, or with a tab or a carriage return before anything
that is not white space, is written with one ``'`` before it; so is one that has such a beginning after any number of
``'``, so that the rule can be undone: one ``'`` is taken off wherever what follows it is covered by the rule.
:func:`read_table` and :func:`reader` do. Numbers are numbers, and stay as they are.

A NUL stands in its cell as it is, and programs differ about it: Python's ``csv`` refuses to write and to read it before
3.11, ``pandas`` ends the cell there before 3. So it is spelt with other characters while those write or read.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from loopviz import outputs

if TYPE_CHECKING:
    import pandas as pd

_BOTH = "\r\n"
_COMPUTED = re.compile(r"'*(?:[\0\t\r\n]*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r](?=\s*\S))")


_SPELT = "\ue000"  # begins what stands for a NUL, or for itself


class Writable(Protocol):
    """What takes text."""

    def write(self, text: str, /) -> Any: ...


def neutral(cell: Any) -> Any:
    """A cell as it is written: text that a spreadsheet might compute has a ``'`` before it; else it is what it was."""
    return f"'{cell}" if isinstance(cell, str) and _COMPUTED.match(cell) else cell


def restored(cell: Any) -> Any:
    """Undo :func:`neutral`."""
    return cell[1:] if isinstance(cell, str) and cell[:1] == "'" and _COMPUTED.match(cell[1:]) else cell


def _spell(cell: Any) -> Any:
    """A text without a NUL, told apart from every other text; whatever else as it is."""
    return cell.replace(_SPELT, f"{_SPELT}0").replace("\0", f"{_SPELT}1") if isinstance(cell, str) else cell


def _spelt(cell: Any) -> Any:
    """Undo :func:`_spell`."""
    return cell.replace(f"{_SPELT}1", "\0").replace(f"{_SPELT}0", _SPELT) if isinstance(cell, str) else cell


class _Rows:
    """A file that takes rows ending in ``\\r\\n``, one a call, and keeps them with ``\\n``."""

    def __init__(self, file: Writable) -> None:
        self._file = file

    def write(self, row: str) -> Any:
        return self._file.write(_spelt(row.removesuffix(_BOTH)) + "\n")


class Writer:
    """As ``csv.writer(file)``, with cells as :func:`neutral` gives them; a file on disk must be opened with ``newline=""``."""

    def __init__(self, file: Writable) -> None:
        self._writer = csv.writer(_Rows(file), lineterminator=_BOTH)

    def writerow(self, row: Iterable[Any]) -> None:
        """Write one row."""
        self._writer.writerow([_spell(neutral(cell)) for cell in row])

    def writerows(self, rows: Iterable[Iterable[Any]]) -> None:
        """Write rows."""
        for row in rows:
            self.writerow(row)


def writer(file: Writable) -> Writer:
    """What writes rows to ``file``."""
    return Writer(file)


def reader(file: Iterable[str], **options: Any) -> Iterator[list[str]]:
    """As ``csv.reader(file, **options)``, with cells as they were before they were written."""
    return ([restored(_spelt(cell)) for cell in row] for row in csv.reader(map(_spell, file), **options))


def dict_reader(file: Iterable[str]) -> Iterator[dict[str, str]]:
    """As ``csv.DictReader(file)``, with names and cells as they were before they were written."""
    rows = reader(file)
    header = next(rows, [])
    return (dict(zip(header, row, strict=False)) for row in rows)


def table_bytes(table: pd.DataFrame) -> bytes:
    """``table`` as a CSV file, UTF-8, without its index; missing values are empty cells."""
    out = io.StringIO(newline="")
    shown = _each_text(table, lambda cell: _spell(neutral(cell)))
    shown.to_csv(_Rows(out), index=False, lineterminator=_BOTH)
    return out.getvalue().encode()


def read_table(source: str | os.PathLike[str] | bytes, **options: Any) -> pd.DataFrame:
    """The table in a CSV file (its path, or its bytes) of this module's, its texts as they were.

    Args:
        source: the file, UTF-8.
        options: of ``pandas.read_csv``; without any, ``NA`` and the like are texts, and empty cells are missing.
    """
    import pandas as pd

    options = {"keep_default_na": False, "na_values": [""], **options}
    text = _spell((source if isinstance(source, bytes) else Path(source).read_bytes()).decode())
    return _each_text(pd.read_csv(io.StringIO(text, newline=""), **options), lambda cell: restored(_spelt(cell)))


def _each_text(table: pd.DataFrame, change: Any) -> pd.DataFrame:
    """``table`` with every text of it, its columns' names included, changed."""
    import pandas as pd

    changed = table.copy(deep=False)
    for place, kind in enumerate(table.dtypes):
        if not pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_datetime64_any_dtype(kind):
            column = [change(cell) for cell in table.iloc[:, place]]
            changed.isetitem(place, pd.Series(column, index=table.index, dtype=object))
    changed.columns = [change(name) for name in table.columns]
    return changed


def write_table(table: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """:func:`table_bytes` as a file, whole or not at all.

    Raises:
        OutputError: it cannot be written; an OSError, naming the file.
    """
    outputs.write(path, table_bytes(table))
