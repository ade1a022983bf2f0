"""Prompts out of a CSV file: a prompt a row, under a header. What cannot be used is told by row and column, as a spreadsheet counts."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass

from loopviz.checks import ABSENT, FieldError
from loopviz.csv_file import reader

COLUMN = "prompt"
NAME_COLUMN = "name"
_DELIMITERS = ",;\t"


@dataclass(frozen=True)
class PromptRow:
    """A prompt of a file.

    Attributes:
        number: of its row, from 1, the header's included: what a spreadsheet shows beside it.
        prompt: never blank.
        name: what the file calls it; "" without a column `name`.
    """

    number: int
    prompt: str
    name: str


def prompt_rows(text: str, called: str, field: str) -> list[PromptRow]:
    """The prompts of a CSV text, in order; rows of which every cell is empty are left out.

    The header names a column `prompt`; one called `name` is taken too, and others are not looked at. Columns are parted by commas,
    semicolons or tabs, whichever the header has.

    Args:
        text: the CSV.
        called: what it is called in messages: its file.
        field: the parameter that gave it.

    Raises:
        FieldError: no such column, a prompt that is missing, a row that is longer than the header, a quote that is never closed;
            with row and column.
    """
    rows = list(_numbered(text, called, field))
    if not rows:
        raise FieldError(field, called, "prompts_empty")
    number, header = rows[0]
    names = [cell.strip().lower() for cell in header]
    if COLUMN not in names:
        known = ", ".join(filter(None, names[:8])) or "-"
        raise FieldError(field, ABSENT, "prompts_no_column", shown=_place(called, number), column=COLUMN, known=known)
    at, named = names.index(COLUMN), names.index(NAME_COLUMN) if NAME_COLUMN in names else None
    found = []
    for number, cells in rows[1:]:
        if len(cells) > len(names):
            raise FieldError(
                field, ABSENT, "prompts_too_many", shown=_place(called, number), n=len(cells), most=len(names)
            )
        prompt = cells[at] if at < len(cells) else ""
        if not prompt.strip():
            raise FieldError(field, ABSENT, "prompts_blank", shown=_place(called, number, COLUMN))
        name = cells[named].strip() if named is not None and named < len(cells) else ""
        found.append(PromptRow(number, prompt, name))
    if not found:
        raise FieldError(field, called, "prompts_empty")
    return found


def _place(called: str, number: int, column: str = "") -> str:
    """Where something stands, as a message shows it."""
    return f"{called!r}, row {number}" + (f", column {column}" if column else "")


def place_of(row: PromptRow, called: str, field: str) -> str:
    """Where a prompt stands, for a refusal by the model: `file='p.csv', row 3, column prompt`."""
    return f"{field}={_place(called, row.number, COLUMN)}"


def _numbered(text: str, called: str, field: str) -> Iterator[tuple[int, list[str]]]:
    """Rows with their numbers, without those that are empty. A cell may hold line ends: rows are counted, not lines."""
    header = next((line for line in text.split("\n") if line.strip()), "")
    mark = max(_DELIMITERS, key=header.count)
    number = 0
    try:
        for number, cells in enumerate(reader(io.StringIO(text, newline=""), delimiter=mark, strict=True), 1):
            if any(cell.strip() for cell in cells):
                yield number, cells
    except csv.Error as error:
        raise FieldError(field, ABSENT, "prompts_broken", shown=_place(called, number + 1), said=error) from None
