"""`python -m loopviz eval` and `sweep`. Nothing heavy is imported before one of them is really asked for.

Options of a task are its parameters, so they are known only once the tasks are imported: `eval` keeps its arguments as
they are until then.

Tables go to stdout, progress to stderr. What is finished is kept: by Ctrl-C, and every few seconds in `--out`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import time
import types
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopviz.command_line import DTYPES, LOOP_OPTIONS, UsageError, load, option

if TYPE_CHECKING:
    import pandas as pd

    from .experiment import Experiment
    from .tasks import Task

SAVE_EVERY = 5.0  # seconds
PROGRAM = "python -m loopviz"


def add_parsers(commands: Any) -> None:
    """Add the sub-commands to the command line's parser."""
    # Everything after `eval` is one list of arguments: no character begins an option there.
    measure = commands.add_parser(
        "eval", help="measure a model: perplexity by loops, cache ablation, ...", add_help=False, prefix_chars="\0"
    )
    measure.add_argument("arguments", nargs=argparse.REMAINDER)

    sweep = commands.add_parser("sweep", help="run a grid of (model, configuration, text) cells over any task of eval")
    sweep.add_argument("grid", type=Path, help="YAML file; docs/lab/README.md shows one")
    sweep.add_argument(
        "--out",
        metavar="STEM",
        type=Path,
        required=True,
        help="results: STEM.jsonl grows cell by cell (run again to resume), STEM.csv and STEM.parquet at the end",
    )
    sweep.add_argument("--workers", type=int, default=1, metavar="N", help="local processes (default: %(default)s)")
    sweep.add_argument(
        "--threads", type=int, default=1, metavar="N", help="CPU threads of each cell (default: %(default)s)"
    )
    sweep.add_argument("--ray", metavar="ADDRESS", help="run the cells on this Ray cluster (auto, ray://host:10001)")


def run_eval(options: argparse.Namespace) -> int:
    """Run `eval` with its arguments; returns the exit code."""
    arguments = list(options.arguments)
    command = shlex.join(["python", "-m", "loopviz", "eval", *arguments])
    if any(argument == "--from" or argument.startswith("--from=") for argument in arguments):
        given = _repeat_parser().parse_args(arguments)
        _check(given)
        return _finish(_repeated(given, command), given)
    given = _task_parser().parse_args(arguments)
    _check(given)
    return _finish(_asked(given, command), given)


def run_sweep(options: argparse.Namespace) -> int:
    """Run `sweep`; returns the exit code: 1 when cells failed."""
    from .sweep import run

    return run(options.grid, options.out, workers=options.workers, threads=options.threads, ray_address=options.ray)


COMMANDS = {"eval": run_eval, "sweep": run_sweep}


# -- arguments ---------------------------------------------------------------------------------------------------------


def _shared(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", metavar="STEM", type=Path, help="write STEM.csv, STEM.parquet and STEM.json")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: torch's choice)")


def _repeat_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"{PROGRAM} eval --from", description="Repeat what a manifest describes.")
    parser.add_argument("--from", dest="manifest", required=True, metavar="STEM.json", type=Path, help="the manifest")
    parser.add_argument("--model", help="where the model is now, if it has moved")
    parser.add_argument("--file", help="where the text file is now, if it has moved")
    _shared(parser)
    return parser


def _task_parser() -> argparse.ArgumentParser:
    from loopviz.lab import TASKS

    parser = argparse.ArgumentParser(
        prog=f"{PROGRAM} eval",
        description="Measure a model: a table, and a manifest that `eval --from STEM.json` repeats.",
    )
    tasks = parser.add_subparsers(dest="task", required=True, metavar="TASK")
    for task in TASKS.values():
        words = task.words["en"]
        one = tasks.add_parser(
            task.name, help=_text(words["title"]), description=_text(f"{words['question']} {words['how']}"),
            epilog=_text(f"Cost: {words['cost']}"), allow_abbrev=False,
        )  # fmt: skip
        one.add_argument("--model", required=True, help="named model, Hub id, folder or GGUF file")
        one.add_argument("--dtype", default="float32", choices=DTYPES, help="of the weights (default: %(default)s)")
        _shared(one)
        _add_params(one, task)
    return parser


def _add_params(parser: argparse.ArgumentParser, task: Task) -> None:
    hints = typing.get_type_hints(task.params)
    group = parser.add_argument_group("parameters", 'several values: with commas, 1,2,4, or as JSON, ["a", "b"]')
    for thing in dataclasses.fields(task.params):
        group.add_argument(
            option(thing.name),
            dest=f"param_{thing.name}",
            metavar="JSON" if thing.metadata["kind"] == "loop" else "X",
            type=_reader(thing.name, hints[thing.name]),
            default=argparse.SUPPRESS,
            help=_text(thing.metadata["words"]["en"]) + _default(thing),
        )
    if "loop" in hints:
        loop = parser.add_argument_group("loops", "fields of the parameter loop, one by one")
        for name, (kind, text) in LOOP_OPTIONS.items():
            loop.add_argument(
                option(name), dest=f"loop_field_{name}", type=kind, metavar="X", default=argparse.SUPPRESS, help=text
            )


def _text(words: str) -> str:
    """Words as argparse takes them."""
    return words.replace("%", "%%")


def _default(thing: dataclasses.Field) -> str:
    value = thing.default
    if value is dataclasses.MISSING or value in ((), "", None):
        return ""
    shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
    return _text(f" (default: {shown})")


def _reader(name: str, hint: Any) -> Any:
    """What turns an option's text into what :func:`params_from_json` takes."""

    def read(text: str) -> Any:
        try:
            return read_value(text, hint)
        except ValueError as error:
            from .tasks import describe

            raise argparse.ArgumentTypeError(f"{text!r}: {name} must be {describe(hint)}") from error

    return read


def read_value(text: str, hint: Any) -> Any:
    """A parameter's value from an option's text.

    Args:
        text: as typed: a value, several with commas, or JSON for lists and mappings.
        hint: the parameter's type.

    Raises:
        ValueError: it is not of that type.
    """
    for kind in typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,):
        if kind is type(None) and text in ("null", "none", "None"):
            return None
        if typing.get_origin(kind) is tuple:
            inner = typing.get_args(kind)[0]
            if text.lstrip().startswith("["):
                return json.loads(text)
            return [read_value(part.strip(), inner) for part in text.split(",")] if text else []
        if kind is dict or typing.get_origin(kind) is dict:
            if text.lstrip().startswith("{"):
                return json.loads(text)
            continue
        if kind is bool:
            known = {"yes": True, "true": True, "no": False, "false": False}
            if text.lower() in known:
                return known[text.lower()]
            continue
        if kind is str:
            return text
        try:
            return kind(text)
        except (TypeError, ValueError):
            continue
    raise ValueError(text)


def _check(options: argparse.Namespace) -> None:
    if options.threads is not None and options.threads < 1:
        raise UsageError(f"--threads {options.threads}: must be at least 1")
    if options.out is not None and options.out.suffix in (".csv", ".parquet", ".json"):
        raise UsageError(f"--out {options.out}: give the name without an ending; three files are written")


# -- running -----------------------------------------------------------------------------------------------------------


def _asked(options: argparse.Namespace, command: str) -> Experiment:
    """The experiment that `eval TASK` asks for."""
    import torch

    from loopviz.lab import TASKS

    from .experiment import Experiment
    from .tasks import Subject, params_from_json

    given = vars(options)
    values = {name.removeprefix("param_"): value for name, value in given.items() if name.startswith("param_")}
    fields = {name.removeprefix("loop_field_"): value for name, value in given.items() if name.startswith("loop_field")}
    if fields:
        if "loop" in values and values["loop"] is None:
            raise UsageError(f"--loop null, {option(next(iter(fields)))}: without a loop it has no effect")
        values["loop"] = {**values.get("loop", {}), **fields}
    task = TASKS[options.task]
    params = params_from_json(task.params, values)  # refused before a model is loaded
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    subject = Subject.of(load(options.model, getattr(torch, options.dtype), {}))
    return Experiment(task, subject, params, command)


def _repeated(options: argparse.Namespace, command: str) -> Experiment:
    """The experiment that `eval --from` asks for."""
    import torch

    from .experiment import read_manifest, repeat
    from .tasks import Subject

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    values = read_manifest(options.manifest)
    files = {}
    if options.file is not None:  # of the parameters that name a file, the one that was given
        texts = values["texts"]
        files = {text["param"]: options.file for text in texts if text["name"]} or {"file": options.file}
    subject = None
    if options.model is not None:
        subject = Subject.of(load(options.model, getattr(torch, values["model"]["dtype"]), {}))
    return repeat(values, subject=subject, files=files, command=command)


def _finish(experiment: Experiment, options: argparse.Namespace) -> int:
    """Run it with progress, save it, print its table."""
    interrupted, saved = False, time.monotonic()
    with _Progress(experiment) as progress:
        try:
            for row in experiment:
                progress.update(row is not None)
                if row is None:
                    continue
                if options.out is not None and time.monotonic() - saved > SAVE_EVERY:
                    experiment.save(options.out)
                    saved = time.monotonic()
        except KeyboardInterrupt:
            interrupted = True
            experiment.close()
    if options.out is not None:
        experiment.save(options.out)
        progress.say(f"saved: {options.out}.csv, .parquet, .json")
    if interrupted:
        progress.say(f"interrupted: {experiment.done} of {experiment.total} rows")
    print(printed(experiment.frame))
    return 130 if interrupted else 0


def printed(table: pd.DataFrame) -> str:
    """A table as the terminal shows it; an empty cell stays empty, whatever its column holds."""

    def cell(value: Any, empty: bool) -> str:
        return "" if empty else f"{value:.6g}" if isinstance(value, float) else str(value)

    shown = table.astype(object)
    for name in table:
        shown[name] = [cell(*pair) for pair in zip(table[name], table[name].isna(), strict=True)]
    return shown.to_string(index=False)


class _Progress:
    """Rows done and time left, on stderr; where it is no terminal, a line a row."""

    def __init__(self, experiment: Experiment) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self.experiment = experiment
        self.console = Console(stderr=True)
        self.bar = Progress(
            TextColumn(experiment.task.name),
            BarColumn(),  # of the work, which rows need not tell
            TextColumn("{task.description}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.line = self.bar.add_task("", total=1.0)

    def __enter__(self) -> _Progress:
        self.bar.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.bar.stop()

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)

    def update(self, row: bool = True) -> None:
        """Something was done; `row`: a row came."""
        if not row and not self.console.is_terminal:
            return
        experiment = self.experiment
        left = f"{experiment.done} of {experiment.total} rows, {experiment.seconds:,.0f} s"
        if experiment.eta is not None:
            left += f", about {experiment.eta:,.0f} s left"
        if self.console.is_terminal:
            self.bar.update(self.line, completed=experiment.share, description=left)
        else:
            self.say(f"{experiment.task.name}: {left}")
