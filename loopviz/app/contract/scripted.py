"""What pages share whose script builds all of them: every page beside Explore."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

from loopviz.app.contract.shared import Act, PageName, Templates, Texts, Value, _Status


class Control(TypedDict):
    """A field of a form."""

    name: str
    kind: Literal["whole", "number", "choice", "flag", "name", "long"]
    group: str
    low: float
    high: float
    step: float
    choices: list[str]
    value: Value


class ScriptedConfig(TypedDict):
    """What the script of a page beside Explore is told once, in both languages."""

    kind: Literal["config"]
    page: PageName
    pages: dict[str, str]
    languages: dict[str, str]
    texts: dict[str, Texts]
    toolbar: dict[str, Texts]
    templates: Templates
    controls: list[Control]
    models: list[str]


class Column(TypedDict):
    """A column of a table."""

    name: str
    unit: str
    called: str  # the unit, in the page's language
    head: str
    says: str


Row = dict[str, Any]  # by column


class Face(TypedDict):
    """How a control stands: the line under it, whether it applies, whether it is refused."""

    info: str
    on: bool
    bad: bool


class MeasureStatus(_Status, total=False):
    """A line of text; what is shown stays."""

    ticket: str  # of what was asked for
    over: bool  # nothing more will come of it
    full: bool  # there was no place to wait in
    field: str  # that it is about
    act: Act  # a way out: all that is set, in another precision
    reasons: Texts  # by place, why cards are refused
