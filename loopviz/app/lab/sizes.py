"""What a task's sizes come to with a model on this server: the numbers that fit, and about how long each takes.

Told from what the task says it costs and how fast this model was measured to be here (:mod:`loopviz.app.sessions.bounds`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopviz.app.lab.form import brought, params_of, shown_value, suited
from loopviz.app.sessions import bounds
from loopviz.app.texts import text

if TYPE_CHECKING:
    from loopviz.engine.engine import Engine
    from loopviz.lab.task import Size, Task


def sized(
    task: Task, filled: Mapping[str, Any], loaded: Engine, folder: Path, lang: str, limits: bounds.Sizes, *, cut: bool
) -> dict[str, Any]:
    """`{"sizes": [{"values", "text"}], "as_set"}`; a text is "" where the form as it stands would be refused.

    Args:
        filled: what is filled in, as for a measurement.
        limits: how long it may be.
        folder: for texts that come with it.
        cut: whether a text in it is only the beginning of one; what reads more than that takes at least so long.
    """
    from loopviz.lab.measure import subject_of

    subject, described = subject_of(loaded), loaded.describe()

    def estimated(size: Size | None) -> tuple[Any, str]:
        values = dict(filled) | (suited(size.values, described.shape.context) if size is not None else {})
        try:
            params = params_of(task, brought(task, _shown(values), described), folder, lang, limits)
            if size is not None and size.seconds is not None:
                params = bounds.within(task, subject, params, size, loaded)
            seconds = bounds.cost_of_measurement(task, subject, params, loaded).seconds
        except ValueError:
            return None, ""
        if seconds is None:
            return params, ""
        told = bounds.about(seconds, lang)
        return params, text(lang, "lab.at_least", time=told) if cut and _reads_more(subject, params) else told

    found = []
    for size in task.sizes:
        params, told = estimated(size)
        values = suited(size.values, described.shape.context)
        if params is not None:
            values |= {name: getattr(params, name) for name in size.fits}
        found.append({"values": _shown(values), "text": told})
    return {"sizes": found, "as_set": estimated(None)[1]}


def _reads_more(subject: Any, params: Any) -> bool:
    """Whether it reads past the beginning of a text that was cut."""
    words = getattr(params, "text", "") or ""
    return getattr(params, "limit_tokens", 0) > (subject.tokens_in(words) if words else 0)


def _shown(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as they stand in their fields."""
    return {name: shown_value(value) if isinstance(value, tuple) else value for name, value in values.items()}
