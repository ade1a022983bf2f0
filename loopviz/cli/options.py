"""What the sub-commands share: options of the loop, of the machine and of where to write, and a checkpoint loaded with its
progress on stderr."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopviz import imports
from loopviz.fields import layers

if TYPE_CHECKING:
    from loopviz.model.checkpoints.load import LoadedCheckpoint
    from loopviz.trace.schema import BlockMeta


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


def path(text: str) -> Path:
    """A path that is one: an empty text would be the working directory to Python."""
    if not text.strip():
        raise argparse.ArgumentTypeError("empty; write a path")
    if "\0" in text:
        raise argparse.ArgumentTypeError(f"{text!r}: no path")
    return Path(text)


def stem(text: str) -> str:
    """Where a table goes, as typed: a name without ending, or a folder."""
    path(text)
    return text


def in_folder(given: str, name: str) -> Path:
    """The stem of a table: what was given, or `name` in it where that is a folder (or ends like one)."""
    return Path(given) / name if given.endswith(("/", os.sep)) or Path(given).is_dir() else Path(given)


def add_machine(parser: Any, threads: str = "CPU threads (default: torch's choice)") -> None:
    """Add `--device`, `--threads` and `--import` to a sub-command."""
    parser.add_argument(
        "--device",
        default="cpu",
        metavar="NAME",
        help="where the model runs: cpu, cuda, cuda:1, mps, xpu, or auto for an accelerator if there is one (default: "
        "%(default)s; all figures in the documentation were made on the CPU)",
    )
    parser.add_argument("--threads", type=int, metavar="N", help=threads)
    add_import(parser)


def add_import(parser: Any) -> None:
    """Add `--import`; the modules have been imported by then (:func:`loopviz.imports.named`)."""
    parser.add_argument(
        imports.OPTION, dest="imports", action="append", default=[], metavar="MODULE", help=imports.HELP
    )


_COSINE, _KL = ("kl",), ("cosine",)  # criteria that do not look at the cosine, at KL


def idle_because(name: str, blocks: Sequence[BlockMeta]) -> str:
    """Why a loop option changes nothing in a run whose blocks (as a Meta writes them) are these; "" if it does.

    `max_loop_count` is a bound under both strategies, and never idle.
    """
    needs: dict[str, tuple[Callable[[BlockMeta], bool], str]] = {
        "loop_count": (lambda b: b["strategy"] == "fixed_count", "under dynamic_stop, whose bound is max_loop_count"),
        "min_loop_count": (_dynamic, "without --loop-strategy dynamic_stop"),
        "convergence_criterion": (_dynamic, "without --loop-strategy dynamic_stop"),
        "cosine_threshold": (
            lambda b: _dynamic(b) and b["criterion"] not in _COSINE,
            "without --loop-strategy dynamic_stop and a criterion that looks at the cosine",
        ),
        "kl_threshold": (
            lambda b: _dynamic(b) and b["criterion"] not in _KL,
            "without --loop-strategy dynamic_stop and a criterion that looks at KL",
        ),
        "virtual_layer_count": (lambda b: not _merging(b), "under --kv-cache-mode merge_strategy"),
        "virtual_attention_mode": (lambda b: not _merging(b), "under --kv-cache-mode merge_strategy"),
        "merge_strategy": (_merging, "without --kv-cache-mode merge_strategy"),
        "merge_ema_alpha": (
            lambda b: _merging(b) and b["merge"] not in ("average", "last"),
            "without --kv-cache-mode merge_strategy and a merge that weighs, as ema",
        ),
        "layer_threshold": (lambda b: b["chooser"] != "none", "without --layer-chooser"),
    }
    if name not in needs or not blocks:
        return ""
    used, why = needs[name]
    return "" if any(used(block) for block in blocks) else why


def _dynamic(block: BlockMeta) -> bool:
    return block["strategy"] == "dynamic_stop"


def _merging(block: BlockMeta) -> bool:
    return block["kv_mode"] == "merge_strategy"


def load(name: str, dtype: Any, loop: dict[str, Any], device: str = "cpu") -> LoadedCheckpoint:
    """The checkpoint on a device, with its progress on stderr (gone when it is loaded, so that it never tears the text).

    What is to be said of the checkpoint although it loads goes to stderr, a line each.

    Raises:
        ValueError: a device that is not here, a loop whose own weights nobody has trained; and as `load_checkpoint` does.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from loopviz.model.checkpoints.load import UNTRAINED, load_checkpoint
    from loopviz.model.devices import resolve_device

    place = resolve_device(device, dtype)
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

        loaded = load_checkpoint(name, dtype=dtype, progress=progress, **loop)
    for note in loaded.notes:
        if note.code == UNTRAINED:
            field = note.values["field"]
            raise ValueError(
                f"{field}={loop.get(field)!r}: {note.text}; leave it out, or train the model with it first"
            )
        print(f"loopviz: note: {name}: {note}", file=sys.stderr)
    loaded.model.to(place)
    return loaded
