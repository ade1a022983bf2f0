"""What more loops change on held-out data.

All loop counts are measured in one pass: the state after step r, continued through the real coda, is what the model
says when it stops there (`exit_lens`). Passes are whole sequences, without a cache.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from loopviz.lab.reading.full_pass import each_exit
from loopviz.lab.reading.windows import spans
from loopviz.model import LoopLlamaForCausalLM, LoopStep
from loopviz.ttt import TTTForCausalLM

from .arrows import draw_problems
from .recipe import Arrows


@dataclass(frozen=True)
class TextResult:
    """Held-out text by loops.

    Attributes:
        loops: loop counts, ascending; `()` for a model without a loop.
        loss: nats a token at each of them (one value for a model without a loop).
        tokens: predicted tokens.
        cosine_gap: mean over tokens of 1 - cos(s_r, s_{r-1}) at r = 1, 2, ... up to the largest of `loops`.
        lookback: tokens a prediction looks back at, at least (but at the text's beginning) and at most.
    """

    loops: tuple[int, ...]
    loss: tuple[float, ...]
    tokens: int
    cosine_gap: tuple[float, ...]
    lookback: tuple[int, int]

    @property
    def perplexity(self) -> tuple[float, ...]:
        """exp(loss)."""
        return tuple(math.exp(loss) for loss in self.loss)


@dataclass(frozen=True)
class ArrowsResult:
    """Arrows problems by hops and loops.

    Attributes:
        hops: depths, ascending.
        loops: loop counts, ascending; `()` for a model without a loop.
        accuracy: `accuracy[i][j]`: share of right answers at `hops[i]`, `loops[j]` (one column without a loop).
        problems: problems a cell; the same ones at every loop count.
        dynamic_loops: mean steps of the model's own dynamic stop by hops; `()` where it was not measured.
        dynamic_accuracy: share of right answers then.
    """

    hops: tuple[int, ...]
    loops: tuple[int, ...]
    accuracy: tuple[tuple[float, ...], ...]
    problems: int
    dynamic_loops: tuple[float, ...] = ()
    dynamic_accuracy: tuple[float, ...] = ()


@torch.no_grad()
def exits(
    model: LoopLlamaForCausalLM | TTTForCausalLM, ids: Tensor, loops: Sequence[int], last: int = 0
) -> tuple[list[Tensor], list[Tensor]]:
    """What a model says when it stops after each of `loops` steps.

    Args:
        model: with one looped block, or none.
        ids: `[B, T]` int64, no padding.
        loops: ascending, >= 1; ignored for a model without a loop.
        last: logits of so many last positions only; 0: of all.

    Returns:
        Logits `[B, T, vocab]` for each loop count, and cos(s_r, s_{r-1}) `[B, T]` float64 of every step.

    Raises:
        ValueError: the model has several blocks.
    """
    logits: list[Tensor] = []
    cosines: list[Tensor] = []

    def take(r: int, hidden: Tensor) -> None:
        logits.append(model.lm_head(hidden[:, -last:]))

    def watch(event: LoopStep) -> None:
        cosines.append(F.cosine_similarity(event.state.double(), event.previous.double(), dim=-1))

    if isinstance(model, TTTForCausalLM):
        take(1, model.model(ids, use_cache=False).last_hidden_state)
    else:
        each_exit(model, ids, loops, take, watch)
    return logits, cosines


def looped(model: LoopLlamaForCausalLM | TTTForCausalLM) -> bool:
    """Whether a model runs some of its layers several times."""
    return isinstance(model, LoopLlamaForCausalLM) and bool(model.config.loop_blocks())


@torch.no_grad()
def evaluate_text(
    model: LoopLlamaForCausalLM | TTTForCausalLM,
    ids: np.ndarray,
    loops: Sequence[int],
    length: int,
    batch: int,
    limit: int | None = None,
    overlap: int = 0,
) -> TextResult:
    """Loss on a text, in windows (:func:`spans`): every token but the first is predicted once.

    A document's beginning mark is no prediction (`given` of :class:`loopviz.lab.reading.windows.TokenIds`).

    Args:
        model: with one looped block, or none; put into eval mode.
        ids: `[n]` tokens, n >= 2.
        loops: ascending loop counts.
        length: tokens a window: how much a prediction may look back at most.
        batch: windows a pass.
        limit: predicted tokens at most.
        overlap: tokens a prediction looks back at, at least.

    Raises:
        ValueError: no token to predict, a model with several blocks, or an overlap as long as the window.
    """
    if len(ids) < 2:
        raise ValueError(f"tokens={len(ids)}: at least 2 are needed to predict one")
    if not 0 <= overlap < length:
        raise ValueError(f"overlap={overlap}: must be in 0..{length - 1}, shorter than a window")
    ids = ids[: None if limit is None else limit + 1]
    given = getattr(ids, "given", None)
    own = np.ones(len(ids) - 1, dtype=bool) if given is None else ~given[1:]  # prediction i is of token i + 1
    n = int(own.sum())
    if not n:
        raise ValueError(f"tokens={len(ids)}: nothing but marks of a beginning; give a longer text")
    ids, loops = np.asarray(ids, dtype=np.int64), tuple(loops)
    model.eval()
    losses: list[float] = []
    gaps: list[float] = []
    for part, counts, skip in _parts(ids, own, spans(len(own), length, overlap), batch):
        tokens = torch.from_numpy(part).to(model.device)
        logits, cosines = exits(model, tokens[:, :-1], loops)
        kept = torch.from_numpy(counts[:, skip:]).to(model.device)  # [B, T - skip]
        targets = tokens[:, 1 + skip :][kept]
        nats = [F.cross_entropy(x[:, skip:][kept].float(), targets, reduction="sum").item() for x in logits]
        gap = [(1 - cosine[:, skip:])[kept].sum().item() for cosine in cosines]
        losses = [a + b for a, b in zip(losses or [0.0] * len(nats), nats, strict=True)]
        gaps = [a + b for a, b in zip(gaps or [0.0] * len(gap), gap, strict=True)]
    return TextResult(
        loops if looped(model) else (),
        tuple(x / n for x in losses),
        n,
        tuple(x / n for x in gaps),
        (overlap, length),
    )


def _parts(
    ids: np.ndarray, own: np.ndarray, windows: list[tuple[int, int, int]], batch: int
) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Windows of one shape in batches: tokens `[<= batch, window + 1]`, which predictions count `[<= batch, window]`, and
    how many at the beginning belong to the window before.
    """
    for (_, skip), group in groupby(windows, key=lambda span: (span[1] - span[0], span[2])):
        rows = [(ids[start : end + 1], own[start:end]) for start, end, _ in group]
        for i in range(0, len(rows), batch):
            tokens, counts = zip(*rows[i : i + batch], strict=True)
            yield np.stack(tokens), np.stack(counts), skip


@torch.no_grad()
def evaluate_arrows(
    model: LoopLlamaForCausalLM,
    task: Arrows,
    loops: Sequence[int],
    problems: int,
    seed: Sequence[int],
    dynamic: bool = False,
    deepest: int | None = None,
) -> ArrowsResult:
    """Share of right first answers, over the whole vocabulary, by hops and loops.

    Args:
        model: with one looped block, or none; put into eval mode.
        task: what problems look like.
        loops: ascending loop counts.
        problems: a cell.
        seed: of the problems.
        dynamic: measure the model's own `dynamic_stop` too (its thresholds, at most the largest of `loops`).
        deepest: most hops that are measured; `None`: `task.max_hops`.
    """
    model.eval()
    loops = tuple(loops)
    looped = bool(model.config.loop_blocks())
    stopping = None
    if dynamic and looped:
        stopping = model.with_loop(loop_strategy="dynamic_stop", max_loop_count=loops[-1])
    accuracy, steps, stopped = [], [], []
    hops = tuple(range(1, (task.max_hops if deepest is None else deepest) + 1))
    for depth in hops:
        drawn, _ = draw_problems(task, np.full(problems, depth), np.random.default_rng([*seed, depth]))
        tokens = torch.from_numpy(drawn).to(model.device)
        question, answer = tokens[:, :-1], tokens[:, -1]
        logits, _ = exits(model, question, loops, last=1)
        accuracy.append(tuple((x[:, -1].argmax(-1) == answer).float().mean().item() for x in logits))
        if stopping is not None:
            said = stopping(question, use_cache=False, logits_to_keep=1).logits[:, -1].argmax(-1)
            steps.append(stopping.last_pass.steps[0].float().mean().item())
            stopped.append((said == answer).float().mean().item())
    return ArrowsResult(hops, loops if looped else (), tuple(accuracy), problems, tuple(steps), tuple(stopped))
