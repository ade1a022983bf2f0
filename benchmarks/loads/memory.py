"""Many runs, one after the other, each in a tab of its own that is closed: memory, threads and files stay as they are."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence

from benchmarks.attacks.serving import MIB, Attacked
from benchmarks.loads.asked import own
from benchmarks.loads.ran import alone
from benchmarks.loads.row import Row
from benchmarks.loads.together import PANELS

TOKENS = 8  # new ones, of each run
FLAT = 0.05  # by how much the last tenth may differ from the first
HUNDRED = 100  # runs of which the slope is told


def measure(server: Attacked, asked: argparse.Namespace) -> list[Row]:
    """A look at the server after each run; those before the first are what it keeps of pages anyway."""
    looks: dict[str, list[float]] = {"memory": [], "threads": [], "files": []}
    for n in range(asked.warm + asked.runs):
        alone(server, own(n, TOKENS, PANELS[asked.panels]), f"memory {n}")
        if n >= asked.warm:
            threads, files = server.counts()
            for name, value in zip(looks, (server.held() / MIB, threads, files), strict=True):
                looks[name].append(value)
        if (n + 1) % 50 == 0:
            print(f"run {n + 1}: {server.held() / MIB:.0f} MiB", file=sys.stderr, flush=True)
    title = f"{asked.runs} runs, after {asked.warm} others"
    return [row(title, name, values) for name, values in looks.items()]


def row(title: str, name: str, values: Sequence[float]) -> Row:
    """What became of one thing: medians of the first and the last tenth, and the slope of the line through all (least squares)."""
    tenth = max(1, len(values) // 10)
    first, last = statistics.median(values[:tenth]), statistics.median(values[-tenth:])
    slope = statistics.linear_regression(range(len(values)), values).slope if len(values) > 1 else 0.0
    unit, change = " MiB" if name == "memory" else "", last / first - 1
    found = f"{first:.0f} to {last:.0f}{unit} ({change:+.1%}), {HUNDRED * slope:+.2f}{unit} a hundred runs"
    what = f"{title}: {name}, medians of the first and the last {tenth}"
    return Row(what, found, f"within {FLAT:.0%}", abs(change) <= FLAT)
