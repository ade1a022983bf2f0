"""Settings of the loop that changed while a run went on: which of them held where.

A run whose loop was changed has ``meta["changes"]``; ``meta["blocks"]`` stays what it began with. Whatever reads a
Trace that may still grow asks here, and looks at no change beyond the frames it knows: a change may stand in the meta
an instant before the frame of the first token read under it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loopviz.trace.schema import BlockMeta, Change


def changes_of(meta: Mapping[str, Any], tokens: int | None = None) -> Sequence[Change]:
    """The changes that the first ``tokens`` frames know of (None: all), in order."""
    found = meta.get("changes", ())
    return found if tokens is None else [change for change in found if change["index"] < tokens]


def changed_at(meta: Mapping[str, Any], token: int) -> bool:
    """Whether position ``token`` is the first one read under changed settings."""
    return any(change["index"] == token for change in meta.get("changes", ()))


def blocks_at(meta: Mapping[str, Any], token: int) -> list[BlockMeta]:
    """Every block's settings as position ``token`` was read."""
    blocks = meta["blocks"]
    for change in changes_of(meta, token + 1):
        blocks = change["blocks"]
    return blocks


def as_of(meta: Mapping[str, Any], tokens: int, token: int | None = None) -> Mapping[str, Any]:
    """``meta`` as the first ``tokens`` frames know it: the one thing to draw a figure of them from.

    Args:
        meta: of the run.
        tokens: how many frames there are.
        token: whose settings to take; None, or one that is not there yet, takes the newest one's.

    Returns:
        ``meta`` itself when nothing was changed until then; else one whose ``blocks`` are those that held for ``token``,
        but with ``max_steps`` the largest that held for any of the frames: there must be room for all of them.
    """
    known = changes_of(meta, tokens)
    if not known:
        return meta
    at = tokens - 1 if token is None or token >= tokens else token
    every = [meta["blocks"], *(change["blocks"] for change in known)]
    blocks = [
        {**block, "max_steps": max(blocks[i]["max_steps"] for blocks in every)}
        for i, block in enumerate(blocks_at(meta, at))
    ]
    return {**meta, "blocks": blocks}
