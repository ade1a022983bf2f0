"""What one word thought, loop by loop: the data of the strip and the ring above a page's panels.

By the law of panels: ``data(trace, focus)`` is plain JSON, and the patches of a run, folded over the data of the empty
trace, give those of the whole one. Words are read through the lens that panels read them through.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from loopviz.figures import labels
from loopviz.figures.edits import Op, Path
from loopviz.panels.kit import follower
from loopviz.panels.loop import would_say
from loopviz.trace.changes import blocks_at

if TYPE_CHECKING:
    from loopviz.panels.kit.focus import Focus
    from loopviz.trace.trace import Trace

Frame = Mapping[str, Any]
SETTLES = ("kl", "cosine")  # the stop reasons that a number and a limit belong to
DIGITS = {"kl": 3, "cosine": 7}  # said of that number: of a cosine as many as tell it from one
SURE, UNSURE = 0.995, 0.005  # above and below, a whole per cent would say too much
_FOLLOWER = follower.Follower()
_EMPTY: dict[str, Any] = {
    "token": None,  # the position it is about; None: nothing is read yet
    "lens": "same",  # through which the words are read: "direct", "exit", "same" (both are one)
    "silent": "",  # why there are no words; "" when there are some
    "steps": [],  # the loop steps of the cells where not all of 1..n have one; 0: no loop ran
    "says": [],  # by cell the likeliest next piece; None: that of the cell before
    "p": [],  # its probability, whole per cent; 0: under one, 100: over 99 (certain is said as that, too)
    "moved": [],  # by cell how much the step changed: KL in nats, or 1 - cosine
    "measure": "kl",  # which of the two
    "why": "",  # the stop reason
    "settled": None,  # the number that was compared with the limit last, as the criterion has it: KL, or the cosine
    "limit": None,  # the limit; None where none was looked at
    "ran": [],  # by cell the layers that ran, where a chooser of layers was asked
    "next": "",  # the piece that came next
}


def whole_percent(p: float) -> int:
    """A probability as a cell and a sentence say it: 0 is under 1 %, 100 over 99 %, so neither is said of what is not sure."""
    return 0 if p < UNSURE else 100 if p >= SURE else round(100 * p)


def stack(meta: Mapping[str, Any]) -> dict[str, Any]:
    """What a word goes through: the number of layers, and the first and last of every looped block."""
    return {"layers": meta["shape"]["layers"], "blocks": [list(block["layers"]) for block in meta["blocks"]]}


def measure_of(spec: Mapping[str, Any], reason: str) -> str:
    """What decides when a word stops, or would: "kl" or "cosine"."""
    if reason in SETTLES:
        return reason
    return "cosine" if spec["criterion"] == "cosine" else "kl"


def limit_of(spec: Mapping[str, Any], measure: str) -> float | None:
    """The limit that a step's number is compared with; None under a fixed count, or a rule that somebody registered."""
    looks = {"kl": ("kl", "either", "both"), "cosine": ("cosine", "either", "both")}[measure]
    if spec["strategy"] != "dynamic_stop" or spec["criterion"] not in looks:
        return None
    return float(spec[f"{measure}_threshold"])


def read_together(meta: Mapping[str, Any], frames: Sequence[Frame], frame: Frame) -> Sequence[Frame]:
    """The tokens of the pass that read ``frame``, itself the last of them; none while others of the pass are to come.

    A criterion goes by the mean of a pass: a prompt's tokens share their loops.

    Args:
        frames: those of the positions before it, at least.
    """
    at, size = frame["index"], frame["pass_tokens"]
    if size <= 1:
        return [frame]
    return [*frames[max(0, at + 1 - size) : at], frame] if at == meta["prompt_tokens"] - 1 else []


def settled_at(passed: Sequence[Frame], block: int, measure: str) -> float | None:
    """The mean over a pass (:func:`read_together`) of the last step's number; None where it is not known."""
    columns = [frame["blocks"][block]["steps"][measure] for frame in passed]
    last = [column[-1] if column else None for column in columns]
    known = [value for value in last if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(last) else None


def _moved(value: float | None, measure: str) -> float | None:
    return labels.sig(None if value is None else 1 - value if measure == "cosine" else value, 2)


def _cells(said: follower.Said, steps: Sequence[int]) -> dict[str, list[Any]]:
    """The pieces and their probabilities of these steps (0: the only row)."""
    rows = [max(step, 1) - 1 for step in steps]
    ids = [said.ids[row][:1] for row in rows]
    pieces = [said.texts[row][0] if said.texts[row] else "" for row in rows]
    says = [
        None if i and ids[i] and ids[i] == ids[i - 1] else piece
        for i, piece in enumerate(pieces)
    ]  # fmt: skip
    logs = [said.logprobs[row][0] if said.logprobs[row] else None for row in rows]
    return {"says": says, "p": [None if log is None else whole_percent(math.exp(log)) for log in logs]}


def _looped(trace: Trace, frame: Frame, focus: Focus) -> dict[str, Any]:
    """All there is to say of a token in the block in focus."""
    block, meta = frame["blocks"][focus.block], trace.meta
    spec, count = blocks_at(meta, frame["index"])[focus.block], block["n_steps"]
    measure, lens = measure_of(spec, block["stop_reason"]), follower.lens_of(meta, focus)
    silent = follower.silent(meta, frame, focus, would_say.TEXTS[focus.lang]["not_recorded"]) if count else ""
    said = follower.chosen_by(frame, focus.block, lens)
    steps = [0] if not count else list(range(1, count + 1)) if silent else would_say.shown_steps(said.ids)
    column = block["steps"][measure]
    passed = read_together(meta, trace.frames, frame)
    return {
        "lens": lens,
        "silent": silent,
        "steps": [] if steps == list(range(1, count + 1)) else steps,
        **({} if silent else _cells(said, steps)),
        "moved": [_moved(column[step - 1], measure) if column and step else None for step in steps],
        "measure": measure,
        "why": block["stop_reason"],
        "settled": labels.sig(settled_at(passed, focus.block, measure), DIGITS[measure]) if count and passed else None,
        "limit": labels.sig(limit_of(spec, measure), DIGITS[measure]),
        "ran": [block["layers_run"][step - 1] for step in steps if step] if block["layers_run"] else [],
    }


def _chosen(trace: Trace, frame: Frame | None, focus: Focus) -> dict[Path, Any]:
    """All of the data, by path."""
    shown = dict(_EMPTY)
    if frame is not None:
        shown |= {"token": frame["index"], "next": frame["next_text"]}
        if focus.block < len(frame["blocks"]):
            shown |= _looped(trace, frame, focus)
        elif frame["blocks"]:
            shown["silent"] = labels.missing_block(trace.meta, focus.block, focus.lang) or ""
        else:
            shown |= {"steps": [0], **_cells(follower.chosen_by(frame, 0, "same"), [0]), "moved": [None]}
    return {(key,): value for key, value in shown.items()}


def data(trace: Trace, focus: Focus) -> dict[str, Any]:
    """What the selected token thought after each loop of ``focus.block``, and why it stopped: see the module's ``_EMPTY``."""
    at = focus.selected(len(trace))
    return {path[0]: value for path, value in _chosen(trace, None if at is None else trace.frames[at], focus).items()}  # type: ignore[misc]  # every path is a key


def patch(trace: Trace, frame: Frame, focus: Focus) -> list[Op]:
    """The edits ``frame`` brings: its own guesses, when the newest token is followed."""
    return _FOLLOWER.patch(trace, frame, focus, lambda _, chosen: _chosen(trace, chosen, focus))
