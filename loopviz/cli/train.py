"""`python -m loopviz train` and `evaluate`. Nothing heavy is imported before the arguments are known to be well-formed.

Tables go to stdout, progress to stderr.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopviz import outputs
from loopviz.checks import check_finite
from loopviz.cli.options import add_adapter, add_machine, load, path
from loopviz.machine import UsageError, check_threads
from loopviz.text_file import STDIN
from loopviz.train import recipe as recipes

if TYPE_CHECKING:
    from loopviz.train.data_tasks import Task
    from loopviz.train.trainer import Progress

BUILT = "glassbox"
RUN = "run"  # folder, inside the model's, of what only the run needs


def add_parsers(commands: Any) -> None:
    """Add the sub-commands to the command line's parser."""
    train = commands.add_parser("train", help="train a looped model from a recipe")
    train.add_argument("recipe", help=f"one of {', '.join([*recipes.names(), BUILT])}, or a JSON file")
    train.add_argument("--out", required=True, metavar="DIR", type=path, help="folder of the model")
    train.add_argument("--force", action="store_true", help="train into a folder that holds another model or files")
    train.add_argument(
        "--data", metavar="FILE", type=path, help="text recipes: a UTF-8 text; documents end with a line <|endoftext|>"
    )
    train.add_argument("--held-out", metavar="FILE", type=path, help="text to measure on (default: the end of --data)")
    train.add_argument(
        "--data-note", default="", metavar="TEXT", help="source and licence of the data, for the model card"
    )
    train.add_argument("--license", default="", metavar="SPDX", help="licence of the weights, for the model card")
    train.add_argument(
        "--beside",
        action="append",
        default=[],
        metavar="DIR",
        type=path,
        help="a finished model whose results the card prints beside this one's; can be repeated",
    )
    train.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="change the recipe: optimizer.lr=0.002 (JSON values); can be repeated",
    )
    train.add_argument("--resume", action="store_true", help="continue the run in --out")
    add_machine(train, "CPU threads (default: the recipe's)")
    train.set_defaults(device="auto")

    evaluate = commands.add_parser("evaluate", help="measure a trained model on held-out data, by loops")
    evaluate.add_argument(
        "model", help="a bundled model's name, the folder of a model made by train, or any Llama with --data"
    )
    add_adapter(evaluate)
    evaluate.add_argument(
        "--data", metavar="FILE", type=path, help="held-out text (text models); - reads it from stdin"
    )
    evaluate.add_argument("--loops", metavar="N,N", help="loop counts (default: the recipe's, or 1,2,3,4,6,8,12,16,24)")
    evaluate.add_argument(
        "--length",
        type=int,
        metavar="N",
        help="tokens a prediction may look back, and at least half of them (default: the recipe's, or 128)",
    )
    evaluate.add_argument(
        "--by-position",
        metavar="N,N",
        help="loss by how many tokens a prediction has read, in windows of so many tokens; they may be longer than what "
        "the model was trained at",
    )
    evaluate.add_argument(
        "--inner-lr",
        type=float,
        metavar="X",
        help="TTT models, with --by-position: factor on the inner learning rate (0: nothing is learned while it reads)",
    )
    evaluate.add_argument("--json", metavar="FILE", type=path, help="write the result as JSON too")
    add_machine(evaluate)


def run(options: argparse.Namespace) -> int:
    """Run a parsed sub-command; returns the exit code.

    Raises:
        ValueError: a recipe, data, checkpoint or option that is refused.
        OSError: a file that cannot be read or written.
    """
    if options.command == "evaluate":
        return _evaluate(options)
    if options.recipe == BUILT:
        return _build(options)
    return _train(options)


# -- train -------------------------------------------------------------------------------------------------------------


def _recipe(options: argparse.Namespace) -> recipes.Recipe:
    """The recipe with `--set` and `--threads`; refuses files that do not belong to its task."""
    changes = recipes.changes_of(options.set)
    if options.threads is not None:
        changes["threads"] = options.threads
    recipe = recipes.Recipe.load(options.recipe).with_values(changes)
    if recipe.task == "text" and options.data is None:
        raise recipes.RecipeError(f"--data: recipe {recipe.name!r} needs a text file")
    if recipe.task == "arrows" and (options.data or options.held_out):
        raise recipes.RecipeError(f"--data: recipe {recipe.name!r} makes its own data; leave it out")
    for name, file in (("--data", options.data), ("--held-out", options.held_out)):
        if file is not None and str(file) == STDIN:
            raise recipes.RecipeError(
                f"{name} -: training reads its text more than once, and again to resume; write it to a file and name that"
            )
        if file is not None and not file.is_file():
            raise recipes.RecipeError(f"{file}: there is no such file")
    return recipe


MADE = ("config.json", "model.safetensors", "tokenizer.json", "recipe.json", "README.md")  # in the model's folder
STATE = "checkpoint.pt"  # of a run, in its folder


def check_kind(folder: Path, option: str, names: Sequence[str], holds: str, made: str) -> None:
    """Refuse a folder of the other kind, `--force` or not: what holds a model and an adapter is opened by nobody.

    Args:
        folder: that would be written to.
        option: what gave it.
        names: of files that only the other kind has.
        holds, made: what the other kind and this one are called.

    Raises:
        UsageError: one of them is there.
    """
    for name in names:
        if (folder / name).exists():
            raise UsageError(
                f"{option} {folder}: holds {holds} ({name}), and {made} beside it would make a folder that nothing opens; "
                "name another place"
            )


ADAPTERS = ("adapter_config.json", "loop_adapter.json")  # files that only an adapter's folder has


def _check_place(options: argparse.Namespace) -> None:
    """Refuse, before any work, a folder that cannot be written, or that holds files which are not this run's.

    A run in the folder is the trainer's to refuse or to resume; a glassbox may be built anew over a glassbox.
    """
    out = options.out
    outputs.check_folder(out, "--out")
    if (out / RUN).exists():
        outputs.check_folder(out / RUN, "--out")
    check_kind(out, "--out", ADAPTERS, "an adapter", "a model")
    if options.force or (out / RUN / STATE).exists():
        return
    if options.recipe == BUILT and _stored_task(out) == BUILT:
        return
    outputs.check_free([out / name for name in MADE], "--out", "and not of a run in this folder")


def _stored_task(folder: Path) -> str | None:
    """The task of the model in a folder, as `train` wrote it."""
    try:
        return json.loads((folder / "recipe.json").read_text("utf-8"))["task"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _train(options: argparse.Namespace) -> int:
    check_threads(options.threads)
    recipe = _recipe(options)
    check_threads(recipe.threads)
    run_folder = options.out / RUN
    _check_place(options)

    from loopviz.model.devices import resolve_device
    from loopviz.train.card import positions_table, read_beside, read_history, result_table, save_model, write_card
    from loopviz.train.data_tasks import ArrowsTask, TextTask
    from loopviz.train.trainer import Trainer, build_config, check_buildable

    build_config(recipe, finished=True)  # what can be refused is refused before any work
    check_buildable(recipe)
    device = str(resolve_device(options.device))
    beside = [read_beside(folder) for folder in options.beside]
    with outputs.alone(run_folder / STATE, "--out", "training"):
        with outputs.naming(run_folder):
            run_folder.mkdir(parents=True, exist_ok=True)
        with outputs.naming(run_folder):
            task: Task = (
                ArrowsTask(recipe)
                if recipe.task == "arrows"
                else TextTask(recipe, options.data, options.held_out, run_folder)
            )
        with Line(recipe.steps) as line:
            trainer = Trainer(recipe, task, run_folder, device=device, resume=options.resume, say=line)
            progress = trainer.run()
        with outputs.naming(options.out):
            model = save_model(trainer.model, recipe, task, options.out)
        result = task.measure(model, final=True)
        print(result_table(result), flush=True)  # before anything that may fail: it took long enough
        positions = task.by_position(model)
        if positions:
            print(positions_table(positions), flush=True)
        write_card(
            options.out,
            recipe,
            task,
            progress,
            result,
            positions=positions,
            history=read_history(run_folder),
            command=_typed(options),
            data_note=options.data_note,
            license=options.license,
            beside=beside,
            parameters=model.num_parameters(),
            device=device,
        )
    return 0


def _typed(options: argparse.Namespace) -> str:
    """The command, with files named without their folders: a card must not tell how somebody's disk is laid out."""
    named = [Path(options.recipe).name if options.recipe not in recipes.names() else options.recipe]
    for option in ("data", "held_out", "out"):
        value = getattr(options, option)
        if value is not None:
            named += ["--" + option.replace("_", "-"), value.name]
    for item in options.set:
        named += ["--set", item]
    if options.data_note:
        named += ["--data-note", options.data_note]
    for folder in options.beside:
        named += ["--beside", folder.name]
    if options.license:
        named += ["--license", options.license]
    if options.threads is not None:
        named += ["--threads", str(options.threads)]
    if options.device != "auto":
        named += ["--device", options.device]
    return "python -m loopviz train " + shlex.join(named)


class Line:
    """The live progress line on stderr; where stderr is no terminal, a line an evaluation."""

    def __init__(self, steps: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.console = Console(stderr=True)
        self.bar = Progress(
            MofNCompleteColumn(),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[speed]} {task.description}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("starting", total=steps, speed="")

    def __enter__(self) -> Line:
        self.bar.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.bar.stop()

    def __call__(self, progress: Progress, line: str, keep: bool) -> None:
        speed = f"{progress.tokens / max(progress.seconds, 1e-9):,.0f} tokens/s"
        if keep:
            self.console.print(
                f"step {progress.step:,}  {progress.tokens:,} tokens  {progress.seconds:,.0f} s  {speed}  {line}",
                highlight=False,
                soft_wrap=True,
            )
        else:
            self.bar.update(self.task, completed=progress.step, description=line, speed=speed)


# -- glassbox ----------------------------------------------------------------------------------------------------------


def _build(options: argparse.Namespace) -> int:
    given = ("data", "held_out", "data_note", "license", "beside", "set", "resume", "threads")
    idle = [name for name in given if getattr(options, name)]
    if idle:
        raise recipes.RecipeError(f"--{idle[0].replace('_', '-')}: {BUILT} is built, not trained; leave it out")
    _check_place(options)
    from loopviz.model import LoopLlamaConfig, model_card
    from loopviz.train import glassbox

    with outputs.naming(options.out):
        options.out.mkdir(parents=True, exist_ok=True)
        table = _check_table(glassbox.save(options.out))
    usage = "\n".join(model_card.usage(LoopLlamaConfig.from_pretrained(str(options.out))))
    outputs.write(
        options.out / "README.md",
        f"---\nlicense: mit\nlibrary_name: {model_card.LIBRARY}\npipeline_tag: text-generation\ntags:\n  - loop_llama\n---\n\n"
        f"# {BUILT}\n\n{glassbox.__doc__.strip()}\n\n## Measured against exact (weights as saved)\n\n{table}\n\n"
        "Licence of these weights: MIT.\n\n"
        f"Built by `python -m loopviz train {BUILT} --out {options.out.name}`.\n\n{usage}\n".encode(),
    )
    outputs.write(options.out / "recipe.json", (json.dumps({"name": BUILT, "task": BUILT}) + "\n").encode())
    print(table)
    return 0


def _check_table(check: Any) -> str:
    lines = [
        "| | exact | measured | largest difference |",
        "| --- | ---: | ---: | ---: |",
        f"| rate | {check.rate} | {min(check.rates):.7f} to {max(check.rates):.7f} | {check.rate_error:.1e} |",
        f"| states (share of the fixed point's norm) | | | {check.state_error:.1e} |",
        f"| distance left to the fixed point (same) | | | {check.fixed_point_error:.1e} |",
        f"| cos(s_r, s_{{r−1}}) | | | {check.cosine_error:.1e} |",
    ]
    return "\n".join(lines)


# -- evaluate ----------------------------------------------------------------------------------------------------------


def _counts(option: str, text: str | None, example: str) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        counts = tuple(int(part) for part in text.split(","))
    except ValueError:
        counts = ()
    if not counts or counts[0] < 1 or list(counts) != sorted(set(counts)):
        raise recipes.RecipeError(f"{option} {text}: must be ascending whole numbers >= 1, like {example}")
    return counts


def _evaluate(options: argparse.Namespace) -> int:
    loops = _counts("--loops", options.loops, "1,2,4,8")
    positions = _counts("--by-position", options.by_position, "256,1024")
    _check_positions(options, loops, positions)
    if options.length is not None and options.length < 1:
        raise recipes.RecipeError(f"--length {options.length}: must be >= 1")
    check_threads(options.threads)
    if options.json is not None:
        outputs.check_file(options.json, "--json", inputs=[options.data])
    folder = _folder_of(options.model)
    stored = folder / "recipe.json"
    values = json.loads(stored.read_text("utf-8")) if stored.is_file() else None
    task = values["task"] if values else "text"
    if positions is not None and task != "text":
        raise recipes.RecipeError(
            f"--by-position: this model's task is {task!r}; only text has a context to look back at"
        )
    missing = task == "text" and options.data is None
    if missing and folder.exists():  # of what is not here, first whether there is such a model
        raise recipes.RecipeError("--data: give a held-out text to measure on")
    if task != "text" and options.data is not None:
        raise recipes.RecipeError(f"--data: this model's task is {task!r}, which makes its own data; leave it out")

    import dataclasses

    import torch

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    loaded = _open(options, folder)
    if missing:
        raise recipes.RecipeError("--data: give a held-out text to measure on")
    recipe = recipes.Recipe.from_dict(values) if values and task != BUILT else None
    if task == BUILT:
        from loopviz.train import glassbox

        result: Any = glassbox.check(loaded.model, loops[-1]) if loops else glassbox.check(loaded.model)
        table, found = _check_table(result), dataclasses.asdict(result)
    elif positions is not None:
        from loopviz.train.card import positions_table

        results = _by_position(options, loaded, recipe, positions)
        table, found = positions_table(results), {"positions": [dataclasses.asdict(each) for each in results]}
    else:
        from loopviz.train.card import result_table

        result = _measure(options, loaded, recipe, loops)
        table, found = result_table(result), dataclasses.asdict(result)
    with outputs.naming("stdout"):
        print(table, flush=True)
    if options.json is not None:
        outputs.write(options.json, (json.dumps(found, indent=2) + "\n").encode())
    return 0


def _check_positions(
    options: argparse.Namespace, loops: tuple[int, ...] | None, positions: tuple[int, ...] | None
) -> None:
    """Refuse options that do not go with `--by-position`, or not without it."""
    if positions is not None:
        for option, given in (("--loops", loops), ("--length", options.length)):
            if given is not None:
                raise recipes.RecipeError(f"{option}: --by-position names its windows, and runs the model's own loops")
    if options.inner_lr is not None:
        if positions is None:
            raise recipes.RecipeError(
                f"--inner-lr {options.inner_lr}: is measured by place; give --by-position 256 too"
            )
        check_finite("--inner-lr", options.inner_lr, 0, math.inf, rule="finite_not_negative")


def _open(options: argparse.Namespace, folder: Path) -> Any:
    """The model that is measured, and its tokenizer."""
    import torch

    file = folder / "config.json"
    try:
        kind = json.loads(file.read_text("utf-8")).get("model_type") if file.is_file() else None
    except (OSError, ValueError, AttributeError):
        kind = None  # whoever loads it says what is wrong with it
    if kind != recipes.TTT:
        return load(options.model, torch.float32, {}, options.device, options.adapter)
    if options.adapter is not None:
        raise recipes.RecipeError(
            f"--adapter {options.adapter}: {options.model} is a TTT model; adapters are put on Llamas"
        )
    from loopviz.model.devices import resolve_device
    from loopviz.ttt.checkpoint import load_ttt

    loaded = load_ttt(options.model)
    loaded.model.to(resolve_device(options.device, torch.float32))
    return loaded


def _folder_of(model: str) -> Path:
    """Where the recipe of a model is, if it has one: with the weights, for a bundled name too."""
    from loopviz.model.checkpoints.find import BUNDLED_FOLDER, NAMED

    named = NAMED.get(model)
    return BUNDLED_FOLDER / model if named and named.hub_id is None else Path(model).expanduser()


def _by_position(
    options: argparse.Namespace, loaded: Any, recipe: recipes.Recipe | None, positions: tuple[int, ...]
) -> list[Any]:
    from loopviz.lab.reading.positions import evaluate_positions
    from loopviz.lab.reading.windows import encode
    from loopviz.text_file import read_text

    ids = encode(loaded.tokenizer, read_text(options.data), None, closed=True)
    factor = 1.0 if options.inner_lr is None else options.inner_lr
    batch = recipe.batch if recipe else 4
    return [evaluate_positions(loaded.model, ids, length, batch, factor) for length in positions]


def _measure(options: argparse.Namespace, loaded: Any, recipe: recipes.Recipe | None, loops: Any) -> Any:
    from loopviz.train.data_tasks import PROBLEMS
    from loopviz.train.evaluate import evaluate_arrows, evaluate_text

    how = recipe.evaluation if recipe else recipes.Evaluation()
    if recipe is not None and recipe.arrows is not None:
        return evaluate_arrows(
            loaded.model,
            recipe.arrows,
            loops or how.loops,
            how.final_problems,
            [recipe.seed, PROBLEMS, 1],
            dynamic=True,
        )
    from loopviz.engine import context_length
    from loopviz.lab.reading.windows import encode
    from loopviz.text_file import read_text

    context = context_length(loaded.model)
    if loaded.model.config.model_type == recipes.TTT:
        context = max(context, options.length or 0)  # its positions begin anew with every mini-batch
    if options.length is not None and options.length > context:
        raise recipes.RecipeError(
            f"--length {options.length}: the model's context is {context} tokens; give a shorter one"
        )
    length = options.length or min(recipe.length if recipe else 128, context)
    ids = encode(loaded.tokenizer, read_text(options.data), None, closed=True)
    batch = recipe.batch if recipe else 4
    return evaluate_text(loaded.model, ids, loops or how.loops, length, batch, overlap=length // 2)
