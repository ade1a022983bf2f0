"""What several panels do alike: follow the selected token, offer a choice, read a lens."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import plotly.graph_objects as go

from loopviz.figures import labels
from loopviz.figures.edits import Op, Path, changes, put
from loopviz.panels.kit.running import Running
from loopviz.trace.changes import as_of, changed_at
from loopviz.trace.trace import Trace

if TYPE_CHECKING:
    from loopviz.panels.kit.focus import Focus

LEAST_ROOM = 4  # loop steps an axis has room for from the start
Frame = Mapping[str, Any]
Patch = Callable[[Trace, Frame, "Focus"], list[Op]]


_PASSING: ContextVar[bool] = ContextVar("passing", default=False)


@contextmanager
def passing(on: bool = True) -> Iterator[None]:
    """While this holds, another frame follows at once: a patch may leave to that frame's what it would only undo.

    For frames whose edits are sent together. The last of them must be patched without it; then folding all their edits
    gives the figure of them all.
    """
    before = _PASSING.set(on)
    try:
        yield
    finally:
        _PASSING.reset(before)


class _Kept(NamedTuple):
    """What a trace's figure holds of the values that follow the selection."""

    trace: weakref.ref[Trace]
    frame: Frame  # the newest patched
    focus: Focus
    values: dict[Path, Any]
    owed: bool  # they are those of an earlier frame: the edits since then were left to the next


@dataclass
class Follower:
    """The edits of a figure, or the part of one, that follows the selected token; one a panel.

    What the newest token's figure holds is what the next patch starts from, so it is kept, for each trace that lives,
    instead of being worked out twice. Frames must not be edited once they are in a trace.
    """

    _kept: dict[int, _Kept] = field(default_factory=dict)

    def patch(
        self,
        trace: Trace,
        frame: Frame,
        focus: Focus,
        chosen: Callable[[int, Frame | None], dict[Path, Any]],
        always: bool = False,
    ) -> list[Op]:
        """The edits ``frame``, the next one of ``trace``, brings; none while :func:`passing`, and those with the next.

        Args:
            trace, frame, focus: as a panel's ``patch`` has them.
            chosen: all that depends on the selection, by path, for so many frames and the selected one (None: none).
            always: it depends on how many frames there are as well, so a selection that stays does not settle it.
        """
        count = len(trace.frames)
        before, after = focus.selected(count), focus.selected(count + 1)
        kept = self._kept.get(id(trace))
        if kept is not None and (not count or kept.frame is not trace.frames[-1] or kept.focus != focus):
            kept = None
        if before == after and count and not always and not (kept and kept.owed):
            return []
        if kept is not None and (kept.owed or before is not None):
            old = kept.values
        else:
            old = chosen(count, None if before is None else trace.frames[before])
        if _PASSING.get():
            self._keep(trace, frame, focus, old, owed=True)
            return []
        new = chosen(count + 1, None if after is None else trace.frames[after] if after < count else frame)
        if after == count:
            self._keep(trace, frame, focus, new)
        else:
            self._kept.pop(id(trace), None)
        return changes(old, new)

    def _keep(self, trace: Trace, frame: Frame, focus: Focus, values: dict[Path, Any], owed: bool = False) -> None:
        at, held = id(trace), self._kept  # a trace has no hash: it is told by its address, as long as it lives
        earlier = held.get(at)
        alive = earlier.trace if earlier is not None else weakref.ref(trace, lambda _: held.pop(at, None))
        held[at] = _Kept(alive, frame, focus, values, owed)


def _reach(most: int, meta: Mapping[str, Any], block: int, frame: Frame) -> int:
    return max(most, frame["blocks"][block]["n_steps"]) if block < len(frame["blocks"]) else most


REACHED: Running[int] = Running(lambda meta, block: 0, _reach)  # the most steps any token so far took


def room(reached: int, allowed: int) -> int:
    """Steps an axis has room for: 4, 8, 16, 32 and so on, the least that holds what was ``reached``; no more than ``allowed``.

    By what happened, not by what might have: 3 steps on an axis to 32 are all but invisible.
    """
    steps = LEAST_ROOM
    while steps < reached:
        steps *= 2
    return max(1, reached, min(steps, allowed))


def settled(trace: Trace, focus: Focus, coming: Frame | None = None) -> dict[str, Any]:
    """The meta to draw ``trace`` from: settings that changed during the run are those the selected token was read under.

    The block in focus also has ``room``: see :func:`room`.

    Args:
        trace, focus: as a panel's ``data`` has them.
        coming: the frame about to come, for a ``patch``.
    """
    tokens = len(trace.frames) + (coming is not None)
    meta = as_of(trace.meta, tokens, focus.selected(tokens))
    return {**meta, "blocks": [_roomy(spec, i, trace, focus, coming) for i, spec in enumerate(meta["blocks"])]}


def _roomy(spec: Mapping[str, Any], i: int, trace: Trace, focus: Focus, coming: Frame | None) -> Mapping[str, Any]:
    if i != focus.block:
        return spec
    reached = REACHED.over(trace, i) if coming is None else REACHED.after(trace, i, coming)
    return {**spec, "room": room(reached, spec["max_steps"])}


def _outgrown(trace: Trace, frame: Frame, focus: Focus) -> bool:
    """Whether ``frame``, the next one of ``trace``, needs more room than there is."""
    if focus.block >= len(trace.meta["blocks"]):
        return False
    before, after = settled(trace, focus), settled(trace, focus, frame)
    return before["blocks"][focus.block]["room"] != after["blocks"][focus.block]["room"]


def redrawn(data: Callable[[Trace, Focus], dict[str, Any]], layout_only: bool = False) -> Callable[[Patch], Patch]:
    """Of a ``patch`` that knows nothing of settings that change during a run, nor of axes that grow: a frame that brings
    either draws the figure anew.

    Args:
        data: the panel's ``data``.
        layout_only: what is drawn already stays as it is; only the layout is another one.
    """

    def of(patch: Patch) -> Patch:
        @functools.wraps(patch)
        def patched(trace: Trace, frame: Frame, focus: Focus) -> list[Op]:
            if not changed_at(trace.meta, frame["index"]) and not _outgrown(trace, frame, focus):
                return patch(trace, frame, focus)
            shown = data(Trace(trace.meta, [*trace.frames, frame]), focus)  # type: ignore[list-item]  # a Frame, seen as a mapping
            layout = put(("layout",), shown["layout"])
            if not layout_only:
                return [put(("data",), shown["data"]), layout]
            with passing(False):  # what is left to a later frame would start from another layout
                return [*(op for op in patch(trace, frame, focus) if op["path"][0] == "data"), layout]

        return patched

    return of


def checked(data: Callable[[Trace, Focus], dict[str, Any]]) -> Callable[[Trace, Focus], go.Figure]:
    """A panel's ``figure``: its ``data`` as a figure, every value checked by plotly."""

    def figure(trace: Trace, focus: Focus) -> go.Figure:
        return go.Figure(data(trace, focus))

    figure.__module__, figure.__doc__ = data.__module__, data.__doc__
    return figure


def unread(tokens: int, focus: Focus, no_data: str) -> str:
    """Why no token is selected: there is none yet (``no_data``), or not this one."""
    return no_data if not tokens else labels.COMMON[focus.lang]["not_yet"].format(token=focus.token)


def contraction(block: Mapping[str, Any]) -> list[float | None]:
    """``|Delta_{r+1}| / |Delta_r|``, entry ``r - 1``: how much shorter each step is than the one before.

    From ``|Delta_r| = (|Delta_r| / |s_r|) |s_r|``, which is recorded; None where it is undefined.
    """
    steps = block["steps"]
    sizes = [
        None if share is None or norm is None else share * norm
        for share, norm in zip(steps["rel_delta"], steps["norm"], strict=True)
    ]
    return [None if old is None or new is None or old <= 0 else new / old for old, new in pairwise(sizes)]


def asks(meta: Mapping[str, Any], focus: Focus, select: dict[str, str], **choices: dict[str, Any]) -> dict[str, Any]:
    """``layout.meta`` of a panel of one block: what a click selects, its own choices, and the block where there are several."""
    if len(meta["blocks"]) > 1:
        options = [(i, labels.block_label(spec, i, focus.lang)) for i, spec in enumerate(meta["blocks"])]
        choices = {"block": choice(labels.COMMON[focus.lang]["choose_block"], options, focus.block), **choices}
    return {"select": select, **({"choices": choices} if choices else {})}


def choice(label: str, options: Iterable[tuple[Any, str]], value: Any) -> dict[str, Any]:
    """One entry of ``layout.meta["choices"]``: a select the page shows; its key there is the Focus field it sets."""
    return {"label": label, "options": [list(option) for option in options], "value": value}


def slider(label: str, low: float, high: float, step: float, value: float) -> dict[str, Any]:
    """One entry of ``layout.meta["choices"]``: a slider the page shows; its key there is the Focus field it sets."""
    return {"label": label, "range": [low, high, step], "value": value}


class Said(NamedTuple):
    """The most likely next tokens after every step of one block, best first; no rows when they were not recorded."""

    ids: list[list[int]]
    logprobs: list[list[float | None]]  # nats
    texts: list[list[str]]


_COLUMNS = {
    "direct": ("topk_ids", "topk_logprobs", "topk_texts"),
    "exit": ("exit_topk_ids", "exit_topk_logprobs", "exit_topk_texts"),
}
_COLUMNS["same"] = _COLUMNS["direct"]


def said(block: Mapping[str, Any], lens: str) -> Said:
    """What ``block`` would say after each step through ``lens``, one of those :func:`lens_of` returns."""
    ids, logprobs, texts = _COLUMNS[lens]
    steps = block["steps"]
    return Said(steps[ids], steps[logprobs], steps[texts])


def chosen_by(frame: Mapping[str, Any], block: int, lens: str) -> Said:
    """What ``frame`` would have chosen after every step; a token that skipped the block chose once, as the model did."""
    if block < len(frame["blocks"]) and frame["blocks"][block]["n_steps"]:
        return said(frame["blocks"][block], lens)
    if frame["next_topk_ids"]:
        return Said([frame["next_topk_ids"]], [frame["next_topk_logprobs"]], [frame["next_topk_texts"]])
    return Said([[frame["next_id"]]], [[frame["next_logprob"]]], [[frame["next_text"]]])


def lens_of(meta: Mapping[str, Any], focus: Focus) -> str:
    """The lens through which the block in focus is read: "direct", "exit", or "same" where both are one.

    They are one where no layer follows the block. Else it is the one chosen; when none was, the exit lens, which is what
    the model would really say, if this run recorded it for this block.
    """
    last = len(meta["blocks"]) - 1
    if focus.block == last and meta["blocks"][last]["layers"][1] == meta["shape"]["layers"] - 1:
        return "same"
    if focus.lens is not None:
        return focus.lens
    return "exit" if focus.block == last and _exit_recorded(meta) else "direct"


def _exit_recorded(meta: Mapping[str, Any]) -> bool:
    return "exit" in meta["settings"].get("extras", ())


def lens_name(meta: Mapping[str, Any], focus: Focus) -> str:
    """What the lens in use is called, in a few words."""
    return LENS_TEXTS[focus.lang][lens_of(meta, focus)]


def skipped(block: Mapping[str, Any], focus: Focus) -> str:
    """What to say of a token for which a chooser of layers let no step of the block run; "" of others."""
    return "" if block["n_steps"] else labels.COMMON[focus.lang]["skipped"]


def silent(meta: Mapping[str, Any], frame: Frame, focus: Focus, not_recorded: str) -> str:
    """Why the selected block of ``frame`` has no words to show through the lens in use; "" when it has some.

    ``not_recorded``: what to say when the exit lens, and only that, was not recorded.
    """
    block, lens = frame["blocks"][focus.block], lens_of(meta, focus)
    if any(said(block, lens).ids) or not block["n_steps"]:
        return skipped(block, focus)
    if lens != "exit" or not any(said(block, "direct").ids):
        return labels.COMMON[focus.lang]["not_recorded"]
    last = any(said(frame["blocks"][-1], "exit").ids)  # recorded, but an earlier block's exit would run later blocks
    return LENS_TEXTS[focus.lang]["last_block"].format(last=len(frame["blocks"]) - 1) if last else not_recorded


LENS_TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "lens": "lens",
        "direct": "direct lens",
        "exit": "exit lens",
        "same": "the model's own words",
        "choose_direct": "straight from the state (direct lens)",
        "choose_exit": "as the model would really say it (exit lens)",
        "choose_same": "as the model would really say it (no layer follows the loop)",
        "unrecorded": "{lens}: not recorded",
        "rerun": "Run again with the exit lens",
        "last_block": "the exit lens reads the last block alone: choose block {last}, or the direct lens",
    },
    "zh": {
        "lens": "透镜",
        "direct": "直接透镜",
        "exit": "出口透镜",
        "same": "模型自己的话",
        "choose_direct": "直接从状态读出（直接透镜）",
        "choose_exit": "模型真正会说的（出口透镜）",
        "choose_same": "模型真正会说的（循环之后没有其他层）",
        "unrecorded": "{lens}：未记录",
        "rerun": "用出口透镜重新运行",
        "last_block": "出口透镜只读最后一个块：请选择块 {last}，或选择直接透镜",
    },
}


def lens_asks(meta: Mapping[str, Any], focus: Focus) -> dict[str, Any]:
    """``layout.meta`` of a panel read through a lens: the choice between them, and what mends one that was not recorded.

    Where both are one there is nothing to choose, and that is what the choice says. One that this run did not record
    says so, and a button of the panel runs again with it.
    """
    words = LENS_TEXTS[focus.lang]
    lens = lens_of(meta, focus) if labels.missing_block(dict(meta), focus.block, focus.lang) is None else focus.lens
    if lens == "same":
        shown = choice(words["lens"], [(focus.lens, words["choose_same"])], focus.lens)
        return asks(meta, focus, {"step": "y"}, lens=shown)
    exit_name = words["choose_exit"]
    if not _exit_recorded(meta):
        exit_name = words["unrecorded"].format(lens=exit_name)
    options = [("direct", words["choose_direct"]), ("exit", exit_name)]
    asked = asks(meta, focus, {"step": "y"}, lens=choice(words["lens"], options, lens or "direct"))
    if lens == "exit" and not _exit_recorded(meta):
        asked["act"] = {"label": words["rerun"]}  # looked through it, the next run records it
    return asked
