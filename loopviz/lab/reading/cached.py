"""Scoring tokens through the cache: teacher-forced, one token of every window a pass, so that each reads what a decode
would have left in the cache. Cache modes differ here and nowhere else: in one full pass serial and merge modes cannot.

Windows go through as the rows of one batch. A row's result never depends on the others, so this gives what one window
at a time gives; but a pass over B rows reads the weights once instead of B times, and pays the overhead of its hundreds
of small operations once.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from loopviz.lab.progress import drained
from loopviz.model import LoopCache, LoopLlamaForCausalLM
from loopviz.trace import metrics


@dataclass(frozen=True)
class CacheScores:
    """What teacher-forced windows gave, `[B, T - 1]` each: prediction t is of token t + 1, from tokens 0..t.

    Attributes:
        nats: `-log p_cached(token)`, float64.
        full_nats: `-log p_full(token)`, float64; `None` when fidelity was not asked for.
        kl: fidelity `KL(p_full || p_cached)`, nats, float64; `None` when it was not asked for.
        agree: bool, both name the same likeliest token; `None` when fidelity was not asked for.
        loops: per looped block, steps that the pass which read token t ran, int64.
        reasons: per looped block, why that pass stopped, texts `[B, T - 1]`.
        bytes_used: content of the cache after the last pass, all rows.
        seconds: wall time of the passes and the head.
    """

    nats: Tensor
    full_nats: Tensor | None
    kl: Tensor | None
    agree: Tensor | None
    loops: list[Tensor]
    reasons: list[np.ndarray]
    bytes_used: int
    seconds: float

    @property
    def gaps(self) -> Tensor:
        """`nats` less `full_nats`; only where fidelity was asked for."""
        assert self.full_nats is not None
        return self.nats - self.full_nats

    @property
    def bytes_per_token(self) -> float:
        """Bytes of keys and values one token holds, over all layers and slots."""
        return self.bytes_used / self.nats.numel()


@torch.no_grad()
def through_cache(
    model: LoopLlamaForCausalLM, ids: Tensor, *, chunk: int = 1, cache: LoopCache | None = None
) -> Iterator[tuple[int, Tensor]]:
    """Logits of teacher-forced windows, read through the model's own cache.

    Args:
        model: a view of one's own; its `last_pass` speaks of the pass just yielded.
        ids: `[B, T]` int64; padding, if any, at the right (what is said after it means nothing).
        chunk: tokens a pass: 1 is decoding; more is chunked prefill, where the tokens of a chunk see each other's
            current step.
        cache: an empty one to fill; `None`: its own.

    Yields:
        The first position t of the pass, and logits `[B, <= chunk, vocab]` of the tokens after it.
    """
    if chunk < 1:
        raise ValueError(f"chunk={chunk}: must be >= 1")
    cache = LoopCache(model.config) if cache is None else cache
    ids = ids.to(model.device)
    for t in range(0, ids.shape[1], chunk):
        out = model.model(ids[:, t : t + chunk], past_key_values=cache, use_cache=True)
        yield t, model.lm_head(out.last_hidden_state)


def finish(device: torch.device) -> None:
    """Wait for what was asked of a device, so that a clock read next tells when it was done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def score_cached(
    model: LoopLlamaForCausalLM, ids: Tensor, *, chunk: int = 1, fidelity: bool = False, mask: Tensor | None = None
) -> CacheScores:
    """:func:`scoring`, to its end."""
    return drained(scoring(model, ids, chunk=chunk, fidelity=fidelity, mask=mask))


@torch.no_grad()
def scoring(
    model: LoopLlamaForCausalLM, ids: Tensor, *, chunk: int = 1, fidelity: bool = False, mask: Tensor | None = None
) -> Generator[float, None, CacheScores]:
    """Loss of every prediction through the cache and, if asked, how far each is from the same model's full pass.

    Fidelity needs no `[B, T, vocab]`: of the full pass only the hidden states are kept, and the head is applied to
    both sides position by position.

    Args:
        model: in the configuration to measure.
        ids: `[B, T]` int64, T >= 2; padding, if any, at the right.
        chunk: tokens a pass, see :func:`through_cache`.
        fidelity: measure `KL(p_full || p_cached)` too (costs one full pass, and a second head a token).
        mask: `[B, T - 1]`, 0 at padding, for the full pass: under `dynamic_stop` it decides over a window's real
            tokens.

    Yields:
        After each pass, how much is done, in 0..1: here the work may be left. Returns the scores.
    """
    view, ids = model.with_loop(), ids.to(model.device)
    cache = LoopCache(view.config)
    full = None
    if fidelity:
        mask = None if mask is None else mask.to(ids.device)
        full = model.model(ids[:, :-1], attention_mask=mask, use_cache=False).last_hidden_state  # [B, T - 1, H]
    losses, full_losses, divergences, agreements, steps, reasons = [], [], [], [], [], []
    seconds, started = 0.0, time.perf_counter()
    for t, logits in through_cache(view, ids[:, :-1], chunk=chunk, cache=cache):
        finish(ids.device)
        seconds += time.perf_counter() - started
        n = logits.shape[1]
        targets = ids[:, t + 1 : t + 1 + n, None]
        log_q = metrics.log_probs(logits)
        losses.append(-log_q.gather(-1, targets)[..., 0].double())
        steps.append([block[:, None].expand(-1, n) for block in view.last_pass.steps])
        reasons.append([np.repeat(np.array(block)[:, None], n, axis=1) for block in view.last_pass.reasons])
        if full is not None:
            log_p = metrics.log_probs(model.lm_head(full[:, t : t + n]))
            full_losses.append(-log_p.gather(-1, targets)[..., 0].double())
            divergences.append(metrics.kl(log_p, log_q).double())
            agreements.append(log_p.argmax(-1) == log_q.argmax(-1))
        yield (t + n) / (ids.shape[1] - 1)
        started = time.perf_counter()

    def joined(parts: list[Tensor]) -> Tensor | None:
        return torch.cat(parts, dim=1).cpu() if parts else None

    return CacheScores(
        nats=torch.cat(losses, dim=1).cpu(),
        full_nats=joined(full_losses),
        kl=joined(divergences),
        agree=joined(agreements),
        loops=[torch.cat(list(block), dim=1).cpu() for block in zip(*steps, strict=True)],
        reasons=[np.concatenate(block, axis=1) for block in zip(*reasons, strict=True)],
        bytes_used=cache.occupancy().bytes_used,
        seconds=seconds,
    )
