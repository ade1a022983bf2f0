"""A CSV of prompts: what is read of it, and every bad row told by its number and column."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopviz.checks import FieldError
from loopviz.lab.reading.prompt_rows import PromptRow, place_of, prompt_rows


def rows(text: str) -> list[PromptRow]:
    return prompt_rows(text, "p.csv", "file")


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_prompts_are_read_whatever_parts_the_columns(mark: str) -> None:
    text = f'name{mark}Prompt{mark}note\na{mark}"Once, upon; a\ttime"{mark}x\n\n{mark}{mark}\nb{mark}"two\nlines ""here"""\n'
    assert rows(text) == [PromptRow(2, "Once, upon; a\ttime", "a"), PromptRow(5, 'two\nlines "here"', "b")]


def test_the_usual_ends_of_files_change_nothing() -> None:
    wanted = [PromptRow(2, "a b", ""), PromptRow(3, "从前 🙂", "")]
    for text in (
        "prompt\na b\n从前 🙂\n",
        "prompt\na b\n从前 🙂",
        "\nprompt\na b\n从前 🙂".removeprefix("\n"),
        "PROMPT \na b\n从前 🙂\n\n\n",
    ):
        assert rows(text) == wanted


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no prompt"),
        ("prompt\n", "holds no prompt"),
        ("prompt\n\n ,\n".replace(",", " "), "holds no prompt"),
        ("text,name\na,b\n", "'p.csv', row 1: there is no column prompt; there are text, name"),
        ("Once upon a time\nThe dog\n", "row 1: there is no column prompt"),
        ("name,prompt\na,one\nb,\nc,three\n", "'p.csv', row 3, column prompt: empty"),
        ("name,prompt\na,one\nb\n", "'p.csv', row 3, column prompt: empty"),
        ("name,prompt\na,one\nb, \t \n", "'p.csv', row 3, column prompt: empty"),
        ("name,prompt\na,one, two\n", "'p.csv', row 2: 3 cells under a header of 2"),
        ('prompt\n"one\ntwo\n', "'p.csv', row 2: cannot be read as CSV"),
        ('prompt\none\n"a" b\n', "'p.csv', row 3: cannot be read as CSV"),
    ],
)
def test_a_bad_row_is_told_by_its_number_and_column(text: str, says: str) -> None:
    with pytest.raises(FieldError) as refused:
        rows(text)
    assert says in str(refused.value)
    assert refused.value.field == "file"


def test_where_a_prompt_stands_is_told_for_the_model_s_own_refusals() -> None:
    assert place_of(PromptRow(7, "x", ""), "p.csv", "file") == "file='p.csv', row 7, column prompt"


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1), min_size=1, max_size=5
    )
)
def test_what_a_csv_writer_wrote_is_read_again(prompts: list[str]) -> None:
    out = io.StringIO(newline="")
    # all in quotes: Python's csv leaves a carriage return without them before 3.11.9
    csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(
        [["prompt"], *([f"x{prompt}"] for prompt in prompts)]
    )
    assert [row.prompt for row in rows(out.getvalue())] == [f"x{prompt}" for prompt in prompts]
