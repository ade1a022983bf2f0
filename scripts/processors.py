"""Run the tests as other processors and thread counts would compute them, and print a table of what passed.

    python scripts/processors.py [--repeats N] [--settings NAME ...] [-- options of pytest]
    python scripts/processors.py --whole [--repeats N] [--settings NAME ...]      the README's test command, browsers and all

The kernels that torch picks (its own, MKL's, oneDNN's) depend on what the processor can do; each library lets itself be
held to less. So one machine stands for several: results may differ in their last bits between settings, tests may not.
On processors that are not x86 the libraries ignore these variables, and the settings differ by threads alone.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Of the processes that share the cores, those that wait for their own threads sleep: they would keep others from theirs.
SLEEPING = {"OMP_WAIT_POLICY": "passive"}

AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
SSE4 = {"ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2", "ONEDNN_MAX_CPU_ISA": "SSE41"}
SETTINGS: dict[str, dict[str, str]] = {
    "as it is, 1 thread": {"OMP_NUM_THREADS": "1"},
    "AVX2, 2 threads": {**AVX2, **SLEEPING, "OMP_NUM_THREADS": "2"},
    "SSE4, 4 threads": {**SSE4, **SLEEPING, "OMP_NUM_THREADS": "4"},
}
# A browser draws and does not compute; everything else, unless the whole command is asked for.
DEFAULT = ("-m", "not browser", "-n", "2", "--dist", "loadfile")


def processor() -> str:
    """The processor's name, as far as the system says it."""
    try:
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:
        found = None
    return found.group(1) if found else platform.processor() or platform.machine()


def told(command: list[str], environ: dict[str, str]) -> tuple[int, str]:
    """Run a command and print what it says as it says it; its exit code, and all it said."""
    lines = []
    with subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    return process.returncode, "".join(lines)


def main(arguments: list[str]) -> int:
    """Run what the command line asks for; 0 when every run was green."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1, help="times each setting is run (default: 1)")
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS), metavar="NAME")
    parser.add_argument("--whole", action="store_true", help="run the README's test command instead of pytest")
    options, chosen = parser.parse_known_args(arguments)
    chosen = [word for word in chosen if word != "--"]
    rows, bad = [], 0
    for name in options.settings:
        for repeat in range(options.repeats):
            started = time.monotonic()
            pytest = [sys.executable, "-m", "pytest", *(chosen or DEFAULT)]
            command = [sys.executable, str(ROOT / "scripts" / "run.py"), "test"] if options.whole else pytest
            code, said = told(command, {**os.environ, **SETTINGS[name]})
            summary = re.findall(r"^=*\s*((?:\d+ \w+,? ?)+) in ", said, re.M)  # of each phase
            minutes = (time.monotonic() - started) / 60
            rows.append(f"| {name} | {repeat + 1} | {'; '.join(summary) or 'no summary'} | {minutes:.1f} |")
            bad += code != 0
    print(f"{processor()}, {os.cpu_count()} CPUs, {platform.system()}\n")
    print("\n".join(["| setting | run | tests | minutes |", "|---|---:|---|---:|", *rows]))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
