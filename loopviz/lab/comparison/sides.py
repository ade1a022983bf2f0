"""What a comparison asks of a configuration's model, of either kind: its run, the time of its passes, and to read texts through
its memory, which is a cache of keys and values or a TTT model's state."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from loopviz.engine import StreamSettings, stream
from loopviz.engine.many import OneOfMany, stream_runs
from loopviz.engine.stream import context_length
from loopviz.engine.ttt_stream import MOST_TOKENS, TTTWheel, stream_ttt
from loopviz.engine.work import Shape
from loopviz.lab.task import Subject
from loopviz.model import LoopCache, LoopLlamaForCausalLM
from loopviz.model.interrupt import until
from loopviz.trace import Frame
from loopviz.ttt import TTTCache, TTTForCausalLM


class Side(Protocol):
    """A configuration's model.

    Attributes:
        view: a model object of its own.
        shares: whether its run can be read together with others of the model.
    """

    view: Any
    shares: bool

    @property
    def shape(self) -> Shape:
        """What of the model decides what a run costs."""

    def frames(self, prompt: str, ids: list[int], settings: StreamSettings, stop: threading.Event) -> Iterator[Frame]:
        """A run of a prompt, whose tokens are `ids`; it ends once `stop` is set."""

    def timed(
        self, prompt: str, ids: list[int], chosen: Sequence[int], settings: StreamSettings, stop: threading.Event
    ) -> Iterator[float | None]:
        """The passes that chose these tokens again, with nothing recorded: ms of each that was of one token, None of others."""

    def memory(self) -> Any:
        """An empty memory of its kind."""

    def states(self, tokens: Tensor, memory: Any | None) -> Tensor:
        """Last states `[B, T, H]` of tokens `[B, T]`, read onto a memory; None: by one whole pass."""


class LoopedSide:
    """A model that loops, or could."""

    shares = True

    def __init__(self, view: LoopLlamaForCausalLM, tokenizer: Any) -> None:
        self.view, self.tokenizer = view, tokenizer

    @property
    def shape(self) -> Shape:
        """Of its configuration."""
        return Shape.of(self.view.config, self.view.dtype.itemsize)

    def frames(self, prompt: str, ids: list[int], settings: StreamSettings, stop: threading.Event) -> Iterator[Frame]:
        """As :func:`loopviz.engine.stream`."""
        return stream(self.view, self.tokenizer, prompt, settings, stop)

    def timed(
        self, prompt: str, ids: list[int], chosen: Sequence[int], settings: StreamSettings, stop: threading.Event
    ) -> Iterator[float | None]:
        """The run's beginning once more."""
        again = replace(settings, record="off", max_new_tokens=max(1, len(chosen)))
        for frame in self.frames(prompt, ids, again, stop):
            if frame["index"] >= len(ids) - 1:
                yield frame["pass_ms"] if frame["pass_tokens"] == 1 else None

    def memory(self) -> LoopCache:
        """A cache of keys and values."""
        return LoopCache(self.view.config)

    def states(self, tokens: Tensor, memory: Any | None) -> Tensor:
        """One pass."""
        found = self.view.model(input_ids=tokens, past_key_values=memory, use_cache=memory is not None)
        return found.last_hidden_state


class TTTSide:
    """A TTT model, its inner learning on."""

    shares = False

    def __init__(self, view: TTTForCausalLM, tokenizer: Any) -> None:
        self.view, self.tokenizer = view, tokenizer

    @property
    def shape(self) -> Shape:
        """As of a Llama of its sizes."""
        return Shape.of_ttt(self.view.config, self.view.dtype.itemsize, MOST_TOKENS)

    def frames(self, prompt: str, ids: list[int], settings: StreamSettings, stop: threading.Event) -> Iterator[Frame]:
        """As :func:`loopviz.engine.ttt_stream.stream_ttt`."""
        return stream_ttt(self.view, self.tokenizer, ids, settings, stop, TTTWheel(), 1.0)

    def timed(
        self, prompt: str, ids: list[int], chosen: Sequence[int], settings: StreamSettings, stop: threading.Event
    ) -> Iterator[float | None]:
        """The tokens that its run chose, read once more by nobody's watch: a pass each, with its head."""
        return until(stop, self._passes(ids, chosen))

    def _passes(self, ids: list[int], chosen: Sequence[int]) -> Generator[float | None, None, None]:
        memory = self.memory()
        for n in range(len(chosen)):
            new = ids if n == 0 else [chosen[n - 1]]
            tokens = torch.tensor([new], device=self.view.device)
            began = time.perf_counter()
            with torch.inference_mode():
                self.view.lm_head(self.states(tokens, memory)[:, -1]).float().argmax(-1).item()  # waits for the device
            yield 1000 * (time.perf_counter() - began) if len(new) == 1 else None

    def memory(self) -> TTTCache:
        """A state that has read nothing."""
        return TTTCache(self.view)

    def states(self, tokens: Tensor, memory: Any | None) -> Tensor:
        """One pass."""
        return self.view.model(tokens, past_key_values=memory, use_cache=memory is not None).last_hidden_state


def frames_together(
    sides: Sequence[Side], prompt: str, ids: list[int], settings: StreamSettings, stops: Sequence[threading.Event]
) -> Iterator[tuple[int, Frame]]:
    """As :meth:`Side.frames` of each, with its place among `sides`: of one model, and read together where they can be."""
    if len(sides) > 1 and all(isinstance(side, LoopedSide) for side in sides):
        tokenizer = sides[0].tokenizer  # type: ignore[attr-defined]  # of a LoopedSide
        pairs = zip(sides, stops, strict=True)
        yield from stream_runs(
            tokenizer, [OneOfMany(side.view, ids, settings, stop) for side, stop in pairs], len(sides)
        )
        return
    for place, (side, stop) in enumerate(zip(sides, stops, strict=True)):
        for frame in side.frames(prompt, ids, settings, stop):
            yield place, frame


def side_of(view: Any, tokenizer: Any) -> Side:
    """The side of a model object, by its kind."""
    return TTTSide(view, tokenizer) if isinstance(view, TTTForCausalLM) else LoopedSide(view, tokenizer)


def context_of(subject: Subject) -> int:
    """Tokens that a run of the model can read at most; a TTT model has no end of its own, but a run has."""
    return MOST_TOKENS if isinstance(subject.model, TTTForCausalLM) else context_length(subject.model)
