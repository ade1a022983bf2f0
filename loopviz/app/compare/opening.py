"""What the Compare page is set up with before anybody has said anything: its cards, and something to measure perplexity on."""

from __future__ import annotations

from typing import Any

from loopviz.app.compare.request import SWEEP
from loopviz.app.contract import USUAL_PRESET
from loopviz.app.controls.presets import PRESETS

# For the first prompt offered with a model.
CONTINUATIONS = {
    "stories": " went to the park with his mom. He liked to play outside in the sun. Then he saw a big red ball under a tree.",
    "smollm2": " lived in a quiet workshop at the edge of the town. Every morning it swept the floor and watered the plants.",
}


def continuation(model: str) -> str:
    """What follows the first prompt that is offered with a model; "" where nothing of ours does."""
    return next((words for start, words in CONTINUATIONS.items() if model.startswith(start)), "")


def cards() -> list[dict[str, Any]]:
    """The cards of the recorded comparison: `origin` is the text that each is called by.

    The model without its loop, its own loop, that with one note for all loops, and its loop at 1 to 16 loops.
    """
    slot = next(preset for preset in PRESETS if preset.name == USUAL_PRESET)
    own = {"plain": False, "values": {}, "sweep": 0}
    return [
        {**own, "origin": "compare.plain", "plain": True},
        {**own, "origin": "compare.own"},
        {**own, "origin": f"preset.{slot.name}.label", "values": dict(slot.values)},
        {**own, "origin": "compare.sweep.name", "sweep": SWEEP},
    ]
