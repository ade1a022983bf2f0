"""What is known of how one word was thought over: the recorded facts from which a paragraph is made (`sentences`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loopviz.panels.hero.strip import limit_of, measure_of, read_together, settled_at
from loopviz.panels.kit import follower
from loopviz.panels.loop.would_say import flips
from loopviz.trace.changes import blocks_at

if TYPE_CHECKING:
    from loopviz.panels.kit.focus import Focus
    from loopviz.trace.trace import Trace

Frame = Mapping[str, Any]


@dataclass(frozen=True)
class Guess:
    """The likeliest next piece after a loop step (0: no loop ran), and its probability where that is known."""

    step: int
    text: str
    p: float | None


@dataclass(frozen=True)
class Stop:
    """Why the loops ended.

    reason: as the frame has it: count, max, cosine, kl, or a name that somebody registered.
    chosen: whether that name is the chooser's of layers.
    measure: "kl" or "cosine"; value, limit: what was compared; None where it is not known, or nothing was.
    least: whether no word may stop sooner.
    """

    reason: str
    chosen: bool
    measure: str
    value: float | None
    limit: float | None
    least: bool


@dataclass(frozen=True)
class Place:
    """Where a word stands among those that the model wrote: how many took more loops, and as many, of how many others."""

    more: int
    same: int
    others: int


@dataclass(frozen=True)
class Facts:
    """All that is known of one token.

    loops: in the block; None where the model has none.
    together: tokens that were read in the same pass: they share their loops.
    block, blocks: of how many looped blocks, 0-based.
    guesses: the first one and every one that differs from that of the step before; none where they were not recorded.
    final: the last step's.
    true_lens: whether the guesses are what the model would say, and not only where its state points.
    wrote: what came next, and its probability by the model itself; given: by the prompt.
    drawn: whether the next token was drawn, or weighed by more than the model's own distribution.
    fewer: the last guess that is not the final one: what stopping there would have chosen; None where nothing or
        everything is known to be the same.
    """

    token: int
    word: str
    loops: int | None
    together: int
    block: int
    blocks: int
    guesses: tuple[Guess, ...]
    final: Guess | None
    true_lens: bool
    wrote: str
    wrote_p: float | None
    is_final: bool
    given: bool
    drawn: bool
    stop: Stop | None
    place: Place | None
    fewer: Guess | None

    @property
    def knows_fewer(self) -> bool:
        """Whether it is known what fewer loops would have chosen here."""
        return self.true_lens and not self.given and len(self.guesses) > 0 and (self.loops or 0) > 1

    @property
    def branch(self) -> int | None:
        """The number of loops to try from here: where the choice is another, else one; None where there is nothing to try."""
        if self.given or (self.loops or 0) < 2:
            return None
        return self.fewer.step if self.fewer else 1


def _p(logprob: float | None) -> float | None:
    return None if logprob is None else math.exp(logprob)


def _guess(said: follower.Said, row: int, step: int) -> Guess:
    logs, texts = said.logprobs[row], said.texts[row]
    return Guess(step, texts[0] if texts else "", _p(logs[0] if logs else None))


def _guesses(said: follower.Said, count: int) -> tuple[tuple[Guess, ...], Guess | None]:
    """The first guess and every changed one, and the last step's."""
    if not said.ids or not any(said.ids):
        return (), None
    turns = [1, *flips(said.ids)]
    steps = [(row, row if count else 0) for row in turns]
    return tuple(_guess(said, row - 1, step) for row, step in steps), _guess(said, len(said.ids) - 1, count)


def _stop(trace: Trace, frame: Frame, at: int) -> Stop:
    block, spec = frame["blocks"][at], blocks_at(trace.meta, frame["index"])[at]
    reason = block["stop_reason"]
    measure = measure_of(spec, reason)
    passed = read_together(trace.meta, trace.frames, frame)
    value = settled_at(passed, at, measure) if passed else None
    least = spec["strategy"] == "dynamic_stop" and 1 < block["n_steps"] == spec["floor"]
    return Stop(reason, reason == spec["chooser"], measure, value, limit_of(spec, measure), least)


def _place(frames: Sequence[Frame], frame: Frame, at: int) -> Place | None:
    """Among the words that the model wrote; None for one of the prompt, and where there are hardly others."""
    others = [
        other["blocks"][at]["n_steps"]
        for other in frames
        if other["phase"] == "generated" and other["index"] != frame["index"]
    ]
    own = frame["blocks"][at]["n_steps"]
    if frame["phase"] != "generated" or len(others) < 2 or not own:
        return None
    return Place(sum(count > own for count in others), sum(count == own for count in others), len(others))


def facts_of(trace: Trace, at: int, focus: Focus) -> Facts:
    """The facts of the token at position ``at``, in the block in focus where the model has that many.

    Args:
        at: of a frame that is there.
    """
    meta, frame = trace.meta, trace.frames[at]
    blocks = len(frame["blocks"])
    looped = focus.block < blocks
    lens = follower.lens_of(meta, focus) if looped else "same"
    said = follower.chosen_by(frame, focus.block, lens)
    count = frame["blocks"][focus.block]["n_steps"] if looped else 0
    guesses, final = _guesses(said, count)
    settings = meta["settings"]
    given = frame["index"] < meta["prompt_tokens"] - 1
    true_lens = lens != "direct" or not count
    ids = [row[0] if row else None for row in said.ids]
    # the last step that chose another token than the last one of all
    other = next((row for row in range(len(ids) - 1, 0, -1) if ids[row - 1] != ids[-1]), 0)
    return Facts(
        token=frame["index"],
        word=frame["text"],
        loops=count if looped else None,
        together=frame["pass_tokens"],
        block=focus.block,
        blocks=blocks,
        guesses=guesses,
        final=final,
        true_lens=true_lens,
        wrote=frame["next_text"],
        wrote_p=_p(frame["next_logprob"]),
        is_final=bool(ids) and ids[-1] == frame["next_id"],
        given=given,
        drawn=bool(settings.get("do_sample")) or settings.get("repetition_penalty", 1.0) != 1.0,
        stop=_stop(trace, frame, focus.block) if looped else None,
        place=_place(trace.frames, frame, focus.block) if looped else None,
        fewer=_guess(said, other - 1, other) if other and true_lens and not given and final is not None else None,
    )
