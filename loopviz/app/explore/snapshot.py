"""A trace as the page shows it: up to some token, seen from some focus, by some panels.

Pure functions of a trace, so a run being made, a finished one and a stored one are drawn by the same code.
Free of Gradio and torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import unescape
from types import ModuleType
from typing import Any

from loopviz.app.controls.about import about_loop, held_in
from loopviz.app.sessions.messages import pack
from loopviz.app.texts import text
from loopviz.figures.labels import changed
from loopviz.figures.theme import tints_of
from loopviz.panels import PANELS, Focus, hero, passing
from loopviz.panels.kit.follower import said
from loopviz.trace import Frame, Trace, changes_of
from loopviz.trace.changes import as_of

Panels = Mapping[str, ModuleType]


def token_row(frame: Frame) -> list[Any]:
    """What the text needs of a frame: piece, loops of each block, stop reason of each, prompt or not, log p of the next,
    the clock (milliseconds since the run began), from which the page says tokens a second, and how many runs shared its pass."""
    blocks = frame["blocks"]
    return [
        frame["text"],
        [block["n_steps"] for block in blocks],
        [block["stop_reason"] for block in blocks],
        1 if frame["phase"] == "prompt" else 0,
        None if frame["next_logprob"] is None else round(frame["next_logprob"], 3),
        None if frame["wall_ms"] is None else round(frame["wall_ms"], 1),
        frame["pass_runs"],
    ]


def until(trace: Trace, tokens: int) -> Trace:
    """The trace as it was when it had `tokens` frames; itself when it has no more."""
    return trace if tokens >= len(trace) else Trace(trace.meta, trace.frames[: max(0, tokens)])


def next_text(trace: Trace) -> str | None:
    """The token chosen and not read yet, if the text goes on."""
    return trace.frames[-1]["next_text"] if trace.frames and trace.frames[-1]["finish"] != "eos" else None


def needs(panel: ModuleType) -> set[str]:
    """The extras a panel must find recorded."""
    return set(getattr(panel, "NEEDS", ()))


def usual(panel: ModuleType) -> bool:
    """Whether a panel is on until a visitor says otherwise: unless it needs extras, or says `USUAL = False` itself."""
    return not needs(panel) and getattr(panel, "USUAL", True)


def recorded(trace: Trace) -> list[str]:
    """The extras recorded in a trace."""
    return list(trace.meta["settings"].get("extras", ()))


def drawable(trace: Trace, panels: Panels) -> Panels:
    """The panels that `trace` has everything for; the page says of the others what is missing."""
    there = set(recorded(trace))
    return {name: panel for name, panel in panels.items() if needs(panel) <= there}


def summaries(trace: Trace, focus: Focus, panels: Panels) -> dict[str, str]:
    """A sentence a panel."""
    return {name: panel.summary(trace, focus) for name, panel in panels.items()}


def alternatives(trace: Trace, focus: Focus) -> dict[str, Any] | None:
    """What might have come after the token held: `{"token", "said", "rows": [[text, log p, came], ...]}`, best
    first.

    By the model's own distribution, the one its choice was made from (before temperature and the like). The token that
    did come is the last row where it is none of the likeliest. None while no token is held, and where that distribution
    is not known.
    """
    at = focus.selected(len(trace))
    if focus.token is None or at is None:
        return None
    frame = trace.frames[at]
    rows = own_next(trace.meta, frame)
    if not rows:
        return None
    if frame["next_id"] not in [token for token, _, _ in rows]:
        rows.append((frame["next_id"], frame["next_logprob"], frame["next_text"]))
    came = frame["next_id"]
    shown = [[piece, None if value is None else round(value, 4), token == came] for token, value, piece in rows]
    return {"token": at, "said": frame["next_text"], "rows": shown}


def own_next(meta: Mapping[str, Any], frame: Frame) -> list[tuple[int, float | None, str]]:
    """The model's own likeliest next tokens after a frame, best first: id, log p, text; none when they are not known.

    A file of version 2 has them where the last step of a lens is the model's output: of the exit lens, and of the direct
    one where no layer follows the block.
    """
    columns = [frame["next_topk_ids"], frame["next_topk_logprobs"], frame["next_topk_texts"]]
    if not columns[0] and frame["blocks"]:
        last = frame["blocks"][-1]
        lens = "direct" if last["layers"][1] == meta["shape"]["layers"] - 1 else "exit"
        columns = [column[-1] if column else [] for column in said(last, lens)]
    return list(zip(*columns, strict=True))


def about(meta: Mapping[str, Any], lang: str) -> str:
    """A run's settings in a line: what its model was held in where that is not float32, how it looped, what it remembered, how it chose its words."""
    words = [*held_in(meta, lang), *about_loop(meta["blocks"], lang)]
    chosen = meta["settings"]
    if chosen.get("do_sample"):
        words.append(text(lang, "about.sampled", t=f"{chosen['temperature']:g}", seed=chosen["seed"]))
    else:
        words.append(text(lang, "about.greedy"))
    if changes := changes_of(meta):
        last = changes[-1]
        key = "about.changed" if len(changes) == 1 else "about.changes"
        words.append(text(lang, key, n=len(changes), t=last["index"], what=unescape(changed(last["loop"], 60))))
    return " · ".join(words)


def title(trace: Trace, lang: str) -> dict[str, Any]:
    """What the page shows over a run, and may change when the loop's settings do: model, settings, colours of loops.

    ``brings``: panels that are off by themselves, and on for this run unless the visitor switched them off.
    """
    meta = trace.meta
    held = as_of(meta, len(trace))
    brings = [name for name, panel in PANELS.items() if getattr(panel, "tells_of", _nothing)(held)]
    return {"model": meta["model"], "about": about(meta, lang), "palette": palette(trace), "brings": brings}


def _nothing(meta: Mapping[str, Any]) -> bool:
    return False


def palette(trace: Trace) -> list[str | None]:
    """The colours of the numbers of loops that `trace`'s tokens took; of several blocks the largest counts."""
    return tints_of(max((block["n_steps"] for block in frame["blocks"]), default=0) for frame in trace.frames)


def picture(trace: Trace, focus: Focus, panels: Panels) -> dict[str, Any]:
    """All that the page shows of `trace`: the part of a snapshot that does not depend on whose it is."""
    meta, panels = trace.meta, drawable(trace, panels)
    return {
        "seq": len(trace),
        "tokens": [token_row(frame) for frame in trace.frames],
        "next": next_text(trace),
        "figures": {name: panel.data(trace, focus) for name, panel in panels.items()},
        "summaries": summaries(trace, focus, panels),
        "alternatives": alternatives(trace, focus),
        "stack": hero.stack(meta),
        "hero": hero.data(trace, focus),
        "explained": hero.explain(trace, focus),
        **title(trace, focus.lang),
        "prompt_tokens": meta["prompt_tokens"],
        "extras": recorded(trace),
        "focus": focus.to_json(),
    }


def fold(trace: Trace, frames: Iterable[Frame], focus: Focus, panels: Panels) -> dict[str, Any]:
    """Append `frames` to `trace`; return what that changes: in each panel's figure (`ops`, by its name), and in what stands above
    them (`hero`), packed."""
    panels, frames = drawable(trace, panels), list(frames)
    ops: dict[str, list[Any]] = {}
    above: list[Any] = []
    for frame in frames:
        with passing(frame is not frames[-1]):
            for name, panel in panels.items():
                if found := panel.patch(trace, frame, focus):
                    ops.setdefault(name, []).extend(found)
            above += hero.patch(trace, frame, focus)
        trace.append(frame)
    return {"ops": {name: pack(found) for name, found in ops.items()}, "hero": pack(above)}
