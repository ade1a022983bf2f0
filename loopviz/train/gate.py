"""An exit gate for a model that has none: one linear layer on the normed state after every loop, the model itself left as it is.

As Ouro's gate is trained in its second stage (Zhu et al. 2025, arXiv 2510.25741, section 3.4, the adaptive exit loss): a token
should go on past step r where step r has made its loss smaller. With the losses L_r of the next token, of a frozen model,

    I_r = max(0, L_{r-1} - L_r)          what step r was worth (eq. 5)
    w_r = sigmoid(k (I_r - margin))      how right it is to go on after it, k = 50 and margin = 0.005 nats there
    loss = mean over tokens and r = 2..R of the cross-entropy of lambda_r with 1 - w_r (eq. 6; the paper divides by R, not R - 1)

How long it is trained, on what and with which optimizer is ours.
lambda_1 is learned through the others: there is no loss before the first step, and the gate is one for all steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from loopviz.checks import FieldError, Term, check_number, check_whole
from loopviz.lab.reading.exit_replay import max_loop_view
from loopviz.lab.reading.full_pass import nats
from loopviz.model.exit_gate import ExitGate
from loopviz.model.exit_lens import normed_states

from .text import windows
from .trainer import TrainingError

if TYPE_CHECKING:
    from loopviz.model import LoopLlamaForCausalLM

SHARPNESS, MARGIN = 50.0, 0.005  # k and gamma of section 3.4
MOST_STEPS = 100_000
BATCHES = 0  # stream of random numbers
WHAT = "gate_trained"  # can be done with a model, for refusals


@dataclass(frozen=True)
class GateRecipe:
    """How a gate is trained.

    Attributes:
        loops: R, the steps that it chooses among; >= 2.
        steps: of optimisation.
        batch, length: windows a step, and tokens a window.
        lr: of Adam; it falls to 0 in a straight line.
        sharpness: k.
        margin: nats that a step must be worth for it to be as right to go on as to stop.
        seed: of the windows drawn.

    Raises:
        FieldError: a value out of its range.
    """

    loops: int
    steps: int = 400
    batch: int = 8
    length: int = 128
    lr: float = 0.01
    sharpness: float = SHARPNESS
    margin: float = MARGIN
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("loops", self.loops, 2)
        check_whole("steps", self.steps, 1, MOST_STEPS)
        check_whole("batch", self.batch, 1)
        check_whole("length", self.length, 2)
        check_whole("seed", self.seed, 0)
        check_number("lr", self.lr, 0.0, 1.0, above=True)
        check_number("sharpness", self.sharpness, 0.0, above=True)
        check_number("margin", self.margin, 0.0)


def recipe_for(model: LoopLlamaForCausalLM, **fields: Any) -> GateRecipe:
    """A recipe whose loops are the model's own, and its windows no longer than the model reads, unless fields say otherwise.

    Raises:
        FieldError: as :class:`GateRecipe`; nothing of the model loops.
    """
    blocks = model.config.loop_blocks()
    if not blocks:
        raise FieldError("loop_layers", None, "no_block", what=Term((WHAT,)), n=0)
    own = {"loops": blocks[0].max_steps}
    own["length"] = min(GateRecipe.length, model.config.max_position_embeddings)
    return GateRecipe(**{**own, **fields})


def about(recipe: GateRecipe, model: str, weights: str, data: str, sha256: str) -> dict[str, Any]:
    """What a gate's file says of how it was made.

    Args:
        model, weights: it was trained for, and their hash.
        data, sha256: the text's name, and its hash.
    """
    return {"model": model, "weights": weights, "data": data, "sha256": sha256, **asdict(recipe)}


def targets(losses: Tensor, sharpness: float = SHARPNESS, margin: float = MARGIN) -> Tensor:
    """How right it is to stop after each of the steps 2..R, `[R - 1, ...]` in 0..1: 1 - w_r of losses L_1..L_R `[R, ...]`."""
    worth = (losses[:-1] - losses[1:]).clamp(min=0)
    return torch.sigmoid(-sharpness * (worth - margin))


@torch.no_grad()
def readings(view: LoopLlamaForCausalLM, ids: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """What the gate sees and what it is taught by: normed states `[R, B, T, H]`, and losses `[R, B, T]` of stopping there.

    Args:
        view: runs R steps of one block; its own object.
        ids, labels: `[B, T]` int64, labels one token further.
    """
    states: list[Tensor] = []
    handle = view.register_loop_hook(lambda event: states.append(event.state))
    try:
        view.model(ids, use_cache=False)
    finally:
        handle.remove()
    steps = torch.stack([states[0], *states])  # s_0 is not read: its place is
    normed = normed_states(view.model, view.config.loop_blocks(), 0, steps)[1:]
    losses = torch.stack([nats(view, view.exit_states(state[None])[0], labels) for state in states])
    return normed, losses


def train_gate(
    model: LoopLlamaForCausalLM,
    ids: np.ndarray,
    recipe: GateRecipe,
    say: Callable[[int, float], None] = lambda step, loss: None,
) -> ExitGate:
    """A gate for a model's one looped block.

    Args:
        model: never changed; in eval mode.
        ids: `[n]` tokens to learn from.
        recipe: how.
        say: told every step, from 1, and its loss.

    Raises:
        FieldError: not exactly one looped block, or one whose steps cannot be compared.
        TextError: the text is shorter than a window.
        TrainingError: the loss is no longer a number.
    """
    view = max_loop_view(model, {"exit_selection": "last"}, recipe.loops, WHAT)
    if recipe.length > model.config.max_position_embeddings:
        raise FieldError("length", recipe.length, "at_most", high=model.config.max_position_embeddings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        gate = ExitGate(model.config.hidden_size)
    torch.nn.init.zeros_(gate.weight)
    torch.nn.init.zeros_(gate.bias)  # lambda = 1/2 everywhere: nothing is known yet
    gate.to(model.device)
    optimizer = torch.optim.Adam(gate.parameters(), lr=recipe.lr)
    for step in range(recipe.steps):
        rng = np.random.default_rng([recipe.seed, BATCHES, step])
        x, y = (torch.from_numpy(part).to(model.device) for part in windows(ids, recipe.batch, recipe.length, rng))
        normed, losses = readings(view, x, y)
        wanted = targets(losses, recipe.sharpness, recipe.margin).to(gate.weight.dtype)
        loss = F.binary_cross_entropy_with_logits(gate(normed[1:].to(gate.weight.dtype)).squeeze(-1), wanted)
        if not torch.isfinite(loss):
            raise TrainingError(
                f"step {step + 1}: loss={loss.item()}: what the model says or the gate itself is no number any more; check the model, or "
                f"lower lr={recipe.lr} or sharpness={recipe.sharpness}"
            )
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * (1 - step / recipe.steps)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        say(step + 1, loss.item())
    return gate.requires_grad_(False)
