"""What the Lab and its server say to each other."""

from __future__ import annotations

from typing import Any, Literal, TypedDict, Union

from loopviz.app.contract.scripted import Column, Face, Row, ScriptedConfig
from loopviz.app.contract.shared import Figure, Lang, MeasureEnd, ModelState, Notes, Number, Text, Texts, Value, Whole


class Samples(TypedDict):
    """Texts to measure on: which one suits a model ("": any other), and the texts."""

    of: Texts
    texts: Texts


class LabConfig(ScriptedConfig):
    """What the script of the Lab page is told once."""

    samples: Samples


class _TaskField(TypedDict):
    name: str
    kind: Literal["long", "file", "choice", "flag", "whole", "number", "line"]
    titles: Texts  # by language, as the next
    words: Texts
    value: Union[Value, None]  # noqa: UP007
    json: bool  # a line that holds loop settings
    loop: bool  # one loop's, which a model may bring
    choices: Union[list[str], None]  # noqa: UP007
    limit: int  # characters


class TaskField(_TaskField, total=False):
    """A parameter of a measurement; the ends of a number."""

    low: float
    high: float


class TaskSize(TypedDict):
    """How much of a measurement, at one press."""

    words: Texts  # by language
    values: dict[str, Any]


class LabTask(TypedDict):
    """A measurement that there is."""

    name: str
    words: dict[str, Texts]  # by language: title, question, how, cost, and those of its figure
    fields: list[TaskField]
    sizes: list[TaskSize]
    asks: list[str]  # fields that are in sight beside the text
    intervals: bool  # whether there are any, to be explained
    kept: bool  # whether a recorded one comes along
    group: str  # that it is offered under, apart from the others; "" for one of those


class Sized(TypedDict):
    """How much a size is here: what it sets, and about how long it takes; "" where that is not known."""

    values: dict[str, Any]
    text: str


class LabSizes(TypedDict):
    """An answer: the sizes of a task with this model on this server, and what is filled in as it stands."""

    kind: Literal["sizes"]
    task: str
    sizes: list[Sized]
    as_set: str


class AskSizes(TypedDict):
    """About how long would the sizes of a task take?"""

    lang: Lang
    model: str
    precision: str  # that it is held in
    task: str
    values: dict[str, Any]
    cut: bool  # whether a text among them is only the beginning of one


class LabTasks(TypedDict):
    """An answer: what can be measured."""

    kind: Literal["tasks"]
    tasks: list[LabTask]


class _LabModel(TypedDict):
    kind: Literal["model"]
    name: str
    state: ModelState
    text: str


class LabModel(_LabModel, total=False):
    """An answer: where the model is, its own loop, the tokens that it can read at once; what it is held in, and what is to be known of it."""

    loop: dict[str, Any]
    context: int
    precision: Face
    notes: Notes


class _LabState(TypedDict):
    run: str
    ticket: str
    done: int
    total: Whole
    seconds: float
    share: float  # of the work that is done
    eta: Number  # seconds
    end: MeasureEnd
    reason: str


class LabStop(TypedDict):
    """A place of the slider under a figure: what it is called, where it is on the axis, what it comes to."""

    at: str
    x: float
    said: str


class LabWalk(TypedDict):
    """What the slider under a figure goes along, and the colour of what is selected."""

    along: str
    colour: str
    stops: list[LabStop]


class LabSnapshot(_LabState):
    """All there is of a measurement, but only the first rows of many."""

    kind: Literal["snapshot"]
    task: str
    model: str
    columns: list[Column]
    rows: list[Row]
    headline: str  # its result in words, so far
    held: str  # what the model was held in, in words; "": float32
    opens: bool  # whether a row's model can be opened in Explore
    figure: Union[Figure, None]  # noqa: UP007
    walk: Union[LabWalk, None]  # noqa: UP007


class _LabNews(_LabState):
    kind: Literal["news"]
    first: int
    rows: list[Row]


class LabNews(_LabNews, total=False):
    """Rows from number `first` on, and how far it is."""

    headline: str
    figure: Union[Figure, None]  # noqa: UP007
    walk: Union[LabWalk, None]  # noqa: UP007


class RowLink(TypedDict):
    """An answer: the word that opens a row's model in Explore, or why there is none."""

    kind: Literal["link"]
    word: Text
    text: str


class ListTasks(TypedDict):
    """What can be measured?"""


class _AskLabModel(TypedDict):
    model: str
    lang: Lang
    look: bool


class AskLabModel(_AskLabModel, total=False):
    """Where is the model? As on Explore."""

    linked: bool
    precision: str  # what it is to be held in


class LookMeasured(TypedDict):
    """A measurement anew, in another language."""

    run: Text
    lang: Lang


class LinkRow(TypedDict):
    """A link to a row's model."""

    run: Text
    row: int
    lang: Lang


class StopMeasured(TypedDict):
    """End a measurement."""

    ticket: Text


class Measure(TypedDict):
    """A measurement."""

    lang: Lang
    ticket: str
    n: int
    model: str
    precision: str  # what it is to be held in
    task: str
    values: dict[str, Any]
