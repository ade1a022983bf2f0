"""A finished trace, moved through: what the page needs to show it as it was after any of its tokens.

Nothing is kept between questions: each says where the page is and where it wants to go, so a lost answer harms nothing
and any number of visitors may replay the same stored run.
"""

from __future__ import annotations

from typing import Any

from loopviz.app.explore import snapshot as drawing
from loopviz.app.profile import LOCAL
from loopviz.panels import Focus
from loopviz.trace import Trace


def snapshot(
    trace: Trace,
    focus: Focus,
    panels: drawing.Panels,
    *,
    run: str,
    epoch: int,
    end: str | None,
    shown: int | None = None,
) -> dict[str, Any]:
    """Everything the page shows of `trace` after `shown` of its tokens (None: all of them).

    Args:
        run: the id the page knows it by.
        epoch: of the figures; edits of another epoch do not fit them.
        end: why the run ended; None while it is being made.
    """
    seen = trace if shown is None else drawing.until(trace, shown)
    drawn = drawing.picture(seen, focus, panels) | {"palette": drawing.palette(trace)}  # a word keeps its colour
    return {"kind": "snapshot", "run": run, "epoch": epoch, "total": len(trace), "end": end, **drawn}


def _step(seen: Trace, trace: Trace, last: int, focus: Focus, panels: drawing.Panels) -> dict[str, Any]:
    """The message that takes `seen`, a beginning of `trace`, to its first `last` tokens; `seen` grows to that."""
    first = len(seen)
    edits = drawing.fold(seen, trace.frames[first:last], focus, panels)
    rows = [drawing.token_row(frame) for frame in trace.frames[first:last]]
    return {"first": first, "last": last, "tokens": rows, "next": drawing.next_text(seen), **edits}


def advance(
    trace: Trace,
    focus: Focus,
    panels: drawing.Panels,
    *,
    run: str,
    epoch: int,
    end: str | None,
    first: int,
    last: int,
    split: bool = False,
    most: int = LOCAL.answer_messages,
) -> dict[str, Any]:
    """Go from `first` tokens shown to `last`: edits when that is forward, a snapshot of the next epoch when it is not.

    Args:
        split: a message a token, to be shown one after the other (at most `most` of them); else one for all.
    """
    first, last = (min(max(n, 0), len(trace)) for n in (first, last))
    if last < first:
        return snapshot(trace, focus, panels, run=run, epoch=epoch + 1, end=end, shown=last)
    if split:
        last = min(last, first + most)
    seen = Trace(trace.meta, trace.frames[:first])
    stops = range(first + 1, last + 1) if split else [last]
    steps = [_step(seen, trace, stop, focus, panels) for stop in stops]
    said = drawing.summaries(seen, focus, drawing.drawable(trace, panels))
    return {"kind": "steps", "run": run, "epoch": epoch, "steps": steps, "summaries": said}
