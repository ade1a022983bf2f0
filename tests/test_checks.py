"""A refused value says what is wrong as data; its sentence is made of that, and nobody reads the sentence."""

from __future__ import annotations

import ast
import pickle
import re
import string

import pytest

from loopviz.app.controls.refusal import told
from loopviz.app.texts import text
from loopviz.checks import ABSENT, RULES, FieldError
from loopviz.paths import PACKAGE


def places(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


def test_a_sentence_names_the_field_the_value_and_the_rule():
    error = FieldError("loop_count", 0, "whole_from_one")
    assert str(error) == "loop_count=0: must be a whole number >= 1"
    assert str(FieldError("prompt", ABSENT, "prompt_empty")) == "prompt: empty; write at least one character"
    assert str(FieldError("", ABSENT, "logits_nan")).startswith("the model's logits")
    big = FieldError("loop_count", 10**50, "at_most_kept", shown="10^40 and more", most="65,536")
    assert str(big) == "loop_count=10^40 and more: must be <= 65,536; every one of them is kept account of"
    assert isinstance(error, ValueError)


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
    assert text("en", f"rule.{rule}") == RULES[rule]


def test_a_chinese_page_says_the_rule_in_chinese_and_english_as_it_was():
    error = FieldError("loop_damping", 2, "finite_in", range="(0, 1]")
    assert told(error, "zh") == "loop_damping=2：须为 (0, 1] 内的有限数"
    assert told(error, "en") == str(error) == "loop_damping=2: must be a finite number in (0, 1]"
    assert told(ValueError("as it is"), "zh") == "as it is"


def raised() -> list[tuple[str, str, set[str], bool]]:
    """Every `FieldError(...)` of the package: where, its rule, the places it fills, whether more may fill them."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "FieldError" and len(node.args) > 2:
                rules = [part.value for part in ast.walk(node.args[2]) if isinstance(part, ast.Constant)]
                given = {word.arg for word in node.keywords if word.arg} - {"part", "shown"}
                more = any(word.arg is None for word in node.keywords)
                found += [(f"{path.name}:{node.lineno}", str(rule), given, more) for rule in rules if rule in RULES]
    return found


def test_whoever_refuses_fills_every_place_of_the_rule():
    assert len(raised()) > 25
    wrong = [where for where, rule, given, more in raised() if not more and not places(RULES[rule]) <= given]
    assert wrong == []


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
