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

Every cell is one experiment. Cells run in local processes (`concurrent.futures`) or as tasks of a Ray cluster; each one's
result is one line, appended to STEM.jsonl when it is finished. A sweep that was killed goes on where it stopped: cells
whose line is there are not run again, unless their settings or texts have changed.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from loopviz.command_line import DTYPES
from loopviz.csv_file import write_table

from .experiment import Source, read_file, sources, to_frame
from .tasks import TASKS, Task, params_from_json, params_to_json

FIELDS = ("task", "models", "configurations", "texts", "params", "dtype")
AXES = ("model", "configuration", "text")


@dataclass(frozen=True)
class Cell:
    """One experiment of a grid, as data that travels to a process or a machine.

    Attributes:
        model, configuration, text: names, the grid's axes.
        task: the task's name.
        params: its parameters, JSON-able.
        dtype: of the weights.
        key: sha256 of everything that decides the result (of text files: their content).
        folder: that relative paths are relative to.
    """

    model: str
    configuration: str
    text: str
    task: str
    params: dict[str, Any]
    dtype: str
    key: str
    folder: str


# -- the grid ----------------------------------------------------------------------------------------------------------


def read_grid(path: Path) -> list[Cell]:
    """The cells of a grid file, models outermost, so that a process seldom loads another model.

    Raises:
        ValueError: not YAML, or a grid that is refused, by field.
    """
    import yaml

    try:
        values = yaml.safe_load(read_file(path))
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: must be a mapping with {', '.join(FIELDS)}")
    for name in values:
        if name not in FIELDS:
            raise ValueError(f"{name}: no field of a grid; there are {', '.join(FIELDS)}")
    task = _task(values.get("task"))
    dtype = values.get("dtype", "float32")
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r}: must be one of {', '.join(DTYPES)}")
    models = values.get("models")
    if not isinstance(models, list) or not models or not all(isinstance(name, str) for name in models):
        raise ValueError(f"models={models!r}: must be a list of names or folders, at least one")
    common = _mapping("params", values.get("params"))
    groups = [_named(name, values.get(name)) for name in ("configurations", "texts")]
    found = []
    for (configuration, changes), (text, source) in itertools.product(*(group.items() for group in groups)):
        where = f"configuration {configuration!r}, text {text!r}"
        try:
            params = params_from_json(task.params, _merged(common, source, changes))
            texts = sources(params)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        found.append((configuration, text, params_to_json(params), texts))
    folder = os.getcwd()
    return [
        Cell(model, configuration, text, task.name, params, dtype, _key(task, model, params, dtype, texts), folder)
        for model in dict.fromkeys(models)
        for configuration, text, params, texts in found
    ]


def _task(name: Any) -> Task:
    from . import TASKS as known

    if name not in known:
        raise ValueError(f"task={name!r}: unknown; there are {', '.join(known)}")
    return known[name]


def _mapping(name: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{name}={value!r}: must be a mapping")
    return value


def _named(name: str, value: Any) -> dict[str, dict[str, Any]]:
    """Parameters by name; without any, one entry that changes nothing."""
    groups = {str(key): _mapping(f"{name}.{key}", item) for key, item in _mapping(name, value).items()}
    return groups or {"": {}}


def _merged(*groups: Mapping[str, Any]) -> dict[str, Any]:
    """Later values win; of mappings (loop settings) field by field."""
    merged: dict[str, Any] = {}
    for name, value in itertools.chain.from_iterable(group.items() for group in groups):
        old = merged.get(name)
        merged[name] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _key(task: Task, model: str, params: dict[str, Any], dtype: str, texts: Sequence[Source]) -> str:
    content = [task.name, model, params, dtype, [source.sha256 for source in texts]]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


# -- one cell ----------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def _subject(model: str, dtype: str) -> Any:
    """A process's model, kept for its next cell."""
    import torch

    from loopviz.model.checkpoints import load_checkpoint

    from .tasks import Subject

    return Subject.of(load_checkpoint(model, dtype=getattr(torch, dtype)))


def run_cell(cell: Cell, threads: int) -> dict[str, Any]:
    """Run a cell here.

    Args:
        cell: what to run.
        threads: CPU threads it may use.

    Returns:
        Its line of the results: the axes' names, the key, `rows` and `manifest`; or, for what is refused, `error`.
    """
    import torch

    from .experiment import Experiment

    line = {name: getattr(cell, name) for name in (*AXES, "key")}
    torch.set_num_threads(threads)
    if os.path.isdir(cell.folder):
        os.chdir(cell.folder)
    try:
        task = _task(cell.task)
        params = params_from_json(task.params, cell.params)
        experiment = Experiment(task, _subject(cell.model, cell.dtype), params).run()
    except Exception as error:  # one cell that fails must not end the others' night
        name = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        return {**line, "error": name + " ".join(str(error).split())}
    return {**line, "rows": experiment.rows, "manifest": experiment.manifest}


# -- results -----------------------------------------------------------------------------------------------------------


def read_results(path: Path) -> dict[str, dict[str, Any]]:
    """Finished cells by key; a last line that a kill cut short is taken off the file."""
    if not path.is_file():
        return {}
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    try:
        lines = [json.loads(line) for line in whole.decode("utf-8").splitlines()]
        return {line["key"]: line for line in lines if "error" not in line}
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path}: not the results of a sweep; give another --out") from None


def to_table(task: Task, cells: Sequence[Cell], results: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """All rows of the finished cells in the grid's order, the axes' names first."""
    finished = [(cell, results[cell.key]["rows"]) for cell in cells if cell.key in results]
    table = to_frame(task, [row for _, rows in finished for row in rows])
    for place, name in enumerate(AXES):
        label = name if name not in table.columns else f"cell_{name}"
        table.insert(place, label, [getattr(cell, name) for cell, rows in finished for _ in rows])
    return table


# -- running -----------------------------------------------------------------------------------------------------------


def run(
    grid: Path,
    out: Path,
    *,
    workers: int = 1,
    threads: int = 1,
    ray_address: str | None = None,
    say: Callable[[str], None] = lambda text: print(text, file=sys.stderr),
) -> int:
    """Run what is left of a grid.

    Args:
        grid: the YAML file.
        out: stem of the results.
        workers: local processes.
        threads: CPU threads of each cell.
        ray_address: of a Ray cluster, instead of local processes; `local` starts one here.
        say: told of every finished cell.

    Returns:
        0, or 1 when cells failed (their errors have been told; they are run again by the next call).

    Raises:
        ValueError: a grid or an option that is refused, results that are none, Ray missing.
    """
    for name, value in (("workers", workers), ("threads", threads)):
        if value < 1:
            raise ValueError(f"--{name} {value}: must be at least 1")
    cells = read_grid(grid)
    path = Path(f"{out}.jsonl")
    results = read_results(path)
    left = [cell for cell in cells if cell.key not in results]
    say(f"{len(cells)} cells, {len(cells) - len(left)} of them finished before")
    path.parent.mkdir(parents=True, exist_ok=True)
    failed = 0
    lines = _on_ray(left, threads, ray_address) if ray_address else _locally(left, workers, threads)
    started = time.monotonic()
    with path.open("a", encoding="utf-8") as file:
        for number, line in enumerate(lines, 1):
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
            failed += "error" in line
            if "error" not in line:
                results[line["key"]] = line
            spent = time.monotonic() - started
            name = " / ".join(line[axis] for axis in AXES if line[axis])
            say(
                f"{number} of {len(left)}: {name}: {line.get('error', str(len(line.get('rows', ()))) + ' rows')}; "
                f"{spent:,.0f} s, about {spent / number * (len(left) - number):,.0f} s left"
            )
    task = TASKS[cells[0].task]
    table = to_table(task, cells, results)
    write_table(table, f"{out}.csv")
    table.to_parquet(f"{out}.parquet", index=False)
    say(f"saved: {out}.csv, .parquet ({len(table)} rows); manifests of the cells are in {out}.jsonl")
    if failed:
        say(f"{failed} cells failed; run the same command again to try them again")
    return 1 if failed else 0


def _locally(cells: Sequence[Cell], workers: int, threads: int) -> Iterator[dict[str, Any]]:
    """Results as they come from local processes, started afresh: a forked torch may hang."""
    if not cells:
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(cells)), mp_context=context)
    try:
        running: set[Future] = {pool.submit(run_cell, cell, threads) for cell in cells}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    except BrokenProcessPool:
        raise ValueError(
            "a worker process died (out of memory?): what is finished is kept; give fewer --workers or a smaller batch, "
            "and run the same command again"
        ) from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _on_ray(cells: Sequence[Cell], threads: int, address: str) -> Iterator[dict[str, Any]]:
    """Results as they come from a Ray cluster. Its machines need LoopViz's requirements and must see the same files;
    LoopViz itself is sent to them."""
    try:
        import ray
    except ImportError:
        raise ValueError("--ray: Ray is not installed; pip install ray") from None
    import loopviz

    with _connected(ray, address, {"py_modules": [str(Path(loopviz.__file__).parent)]}):
        remote = ray.remote(num_cpus=threads, max_retries=2)(run_cell)
        running = [remote.remote(cell, threads) for cell in cells]
        while running:
            done, running = ray.wait(running)
            for result in done:
                yield ray.get(result)


@contextmanager
def _connected(ray: Any, address: str, runtime_env: dict[str, Any]) -> Iterator[None]:
    own = not ray.is_initialized()
    if own:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told that somebody sweeps
        try:
            ray.init(address=address, runtime_env=runtime_env, log_to_driver=False)
        except ConnectionError as error:
            raise ValueError(f"--ray {address}: no cluster there ({' '.join(str(error).split())})") from None
    try:
        yield
    finally:
        if own:
            ray.shutdown()
