"""What a person writes in a grid file is what she gets, or she is told the line."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from loopviz.lab.grid_yaml import GridError, meant_as_boolean, read_yaml


def read(text: str):
    return read_yaml(text, Path("grid.yaml"))[0]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("5e-4", 5e-4),
        ("5.0e-4", 5e-4),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("-2", -2),
        ("1_000", 1000),
        ("0x1F", 31),
        ("0o17", 15),
        ("0", 0),
        ("0.50", 0.5),
        ("-.inf", -math.inf),
        ("true", True),
        ("False", False),
        ("", None),
        ("null", None),
        # words, whatever YAML 1.1 makes of them
        ("yes", "yes"),
        ("No", "No"),
        ("on", "on"),
        ("off", "off"),
        ("y", "y"),
        ("1:30", "1:30"),
        ("2024-01-31", "2024-01-31"),
        ("=", "="),
        ("0b11", "0b11"),
        ("'010'", "010"),
        ('"5e-4"', "5e-4"),
        ("nan", "nan"),
    ],
)
def test_case_grid_numbers_a_plain_value_is_what_was_written(written, meant):
    found = read(f"value: {written}")["value"]
    assert found == meant
    assert type(found) is type(meant)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: 010", "grid.yaml, line 2: 010: a number that begins with 0 may mean eights; write 10, or 0o10"),
        ("a: [1,000]", "line 1: 000: a number that begins with 0"),
        ("a: 007.5", "line 1: 007.5: a number that begins with 0"),
        ("a: 1\nb: 2\na: 3", "line 3: a: stands twice, on line 1 too"),
        ("x:\n  a: 1\n  'a': 2", "line 3: a: stands twice"),
        ("a: 1\n? [b]\n: 2", "line 2: a key must be a word"),
        ("a: [", "not YAML"),
        ("a: 1\n---\nb: 2", "not YAML"),
        ("a: &a [*a]", "not YAML"),
        ("a: !!python/object:os.system {}", "not YAML"),
        ("a: !!int word", "line 1: word: not a number"),
        ("a: !!bool word", "not YAML that can be read"),
        (f"a: {'9' * 5000}", "not a number that can be read"),
        ("[" * 5000, "nested too deeply"),
        ("a:\n\t- 1", "not YAML"),
    ],
)
def test_case_grid_numbers_what_can_be_meant_in_two_ways_is_refused_with_its_line(text, says):
    with pytest.raises(GridError) as refused:
        read(text)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_keys_are_the_words_that_were_written():
    assert list(read("no: 1\n1.50: 2\n~: 3\n2024-01-31: 4\n0x10: 5")) == ["no", "1.50", "~", "2024-01-31", "0x10"]


def test_merge_keys_fill_in_and_what_is_beside_them_wins():
    text = "own: &own {slots: 2, damping: 0.5}\nother: {<<: *own, damping: 1}\n"
    assert read(text)["other"] == {"slots": 2, "damping": 1}
    assert read("a: &a {x: 1}\nb: &b {x: 2, y: 3}\nc: {<<: [*a, *b]}")["c"] == {"x": 1, "y": 3}


def test_every_key_has_its_line():
    lines = read_yaml("a: 1\nb:\n  c: {d: 2}\n", Path("g"))[1]
    assert lines == {("a",): 1, ("b",): 2, ("b", "c"): 3, ("b", "c", "d"): 3}


def test_booleans_that_are_meant():
    assert [meant_as_boolean(word) for word in ("yes", "No", "ON", "off")] == [True, False, True, False]
    assert meant_as_boolean("maybe") == "maybe"
    assert meant_as_boolean(1) == 1
