"""Panels: pictures of a Trace. One module a panel, found by being in a folder of its subject (``loop/``).

A panel module has

* ``NAME``: its identifier; ``GROUP``: the one of ``GROUPS`` it stands in, each a tab of a page; ``ORDER``: its place there;
* ``NEEDS`` (optional): the extras a run must have recorded for it; then ``TEXTS`` has ``not_recorded`` as well, which is
  what its figure says of a run that has not;
* ``TEXTS``: ``{"en": {...}, "zh": {...}}`` with the keys of ``TEXT_KEYS`` and its own axis and hover labels; ``cost``
  says what recording for this panel costs a run;
* ``CODE`` (optional): the functions that compute what it shows, as ``"loopviz.model.measures:cosine"``: a page links there,
  and to the panel's own file;
* ``USUAL`` (optional): False when a page shows it only if asked; ``tells_of(meta) -> bool`` (optional): the runs for which
  it is on all the same;
* ``data(trace, focus) -> dict``: the figure as plain JSON data, pure; ``figure(trace, focus)`` is the same as a
  ``plotly.graph_objects.Figure``, whose checks take most of the time: a page, which draws often, does without them;
* ``patch(trace, frame, focus) -> list[Op]``: the edits that turn the figure of ``trace``, which does not hold ``frame``
  yet, into the one that does;
* ``summary(trace, focus) -> str``: one sentence, for those who cannot see the figure.

Law: the patches of a run, applied in order to the figure of the empty trace, give the figure of the whole trace.

``layout.meta["select"]`` tells a page what a click selects, so that it need not know the panel: ``{"token": "x"}`` means
that the clicked point's ``x`` begins with a position (``parseInt(x, 10)``), ``{"step": "x"}`` or ``{"step": "y"}`` that it
is a loop step. A point of a trace whose ``meta`` is ``{"select": {...}}`` follows that instead.

``layout.meta["act"]`` is a button a page offers with the panel, where the reader would else stand before a closed door:
``{"label": str}`` runs again, looked at as now, so that what is lacking is recorded; with ``"model": str`` it runs that
model, with its own settings; with ``"exit_threshold": float`` a gate chooses in the new run, with that threshold;
with ``"task": str`` and ``"values": {field: value}`` it makes that measurement in the Lab.

``layout.meta["choices"]`` are selects a page offers with the panel: ``{focus field: {"label": str, "options": [[value,
label], ...], "value": the current one}}``; one with ``"range": [least, most, step]`` instead of options is a slider.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Collection
from types import ModuleType

from loopviz.figures.edits import Op, apply, figure_json
from loopviz.panels.kit.focus import LANGUAGES, METRICS, Focus
from loopviz.panels.kit.follower import passing

# What the panels of a page are about: tabs, in this order; a page opens on the first. Their words: ``live.group.<name>``.
GROUPS = ("thinking", "words", "memory", "cost")
TEXT_KEYS = ("title", "question", "how", "formula", "units", "source", "cost", "no_data")
# What panels are built with, what a page says of one word above them, and the panels of TTT runs, which are a list of their
# own; every other folder here holds panels.
_NO_PANELS = ("kit", "hero", "ttt")


def _check(module: ModuleType) -> ModuleType:
    for attribute in ("NAME", "GROUP", "ORDER", "TEXTS", "data", "figure", "patch", "summary"):
        if not hasattr(module, attribute):
            raise ImportError(f"{module.__name__}: a panel must have {attribute}")
    if module.GROUP not in GROUPS:
        raise ImportError(f"{module.__name__}: GROUP={module.GROUP!r} must be one of {', '.join(GROUPS)}")
    for lang in LANGUAGES:
        lacking = [key for key in TEXT_KEYS if not module.TEXTS.get(lang, {}).get(key)]
        if getattr(module, "NEEDS", ()) and not module.TEXTS.get(lang, {}).get("not_recorded"):
            lacking.append("not_recorded")
        if lacking:
            raise ImportError(f"{module.__name__}: TEXTS[{lang!r}] lacks {', '.join(lacking)}")
    return module


def _discover() -> dict[str, ModuleType]:
    subjects = [entry.name for entry in pkgutil.iter_modules(__path__) if entry.ispkg and entry.name not in _NO_PANELS]
    folders = [importlib.import_module(f"{__name__}.{subject}") for subject in subjects]
    found = [f"{folder.__name__}.{entry.name}" for folder in folders for entry in pkgutil.iter_modules(folder.__path__)]
    modules = [_check(importlib.import_module(name)) for name in found]
    return {module.NAME: module for module in sorted(modules, key=lambda module: (module.ORDER, module.NAME))}


PANELS: dict[str, ModuleType] = _discover()


def group_of(names: Collection[str]) -> str:
    """The group in which panels of these names are to be seen: the first that holds one of them, else the first there is."""
    return next((group for group in GROUPS if any(group == PANELS[name].GROUP for name in names)), GROUPS[0])


__all__ = [
    "GROUPS",
    "LANGUAGES",
    "METRICS",
    "PANELS",
    "TEXT_KEYS",
    "Focus",
    "Op",
    "apply",
    "figure_json",
    "group_of",
    "passing",
]
