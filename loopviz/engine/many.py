"""Many prompts of one model in one thread: some at a time, in passes that they share."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from loopviz.engine.batch import Ticket, read_shared
from loopviz.engine.pieces import encode_prompt
from loopviz.engine.sampling import StreamSettings
from loopviz.engine.single_run import Run, context_length
from loopviz.engine.steering import Steering
from loopviz.engine.stream import check_model
from loopviz.model.interrupt import check

if TYPE_CHECKING:
    from loopviz.model import LoopLlamaForCausalLM
    from loopviz.model.shared_pass import SharedPass
    from loopviz.trace import Frame

AT_ONCE = 8  # prompts; more are hardly quicker, and each holds its keys and values


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
    settings, context = settings or StreamSettings(), context_length(model)
    ids = [encode_prompt(tokenizer, prompt, context=context, **settings.wording) for prompt in prompts]
    return _frames(model.with_loop(), tokenizer, ids, settings, max(1, at_once))


def _frames(
    model: LoopLlamaForCausalLM, tokenizer: Any, prompts: list[list[int]], settings: StreamSettings, at_once: int
) -> Generator[tuple[int, Frame], None, None]:
    from loopviz.model.shared_pass import SharedPass

    passes, coming, going = SharedPass(model), deque(enumerate(prompts)), dict[int, tuple[Run, int]]()
    try:
        while coming or going:
            while coming and len(going) < at_once:
                place, ids = coming.popleft()
                run = Run(model.with_loop(), tokenizer, ids, settings, Steering())
                going[place] = run, 0
                for frame in run.read(ids):
                    yield place, frame
                _go_on(going, place, frame)
            read = _read(passes, [*going.values()])
            for place, frame in zip([*going], read, strict=True):
                yield place, frame
                _go_on(going, place, frame)
    finally:
        for run, _ in going.values():
            run.close()


def _go_on(going: dict[int, tuple[Run, int]], place: int, frame: Frame) -> None:
    """Note the token that a run reads next; a run that has ended is let go of."""
    run, _ = going[place]
    if frame["finish"] is None:
        going[place] = run, frame["next_id"]
    else:
        run.close()
        del going[place]


def _read(passes: SharedPass, going: list[tuple[Run, int]]) -> list[Frame]:
    """A token of each run."""
    check()
    tickets = [Ticket(run, token, run.turn()) for run, token in going]
    shared = [ticket for ticket in tickets if ticket.run.may_share()]
    if len(shared) > 1:
        read_shared(passes, shared)
    frames = []
    for ticket in tickets:
        if ticket.error is not None:
            raise ticket.error
        if ticket.frame is None:
            [ticket.frame] = ticket.run.read_on([ticket.token], ticket.change)
        frames.append(ticket.frame)
    return frames
