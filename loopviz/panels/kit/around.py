"""Which other tokens are shown beside the selected one: the last before the newest, or those around a chosen one.

A bounded number, each with a place of its own, so that one more token is one more edit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loopviz.panels.kit.focus import Focus

Frame = Mapping[str, Any]


def first(token: int, count: int) -> int:
    """The first position of the ``count`` tokens around ``token``."""
    return max(0, token - count // 2)


def others(frames: Sequence[Frame], focus: Focus, count: int) -> list[Frame]:
    """Up to ``count`` tokens other than the selected one, in the order of the text."""
    if focus.token is None:
        newest = max(0, len(frames) - 1)
        return list(frames[max(0, newest - count) : newest])
    start = first(focus.token, count)
    return [frame for frame in frames[start : start + count + 1] if frame["index"] != focus.token]


def coming(frames: Sequence[Frame], frame: Frame, focus: Focus, count: int) -> Frame | None:
    """Which token joins the others when ``frame`` is read after ``frames``; None: none does."""
    if focus.token is None:
        return frames[-1] if frames else None
    near = frame["index"] != focus.token and 0 <= frame["index"] - first(focus.token, count) <= count
    return frame if near else None


def place(index: int, focus: Focus, count: int) -> int:
    """The place, 0 to ``count - 1``, of the token at ``index``: one that comes takes the place of one that is left out."""
    if focus.token is None:
        return index % count
    return index - first(focus.token, count) - (index > focus.token)
