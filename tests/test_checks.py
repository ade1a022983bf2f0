"""A refused value says what is wrong as data; its sentence is made of that, and nobody reads the sentence."""

from __future__ import annotations

import ast
import inspect
import math
import pickle
import re
import string

import pytest

from loopviz.app.controls.refusal import told
from loopviz.app.texts import text
from loopviz.app.texts.rules import TERMS_IN
from loopviz.checks import (
    ABSENT,
    RULES,
    TERMS,
    FieldError,
    Term,
    check_characters,
    check_counts,
    check_flag,
    check_number,
    check_one_of,
    check_real,
    check_some_of,
    check_whole,
    finite,
    inside,
    spelled,
)
from loopviz.paths import PACKAGE


def places(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


def test_a_sentence_names_the_field_the_value_and_the_rule():
    error = FieldError("loop_count", 0, "whole_from_one")
    assert str(error) == "loop_count=0: must be a whole number >= 1"
    assert str(FieldError("prompt", ABSENT, "prompt_empty")) == "prompt: empty; write at least one character"
    assert str(FieldError("", ABSENT, "logits_nan")).startswith("the model's logits")
    big = FieldError("loop_count", 10**50, "at_most_kept", shown="≥10^40", most="65,536")
    assert str(big) == "loop_count=≥10^40: must be <= 65,536; every one of them is kept account of"
    assert isinstance(error, ValueError)


def test_a_number_of_too_many_digits_is_said_without_words():
    """It was "10^400 and more", English on a Chinese page."""
    assert [spelled(value) for value in (10**400, -(10**400), 10**41 - 1)] == ["≥10^400", "≤-10^400", "≥10^40"]
    assert spelled([10**5000, 3]) == "[≥10^5000, 3]"
    assert told(FieldError("n", 10**400, "whole_from", low=1), "zh") == "n=≥10^400：须为不小于 1 的整数"


@pytest.mark.parametrize("value", [True, "1", None, math.nan, -math.inf, 10**400, [1]])
def test_what_no_float_can_hold_is_no_finite_number(value):
    assert finite(value) is None
    assert (finite(3), finite(-0.5)) == (3.0, -0.5)


def test_it_goes_to_another_process_whole_whatever_the_value():
    error = FieldError("loop_layers", lambda: None, "layer_outside", part="end", layer=9, n=4, last=3)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.field, again.rule, again.part) == (str(error), "loop_layers", "layer_outside", "end")
    assert again.places == {"layer": 9, "n": 4, "last": 3}


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_is_said_in_chinese_with_the_same_places(rule):
    said = text("zh", f"rule.{rule}")
    assert re.search(r"[\u4e00-\u9fff]", said)
    assert places(said) == places(RULES[rule])
    assert not places(said) & set(inspect.signature(FieldError).parameters), (
        "a place is not called as what an error is made of"
    )
    assert text("en", f"rule.{rule}") == RULES[rule]


def test_a_chinese_page_says_the_rule_in_chinese_and_english_as_it_was():
    error = FieldError("loop_damping", 2, "finite_in", range="(0, 1]")
    assert told(error, "zh") == "loop_damping=2：须为 (0, 1] 内的有限数"
    assert told(error, "en") == str(error) == "loop_damping=2: must be a finite number in (0, 1]"
    assert told(ValueError("as it is"), "zh") == "as it is"


RAISED = {"FieldError", "BeyondEnds", "EngineLost"}


def raised() -> list[tuple[str, str, set[str], bool]]:
    """Every `FieldError(...)` of the package: where, its rule, the places it fills, whether more may fill them."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in RAISED and len(node.args) > 2:
                rules = [part.value for part in ast.walk(node.args[2]) if isinstance(part, ast.Constant)]
                given = {word.arg for word in node.keywords if word.arg} - {"part", "shown", "also", "within"}
                more = any(word.arg is None for word in node.keywords)
                found += [(f"{path.name}:{node.lineno}", str(rule), given, more) for rule in rules if rule in RULES]
    return found


def test_whoever_refuses_fills_every_place_of_the_rule():
    assert len(raised()) > 25
    wrong = [where for where, rule, given, more in raised() if not more and not places(RULES[rule]) <= given]
    assert wrong == []


@pytest.mark.parametrize("term", TERMS)
def test_every_term_is_said_in_chinese_with_the_same_places(term):
    said = TERMS_IN["zh"][term]
    assert re.search(r"[\u4e00-\u9fff]", said)
    assert places(said) == places(TERMS[term])


def test_words_in_a_rule_s_place_are_said_in_the_pages_language():
    error = FieldError("loops", 3, "kind", kind=Term(("list", "null"), Term(("whole",))))
    assert str(error) == "loops=3: must be a list, each entry a whole number or null"
    assert told(error, "zh") == "loops=3：须为列表，每项为整数或空（null）"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_what_a_field_belongs_to_stands_before_it_and_other_fields_beside_it():
    error = FieldError("loop_count", 0, "whole_from_one").inside("mine")
    assert (str(error), error.field, error.within) == (
        "mine: loop_count=0: must be a whole number >= 1",
        "loop_count",
        "mine",
    )
    assert str(error.inside("text 'a'")) == f"text 'a': {error}"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    both = FieldError("text", ABSENT, "one_text_both", also=("file",))
    assert str(both) == "text, file: give exactly one of them; both are given"
    assert told(both, "zh") == "text, file：请恰好给其中一个；两个都给了"
    assert str(inside("mine", ValueError("as it is"))) == "mine: as it is"


@pytest.mark.parametrize(
    ("check", "told"),
    [
        (lambda: check_whole("n", 2.0, 1), "n=2.0: must be a whole number >= 1"),
        (lambda: check_whole("n", True, 0), "n=True: must be a whole number >= 0"),
        (lambda: check_whole("n", 10**5, 1, 9_999), "n=100000: must be a whole number from 1 to 9,999"),
        (lambda: check_whole("n", -(10**400), 1), "n=≤-10^400: must be a whole number >= 1"),
        (lambda: check_number("x", math.nan, 0), "x=nan: must be >= 0"),
        (lambda: check_number("x", 0, 0, above=True), "x=0: must be > 0"),
        (lambda: check_number("x", 2, 0, 1), "x=2: must be in 0..1"),
        (lambda: check_number("x", 1, 0, 1, below=True), "x=1: must be in [0, 1)"),
        (lambda: check_number("x", 0, 0, 1, above=True), "x=0: must be in (0, 1]"),
        (lambda: check_number("x", "1", 0, 1, above=True, below=True), "x='1': must be in (0, 1)"),
        (lambda: check_real("x", True, 0, 1), "x=True: must be a finite number from 0 to 1"),
        (lambda: check_one_of("way", ["up"], ("up", "down")), "way=['up']: must be one of 'up', 'down'"),
        (lambda: check_one_of("way", "u", ("up", "down"), quoted=False), "way='u': must be one of up, down"),
        (lambda: check_some_of("ways", "up", ("up",)), "ways='up': must be a tuple of some of 'up'"),
        (lambda: check_flag("on", 1), "on=1: must be True or False"),
        (lambda: check_counts("loops", (1, 1)), "loops=(1, 1): must be ascending whole numbers >= 1, at least one"),
        (lambda: check_counts("loops", (True,)), "loops=(True,): must be ascending whole numbers >= 1, at least one"),
        (
            lambda: check_characters("text", "a\ud83d"),
            "text: half a surrogate pair at character 1, which is no text; remove it",
        ),
    ],
)
def test_the_checks_name_field_value_and_rule(check, told):
    with pytest.raises(FieldError) as refused:
        check()
    assert str(refused.value) == told


def test_the_checks_let_pass_what_is_within():
    check_whole("n", 1, 1, 1)
    check_number("x", 0.5, 0, 1, above=True, below=True)
    check_number("x", 10**400, 0)
    check_real("x", 1, 0, 1, above=True)
    check_one_of("way", "up", ("up",))
    check_some_of("ways", [], ())
    check_flag("on", False)
    check_counts("loops", (0, 3), 0)
    check_characters("text", "从前 🙂")


READS = re.compile(
    r"str\(error\)\.(startswith|endswith|find|partition)|re\.\w+\([^)]*str\(error\)|[\"'] (not )?in str\(error\)"
)


def test_no_message_is_parsed():
    """Where an error's words must be read all the same, they are another library's."""
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if READS.search(path.read_text(encoding="utf-8"))
    }
    # torch and Rust libraries say in words alone that memory or the disk is full
    assert found == {"app/sessions/faults.py", "outputs.py"}
