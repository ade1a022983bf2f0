"""The lessons that come with LoopViz, in the order in which they are offered."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from pathlib import Path

from loopviz.lessons.faults import read_lesson
from loopviz.lessons.schema import Lesson
from loopviz.paths import ASSETS

FOLDER = ASSETS / "lessons"


def _place(path: Path) -> tuple[float, str]:
    number, _, name = path.stem.partition("-")
    return (int(number), name) if number.isdecimal() else (math.inf, path.stem)


@functools.cache
def bundled() -> Mapping[str, Lesson]:
    """By id: each file of the folder, by name; a number before a name says its place (`1-arrows.json`).

    Raises:
        ValueError: one of them is no lesson.
    """
    found = {}
    for path in sorted(FOLDER.glob("*.json"), key=_place):
        lesson, faults = read_lesson(path.read_text(encoding="utf-8"))
        if lesson is None:
            raise ValueError(f"{path.name}: {faults[0]}")
        found[lesson["id"]] = lesson
    return found
