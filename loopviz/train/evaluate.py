"""What more loops change on held-out data.

All loop counts are measured in one pass: the state after step r, continued through the real coda, is what the model
says when it stops there (`exit_lens`). Passes are whole sequences, without a cache.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from loopviz.model import LoopLlamaForCausalLM, LoopStep

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
    """

    loops: tuple[int, ...]
    loss: tuple[float, ...]
    tokens: int
    cosine_gap: tuple[float, ...]

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
    model: LoopLlamaForCausalLM, ids: Tensor, loops: Sequence[int], last: int = 0
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
    blocks = model.config.loop_blocks()
    if not blocks:
        return [model(ids, use_cache=False, logits_to_keep=last).logits], []
    if len(blocks) > 1:
        raise ValueError(f"loop_layers={model.config.loop_layers!r}: one block can be measured, not several")
    n = loops[-1]
    view = model.with_loop(loop_strategy="fixed_count", loop_count=n, max_loop_count=max(n, blocks[0].max_count))
    logits: list[Tensor] = []
    cosines: list[Tensor] = []

    def watch(event: LoopStep) -> None:
        cosines.append(F.cosine_similarity(event.state.double(), event.previous.double(), dim=-1))
        if event.step in loops:
            states = event.state[None]  # the coda's attention needs every position
            logits.append(view.exit_lens(states)[0, :, -last:])

    handle = view.register_loop_hook(watch)
    try:
        view.model(ids, use_cache=False)
    finally:
        handle.remove()
    return logits, cosines


@torch.no_grad()
def evaluate_text(
    model: LoopLlamaForCausalLM,
    ids: np.ndarray,
    loops: Sequence[int],
    length: int,
    batch: int,
    limit: int | None = None,
) -> TextResult:
    """Loss on a text, in windows that follow each other: every token but the first is predicted once.

    Args:
        model: with one looped block, or none; put into eval mode.
        ids: `[n]` tokens, n >= 2.
        loops: ascending loop counts.
        length: tokens a window at most: how much a prediction may look back.
        batch: windows a pass.
        limit: predicted tokens at most.

    Raises:
        ValueError: no token to predict, or a model with several blocks.
    """
    if len(ids) < 2:
        raise ValueError(f"tokens={len(ids)}: at least 2 are needed to predict one")
    ids = np.asarray(ids[: None if limit is None else limit + 1], dtype=np.int64)
    loops = tuple(loops)
    model.eval()
    whole = (len(ids) - 1) // length
    rows = [ids[i * length : (i + 1) * length + 1] for i in range(whole)]
    parts = [np.stack(rows[i : i + batch]) for i in range(0, whole, batch)]
    if whole * length < len(ids) - 1:
        parts.append(ids[None, whole * length :])
    losses: list[float] = []
    gaps: list[float] = []
    for part in parts:
        tokens = torch.from_numpy(part).to(model.device)
        logits, cosines = exits(model, tokens[:, :-1], loops)
        targets = tokens[:, 1:].flatten()
        nats = [F.cross_entropy(x.flatten(0, 1).float(), targets, reduction="sum").item() for x in logits]
        gap = [(1 - cosine).sum().item() for cosine in cosines]
        losses = [a + b for a, b in zip(losses or [0.0] * len(nats), nats, strict=True)]
        gaps = [a + b for a, b in zip(gaps or [0.0] * len(gap), gap, strict=True)]
    n = len(ids) - 1
    return TextResult(
        loops if model.config.loop_blocks() else (), tuple(x / n for x in losses), n, tuple(x / n for x in gaps)
    )


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
