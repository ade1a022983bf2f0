"""What Learn and its server say to each other."""

from __future__ import annotations

from typing import Any, Literal, TypedDict, Union

from loopviz.app.contract.scripted import ScriptedConfig
from loopviz.app.contract.shared import Lang, MeasureEnd, Number, Text, Texts, Whole
from loopviz.lessons.schema import (
    BlindPrediction,
    Choice,
    ChoicePrediction,
    Lesson,
    LessonMeasure,
    LessonRun,
    LessonStep,
    LinePrediction,
    NumberPrediction,
    Right,
    Sampling,
    WhatIf,
    Words,
)

# A lesson as its file has it is a message too: these are the types it is made of.
LESSON: tuple[type, ...] = (
    Lesson,
    LessonStep,
    LessonRun,
    LessonMeasure,
    Sampling,
    Words,
    WhatIf,
    ChoicePrediction,
    Choice,
    Right,
    NumberPrediction,
    LinePrediction,
    BlindPrediction,
)


class LessonEntry(TypedDict):
    """A lesson of the list."""

    id: str
    title: Words
    about: Words
    minutes: int
    steps: int
    version: int


class LearnConfig(ScriptedConfig):
    """What the script of the Learn page is told once."""

    lessons: list[LessonEntry]
    shown: Texts  # by what is measured, how its numbers are written: loops, mean, share, bytes, table or plain
    colours: list[str]  # of several curves
    dashes: list[Literal["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"]]


class LessonFault(TypedDict):
    """Something that is wrong with a lesson file: where, and in words."""

    field: str
    text: str


class OpenedLesson(TypedDict):
    """An answer: a lesson, or all that is wrong with it."""

    kind: Literal["lesson"]
    lesson: Union[Lesson, None]  # noqa: UP007
    source: str  # of one that is not ours: its JSON
    key: str  # under which a browser keeps the answers to it
    models: list[str]  # that it needs
    faults: list[LessonFault]


class _LessonState(TypedDict):
    run: str
    ticket: str
    step: str
    what_if: bool
    texts: Texts  # by run, what it has written


class LessonProgress(_LessonState):
    """How far a step's runs are."""

    kind: Literal["progress"]
    making: str  # the run that is made
    done: int  # tokens of all of them
    total: int  # at most


class MeasuredValue(TypedDict):
    """Something measured."""

    kind: Literal["text", "number", "flag", "words", "curve"]
    value: Any
    said: Words


class LessonWay(TypedDict):
    """The way of a run through a problem of arrows."""

    prompt: str
    steps: list[tuple[str, Number]]  # where its state stands after each loop
    said: tuple[str, Number]  # what the model said


class LessonResult(_LessonState):
    """What a step's runs have come to."""

    kind: Literal["result"]
    end: MeasureEnd
    measured: dict[str, MeasuredValue]
    says: Words  # of a what-if: its sentence
    way: Union[LessonWay, None]  # noqa: UP007  # of the first run, where the step has that picture
    made_with: Texts  # versions, and where each model came from


class Judged(TypedDict):
    """An answer: how a guess stands to what was measured."""

    kind: Literal["judged"]
    right: Union[bool, None]  # noqa: UP007  # None: nothing that was offered is right
    score: float  # 0 to 1
    said: Words  # the verdict
    choice: Whole  # the place of the right choice
    why: Words
    guess: Words
    measured: Words


class PackedLesson(TypedDict):
    """An answer: the word of a link that holds a lesson, or why there is none."""

    kind: Literal["packed"]
    word: Text
    text: str


class LinkCode(TypedDict):
    """An answer: a QR code, as the path of its dark squares in a drawing of `size` by `size`; none of what is too long."""

    kind: Literal["code"]
    size: int
    path: str
    text: str


class _OpenLesson(TypedDict):
    lang: Lang


class OpenLesson(_OpenLesson, total=False):
    """A lesson: one of ours by its id, or a teacher's own, as the text of its file or the word of a link."""

    id: str
    source: str
    word: str


class LessonVisit(TypedDict):
    """With what a page hands in answers; days that the server keeps what is saved, 0: nothing is."""

    kind: Literal["visit"]
    ticket: str
    keeps: int


class _TryLesson(TypedDict):
    lang: Lang
    ticket: str
    n: int
    id: str  # of one of ours; "": it is in `source`
    source: str
    step: str
    what_if: bool


class TryLesson(_TryLesson, total=False):
    """A step's runs."""

    visit: bool  # nothing is begun: the page is there, and is to be told how answers are handed in (LessonVisit)


class LookTried(TypedDict):
    """What has a step come to?"""

    run: Text


class JudgeGuess(TypedDict):
    """How does a guess stand to what was measured?"""

    run: Text
    guess: Any  # a choice's place, a number, a number a loop, the name of a run


class PackLesson(TypedDict):
    """A link to a teacher's own lesson."""

    source: str
    lang: Lang


class DrawCode(TypedDict):
    """A link as a QR code."""

    url: str
    lang: Lang


class LessonAnswer(TypedDict):
    """What was answered to a step, in words."""

    step: str
    question: str
    guess: str
    measured: str
    right: Union[bool, None]  # noqa: UP007
    score: float
    when: str


class AnswersAsked(TypedDict):
    """A file of answers."""

    kind: Literal["csv", "json"]
    student: str
    lesson: str
    version: int
    title: str
    made_with: Texts
    answers: list[LessonAnswer]
