"""What several panels do alike: follow the selected token, offer a choice, read a lens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from loopviz.panels import labels
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


class Said(NamedTuple):
    """The most likely next tokens after every step of one block, best first; no rows when they were not recorded."""

    ids: list[list[int]]
    logprobs: list[list[float | None]]  # nats
    texts: list[list[str]]


def said(block: Mapping[str, Any], lens: str) -> Said:
    """What ``block`` would say after each step through ``lens``: "direct" or "exit"."""
    prefix = "exit_" if lens == "exit" else ""
    return Said(*(block["steps"][f"{prefix}topk_{kind}"] for kind in ("ids", "logprobs", "texts")))


def silent(frame: Frame, focus: Focus, not_recorded: str) -> str:
    """Why the selected block of ``frame`` has no words to show through ``focus.lens``; "" when it has some.

    ``not_recorded``: what to say when the exit lens, and only that, was not recorded.
    """
    block = frame["blocks"][focus.block]
    if any(said(block, focus.lens).ids) or not block["n_steps"]:
        return ""
    if focus.lens == "direct" or not any(said(block, "direct").ids):
        return labels.COMMON[focus.lang]["not_recorded"]
    last = any(said(frame["blocks"][-1], "exit").ids)  # recorded, but an earlier block's exit would run later blocks
    return LENS_TEXTS[focus.lang]["last_block"].format(last=len(frame["blocks"]) - 1) if last else not_recorded


LENS_TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "lens": "lens",
        "direct": "direct lens",
        "exit": "exit lens",
        "unrecorded": "{lens} (not recorded)",
        "last_block": "the exit lens reads the last block alone: choose block {last}, or the direct lens",
    },
    "zh": {
        "lens": "透镜",
        "direct": "直接透镜",
        "exit": "出口透镜",
        "unrecorded": "{lens}（未记录）",
        "last_block": "出口透镜只读最后一个块：请选择块 {last}，或选择直接透镜",
    },
}


def lens_choice(meta: Mapping[str, Any], focus: Focus) -> dict[str, Any]:
    """The choice between the lenses; one that this run did not record says so."""
    words = LENS_TEXTS[focus.lang]
    exit_name = words["exit"]
    if "exit" not in meta["settings"].get("extras", ()):
        exit_name = words["unrecorded"].format(lens=exit_name)
    return choice(words["lens"], [("direct", words["direct"]), ("exit", exit_name)], focus.lens)
