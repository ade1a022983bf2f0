"""What a command may ask of the machine: threads, and formats of numbers.

On the ground floor: it imports nothing of LoopViz, and nothing heavy.
"""

from __future__ import annotations

import os
import platform
import re

DTYPES = ("float32", "bfloat16", "float16", "float64")
HELD_IN = (*DTYPES, "int8")  # what weights of a model that only runs may be held in; int8: those of its layers
PRECISIONS = (
    "exact",
    "half",
    "int8",
    "auto",
)  # as people ask for one: which half, and what auto is, this machine decides
QUANTIZATIONS = ("nf4", "int8")  # how bitsandbytes packs the layers' weights, beside what all else is held in
FEWEST_MOST_THREADS = 64  # that may be asked for, on a machine with few processors


class UsageError(ValueError):
    """Options that contradict each other."""


def check_threads(threads: int | None) -> None:
    """Refuse a number of threads that is none, or that no machine like this one starts."""
    most = max(FEWEST_MOST_THREADS, 4 * (os.cpu_count() or 1))
    if threads is not None and not 1 <= threads <= most:
        rule = "must be at least 1" if threads < 1 else f"at most {most} on this machine ({os.cpu_count()} processors)"
        raise UsageError(f"--threads {threads}: {rule}")


def processor() -> str:
    """The name of this machine's processor, as its maker calls it where that is known."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            found = re.search(r"^model name\s*: (.*)$", file.read(), re.MULTILINE)
    except OSError:
        found = None
    return found.group(1).strip() if found else platform.processor() or platform.machine()
