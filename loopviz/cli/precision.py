"""`python -m loopviz precision`: what float16, bfloat16, int8 and bitsandbytes' NF4 and LLM.int8 cost models here, as one table."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from loopviz.cli.options import add_import, path
from loopviz.fields import layers
from loopviz.machine import HELD_IN, QUANTIZATIONS, UsageError, check_threads, processor
from loopviz.paths import ASSETS

MODELS = ("stories-loop", "smollm2-135m-instruct")
TEXT = ASSETS / "texts" / "little-stories.txt"
_WORDS = {
    "tokens": "tokens of the text that are compared",
    "window": "tokens a window",
    "loops": "loops for the floor: how small the change from loop to loop becomes",
    "rounds": "of which the times are medians",
}


def add_parsers(commands: Any) -> None:
    """Add the sub-command to the command line's parser."""
    one = commands.add_parser(
        "precision",
        help="measure what float16, bfloat16 and int8 cost a model: KL to float32, bytes, time",
        description="One table, Markdown: models by what their weights are held in; under it, in how long half and auto are chosen. "
        "KL and agreement are to float32 on a held-out text; "
        "times are medians of rounds in which all formats take turns, on the CPU. Measure on a quiet machine.",
    )
    one.add_argument(
        "--model", action="append", metavar="NAME", help=f"may be given several times (default: {', '.join(MODELS)})"
    )
    one.add_argument(
        "--held",
        type=formats,
        metavar="NAMES",
        help="with commas, beside float32 (default: float16,bfloat16,int8)",
    )
    one.add_argument(
        "--quantization",
        type=quantizations,
        default=(),
        metavar="NAMES",
        help=f"with commas, of {', '.join(QUANTIZATIONS)}: rows of layers that bitsandbytes has packed, all else float32 (slow on a CPU; "
        "needs the extra bnb)",
    )
    one.add_argument("--file", type=path, default=TEXT, help="the held-out text (default: one that comes along)")
    one.add_argument("--loop-layers", type=layers, metavar="X", help="of models without a loop of their own")
    for name, words in _WORDS.items():
        one.add_argument(f"--{name}", type=int, metavar="N", help=words)
    one.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: torch's choice)")
    add_import(one)


def formats(text: str) -> tuple[str, ...]:
    """Names of formats, with commas."""
    return _names(text, HELD_IN)


def quantizations(text: str) -> tuple[str, ...]:
    """Names of ways to pack, with commas."""
    return _names(text, QUANTIZATIONS)


def _names(text: str, known: Sequence[str]) -> tuple[str, ...]:
    found = tuple(part.strip() for part in text.split(","))
    for name in found:
        if name not in known:
            raise argparse.ArgumentTypeError(f"{name!r}: must be some of {', '.join(known)}")
    return found


def run(options: argparse.Namespace) -> int:
    """Run the parsed sub-command; returns the exit code.

    Raises:
        ValueError: a model, text or option that is refused.
    """
    check_threads(options.threads)
    given = {name: value for name in _WORDS if (value := getattr(options, name)) is not None}
    for name, value in given.items():
        if value < (least := 2 if name in ("tokens", "window", "loops") else 1):
            raise UsageError(f"--{name} {value}: must be at least {least}")
    import torch

    from loopviz.lab.precisions import FORMATS, Plan, costs, markdown, seconds_to_choose
    from loopviz.model.checkpoints.packing import check_quantization
    from loopviz.text_file import read_text

    for kind in options.quantization:
        check_quantization(kind, torch.float32, None)  # asked for by name: refused, and not left out
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    text, rows, took = read_text(options.file, "--file"), [], []
    for name in options.model or MODELS:
        loop = {} if options.loop_layers is None else _loop_of(name, options.loop_layers)
        held, plan = options.held or FORMATS, Plan(**given)
        rows += costs(name, text, held, plan, loop=loop, quantizations=options.quantization, told=_note)
        took.append(f"{name} {seconds_to_choose(name, loop):.2f} s")
        print(f"loopviz: {name} is measured", file=sys.stderr)
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    about = f"{processor()}, {torch.get_num_threads()} thread(s), torch {torch.__version__}{load}; {options.file.name}"
    print(markdown(rows, about))
    print(
        f"\nWhat half and auto choose by is measured here in (asked: under 1 s): {', '.join(took)}; then it is kept in the cache"
    )
    return 0


def _loop_of(name: str, loop_layers: Any) -> dict[str, Any]:
    """The loop that is asked for, where the model brings none."""
    from loopviz.model.checkpoints.load import prepare_checkpoint

    own = prepare_checkpoint(name).config.loop_blocks()
    return {} if own else {"loop_layers": loop_layers}


def _note(line: str) -> None:
    print(f"loopviz: note: {line}", file=sys.stderr)


COMMANDS = {"precision": run}
