"""Which loop step an exit gate had a token read out from, as its Frame says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def read_out_step(gate: Mapping[str, Any]) -> float:
    """The step that a token was read out from, from 1; where all steps were, by their weights, the mean step by these.

    Args:
        gate: a :class:`~loopviz.trace.schema.GateFrame`.
    """
    step = gate["read_out"]
    return sum(r * (p or 0.0) for r, p in enumerate(gate["p"], 1)) if step is None else step


def steps_needed(blocks: Sequence[Mapping[str, Any]]) -> float | None:
    """Loop steps of a token that what was read out needed, summed over blocks as N is; None where no gate chose.

    Args:
        blocks: a Frame's.
    """
    if all(block["gate"] is None for block in blocks):
        return None
    return sum(block["n_steps"] if block["gate"] is None else read_out_step(block["gate"]) for block in blocks)
