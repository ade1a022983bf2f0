"""What the sub-commands share: options of the loop, and a checkpoint loaded with its progress on stderr."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loopviz.model.checkpoints import LoadedCheckpoint

DTYPES = ("float32", "bfloat16", "float16", "float64")


class UsageError(ValueError):
    """Options that contradict each other."""


def layers(text: str) -> Any:
    """``10-14``, ``3`` or ``2-3,6-7`` as what ``loop_layers`` takes."""
    pairs = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        try:
            pairs.append((int(first), int(last) if dash else int(first)))
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r}: write 10-14, or 2-3,6-7 for several blocks") from None
    return pairs[0] if len(pairs) == 1 else pairs


def per_block(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """One value, or one a block separated by commas."""

    def parse(text: str) -> Any:
        try:
            values = [kind(part.strip()) for part in text.split(",")]
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"{text!r}: not {kind.__name__} (or several, one a block, with commas)"
            ) from None
        return values[0] if len(values) == 1 else values

    return parse


def boolean(text: str) -> bool:
    """``yes`` or ``no``."""
    known = {"yes": True, "true": True, "no": False, "false": False}
    if text.lower() not in known:
        raise ValueError(text)
    return known[text.lower()]


LOOP_OPTIONS: dict[str, tuple[Callable[[str], Any], str]] = {
    "loop_layers": (layers, "layers to repeat, first and last: 10-14; several blocks: 2-3,6-7"),
    "loop_strategy": (per_block(str), "fixed_count or dynamic_stop"),
    "loop_count": (per_block(int), "loop steps under fixed_count"),
    "max_loop_count": (per_block(int), "upper bound of loop steps"),
    "min_loop_count": (per_block(int), "steps before dynamic_stop may stop"),
    "cosine_threshold": (per_block(float), "dynamic_stop: stop at this cosine between steps"),
    "kl_threshold": (per_block(float), "dynamic_stop: stop at this KL between steps (nats)"),
    "convergence_criterion": (per_block(str), "cosine, kl, either or both"),
    "kv_cache_mode": (per_block(str), "virtual_layers or merge_strategy"),
    "virtual_layer_count": (per_block(int), "KV slots of a looped layer, V"),
    "virtual_attention_mode": (per_block(str), "parallel or serial"),
    "merge_strategy": (per_block(str), "ema, average or last"),
    "merge_ema_alpha": (per_block(float), "weight kept on the old value"),
    "loop_damping": (per_block(float), "part of each step that is taken, in (0, 1]"),
    "loop_injection": (per_block(str), "none, add or linear"),
    "loop_norm": (per_block(boolean), "an RMSNorm before each step: yes or no"),
    "layer_chooser": (per_block(str), "which layers of a block run in a step: none (all), influence, difficulty"),
    "layer_threshold": (per_block(float), "what the chooser compares with: influence in [0, 2], difficulty in [0, 1]"),
}


def option(name: str) -> str:
    """A field's name as an option."""
    return "--" + name.replace("_", "-")


def load(name: str, dtype: Any, loop: dict[str, Any]) -> LoadedCheckpoint:
    """The checkpoint, with its progress on stderr (gone when it is loaded, so that it never tears the text)."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from loopviz.model.checkpoints import load_checkpoint

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"loading {name}", total=None)

        def progress(message: str, fraction: float | None) -> None:
            bar.update(task, description=message, total=None if fraction is None else 1.0, completed=fraction or 0.0)

        return load_checkpoint(name, dtype=dtype, progress=progress, **loop)
