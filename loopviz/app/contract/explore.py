"""What Explore and its server say to each other."""

from __future__ import annotations

from typing import Any, Literal, TypedDict, Union

from loopviz.app.contract.shared import (
    Act,
    Begun,
    Figure,
    Focus,
    Lang,
    ModelState,
    Notes,
    Number,
    PackedEdit,
    PackedEdits,
    Pieces,
    RunEnd,
    Templates,
    Text,
    Texts,
    TokenRow,
    Values,
    Whole,
    _Status,
)


class Place(TypedDict):
    """A place in our source code."""

    name: str
    at: str
    url: str


class _PanelWords(TypedDict):
    name: str
    title: str
    question: str
    how: Pieces
    units: Pieces
    source: Pieces
    formula: str  # MathML
    no_data: str


class PanelWords(_PanelWords, total=False):
    """What a panel says of itself."""

    cost: str
    not_recorded: str


class PanelEntry(TypedDict):
    """A panel that there is."""

    name: str
    group: str  # one of the page's `groups`
    words: PanelWords
    needs: list[str]  # extras that a run must have recorded
    usual: bool  # whether it is on until a visitor says otherwise
    code: list[Place]


class Visit(TypedDict):
    """What a page is told as its visit begins."""

    ticket: str  # to open files with
    largest: int  # bytes of one
    linked: str  # the model for which a link has set the prompt
    suits: str  # the model whose settings the form holds
    keeps: int  # days that a run is kept on the server; 0: none is
    folders: bool  # whether a visitor may make a class folder


class Revisit(TypedDict):
    """What a page is told anew whose server was away: its form stays as it is."""

    kind: Literal["visit"]
    visit: Visit
    id: str  # no two are equal


class _ExploreConfig(TypedDict):
    kind: Literal["config"]
    lang: Lang
    texts: Texts
    groups: list[str]  # of panels: a tab each
    panels: list[PanelEntry]
    toolbar: Texts
    templates: Templates
    dials: dict[str, list[float]]  # of each of DIALS: its least, its most, and between two values


class ExploreConfig(_ExploreConfig, total=False):
    """The page's words, panels and colours, in one language."""

    visit: Visit


class ExploreStatus(_Status, total=False):
    """A line of text; what is shown stays."""

    n: int  # of which start
    over: bool  # nothing more will come of that one
    full: bool  # there was no place to wait in
    suit: bool  # the controls are to show what the run was begun with
    act: Act
    beside: Texts  # by control, what is said there of a refusal
    open: list[str]  # groups of controls in which something is said
    keep: str  # what a button says that shortens the prompt


class _Title(TypedDict):
    model: str
    about: str  # settings in a line
    palette: list[Text]  # the colour of one loop, of two ..., of those that tokens took
    brings: list[str]  # panels that are on for this run


class Alternatives(TypedDict):
    """What might have come after the token held, best first: its text, log p, whether it did come."""

    token: int
    said: str
    rows: list[tuple[str, Number, bool]]


class Stack(TypedDict):
    """What a word goes through: how many layers, and the first and last of every looped block."""

    layers: int
    blocks: list[list[int]]


class Hero(TypedDict):
    """What one word thought loop by loop: :mod:`loopviz.panels.hero.strip`, which says what each is."""

    token: Whole
    lens: Literal["direct", "exit", "same"]
    silent: str
    steps: list[int]
    says: list[Text]
    p: list[Number]
    moved: list[Number]
    measure: Literal["kl", "cosine"]
    why: str
    settled: Number
    limit: Number
    ran: list[list[int]]
    next: str


class Branch(TypedDict):
    """What can be tried from a word: the run up to and with this token, with so many loops."""

    token: int
    loops: int


class Explained(TypedDict):
    """What is said of one word in one block, and what can be tried there."""

    token: int
    block: int
    text: str
    branch: Union[Branch, None]  # noqa: UP007


class _ExploreSnapshot(_Title):
    kind: Literal["snapshot"]
    run: str
    epoch: int
    seq: int  # frames shown
    total: int  # frames there are
    end: RunEnd
    tokens: list[TokenRow]
    next: Text  # chosen, not read yet
    figures: dict[str, Figure]
    summaries: Texts
    alternatives: Union[Alternatives, None]  # noqa: UP007
    stack: Stack
    hero: Hero
    explained: Union[Explained, None]  # noqa: UP007
    prompt_tokens: int
    extras: list[str]  # recorded
    focus: Focus


class ExploreSnapshot(_ExploreSnapshot, total=False):
    """All that the page shows of a run; begins one, and mends a page that missed something."""

    n: int  # of the start that made it
    telling: Whole  # of one that has ended: the word to look at, unless the visitor looks at one


class _Step(TypedDict):
    first: int
    last: int
    tokens: list[TokenRow]
    next: Text
    ops: PackedEdits
    hero: list[PackedEdit]  # of what stands above the panels


class Step(_Step):
    """Tokens `first` to `last - 1`, by edits of the figures."""


class _Frames(_Step):
    kind: Literal["frames"]
    run: str
    epoch: int  # of the figures: a new one begins whenever the visitor looks elsewhere
    end: RunEnd


class Frames(_Frames, total=False):
    """What a run has brought since the last message. Its title, where that is another now."""

    summaries: Texts
    model: str
    about: str
    palette: list[Text]
    brings: list[str]
    telling: Whole  # with the end: the word to look at, unless the visitor looks at one


class LinkMade(TypedDict):
    """The word of a link to what is set up, and what is to be said of it; no word where none can be made."""

    kind: Literal["link"]
    n: int  # of which wish
    word: Text
    told: list[str]


class _Brought(TypedDict):
    kind: Literal["brought"]
    id: str  # no two are equal
    model: str
    changes: Values
    gave: dict[str, Any]  # what has given way to the model, as it was
    whole: bool  # it takes the place of everything that was set, and a run of it starts


class Brought(_Brought, total=False):
    """What a model brings into the form, or a run whose settings are taken over."""

    prompt: str
    suits: str  # whose settings these are, if not the model's


class Steps(TypedDict):
    """An answer: the way through a finished run, by edits."""

    kind: Literal["steps"]
    run: str
    epoch: int
    steps: list[Step]
    summaries: Texts  # after the last


class Prompt(TypedDict):
    """An answer: a run's text as a prompt."""

    kind: Literal["text"]
    prompt: str


class Guesses(TypedDict):
    """An answer: what a token's state says after each loop of its last block, and what the model said; with probabilities."""

    kind: Literal["guesses"]
    run: str
    token: int
    steps: list[tuple[str, Number]]  # straight from the state; none of a token that is not there, or did not loop
    said: tuple[str, Number]  # by all layers: the word that came


class Current(TypedDict):
    """An answer: the page has everything."""

    kind: Literal["current"]
    run: str
    seq: int
    end: RunEnd


class _ModelStatus(TypedDict):
    state: ModelState
    text: str
    lang: Lang


class ModelStatus(_ModelStatus, total=False):
    """An answer: where the model is."""

    notes: Notes


class View(TypedDict, total=False):
    """How runs are looked at: with which panels, from where. Sent inside of other things, as JSON of its own."""

    panels: list[str]  # those of the open group that are on: what is drawn
    on: list[str]  # those of all groups: what is recorded, what a report holds
    focus: Focus


class Told(TypedDict):
    """An answer: what is said of a word; None where there is nothing to say."""

    kind: Literal["told"]
    run: str
    explained: Union[Explained, None]  # noqa: UP007


class Explain(TypedDict):
    """What is to be said of the word in focus, or of the newest of those shown?"""

    run: Text
    focus: Focus
    shown: Whole


class Resync(TypedDict):
    """What does the page lack of a run?"""

    run: str
    epoch: int  # -1: of another run than is shown
    seq: int


class Look(View):
    """The run seen from elsewhere."""

    run: Text
    epoch: int
    shown: Whole  # tokens, of a finished run; None: all


Advance = TypedDict(
    "Advance",
    {"run": Text, "epoch": int, "panels": list[str], "focus": Focus, "from": int, "to": Whole, "split": bool},
)
Advance.__doc__ = "The way through a finished run; `split`: a step a token."


class Carry(TypedDict):
    """A run goes along to another page."""

    run: Text


class _TextUntil(TypedDict):
    run: Text


class TextUntil(_TextUntil, total=False):
    """A run's text to go on from: all of it, or up to and with `token`, and then `piece`."""

    token: int
    piece: str


class AskGuesses(TypedDict):
    """What did a token's state say after each of its loops, and what did the model say then?"""

    run: Text
    token: int


class _AskModel(TypedDict):
    lang: Lang
    again: bool  # one that failed is tried once more
    linked: bool  # a link named it, and the visitor has not agreed yet
    look: bool  # it is not wanted (any more)


class AskModel(_AskModel, total=False):
    """Where is the model? Without a name the one that the page began with; without a precision as the server has it."""

    model: str
    precision: str


class Start(Begun):
    """A run of what the controls show."""

    n: int  # its number among the page's starts
    wishes: str  # View


class Halt(TypedDict):
    """Nothing that was begun is wanted any more."""

    n: int  # up to which start


class Retype(TypedDict):
    """A text for the prompt."""

    prompt: str


class Adopt(TypedDict, total=False):
    """The settings of a run, or of a model of the list, for the next run.

    With `token` and `loops`: to go on from the run's text up to and with that token, with so many loops. With `exit_threshold`:
    a gate chooses what is read out, with that threshold.
    """

    run: Text
    model: str
    token: int
    loops: int
    exit_threshold: float


class MakeLink(TypedDict):
    """A link to what is set up."""

    n: int
    run: Text
    view: str  # View, or ""


# Documents that the script of Explore fetches.


class Opening(TypedDict):
    """What the page opens with."""

    config: ExploreConfig
    snapshot: ExploreSnapshot


class Holds(TypedDict):
    """What a link holds, in words."""

    prompt: Text
    model: str
    loop: Text


class OpenedLink(TypedDict):
    """What a link asks of the page's script."""

    panels: Union[list[str], None]  # noqa: UP007  # None: the usual ones; as they are in a group of which none is named
    group: Text  # the one to open; None: the page's own choice
    focus: Focus
    told: list[str]
    snapshot: Union[ExploreSnapshot, None]  # noqa: UP007  # None: the view waits for the visitor's next run
    holds: Union[Holds, None]  # noqa: UP007


class TourTold(TypedDict):
    """What is said of an answer."""

    right: Pieces
    wrong: Pieces


class TourQuestion(TypedDict):
    """What a step of the tour asks."""

    answers: list[str]
    right: int  # from 0
    focus: Focus  # but for the language: how the run is looked at once one is chosen
    told: TourTold


class TourStep(TypedDict):
    """A step of the tour."""

    key: str
    target: str  # a CSS selector
    title: str
    words: Pieces
    focus: Focus  # but for the language
    shown: Whole  # tokens; None: all
    play: bool
    panels: list[str]
    asks: TourQuestion | None


class Tour(TypedDict):
    """The tour, in one language."""

    steps: list[TourStep]


class Term(TypedDict):
    """An entry of the glossary."""

    key: str
    name: str
    plain: str
    symbols: str
    formula: str  # MathML
    see: list[str]


class Glossary(TypedDict):
    """The glossary, in one language."""

    terms: list[Term]
