"""A lesson file that is wrong: everything that is, at once, by its field, in the visitor's language."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopviz.app.controls.refusal import told
from loopviz.checks import RULES
from loopviz.lessons.bundled import FOLDER
from loopviz.lessons.faults import MOST_FAULTS, faults_of, is_arrows, read_lesson
from loopviz.lessons.json_schema import json_schema
from loopviz.lessons.schema import LONGEST_FILE, Lesson
from loopviz.lessons.sentences import filled
from loopviz.trace.typed import check_type
from tests.lessons.toy import step, toy

FILES = sorted(FOLDER.glob("*.json"))


def put(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Write a value at a path."""

    def change(lesson: dict[str, Any]) -> None:
        *way, last = [int(key) if key.isdigit() else key for key in re.split(r"[.\[\]]+", path.replace("]", ""))]
        place: Any = lesson
        for key in way:
            place = place[key]
        place[last] = value

    return change


def cut(path: str) -> Callable[[dict[str, Any]], None]:
    """Leave out what is at a path."""

    def change(lesson: dict[str, Any]) -> None:
        *way, last = [int(key) if key.isdigit() else key for key in re.split(r"[.\[\]]+", path.replace("]", ""))]
        place: Any = lesson
        for key in way:
            place = place[key]
        del place[last]

    return change


# What is done to the toy, the field that is told, and the rule that it breaks.
MISTAKES: dict[str, tuple[Callable[[dict[str, Any]], None], str, str]] = {
    "a field is missing": (cut("title"), "title", "missing"),
    "one language is missing": (cut("steps[0].question.zh"), "steps[0].question.zh", "missing"),
    "a sentence is empty": (put("steps[0].why.zh", "  "), "steps[0].why.zh", "lesson_blank"),
    "a field that is none": (put("steps[0].hint", "x"), "steps[0].hint", "not_a_field"),
    "another type": (put("minutes", "five"), "minutes", "kind"),
    "a number outside its ends": (put("minutes", 500), "minutes", "whole_in"),
    "a kind of prediction that is none": (put("steps[0].predict.kind", "essay"), "steps[0].predict.kind", "one_of"),
    "a measurement that is none": (put("steps[0].measure.loops.what", "mood"), "steps[0].measure.loops.what", "one_of"),
    "a measurement that is not made": (put("steps[0].predict.right.of", ["x"]), "steps[0].predict.right.of[0]", "lesson_measure"),
    "a run that is not there": (put("steps[0].measure.loops.run", "walk"), "steps[0].measure.loops.run", "lesson_run"),
    "a place in a sentence that is not measured": (put("steps[0].why.en", "It took {x}."), "steps[0].why.en", "lesson_measure"),
    "a loop field that is none": (put("steps[0].runs.run.loop.loops", 4), "steps[0].runs.run.loop.loops", "not_a_loop_field"),
    "a loop field's own rule": (put("steps[0].runs.run.loop.loop_damping", 2), "steps[0].runs.run.loop.loop_damping", "finite_in"),
    "layers that are none": (put("steps[0].runs.run.loop.loop_layers", "0-1"), "steps[0].runs.run.loop.loop_layers", "lesson_layers"),
    "a choice too few": (cut("steps[0].predict.choices[1]"), "steps[0].predict.choices", "lesson_entries"),
    "a choice without a value": (cut("steps[0].predict.choices[1].value"), "steps[0].predict.choices[1].value", "missing"),
    "two choices of one value": (put("steps[0].predict.choices[1].value", 2), "steps[0].predict.choices[1].value", "lesson_twice"),
    "a choice of another kind": (put("steps[0].predict.choices[1].value", "4"), "steps[0].predict.choices[1].value", "kind"),
    "a line through what is no curve": (put("steps[2].measure.curve.what", "loops"), "steps[2].predict.of", "lesson_kind"),
    "a log axis from nought": (put("steps[2].predict.low", 0), "steps[2].predict.low", "above"),
    "an axis upside down": (put("steps[1].predict.high", 0), "steps[1].predict.high", "above"),
    "two steps of one name": (put("steps[1].id", "count"), "steps[1].id", "lesson_twice"),
    "a name with blanks": (put("id", "My lesson"), "id", "lesson_name"),
    "several runs without names": (cut("steps[3].runs.one.called"), "steps[3].runs.one.called", "missing"),
    "to find what is not shown": (put("steps[3].predict.find", "two"), "steps[3].predict.find", "lesson_run"),
    "too many tokens": (put("steps[3].runs.one.sampling.max_new_tokens", 9999), "steps[3].runs.one.sampling.max_new_tokens", "whole_in"),
    "an empty prompt": (put("steps[0].runs.run.prompt", ""), "steps[0].runs.run.prompt", "lesson_blank"),
    "a parameter that a measurement does not take": (put("steps[0].measure.loops.loop", 2), "steps[0].measure.loops.loop", "not_a_field"),
    "a parameter that a measurement needs": (cut("steps[3].measure.same.other"), "steps[3].measure.same.other", "missing"),
    "a picture of what is no problem of arrows": (put("steps[0].picture", "arrow_graph"), "steps[0].picture", "lesson_no_arrows"),
    "a picture that there is not": (put("steps[0].picture", "cat"), "steps[0].picture", "one_of"),
    "a place with a dash that is not measured": (put("steps[0].why.en", "It took {six-with}."), "steps[0].why.en", "lesson_measure"),
    "a name that scripts have of their own": (put("steps[0].id", "constructor"), "steps[0].id", "lesson_taken"),
    "a measurement named as scripts' own": (
        put("steps[0].measure.constructor", {"what": "loops", "run": "run"}), "steps[0].measure.constructor", "lesson_taken",
    ),
    "a run named as a mapping's parent": (
        put("steps[0].runs.__proto__", {"prompt": "x", "called": {"en": "x", "zh": "中"}}), "steps[0].runs.__proto__", "lesson_name",
    ),
    "a run shown twice": (put("steps[3].predict.runs", ["one", "four", "one"]), "steps[3].predict.runs[2]", "lesson_twice"),
    "one run under two names": (
        put("steps[3].runs.four.loop.loop_count", 1), "steps[3].predict.runs[1]", "lesson_same_run",
    ),
    "a measurement compared with itself": (
        put("steps[4].predict.right.of", ["ones", "ones"]), "steps[4].predict.right.of[1]", "lesson_twice",
    ),
    "a measurement shown twice": (put("steps[0].show", ["loops", "loops"]), "steps[0].show[1]", "lesson_twice"),
    "a measurement of the Lab that is none": (put("steps[5].runs.norms.task", "weather"), "steps[5].runs.norms.task", "one_of"),
    "a measurement of the Lab that needs a file": (put("steps[5].runs.norms.task", "prompts"), "steps[5].runs.norms.task", "one_of"),
    "a parameter of it that is none": (put("steps[5].runs.norms.params.colour", 1), "steps[5].runs.norms.params.colour", "no_parameter"),
    "a parameter of it beyond its end": (put("steps[5].runs.norms.params.loops", 0), "steps[5].runs.norms.params.loops", "whole_from"),
    "a file of the machine that plays it": (
        put("steps[5].runs.norms.params.file", "/etc/passwd"), "steps[5].runs.norms.params.file", "not_a_field",
    ),
    "a second text": (put("steps[5].runs.norms.params.text", "x"), "steps[5].runs.norms.params.text", "not_a_field"),
    "a loop beside a measurement": (put("steps[5].runs.norms.loop", {}), "steps[5].runs.norms.loop", "not_a_field"),
    "parameters of a run": (put("steps[0].runs.run.params", {}), "steps[0].runs.run.params", "not_a_field"),
    "a column that the table has not": (put("steps[5].measure.batch.column", "mood"), "steps[5].measure.batch.column", "one_of"),
    "a row by a column that it has not": (put("steps[5].measure.batch.row.mood", 1), "steps[5].measure.batch.row.mood", "one_of"),
    "a number without words": (cut("steps[5].measure.batch.called"), "steps[5].measure.batch.called", "missing"),
    "a cell of a run": (
        put("steps[0].measure.loops", {"what": "cell", "run": "run", "column": "x", "called": {"en": "x", "zh": "中"}}),
        "steps[0].measure.loops.what", "lesson_table",
    ),
    "what is no cell of a table": (
        put("steps[5].measure.tokens", {"what": "loops", "run": "norms"}), "steps[5].measure.tokens.what", "lesson_table",
    ),
    "a table among texts": (
        put("steps[3].runs.one", {"prompt": "x", "task": "lora_count", "called": {"en": "x", "zh": "中"}}),
        "steps[3].predict.runs[0]", "lesson_table",
    ),
    "a format of tomorrow": (put("format", 2), "format", "one_of"),
}  # fmt: skip


def test_the_toy_is_a_lesson() -> None:
    assert faults_of(toy()) == []


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_by_its_field_and_its_rule_in_both_languages(name: str) -> None:
    change, field, rule = MISTAKES[name]
    lesson = toy()
    change(lesson)
    found = [fault for fault in faults_of(lesson) if fault.field == field]
    assert [fault.rule for fault in found] == [rule], [str(fault) for fault in faults_of(lesson)]
    english, chinese = told(found[0], "en"), told(found[0], "zh")
    assert english.startswith(field)
    assert chinese.startswith(field)
    assert re.search("[\u4e00-\u9fff]", chinese)
    assert "{" not in english.removeprefix(field).replace("{x}", "").replace("{six-with}", "")


def test_ten_mistakes_are_told_at_once_in_the_files_order() -> None:
    ten = [
        "one language is missing", "another type", "a measurement that is none", "a loop field that is none",
        "a line through what is no curve", "an axis upside down", "two steps of one name", "a name with blanks",
        "to find what is not shown", "too many tokens",
    ]  # fmt: skip
    lesson = toy()
    for name in ten:
        MISTAKES[name][0](lesson)
    told_of = {fault.field for fault in faults_of(lesson)}
    # of a step in which something has another type no more is said than that
    hidden = {"a loop field that is none"}
    assert {MISTAKES[name][1] for name in ten if name not in hidden} <= told_of


@pytest.mark.parametrize(
    "prompt",
    [
        "a>b a>c a?",
        "a>a a?",
        "a>b b>q a?",
        "a>b a? b?",
        "a>b",
        "a? a>b",
        "a>b>c a?",
        "A>b A?",
        "a>b\x1ca?",
        "1>2 1?",
        "",
    ],
)
def test_what_the_picture_cannot_draw_is_no_problem_of_arrows(prompt: str) -> None:
    assert not is_arrows(prompt)


@pytest.mark.parametrize("prompt", ["a>b a?", "a?", " a>b  b>p\n p? ", "a>b b>a a?"])
def test_what_the_picture_draws_is_a_problem_of_arrows(prompt: str) -> None:
    assert is_arrows(prompt)


def test_a_measurement_with_a_dash_in_its_name_stands_in_a_sentence() -> None:
    asked = {"six-with": {"what": "loops", "run": "run"}}
    assert filled("It took {six-with}.", asked, {"six-with": 6}, "en") == "It took 6."  # type: ignore[dict-item]


def test_a_key_that_stands_twice_is_told_where_it_does() -> None:
    text = json.dumps(toy())
    assert read_lesson(text)[1] == []
    for once, twice, field in (
        ('"version": 3', '"version": 3, "version": 4', "version"),
        ('"loop_count": 4', '"loop_count": 4, "loop_count": 4', "steps[0].runs.run.loop.loop_count"),
        ('"mean": {', '"mean": 1, "mean": {', "steps[1].measure.mean"),
    ):
        lesson, faults = read_lesson(text.replace(once, twice, 1))
        assert lesson is None
        assert [(fault.field, fault.rule) for fault in faults] == [(field, "lesson_twice")]


def test_choices_whose_ranges_share_a_number_are_refused() -> None:
    lesson = toy()
    predict = step(lesson, "count")["predict"]
    predict["right"]["rule"] = "between"
    predict["choices"] = [
        {"text": predict["choices"][0]["text"], **ends} for ends in ({"high": 3}, {"low": 3, "high": 5})
    ]
    assert [(fault.field, fault.rule) for fault in faults_of(lesson)] == [
        ("steps[0].predict.choices[1]", "lesson_overlap")
    ]
    predict["choices"][1]["low"] = 4
    assert faults_of(lesson) == []


def test_what_is_no_json_or_too_long_is_told() -> None:
    for text, rule in (("{", "not_json"), ("[" * 100_000, "characters"), ("[" * 30_000, "not_json"), ("", "not_json")):
        lesson, faults = read_lesson(text)
        assert lesson is None
        assert [fault.rule for fault in faults] == [rule]
    assert [fault.rule for fault in read_lesson('{"minutes": NaN}')[1]] == ["not_json"]
    assert read_lesson(" " * (LONGEST_FILE + 1))[1][0].rule == "characters"


@pytest.mark.parametrize("text", ["1", "null", "[]", '"x"', "true"])
def test_what_is_no_mapping_is_told(text: str) -> None:
    assert [(fault.field, fault.rule) for fault in read_lesson(text)[1]] == [("file", "kind")]


def test_a_file_of_nothing_but_mistakes_is_told_in_a_few() -> None:
    lesson = toy() | {f"x{n}": n for n in range(200)}
    assert len(faults_of(lesson)) == MOST_FAULTS


def test_a_strangers_half_characters_and_long_values_can_be_told() -> None:
    """No message could carry them."""
    lesson = toy()
    lesson["title"]["en"] = "\ud800"
    lesson["\ud800" * 90] = "x" * 50_000
    step(lesson, "count")["runs"]["\ud800"] = {"prompt": "x", "loop": {"\udfff": ["y" * 9_000]}}
    for fault in faults_of(lesson):
        said = told(fault, "zh") + str(fault)
        said.encode()
        assert len(said) < 4_000


def _paths(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, entry in value.items():
            yield (here := f"{path}.{key}" if path else key)
            yield from _paths(entry, here)
    elif isinstance(value, list):
        for i, entry in enumerate(value):
            yield f"{path}[{i}]"
            yield from _paths(entry, f"{path}[{i}]")


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted(set(_paths(toy())))), ANY)
def test_whatever_stands_anywhere_is_taken_or_told(path: str, value: Any) -> None:
    """Never an exception; what passes is of the types that are stated, and of the published schema's."""
    lesson = toy()
    put(path, copy.deepcopy(value))(lesson)
    faults = faults_of(lesson)
    assert all(fault.field and fault.rule in RULES and told(fault, "zh") for fault in faults)
    if not faults:
        check_type(lesson, Lesson, "")
        jsonschema.validate(lesson, json_schema())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_bundled_lesson_is_one(file: Any) -> None:
    lesson, faults = read_lesson(file.read_text(encoding="utf-8"))
    assert [str(fault) for fault in faults] == []
    check_type(lesson, Lesson, "")
    jsonschema.validate(json.loads(file.read_text(encoding="utf-8")), json_schema())
