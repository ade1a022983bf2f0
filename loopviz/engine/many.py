"""Many runs of one model in one thread: some at a time, in passes that they share."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from loopviz.engine.batch import Ticket, read_shared
from loopviz.engine.pieces import encode_prompt
from loopviz.engine.sampling import StreamSettings
from loopviz.engine.single_run import Run, context_length
from loopviz.engine.steering import Steering
from loopviz.engine.stream import check_model
from loopviz.model.interrupt import Interrupted, Stop, check, interruptible, until

if TYPE_CHECKING:
    from loopviz.model import LoopLlamaForCausalLM
    from loopviz.model.shared_pass import SharedPass
    from loopviz.trace import Frame

AT_ONCE = 8  # runs; more are hardly quicker, and each holds its keys and values


@dataclass(frozen=True)
class OneOfMany:
    """A run that is read together with others of the same weights.

    Attributes:
        view: a model object on them, its loop set as this run has it; later changes of it do not reach the run.
        ids: tokens of the prompt, at least one and no more than the model's context.
        settings: of the run.
        stop: once set, this run ends, and the others go on.
    """

    view: LoopLlamaForCausalLM
    ids: Sequence[int]
    settings: StreamSettings
    stop: Stop = field(default_factory=threading.Event)


def stream_many(
    model: LoopLlamaForCausalLM,
    tokenizer: Any,
    prompts: Sequence[str],
    settings: StreamSettings | None = None,
    at_once: int = AT_ONCE,
) -> Iterator[tuple[int, Frame]]:
    """Continue every prompt as :func:`loopviz.engine.stream` does; each frame comes with the prompt's place, as it is read.

    What is written is what each prompt's own run would write, but for rounding, and the same whenever this is called with
    the same arguments.

    Args:
        model: a LoopLlama; later changes of its loop settings do not reach these runs.
        tokenizer: of the model.
        prompts: texts, begun in this order.
        settings: of all of them; default ``StreamSettings()``.
        at_once: prompts that are read together, >= 1.

    Raises:
        ValueError: at this call, as :func:`loopviz.engine.stream` does.
    """
    check_model(model)
    chosen, context, view = settings or StreamSettings(), context_length(model), model.with_loop()
    ids = [encode_prompt(tokenizer, prompt, chat=chosen.chat, context=context) for prompt in prompts]
    return stream_runs(tokenizer, [OneOfMany(view, one, chosen) for one in ids], at_once)


def stream_runs(
    tokenizer: Any, runs: Iterable[OneOfMany], at_once: int = AT_ONCE
) -> Generator[tuple[int, Frame], None, None]:
    """As :func:`stream_many`, of runs whose loops, settings and stops are their own.

    Args:
        tokenizer: of their model.
        runs: all of the same weights (:func:`loopviz.model.shared_pass.weights_of`).
        at_once: that are read together, >= 1.

    Returns:
        Each frame with its run's place. A run that was stopped has no further one; a pass that is being made is left
        when all of its runs are stopped.
    """
    coming, going, passes = deque(enumerate(runs)), _Going(tokenizer), None
    try:
        while coming or going.runs:
            while coming and len(going.runs) < max(1, at_once):
                yield from going.begin(*coming.popleft())
            going.leave_stopped()
            if going.runs:
                passes = passes or _passes(going)
                yield from going.read(passes)
    finally:
        going.close()


def _passes(going: _Going) -> SharedPass:
    from loopviz.model.shared_pass import SharedPass

    return SharedPass(next(iter(going.runs.values())).view)


class _All:
    """Set as soon as all of some stops are."""

    def __init__(self, stops: Sequence[Stop]) -> None:
        self._stops = stops

    def is_set(self) -> bool:
        """Whether nobody wants the work any more."""
        return all(stop.is_set() for stop in self._stops)


class _Going:
    """Runs that have begun and not ended, by place."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.runs: dict[int, Run] = {}
        self._next: dict[int, int] = {}  # the token that each reads next
        self._stops: dict[int, Stop] = {}

    def begin(self, place: int, asked: OneOfMany) -> Iterator[tuple[int, Frame]]:
        """Read a run's prompt."""
        if asked.stop.is_set():
            return
        run = Run(asked.view.with_loop(), self.tokenizer, list(asked.ids), asked.settings, Steering())
        self.runs[place], self._stops[place] = run, asked.stop
        for frame in self._alone(place, run.read(list(asked.ids))):
            yield place, frame
            self._go_on(place, frame)

    def read(self, passes: SharedPass) -> Iterator[tuple[int, Frame]]:
        """A token of each run."""
        check()
        tickets = {place: Ticket(run, self._next[place], run.turn()) for place, run in self.runs.items()}
        shared = {place: ticket for place, ticket in tickets.items() if ticket.run.may_share()}
        if len(shared) > 1:
            everybody = _All([self._stops[place] for place in shared])
            try:
                with interruptible(everybody):
                    read_shared(passes, list(shared.values()))
            except Interrupted:
                if not everybody.is_set():
                    raise
        for place, ticket in tickets.items():
            if isinstance(ticket.error, Interrupted) and self._stops[place].is_set():
                continue  # everybody's stop came while the pass was recorded
            if ticket.error is not None:
                raise ticket.error
            frames = iter([ticket.frame] if ticket.frame is not None else ())
            if ticket.frame is None:
                frames = self._alone(place, ticket.run.read_on([ticket.token], ticket.change))
            for frame in frames:
                if self._stops[place].is_set():
                    break
                yield place, frame
                self._go_on(place, frame)

    def _alone(self, place: int, frames: Iterator[Frame]) -> Iterator[Frame]:
        """The frames of a pass that is the run's own, until its stop."""
        return until(self._stops[place], (frame for frame in frames))

    def _go_on(self, place: int, frame: Frame) -> None:
        """Note the token that a run reads next; a run that has ended is let go of."""
        if frame["finish"] is None:
            self._next[place] = frame["next_id"]
        else:
            self.runs.pop(place).close()

    def leave_stopped(self) -> None:
        """Let go of runs that were stopped."""
        for place in [place for place in self.runs if self._stops[place].is_set()]:
            self.runs.pop(place).close()

    def close(self) -> None:
        """Let go of all."""
        while self.runs:
            self.runs.popitem()[1].close()
