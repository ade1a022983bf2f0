"""Running a prompt through a LoopLlama: settings in, Frames out.

engine      how anybody reaches a model, wherever it runs: `Engine`, and the plain data it takes and gives
local       the engine of a model in this process, and how one is loaded
stream      the decode loop
batch       runs at the same time share passes; `many`: a list of prompts does
work        what work costs, known before it begins

Kept free of heavy imports: the names below are imported when they are asked for, so that a page can speak to an engine
before, or without, importing PyTorch.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loopviz.engine.many import stream_many
    from loopviz.engine.pieces import Pieces, TokenTexts, encode_prompt, unknown_words
    from loopviz.engine.provenance import gates_digest, provenance, shown_name, weights_digest
    from loopviz.engine.sampling import Sampler, StreamSettings
    from loopviz.engine.steering import Steering
    from loopviz.engine.stream import context_length, run, run_meta, stream
    from loopviz.engine.summary import Summary, summarize

_HOME = {
    "Pieces": "pieces",
    "Sampler": "sampling",
    "Steering": "steering",
    "StreamSettings": "sampling",
    "Summary": "summary",
    "TokenTexts": "pieces",
    "context_length": "stream",
    "encode_prompt": "pieces",
    "gates_digest": "provenance",
    "provenance": "provenance",
    "run": "stream",
    "run_meta": "stream",
    "shown_name": "provenance",
    "stream": "stream",
    "stream_many": "many",
    "summarize": "summary",
    "unknown_words": "pieces",
    "weights_digest": "provenance",
}

__all__ = [
    "Pieces",
    "Sampler",
    "Steering",
    "StreamSettings",
    "Summary",
    "TokenTexts",
    "context_length",
    "encode_prompt",
    "gates_digest",
    "provenance",
    "run",
    "run_meta",
    "shown_name",
    "stream",
    "stream_many",
    "summarize",
    "unknown_words",
    "weights_digest",
]


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _Package(ModuleType):
    """Two functions, `stream` and `provenance`, are called as their modules are: here the function is what is meant.

    The import system binds a module under its name once it has been imported, whoever imported it.
    """

    def __setattr__(self, name: str, value: object) -> None:
        own = isinstance(value, ModuleType) and _HOME.get(name) == name
        super().__setattr__(name, getattr(value, name) if own else value)


sys.modules[__name__].__class__ = _Package
