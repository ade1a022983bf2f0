"""Every kind of file that LoopViz writes, saved over and over by processes that are killed: run by `test_outputs`.

`python -m tests.saving FOLDER TRIALS SEED`: prints what was found cut, one a line, and how many saves there were.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from loopviz import csv_file, outputs, panel_data, report
from loopviz.lab import sweep
from loopviz.lab.experiment import Experiment
from loopviz.trace import io
from loopviz.train import text
from loopviz.train.state import CsvLog, save_state
from tests.conftest import make_tokenizer
from tests.lab import test_experiment as toy
from tests.lab.subject import subject
from tests.trace.synthetic import random_trace

STATES = 2  # contents a file may have


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
        "panel": lambda folder, n: panel_data.save_panel(traces[n], "token_loop_map", folder / "panel.csv"),
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


def main(root: Path, trials: int, seed: int) -> int:
    rng, wrong, killed = random.Random(seed), 0, 0
    made = kinds()
    whole: dict[str, list[dict[str, str]]] = {}
    spent: dict[str, float] = {}
    for name, save in made.items():
        (root / name).mkdir()
        whole[name] = []
        for n in range(STATES):
            begun = time.perf_counter()
            save(root / name, n)
            spent[name] = time.perf_counter() - begun
            whole[name].append(sums(root / name))
        assert whole[name][0] != whole[name][1], f"{name}: both contents are the same, so nothing could be seen"
    names = list(made)
    for trial in range(trials):
        name = names[trial % len(names)]
        child = os.fork()
        if not child:
            n = 0
            while True:
                made[name](root / name, n % STATES)
                n += 1
        time.sleep(rng.uniform(0, 3 * spent[name] + 0.005))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
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
        made[name](root / name, 0)  # the next save finds its place as it should be
        if sums(root / name) != whole[name][0]:
            print(f"not as saved: {name}")
            wrong += 1
    print(f"{trials} kills, {killed} in the middle of a save")
    return wrong


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(1 if main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])) else 0)
