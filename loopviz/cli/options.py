"""What the sub-commands share: options of the loop, of the machine and of where to write, and a checkpoint loaded with its
progress on stderr."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopviz import imports
from loopviz.cli.size_line import SizeLine, packed_need
from loopviz.fields import layers
from loopviz.loop_fields import BY_NAME, FIELDS, LoopField
from loopviz.machine import HELD_IN, PRECISIONS, QUANTIZATIONS, UsageError

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


_KINDS: dict[str, Callable[[str], Any]] = {"choice": str, "whole": int, "number": float, "flag": boolean}


def loop_options() -> dict[str, tuple[Callable[[str], Any], str]]:
    """How each loop field's text is read, and its help; with the names that people have registered by now."""
    found = {}
    for field in FIELDS:
        kind = layers if field.kind == "layers" else per_block(_KINDS[field.kind])
        found[field.name] = (kind, f"{field.words}: {said}" if (said := _choices(field)) else field.words)
    return found


def _choices(field: LoopField) -> str:
    """``ema, average or last``, as argparse takes them."""
    names = [name.replace("%", "%%") for name in (("yes", "no") if field.kind == "flag" else field.names)]
    return " or ".join([", ".join(names[:-1]), names[-1]]) if names else ""


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


def idle_because(name: str, blocks: Sequence[BlockMeta]) -> str:
    """Why a loop option changes nothing in a run whose blocks (as a Meta writes them) are these; "" if it does."""
    needs = BY_NAME[name].needs
    if any(all(need.holds(_value(block, need.field)) for need in needs) for block in blocks):
        return ""
    return BY_NAME[name].idle if blocks else ""


def _value(block: BlockMeta, name: str) -> Any:
    settings: Mapping[str, Any] = block
    return settings[BY_NAME[name].meta]


def add_adapter(parser: Any) -> None:
    """Add `--adapter` to a sub-command that has `--model`."""
    parser.add_argument(
        "--adapter",
        metavar="DIR",
        type=path,
        help="folder of a LoRA adapter (made by teach or peft) to put on the model",
    )


def add_precision(parser: Any, chosen: bool = False) -> None:
    """Add `--dtype` and `--precision`, of which one is given, and `--quantization` to a sub-command that runs a model.

    Args:
        chosen: whether `auto` chooses where neither is given (:func:`usual_precision`); else it is float32.
    """
    either = parser.add_mutually_exclusive_group()
    usual = "as --precision auto chooses" if chosen else "float32"
    told = f"what the weights are held in; int8: those of the layers, all else float32 (default: {usual})"
    either.add_argument("--dtype", default=None if chosen else "float32", choices=HELD_IN, help=told)
    told = (
        "instead of --dtype: exact (float32), half (float16 or bfloat16, whichever is quicker on this machine), int8, or auto (exact "
        "wherever a token is expected within 125 ms here, as it is of every small model, else half or int8); what is chosen is said, and "
        "saved with what is made" + (" (default: auto on the CPU, else exact)" if chosen else "")
    )
    either.add_argument("--precision", choices=PRECISIONS, help=told)
    add_quantization(parser, "all else is held and computed as --dtype says")


def usual_precision(dtype: str | None, quantization: str | None, device: str) -> str | None:
    """The precision of a run whose options name none: `auto` on the CPU, where nothing else says what weights are held in.

    Args:
        dtype, quantization, device: as the options have them.

    Raises:
        ValueError: a device that is not here.
    """
    from loopviz.model.devices import resolve_device

    said = dtype is not None or quantization is not None
    return None if said or resolve_device(device).type != "cpu" else "auto"


def add_quantization(parser: Any, rest: str) -> None:
    """Add `--quantization` to a sub-command that runs, or teaches, a model; `rest`: of all that is not packed."""
    parser.add_argument(
        "--quantization",
        choices=QUANTIZATIONS,
        help="pack the layers' weights with bitsandbytes, as transformers' BitsAndBytesConfig does: nf4 (4 bits, double quantisation) or "
        f"int8 (LLM.int8); {rest}. Made for a GPU, slow on a CPU; needs the extra bnb",
    )


def load(
    name: str,
    dtype: Any,
    loop: dict[str, Any],
    device: str = "cpu",
    adapter: Path | None = None,
    *,
    precision: str | None = None,
    quantization: str | None = None,
    untrained: bool = False,
) -> LoadedCheckpoint:
    """The checkpoint on a device, with its progress on stderr (gone when it is loaded, so that it never tears the text).

    So does, before its weights are read, what they take (:func:`.size_line.SizeLine`); and what is to be said of the checkpoint although
    it loads, a line each.

    Args:
        adapter: folder of a LoRA adapter that is put on it.
        precision: in place of a dtype (:func:`loopviz.engine.lowered.lowered`): what the model cannot be held in is said, and it is exact.
        quantization: how bitsandbytes packs the layers' weights, beside a dtype; what that costs is said
            (:func:`loopviz.engine.packing_cost.packed_beside_exact`), but of a model that is to be trained.
        untrained: whether a loop may have weights that nobody has trained: they will be.

    Raises:
        ValueError: a device that is not here, a precision and a quantization, a precision that is measured on the CPU for another device, a loop whose own weights nobody has trained; and as `load_checkpoint` does.
    """
    import torch
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from loopviz.engine.local import LocalPrepared
    from loopviz.engine.lowered import lowered
    from loopviz.engine.packing_cost import packed_beside_exact
    from loopviz.model.checkpoints.load import UNTRAINED, PreparedCheckpoint, prepare_checkpoint
    from loopviz.model.devices import resolve_device
    from loopviz.model.placing import place as put

    if precision is not None and quantization is not None:
        raise UsageError(
            f"--precision {precision}, --quantization {quantization}: both say what the layers' weights are held in; leave one of them "
            "out (--dtype says what all else is held and computed in)"
        )
    place = resolve_device(device, torch.int8 if precision == "int8" else dtype)
    if precision in ("half", "auto") and place.type != "cpu":
        raise UsageError(
            f"--precision {precision}: what is quicker is measured on the CPU, and this is {place}; say --dtype float16 or bfloat16"
        )
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
    )
    console, line = Console(stderr=True), SizeLine(name)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"loading {name}", total=None)

        def progress(message: str, fraction: float | None) -> None:
            bar.update(task, description=message, total=None if fraction is None else 1.0, completed=fraction or 0.0)

        def exact() -> LoadedCheckpoint:
            found = prepare_checkpoint(
                name, dtype=dtype, quantization=quantization, progress=progress, adapter=adapter, **loop
            )
            return line.say(found, LocalPrepared(name, found, precision or "exact").need).load()

        def floats() -> PreparedCheckpoint:
            found = prepare_checkpoint(name, progress=progress, adapter=adapter, **loop)
            return line.say(found, packed_need(found, quantization or "", dtype))

        if quantization is not None and not untrained:
            loaded = packed_beside_exact(quantization, dtype, floats, exact)
        else:
            loaded = exact() if precision in (None, "exact") else lowered(exact, precision)
    for note in loaded.notes:
        if note.code == UNTRAINED and untrained:
            continue
        if note.code == UNTRAINED:
            field = note.values["field"]
            raise ValueError(
                f"{field}={loop.get(field)!r}: {note.text}; leave it out, or train the model with it first"
            )
        print(f"loopviz: note: {name}: {note}", file=sys.stderr)
    if behind := put(loaded.model, place):
        print(
            f"loopviz: note: {name}: {behind} layers stay in main memory, for {place} does not hold them",
            file=sys.stderr,
        )
    return loaded
