"""Many visitors at once, on a server of their own over loopback: how long each waits, what each gets, and whether what is left ends.

    python benchmarks/load.py                            all four; some fifteen minutes on two cores
    python benchmarks/load.py --parts class heavy        these
    python benchmarks/load.py --visitors 8 --runs 60     fewer

`class`: visitors who each start a run of stories-loop with a prompt, loops, strategy, cache, sampling and seed of their own within
three seconds; then the same runs one after the other, whose texts are to be the same. `heavy`: visitors who run all the time,
with and without one beside them who asks for the most of everything that the page has and the server lets in. `left`: tabs closed
while theirs runs, until a hundred were. `memory`: many runs, one after the other. The server is of the profile `class`, one thread
a product; nobody has a browser, so that all of the machine is the server's and these visitors'. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.attacks.serving import attacked
from benchmarks.attacks.visiting import ready
from benchmarks.loads import heavy, left, memory, together
from benchmarks.loads.asked import MODEL, Ask, prompt_of, values_of
from benchmarks.loads.left import TOKEN
from benchmarks.loads.ran import alone
from benchmarks.loads.row import HEAD
from loopviz.app.profile import CLASS
from scripts.processors import processor

PARTS = {"class": together.measure, "heavy": heavy.measure, "left": left.measure, "memory": memory.measure}


def arguments() -> argparse.ArgumentParser:
    """What the command line may ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=tuple(PARTS), default=list(PARTS))
    parser.add_argument("--panels", choices=tuple(together.PANELS), default="opening", help="that are drawn of a run")
    parser.add_argument("--tokens", type=int, default=48, help="new tokens of a run of `class` and `heavy`")
    parser.add_argument("--visitors", type=int, default=30, help="of a class")
    parser.add_argument("--within", type=float, default=3.0, help="seconds within which all of a class press Run")
    parser.add_argument("--ordinary", type=int, default=5, help="visitors beside the one who asks for the most")
    parser.add_argument(
        "--tabs", type=int, default=CLASS.runs_at_once, help="of hers that run; as many as a server makes"
    )
    parser.add_argument("--seconds", type=float, default=120.0, help="for which they run, with her and without")
    parser.add_argument("--left", type=int, default=100, help="tabs that are closed in mid-run")
    parser.add_argument("--runs", type=int, default=300, help="while memory is watched")
    parser.add_argument("--warm", type=int, default=CLASS.sessions, help="before; as many as a server remembers pages")
    return parser


def main() -> None:
    """Measure what the command line asks for."""
    asked = arguments().parse_args()
    rows = []
    for name in asked.parts:
        print(f"{name} ...", file=sys.stderr, flush=True)
        with attacked("class", environ={"LOOPVIZ_METRICS_TOKEN": TOKEN}) as server:
            ready(server, MODEL)
            alone(server, Ask(prompt_of(0), values_of(8)), "first")  # what the first run alone pays
            rows += PARTS[name](server, asked)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{processor()}, {os.cpu_count()} CPUs; load of the machine at the end: {load}\n")
    print(HEAD)
    print("\n".join(row.line() for row in rows))


if __name__ == "__main__":
    main()
