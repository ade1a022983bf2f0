"""A text read from its beginning, as far as a model can read at once: what the small experiments of Anatomy measure on."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from loopviz.checks import ABSENT, FieldError, check_whole
from loopviz.engine import context_length
from loopviz.lab.experiment import read_file
from loopviz.lab.reading.windows import encode
from loopviz.lab.task import MOST_WINDOW, Subject, check_text, param
from loopviz.model import LoopLlamaForCausalLM
from loopviz.model.watching import shallow


@dataclass(frozen=True)
class PassParams:
    """Which text, and how much of its beginning."""

    text: str = param("", "Text to measure on.", "用于测量的文本。", kind="text")
    file: str = param(
        "", "UTF-8 text file to measure on, instead of a text.", "用于测量的 UTF-8 文本文件（代替文本）。", kind="file"
    )
    tokens: int = param(
        128,
        "Tokens read at most, and never more than the model can read at once.",
        "最多读入的词元数，且不超过模型一次能读的长度。",
        low=2,
        high=MOST_WINDOW,
    )

    def __post_init__(self) -> None:
        check_text(self.text, self.file)
        check_whole("tokens", self.tokens, 2)

    def read(self) -> str:
        """The text."""
        return self.text or read_file(self.file)

    def expected(self, subject: Subject) -> int:
        """About how many tokens are read; nothing is made of the text."""
        return max(2, min(self.tokens, context_length(subject.model), subject.tokens_in(self.read())))

    def ids(self, subject: Subject) -> Tensor:
        """The tokens, `[1, T]` int64.

        Raises:
            FieldError: a text of fewer than two.
        """
        found = encode(subject.tokenizer, self.read(), min(self.tokens, context_length(subject.model)))
        if len(found) < 2:
            raise FieldError("text", ABSENT, "text_too_short", n=len(found))
        return torch.tensor([found.tolist()], device=subject.model.device)


def watched_layers(
    model: LoopLlamaForCausalLM, watch: Callable[[int, Tensor, Tensor], None], **loop: Any
) -> LoopLlamaForCausalLM:
    """A view whose layers tell of each of their runs: `watch(layer, input, output)`, both `[B, T, H]`.

    Args:
        model: not changed, nor are its layers.
        loop: loop fields to change.
    """
    view = model.with_loop(**loop)
    view.model.layers = nn.ModuleList(_told(layer, index, watch) for index, layer in enumerate(view.model.layers))
    return view


def _told(layer: nn.Module, index: int, watch: Callable[[int, Tensor, Tensor], None]) -> nn.Module:
    twin = shallow(layer)
    twin._forward_hooks = OrderedDict(layer._forward_hooks)
    twin._compiled_call_impl = None  # a compiled call would run the layer it was made of
    twin.register_forward_hook(lambda _, given, made: watch(index, given[0], made))
    return twin


class Ran(NamedTuple):
    """What ran.

    Attributes:
        layers: runs of a layer.
        keys: the same, each as often as it reads slots of keys and values: V times where a step reads all V. At most so many,
            for among the tokens of a pass itself its first steps find fewer slots written.
        tokens: that went through the layers, each once a run.
    """

    layers: int
    keys: int
    tokens: int


class LayerRuns:
    """Counts what a model's passes run: `runs.view` is the model, `runs.take()` what ran since it was last asked.

    Args:
        model: not changed.
    """

    def __init__(self, model: LoopLlamaForCausalLM) -> None:
        self._ran = Ran(0, 0, 0)
        self._slots = {
            layer: block.written_slots
            for block in model.config.loop_blocks()
            if block.parallel
            for layer in block.layers
        }
        self.view = watched_layers(model, self._note)

    def _note(self, layer: int, given: Tensor, made: Tensor) -> None:
        ran, tokens = self._ran, given.shape[0] * given.shape[1]
        self._ran = Ran(ran.layers + 1, ran.keys + self._slots.get(layer, 1), ran.tokens + tokens)

    def take(self) -> Ran:
        """What ran since it was last asked."""
        found, self._ran = self._ran, Ran(0, 0, 0)
        return found
