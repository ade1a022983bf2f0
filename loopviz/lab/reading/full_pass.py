"""Scoring tokens by whole passes, without a cache: every position of a window at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from loopviz.model import LoopLlamaForCausalLM, LoopStep
from loopviz.model.interrupt import check

if TYPE_CHECKING:
    from loopviz.ttt import TTTForCausalLM

HELD = 1 << 24  # logits that are held at once


def fixed(model: LoopLlamaForCausalLM, loops: int) -> LoopLlamaForCausalLM:
    """A view that runs exactly `loops` steps (in every block); a model without a loop as it is."""
    blocks = model.config.loop_blocks()
    if not blocks:
        return model
    most = max(loops, *(block.max_count for block in blocks))
    return model.with_loop(loop_strategy="fixed_count", loop_count=loops, max_loop_count=most)


@torch.no_grad()
def each_exit(
    model: LoopLlamaForCausalLM,
    ids: Tensor,
    loops: Sequence[int],
    take: Callable[[int, Tensor], None],
    watch: Callable[[LoopStep], None] | None = None,
) -> None:
    """What a model says when it stops after each of `loops` steps, all of them from one pass where that is possible.

    With one looped block the state after step r, continued through the real coda, is what a model set to r steps gives
    (the exit lens); with several, where the first block's steps change what the second sees, and where a gate chooses what
    is read out, each count runs by itself.

    Args:
        model: its strategy does not matter: every count is run in full.
        ids: `[B, T]` int64; padding, if any, at the right.
        loops: ascending, >= 1; a model without a loop is taken once, as 1.
        take: `(r, hidden)`: normed last hidden states `[B, T, H]`, as `model.lm_head` takes them.
        watch: told of every loop step (one looped block only).

    Raises:
        ValueError: `watch` with several blocks, a chooser of layers or a gate.
    """
    blocks = model.config.loop_blocks()
    if not blocks:
        take(1, model.model(ids, use_cache=False).last_hidden_state)
        return
    # a chooser of layers may end a row early, and its choice for one count need not be that of another
    chosen = next((block.chooser for block in blocks if block.chosen), None)
    gate = next((block.exit_selection for block in blocks if block.exit_selection != "last"), None)
    if len(blocks) > 1 or chosen or gate:
        if watch is not None and gate:
            raise ValueError(f"exit_selection={gate!r}: the last step must be read out to be measured; set 'last'")
        if watch is not None and chosen:
            raise ValueError(f"layer_chooser={chosen!r}: every layer must run in every step to be measured; set 'none'")
        if watch is not None:
            raise ValueError(f"loop_layers={model.config.loop_layers!r}: one block can be measured, not several")
        for r in loops:
            take(r, fixed(model, r).model(ids, use_cache=False).last_hidden_state)
        return
    view = fixed(model, loops[-1])

    def step(event: LoopStep) -> None:
        if watch is not None:
            watch(event)
        if event.step in loops:
            take(event.step, view.exit_states(event.state[None])[0])  # the coda's attention needs every position

    handle = view.register_loop_hook(step)
    try:
        view.model(ids, use_cache=False)
    finally:
        handle.remove()


@torch.no_grad()
def nats(model: LoopLlamaForCausalLM | TTTForCausalLM, hidden: Tensor, targets: Tensor) -> Tensor:
    """`-log p(target)` `[B, T]` float64, nats, from normed hidden states `[B, T, H]` and targets `[B, T]`."""
    B, T, _ = hidden.shape
    size = max(1, HELD // (B * model.config.vocab_size))
    parts = []
    for t in range(0, T, size):
        check()
        logits = model.lm_head(hidden[:, t : t + size])  # [B, size, vocab]
        logits = logits if logits.dtype == torch.float64 else logits.float()
        # Vocabulary last, as it lies in memory: across it, strided sums are less exact.
        losses = F.cross_entropy(logits.flatten(0, 1), targets[:, t : t + size].flatten(), reduction="none")
        parts.append(losses.view(B, -1).double())
    return torch.cat(parts, dim=1)


def score_full(model: LoopLlamaForCausalLM, ids: Tensor, loops: Sequence[int]) -> dict[int, Tensor]:
    """Loss of every prediction at every loop count, by whole passes.

    Args:
        model: as in :func:`each_exit`.
        ids: `[B, T]` int64; padding, if any, at the right.
        loops: ascending loop counts.

    Returns:
        `-log p(token t + 1 | tokens 0..t)` `[B, T - 1]` float64, nats, by loop count.
    """
    ids = ids.to(model.device)
    found: dict[int, Tensor] = {}

    def take(r: int, hidden: Tensor) -> None:
        found[r] = nats(model, hidden, ids[:, 1:]).cpu()

    each_exit(model, ids[:, :-1], loops, take)
    return found
