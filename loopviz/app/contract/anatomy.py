"""What Anatomy and its server say to each other."""

from __future__ import annotations

from typing import Literal, TypedDict, Union

from loopviz.app.contract.explore import Place
from loopviz.app.contract.scripted import ScriptedConfig
from loopviz.app.contract.shared import Lang, MeasureEnd, Number, Text, Texts


class AnatomyStage(TypedDict):
    """A stage of the way through a decoder layer, or before the first (embedding) or after the last."""

    key: str  # it alone; of one name there are several where models differ
    name: str  # its place in the drawing
    title: str  # its words: `anatomy.stage.<title>`
    about: str  # and what it does: `anatomy.about.<about>`
    tensors: list[str]  # the first is the one to draw
    axes: list[str]  # of that one, by letter
    formula: str  # MathML
    reads: list[str]  # stages
    code: Place
    drawn: list[str]  # tensors of its picture; none: it has one of its own
    within: bool  # a layer; else it is of the token
    lab: list[str]  # measurements of the Lab about it; their words: `anatomy.lab.<name>`


class AnatomyConfig(ScriptedConfig):
    """What the script of the Anatomy page is told once."""

    stages: list[AnatomyStage]  # of a plain Llama, in order
    others: list[AnatomyStage]  # that other models have
    betas: list[float]  # of swish, as it is drawn
    colours: Texts  # of a number `below` and `above` 0
    article: list[Place]  # functions and classes of llama.py in their order; their words: `anatomy.article.<name>`


class PackedNumbers(TypedDict):
    """A tensor: floats, little-endian, base64, each times `scale`; NaN is a number that is not finite."""

    shape: list[int]
    dtype: Literal["float16", "float32"]  # the wider where it has numbers too small for the other
    scale: float
    data: str


Facts = dict[str, Number]


class AnatomyRun(TypedDict):
    """An answer: a run, before any of it is read again."""

    kind: Literal["run"]
    run: str
    model: str  # by which name it is had
    called: str
    linked: bool  # a file names the model, and the visitor is asked before it is loaded
    about: str
    layers: int
    blocks: list[tuple[int, int, int]]  # first and last layer, most loop steps
    tokens: list[tuple[str, int, Literal[0, 1]]]  # text, loops, whether of the prompt
    next: str
    palette: list[Text]
    telling: int  # the token to open on


class Agreement(TypedDict):
    """How what was read again stands to what the run recorded: :class:`loopviz.anatomy.reread.Agreement`."""

    steps: bool
    states: Number  # in units of float16's rounding
    norm: Number
    logprob: Number
    compared: bool  # whether any number was recorded to compare with
    is_the_runs: bool


class AnatomyToken(TypedDict):
    """A token that was read again."""

    kind: Literal["token"]
    look: str
    run: str
    ticket: str
    token: int
    runs: list[tuple[int, int, int]]  # layer, block or -1, loop step: in their order
    reasons: list[str]
    steps: list[Facts]
    agreement: Agreement
    tensors: dict[str, PackedNumbers]
    each: dict[str, int]  # of how many neighbours a number is the largest
    facts: dict[str, Facts]


class ShownColumns(TypedDict):
    """Which columns attention could read, and which of them are shown."""

    total: int
    seen: int
    places: list[int]  # among all
    positions: list[int]
    slots: list[int]
    visible: list[bool]
    keys: list[int]  # places among those shown
    share: list[float]  # by query head, of its weights what is shown


class AnatomyLayer(TypedDict):
    """An answer: a layer in a loop step."""

    kind: Literal["layer"]
    layer: int
    block: int
    step: int
    stages: list[str]  # keys of what was computed of the token, this layer in the middle, in order
    tensors: dict[str, PackedNumbers]
    each: dict[str, int]
    columns: ShownColumns
    facts: dict[str, Facts]
    frequencies: list[float]  # radians by which each pair of a head turns at every position
    position: int
    shapes: dict[str, dict[str, int]]


class AnatomyBeside(TypedDict):
    """An answer: two loop steps of a layer, by stage the cosine of their tensors and the relative change."""

    kind: Literal["beside"]
    stages: dict[str, Union[list[Number], None]]  # noqa: UP007


_DistanceFrom = TypedDict("_DistanceFrom", {"from": int})


class AnatomyDistance(_DistanceFrom):
    """An answer: a score at each distance from one on, the run's own among them."""

    kind: Literal["distance"]
    scores: PackedNumbers


class AnatomyDraw(TypedDict):
    """An answer: what the next token would be drawn from."""

    kind: Literal["draw"]
    rows: list[tuple[str, Number, Number, Number]]  # text, logit, its share, its chance of being drawn
    kept: int
    vocabulary: int


class ParityRow(TypedDict):
    """`llama.py` against transformers in one dtype and one way of attention: :class:`loopviz.engine.engine.ParityRow`."""

    subject: str
    dtype: str
    attention: str
    logits: int
    equal: bool
    agrees: bool
    max_delta_logit: Number
    largest_logit: Number
    delta_loss: Number
    loss: Number
    cause: str  # its words: `anatomy.cause.<cause>`
    bound: Number
    own: Number


class AnatomyParity(TypedDict):
    """The rows of a check so far."""

    kind: Literal["parity"]
    ticket: str
    article: bool
    rows: list[ParityRow]
    end: MeasureEnd


class ParityNeeded(TypedDict):
    """An answer: what a check takes, in words; or why it is refused."""

    kind: Literal["need"]
    refused: bool
    text: str


class AskNeed(TypedDict):
    """What does a check take?"""

    article: bool
    model: str
    lang: Lang


class NotThere(TypedDict):
    """An answer: there is no such layer or loop step, and what there is."""

    kind: Literal["no"]
    field: str
    text: str


class ShowRun(TypedDict):
    """Which run is this? None: the recorded one."""

    run: Text
    lang: Lang


class _Dissect(TypedDict):
    lang: Lang
    ticket: str
    n: int
    run: Text
    token: int


class Dissect(_Dissect, total=False):
    """A token of a run, to be read again, by another model than it says where one is named; or a check against transformers."""

    model: str
    agreed: bool  # to a model that a file names
    check: Literal["model", "article"]


class AskLayer(TypedDict):
    """What did a layer compute in a loop step?"""

    look: Text
    layer: int
    step: int
    lang: Lang


class AskBeside(AskLayer):
    """What have two loop steps in common?"""

    other: int


class AskDistance(AskLayer):
    """What would a query head score with a column's key at other distances, up to the most?"""

    head: int
    column: int
    most: int


class AskDraw(TypedDict):
    """What would the next token be drawn from?"""

    look: Text
    temperature: float
    top_k: int
    top_p: float
    lang: Lang
