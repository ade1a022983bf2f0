"""What the Teach page and its server say to each other."""

from __future__ import annotations

from typing import Any, Literal, TypedDict, Union

from loopviz.app.contract.lab import Samples
from loopviz.app.contract.scripted import ScriptedConfig
from loopviz.app.contract.shared import Figure, Lang, MeasureEnd, ModelState, Number, Text, Texts


class TeachField(TypedDict):
    """A number of the form, with its ends and what it opens with."""

    name: str
    kind: Literal["whole", "number"]
    low: float
    high: float
    value: float


class TeachConfig(ScriptedConfig):
    """What the script of the Teach page is told once."""

    teaches: bool  # whether this server teaches anything
    able: bool  # whether peft is here
    install: str  # the command that brings it
    fields: list[TeachField]
    kinds: list[str]  # of data
    prompt_templates: list[str]  # of prompts and responses, as the form has them
    samples: Samples  # texts to begin with
    prompts: Texts  # the fixed one to begin with, by model; "": of any other
    limit: int  # characters of a text
    file: str  # where what is kept is fetched from; {run} stands in it


class _TeachModel(TypedDict):
    kind: Literal["model"]
    name: str
    state: ModelState
    text: str


class TeachModel(_TeachModel, total=False):
    """An answer: where the model is, and what of the form it decides."""

    usual: dict[str, int]
    layers: int
    context: int


class TeachKept(TypedDict):
    """What was kept: a folder as peft writes it, packed."""

    name: str
    bytes: int
    loops: int  # its default
    said: str  # what it is worth
    command: str  # that opens it
    link: Text  # the word that opens it on Compare, beside the model without it; None where no folder may be named


class TeachSnapshot(TypedDict):
    """All there is of a teaching."""

    kind: Literal["snapshot"]
    run: str
    ticket: str
    model: str
    phase: Literal["loading", "training", "paused", "line", "over", "keeping"]
    step: int
    steps: int
    tokens: int
    seconds: float
    eta: Number  # seconds
    trained: int  # parameters
    seed: int
    command: str  # that teaches the same
    end: MeasureEnd
    reason: str
    figures: dict[str, Figure]
    summaries: Texts  # by figure
    kept: Union[TeachKept, None]  # noqa: UP007


class _BeginTeach(TypedDict):
    lang: Lang
    ticket: str
    n: int


class BeginTeach(_BeginTeach, total=False):
    """A teaching; or, of one that there is, that it be kept."""

    model: str
    prompt: str
    text: str
    values: dict[str, Any]
    keep: Text  # the run


class LookTaught(TypedDict):
    """A teaching anew, in another language."""

    run: Text
    lang: Lang


class PauseTeaching(TypedDict):
    """Rest after the step at hand, or go on."""

    run: Text
    on: bool
