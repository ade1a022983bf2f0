"""What a page and its server say to each other: every message, question and event, and the constants that both halves use.

The only place where both halves are written down. From it `scripts/contract.py` writes `assets/web/core/contract.js` (the
constants) and `contract.d.ts` (the types, which `tsc` holds the scripts to); a test makes both again and compares. Messages
are checked against it by the tests of the pages, questions whenever one comes (:mod:`loopviz.app.sessions.untrusted`), by the
reader that checks Frames.

Everything is plain JSON. A *message* goes down and has a `kind`; a *question* goes up and is answered by a message; an
*event* goes up through Gradio, and what comes of it are messages. Keys that may be missing stand in a class of their own
(`total=False`). It imports nothing of the app.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypedDict, Union, get_args

from loopviz.figures.edits import CODES
from loopviz.figures.plotlyjs import SMALL_DRAWS as SMALL_PLOTLY_DRAWS
from loopviz.lessons.schema import (
    LONGEST_FILE,
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
from loopviz.panels.kit.focus import MOST_PINS
from loopviz.trace.typed import check_type, hints_of

# --- constants ----------------------------------------------------------------------------------------------------------

OPS: Mapping[str, int] = CODES  # the first entry of a packed edit
SMALL_DRAWS = tuple(sorted(SMALL_PLOTLY_DRAWS))  # kinds of traces that the Plotly which pages open with draws
RECORDED = "recorded"  # the id of the recorded run on every page; ids of visitors' runs are longer and random
# In their order, beside the root.
PAGES: Mapping[str, str] = {"learn": "./learn", "explore": "./", "compare": "./compare", "lab": "./lab"}
QUERIES: Mapping[str, str] = {
    "link": "s",
    "lang": "lang",
    "task": "task",
    "lesson": "lesson",  # the id of one of ours
    "name": "name",  # of who answers, or of a class
    "look": "__theme",
}  # the last one is Gradio's
OWN_LESSON = "own"  # behind the # of an address, where no server sees it: a teacher's own lesson, packed
CHECK = "check"  # behind the # of Explore's address: the check of the instrument is asked for
FOOTER = "lv-foot"  # the class of every page's foot
# What a browser remembers. The language is written as it is, the rest as JSON.
STORED: Mapping[str, str] = {
    "lang": "loopviz.lang",
    "dark": "loopviz.dark",
    "panels": "loopviz.panels",
    "group": "loopviz.group",
    "speed": "loopviz.speed",
    "tour": "loopviz.tour",
    "lessons": "loopviz.lessons",
    "student": "loopviz.student",
}
TICKET_HEADER = "x-loopviz-visit"  # in which a page shows its ticket as it opens a file
USUAL_PRESET = "one_slot"  # what Compare opens with beside the model as it is and without its loop
DIALS = ("loop_count", "max_loop_count", "loop_damping")  # controls that have a slider above the panels as well
CURVES = ("convergence", "loops", "kv")  # of a comparison
TABLE_GROUPS = ("buys", "costs", "ran")  # of a comparison's columns, each a table of its own
TABLE_FILES = ("csv", "parquet", "json")  # of a comparison or measurement: its table twice, and how it was made
PANEL_FILES = ("csv", "parquet")  # of a panel's numbers
ANSWER_FILES = ("csv", "json")  # of a lesson's answers
MOST_STUDENT = 80  # characters of a name in an answer file
# The task that one model of the list was trained on, "follow the arrows" (its recipe.json): letters, arrows a problem, the deepest chain.
ARROW_TASK: Mapping[str, Union[str, int]] = {"model": "arrows-loop", "nodes": 16, "arrows": 12, "hops": 8}  # noqa: UP007
MOST_SLUG = 60  # characters of a stranger's name in a file's name
# Elements that Gradio builds and the script looks for, by their ids.
ELEMENTS: Mapping[str, str] = {
    "prompt": "ctl-prompt",
    "run": "lv-run",
    "stop": "lv-stop",
    "buttons": "lv-buttons",
    "page": "lv-page",
    "settings": "lv-settings",
    "model": "lv-group-model",
    "dark": "lv-dark",
    "learn": "lv-learn",
    "formulas": "lv-formulas",
    "formula": "lv-formula-",  # and `<lang>-<panel>`
    "control": "ctl-",  # and the control's name
}
# ... and by their classes: what begins a run by itself, a button and the list it opens, a control that is refused, the place
# for tour and glossary.
CLASSES: Mapping[str, str] = {
    "example": "lv-example",
    "preset": "lv-preset",
    "drop": "lv-drop",
    "opens": "lv-drop-open",
    "refused": "lv-refused",
    "learn": "lv-learn",
}

CONSTANTS: Mapping[str, Any] = {
    "OPS": OPS,
    "SMALL_DRAWS": SMALL_DRAWS,
    "RECORDED": RECORDED,
    "PAGES": PAGES,
    "QUERIES": QUERIES,
    "OWN_LESSON": OWN_LESSON,
    "CHECK": CHECK,
    "FOOTER": FOOTER,
    "STORED": STORED,
    "TICKET_HEADER": TICKET_HEADER,
    "MOST_PINS": MOST_PINS,
    "USUAL_PRESET": USUAL_PRESET,
    "DIALS": DIALS,
    "CURVES": CURVES,
    "TABLE_GROUPS": TABLE_GROUPS,
    "TABLE_FILES": TABLE_FILES,
    "PANEL_FILES": PANEL_FILES,
    "ANSWER_FILES": ANSWER_FILES,
    "MOST_STUDENT": MOST_STUDENT,
    "LONGEST_LESSON": LONGEST_FILE,
    "ARROW_TASK": ARROW_TASK,
    "MOST_SLUG": MOST_SLUG,
    "ELEMENTS": ELEMENTS,
    "CLASSES": CLASSES,
}

# --- what several messages are made of ------------------------------------------------------------------------------------

# Types are evaluated at run time (typing.Union: on Python 3.10 as well).
Text = Union[str, None]  # noqa: UP007
Whole = Union[int, None]  # noqa: UP007
Number = Union[float, None]  # noqa: UP007
Value = Union[bool, float, str]  # noqa: UP007  # of a control
Values = dict[str, Value]
PackedEdit = list[Any]  # [code, parts of the path that it shares with the edit before, *the rest of the path, value]
PackedEdits = dict[str, list[PackedEdit]]  # by figure
Texts = dict[str, str]  # by key
Pieces = list[Union[str, list[str]]]  # noqa: UP007  # a text; a term in it is [its words, the glossary's key]
PageName = Literal["learn", "explore", "compare", "lab"]
Lang = Literal["en", "zh"]
ModelState = Literal["waiting", "importing", "loading", "ready", "failed", "ask"]
RunEnd = Literal["eos", "length", "context", "stopped", "time", "memory", "error", None]  # None: it is being made
MeasureEnd = Literal["done", "stopped", "time", "memory", "error", None]
# A token of the text: its text, the loops of each block, why each stopped, whether it is of the prompt, log p of what came
# next (nats), milliseconds since the run began.
TokenRow = tuple[str, list[int], list[str], Literal[0, 1], Number, Number]
Metric = Literal["cosine", "kl", "rel_delta", "contraction", "entropy", "rank", "norm"]
Lens = Literal["direct", "exit", None]
TableFile = Literal["csv", "parquet", "json"]


class Figure(TypedDict):
    """A figure as plain Plotly data."""

    data: list[dict[str, Any]]
    layout: dict[str, Any]


class Templates(TypedDict):
    """Plotly's templates, by look."""

    light: dict[str, Any]
    dark: dict[str, Any]


class Focus(TypedDict, total=False):
    """Where a visitor looks: :class:`loopviz.panels.Focus`; a page's script knows what it has been told."""

    token: Whole
    block: int
    step: Whole
    metric: Metric
    lang: Lang
    pins: list[int]
    layer: Whole
    lens: Lens
    dims: int
    context: int
    batch: int


class _Act(TypedDict):
    label: str


class Act(_Act, total=False):
    """A button that leads out of what was refused, or lacks: another model, or without one this run again."""

    model: str


class Failed(TypedDict):
    """An answer that nobody foresaw: words for the visitor, with a reference to the log."""

    kind: Literal["failed"]
    state: Literal["failed"]
    text: str


class Gone(TypedDict):
    """An answer: the server has no such run (any more)."""

    kind: Literal["gone"]


class InLanguage(TypedDict, total=False):
    """Whatever is asked: the language in which an answer is wanted."""

    lang: Lang


class Done(TypedDict):
    """An answer: it is done."""

    kind: Literal["ok"]


class KeptFile(TypedDict):
    """An answer: a file to keep, its bytes in base64."""

    kind: Literal["file"]
    name: str
    data: str


class Download(TypedDict):
    """A question: the table of a run so far, as a file."""

    run: Text
    kind: TableFile


class _Status(TypedDict):
    kind: Literal["status"]
    text: str
    bad: bool


# --- Explore --------------------------------------------------------------------------------------------------------------


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
    formula: str
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


class Notes(TypedDict):
    """What is to be known of a model that is there."""

    count: str
    about: str
    said: list[str]


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
    """Where is the model? Without a name the one that the page began with."""

    model: str


class Start(TypedDict):
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

    With `token` and `loops`: to go on from the run's text up to and with that token, with so many loops.
    """

    run: Text
    model: str
    token: int
    loops: int


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


# --- Compare and Lab --------------------------------------------------------------------------------------------------------


class Control(TypedDict):
    """A field of a form."""

    name: str
    kind: Literal["whole", "number", "choice", "flag", "name"]
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


class MeasureStatus(_Status, total=False):
    """A line of text; what is shown stays."""

    ticket: str  # of what was asked for
    over: bool  # nothing more will come of it
    full: bool  # there was no place to wait in
    field: str  # that it is about
    reasons: Texts  # by place, why cards are refused


# --- Compare ----------------------------------------------------------------------------------------------------------------


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
    recorded: Union[RecordedCards, None]  # noqa: UP007  # what the comparison that comes along was made of


class _CardNews(TypedDict):
    stage: Literal["waiting", "text", "timing", "greedy", "scoring", "sweep", "done", "stopped", "refused"]
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


class Face(TypedDict):
    """How a control stands: the line under it, whether it applies, whether it is refused."""

    info: str
    on: bool
    bad: bool


class CheckedModel(TypedDict):
    """Where a comparison's model is."""

    name: str
    state: ModelState
    text: str


class CheckedCard(TypedDict):
    """What a configuration comes to."""

    about: str
    refused: Text
    values: Values
    gave: dict[str, Any]  # what was set and has given way to the model
    controls: dict[str, Face]
    cost: str  # about how long it takes here


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


class Check(TypedDict):
    """All that is set up: what applies, what would be refused?"""

    lang: Lang
    model: str
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


# --- Lab --------------------------------------------------------------------------------------------------------------------


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
    kept: bool  # whether a recorded one comes along


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
    """An answer: where the model is, its own loop, and the tokens that it can read at once."""

    loop: dict[str, Any]
    context: int


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


class LabSnapshot(_LabState):
    """All there is of a measurement, but only the first rows of many."""

    kind: Literal["snapshot"]
    task: str
    model: str
    columns: list[Column]
    rows: list[Row]
    headline: str  # its result in words, so far
    opens: bool  # whether a row's model can be opened in Explore
    figure: Union[Figure, None]  # noqa: UP007


class _LabNews(_LabState):
    kind: Literal["news"]
    first: int
    rows: list[Row]


class LabNews(_LabNews, total=False):
    """Rows from number `first` on, and how far it is."""

    headline: str
    figure: Union[Figure, None]  # noqa: UP007


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
    task: str
    values: dict[str, Any]


# --- Learn ------------------------------------------------------------------------------------------------------------------

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
    shown: Texts  # by what is measured, how its numbers are written: loops, mean, share, bytes or plain
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


class TryLesson(TypedDict):
    """A step's runs."""

    lang: Lang
    ticket: str
    n: int
    id: str  # of one of ours; "": it is in `source`
    source: str
    step: str
    what_if: bool


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


# Types that scripts use by name, beside those of messages.
TYPES: Mapping[str, Any] = {"Lang": Lang, "Row": Row, "TokenRow": TokenRow, "Pieces": Pieces, "Values": Values}

# --- who says what ----------------------------------------------------------------------------------------------------------

MESSAGES: Mapping[str, tuple[type, ...]] = {
    "learn": (LearnConfig, MeasureStatus, LessonProgress, LessonResult),
    "explore": (ExploreConfig, ExploreStatus, ExploreSnapshot, Frames, LinkMade, Brought),
    "compare": (CompareConfig, MeasureStatus, CompareSnapshot, CompareNews),
    "lab": (LabConfig, MeasureStatus, LabSnapshot, LabNews),
}
# By page and the method that answers: what is asked, and the answers there may be.
QUESTIONS: Mapping[str, Mapping[str, tuple[type, tuple[type, ...]]]] = {
    "learn": {
        "lesson": (OpenLesson, (OpenedLesson, Failed)),
        "model": (AskLabModel, (LabModel, Failed)),
        "look": (LookTried, (LessonResult, Gone, Failed)),
        "judge": (JudgeGuess, (Judged, Gone, Failed)),
        "stop": (StopMeasured, (Done, Failed)),
        "pack": (PackLesson, (PackedLesson, Failed)),
        "code": (DrawCode, (LinkCode, Failed)),
        "answers": (AnswersAsked, (KeptFile, Failed)),
    },
    "explore": {
        "resync": (Resync, (ExploreSnapshot, Current, Gone, Failed)),
        "focus": (Look, (ExploreSnapshot, Gone, Failed)),
        "advance": (Advance, (Steps, ExploreSnapshot, Gone, Failed)),
        "explain": (Explain, (Told, Gone, Failed)),
        "text_until": (TextUntil, (Prompt, Gone, Failed)),
        "guesses": (AskGuesses, (Guesses, Gone, Failed)),
        "model_status": (AskModel, (ModelStatus, Failed)),
    },
    "compare": {
        "check": (Check, (Checked, Failed)),
        "look": (LookCompared, (CompareSnapshot, Gone, Failed)),
        "stop": (StopCompared, (Done, Failed)),
        "download": (Download, (KeptFile, Gone, Failed)),
        "opening": (OpenLink, (OpenedComparison, Failed)),
    },
    "lab": {
        "tasks": (ListTasks, (LabTasks, Failed)),
        "model": (AskLabModel, (LabModel, Failed)),
        "sizes": (AskSizes, (LabSizes, Failed)),
        "look": (LookMeasured, (LabSnapshot, Gone, Failed)),
        "link": (LinkRow, (RowLink, Gone, Failed)),
        "stop": (StopMeasured, (Done, Failed)),
        "download": (Download, (KeptFile, Gone, Failed)),
    },
}
# By page, what the script has Gradio say; None: no more than that.
EVENTS: Mapping[str, Mapping[str, Union[type, None]]] = {  # noqa: UP007
    "explore": {
        "loaded": None,
        "start": Start,
        "halt": Halt,
        "again": Retype,
        "adopt": Adopt,
        "dial": None,
        "retype": Retype,
        "link": MakeLink,
    },
    "learn": {"begin": TryLesson},
    "compare": {"begin": Compare},
    "lab": {"begin": Measure},
}
# What is fetched as a file of its own, by anyone.
DOCUMENTS: tuple[type, ...] = (Opening, OpenedLink, Tour, Glossary)


def check(said: Any, kinds: tuple[type, ...], what: str) -> None:
    """Raise ValueError, naming the place, unless `said` (JSON, as it was sent) is one of these messages.

    Args:
        kinds: as they stand in `MESSAGES`, or as the answers of one of `QUESTIONS`.
        what: how the error begins.
    """
    named = [kind for kind in kinds if not isinstance(said, dict) or _kind_of(kind) in (None, said.get("kind"))]
    if not named:
        raise ValueError(f"{what}: kind={said.get('kind')!r} is none of {', '.join(map(str, map(_kind_of, kinds)))}")
    faults = []
    for kind in named:
        try:
            return check_type(said, kind, what)
        except ValueError as error:
            faults.append(str(error))
    raise ValueError("; ".join(faults))


def _kind_of(message: type) -> str | None:
    """The `kind` that a message says it is; None for one that says none."""
    found = get_args(hints_of(message).get("kind"))
    return found[0] if len(found) == 1 else None
