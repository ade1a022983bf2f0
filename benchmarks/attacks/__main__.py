"""Attack servers of our own, over loopback, and print what they did to them: a table, a row each.

    python benchmarks/attacks                       every row; half an hour on two cores
    python benchmarks/attacks far_ends stops        these
    python benchmarks/attacks left --trials 4       with fewer trials than the bar asks for

Every server is started for its row, as a Space starts one (or, from another origin, as on somebody's own machine), is ended
when it holds more memory than it may, and always at the end. Nothing but loopback is spoken to: the Hub is a stand-in.
Below the table: every failure, in words that let it be tried again. The exit status is 1 where there is one.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
import time
import traceback
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.attacks.finding import Finding, Options  # noqa: E402
from scripts.processors import processor  # noqa: E402

ROWS = ("far_ends", "left", "stops", "kept", "calls", "kills", "origins", "beside")


def main() -> int:
    """Make the rows that the command line asks for; 0 when every bar was met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; default: all")
    parser.add_argument(
        "--trials",
        type=int,
        help="of each kind (the table's: 20 left, 30 runs kept, 10,000 calls, 50 kills)",
    )
    parser.add_argument("--seed", type=int, default=1, help="of what is drawn at random")
    asked = parser.parse_args()
    if unknown := set(asked.rows) - set(ROWS):
        parser.error(f"{', '.join(sorted(unknown))}: no such row; there are {', '.join(ROWS)}")
    options = Options(asked.trials, asked.seed, lambda line: print(f"  {line}", file=sys.stderr, flush=True))
    findings: list[Finding] = []
    for name in asked.rows or ROWS:
        began = time.monotonic()
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            findings.append(importlib.import_module(f"benchmarks.attacks.{name}").row(options))
        except (Exception, SystemExit) as error:  # the other rows are tried all the same
            traceback.print_exc()
            findings.append(Finding(name, "", "could not be tried", [f"{type(error).__name__}: {error}"]))
        print(f"  {time.monotonic() - began:.0f} s\n  {findings[-1].line()}", file=sys.stderr, flush=True)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{processor()}, {os.cpu_count()} CPUs, {platform.system()}; load of the machine at the end: {load}\n")
    print("| tried | bar | found |\n|---|---|---|")
    print("\n".join(finding.line() for finding in findings))
    for finding in findings:
        print("".join(f"\n{finding.tried}: {said}" for said in finding.wrong), end="\n" if finding.wrong else "")
    return 1 if any(finding.wrong for finding in findings) else 0


if __name__ == "__main__":
    sys.exit(main())
