"""What Compare and its server say to each other."""

from __future__ import annotations

from typing import Any, Literal, TypedDict, Union

from loopviz.app.contract.scripted import Column, Face, Row, ScriptedConfig
from loopviz.app.contract.shared import (
    Figure,
    Lang,
    MeasureEnd,
    ModelState,
    Notes,
    PackedEdits,
    Text,
    Texts,
    Values,
    Whole,
)


class Offer(TypedDict):
    """What to try with a model."""

    examples: list[str]
    continuation: str


class Preset(TypedDict):
    """Settings with a name."""

    name: str
    values: Values


class CardLimits(TypedDict):
    """How many configurations there may be, and how long a name."""

    least: int
    most: int
    name: int
    sweep: int  # loops of a sweep as it is added
    sweep_least: int
    sweep_most: int


class RecordedCard(TypedDict):
    """A card of the recorded comparison; `origin`: the text that it is called by."""

    origin: str
    plain: bool
    values: Values
    sweep: int


class RecordedCards(TypedDict):
    """What the recorded comparison was made of."""

    model: str
    prompt: str
    continuation: str
    shared: Values
    cards: list[RecordedCard]
    baseline: int


class CompareConfig(ScriptedConfig):
    """What the script of the Compare page is told once."""

    offers: dict[str, Offer]  # by model; "": of any other
    presets: list[Preset]
    plain: Values  # the model without its loop
    groups: list[str]  # of the controls that a card has of its own
    limits: CardLimits
    colours: list[str]
    dashes: list[Literal["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"]]
    symbols: list[str]
    other: str  # the model that a card of another model begins with
    recorded: Union[RecordedCards, None]  # noqa: UP007  # what the comparison that comes along was made of


class _CardNews(TypedDict):
    stage: Literal["waiting", "text", "written", "timing", "greedy", "scoring", "sweep", "done", "stopped", "refused"]
    pieces: list[str]


_CardFrom = TypedDict("_CardFrom", {"from": int})


class CardNews(_CardNews, _CardFrom, total=False):
    """What is new of a configuration: its text from token `from` on."""

    done: int
    total: int
    reason: str  # why it is refused
    row: Row
    said: Texts  # cells that are words
    differs: Union[list[bool], None]  # noqa: UP007  # a token each: from the baseline's text
    same: Whole  # tokens before the first that differs
    rows: list[Row]  # of a sweep, with the cells that are words in place
    link: Text  # the word that opens it in Explore


class CompareColumn(Column):
    """A column of a comparison's table."""

    better: Literal["low", "high", None]
    group: Text
    first: bool  # shown until all are asked for
    noise: tuple[float, float]  # absolute, or as a share: what is no difference


class CurveWords(TypedDict):
    """The words of the curves."""

    titles: Texts
    questions: Texts
    views: Texts
    choices: Texts


class CompareSnapshot(TypedDict):
    """All there is of a comparison. Cards are named by their places."""

    kind: Literal["snapshot"]
    run: str
    ticket: str
    seq: int
    end: MeasureEnd
    model: str
    prompt: str
    names: Texts
    baseline: int
    refused: Texts
    cards: dict[str, CardNews]
    figures: dict[str, Figure]
    pareto: Figure
    columns: list[CompareColumn]
    words: CurveWords
    choose: str
    view: str
    axes: tuple[str, str]
    verdict: str  # what it comes to, so far
    held: str  # what the models were held in, in words; "": float32


class _CompareNews(TypedDict):
    kind: Literal["news"]
    run: str
    ticket: str
    end: MeasureEnd
    first: int
    last: int
    cards: dict[str, CardNews]
    ops: PackedEdits


class CompareNews(_CompareNews, total=False):
    """What events `first` to `last - 1` brought. A page that has not `first` of them asks for a snapshot."""

    pareto: Figure
    verdict: str


class CheckedModel(TypedDict):
    """Where a comparison's model is, and what is to be known of it and of others that are compared."""

    name: str
    state: ModelState
    text: str
    precision: Face  # that it, and the others, are to be held in
    notes: Union[Notes, None]  # noqa: UP007  # of all models that are here


class CheckedCard(TypedDict):
    """What a configuration comes to."""

    about: str
    refused: Text
    values: Values
    gave: dict[str, Any]  # what was set and has given way to the model
    controls: dict[str, Face]
    cost: str  # about how long it takes here
    fixed: bool  # it runs as its model comes: another one than the page's, or one without a loop to set
    state: ModelState  # of its model


class Checked(TypedDict):
    """An answer: what applies, and what would be refused."""

    kind: Literal["checked"]
    model: CheckedModel
    base: Union[Values, None]  # noqa: UP007  # what suits the model; None: it is not there yet
    looped: bool  # whether that is a loop of its own
    cards: list[CheckedCard]
    shared: dict[str, Face]
    cost: str  # about how long all of them take here


class OpenedComparison(TypedDict):
    """An answer: what a link brings to the page."""

    kind: Literal["opening"]
    values: Values
    prompt: Text
    beside: Text  # a model that is shown beside the page's without its loop; None: its settings are shown
    said: list[str]


class LinkedValues(TypedDict):
    """What a link has set for a model."""

    model: str
    values: dict[str, Any]


class CardAsked(TypedDict):
    """A configuration as it is set up."""

    name: str
    plain: bool  # the model without its loop
    values: dict[str, Any]  # set here
    base: Union[LinkedValues, None]  # noqa: UP007
    sweep: int  # up to how many loops it is measured; 0: once, as it is
    model: str  # the model it is of, as that comes; "": the page's
    linked: bool  # whether a link named that model, and the visitor has not agreed to it yet


class Check(TypedDict):
    """All that is set up: what applies, what would be refused?"""

    lang: Lang
    model: str
    precision: str  # what all models are to be held in
    linked: bool
    look: bool
    suits: str  # the model whose settings the cards hold
    shared: dict[str, Any]
    cards: list[CardAsked]
    baseline: int  # a place
    lengths: list[int]  # characters of prompt and continuation


class Compare(Check):
    """A comparison."""

    prompt: str
    continuation: str
    ticket: str
    n: int


class OpenLink(TypedDict):
    """What does a link bring?"""

    word: str
    lang: Lang


class _LookCompared(TypedDict):
    run: Text
    lang: Lang


class LookCompared(_LookCompared, total=False):
    """A comparison anew: in another language, by another quantity, with other axes."""

    view: str
    axes: list[str]


class StopCompared(TypedDict):
    """End a comparison, or one configuration of it."""

    ticket: Text
    place: Whole
