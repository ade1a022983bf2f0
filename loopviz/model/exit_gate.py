"""Which loop step a token is read out from: the last one, or what a learned gate says.

As Ouro does: all loops run, and the gate chooses among the states they left, token by token (Zhu et al. 2025, "Scaling
Latent Reasoning via Looped Language Models"). With lambda_r = sigmoid(w s_r + b) on the normed state, a token leaves at step r with
p_r = lambda_r prod_{j<r} (1 - lambda_j); its last step takes what is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from loopviz.checks import FieldError

from .block import LoopBlock
from .measures import wide


class ExitGate(nn.Linear):
    """w s + b, the logit of leaving."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__(hidden_size, 1, bias=True)


@dataclass(frozen=True)
class Exits:
    """What a gate said of a pass.

    Attributes:
        pdf: `[R, B, T]`, p_r of each token.
        steps: `[B, T]` int64, the step r that each token is read out from; `None` where all are, by their weights.
    """

    pdf: Tensor
    steps: Tensor | None


def read_out(
    block: LoopBlock,
    gate: ExitGate,
    normed: Sequence[Tensor],
    given: Sequence[Tensor],
    steps: Tensor,
    real: Tensor | None,
) -> tuple[Tensor, Exits]:
    """The state that each token is read out from, `[B, T, H]`, and why.

    Args:
        block: says how.
        gate: of the block.
        normed: the states s_1..s_R after the final norm, each `[B, T, H]`: what the gate reads.
        given: those that are chosen from.
        steps: `[B]`, N of each row.
        real: `[B, T]` bool, True where the token is not padding; `None` when all are.

    Raises:
        FieldError: the gate gives what is no number, of a token that is not padding.
    """
    logits = wide(torch.stack([gate(state).squeeze(-1) for state in normed]))  # [R, B, T]
    bad = torch.isnan(logits)
    if bool((bad if real is None else bad & real).any()):
        raise FieldError("exit_selection", block.exit_selection, "gate_nan", block=block.index)
    pdf = exit_pdf(torch.sigmoid(logits), steps)
    states = torch.stack(list(given))  # [R, B, T, H]
    if block.exit_selection == "gate_weighted":
        return (pdf.to(states.dtype).unsqueeze(-1) * states).sum(0), Exits(pdf, None)
    chosen = exit_steps(pdf, block.exit_threshold, steps)
    index = (chosen - 1)[None, :, :, None].expand(1, *states.shape[1:])
    return states.gather(0, index).squeeze(0), Exits(pdf, chosen)


def exit_pdf(rates: Tensor, steps: Tensor) -> Tensor:
    """p_r `[R, B, T]` of lambda_r `[R, B, T]`, where row b runs `steps[b]` steps: 0 after them."""
    r = torch.arange(1, len(rates) + 1, device=rates.device)[:, None, None]
    stays = torch.cat((torch.ones_like(rates[:1]), (1 - rates[:-1]).cumprod(0)))  # prod_{j<r} (1 - lambda_j)
    last = steps[None, :, None]
    return torch.where(r < last, rates * stays, torch.where(r == last, stays, 0))


def exit_steps(pdf: Tensor, threshold: float, steps: Tensor) -> Tensor:
    """The first r `[B, T]` whose cumulated probability reaches the threshold; a row's last step where none does."""
    reached = pdf.cumsum(0) >= threshold
    first = reached.long().argmax(0) + 1
    return torch.where(reached.any(0), first, steps[:, None]).minimum(steps[:, None]).clamp(min=1)
