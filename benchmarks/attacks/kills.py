"""Processes that save, killed in between: every kind of file that the package writes (see `tests/saving.py`)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile

from benchmarks.attacks.finding import Finding, Options
from benchmarks.attacks.serving import ROOT

TRIALS = 50
BOUND = 600.0  # seconds


def row(options: Options) -> Finding:
    trials = options.trials or TRIALS
    with tempfile.TemporaryDirectory(prefix="loopviz-attacks-") as folder:
        done = subprocess.run(
            [sys.executable, "-m", "tests.saving", folder, str(trials), str(options.seed)],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=BOUND,
            check=False,
        )
    lines = done.stdout.splitlines()
    wrong = [line for line in lines if not re.match(r"\d+ kills", line)]
    if done.returncode and not wrong:
        wrong.append(done.stderr[-600:])
    found = f"{sum(line.startswith('cut') for line in wrong)} cut; {lines[-1] if lines else 'nothing was tried'}"
    return Finding("kills (-9) while saving, every kind of file", f"0 cut files, {trials} trials", found, wrong)
