"""The measurements, one file each; each registers its task (:mod:`loopviz.lab.task`) as it is imported."""

from __future__ import annotations


def __getattr__(name: str) -> object:
    """What stood here when this was one file, `task.py` now."""
    from loopviz.lab import task

    try:
        return getattr(task, name)
    except AttributeError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
