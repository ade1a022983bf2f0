"""One teaching from beginning to end, as events: the command and a page walk it alike.

session = TeachSession(recipe, task, folder, loaded, prompt=ids)
for event in session.events():              # Stepped, Evaluated, Converged
    ...
closing = session.close()
session.keep(out, closing, command)         # peft's folder, its card
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from loopviz.engine import context_length
from loopviz.model import LoopLlamaForCausalLM, LoopStep
from loopviz.model.checkpoints.adapter import fingerprint
from loopviz.model.checkpoints.load import UNTRAINED, LoadedCheckpoint
from loopviz.model.interrupt import Interrupted, Stop, interruptible, until
from loopviz.model.measures import cosine

from .recipe import RecipeError
from .teach_card import write_teach_card
from .teach_data import TeachInstructions, TeachText
from .teach_recipe import INSTRUCTIONS, TeachRecipe
from .teach_trainer import Closing, TeachTrainer, check_device, check_targets
from .trainer import Evaluated, Stepped


@dataclass(frozen=True)
class Converged:
    """How a prompt's states settle, read in one pass.

    Attributes:
        step: after which step of the training; 0: before the first.
        mean: 1 - cos(s_r, s_{r-1}) at r = 1, 2, ..., the mean over the prompt's tokens.
        last: the same of its last token.
    """

    step: int
    mean: tuple[float, ...]
    last: tuple[float, ...]


Event = Stepped | Evaluated | Converged


def untrained(loaded: LoadedCheckpoint) -> set[str]:
    """Loop fields whose weights nobody has trained."""
    return {note.values["field"] for note in loaded.notes if note.code == UNTRAINED}


def settled(
    recipe: TeachRecipe,
    model: LoopLlamaForCausalLM,
    device: torch.device,
    new: set[str],
    pack: Callable[[], object] = lambda: None,
) -> TeachRecipe:
    """The recipe as it is kept, with the hash of the block's weights.

    Args:
        model: with the recipe's loop.
        new: as :func:`untrained` has it.
        pack: packs the model's layers where that is asked for: a base is known again by its floats.

    Raises:
        RecipeError: what the model has not, or cannot read.
        CheckpointError: the device has no room for it.
    """
    check_targets(model, recipe)
    first, last = recipe.loop["loop_layers"]
    digest = fingerprint(model, (first, last))
    pack()
    check_device(model, recipe, device, new)
    if recipe.length > context_length(model):
        raise RecipeError(f"length={recipe.length}: the model's context is {context_length(model)} tokens")
    return dataclasses.replace(recipe, base_sha256=digest)


def task_of(
    recipe: TeachRecipe,
    data: Path,
    held_out: Path | None,
    folder: Path,
    tokenizer: Any,
    told: Callable[[str], None] = lambda line: None,
) -> TeachText | TeachInstructions:
    """What is taught, read from its files.

    Args:
        folder: where a text's tokens are kept.
        told: as of :class:`TeachInstructions`.

    Raises:
        ValueError: what cannot be read, or is too little.
    """
    if recipe.kind == INSTRUCTIONS:
        return TeachInstructions(recipe, data, held_out, tokenizer, told)
    return TeachText(recipe, data, held_out, folder, tokenizer)


@torch.no_grad()
def converging(model: LoopLlamaForCausalLM, ids: Sequence[int], loops: int) -> tuple[list[float], list[float]]:
    """1 - cos(s_r, s_{r-1}) of every loop step: the mean over the tokens of a prompt, and of its last token.

    Args:
        model: with one looped block; put into eval mode.
        ids: the prompt.
        loops: steps that are run.
    """
    model.eval()
    view = model.with_loop(loop_count=loops)
    gaps: list[torch.Tensor] = []

    def watch(event: LoopStep) -> None:
        gaps.append(1 - cosine(event.state, event.previous)[0])  # [T]

    handle = view.register_loop_hook(watch)
    try:
        view(torch.tensor([list(ids)], device=model.device), use_cache=False, logits_to_keep=1)
    finally:
        handle.remove()
    return [gap.mean().item() for gap in gaps], [gap[-1].item() for gap in gaps]


class TeachSession:
    """One run of `teach`.

    Args:
        recipe: how, as :func:`settled` gave it.
        task: its data.
        folder: where checkpoint and logs go; it exists.
        loaded: the model, with the recipe's loop, nobody else's: it is changed.
        device: where it runs.
        resume: go on from the checkpoint in `folder`.
        prompt: ids of a fixed prompt whose convergence is measured before the first step and at every evaluation; then what
            is held out is measured before the first step, too.
        say: as of :class:`~loopviz.train.trainer.Trainer`.

    Attributes:
        trainer: that does it.
    """

    def __init__(
        self,
        recipe: TeachRecipe,
        task: TeachText | TeachInstructions,
        folder: Path,
        loaded: LoadedCheckpoint,
        *,
        device: str = "cpu",
        resume: bool = False,
        prompt: Sequence[int] = (),
        **how: Any,
    ) -> None:
        self.recipe, self.task, self.prompt = recipe, task, tuple(prompt)
        self.trainer = TeachTrainer(
            recipe, task, folder, loaded.model, untrained(loaded), device=device, resume=resume, **how
        )

    @property
    def last_loops(self) -> int:
        """The most loops that are measured."""
        return self.recipe.evaluation.loops[-1]

    def events(self, end: Callable[[], bool] = lambda: False) -> Iterator[Event]:
        """Train, telling of all that is done; as :meth:`Trainer.events`."""
        return self._events(end)

    def _events(self, end: Callable[[], bool] = lambda: False) -> Generator[Event, None, None]:
        if self.prompt and not self.trainer.progress.step:
            result = self.task.measure(self.trainer.model, final=False)
            yield Evaluated(0, result, self.task.after(result))
            yield self._converged()
        for event in self.trainer.events(end):
            yield event
            if self.prompt and isinstance(event, Evaluated):
                yield self._converged()

    def going(self, stop: Stop) -> Iterator[Event]:
        """:meth:`events` until `stop` is set, in the middle of a pass too: what was learned by then stays."""
        return until(stop, self._events())

    def _converged(self) -> Converged:
        mean, last = converging(self.trainer.model, self.prompt, self.last_loops)
        return Converged(self.trainer.progress.step, tuple(mean), tuple(last))

    def close(self) -> Closing:
        """The closing evaluation: what was taught, and the same block without it."""
        return self.trainer.close()

    def save(self) -> None:
        """Write what was learned beside the logs: a session with `resume` has it again, on a base that is read anew.

        Raises:
            OutputError: it cannot be written.
        """
        self.trainer.checkpoint()

    def closed(self, stop: Stop) -> Closing | None:
        """:meth:`close`, unless `stop` is set before it is done."""
        try:
            with interruptible(stop):
                return self.close()
        except Interrupted:
            return None

    def keep(self, folder: Path, closing: Closing, command: str) -> int:
        """Write peft's folder with what belongs to the loop, its card and its results; returns the loop count that is its default.

        Args:
            command: that teaches the same, folders left out.

        Raises:
            OutputError: the folder cannot be written.
        """
        best = closing.best(self.recipe)
        self.trainer.save(folder, best)
        write_teach_card(folder, self.trainer, closing, command=command)
        return best
