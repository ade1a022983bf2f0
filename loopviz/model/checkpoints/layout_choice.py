"""Which way a model's matrices lie where it is run token by token: measured on this machine with the model's own, and kept.

In float32 each lies by rows or by columns; in half and int8 those that read the same lie apart or side by side, for one product.
The head is left alone: with a recorder it is read for a handful of rows at once, which want it by rows
(:func:`loopviz.trace.recording.recorder.head_logits`). On some processors and builds of torch nothing is gained; there every matrix lies as it was read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from loopviz.model import LoopLlamaForCausalLM
from loopviz.model.side_by_side import WAYS, groups, lay_beside, measured, whole_of
from loopviz.model.weight_layout import LAYOUTS, Shape, better, lay, matrices, timed

from .kept_measurement import kept

FILE = "layout.json"


def arrange(model: LoopLlamaForCausalLM) -> dict[Shape, str]:
    """Let the matrices of a model's layers on the CPU lie as one token is read quickest, in place.

    For a model that is loaded and will be run, not trained or saved: `save_pretrained` lays it as it was read again.

    Returns:
        The layout of each shape (out, in) of float32.
    """
    _lay_side_by_side(model)
    found = matrices(model.model.layers)
    if not found:
        return {}
    names = {f"{out}x{into}x{len(weights)}": (out, into) for (out, into), weights in sorted(found.items())}
    chosen = kept(
        FILE,
        " ".join(names),
        lambda: {name: better(timed(found[shape])) for name, shape in names.items()},
        lambda value: value if _is_choice(value, names, LAYOUTS) else None,
    )
    for name, shape in names.items():
        if chosen[name] != "rows":
            lay(found[shape], chosen[name])
    return {shape: chosen[name] for name, shape in names.items()}


def _lay_side_by_side(model: LoopLlamaForCausalLM) -> None:
    """Let the maps of half or int8 that read the same lie side by side where a product of all is quicker, and the same."""
    apart = {
        kind: [group for group in every if whole_of(group) is None]
        for kind, every in groups(model.model.layers).items()
    }
    names = {
        f"{held} {'+'.join(map(str, rows))}x{columns}x{len(found)}": found
        for (held, rows, columns), found in sorted(apart.items())
        if found
    }
    if not names:
        return
    chosen = kept(
        FILE,
        "side by side " + " ".join(names),
        lambda: {name: measured(found) for name, found in names.items()},
        lambda value: value if _is_choice(value, names, WAYS) else None,
    )
    for name, found in names.items():
        if chosen[name] == "beside":
            for group in found:
                lay_beside(group)


def _is_choice(value: Any, names: Iterable[str], among: tuple[str, ...]) -> bool:
    return isinstance(value, dict) and set(value) == set(names) and all(each in among for each in value.values())
