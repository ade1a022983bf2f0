"""`python -m loopviz eval` and `sweep`. Nothing heavy is imported before one of them is really asked for.

Options of a task are its parameters, so they are known only once the tasks are imported: `eval` keeps its arguments as
they are until then.

Tables go to stdout, progress to stderr. Whatever ends a measurement, what is finished is kept: it is printed first, then
saved, and every few seconds in `--out`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
import time
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopviz import imports, outputs
from loopviz.cli.options import (
    add_adapter,
    add_import,
    add_machine,
    add_precision,
    idle_because,
    in_folder,
    load,
    loop_options,
    option,
    path,
    stem,
)
from loopviz.cli.ttt import is_ttt
from loopviz.fields import kind_of, read_value
from loopviz.machine import UsageError, check_threads

if TYPE_CHECKING:
    import pandas as pd

    from loopviz.lab.experiment import Experiment
    from loopviz.lab.task import Subject, Task

SAVE_EVERY = 5.0  # seconds
TELL_EVERY, TELL_SHARE = 10.0, 0.1  # seconds, and share of the work, between two lines of progress in a log
PROGRAM = "python -m loopviz"
DESCRIPTION = "Measure a model: a table, and a manifest that `eval --from STEM.json` repeats."
FORCE = "write over tables of another task"


def add_parsers(commands: Any) -> None:
    """Add the sub-commands to the command line's parser."""
    # Everything after `eval` is one list of arguments: no character begins an option there.
    measure = commands.add_parser(
        "eval", help="measure a model: perplexity by loops, cache ablation, ...", add_help=False, prefix_chars="\0"
    )
    measure.add_argument("arguments", nargs=argparse.REMAINDER)

    sweep = commands.add_parser("sweep", help="run a grid of (model, configuration, text) cells over any task of eval")
    sweep.add_argument("grid", type=path, help="YAML file; docs/lab/README.md shows one")
    sweep.add_argument(
        "--out",
        metavar="STEM",
        type=stem,
        required=True,
        help="results: STEM.jsonl grows cell by cell (run again to resume), STEM.csv and STEM.parquet at the end; a "
        "folder: in it, under the grid's name",
    )
    sweep.add_argument("--force", action="store_true", help=FORCE)
    sweep.add_argument("--workers", type=int, default=1, metavar="N", help="local processes (default: %(default)s)")
    add_machine(sweep, "CPU threads of each cell (default: 1)")
    sweep.set_defaults(device=None)  # the grid's
    sweep.add_argument("--ray", metavar="ADDRESS", help="run the cells on this Ray cluster (auto, ray://host:10001)")


def run_eval(options: argparse.Namespace) -> int:
    """Run `eval` with its arguments; returns the exit code."""
    arguments = _underscored(list(options.arguments))
    command = shlex.join(["python", "-m", "loopviz", "eval", *arguments])
    if any(argument == "--from" or argument.startswith("--from=") for argument in arguments):
        given = _repeat_parser().parse_args(arguments)
        _check(given)
        from loopviz.lab.experiment import read_manifest

        values = read_manifest(given.manifest)
        stem = _place(given, str(values["task"]), [given.manifest, given.file])
        return _finish(_repeated(values, given, command), stem)
    if _asks_for_tasks(arguments):
        _overview().parse_args(arguments)
    given = _task_parser().parse_args(arguments)
    _check(given)
    files = [value for name, value in vars(given).items() if name.startswith("param_") and isinstance(value, str)]
    stem = _place(given, given.task, files)
    return _finish(_asked(given, command), stem)


def run_sweep(options: argparse.Namespace) -> int:
    """Run `sweep`; returns the exit code: 1 when cells failed."""
    out = in_folder(options.out, options.grid.stem)
    _check_stem(out)
    threads = 1 if options.threads is None else options.threads
    if options.workers < 1:
        raise UsageError(f"--workers {options.workers}: must be at least 1")
    check_threads(threads)
    from loopviz.lab.sweep import run

    return run(
        options.grid,
        out,
        workers=options.workers,
        threads=threads,
        ray_address=options.ray,
        device=options.device,
        modules=options.imports,
        force=options.force,
    )


COMMANDS = {"eval": run_eval, "sweep": run_sweep}


# -- arguments ---------------------------------------------------------------------------------------------------------


def _underscored(arguments: list[str]) -> list[str]:
    """The task's name with _ for -: as options are written."""
    from loopviz.lab import TITLES

    for place, argument in enumerate(arguments):
        if argument.replace("-", "_") in TITLES:
            return [*arguments[:place], argument.replace("-", "_"), *arguments[place + 1 :]]
        if not argument.startswith("-") and arguments[place - 1 : place] != [imports.OPTION]:
            break
    return arguments


def _asks_for_tasks(arguments: list[str]) -> bool:
    """Whether the tasks' names and titles are all that is needed: `eval --help`, or a task that there is not."""
    from loopviz.lab import TITLES

    if imports.named(arguments):
        return False  # tasks of one's own: those that are registered
    return not arguments or arguments[0] in ("-h", "--help") or arguments[0] not in TITLES


def _overview() -> argparse.ArgumentParser:
    """What `eval` says of itself without its tasks' parameters, which cost importing torch."""
    from loopviz.lab import TITLES

    parser = argparse.ArgumentParser(prog=f"{PROGRAM} eval", description=DESCRIPTION)
    add_import(parser)
    tasks = parser.add_subparsers(dest="task", required=True, metavar="TASK")
    for name, title in TITLES.items():
        tasks.add_parser(name, help=_text(title), add_help=False)
    return parser


def _shared(parser: argparse.ArgumentParser) -> None:
    text = "write STEM.csv, STEM.parquet and STEM.json; a folder: into it, under the task's name"
    parser.add_argument("--out", metavar="STEM", type=stem, help=text)
    parser.add_argument("--force", action="store_true", help=FORCE)
    add_machine(parser)


def _repeat_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"{PROGRAM} eval --from", description="Repeat what a manifest describes.")
    parser.add_argument("--from", dest="manifest", required=True, metavar="STEM.json", type=path, help="the manifest")
    parser.add_argument("--model", help="where the model is now, if it has moved")
    parser.add_argument("--file", help="where the text file is now, if it has moved")
    _shared(parser)
    return parser


def _task_parser() -> argparse.ArgumentParser:
    from loopviz.lab import TASKS

    parser = argparse.ArgumentParser(prog=f"{PROGRAM} eval", description=DESCRIPTION)
    add_import(parser)
    tasks = parser.add_subparsers(dest="task", required=True, metavar="TASK")
    for task in TASKS.values():
        words = task.words["en"]
        one = tasks.add_parser(
            task.name, help=_text(words["title"]), description=_text(f"{words['question']} {words['how']}"),
            epilog=_text(f"Cost: {words['cost']}"), allow_abbrev=False,
        )  # fmt: skip
        one.add_argument("--model", required=True, help="named model, Hub id, folder or GGUF file")
        add_adapter(one)
        add_precision(one)
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
        for name, (kind, text) in loop_options().items():
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
            raise argparse.ArgumentTypeError(f"{text!r}: {name} must be {kind_of(hint)}") from error

    return read


def _check(options: argparse.Namespace) -> None:
    check_threads(options.threads)
    if options.out is not None:
        _check_stem(Path(options.out))


def _check_stem(out: Path) -> None:
    if out.suffix in (".csv", ".parquet", ".json", ".jsonl"):
        raise UsageError(f"--out {out}: give the name without an ending; several files are written")


def _place(options: argparse.Namespace, task: str, inputs: list[Any]) -> Path | None:
    """Where the table goes, looked at before any work."""
    if options.out is None:
        return None
    out = in_folder(options.out, task.replace("_", "-"))
    from loopviz.lab.experiment import SUFFIXES

    files = [Path(f"{out}{suffix}") for suffix in SUFFIXES]
    for file in files:
        outputs.check_file(file, "--out", inputs=inputs, parents=True)
    if options.force:
        return out
    sweep = Path(f"{out}.jsonl")
    if sweep.exists() and not files[2].exists():
        outputs.check_free(files[:2], "--out", f"made by a sweep ({sweep.name})")
    other = _other_task(files[2], task)
    if other is not None:
        outputs.check_free(files, "--out", other)
    return out


def _other_task(manifest: Path, task: str) -> str | None:
    """Whose the table beside this manifest is, if it is not the task's own."""
    if not manifest.exists():
        return "and without a manifest of eval's"
    try:
        values = json.loads(manifest.read_text("utf-8"))
        there = values["task"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "and no manifest of eval's"
    return None if there == task else f"of another task ({there})"


# -- running -----------------------------------------------------------------------------------------------------------


def _asked(options: argparse.Namespace, command: str) -> Experiment:
    """The experiment that `eval TASK` asks for."""
    import torch

    from loopviz.lab import TASKS
    from loopviz.lab.experiment import Experiment
    from loopviz.lab.task import params_from_json

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
    subject = _subject(
        options.model, options.dtype, options.device, task, options.adapter, options.precision, options.quantization
    )
    for line in _idle(task, subject, values.get("loop")):
        print(f"loopviz: note: {line}", file=sys.stderr)
    return Experiment(task, subject, params, command)


def _subject(
    model: str,
    dtype: str,
    device: str,
    task: Task,
    adapter: Path | None = None,
    precision: str | None = None,
    quantization: str | None = None,
) -> Subject:
    """The model that is measured: a TTT model too where the task takes one; ValueError for what cannot be."""
    import torch

    from loopviz.lab import TASKS
    from loopviz.lab.fellows import check_kind, load_subject
    from loopviz.lab.task import Subject
    from loopviz.model.checkpoints.layout_choice import arrange
    from loopviz.model.devices import resolve_device

    if not is_ttt(model):
        found = load(model, getattr(torch, dtype), {}, device, adapter, precision=precision, quantization=quantization)
        arrange(found.model)
        return Subject.of(found)
    if adapter is not None:
        raise UsageError(f"--adapter {adapter}: {model} is a TTT model; adapters are put on Llamas")
    if precision not in (None, "exact"):
        raise UsageError(
            f"--precision {precision}: {model} is a TTT model, which is measured as --dtype says; leave it out"
        )
    if quantization is not None:
        raise UsageError(
            f"--quantization {quantization}: {model} is a TTT model, whose layers are not packed; leave it out"
        )
    place = resolve_device(device, getattr(torch, dtype))
    subject = load_subject(model, dtype=getattr(torch, dtype))
    check_kind(task, subject, TASKS.values())
    subject.model.to(place)
    return subject


def _idle(task: Task, subject: Subject, loop: dict[str, Any] | None) -> list[str]:
    """What was asked of the loop and changes nothing in the configuration that is measured, a line each."""
    from loopviz.engine.steering import block_metas

    given = [name for name in loop or {} if name not in task.varies]
    try:
        blocks = block_metas(subject.view(loop).config) if given else []
    except ValueError:  # told by the task, in its own words
        return []
    if given and not blocks:
        alone = [option(name) for name in given if name != "loop_layers"]
        return [f"{', '.join(alone)}: no effect without --loop-layers (nothing loops in this model)"] if alone else []
    return [f"{option(name)}: no effect {why}" for name in given if (why := idle_because(name, blocks))]


def _repeated(values: typing.Mapping[str, Any], options: argparse.Namespace, command: str) -> Experiment:
    """The experiment that `eval --from` asks for."""
    import torch

    from loopviz.lab import TASKS
    from loopviz.lab.experiment import repeat

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    files = {}
    if options.file is not None:  # of the parameters that name a file, the one that was given
        texts = values["texts"]
        files = {text["param"]: options.file for text in texts if text["name"]} or {"file": options.file}

    def subject() -> Subject:
        model = options.model or values["model"]["name"]
        said = values["model"]
        task, packed = TASKS[values["task"]], said.get("quantization")
        return _subject(model, said["dtype"], options.device, task, quantization=packed)

    return repeat(values, subject=subject, files=files, command=command)


def _finish(experiment: Experiment, out: Path | None) -> int:
    """Run it with progress, print its table, save it; whatever ends it, what is finished is kept."""
    ended: BaseException | None = None
    saved = time.monotonic()
    with _Progress(experiment) as progress:
        try:
            for row in experiment:
                progress.update(row is not None)
                if row is not None and out is not None and time.monotonic() - saved > SAVE_EVERY:
                    _save_meanwhile(experiment, out, progress)
                    saved = time.monotonic()
        except (KeyboardInterrupt, Exception) as error:
            ended = error
            experiment.close()
    if ended is not None and not experiment.done:
        raise ended
    try:
        with outputs.naming("stdout"):
            print(printed(_shown(experiment)), flush=True)
    except OSError as error:  # nobody reads it, or stdout takes no more: it is saved all the same
        ended = ended or error
    if isinstance(ended, KeyboardInterrupt):
        progress.say(f"interrupted: {experiment.done} of {experiment.total} rows")
    if experiment.task.summary is not None and out is None:
        progress.say(f"{experiment.done} rows, summed up here; --out STEM keeps each of them")
    if out is not None:
        _save(experiment, out)
        progress.say(f"saved: {out}.csv, .parquet, .json")
    if ended is not None:
        raise ended
    return 0


def _shown(experiment: Experiment) -> pd.DataFrame:
    """The table as the terminal shows it: summed up where its rows are too many to read."""
    summary = experiment.task.summary
    return experiment.frame if summary is None else summary(experiment.frame)


def _save_meanwhile(experiment: Experiment, out: Path, progress: _Progress) -> None:
    """So that even `kill -9` leaves most of it; what it fails for may be gone at the end."""
    try:
        experiment.save(out)
    except outputs.OutputError as error:
        progress.say(f"not saved yet: {error}")


def _save(experiment: Experiment, out: Path) -> None:
    try:
        experiment.save(out)
    except outputs.OutputError as error:
        place = outputs.rescue(out, experiment.save)
        kept = f"the table is printed, and in {place}.csv, .parquet, .json" if place else "the table is printed above"
        raise outputs.OutputError(f"--out {error}; {kept}") from None


def printed(table: pd.DataFrame) -> str:
    """A table as the terminal shows it; an empty cell stays empty, whatever its column holds."""

    def cell(value: Any, empty: bool) -> str:
        return "" if empty else f"{value:.6g}" if isinstance(value, float) else str(value)

    shown = table.astype(object)
    for name in table:
        shown[name] = [cell(*pair) for pair in zip(table[name], table[name].isna(), strict=True)]
    return shown.to_string(index=False)


class _Progress:
    """Rows done and time left, on stderr; where it is no terminal, a line every tenth of the work or few seconds."""

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
        self.told, self.told_share = time.monotonic(), 0.0  # when, and how much was done then

    def __enter__(self) -> _Progress:
        self.bar.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.bar.stop()

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)

    def _due(self, row: bool) -> bool:
        """Whether a log is told again; what is told is remembered."""
        now, share = time.monotonic(), self.experiment.share
        if now - self.told < TELL_EVERY and not (row and share - self.told_share >= TELL_SHARE - 1e-9):
            return False
        self.told, self.told_share = now, share
        return True

    def update(self, row: bool = True) -> None:
        """Something was done; `row`: a row came."""
        experiment = self.experiment
        if not self.console.is_terminal and not self._due(row):
            return
        left = f"{experiment.done} of {experiment.total} rows, {experiment.seconds:,.0f} s"
        if experiment.eta is not None:
            left += f", about {experiment.eta:,.0f} s left"
        if self.console.is_terminal:
            self.bar.update(self.line, completed=experiment.share, description=left)
        else:
            self.say(f"{experiment.task.name}: {left}")
