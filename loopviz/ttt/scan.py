"""scan: a function over a list, one after the other, that keeps what is needed for its gradient, or computes it again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch.utils.checkpoint import checkpoint

from loopviz.model.interrupt import check

C = TypeVar("C")
X = TypeVar("X")
Y = TypeVar("Y")


def scan(
    function: Callable[[C, X], tuple[C, Y]], carry: C, items: Sequence[X], group_size: int = 0
) -> tuple[C, list[Y]]:
    """`carry, y = function(carry, item)` for every item.

    Args:
        group_size: items between two checkpoints: while gradients are recorded, only the carry between groups is kept, and
            the rest is computed again on the way back. The last group may be a smaller one. 0 keeps everything.

    Returns:
        The last carry, and every y.

    Raises:
        Interrupted: a stop was set around this work.
    """
    if group_size < 1 or not torch.is_grad_enabled():
        return _run(function, carry, items)
    found: list[Y] = []
    for start in range(0, len(items), group_size):
        group = items[start : start + group_size]
        carry, more = checkpoint(_run, function, carry, group, use_reentrant=False, preserve_rng_state=False)
        found += more
    return carry, found


def _run(function: Callable[[C, X], tuple[C, Y]], carry: C, items: Sequence[X]) -> tuple[C, list[Y]]:
    found = []
    for item in items:
        check()
        carry, y = function(carry, item)
        found.append(y)
    return carry, found
