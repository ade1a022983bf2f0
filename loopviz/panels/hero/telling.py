"""Which word of a run is worth looking at first: the one whose answer changed loop by loop."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from loopviz.panels.kit.focus import Focus
from loopviz.panels.kit.follower import lens_of, said
from loopviz.panels.loop.would_say import flips

if TYPE_CHECKING:
    from loopviz.trace.trace import Trace


def turns(meta: Mapping[str, Any], frame: Mapping[str, Any], focus: Focus) -> int:
    """How often its likeliest next word changed on the way to another than it began with."""
    ids = said(frame["blocks"][focus.block], lens_of(meta, focus)).ids
    return len(flips(ids)) if ids and ids[0][:1] != ids[-1][:1] else 0


def telling(trace: Trace) -> int | None:
    """The position to look at in a run that has ended; None where nothing looped.

    Of the tokens after which the model chose a word itself (the prompt's last one is the first of them): the one whose
    likeliest next word changed most often and ended on another than it began with; of several the one of most loops, a word
    rather than a mark, the first.
    """
    meta, focus = trace.meta, Focus()
    if not meta["blocks"]:
        return None

    def worth(frame: Mapping[str, Any]) -> tuple[int, int, bool, int]:
        loops = frame["blocks"][0]["n_steps"]
        return turns(meta, frame, focus), loops, bool(re.search(r"\w{2}", frame["text"])), -frame["index"]

    chose = [frame for frame in trace.frames if frame["index"] >= meta["prompt_tokens"] - 1 and frame["blocks"]]
    best = max(chose, key=worth, default=None)
    return best["index"] if best is not None and best["blocks"][0]["n_steps"] else None
