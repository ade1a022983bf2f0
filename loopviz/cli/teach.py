"""`python -m loopviz teach` and `merge`: a LoRA with which a stock Llama loops, and one folder made of both.

The table goes to stdout, progress to stderr. Killed, the same command goes on where its last checkpoint was.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopviz import outputs
from loopviz.cli.options import add_machine, add_quantization, boolean, load, option, path
from loopviz.cli.train import ADAPTERS, RUN, STATE, Line, check_kind
from loopviz.fields import layers
from loopviz.loop_fields import BY_NAME
from loopviz.machine import DTYPES, UsageError, check_threads
from loopviz.paths import install_hint
from loopviz.text_file import STDIN
from loopviz.train import recipe as recipes
from loopviz.train.teach_recipe import INSTRUCTIONS, TEXT, TeachRecipe

if TYPE_CHECKING:
    from loopviz.model.checkpoints.load import LoadedCheckpoint

MADE = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "loop_adapter.json",
    "README.md",
    "results.json",
)
LOOP = ("loop_layers", "loop_injection", "loop_norm", "loop_damping")  # fields with an option of their own


def _loops(text: str) -> dict[str, Any]:
    """``1-6`` or ``4``, as the recipe's section."""
    match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r}: write 1-6, or 4")
    low, high = int(match[1]), int(match[2] or match[1])
    if not 1 <= low <= high <= BY_NAME["loop_count"].high:
        raise argparse.ArgumentTypeError(
            f"{text!r}: must be from 1 to {BY_NAME['loop_count'].high:g}, the smaller first"
        )
    return {"sampler": "uniform", "min": low, "max": high}


def add_parsers(commands: Any) -> None:
    """Add the sub-commands to the command line's parser."""
    teach = commands.add_parser(
        "teach",
        help="teach a stock Llama to loop: a LoRA on a block of its layers",
        epilog=f"Killed, the same command goes on where it was. Needs peft: {install_hint('teach')}",
    )
    teach.add_argument("--model", required=True, help="named model, Hub id, folder or GGUF file")
    teach.add_argument(
        "--loop-layers", required=True, type=layers, metavar="A-B", help="the block that is repeated: 10-14"
    )
    teach.add_argument(
        "--loops",
        type=_loops,
        default="1-4",
        metavar="A-B",
        help="loops of a step are drawn from these (default: %(default)s)",
    )
    teach.add_argument(
        "--data", required=True, metavar="FILE", type=path,
        help="a UTF-8 text (documents end with a line <|endoftext|>), or prompts with responses (.jsonl, .json)",
    )  # fmt: skip
    teach.add_argument("--held-out", metavar="FILE", type=path, help="to measure on (default: the end of --data)")
    teach.add_argument(
        "--template",
        metavar="NAME",
        help="how the prompts are put: none, chat, alpaca, vicuna (default: the model's own chat, else none)",
    )
    teach.add_argument("--out", required=True, metavar="DIR", type=path, help="folder of the adapter")
    teach.add_argument(
        "--force", action="store_true", help="write into a folder that holds other files, and begin anew"
    )
    how = teach.add_argument_group("how")
    how.add_argument("--steps", type=int, metavar="N", help="optimisation steps (default: 200)")
    how.add_argument("--rank", type=int, metavar="N", help="of the LoRA (default: 8)")
    how.add_argument(
        "--alpha", type=float, metavar="X", help="of the LoRA, which is scaled by alpha / rank (default: 8)"
    )
    told = "linear maps the LoRA is on (default: q_proj,k_proj,v_proj,o_proj)"
    how.add_argument(
        "--targets", metavar="NAME,NAME", type=lambda text: [part.strip() for part in text.split(",")], help=told
    )
    told = "one LoRA a loop step (relaxed recursion), as many as --loops at most; loops beyond them use the last one's. Cannot be merged"
    how.add_argument("--lora-per-step", action="store_true", help=told)
    injections = ", ".join(BY_NAME["loop_injection"].choices)
    how.add_argument("--loop-injection", metavar="X", help=f"{injections}; linear brings new weights, trained whole")
    how.add_argument("--loop-norm", type=boolean, metavar="X", help="yes: a norm before each step, trained whole")
    how.add_argument("--loop-damping", type=float, metavar="X", help="share of each step that is taken (default: 1)")
    how.add_argument(
        "--backprop", type=int, metavar="K", help="gradients flow through the last K loop steps (default: all)"
    )
    told = (
        "change anything else: optimizer.lr=0.001, batch=8, loop.virtual_layer_count=4 (JSON values); can be repeated"
    )
    how.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help=told)
    add_quantization(teach, "the LoRA lies on them (QLoRA), and all else is float32")
    add_machine(teach)

    merge = commands.add_parser("merge", help="make one model folder of an adapter and what it is on")
    merge.add_argument("adapter", type=path, help="folder made by teach or by peft")
    merge.add_argument("out", type=path, help="folder of the model")
    merge.add_argument("--model", help="what the adapter is on, if not as it says")
    merge.add_argument("--dtype", default="float32", choices=DTYPES, help="of the weights (default: %(default)s)")
    merge.add_argument("--force", action="store_true", help="write into a folder that holds another model")


# -- teach -------------------------------------------------------------------------------------------------------------


def _kind(file: Path) -> str:
    """What a file holds, by its ending: Alpaca's own file is one JSON list."""
    return INSTRUCTIONS if file.suffix.lower() in (".jsonl", ".json") else TEXT


def _recipe(options: argparse.Namespace) -> TeachRecipe:
    """The recipe of the options; files are looked at, nothing is read."""
    for name, file in (("--data", options.data), ("--held-out", options.held_out)):
        if file is not None and str(file) == STDIN:
            raise UsageError(f"{name} -: teaching reads its data more than once; write it to a file and name that")
        if file is not None and not file.is_file():
            raise UsageError(f"{name} {file}: there is no such file")
    kind = _kind(options.data)
    if options.held_out is not None and _kind(options.held_out) != kind:
        raise UsageError(f"--held-out {options.held_out}: must be of the same kind as --data {options.data}")
    loop = {name: value for name in LOOP if (value := getattr(options, name)) is not None}
    values: dict[str, Any] = {"base": options.model, "kind": kind, "loop": loop, "loops": options.loops}
    given = {"steps": "steps", "lora.rank": "rank", "lora.alpha": "alpha", "lora.targets": "targets"}
    given |= {
        "backprop_steps": "backprop",
        "template": "template",
        "threads": "threads",
        "quantization": "quantization",
    }
    changes = {name: getattr(options, own) for name, own in given.items() if getattr(options, own) is not None}
    if options.lora_per_step:
        changes["lora.per_step"] = True
    if options.steps is not None:
        changes["schedule.warmup"] = min(10, max(options.steps, 0))
    return TeachRecipe.from_dict(values).with_values({**changes, **recipes.changes_of(options.set)})


def _check_place(options: argparse.Namespace) -> None:
    """Refuse, before any work, a folder that cannot be written, or that holds files which are not this run's."""
    outputs.check_folder(options.out, "--out")
    check_kind(options.out, "--out", ("config.json",), "a model", "an adapter")
    if not options.force and not (options.out / RUN / STATE).exists():
        outputs.check_free([options.out / name for name in MADE], "--out", "and not of a run in this folder")


def teach(options: argparse.Namespace) -> int:
    """Run `teach`; returns the exit code."""
    recipe = _recipe(options)
    check_threads(recipe.threads)
    _check_place(options)

    import torch

    from loopviz.model.checkpoints.adapter import is_adapter, need_peft
    from loopviz.model.checkpoints.find import NAMED
    from loopviz.model.checkpoints.packing import check_quantization, packed, quantization_note
    from loopviz.model.devices import resolve_device
    from loopviz.train.teach_session import settled, untrained

    need_peft("teach")
    if recipe.quantization is not None:
        check_quantization(recipe.quantization, torch.float32, None)
    if options.model not in NAMED and is_adapter(options.model):
        raise UsageError(f"--model {options.model}: is an adapter itself; merge it into a model first (loopviz merge)")
    device = resolve_device(options.device, torch.float32)
    loaded = load(options.model, torch.float32, dict(recipe.fields), untrained=True)

    def pack() -> None:
        if recipe.quantization is not None:
            packed(loaded.model, recipe.quantization, loaded.path)
            note = quantization_note(recipe.quantization, torch.float32, loaded.path.is_file())
            print(f"loopviz: note: {options.model}: {note}", file=sys.stderr)

    here = options.model not in NAMED and Path(options.model).expanduser().exists()
    base = os.path.abspath(Path(options.model).expanduser()) if here else options.model  # whoever asks from wherever
    found = settled(dataclasses.replace(recipe, base=base), loaded.model, device, untrained(loaded), pack)
    run_folder = options.out / RUN
    ours = not run_folder.exists()
    with outputs.alone(run_folder / STATE, "--out", "training"):
        _taught(options, found, loaded, str(device), run_folder, ours)
    return 0


def _taught(
    options: argparse.Namespace,
    recipe: TeachRecipe,
    loaded: LoadedCheckpoint,
    device: str,
    run_folder: Path,
    ours: bool,
) -> None:
    """The run itself, its table, its adapter; `ours`: nobody had a folder there before it."""
    from loopviz.train.teach_card import closing_table
    from loopviz.train.teach_session import TeachSession, task_of

    state = run_folder / STATE
    told = lambda line: print(line, file=sys.stderr)  # noqa: E731
    try:
        with outputs.naming(run_folder):
            run_folder.mkdir(parents=True, exist_ok=True)
            task = task_of(recipe, options.data, options.held_out, run_folder, loaded.tokenizer, told)
        if options.force:
            state.unlink(missing_ok=True)
        resume = state.is_file()
        with Line(recipe.steps) as line:
            session = TeachSession(recipe, task, run_folder, loaded, device=device, resume=resume, say=line)
            if resume:
                told(f"loopviz: going on after step {session.trainer.progress.step:,} of the run in {options.out}")
            session.trainer.run()
    except Exception:
        if ours and not state.is_file():  # nothing that could go on: leave nothing
            shutil.rmtree(run_folder, ignore_errors=True)
        raise
    closing = session.close()
    with outputs.naming("stdout"):
        print(closing_table(closing), flush=True)
    session.keep(options.out, closing, _typed(options))


def _typed(options: argparse.Namespace) -> str:
    """The command, with files named without their folders: a card must not tell how somebody's disk is laid out."""
    from loopviz.engine.provenance import shown_name

    first, last = options.loop_layers
    least, most = options.loops["min"], options.loops["max"]
    named = ["--model", shown_name(options.model), "--loop-layers", f"{first}-{last}", "--loops", f"{least}-{most}"]
    for name in ("data", "held_out", "out"):
        if (value := getattr(options, name)) is not None:
            named += [option(name), value.name]
    for name in ("template", "steps", "rank", "alpha", "targets", *LOOP[1:], "backprop", "quantization", "threads"):
        value = getattr(options, name)
        if value is not None:
            shown = ",".join(value) if isinstance(value, list) else "yes" if value is True else str(value)
            named += [option(name), "no" if value is False else shown]
    if options.lora_per_step:
        named += ["--lora-per-step"]
    for item in options.set:
        named += ["--set", item]
    return "python -m loopviz teach " + shlex.join(named)


# -- merge -------------------------------------------------------------------------------------------------------------


def merge(options: argparse.Namespace) -> int:
    """Run `merge`; returns the exit code."""
    outputs.check_folder(options.out, "OUT")
    if options.out.resolve() == options.adapter.resolve():
        raise UsageError(f"OUT {options.out}: is the adapter's own folder; name another")
    check_kind(options.out, "OUT", ADAPTERS, "an adapter", "a model")
    if not options.force:
        outputs.check_free(
            [options.out / name for name in ("config.json", "model.safetensors", *MADE)], "OUT", "of another"
        )

    import torch

    from loopviz.model.checkpoints.adapter import read_adapter
    from loopviz.model.checkpoints.quiet import quiet_transformers
    from loopviz.model.step_adapters import NOT_ONE_MODEL

    if read_adapter(options.adapter).steps:
        raise UsageError(f"ADAPTER {options.adapter}: {NOT_ONE_MODEL}")
    loaded = load(options.model or str(options.adapter), getattr(torch, options.dtype), {},
                  adapter=options.adapter if options.model else None)  # fmt: skip
    with outputs.filling(options.out) as part, quiet_transformers():
        loaded.model.save_pretrained(str(part))
        loaded.tokenizer.save_pretrained(str(part))
    block = loaded.model.config.loop_layers
    print(json.dumps({"out": options.out.name, "loop_layers": block, "loop_count": loaded.model.config.loop_count}))
    return 0


COMMANDS = {"teach": teach, "merge": merge}
