"""`python -m loopviz sweep grid.yaml`: a task over a grid of models, configurations and texts.

    task: perplexity
    models: [assets/models/stories-loop, assets/models/stories-noinject]
    texts:                       # parameters that name a text, by a name of one's own
      stories: {file: stories_val.txt}
    configurations:              # further parameters, by a name of one's own
      serial: {loop: {virtual_attention_mode: serial}}
      last: {loop: {kv_cache_mode: merge_strategy, merge_strategy: last}}
    params: {loops: [1, 2, 4, 8], limit_tokens: 2048}      # of every cell; a configuration's value wins
    dtype: float32
    device: cpu
    imports: [my_merges.py]      # as --import

Every cell is one experiment. Before the first one runs, every model is loaded once and every cell is checked on it. Cells run
in local processes (:mod:`loopviz.lab.workers`) or as tasks of a Ray cluster; each one's result is one line, appended to
STEM.jsonl when it is finished. A sweep that was interrupted or killed goes on where it stopped: a cell whose line is there is
not run again, unless something that decides its result has changed: its settings, its text, the model's weights,
configuration or tokenizer, imported code, or the versions of LoopViz, torch or transformers.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from loopviz import imports, outputs, signals
from loopviz.csv_file import table_bytes
from loopviz.machine import check_threads
from loopviz.text_file import lines_of

from .computed_with import versions
from .experiment import read_file, to_frame
from .grid import AXES, Cell, grid_imports, read_grid, task_named
from .grid_yaml import read_yaml
from .ray_cluster import RayCluster
from .task import TASKS, Task, params_from_json
from .workers import Died, Job, Workers

VERSIONS = ("loopviz", "torch", "transformers")  # those that can change a number
SUFFIXES = (".csv", ".parquet")  # of the tables beside STEM.jsonl
FAILED = 1  # exit code when cells failed, which nothing could know before they ran


# -- one cell ----------------------------------------------------------------------------------------------------------


_kept: dict[tuple[str, str, str], Any] = {}  # a process's model, for its next cell


def _subject(model: str, dtype: str, device: str) -> Any:
    """The model of a cell, loaded where this process does not have it; the one it had is let go of first."""
    import torch

    from loopviz.model.checkpoints.load import load_checkpoint
    from loopviz.model.placing import place

    from .task import Subject

    wanted = (model, dtype, device)
    if wanted not in _kept:
        _kept.clear()
        torch.cuda.empty_cache()  # or what the last model had there would count as taken
        loaded = load_checkpoint(model, dtype=getattr(torch, dtype))
        place(loaded.model, torch.device(device))
        _kept[wanted] = Subject.of(loaded)
    return _kept[wanted]


def _prepared(cell: Cell, threads: int) -> tuple[Task, Any, Any]:
    """Task, model and parameters of a cell, in a process that may have just begun."""
    import torch

    torch.set_num_threads(threads)
    if os.path.isdir(cell.folder):
        os.chdir(cell.folder)
    task = task_named(cell.task)
    return task, _subject(cell.model, cell.dtype, cell.device), params_from_json(task.params, cell.params)


def look(cells: Sequence[Cell], threads: int) -> dict[str, Any]:
    """Load the model of some cells here, and check each of them on it, without measuring anything.

    Args:
        cells: all of one model.
        threads: CPU threads it may use.

    Returns:
        `fingerprint`: hashes of the weights, of the configuration and of the tokenizer; `refused`: what is wrong with the
        first cell that could not run, or "".
    """
    from .experiment import Experiment

    where = f"model {cells[0].model!r}"
    try:
        task, subject, _ = _prepared(cells[0], threads)
        fingerprint = subject_fingerprint(subject)
        for cell in cells:
            where = ", ".join(f"{axis} {value!r}" for axis, value in zip(AXES, cell.axes, strict=True) if value)
            params = params_from_json(task.params, cell.params)
            Experiment(task, subject, params)
            if callable(getattr(params, "windows", None)):
                params.windows(subject)  # the text in this model's tokens, in windows that fit its context
    except Exception as error:
        return {"fingerprint": {}, "refused": f"{where}: {_told(error)}"}
    return {"fingerprint": fingerprint, "refused": ""}


def subject_fingerprint(subject: Any) -> dict[str, str]:
    """What a model's numbers come from: `weights`, `config`, `tokenizer`, and `gates` where some stand beside; each a sha256, hex."""
    config = {**subject.model.config.to_dict(), "_name_or_path": ""}  # where it lies changes nothing
    backend = getattr(subject.tokenizer, "backend_tokenizer", None)
    tokens = backend.to_str() if backend is not None else sorted(subject.tokenizer.get_vocab().items())
    special = [subject.tokenizer.special_tokens_map, subject.tokenizer.chat_template]
    return {
        "weights": subject.digest,
        **({"gates": subject.gates} if subject.gates else {}),
        "config": _sha256(config),
        "tokenizer": _sha256([tokens, special]),
    }


def _sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _made(cell: Cell, fingerprint: Mapping[str, str]) -> Cell:
    """A cell with everything that decides its result."""
    known = versions()
    made_of = {
        "task": cell.task,
        "model": cell.model,
        "params": cell.params,
        "dtype": cell.dtype,
        "device": cell.device.partition(":")[0],
        "texts": list(cell.texts),
        **fingerprint,
        "versions": {name: known[name] for name in VERSIONS},
        "imports": imports.loaded(),
    }
    return dataclasses.replace(cell, made_of=made_of)


def run_cell(cell: Cell, threads: int) -> dict[str, Any]:
    """Run a cell here.

    Args:
        cell: what to run.
        threads: CPU threads it may use.

    Returns:
        Its line of the results: the axes' names, `key` and `made_of`, `rows` and `manifest`; or, for what failed, `error`.
    """
    from .experiment import Experiment

    try:
        task, subject, params = _prepared(cell, threads)
        experiment = Experiment(task, subject, params).run()
    except Exception as error:  # one cell that fails must not end the others' night
        return {**_line(cell), "error": _told(error)}
    return {**_line(cell), "rows": experiment.rows, "manifest": experiment.manifest}


def _line(cell: Cell) -> dict[str, Any]:
    return {**dict(zip(AXES, cell.axes, strict=True)), "key": cell.key, "made_of": cell.made_of}


def _told(error: Exception) -> str:
    name = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    return name + " ".join(str(error).split())


# -- results -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Results:
    """What STEM.jsonl holds.

    Attributes:
        finished: lines by key.
        before: the last line of each place in the grid, whatever it was made of.
        tasks: names of the tasks that the lines are of.
    """

    finished: dict[str, dict[str, Any]]
    before: dict[tuple[str, ...], dict[str, Any]]
    tasks: frozenset[str]


def read_results(path: Path) -> Results:
    """Finished cells; a last line that a kill cut short is taken off the file.

    Raises:
        ValueError: the file is something else; it is left as it is.
    """
    data = path.read_bytes() if path.is_file() else b""
    whole = data[: data.rfind(b"\n") + 1]
    rest = data[len(whole) :]
    try:
        lines = [_checked(json.loads(line)) for line in lines_of(whole.decode("utf-8"))]
        if not lines and not b'{"model": "'.startswith(rest[:11]):
            raise ValueError(rest)
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path}: not the results of a sweep; give another --out") from None
    if rest:
        with path.open("r+b") as file:
            file.truncate(len(whole))
    good = [line for line in lines if "error" not in line]
    return Results(
        {line["key"]: line for line in good},
        {tuple(line[axis] for axis in AXES): line for line in good},
        frozenset(line["manifest"]["task"] for line in good),
    )


def _checked(line: Any) -> dict[str, Any]:
    """A line of results, of this LoopViz or an older one."""
    if not {"key", *AXES} <= set(line) or not ("error" in line or ("rows" in line and "task" in line["manifest"])):
        raise ValueError(line)
    return line


def changed(cell: Cell, before: Mapping[str, Any]) -> str:
    """Why a cell that was finished is run again, in a few words.

    Args:
        cell: as it is now.
        before: its line in the results.
    """
    old, new = before.get("made_of"), cell.made_of
    if old is None:
        return "written by an older LoopViz, which did not note what they were made of"
    said = {
        "weights": f"the weights of {cell.model} have changed",
        "gates": f"the exit gate of {cell.model} has changed",
        "config": f"the configuration of {cell.model} has changed",
        "tokenizer": f"the tokenizer of {cell.model} has changed",
        "texts": f"text {cell.text or 'given'} has changed",
        "imports": "imported code has changed",
        "dtype": f"dtype is {cell.dtype} now",
        "device": f"device is {cell.device} now",
    }
    reasons = [text for name, text in said.items() if old.get(name) != new.get(name)]
    was = old.get("versions", {})
    reasons += [
        f"{name} was {was.get(name)} and is {now}" for name, now in new["versions"].items() if was.get(name) != now
    ]
    return ", ".join(reasons) or "their settings have changed"


def to_table(task: Task, cells: Sequence[Cell], results: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """All rows of the finished cells in the grid's order, the axes' names first."""
    finished = [(cell, results[cell.key]["rows"]) for cell in cells if cell.key in results]
    table = to_frame(task, [row for _, rows in finished for row in rows])
    for place, name in enumerate(AXES):
        label = name if name not in table.columns else f"cell_{name}"
        table.insert(place, label, [getattr(cell, name) for cell, rows in finished for _ in rows])
    return table


def _append(path: Path, line: Mapping[str, Any]) -> None:
    """Add a line, whole or not at all; one that the disk does not take is put elsewhere, and that is said."""
    data = json.dumps(line, ensure_ascii=False).encode() + b"\n"
    try:
        with signals.held(), outputs.naming(path), path.open("ab", buffering=0) as file:
            size = file.tell()
            try:
                left = data
                while left:
                    left = left[file.write(left) :]
                os.fsync(file.fileno())
            except OSError:
                file.truncate(size)
                raise
    except outputs.OutputError as error:
        place = outputs.rescue(path, lambda elsewhere: elsewhere.write_bytes(data))
        kept = f"; the cell just finished is in {place}: append it to {path.name}" if place else ""
        raise outputs.OutputError(f"{error}{kept}") from None


# -- running -----------------------------------------------------------------------------------------------------------


class Pool(Protocol):
    """Where cells run. A context; `run` gives jobs with results, `finished` those that came in when it was interrupted."""

    def __enter__(self) -> Pool: ...
    def __exit__(self, *exception: Any) -> None: ...
    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Any]]: ...
    def finished(self) -> Iterator[tuple[Job, Any]]: ...


def run(
    grid: Path,
    out: Path,
    *,
    workers: int = 1,
    threads: int = 1,
    ray_address: str | None = None,
    device: str | None = None,
    modules: Sequence[str] = (),
    force: bool = False,
    say: Callable[[str], None] | None = None,
) -> int:
    """Run what is left of a grid.

    Args:
        grid: the YAML file.
        out: stem of the results.
        workers: local processes.
        threads: CPU threads of each cell.
        ray_address: of a Ray cluster, instead of local processes; `local` starts one here.
        device: where the models run, instead of the grid's `device`.
        modules: to import, as the command's `--import`, before the grid's own.
        force: write over tables that are not this sweep's.
        say: told of every finished cell; default: stderr.

    Returns:
        0, or 1 when cells failed (their errors have been told; they are run again by the next call).

    Raises:
        ValueError: a grid, a cell or an option that is refused, a place that cannot be written, results that are none, Ray
            missing.
        KeyboardInterrupt: interrupted, by Ctrl-C or SIGTERM; what is finished is kept, no process is left.
    """
    say = say or _tell
    if workers < 1:
        raise ValueError(f"--workers {workers}: must be at least 1")
    check_threads(threads)
    modules = imports.load(modules)
    cells = read_grid(grid, device)
    task, path = TASKS[cells[0].task], Path(f"{out}.jsonl")
    modules = list(dict.fromkeys([*modules, *imports.load(_imports_of(grid), [grid.parent])]))
    _check_place(out, grid)
    pool: Pool = RayCluster(ray_address, threads, modules) if ray_address else Workers(workers, modules)
    with outputs.alone(path, "--out", "sweep"):
        return _run_alone(cells, task, out, threads, pool, force, say)


def _run_alone(
    cells: Sequence[Cell], task: Task, out: Path, threads: int, pool: Pool, force: bool, say: Callable[[str], None]
) -> int:
    """The rest of :func:`run`, while no other sweep writes to `out`."""
    path = Path(f"{out}.jsonl")
    results = _known(out, task, force)
    with pool:
        try:
            cells = _looked_at(cells, threads, pool)
        except KeyboardInterrupt:
            say("interrupted before any cell ran; run again to go on")
            raise
        left = [cell for cell in cells if cell.key not in results.finished]
        say(f"{len(cells)} cells, {len(cells) - len(left)} of them finished before")
        again = Counter(changed(cell, results.before[cell.axes]) for cell in left if cell.axes in results.before)
        for reason, count in again.items():
            say(f"{count} finished before {'is' if count == 1 else 'are'} run again: {reason}")
        failed = _run_cells(left, threads, pool, path, results, say)
    _save(to_table(task, cells, results.finished), out, say)
    if failed:
        say(f"{failed} cells failed; run the same command again to try them again")
    return FAILED if failed else 0


def _tell(text: str) -> None:
    """On stderr, as long as there is one: a terminal that is closed must not end the night's work."""
    with suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def _imports_of(grid: Path) -> list[str]:
    return grid_imports(read_yaml(read_file(grid), grid)[0])


def _check_place(out: Path, grid: Path) -> None:
    """Look at the place for the results before any work."""
    for suffix in (".jsonl", *SUFFIXES):
        outputs.check_file(Path(f"{out}{suffix}"), "--out", inputs=[grid], parents=True)


def _known(out: Path, task: Task, force: bool) -> Results:
    """What is there already; refused where it is not this sweep's."""
    path = Path(f"{out}.jsonl")
    results = read_results(path)
    if not force:
        others = sorted(results.tasks - {task.name})
        if others:
            outputs.check_free([path], "--out", f"the results of another task ({', '.join(others)})")
        if not path.exists():
            tables = [Path(f"{out}{suffix}") for suffix in SUFFIXES]
            outputs.check_free(tables, "--out", "and not of a sweep")
    return results


def _looked_at(cells: Sequence[Cell], threads: int, pool: Pool) -> list[Cell]:
    """The cells with what they are made of; each has been checked on its model."""
    models = {model: [cell for cell in cells if cell.model == model] for model in dict.fromkeys(c.model for c in cells)}
    jobs = [Job(look, (tuple(own), threads), keeps=model) for model, own in models.items()]
    found: dict[str, Mapping[str, str]] = {}
    for job, result in pool.run(jobs):
        if isinstance(result, Died):
            raise ValueError(
                f"model {job.keeps!r}: the process that loaded it {result.how}; give fewer --workers, or a smaller model"
            )
        if result["refused"]:
            raise ValueError(result["refused"])
        found[job.keeps] = result["fingerprint"]
    return [_made(cell, found[cell.model]) for cell in cells]


def _run_cells(
    left: Sequence[Cell], threads: int, pool: Pool, path: Path, results: Results, say: Callable[[str], None]
) -> int:
    """Run cells and keep each one's line; returns how many failed."""
    started, number, failed = time.monotonic(), 0, 0

    def keep(job: Job, line: Any) -> None:
        nonlocal number, failed
        if job.arguments[0].key in results.finished:  # interrupted just after it was kept
            return
        if isinstance(line, Died):
            text = f"its process {line.how}; give fewer --workers or a smaller batch"
            line = {**_line(job.arguments[0]), "error": text}
        _append(path, line)
        number += 1
        failed += "error" in line
        if "error" not in line:
            results.finished[line["key"]] = line
        spent = time.monotonic() - started
        outcome = line.get("error", f"{len(line.get('rows', ()))} rows")
        say(
            f"{number} of {len(left)}: {job.arguments[0].name}: {outcome}; "
            f"{spent:,.0f} s, about {spent / number * (len(left) - number):,.0f} s left"
        )

    try:
        for job, line in pool.run([Job(run_cell, (cell, threads), keeps=cell.model) for cell in left]):
            keep(job, line)
    except KeyboardInterrupt:
        for job, line in pool.finished():
            keep(job, line)
        say(f"interrupted: {number - failed} of {len(left)} cells finished and kept; run again to go on")
        raise
    return failed


def _save(table: pd.DataFrame, out: Path, say: Callable[[str], None]) -> None:
    def save(stem: Path) -> None:
        with outputs.replacing(f"{stem}.csv") as csv, outputs.replacing(f"{stem}.parquet") as parquet:
            csv.write_bytes(table_bytes(table))  # both are whole before the first is put in its place
            table.to_parquet(parquet, index=False)

    try:
        save(out)
    except outputs.OutputError as error:
        place = outputs.rescue(out, save)
        kept = f"the table is in {place}.csv, .parquet instead" if place else f"every cell is in {out}.jsonl"
        raise outputs.OutputError(f"{error}; {kept}") from None
    say(f"saved: {out}.csv, .parquet ({len(table)} rows); manifests of the cells are in {out}.jsonl")
