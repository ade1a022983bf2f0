"""What a model is taught on: a text in windows, or prompts with responses, the loss on the responses alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast

from loopviz.lab.reading.positions import PositionsResult
from loopviz.model import LoopLlamaForCausalLM

from . import text
from .arrows import IGNORE
from .data_tasks import BATCHES, Batch, TextTask
from .evaluate import TextResult, evaluate_text, exits, looped
from .instructions import read_instructions
from .loops import draw_loops
from .teach_recipe import TeachRecipe

Row = tuple[Sequence[int], Sequence[int]]  # tokens, and labels of the same length: the token itself, or IGNORE


def by_loops(result: TextResult) -> str:
    """A result for the progress line: the loss at every loop count."""
    losses = [f"{loss:.4f}" for loss in result.loss]
    named = [f"{r}: {loss}" for r, loss in zip(result.loops, losses, strict=True)] if result.loops else losses
    return "held-out loss by loops  " + "  ".join(named)


class TeachText(TextTask):
    """Next tokens of a text, as :class:`TextTask`, in the model's own tokens; evaluations say every loop count.

    Args:
        recipe: with `kind="text"`.
        data, held_out, folder: as there.
        tokenizer: the model's.
    """

    recipe: TeachRecipe

    def __init__(
        self, recipe: TeachRecipe, data: Path, held_out: Path | None, folder: Path, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        super().__init__(recipe, data, held_out, folder, tokenizer)

    def measure(self, model: Any, final: bool) -> TextResult:
        """The first tokens of what is held out: `evaluation.tokens`, or `closing_tokens` looking back at half a window."""
        how, length = self.recipe.evaluation, self.recipe.length
        limit, overlap = (self.recipe.closing_tokens, length // 2) if final else (how.tokens, 0)
        return evaluate_text(model, self.test, how.loops, length, self.recipe.batch, limit, overlap)

    def after(self, result: TextResult) -> str:
        return by_loops(result)


def read_rows(
    path: Path,
    template: str,
    tokenizer: PreTrainedTokenizerFast,
    context: int,
    told: Callable[[str], None] | None = None,
) -> Sequence[Row]:
    """:func:`loopviz.train.instructions.read_instructions`; template "": the model's own, or as it is where it has none."""
    return read_instructions(path, template_for(template, tokenizer), tokenizer, context, told)


def template_for(template: str, tokenizer: PreTrainedTokenizerFast) -> str:
    """How prompts are put: "" is the model's own chat template, or as they are where it has none."""
    return template or ("chat" if tokenizer.chat_template else "none")


class TeachInstructions:
    """Responses to prompts; the last `held_out` of the rows, or a file of their own, are measured on.

    Args:
        recipe: with `kind="instructions"`.
        data: a JSONL file.
        held_out: another; `None` holds the last rows back.
        tokenizer: the model's.
        told: called with a sentence on records that were cut.

    Raises:
        TextError: too few rows.
        ValueError: what the reader refuses.
    """

    def __init__(
        self,
        recipe: TeachRecipe,
        data: Path,
        held_out: Path | None,
        tokenizer: PreTrainedTokenizerFast,
        told: Callable[[str], None] | None = None,
    ) -> None:
        self.recipe, self.tokenizer = recipe, tokenizer
        self.files = {"train": data, "held_out": held_out}
        rows = read_rows(data, recipe.template, tokenizer, recipe.length, told)
        if held_out is None:
            cut = len(rows) - max(1, int(len(rows) * recipe.held_out))
            self.train, self.test = rows[:cut], rows[cut:]
        else:
            self.train, self.test = rows, read_rows(held_out, recipe.template, tokenizer, recipe.length, told)
        if not self.train or not self.test:
            raise text.TextError(
                f"{data.name}: {len(rows)} rows leave {len(self.train)} to train and {len(self.test)} to measure on; "
                "give at least one of each"
            )

    def batch(self, step: int) -> Batch:
        rng = np.random.default_rng([self.recipe.seed, BATCHES, step])
        loops = draw_loops(self.recipe.loops.at(step), rng)
        ids, labels = stacked([self.train[i] for i in rng.integers(0, len(self.train), self.recipe.batch)])
        return Batch(ids, labels, loops)

    def measure(self, model: Any, final: bool) -> TextResult:
        limit = self.recipe.closing_tokens if final else self.recipe.evaluation.tokens
        return evaluate_rows(model, self.test, self.recipe.evaluation.loops, self.recipe.batch, limit)

    def by_position(self, model: Any) -> list[PositionsResult]:
        return []

    def after(self, result: TextResult) -> str:
        return by_loops(result)

    def state(self) -> dict[str, Any]:
        return {name: file and text.sha256(file) for name, file in self.files.items()}

    def restore(self, state: dict[str, Any]) -> None:
        for name, digest in self.state().items():
            if digest != state[name]:
                raise text.TextError(f"{name}: not the rows this run was started with; resume it with those")

    def data(self) -> dict[str, Any]:
        return {
            "train": {"name": self.files["train"].name if self.files["train"] else None, "rows": len(self.train)},
            "held_out": {"rows": len(self.test)},
            "template": template_for(self.recipe.template, self.tokenizer),
        }


def stacked(rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
    """Rows as a batch, filled at the right (attention never looks there): inputs and what follows each, `[B, T]` int64."""
    longest = max(len(ids) for ids, _ in rows)
    both = torch.zeros(len(rows), longest, dtype=torch.int64), torch.full((len(rows), longest), IGNORE)
    for i, row in enumerate(rows):
        for whole, part in zip(both, row, strict=True):
            whole[i, : len(part)] = torch.as_tensor(part, dtype=torch.int64)
    return both[0][:, :-1], both[1][:, 1:]


@torch.no_grad()
def evaluate_rows(
    model: LoopLlamaForCausalLM, rows: Sequence[Row], loops: Sequence[int], batch: int, limit: int
) -> TextResult:
    """Loss on the labels of rows by loops.

    Args:
        model: with one looped block, or none; put into eval mode.
        rows: at least one label among them.
        loops: ascending.
        batch: rows a pass.
        limit: no further row is begun once so many labels have been predicted.
    """
    model.eval()
    losses: list[float] = []
    gaps: list[float] = []
    n = longest = 0
    for i in range(0, len(rows), batch):
        ids, labels = (part.to(model.device) for part in stacked(rows[i : i + batch]))
        kept = labels != IGNORE
        logits, cosines = exits(model, ids, loops)
        nats = [F.cross_entropy(x[kept].float(), labels[kept], reduction="sum").item() for x in logits]
        gap = [(1 - cosine[kept]).sum().item() for cosine in cosines]
        losses = [a + b for a, b in zip(losses or [0.0] * len(nats), nats, strict=True)]
        gaps = [a + b for a, b in zip(gaps or [0.0] * len(gap), gap, strict=True)]
        n, longest = n + int(kept.sum()), max(longest, ids.shape[1])
        if n >= limit:
            break
    if not n:
        raise text.TextError("held_out: its rows have no label that is trained; give prompts with responses")
    return TextResult(
        tuple(loops) if looped(model) else (), tuple(x / n for x in losses), n, tuple(x / n for x in gaps), (0, longest)
    )
