"""When a loop has converged: the criteria `dynamic_stop` knows, and the registry for new ones.

A criterion is a function `f(ctx: CriterionContext) -> Tensor` of dtype bool and shape `[B]`: which rows stop after this
step. It is called after every step `r >= floor`, and before that too when it was registered with `every_step=True` (a
criterion that counts hits or compares more than two steps needs to see them all; its verdict is ignored until the floor).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from loopviz.loop_fields import registry

from . import measures
from .registry import check_tensor, comes_with_loopviz, take_name

if TYPE_CHECKING:
    from .block import LoopBlock

# Tokens whose vocabulary distributions are held at once: bounds the memory of a long prefill (256 x 49,152 x 4 B = 50 MB).
KL_CHUNK = 256


@dataclass
class CriterionContext:
    """What a criterion may look at after one loop step.

    Attributes:
        step: r, 1-based.
        previous: s_{r-1}, `[B, T, H]`.
        state: s_r, `[B, T, H]`.
        real: `[B, T]` bool, True where the token is not padding; `None` when all are.
        block: the block's resolved settings.
        lens: direct lens of s_r, r >= 1, `[..., H] -> [..., vocab]` logits, or `None` on a model without a head.
        start_lens: the same of s_0, where it is another: a loop that norms its states has not normed the first.
        last_logits: logits `[B, vocab]` of each row's last real token if the loop stopped with a state `[B, T, H]`: through
            the layers that follow (the exit lens). `None` on a model without a head, and before other blocks.
        memory: kept from step to step of one pass through one block; empty at step 1.
        reasons: filled by a criterion that wants to say which of several rules held: name -> `[B]` bool.
        measured: what `cosine_holds`, `kl_holds` and the published criteria compared with their thresholds: name -> `[B]`,
            float32 or float64; NaN for a row that was not asked.
    """

    step: int
    previous: Tensor
    state: Tensor
    real: Tensor | None
    block: LoopBlock
    lens: Callable[[Tensor], Tensor] | None
    start_lens: Callable[[Tensor], Tensor] | None = None
    last_logits: Callable[[Tensor], Tensor] | None = None
    memory: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, Tensor] = field(default_factory=dict)
    measured: dict[str, Tensor] = field(default_factory=dict)

    def mean(self, values: Tensor) -> Tensor:
        """Mean of `values` `[B, T]` over each row's real tokens, `[B]`. A row without any is 0."""
        if self.real is None:
            return values.mean(-1)
        real = self.real.to(values.dtype)
        # where(), not a product: a padding position may hold inf or nan.
        return torch.where(self.real, values, 0).sum(-1) / real.sum(-1).clamp(min=1)

    def log_probs(self, state: Tensor, start: bool = False) -> Tensor:
        """Next-token log-probabilities under the direct lens, float32 (float64 stays), `[..., vocab]`.

        Args:
            state: s_r, r >= 1.
            start: it is s_0.

        Raises:
            ValueError: the model has no head.
        """
        lens = self.start_lens if start and self.start_lens is not None else self.lens
        if lens is None:
            raise ValueError(
                f"convergence_criterion={self.block.criterion!r}: the KL divergence needs an output head, and this "
                "model has none; use LoopLlamaForCausalLM, or convergence_criterion='cosine'"
            )
        return measures.log_probs(lens(state))

    def exit_logits(self) -> Tensor:
        """Logits `[B, vocab]` of each row's last token if it stopped now, float32 (float64 stays).

        Raises:
            ValueError: the model has no head.
        """
        if self.last_logits is None:
            raise ValueError(
                f"convergence_criterion={self.block.criterion!r}: it reads what the model would say, and this model has no "
                "output head; use LoopLlamaForCausalLM, or convergence_criterion='cosine'"
            )
        return self.wide(self.last_logits(self.state))

    @staticmethod
    def wide(values: Tensor) -> Tensor:
        """In float32 at least."""
        return values if values.dtype == torch.float64 else values.float()

    def cosine_holds(self) -> Tensor:
        """Rows `[B]` whose mean cos(s_r, s_{r-1}) reaches the threshold."""
        value = self.mean(self.cosines())
        self.measured["cosine"] = value
        return (value >= self.block.cosine_threshold) | self.without_tokens()

    def cosines(self) -> Tensor:
        """cos(s_r, s_{r-1}) of each token, `[B, T]`, float32 (float64 stays); 1 for a state that did not move."""
        still = (self.state == self.previous).all(-1)  # a zero state too, which has no direction
        return torch.where(still, 1.0, measures.cosine(self.state, self.previous))

    def kl_holds(self, rows: Tensor | None = None) -> Tensor:
        """Rows `[B]` whose mean KL(p_{r-1} || p_r) (nats) is at most the threshold.

        Args:
            rows: `[B]` bool, the rows that need an answer; the others get False and cost nothing.
        """
        B = self.state.shape[0]
        index = torch.arange(B, device=self.state.device) if rows is None else rows.nonzero().squeeze(-1)
        holds = torch.zeros(B, dtype=torch.bool, device=self.state.device)
        if len(index) == 0:
            return holds
        exact = torch.float64 if self.state.dtype == torch.float64 else torch.float32
        kl = torch.zeros(self.state.shape[:2], dtype=exact, device=self.state.device)  # [B, T]
        kl[index] = self._kl(self.previous[index], self.state[index])
        value = self.mean(kl)
        self.measured["kl"] = torch.full_like(value, torch.nan).index_copy(0, index, value[index])
        holds[index] = (value <= self.block.kl_threshold)[index]
        return holds | (self.without_tokens() if rows is None else self.without_tokens() & rows)

    def _kl(self, previous: Tensor, state: Tensor) -> Tensor:
        """KL(p_{r-1} || p_r) of each token, `[b, T]`, a bounded number of tokens at a time."""
        parts = []
        for p_state, q_state in zip(previous.split(KL_CHUNK, dim=1), state.split(KL_CHUNK, dim=1), strict=True):
            log_p, log_q = self.log_probs(p_state, start=self.step == 1), self.log_probs(q_state)  # [b, t, vocab]
            parts.append(measures.kl(log_p, log_q))
        return torch.cat(parts, dim=1)

    def without_tokens(self) -> Tensor:
        """Rows that have no real token in this pass: nothing of theirs can still move."""
        if self.real is None:
            return torch.zeros(self.state.shape[0], dtype=torch.bool, device=self.state.device)
        return ~self.real.any(-1)


Criterion = Callable[[CriterionContext], Tensor]


@dataclass(frozen=True)
class RegisteredCriterion:
    """A criterion, whether it must see the steps before the floor, and whether it reads what the model would say."""

    function: Criterion
    every_step: bool = False
    reads_exit: bool = False

    def verdict(self, ctx: CriterionContext) -> Tensor:
        """Which rows stop, `[B]` bool.

        Raises:
            ValueError: the function is a user's and gave something else; it says what.
        """
        found = self.function(ctx)
        if not comes_with_loopviz(self.function):
            name, rows = ctx.block.criterion, ctx.state[:, 0, 0]
            check_tensor("register_criterion", name, self.function, found, (len(rows),), torch.bool, rows)
            for why, held in ctx.reasons.items():
                check_tensor(
                    f"reasons[{why!r}] of criterion", name, self.function, held, (len(rows),), torch.bool, rows
                )
        return found


CRITERIA: dict[str, RegisteredCriterion] = registry("convergence_criterion")


def register_criterion(
    name: str, *, every_step: bool = False, reads_exit: bool = False, replace: bool = False
) -> Callable[[Criterion], Criterion]:
    """Make a convergence criterion known under `name` for `LoopLlamaConfig(convergence_criterion=name)`.

    Args:
        name: the value of the configuration field, and the stop reason that is reported.
        every_step: call it after every step, not only from the floor on.
        reads_exit: it asks `ctx.exit_logits()`, so it is for a model's last block alone.
        replace: take the place of another function of that name (the same function takes its own place anyway).

    Raises:
        ValueError: the name is taken. What the function returns is checked when it is used: `[B]` bool.
    """

    def add(function: Criterion) -> Criterion:
        take_name(CRITERIA, "register_criterion", name, function, replace)
        CRITERIA[name] = RegisteredCriterion(function, every_step, reads_exit)
        return function

    return add


@register_criterion("cosine")
def cosine(ctx: CriterionContext) -> Tensor:
    """Stop when the mean over real tokens of cos(s_r, s_{r-1}) >= cosine_threshold."""
    return ctx.cosine_holds()


@register_criterion("kl")
def kl(ctx: CriterionContext) -> Tensor:
    """Stop when the mean over real tokens of KL(p_{r-1} || p_r) <= kl_threshold, in nats."""
    return ctx.kl_holds()


@register_criterion("either")
def either(ctx: CriterionContext) -> Tensor:
    """Cosine first; KL is computed only for the rows that cosine did not stop."""
    by_cosine = ctx.cosine_holds()
    if bool(by_cosine.all()):
        ctx.reasons["cosine"] = by_cosine
        return by_cosine
    by_kl = ctx.kl_holds(~by_cosine)
    ctx.reasons.update(cosine=by_cosine, kl=by_kl)
    return by_cosine | by_kl


@register_criterion("both")
def both(ctx: CriterionContext) -> Tensor:
    """Cosine and KL; KL is computed only for the rows where cosine holds, and is what decides there."""
    by_cosine = ctx.cosine_holds()
    by_kl = ctx.kl_holds(by_cosine) if bool(by_cosine.any()) else torch.zeros_like(by_cosine)
    ctx.reasons["kl"] = by_kl
    return by_kl
