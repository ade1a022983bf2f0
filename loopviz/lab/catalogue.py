"""The measurements that there are: every file in `tasks/` is one, found by being there.

    NAME, ORDER = "influence", 60                             # on the command line; its place among the others
    TITLE = {"en": "Block influence", "zh": "层的影响"}

These three stand in the file as they are, so that they can be told without running it: a task's module needs PyTorch.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import math
import pkgutil
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from loopviz.lab import tasks


@dataclass(frozen=True)
class Entry:
    """A measurement, as its file says without being run.

    Attributes:
        module: the file's name.
        name: of the task; "" where the file does not say it so.
        order: its place among the others.
        title: in English.
    """

    module: str
    name: str
    order: float
    title: str


def entries() -> list[Entry]:
    """The files of `tasks/`, in the order in which measurements are offered."""
    found = [_entry(entry.name) for entry in pkgutil.iter_modules(tasks.__path__)]
    return sorted(found, key=lambda entry: (entry.order, entry.module))


def titles() -> dict[str, str]:
    """The English title of every measurement, by name. Only a file that does not state them is imported for it."""
    told = {}
    for entry in entries():
        if entry.name and entry.title:
            told[entry.name] = entry.title
        else:
            told |= _asked(entry.module)
    return told


def load() -> dict[str, float]:
    """Import every measurement, so that each has registered its task; their places among the others, by task."""
    names = [f"{tasks.__name__}.{entry.name}" for entry in pkgutil.iter_modules(tasks.__path__)]
    modules = [importlib.import_module(name) for name in names]
    return {module.NAME: module.ORDER for module in modules if hasattr(module, "NAME") and hasattr(module, "ORDER")}


def _entry(module: str) -> Entry:
    said = _literals(_source(module))
    title = said.get("TITLE")
    order = said.get("ORDER")
    return Entry(
        module,
        name if isinstance(name := said.get("NAME"), str) else "",
        order if isinstance(order, int) else math.inf,
        title["en"] if isinstance(title, dict) and isinstance(title.get("en"), str) else "",
    )


def _source(module: str) -> str:
    spec = importlib.util.find_spec(f"{tasks.__name__}.{module}")
    get_source = getattr(spec and spec.loader, "get_source", None)
    return (get_source(f"{tasks.__name__}.{module}") if get_source else None) or ""


@functools.lru_cache(maxsize=128)
def _literals(source: str) -> dict[str, Any]:
    """What is assigned to names at the top of a module and can be read as it stands."""
    found: dict[str, Any] = {}
    for node in ast.parse(source).body:
        if not isinstance(node, ast.Assign) or len(node.targets) != 1:
            continue
        names = [part.id for part in ast.walk(node.targets[0]) if isinstance(part, ast.Name)]
        try:
            value = ast.literal_eval(node.value)
        except ValueError:
            continue
        found |= dict(zip(names, value if isinstance(value, tuple) and len(names) > 1 else (value,), strict=False))
    return found


def _asked(module: str) -> dict[str, str]:
    """The titles of the tasks that a module registers, which is imported for it."""
    from loopviz.lab.task import TASKS

    made: ModuleType = importlib.import_module(f"{tasks.__name__}.{module}")
    return {name: task.words["en"]["title"] for name, task in TASKS.items() if task.run.__module__ == made.__name__}
