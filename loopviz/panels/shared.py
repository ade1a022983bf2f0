"""What several panels do alike: follow the selected token, offer a choice, read a lens."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from loopviz.panels import labels
from loopviz.panels.ops import Op, Path, changes

if TYPE_CHECKING:
    from loopviz.panels.focus import Focus
    from loopviz.trace.schema import Trace

Frame = Mapping[str, Any]


@dataclass
class Follower:
    """The edits of a figure that shows the selected token alone; one a panel.

    What the newest token's figure holds is what the next patch starts from, so it is kept, for each trace that lives,
    instead of being worked out twice. Frames must not be edited once they are in a trace.
    """

    _kept: dict[int, tuple[weakref.ref[Trace], Frame, Focus, dict[Path, Any]]] = field(default_factory=dict)

    def patch(
        self, trace: Trace, frame: Frame, focus: Focus, chosen: Callable[[int, Frame | None], dict[Path, Any]]
    ) -> list[Op]:
        """The edits ``frame``, the next one of ``trace``, brings.

        Args:
            trace, frame, focus: as a panel's ``patch`` has them.
            chosen: all that depends on the selection, by path, for so many frames and the selected one (None: none).
        """
        count = len(trace.frames)
        before, after = focus.selected(count), focus.selected(count + 1)
        if before == after and count:
            return []
        kept = self._kept.get(id(trace))
        if kept is not None and before is not None and kept[1] is trace.frames[-1] and kept[2] == focus:
            old = kept[3]
        else:
            old = chosen(count, None if before is None else trace.frames[before])
        new = chosen(count + 1, None if after is None else trace.frames[after] if after < count else frame)
        if after == count:  # a trace has no hash: it is told by its address, as long as it lives
            at, held = id(trace), self._kept
            alive = kept[0] if kept is not None else weakref.ref(trace, lambda _: held.pop(at, None))
            held[at] = alive, frame, focus, new
        return changes(old, new)


def follow(
    trace: Trace, frame: Frame, focus: Focus, chosen: Callable[[int, Frame | None], dict[Path, Any]]
) -> list[Op]:
    """:meth:`Follower.patch` without a memory, for what is cheap to work out twice."""
    return Follower().patch(trace, frame, focus, chosen)


def choice(label: str, options: Iterable[tuple[Any, str]], value: Any) -> dict[str, Any]:
    """One entry of ``layout.meta["choices"]``: a select the page shows; its key there is the Focus field it sets."""
    return {"label": label, "options": [list(option) for option in options], "value": value}


class Said(NamedTuple):
    """The most likely next tokens after every step of one block, best first; no rows when they were not recorded."""

    ids: list[list[int]]
    logprobs: list[list[float | None]]  # nats
    texts: list[list[str]]


_COLUMNS = {
    "direct": ("topk_ids", "topk_logprobs", "topk_texts"),
    "exit": ("exit_topk_ids", "exit_topk_logprobs", "exit_topk_texts"),
}


def said(block: Mapping[str, Any], lens: str) -> Said:
    """What ``block`` would say after each step through ``lens``: "direct" or "exit"."""
    ids, logprobs, texts = _COLUMNS[lens]
    steps = block["steps"]
    return Said(steps[ids], steps[logprobs], steps[texts])


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
