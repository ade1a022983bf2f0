"""What a measurement is: a task takes a model and parameters and yields rows.

A new measurement is one module: a parameters dataclass, a generator of rows, the columns' words, `register`, and the
module's name in `loopviz.lab.MODULES`.

    @dataclass(frozen=True)
    class Params:
        file: str = param("", "Text file to measure on.", "用于测量的文本文件。", kind="file")
        loops: tuple[int, ...] = param((1, 2, 4), "Loop counts.", "循环次数。")
        def __post_init__(self) -> None: ...    # refuses: ValueError("loops=(0,): must be >= 1")
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from loopviz.engine import weights_digest
from loopviz.model import LoopLlamaForCausalLM

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    from transformers import PreTrainedTokenizerBase

    from loopviz.model.checkpoints import LoadedCheckpoint

Value = str | int | float | bool | None
Row = dict[str, Value]
Words = dict[str, str]  # "en", "zh"

KINDS = ("value", "text", "file", "loop")


class Params(Protocol):
    """A task's parameters: a frozen dataclass whose fields are made with :func:`param`.

    Fields are str, int, float, bool, `None`, tuples of these, or (kind "loop") dicts of loop fields; all have defaults.
    `__post_init__` checks them and raises `ValueError` naming the field, its value and the rule.
    """

    __dataclass_fields__: typing.ClassVar[dict[str, Any]]


def param(default: Any, en: str, zh: str, *, kind: str = "value", choices: tuple[str, ...] | None = None) -> Any:
    """A field of a parameters dataclass, with the words that command line and page show beside it.

    Args:
        default: its value when nobody says otherwise.
        en, zh: one sentence on what it does, with the unit.
        kind: "value"; "text": a text, given inline; "file": path of a UTF-8 text (the manifest keeps its hash);
            "loop": dict of `LoopLlamaConfig` loop fields, `{}` = the checkpoint's own, `None` = without a loop.
        choices: the only values allowed, for forms; `__post_init__` still has to refuse others.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}: must be one of {', '.join(KINDS)}")
    metadata = {"words": {"en": en, "zh": zh}, "kind": kind, "choices": choices}
    if isinstance(default, (dict, list)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


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


@dataclass(frozen=True)
class Size:
    """How much of a measurement: parameters that a page fills in and runs at one press.

    Attributes:
        words: by language, what the press is called, with about how long it takes.
        values: by name; the others stay as the visitor left them.
    """

    words: Words
    values: dict[str, Any]


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
        summary: table -> the table that the command line prints instead, where rows are too many to read; files have all.
        settings: `(subject, row, params)` -> the loop fields (:func:`param`, kind "loop") of the model that the row speaks of, so
            that a page can open it; `None` for a row that is no model's. `None` where no row is.
        sizes: how much of it a page offers at one press, smallest first.
        first: parameters with which a form opens where the defaults, which are those of the command line, would take a
            newcomer's first measurement minutes.
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

    def __post_init__(self) -> None:
        for thing in dataclasses.fields(self.params):
            if thing.metadata.get("kind") not in KINDS:
                raise ValueError(f"{self.params.__name__}.{thing.name}: make this field with loopviz.lab.param()")
        if unknown := set(self.first) - {thing.name for thing in dataclasses.fields(self.params)}:
            raise ValueError(f"first={sorted(unknown)}: {self.params.__name__} has no such parameters")


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


@dataclass(frozen=True)
class Subject:
    """A model as the thing that is measured.

    Attributes:
        model: in eval mode; never changed, tasks take views of it.
        tokenizer: of the model.
        name: what was asked for (`load_checkpoint`'s name, so that a manifest can ask for it again).
        source: where the weights came from, for people to read.
    """

    model: LoopLlamaForCausalLM
    tokenizer: PreTrainedTokenizerBase
    name: str
    source: str

    @classmethod
    def of(cls, loaded: LoadedCheckpoint) -> Subject:
        """The subject a loaded checkpoint is."""
        return cls(loaded.model, loaded.tokenizer, loaded.name, loaded.source)

    @cached_property
    def digest(self) -> str:
        """The model's hash (:func:`loopviz.engine.weights_digest`)."""
        return weights_digest(self.model)

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
        ValueError: an unknown name, a value of another type, or one that the dataclass refuses.
    """
    if not isinstance(values, dict):
        raise ValueError(f"params={values!r}: must be a mapping of names to values")
    hints = typing.get_type_hints(kind)
    known = [thing.name for thing in dataclasses.fields(kind)]
    for name, value in values.items():
        if name not in known:
            raise ValueError(f"{name}={value!r}: there is no such parameter; there are {', '.join(known)}")
    return kind(**{name: _typed(name, value, hints[name]) for name, value in values.items()})


def plain_data(value: Any) -> Any:
    """As JSON has it: lists instead of tuples, texts as keys."""
    if isinstance(value, dict):
        return {str(key): plain_data(item) for key, item in value.items()}
    return [plain_data(item) for item in value] if isinstance(value, (list, tuple)) else value


def _typed(name: str, value: Any, hint: Any) -> Any:
    """`value` as what `hint` says, JSON's lists as tuples and whole numbers as floats where a float is wanted."""
    for option in options_of(hint):
        if option is type(None) and value is None:
            return None
        if typing.get_origin(option) is tuple and isinstance(value, (list, tuple)):
            inner = typing.get_args(option)[0]
            return tuple(_typed(name, item, inner) for item in value)
        if typing.get_origin(option) is dict or option is dict:
            if isinstance(value, dict):
                return value
            continue
        if option is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        if option in (str, int, bool) and type(value) is option:
            return value
    raise ValueError(f"{name}={value!r}: must be {describe(hint)}")


def options_of(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the one type."""
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def describe(hint: Any) -> str:
    """A type in words, for messages."""
    words = {str: "text", int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}
    said = []
    for option in options_of(hint):
        if typing.get_origin(option) is tuple:
            said.append(f"a list, each entry {describe(typing.get_args(option)[0])}")
        else:
            said.append(words.get(option, "a mapping"))
    return " or ".join(said)


# -- checks that parameters share --------------------------------------------------------------------------------------


def check_counts(name: str, values: tuple[int, ...], least: int = 1) -> None:
    """Refuse a tuple that is empty, or not ascending whole numbers >= `least`."""
    good = bool(values) and all(type(value) is int for value in values)
    if not good or values[0] < least or list(values) != sorted(set(values)):
        raise ValueError(f"{name}={values!r}: must be ascending whole numbers >= {least}, at least one")


def check_number(name: str, value: Any, least: float, most: float = math.inf) -> None:
    """Refuse a number outside `least..most`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        limit = f">= {least}" if most == math.inf else f"in {least}..{most}"
        raise ValueError(f"{name}={value!r}: must be {limit}")


def check_text(text: str, file: str) -> None:
    """Refuse parameters that name no text, or two, or one that is none."""
    if bool(text) == bool(file):
        given = "both are given" if text else "neither is given"
        raise ValueError(f"text, file: give exactly one of them; {given}")
    check_characters("text", text)


def check_characters(name: str, text: str) -> None:
    """Refuse a text that no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{name}: half a surrogate pair at character {error.start}, which is no text; remove it"
        ) from None
