"""The rules that say what kind of word a token is."""

from __future__ import annotations

import re

import pytest

from loopviz.lab.reading.token_classes import CLASSES, RULES, token_classes


def classes(text: str) -> dict[str, str]:
    """By piece; pieces are words with the space before them, and single characters elsewhere."""
    pieces = re.findall(r" ?[A-Za-z0-9']+|\s|.", text)
    assert "".join(pieces) == text
    return {piece.strip() or piece: name for piece, name in zip(pieces, token_classes(pieces), strict=True)}


def test_each_class_by_its_rule() -> None:
    found = classes("The dog saw Tom, who had 3 cats and 1st prize!")
    expected = {
        "The": "function",
        "dog": "other",
        "saw": "other",
        "Tom": "name",
        ",": "punctuation",
        "who": "function",
        "had": "function",
        "3": "number",
        "cats": "other",
        "and": "function",
        "1st": "number",
        "prize": "other",
        "!": "punctuation",
    }
    assert found == expected
    assert set(found.values()) == set(CLASSES)


def test_a_capital_at_the_beginning_of_a_sentence_is_no_name_unless_it_is_one_elsewhere() -> None:
    assert classes("Dogs bark. Cats meow")["Dogs"] == "other"
    assert classes("Dogs bark. Cats meow")["Cats"] == "other"
    assert classes('She said: "Hello you"')["Hello"] == "other"
    assert classes("Lily ran. Then came Lily.")["Lily"] == "name"


@pytest.mark.parametrize(
    ("text", "word", "name"),
    [("we don't go", "don't", "function"), ("the cat's ear", "cat's", "other"), ("see Tom's cat", "Tom's", "name")],
)
def test_endings_do_not_hide_a_word(text: str, word: str, name: str) -> None:
    assert classes(text)[word] == name


def test_pieces_of_a_word_have_its_class() -> None:
    assert token_classes(["see", " T", "om", "'s", " c", "at", " 1", ",", "000"]) == [
        "other", "name", "name", "name", "other", "other", "number", "punctuation", "number",
    ]  # fmt: skip


def test_chinese_tokens_are_looked_up_as_they_are() -> None:
    assert token_classes(["小", "狗", "的", "我们", "。", "3"]) == [
        "other", "other", "function", "function", "punctuation", "number",
    ]  # fmt: skip


def test_a_token_inside_a_character_waits_for_it_and_the_rest_is_other() -> None:
    assert token_classes(["", "", "🐕", " ", "\n", ""]) == ["punctuation"] * 3 + ["other"] * 3
    # an end mark is no punctuation, and a sentence begins after it
    assert token_classes(["see", "<|end|>", "Dogs", " bark"], [False, True, False, False]) == ["other"] * 4


def test_the_rules_are_said_in_both_languages() -> None:
    assert set(RULES) == {"en", "zh"}
