"""What the TTT page and its server say to each other."""

from __future__ import annotations

from typing import Literal, TypedDict

from loopviz.app.contract.explore import Place
from loopviz.app.contract.scripted import ScriptedConfig
from loopviz.app.contract.shared import Figure, Lang, Number, PackedEdits, RunEnd, Text, Texts, Whole


class TTTPanel(TypedDict):
    """A picture, and what is said of it."""

    name: str
    words: dict[str, Texts]  # by language: title, question, how, source
    formulas: Texts  # by language, MathML
    code: list[Place]


class TTTConfig(ScriptedConfig):
    """What the script of the TTT page is told once."""

    panels: list[TTTPanel]  # attention and forgetting are drawn when they are asked for
    prompts: list[str]
    called: str  # the TTT model that the page opens with
    rule_words: int  # that the inner rules are given at most
    control: str  # the model of equal size with attention
    most_new: int  # tokens that a run may choose
    most_scale: float  # the largest factor on the inner learning rate
    paces: list[int]  # words a second that may be chosen; 0: as fast as it goes


class TTTChanged(TypedDict):
    """What was changed of a run, from the word at `index` on."""

    index: int
    forget: bool
    scale: float


# A word of the text: its text, whether it is of the prompt, log p of what came next (nats).
TTTWord = tuple[str, Literal[0, 1], Number]


class _TTTState(TypedDict):
    run: str
    epoch: int  # of the figures: it goes up whenever the visitor looks elsewhere
    words: list[TTTWord]
    next: str  # the word that was chosen last, and has not been read
    changes: list[TTTChanged]
    summaries: Texts  # by panel
    end: RunEnd
    reason: str  # why it ended, where that is bad news


class TTTSnapshot(_TTTState):
    """A run as it is shown now."""

    kind: Literal["snapshot"]
    ticket: str
    model: str
    layers: int
    heads: int
    mini_batch: int
    scale: float  # the factor that it began with
    figures: dict[str, Figure]


class TTTNews(_TTTState):
    """What has come since the page had `first` words."""

    kind: Literal["news"]
    ticket: str
    first: int
    ops: PackedEdits


class TTTVisit(TypedDict):
    """With what a page opens files, and how large they may be, in bytes; days that a run is kept by the server, 0: none is."""

    kind: Literal["visit"]
    ticket: str
    largest: int
    keeps: int


class _BeginTTT(TypedDict):
    lang: Lang
    ticket: str
    n: int
    model: str
    prompt: str
    max_new_tokens: int
    scale: float


class BeginTTT(_BeginTTT, total=False):
    """A run of a TTT model, looked at here."""

    layer: int
    head: Whole
    visit: bool  # nothing is begun: the page is there, and is to be told how it opens files (TTTVisit)
    pace: int  # words a second, so that one can watch and steer; 0: as fast as it goes


class LookTTT(TypedDict):
    """The run as it looks from elsewhere. `head` None: the mean of all; `token` None: the newest."""

    run: Text
    layer: int
    head: Whole
    token: Whole
    lang: Lang


class PlaceTTT(TypedDict):
    """Where one looks in a run, as it is kept with it (LookTTT)."""

    layer: int
    head: Whole
    token: Whole


class OpenedTTT(TypedDict):
    """An answer: a run that the server keeps, looked at as it was when it was saved."""

    id: str
    title: str
    until: Whole  # as of OpenedRun
    mine: bool
    place: PlaceTTT
    snapshot: TTTSnapshot


class SteerTTT(TypedDict):
    """Change a run from the next word on."""

    run: Text
    forget: bool
    scale: float
    lang: Lang


class _AskAttention(TypedDict):
    run: Text
    layer: int
    head: Whole
    token: Whole
    lang: Lang


class AskAttention(_AskAttention, total=False):
    """What does the control look at, in the mini-batch of this word (None: of the newest)? Or: what do the inner rules hold?"""

    visitor: (
        str  # the ticket of who asks (TTTVisit), once they have one: of the recorded run it says whose question it is
    )


class ControlAttention(TypedDict):
    """An answer: the control's attention."""

    kind: Literal["attention"]
    figure: Figure
    summary: str


class InnerRule(TypedDict):
    """An inner rule: what it does, and what it holds."""

    name: str
    called: str
    what: str
    figure: Figure
    summary: str


class InnerRules(TypedDict):
    """An answer: the run's keys and values, written by four rules."""

    kind: Literal["rules"]
    rules: list[InnerRule]


class _AskForgetting(TypedDict):
    run: Text
    token: int
    lang: Lang


class AskForgetting(_AskForgetting, total=False):
    """What would the words after this one have cost, if the memory had been set back after it?"""

    visitor: str  # as of AskAttention


class Forgetting(TypedDict):
    """An answer: the losses of the words that follow, with what was read before and without."""

    kind: Literal["forgetting"]
    token: int
    figure: Figure
    summary: str
