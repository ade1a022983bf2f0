"""What several panels do alike: follow the selected token, offer a choice, read a lens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from loopviz.panels.ops import Op, Path, changes

if TYPE_CHECKING:
    from loopviz.panels.focus import Focus
    from loopviz.trace.schema import Trace

Frame = Mapping[str, Any]


def follow(
    trace: Trace, frame: Frame, focus: Focus, chosen: Callable[[int, Frame | None], dict[Path, Any]]
) -> list[Op]:
    """The edits of a figure that shows the selected token alone.

    Args:
        trace: the trace before ``frame``.
        frame: the frame that comes.
        focus: where the reader looks.
        chosen: all that depends on the selection, by path, for so many frames and the selected one (None: none).
    """
    count = len(trace.frames)
    before, after = focus.selected(count), focus.selected(count + 1)
    if before == after and count:
        return []
    old = None if before is None else trace.frames[before]
    new = None if after is None else trace.frames[after] if after < count else frame
    return changes(chosen(count, old), chosen(count + 1, new))


def choice(label: str, options: Iterable[tuple[Any, str]], value: Any) -> dict[str, Any]:
    """One entry of ``layout.meta["choices"]``: a select the page shows; its key there is the Focus field it sets."""
    return {"label": label, "options": [list(option) for option in options], "value": value}
