"""What messages of several pages are made of."""

from __future__ import annotations

from typing import Any, Literal, TypedDict, Union

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
PageName = Literal["learn", "explore", "anatomy", "ttt", "compare", "lab", "teach"]
Lang = Literal["en", "zh"]
ModelState = Literal["waiting", "importing", "loading", "ready", "failed", "ask"]
RunEnd = Literal["eos", "length", "context", "stopped", "time", "memory", "error", None]  # None: it is being made
MeasureEnd = Literal["done", "stopped", "time", "memory", "error", None]
# A token of the text: its text, the loops of each block, why each stopped, whether it is of the prompt, log p of what came
# next (nats), milliseconds since the run began, runs that shared its pass.
TokenRow = tuple[str, list[int], list[str], Literal[0, 1], Number, Number, Whole]
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
    threshold: Union[float, None]  # noqa: UP007


class _Act(TypedDict):
    label: str


class Act(_Act, total=False):
    """A button that leads out of what was refused, or lacks: another model, all that is set in another precision, this run with a gate
    that chooses, a measurement of the Lab, or this run again."""

    model: str
    precision: str
    exit_threshold: float
    task: str  # of the Lab
    values: dict[str, Any]  # its fields


class Notes(TypedDict):
    """What is to be known of a model that is there, or of several."""

    count: str
    about: str
    said: list[str]


class Failed(TypedDict):
    """An answer that nobody foresaw: words for the visitor, with a reference to the log."""

    kind: Literal["failed"]
    state: Literal["failed"]
    text: str


class Gone(TypedDict):
    """An answer: the server has no such run (any more)."""

    kind: Literal["gone"]


class Begun(TypedDict, total=False):
    """What is said besides with whatever a page begins."""

    visitor: str  # a name that this browser has made up, by which its tabs are one visitor in the line


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
