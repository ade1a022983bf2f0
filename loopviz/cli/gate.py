"""`python -m loopviz gate`: train an exit gate for a looped model that has none; the model itself stays as it is.

What is written is a file of one small layer, to be put beside the model's weights. The progress goes to stderr.
"""

from __future__ import annotations

import argparse
from typing import Any

from loopviz import outputs
from loopviz.cli.options import add_machine, load, path
from loopviz.machine import check_threads

FIELDS = ("steps", "batch", "length", "lr", "sharpness", "margin", "seed")
_WORDS = {
    "steps": "steps of training",
    "batch": "windows a step",
    "length": "tokens a window",
    "lr": "learning rate; it falls to 0 in a straight line",
    "sharpness": "how sharply worth turns into going on (k of the adaptive exit loss)",
    "margin": "nats that a loop must be worth",
    "seed": "of the windows drawn",
}


def add_parsers(commands: Any) -> None:
    """Add the sub-command to the command line's parser."""
    gate = commands.add_parser(
        "gate",
        help="train an exit gate for a looped model, as Ouro's second stage does",
        description="Train an exit gate, one linear layer on the state after every loop, for a model with one looped block, which "
        "stays as it is (the adaptive exit loss of arXiv 2510.25741). Put the file beside the model's weights as gate.safetensors: "
        "exit_selection=gate is then among what its loop can do.",
    )
    gate.add_argument("model", help="a bundled model's name, or the folder of a looped model")
    gate.add_argument("--data", required=True, metavar="FILE", type=path, help="a text to learn from, UTF-8")
    gate.add_argument("--out", required=True, metavar="FILE", type=path, help="the file, gate.safetensors")
    gate.add_argument("--force", action="store_true", help="write over a file that is there")
    gate.add_argument("--loops", type=int, metavar="N", help="loops it chooses among (default: the model's own)")
    for name in FIELDS:
        kind = float if name in ("lr", "sharpness", "margin") else int
        gate.add_argument(f"--{name}", type=kind, metavar="X" if kind is float else "N", help=_WORDS[name])
    add_machine(gate)


def run(options: argparse.Namespace) -> int:
    """Run the parsed sub-command; returns the exit code.

    Raises:
        ValueError: a model, text or option that is refused.
        OSError: a file that cannot be read or written.
    """
    check_threads(options.threads)
    outputs.check_file(options.out, "--out", inputs=[options.data])
    if not options.force:
        outputs.check_free([options.out], "--out", "a file of its own")

    import torch
    from rich.console import Console
    from rich.progress import Progress

    from loopviz.engine.provenance import shown_name, weights_digest
    from loopviz.lab.reading.windows import encode
    from loopviz.model.exit_gate import gate_bytes
    from loopviz.text_file import read_text
    from loopviz.train.gate import about, recipe_for, train_gate
    from loopviz.train.text import sha256

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    text = read_text(options.data)
    loaded = load(options.model, torch.float32, {}, options.device)
    given = {name: value for name in ("loops", *FIELDS) if (value := getattr(options, name)) is not None}
    recipe = recipe_for(loaded.model, **given)
    ids = encode(loaded.tokenizer, text, None, closed=True)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("training", total=recipe.steps)

        def say(step: int, loss: float) -> None:
            bar.update(task, completed=step, description=f"loss {loss:.4f}")
            if not console.is_terminal and step % max(1, recipe.steps // 10) == 0:
                console.print(f"step {step:,}  loss {loss:.4f}", highlight=False)

        gate = train_gate(loaded.model, ids, recipe, say)
    made = about(
        recipe, shown_name(options.model), weights_digest(loaded.model), options.data.name, sha256(options.data)
    )
    outputs.write(options.out, gate_bytes(gate, made))
    console.print(f"written: {options.out}", highlight=False, soft_wrap=True)
    return 0


COMMANDS = {"gate": run}
