"""A form changed while a run is being made: what the run takes at once, and what is for the next one, and why.

What the run's model can change between two passes, it changes (`loopviz.engine.engine.Handle.steer`). What decides how its
cache is laid out it cannot: the cache holds the words read so far. Which model it is, and how words are chosen, was
settled as the run began.

Free of torch and Gradio.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loopviz.app import controls as st
from loopviz.app.texts import text
from loopviz.loop_fields import LAYOUT_FIELDS

LAYOUT = (
    *st.LAYERS,
    *(name for name in LAYOUT_FIELDS if name in st.BY_NAME),
)  # controls that decide the cache's layout


def _why_later(control: st.Control) -> str | None:
    """The text key of why a run being made does not take another value of `control`; None when it does."""
    if control.name in LAYOUT:
        return "later.layout"
    return {"model": "later.model", "sampling": "later.sampling"}.get(control.group)


def waiting(values: Mapping[str, Any], began: Mapping[str, Any]) -> dict[str, str]:
    """The controls whose (cleaned) `values` are for the next run, each with the text key of the reason.

    Args:
        values: of the form now.
        began: of the form as the run began.
    """
    now, then = st.effective(values), st.effective(began)
    found = {}
    for control in st.CONTROLS:
        reason = _why_later(control)
        if now[control.name] == then[control.name]:
            continue
        if values["model"] != began["model"]:  # the rest of the form speaks of that model
            found[control.name] = "later.model"
        elif reason is not None:
            found[control.name] = reason
    return found


def live_fields(values: Mapping[str, Any], began: Mapping[str, Any]) -> dict[str, Any]:
    """The loop fields that a run of the same model which `began` so could take from the form's cleaned `values`."""
    fields = st.loop_fields({**values, **{name: began[name] for name in LAYOUT}})
    return {name: value for name, value in fields.items() if name != "loop_layers" and name not in LAYOUT}


def told(fields: Mapping[str, Any], lang: str) -> str:
    """That the run takes these fields, and since when."""
    what = ", ".join(
        f"{name}={value:.6g}" if isinstance(value, float) else f"{name}={value}" for name, value in fields.items()
    )
    return text(lang, "live.changed", what=what)
