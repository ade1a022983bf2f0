"""What a lesson is: one JSON file. These TypedDicts are the one statement of it.

:mod:`loopviz.lessons.faults` reads files by them, :mod:`loopviz.lessons.json_schema` writes the published JSON Schema of them,
and the page gets a lesson as the same data. What they cannot say (that a name is known, that a choice has what its rule asks
for) is checked in `faults` too, and said there.

No answer stands in a lesson. A step says what is run, what is measured of it (`measure`), and by which rule the right choice
follows from that (`right`, `of`).
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict, Union

from loopviz.prompt_templates import Template

FORMAT = 1
LONGEST_FILE = 60_000  # characters of JSON
LONGEST_WORDS = 2_000  # of a sentence, a label, a prompt
LONGEST_NAME = 40  # of a lesson, a step, a run, a measurement
MOST_STEPS = 12
MOST_RUNS = 6  # of a step
MOST_MEASURES = 16  # of a step
CHOICES = (2, 5)  # at least, at most
LOOPS = (2, 64)  # of a line
MINUTES = (1, 60)
MOST_NEW_TOKENS = 128
ARROW_LETTERS = "abcdefghijklmnop"  # of the problems that a picture can show: those of the model that follows arrows
USUAL_NEW_TOKENS = 1  # that a run writes where nothing is said of it

# Evaluated at run time (typing.Union: on Python 3.10 as well).
Value = Union[bool, float, str]  # noqa: UP007
What = Literal[
    "text",
    "answer",
    "guess",
    "guesses",
    "settles",
    "lost",
    "loops",
    "mean_loops",
    "hardest_word",
    "chance",
    "change",
    "kl",
    "perplexity",
    "best_loop",
    "same_text",
    "orbit",
    "memory",
    "cell",
]


Picture = Literal["arrow_graph"]  # the problem of arrows that the first run's prompt is


class Words(TypedDict):
    """A sentence, in each language of the page."""

    en: str
    zh: str


# --- what is run, and what is measured of it --------------------------------------------------------------------------------


class Sampling(TypedDict, total=False):
    """How a prompt is continued, as in :class:`loopviz.engine.StreamSettings`, but for one new token where nothing is said."""

    max_new_tokens: int
    do_sample: bool
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    seed: int
    chat: bool  # what template "chat" was called before there were others
    template: Template
    input: str


class _LessonRun(TypedDict):
    prompt: str


class LessonRun(_LessonRun, total=False):
    """A run. What is not said of its loop stays as the model has it."""

    called: Words  # where there are several
    model: str  # another one than the lesson's
    loop: dict[str, Any]  # loop fields by name, as in loopviz.loop_fields
    sampling: Sampling
    task: str  # in place of a run: a measurement of the Lab, by name, on the prompt as its text
    params: dict[str, Any]  # of that, by name; what is not said is as its size Quick has it


class _LessonMeasure(TypedDict):
    what: What
    run: str  # the name of a run of the step


class LessonMeasure(_LessonMeasure, total=False):
    """Something measured of a run (see :data:`loopviz.lessons.measurements.MEASUREMENTS`)."""

    word: str  # of the run's text; without one: the last of the prompt, after which the first new word is chosen
    nth: int  # which one, where it is there several times
    loop: int  # the number at that loop, instead of one a loop
    other: str  # the name of the run it is compared with
    column: str  # of a measurement of the Lab: the number that stands in this column
    row: dict[
        str, Any
    ]  # in the row in which these columns have these values (the last of them; without it, the last of all)
    called: Words  # what that number is


# --- what is predicted ------------------------------------------------------------------------------------------------------


class Right(TypedDict):
    """How the right choice follows from what was measured.

    `value`: the choice whose `value` it is. `between`: the choice between whose `low` and `high` it lies, both included.
    `largest`, `smallest`: the choice whose `value` is the name of the largest, or smallest, of several.
    """

    rule: Literal["value", "between", "largest", "smallest"]
    of: list[str]  # names of measurements: one, or for largest and smallest several


class _Choice(TypedDict):
    text: Words


class Choice(_Choice, total=False):
    """One of the answers offered."""

    value: Value
    low: float
    high: float


class ChoicePrediction(TypedDict):
    """One of two to five answers."""

    kind: Literal["choice"]
    choices: list[Choice]
    right: Right


class NumberPrediction(TypedDict):
    """A number; right where it is no further than `near` from what was measured."""

    kind: Literal["number"]
    of: str  # the measurement
    low: float
    high: float
    step: float
    near: float
    unit: Words


class LinePrediction(TypedDict):
    """A line drawn over the loops, to be held against a measured curve."""

    kind: Literal["line"]
    of: str
    loops: int
    low: float
    high: float
    scale: Literal["linear", "log"]
    axis: Words


class BlindPrediction(TypedDict):
    """The runs are made first and shown without their names, in an order of chance: which one is `find`?"""

    kind: Literal["blind"]
    runs: list[str]
    find: str


Prediction = Union[ChoicePrediction, NumberPrediction, LinePrediction, BlindPrediction]  # noqa: UP007


# --- a lesson ---------------------------------------------------------------------------------------------------------------


class _Part(TypedDict):
    runs: dict[str, LessonRun]
    measure: dict[str, LessonMeasure]


class Part(_Part, total=False):
    """Something that is run and measured."""

    show: list[str]  # the measurements shown, in this order; without it: all


class _WhatIf(Part):
    ask: Words
    says: Words  # with measured values in it: {name}


class WhatIf(_WhatIf):
    """The same with something changed."""


class _LessonStep(Part):
    id: str
    question: Words
    predict: Prediction
    why: Words  # one sentence, with measured values in it: {name}


class LessonStep(_LessonStep, total=False):
    """A question, and what answers it."""

    about: Words  # what is to be known before it
    picture: Picture  # beside the question, and of the run once it is made
    what_if: WhatIf
    notes: Words  # for who presents it


class Lesson(TypedDict):
    """A lesson."""

    format: Literal[1]
    id: str
    version: int  # goes up when it is changed: an answer file says which one was answered
    title: Words
    about: Words
    minutes: int
    model: str
    steps: list[LessonStep]
