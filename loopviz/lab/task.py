"""What a measurement is: a task takes a model and parameters and yields rows.

A new measurement is one module in `loopviz/lab/tasks/`: a parameters dataclass, a generator of rows, the columns' words,
`register`.

    @dataclass(frozen=True)
    class Params:
        file: str = param("", "Text file to measure on.", "用于测量的文本文件。", kind="file")
        loops: tuple[int, ...] = param((1, 2, 4), "Loop counts.", "循环次数。", low=1, high=MOST_LOOPS)
        def __post_init__(self) -> None: check_counts("loops", self.loops)    # FieldError: loops=(0,): must be ascending ...
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from loopviz.checks import ABSENT, FieldError, Term, check_characters, check_one_of, is_number, shortened
from loopviz.checks import check_counts as check_counts  # offered here too, to who writes a task
from loopviz.checks import check_number as check_number
from loopviz.checks import check_whole as check_whole
from loopviz.engine import gates_digest, weights_digest
from loopviz.engine.pieces import encode
from loopviz.engine.work import Shape, Work
from loopviz.fields import options_of as options_of
from loopviz.fields import typed_values
from loopviz.lab.computed_with import machine, versions
from loopviz.lab.walk import Walk
from loopviz.loop_fields import BLOCK_FIELDS
from loopviz.model import LoopLlamaForCausalLM
from loopviz.model.configuration import LOOP_FIELDS

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    from transformers import PreTrainedTokenizerBase

    from loopviz.engine.local import LocalEngine
    from loopviz.model.checkpoints.load import LoadedCheckpoint

Value = str | int | float | bool | None
Row = dict[str, Any]  # of Value
Words = dict[str, str]  # "en", "zh"

KINDS = ("value", "text", "file", "loop", "models")
GROUPS = ("", "anatomy")

# Ends of numbers, for everybody: what lies beyond is nonsense on any machine, and would be expanded before it is looked at.
MOST_LOOPS = 1_024
MOST_TOKENS = 10_000_000
MOST_BATCH = 4_096
MOST_WINDOW = 1_000_000
MOST_SEED = 2**32 - 1
SAMPLE = 2_000  # characters of a stretch of a text whose tokens are counted
MOST_LISTED = 64  # entries of a list
USUAL_ENDS = (-1e9, 1e9)  # of a number that states none
# Numbers of a loop's fields; the model says what it takes between them.
LOOP_ENDS: dict[str, tuple[float, float]] = {
    field.name: (0, MOST_LOOPS) for field in BLOCK_FIELDS if field.kind == "whole"
}


class Params(Protocol):
    """A task's parameters: a frozen dataclass whose fields are made with :func:`param`.

    Fields are str, int, float, bool, `None`, tuples of these, or (kind "loop") dicts of loop fields; all have defaults.
    `__post_init__` checks them and raises `FieldError` (:mod:`loopviz.checks`) with the field, its value and the rule.
    """

    __dataclass_fields__: typing.ClassVar[dict[str, Any]]


def param(
    default: Any,
    en: str,
    zh: str,
    *,
    kind: str = "value",
    choices: Sequence[str] | Callable[[], Sequence[str]] | None = None,
    low: float | None = None,
    high: float | None = None,
    most: int = MOST_LISTED,
) -> Any:
    """A field of a parameters dataclass, with the words that command line and page show beside it.

    Args:
        default: its value when nobody says otherwise.
        en, zh: one sentence on what it does, with the unit.
        kind: "value"; "text": a text, given inline; "file": path of a UTF-8 text (the manifest keeps its hash);
            "loop": dict of `LoopLlamaConfig` loop fields, `{}` = the checkpoint's own, `None` = without a loop; "models": names of
            models beside the one that is measured (:mod:`loopviz.lab.fellows`; `Subject.free` says which may be named).
        choices: the only values allowed, for forms (:func:`choices_of`), or what gives them where people register more;
            `__post_init__` still has to refuse others.
        low, high: ends of a number, or of each of several, inclusive; what lies beyond is refused before anything is made of
            it. A number that states none has `USUAL_ENDS`.
        most: entries of a list.
    """
    check_one_of("kind", kind, KINDS, quoted=False)
    metadata: dict[str, Any] = {"words": {"en": en, "zh": zh}, "kind": kind, "choices": choices}
    metadata |= {"low": low, "high": high, "most": most}
    if isinstance(default, (dict, list)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def loop_param() -> Any:
    """The field `loop` of a measurement that can be made of the model without its loop as well."""
    return param(
        {},
        "Loop fields to change; null measures the model without its loop.",
        "要更改的循环设置；null 表示去掉循环。",
        kind="loop",
    )


def choices_of(metadata: Mapping[str, Any]) -> Sequence[str] | None:
    """The values that a parameter may have, from its field's metadata; None where any may."""
    choices = metadata["choices"]
    return choices() if callable(choices) else choices  # as `param` took it


@dataclass(frozen=True)
class Column:
    """A column of a task's table.

    Attributes:
        name: as in the rows and files.
        unit: "nats", "bytes", ...; "" for names and pure numbers.
        words: by language, the heading and its one-line explanation: `"perplexity: exp of the mean loss"`.
    """

    name: str
    unit: str
    words: Words


def column(name: str, unit: str, en: str, zh: str) -> Column:
    """A column with its words in both languages."""
    return Column(name, unit, {"en": en, "zh": zh})


@dataclass(frozen=True)
class Size:
    """How much of a measurement: parameters that a page fills in and runs at one press, and says about how long it takes.

    Attributes:
        words: by language, what the press is called.
        values: by name; the others stay as the visitor left them.
        seconds: that it may take on the machine at hand; None: as long as it takes.
        fits: whole numbers among its parameters that are lowered, each in turn, until it does.
    """

    words: Words
    values: dict[str, Any]
    seconds: float | None = None
    fits: tuple[str, ...] = ()


QUICK, FULL = {"en": "Quick", "zh": "快速"}, {"en": "Full", "zh": "完整"}  # the words of the two sizes
QUICK_SECONDS = 5.0


@dataclass(frozen=True)
class Task:
    """A measurement.

    Attributes:
        name: as on the command line.
        params: the parameters dataclass (see :class:`Params`).
        columns: of its table, in order; every row has exactly these keys.
        cells: `(subject, params)` -> rows that will come, for progress.
        run: `(subject, params)` -> rows, each yielded as soon as it is known, and where long work has no row to show yet
            but may be left: how much of all is done, in 0..1, or `None` where that is not known. Closing the generator
            cancels the work; what was yielded is kept. Raises ValueError for what is refused, before the first row
            where it can.
        words: by language: "title", "question" (what it answers), "how" (how it is measured), "cost".
        plot: `(table, lang)` -> figure of a table, finished or not; `None` without one.
        headline: `(rows, language)` -> the result in a sentence or two, by rules from the rows there are (:mod:`loopviz.lab.headline`);
            "" where they say nothing yet. It never raises.
        summary: table -> the table that the command line prints instead, where rows are too many to read; files have all.
        settings: `(subject, row, params)` -> the loop fields (:func:`param`, kind "loop") of the model that the row speaks of, so
            that a page can open it; `None` for a row that is no model's. `None` where no row is.
        sizes: how much of it a page offers at one press, smallest first; made of `first` where it states none: quick with
            these, and full with the defaults instead.
        fits: of these the numbers that quick lowers where it would take too long.
        asks: the parameters that a page asks for beside model and text; the others are for who repeats a measurement.
        first: parameters with which a form opens where the defaults, which are those of the command line, would take a
            newcomer's first measurement minutes.
        work: `(subject, params)` -> what it costs (:mod:`loopviz.engine.work`), by arithmetic: nothing of the measurement is
            made for it. Without it a server with limits cannot offer the task.
        learns: whether a TTT model can be measured too, as a :class:`~loopviz.lab.fellows.TTTSubject`.
        intervals: whether its figure or table gives bootstrap intervals, so that a page can lead to what these are.
        walk: what a slider under its figure goes along (:mod:`loopviz.lab.walk`); None without one.
        over_loops: whether the figure's x is numbers of loops, so that those the model was trained at can be marked on it.
        varies: loop fields that it sets for its rows by itself: whether they act is not the configuration's to say.
        group: under which a page offers it apart from the others; "" among them. One of `GROUPS`, whose tasks have three more
            words: "seen" (what one sees in the figure), "why" it is so, and "looping" (what it means for a loop).
    """

    name: str
    params: type
    columns: tuple[Column, ...]
    cells: Callable[[Subject, Any], int]
    run: Callable[[Subject, Any], Iterator[Row | float | None]]
    words: dict[str, Words]
    plot: Callable[[pd.DataFrame, str], go.Figure] | None = None
    settings: Callable[[Subject, Row, Any], dict[str, Any] | None] | None = None
    sizes: tuple[Size, ...] = ()
    summary: Callable[[pd.DataFrame], pd.DataFrame] | None = None
    first: dict[str, Any] = field(default_factory=dict)
    work: Callable[[Subject, Any], Work] | None = None
    varies: tuple[str, ...] = ()
    headline: Callable[[Sequence[Row], str], str] | None = None
    fits: tuple[str, ...] = ("limit_tokens",)
    asks: tuple[str, ...] = ()
    walk: Walk | None = None
    over_loops: bool = False
    group: str = ""
    intervals: bool = False
    learns: bool = False

    def __post_init__(self) -> None:
        check_one_of("group", self.group, GROUPS)
        for thing in dataclasses.fields(self.params):
            if thing.metadata.get("kind") not in KINDS:
                raise ValueError(f"{self.params.__name__}.{thing.name}: make this field with loopviz.lab.param()")
        names = {thing.name for thing in dataclasses.fields(self.params)}
        for field_name, named in (("first", self.first), ("asks", self.asks)):
            if unknown := set(named) - names:
                raise ValueError(f"{field_name}={sorted(unknown)}: {self.params.__name__} has no such parameters")
        if self.first and not self.sizes:
            kinds = {thing.name: thing.metadata["kind"] for thing in dataclasses.fields(self.params)}
            quick = {
                name: value for name, value in self.first.items() if kinds[name] == "value"
            }  # texts stay the visitor's
            fits = tuple(name for name in self.fits if name in names)
            quick = {name: default_of(self.params, name) for name in fits} | quick  # full gives back what quick lowers
            defaults = {name: default_of(self.params, name) for name in quick}
            sizes = Size(QUICK, quick, QUICK_SECONDS, fits), Size(FULL, defaults)
            object.__setattr__(self, "sizes", sizes)


def default_of(params: type, name: str) -> Any:
    """The default of one parameter."""
    thing = next(thing for thing in dataclasses.fields(params) if thing.name == name)
    make: Any = thing.default_factory
    return thing.default if thing.default is not dataclasses.MISSING else make()


TASKS: dict[str, Task] = {}  # what has been imported so far; `loopviz.lab.TASKS` imports all


def register(task: Task) -> Task:
    """Make a task known under its name.

    Raises:
        ValueError: the name is taken.
    """
    if task.name in TASKS:
        raise ValueError(f"register({task.name!r}): this name is taken; choose another")
    TASKS[task.name] = task
    return task


def titled(title: Words, words: Mapping[str, Words]) -> dict[str, Words]:
    """A task's words with its title among them, by language."""
    return {lang: {"title": title[lang], **said} for lang, said in words.items()}


@dataclass(frozen=True)
class Subject:
    """A model as the thing that is measured.

    Attributes:
        model: in eval mode; never changed, tasks take views of it.
        tokenizer: of the model.
        name: what was asked for (`load_checkpoint`'s name, so that a manifest can ask for it again).
        source: where the weights came from, for people to read.
        notes: what its files' reader noted although it loaded, by code (`loopviz.model.checkpoints.load.Note`).
        beside: models that are here to be measured beside it, by name (:mod:`loopviz.lab.fellows`).
        free: whether any other may be named beside it; else those that come along, for names that strangers type.
    """

    model: LoopLlamaForCausalLM
    tokenizer: PreTrainedTokenizerBase
    name: str
    source: str
    notes: tuple[str, ...] = ()
    beside: dict[str, Subject] = field(default_factory=dict, compare=False, repr=False)
    free: bool = True
    _lengths: dict[str, float] = field(default_factory=dict, compare=False, repr=False)  # see `tokens_in`

    @classmethod
    def of(cls, loaded: LoadedCheckpoint) -> Subject:
        """The subject a loaded checkpoint is."""
        return cls(
            loaded.model, loaded.tokenizer, loaded.name, loaded.source, tuple(note.code for note in loaded.notes)
        )

    @classmethod
    def of_engine(cls, engine: LocalEngine, *, beside: dict[str, Subject] | None = None, free: bool = True) -> Subject:
        """The subject that an engine of this process has."""
        notes = tuple(note.code for note in engine.notes)
        return cls(engine.model, engine.tokenizer, engine.name, engine.source, notes, beside or {}, free)

    @cached_property
    def digest(self) -> str:
        """The model's hash (:func:`loopviz.engine.weights_digest`)."""
        return weights_digest(self.model)

    @cached_property
    def gates(self) -> str:
        """The hash of the gates beside the model's weights (:func:`loopviz.engine.gates_digest`); "" where there are none."""
        return gates_digest(self.model)

    @property
    def machine(self) -> dict[str, Any]:
        """What computes it: cores, threads, device."""
        return machine(self.model.device)

    @property
    def versions(self) -> dict[str, str]:
        """Of what a result depends on, where it is computed."""
        return versions()

    def measured(self, task: Task, params: Any) -> Iterator[Row | float | None]:
        """The rows of a measurement of it, as :attr:`Task.run`."""
        return task.run(self, params)

    def shape(self, view: LoopLlamaForCausalLM | None = None) -> Shape:
        """What of the model, or of a view of it, decides what work costs."""
        return Shape.of((view or self.model).config, self.model.dtype.itemsize)

    def tokens_in(self, text: str) -> int:
        """About how many tokens a text has, told from a few stretches of it."""
        key = f"{len(text)} {hash(text)}"
        if key not in self._lengths:
            stretches = [text[at : at + SAMPLE] for at in (0, len(text) // 2, max(0, len(text) - SAMPLE))]
            stretches = [text] if len(text) <= 3 * SAMPLE else stretches
            tokens = sum(
                len(encode(self.tokenizer, part, add_special_tokens=False, verbose=False)) for part in stretches
            )
            self._lengths[key] = tokens * len(text) / max(1, sum(map(len, stretches)))
        return math.ceil(self._lengths[key])

    def view(self, loop: dict[str, Any] | None) -> LoopLlamaForCausalLM:
        """A model object of its own on the same weights with these loop fields (see :func:`param`, kind "loop").

        Raises:
            ValueError: a field that is unknown or breaks its rule, by name.
        """
        return self.model.with_loop(**({"loop_layers": None} if loop is None else loop))


# -- parameters as data ------------------------------------------------------------------------------------------------


def params_to_json(params: Any) -> dict[str, Any]:
    """Parameters as JSON-able data (tuples become lists)."""
    return plain_data(dataclasses.asdict(params))


def params_from_json(kind: type, values: dict[str, Any]) -> Any:
    """Parameters from JSON-able data; what is missing takes its default.

    Raises:
        FieldError: an unknown name, a value of another type, one beyond its ends (:class:`BeyondEnds`), or one that the
            dataclass refuses.
    """
    if not isinstance(values, dict):
        raise FieldError("params", values, "kind", kind=Term(("mapping",)))
    hints = typing.get_type_hints(kind)
    floats = {name: value for name, value in values.items() if _may_be_float(value, hints.get(name))}
    check_ends(kind, floats, above=True)  # by its ends is refused, too, what no float can hold
    typed = typed_values(kind, values, unknown="no_parameter")
    check_ends(kind, typed, above=True)
    made = kind(**typed)  # says in its own words what is too little
    check_ends(kind, vars(made))
    return made


def _may_be_float(value: Any, hint: Any) -> bool:
    """Whether it is a number, or a list, where a parameter's type has one with a fraction, or several."""
    wanted = (float,) if is_number(value) else (tuple[float, ...],) if isinstance(value, (list, tuple)) else ()
    return any(option in wanted for option in options_of(hint))


def param_of(kind: type, error: FieldError) -> str:
    """The parameter that a refusal speaks of: the field itself, or the one that holds it; "" for none.

    What a refusal is within is a parameter of loop settings, a configuration by its name, or a line of a file (`pairs='a', ...`).
    """
    kinds = {thing.name: thing.metadata["kind"] for thing in dataclasses.fields(kind)}
    if kinds.get(error.within) == "loop":
        return error.within
    if error.field in kinds and not error.within:  # else it is a configuration's own, whatever the two are called
        return error.field
    of_loop = error.field in LOOP_FIELDS or error.rule == "not_a_loop_field"
    file = error.within.partition("=")[0]
    if not of_loop and kinds.get(file) == "file":
        return file
    return next((name for name, kind in kinds.items() if kind == "loop" and (of_loop or error.within)), "")


def plain_data(value: Any) -> Any:
    """As JSON has it: lists instead of tuples, texts as keys."""
    if isinstance(value, dict):
        return {str(key): plain_data(item) for key, item in value.items()}
    return [plain_data(item) for item in value] if isinstance(value, (list, tuple)) else value


# -- both ends of every number -----------------------------------------------------------------------------------------


class BeyondEnds(FieldError):
    """A number outside its ends, or a list that is too long."""


def check_ends(kind: type, values: Mapping[str, Any], *, above: bool = False) -> None:
    """Refuse, before anything is made of them, values of parameters `kind` beyond the ends their fields state.

    Args:
        above: only what is too much, or no number.

    Raises:
        BeyondEnds: naming the parameter.
    """
    for thing in dataclasses.fields(kind):
        if thing.name in values:
            _check_within(thing.name, values[thing.name], thing.metadata, above)


def ends_of(metadata: Mapping[str, Any]) -> tuple[float, float]:
    """The ends that a field's metadata states, or the usual ones."""
    low, high = (metadata.get(name) for name in ("low", "high"))
    return (USUAL_ENDS[0] if low is None else low), (USUAL_ENDS[1] if high is None else high)


def _check_within(name: str, value: Any, metadata: Mapping[str, Any], above: bool) -> None:
    left = [(name, value, metadata, "")]  # however deep lists are in lists
    while left:
        name, value, metadata, within = left.pop()
        if isinstance(value, Mapping):
            ends = {key: LOOP_ENDS.get(key, USUAL_ENDS) for key in reversed(value)}
            left += [(str(key), value[key], {"low": low, "high": high}, name) for key, (low, high) in ends.items()]
        elif isinstance(value, (list, tuple)):
            most = metadata.get("most", MOST_LISTED)
            if len(value) > most:
                raise BeyondEnds(name, ABSENT, "entries", within=within, n=f"{len(value):,}", most=most)
            left += [(name, item, metadata, within) for item in reversed(value)]
        elif is_number(value):
            _check_number(name, value, metadata, above, within)


def _check_number(name: str, value: float, metadata: Mapping[str, Any], above: bool, within: str) -> None:
    low, high = ends_of(metadata)
    least = min(low, USUAL_ENDS[0]) if above else low
    if not least <= value <= high:  # nor is a NaN
        ends = {"low": f"{low:,.12g}", "high": f"{high:,.12g}"}
        raise BeyondEnds(name, value, "from_to", within=within, shown=shortened(value), **ends)


def check_text(text: str, file: str) -> None:
    """Refuse parameters that name no text, or two, or one that is none."""
    if bool(text) == bool(file):
        raise FieldError("text", ABSENT, "one_text_both" if text else "one_text_neither", also=("file",))
    check_characters("text", text)
