"""The lessons that come with LoopViz, in the order in which they are offered."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from pathlib import Path

from loopviz.lessons.schema import Lesson
from loopviz.paths import ASSETS

FOLDER = ASSETS / "lessons"


def _place(path: Path) -> tuple[float, str]:
    number, _, name = path.stem.partition("-")
    return (int(number), name) if number.isdecimal() else (math.inf, path.stem)


@functools.cache
def bundled() -> Mapping[str, Lesson]:
    """By id: each file of the folder, by name; a number before a name says its place (`1-arrows.json`).

    They are not checked anew whenever the app starts, for that loads what they measure with, and PyTorch: their test does it.
    """
    files = sorted(FOLDER.glob("*.json"), key=_place)
    return {lesson["id"]: lesson for lesson in (json.loads(path.read_text(encoding="utf-8")) for path in files)}
