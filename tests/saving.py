"""Every kind of file that LoopViz writes, saved over and over by processes that are killed: run by `test_outputs`.

`python -m tests.saving FOLDER TRIALS SEED`: prints what was found cut, one a line, and how many kills there were.

A trial is a forked process, so that fifty cost no fifty starts of torch. This one therefore saves nothing itself: locks
go along into a fork, the threads that hold them do not, and one lock (tqdm's) is even shared between processes: who is
killed while drawing a progress bar holds it for ever. It starts no thread, which is looked at before every fork.
"""

from __future__ import annotations

import hashlib
import os

# Before whatever reads them is imported: no thread but this one.
os.environ.update(
    OMP_NUM_THREADS="1",
    OPENBLAS_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
    JE_ARROW_MALLOC_CONF="background_thread:false",
)

import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import psutil
import torch
from tqdm import tqdm

from loopviz import csv_file, outputs
from loopviz.export import panel_table, report
from loopviz.lab import sweep
from loopviz.lab.experiment import Experiment
from loopviz.trace import file as io
from loopviz.train import text
from loopviz.train.state import CsvLog, save_state
from tests.conftest import make_tokenizer
from tests.lab import test_experiment as toy
from tests.lab.subject import subject
from tests.trace.synthetic import random_trace

THREADS_AT_START = psutil.Process().num_threads()
STATES = 2  # contents a file may have
LONGEST = 120.0  # seconds that one save may take before it counts as stuck


def kinds() -> dict[str, Callable[[Path, int], object]]:
    """Each kind of save: what writes content number `n` into a folder, under the same names."""
    traces = [random_trace(n, 30, blocks=[(0, 1)], hidden=64) for n in range(STATES)]
    experiments = []
    for n in range(STATES):
        experiment = Experiment(toy.TOY, subject(), toy.Params(loops=(1, 2)))
        experiment.rows = [{"loops": i, "note": f"row {n}", "mean": i / 3, "size": i * n} for i in range(6_000)]
        experiments.append(experiment)
    states = [{"weights": torch.full((200_000,), float(n))} for n in range(STATES)]
    models = [subject(n).model for n in range(STATES)]
    tokenizer = make_tokenizer()

    def model(folder: Path, n: int) -> None:
        with outputs.filling(folder) as part:
            models[n].save_pretrained(str(part))
            tokenizer.save_pretrained(str(part))

    def tokens(folder: Path, n: int) -> None:
        outputs.write_text(folder / "source.txt", f"once upon {n} " * 2_000)
        text.encode_file(folder / "source.txt", tokenizer, folder, "train")

    return {
        "trace": lambda folder, n: io.save(traces[n], folder / "run.loopviz"),
        "trace_tables": lambda folder, n: io.to_csv(traces[n], folder),
        "trace_parquet": lambda folder, n: io.to_parquet(traces[n], folder),
        "trace_json": lambda folder, n: io.to_json(traces[n], folder / "run.json"),
        "panel": lambda folder, n: panel_table.save_panel(traces[n], "token_loop_map", folder / "panel.csv"),
        "report": lambda folder, n: report.save(traces[n], folder / "report.html", replay=False),
        "lab": lambda folder, n: experiments[n].save(folder / "table"),
        "sweep": lambda folder, n: sweep._save(experiments[n].frame, folder / "all", lambda line: None),
        "checkpoint": lambda folder, n: save_state(folder / "checkpoint.pt", states[n]),
        "log": lambda folder, n: CsvLog(folder / "log.csv", ("step", f"note{n}" * 20_000), None),
        "csv": lambda folder, n: csv_file.write_table(experiments[n].frame, folder / "t.csv"),
        "model": model,
        "tokens": tokens,
    }


def sums(folder: Path) -> dict[str, str]:
    """The files that a reader finds in a folder, by their content."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def left_over(folder: Path) -> list[str]:
    """What is not whole, in a folder."""
    return [path.name for path in folder.rglob("*") if path.name.startswith(".loopviz-")]


def fork(work: Callable[[], object]) -> int:
    """A process that does `work` and ends, with 1 if it raises; returns its number."""
    threads = psutil.Process().num_threads()
    if threads > THREADS_AT_START:
        raise RuntimeError(f"{threads} threads, {THREADS_AT_START} at the start: not safe to fork")
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        tqdm.set_lock(threading.RLock())  # of its own
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def save_once(save: Callable[[Path, int], object], folder: Path, n: int) -> float:
    """Save content `n` in a process of its own; returns the seconds it took.

    Raises:
        RuntimeError: it failed, or did not end.
    """
    begun = time.perf_counter()
    child = fork(lambda: save(folder, n))
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        spent = time.perf_counter() - begun
        if ended:
            break
        if spent > LONGEST:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise RuntimeError(f"{folder.name}: a save did not end in {LONGEST:.0f} s")
        time.sleep(0.001)
    if status:
        raise RuntimeError(f"{folder.name}: a save failed (its traceback is above)")
    return spent


def save_and_kill(save: Callable[[Path, int], object], folder: Path, seconds: float) -> None:
    """Save one content after the other in a process of its own, and kill that after `seconds`.

    Raises:
        RuntimeError: it had ended before, because a save failed.
    """

    parent = os.getpid()

    def forever() -> None:
        n = 0
        while os.getppid() == parent:  # whoever ends this one means its children too
            save(folder, n % STATES)
            n += 1

    child = fork(forever)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    if os.waitpid(child, 0)[1] != signal.SIGKILL:
        raise RuntimeError(f"{folder.name}: a save failed (its traceback is above)")


def main(root: Path, trials: int, seed: int) -> int:
    rng, wrong, killed = random.Random(seed), 0, 0
    made = kinds()
    whole: dict[str, list[dict[str, str]]] = {}
    spent: dict[str, float] = {}
    for name, save in made.items():
        (root / name).mkdir()
        whole[name] = []
        for n in range(STATES):
            spent[name] = save_once(save, root / name, n)
            whole[name].append(sums(root / name))
        assert whole[name][0] != whole[name][1], f"{name}: both contents are the same, so nothing could be seen"
    names = list(made)
    for trial in range(trials):
        name = names[trial % len(names)]
        save_and_kill(made[name], root / name, rng.uniform(0, 3 * spent[name] + 0.005))
        killed += bool(left_over(root / name))
        found = {file: mark for file, mark in sums(root / name).items() if "/.loopviz-" not in f"/{file}"}
        known = {file: {state.get(file) for state in whole[name]} for file in whole[name][0] | whole[name][1]}
        for file, marks in known.items():
            # tokens are made again where the note of what they were made of is gone
            if found.get(file) not in marks and not (name == "tokens" and file not in found):
                print(f"cut: {name}: {file}")
                wrong += 1
        outputs.sweep(root / name)
        if rest := left_over(root / name):
            print(f"not swept: {name}: {rest}")
            wrong += 1
        save_once(made[name], root / name, 0)  # the next save finds its place as it should be
        if sums(root / name) != whole[name][0]:
            print(f"not as saved: {name}")
            wrong += 1
    print(f"{trials} kills, {killed} in the middle of a save")
    return wrong


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(1 if main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])) else 0)
