"""What the trainer asks of a task: batches, held-out results, a tokenizer, and what to remember between runs.

A batch is a function of the recipe's seed, the step and the task's state alone: a run that was killed and resumed sees
the batches it would have seen.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from loopviz import outputs
from loopviz.lab.reading.positions import PositionsResult, measure_positions
from loopviz.model import LoopLlamaForCausalLM
from loopviz.ttt import TTTForCausalLM

from . import arrows, text
from .evaluate import ArrowsResult, TextResult, evaluate_arrows, evaluate_text
from .loops import draw_loops
from .recipe import Recipe
from .teach_recipe import TeachRecipe

BATCHES, PROBLEMS, DROPOUT = 0, 1, 2  # streams of random numbers; held-out problems have their own


@dataclass(frozen=True)
class Batch:
    """One optimisation step's data.

    Attributes:
        ids: `[B, T]` int64.
        labels: `[B, T]` int64, the token after each position, or -100 where none is trained.
        loops: steps the loop runs; `None` for a model without a loop.
    """

    ids: Tensor
    labels: Tensor
    loops: int | None


class Task(Protocol):
    """A task: made once a run."""

    tokenizer: PreTrainedTokenizerFast

    def batch(self, step: int) -> Batch:
        """The batch of a 0-based step."""
        ...

    def measure(self, model: Any, final: bool) -> TextResult | ArrowsResult:
        """Held-out results; `final`: of everything there is."""
        ...

    def by_position(self, model: Any) -> list[PositionsResult]:
        """Held-out losses by place in the context, as the recipe asks for them."""
        ...

    def after(self, result: Any) -> str:
        """Take note of an evaluation; returns a word on it for the progress line."""
        ...

    def state(self) -> dict[str, Any]:
        """What a checkpoint must keep, as plain data."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Take `state()` back; raises ValueError when it does not belong to this task."""
        ...

    def data(self) -> dict[str, Any]:
        """What it is trained and measured on, for the model card."""
        ...


class TextTask:
    """Next tokens of a text file.

    Args:
        recipe: with `task="text"`.
        data: the text.
        held_out: a text to measure on; `None` holds the last `recipe.held_out` of the tokens back.
        folder: where tokenizer and tokens are kept.
        tokenizer: of a model that is taught; `None`: trained on the text.

    Raises:
        TextError: a text that is empty, too short or not UTF-8.
    """

    def __init__(
        self,
        recipe: Recipe | TeachRecipe,
        data: Path,
        held_out: Path | None,
        folder: Path,
        tokenizer: PreTrainedTokenizerFast | None = None,
    ) -> None:
        self.recipe = recipe
        self.tokenizer = tokenizer or self._tokenizer(data, folder / "tokenizer")
        self.train, self.train_source = text.encode_file(data, self.tokenizer, folder, "train")
        self.test_source: text.Source | None = None
        if held_out is not None:
            self.test, self.test_source = text.encode_file(held_out, self.tokenizer, folder, "held_out")
        else:
            cut = len(self.train) - int(len(self.train) * recipe.held_out)
            self.train, self.test = self.train[:cut], self.train[cut:]
        if len(self.test) < 2:
            raise text.TextError(f"held_out={recipe.held_out}: leaves {len(self.test)} tokens to measure on; give more")
        text.windows(self.train, 1, recipe.length, np.random.default_rng(0))  # refuses now what is too short

    def unmap(self) -> None:
        """Have the tokens in memory, and no file of theirs open: its folder can go (Windows removes no file that is mapped)."""
        self.train, self.test = np.array(self.train), np.array(self.test)

    def _tokenizer(self, data: Path, kept: Path) -> PreTrainedTokenizerFast:
        """The tokenizer of this text, trained once."""
        assert isinstance(self.recipe, Recipe)
        made_of = json.dumps({"sha256": text.sha256(data), "vocab_size": self.recipe.vocab_size})
        note = kept / "made_of.json"
        if note.is_file() and note.read_text("utf-8") == made_of:
            return PreTrainedTokenizerFast.from_pretrained(str(kept), local_files_only=True)
        tokenizer = text.train_tokenizer(data, self.recipe.vocab_size)
        tokenizer.model_max_length = self.recipe.length
        note.unlink(missing_ok=True)
        with outputs.filling(kept) as part:
            tokenizer.save_pretrained(str(part))
        outputs.write_text(note, made_of)
        return tokenizer

    def batch(self, step: int) -> Batch:
        rng = np.random.default_rng([self.recipe.seed, BATCHES, step])
        loops = None if self.recipe.loops is None else draw_loops(self.recipe.loops.at(step), rng)
        ids, labels = text.windows(self.train, self.recipe.batch, self.recipe.length, rng)
        return Batch(torch.from_numpy(ids), torch.from_numpy(labels), loops)

    def measure(self, model: LoopLlamaForCausalLM | TTTForCausalLM, final: bool) -> TextResult:
        how, length = self.recipe.evaluation, self.recipe.length
        if final:
            return evaluate_text(model, self.test, how.loops, length, self.recipe.batch, overlap=length // 2)
        return evaluate_text(model, self.test, how.loops, length, self.recipe.batch, how.tokens)

    def by_position(self, model: LoopLlamaForCausalLM | TTTForCausalLM) -> list[PositionsResult]:
        recipe = self.recipe
        return measure_positions(model, self.test, recipe.evaluation.positions, recipe.length, recipe.batch)

    def after(self, result: TextResult) -> str:
        best = min(range(len(result.loss)), key=result.loss.__getitem__)
        at = f" at {result.loops[best]} loops" if result.loops else ""
        return f"held-out loss {result.loss[best]:.4f}{at}"

    def state(self) -> dict[str, Any]:
        return {"train": self.train_source.sha256, "held_out": self.test_source and self.test_source.sha256}

    def restore(self, state: dict[str, Any]) -> None:
        for name, digest in self.state().items():
            if digest != state[name]:
                raise text.TextError(
                    f"{name}: not the text this run was started with; resume it with that one, or train into another folder"
                )

    def data(self) -> dict[str, Any]:
        return {
            "train": vars(self.train_source),
            "held_out": None if self.test_source is None else vars(self.test_source),
            "train_tokens": len(self.train),
            "held_out_tokens": len(self.test),
            "vocab_size": len(self.tokenizer),
        }


class ArrowsTask:
    """ "Follow the arrows", with a curriculum: a hop deeper each time the present depth is answered well enough.

    Args:
        recipe: with `task="arrows"`.
    """

    def __init__(self, recipe: Recipe) -> None:
        assert recipe.arrows is not None  # the recipe has checked it
        self.recipe, self.task = recipe, recipe.arrows
        self.depth = self.task.start_hops
        self.tokenizer = arrows.make_tokenizer(self.task.nodes)
        self.tokenizer.model_max_length = arrows.sequence_length(self.task)

    def batch(self, step: int) -> Batch:
        rng = np.random.default_rng([self.recipe.seed, BATCHES, step])
        deepest = arrows.draw_deepest(self.task, self.depth, rng)
        hops = arrows.draw_depths(self.task, deepest, self.recipe.batch, rng)
        loops = None if self.recipe.loops is None else draw_loops(self.recipe.loops, rng, hops=deepest)
        ids, labels = arrows.draw_problems(self.task, hops, rng)
        return Batch(torch.from_numpy(ids), torch.from_numpy(labels), loops)

    def _enough(self) -> int:
        """Loops at which the present depth must be answered."""
        loops = self.recipe.loops
        if loops is None:
            return self.recipe.evaluation.loops[-1]
        return min(self.depth + loops.extra, loops.max) if loops.sampler == "hops" else loops.max

    def measure(self, model: LoopLlamaForCausalLM, final: bool) -> ArrowsResult:
        how = self.recipe.evaluation
        loops = how.loops if final else sorted({*how.loops, self._enough()})
        problems = how.final_problems if final else how.problems
        seed = [self.recipe.seed, PROBLEMS, int(final)]
        # What is far beyond the curriculum is not known yet: while training, only the next depth is looked at.
        deepest = None if final else min(self.depth + 1, self.task.max_hops)
        return evaluate_arrows(model, self.task, loops, problems, seed, dynamic=final, deepest=deepest)

    def by_position(self, model: LoopLlamaForCausalLM) -> list[PositionsResult]:
        return []

    def after(self, result: ArrowsResult) -> str:
        column = result.loops.index(self._enough()) if result.loops else 0
        reached = result.accuracy[self.depth - 1][column]
        word = f"{self.depth} hops: {reached:.3f}"
        if reached >= self.task.promote_at and self.depth < self.task.max_hops:
            self.depth += 1
            word += f", on to {self.depth}"
        return word

    def state(self) -> dict[str, Any]:
        return {"depth": self.depth}

    def restore(self, state: dict[str, Any]) -> None:
        self.depth = state["depth"]

    def data(self) -> dict[str, Any]:
        return {"generated": vars(self.task), "depth_reached": self.depth, "vocab_size": len(self.tokenizer)}
