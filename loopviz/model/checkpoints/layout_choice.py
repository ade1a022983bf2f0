"""Which way a model's matrices lie where it is run token by token: measured on this machine with the model's own, and kept.

The head is left alone: with a recorder it is read for a handful of rows at once, which want it by rows
(:func:`loopviz.trace.recording.recorder.head_logits`). On some processors and builds of torch nothing is gained; there every matrix lies as it was read.
"""

from __future__ import annotations

from typing import Any

from loopviz.model import LoopLlamaForCausalLM
from loopviz.model.weight_layout import LAYOUTS, Shape, better, lay, matrices, timed

from .kept_measurement import kept

FILE = "layout.json"


def arrange(model: LoopLlamaForCausalLM) -> dict[Shape, str]:
    """Let the float32 matrices of a model's layers on the CPU lie as one token is read quickest, in place.

    For a model that is loaded and will be run, not trained or saved: `save_pretrained` lays it by rows again.

    Returns:
        The layout of each shape (out, in).
    """
    found = matrices(model.model.layers)
    if not found:
        return {}
    names = {f"{out}x{into}x{len(weights)}": (out, into) for (out, into), weights in sorted(found.items())}
    chosen = kept(
        FILE,
        " ".join(names),
        lambda: {name: better(timed(found[shape])) for name, shape in names.items()},
        lambda value: value if _is_choice(value, names) else None,
    )
    for name, shape in names.items():
        if chosen[name] != "rows":
            lay(found[shape], chosen[name])
    return {shape: chosen[name] for name, shape in names.items()}


def _is_choice(value: Any, names: dict[str, Shape]) -> bool:
    return isinstance(value, dict) and set(value) == set(names) and all(each in LAYOUTS for each in value.values())
