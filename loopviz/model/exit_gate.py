"""Which loop step a token is read out from: the last one, or what a learned gate says.

As Ouro does: all loops run, and the gate chooses among the states they left, token by token (Zhu et al. 2025, "Scaling
Latent Reasoning via Looped Language Models"). With lambda_r = sigmoid(w s_r + b) on the normed state, a token leaves at step r with
p_r = lambda_r prod_{j<r} (1 - lambda_j); its last step takes what is left.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from loopviz.checks import FieldError

from .block import LoopBlock
from .measures import wide

# Beside a model's weights: a gate that was trained for it afterwards. It is read, and unused until a loop asks for it; then it
# takes the place of one that the weights have.
GATE_FILE = "gate.safetensors"
_KEYS = ("weight", "bias")


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


# -- a file of its own -------------------------------------------------------------------------------------------------


def gate_bytes(gate: ExitGate, about: Mapping[str, object]) -> bytes:
    """A gate as a safetensors file, float32.

    Args:
        about: how it was made, kept in the file as JSON.
    """
    values = {name: getattr(gate, name).detach().float().cpu().contiguous() for name in _KEYS}
    return save(values, {"format": "pt", "gate": json.dumps(dict(about))})


def read_gate(file: Path, hidden_size: int) -> ExitGate:
    """The gate in a file, float32, without gradients.

    Raises:
        ValueError: not exactly a gate for states of this size, or numbers that are none.
    """
    with safe_open(str(file), framework="pt") as stored:
        found = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  # no mapping
    gate = ExitGate(hidden_size)
    shapes, wanted = ({n: tuple(t.shape) for n, t in of.items()} for of in (found, dict(gate.named_parameters())))
    if shapes != wanted:
        raise ValueError(f"its tensors are {shapes}, and a gate for this model has {wanted}")
    if not all(bool(torch.isfinite(value).all()) for value in found.values()):
        raise ValueError("the exit gate's weights are no numbers (NaN)")
    gate.load_state_dict({name: value.float() for name, value in found.items()})
    return gate.requires_grad_(False)
