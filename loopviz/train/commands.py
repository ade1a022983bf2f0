"""`python -m loopviz train` and `evaluate`. Nothing heavy is imported before the arguments are known to be well-formed.

Tables go to stdout, progress to stderr.
"""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import recipe as recipes

if TYPE_CHECKING:
    from .tasks import Task
    from .trainer import Progress

BUILT = "glassbox"
RUN = "run"  # folder, inside the model's, of what only the run needs


def add_parsers(commands: Any) -> None:
    """Add the sub-commands to the command line's parser."""
    train = commands.add_parser("train", help="train a looped model from a recipe")
    train.add_argument("recipe", help=f"one of {', '.join([*recipes.names(), BUILT])}, or a JSON file")
    train.add_argument("--out", required=True, metavar="DIR", type=Path, help="folder of the model")
    train.add_argument(
        "--data", metavar="FILE", type=Path, help="text recipes: a UTF-8 text; documents end with a line <|endoftext|>"
    )
    train.add_argument("--held-out", metavar="FILE", type=Path, help="text to measure on (default: the end of --data)")
    train.add_argument(
        "--data-note", default="", metavar="TEXT", help="source and licence of the data, for the model card"
    )
    train.add_argument("--license", default="", metavar="SPDX", help="licence of the weights, for the model card")
    train.add_argument(
        "--beside",
        action="append",
        default=[],
        metavar="DIR",
        type=Path,
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
    train.add_argument("--device", default="auto", help="cpu, cuda, ... (default: a GPU if there is one)")
    train.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: the recipe's)")

    evaluate = commands.add_parser("evaluate", help="measure a trained model on held-out data, by loops")
    evaluate.add_argument("model", type=Path, help="folder of a model made by train, or of any Llama with --data")
    evaluate.add_argument("--data", metavar="FILE", type=Path, help="held-out text (text models)")
    evaluate.add_argument("--loops", metavar="N,N", help="loop counts (default: the recipe's, or 1,2,3,4,6,8,12,16,24)")
    evaluate.add_argument(
        "--length",
        type=int,
        metavar="N",
        help="tokens a prediction may look back, and at least half of them (default: the recipe's, or 128)",
    )
    evaluate.add_argument("--json", metavar="FILE", type=Path, help="write the result as JSON too")


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
    changes: dict[str, Any] = {}
    for item in options.set:
        name, equals, value = item.partition("=")
        if not equals:
            raise recipes.RecipeError(f"--set {item}: write FIELD=VALUE")
        try:
            changes[name.strip()] = json.loads(value)
        except ValueError:
            changes[name.strip()] = value  # text needs no quotes
    if options.threads is not None:
        changes["threads"] = options.threads
    recipe = recipes.Recipe.load(options.recipe).with_values(changes)
    if recipe.task == "text" and options.data is None:
        raise recipes.RecipeError(f"--data: recipe {recipe.name!r} needs a text file")
    if recipe.task == "arrows" and (options.data or options.held_out):
        raise recipes.RecipeError(f"--data: recipe {recipe.name!r} makes its own data; leave it out")
    for path in (options.data, options.held_out):
        if path is not None and not path.is_file():
            raise recipes.RecipeError(f"{path}: there is no such file")
    return recipe


def _train(options: argparse.Namespace) -> int:
    recipe = _recipe(options)
    run_folder = options.out / RUN

    import torch

    from .card import read_beside, read_history, result_table, save_model, write_card
    from .tasks import ArrowsTask, TextTask
    from .trainer import Trainer, build_config

    build_config(recipe, finished=True)  # what can be refused is refused before any work
    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    beside = [read_beside(folder) for folder in options.beside]
    run_folder.mkdir(parents=True, exist_ok=True)
    task: Task = (
        ArrowsTask(recipe) if recipe.task == "arrows" else TextTask(recipe, options.data, options.held_out, run_folder)
    )
    with _Line(recipe.steps) as line:
        trainer = Trainer(recipe, task, run_folder, device=device, resume=options.resume, say=line)
        progress = trainer.run()
    model = save_model(trainer.model, recipe, task, options.out)
    result = task.measure(model, final=True)
    write_card(
        options.out,
        recipe,
        task,
        progress,
        result,
        history=read_history(run_folder),
        command=_typed(options),
        data_note=options.data_note,
        license=options.license,
        beside=beside,
        parameters=model.num_parameters(),
        device=device,
    )
    print(result_table(result))
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


class _Line:
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

    def __enter__(self) -> _Line:
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
    from . import glassbox

    options.out.mkdir(parents=True, exist_ok=True)
    table = _check_table(glassbox.save(options.out))
    (options.out / "README.md").write_text(
        "---\nlicense: mit\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n  - loop_llama\n---\n\n"
        f"# {BUILT}\n\n{glassbox.__doc__.strip()}\n\n## Measured against exact (weights as saved)\n\n{table}\n\n"
        "Licence of these weights: MIT.\n\n"
        f"Built by `python -m loopviz train {BUILT} --out {options.out.name}`.\n",
        "utf-8",
    )
    (options.out / "recipe.json").write_text(json.dumps({"name": BUILT, "task": BUILT}) + "\n", "utf-8")
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


def _loops(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        loops = tuple(int(part) for part in text.split(","))
    except ValueError:
        loops = ()
    if not loops or loops[0] < 1 or list(loops) != sorted(set(loops)):
        raise recipes.RecipeError(f"--loops {text}: must be ascending whole numbers >= 1, like 1,2,4,8")
    return loops


def _evaluate(options: argparse.Namespace) -> int:
    loops = _loops(options.loops)
    if options.length is not None and options.length < 1:
        raise recipes.RecipeError(f"--length {options.length}: must be >= 1")
    stored = options.model / "recipe.json"
    values = json.loads(stored.read_text("utf-8")) if stored.is_file() else None
    task = values["task"] if values else "text"
    if task == "text" and options.data is None:
        raise recipes.RecipeError("--data: give a held-out text to measure on")
    if task != "text" and options.data is not None:
        raise recipes.RecipeError(f"--data: this model's task is {task!r}, which makes its own data; leave it out")

    import dataclasses

    from loopviz.model.checkpoints import load_checkpoint

    loaded = load_checkpoint(options.model)
    if task == BUILT:
        from . import glassbox

        result: Any = glassbox.check(loaded.model, *(loops or ())[-1:])
        table = _check_table(result)
    else:
        from .card import result_table

        result = _measure(options, loaded, recipes.Recipe.from_dict(values) if values else None, loops)
        table = result_table(result)
    print(table)
    if options.json is not None:
        options.json.write_text(json.dumps(dataclasses.asdict(result), indent=2) + "\n", "utf-8")
    return 0


def _measure(options: argparse.Namespace, loaded: Any, recipe: recipes.Recipe | None, loops: Any) -> Any:
    from .evaluate import evaluate_arrows, evaluate_text
    from .tasks import PROBLEMS

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
    import tempfile

    from .text import encode_file

    with tempfile.TemporaryDirectory() as folder:
        ids = encode_file(options.data, loaded.tokenizer, Path(folder), "held_out")[0].copy()
    length = options.length or (recipe.length if recipe else 128)
    batch = recipe.batch if recipe else 4
    return evaluate_text(loaded.model, ids, loops or how.loops, length, batch, overlap=length // 2)
