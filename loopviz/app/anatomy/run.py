"""One token that a visitor looks into: read again by the run's model, and its messages.

The messages: :mod:`loopviz.app.contract`. The page's script: `assets/web/anatomy/main.js`.
"""

from __future__ import annotations

import dataclasses
import secrets
import threading
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from loopviz.app.anatomy.packing import packed
from loopviz.app.controls.about import about_loop
from loopviz.app.sessions.carried import CarriedRun
from loopviz.app.sessions.memory_budget import Keeper
from loopviz.app.sessions.messages import wire
from loopviz.figures.theme import tints_of
from loopviz.panels import hero

if TYPE_CHECKING:
    from loopviz.anatomy.picture import LayerPicture
    from loopviz.engine.engine import Engine, Reading, TokenReading


class Look:
    """A look into one token. Its methods may be called from any thread.

    Args:
        source: the run.
        engine: of its model; `reading` is the run, read again by it.
        position: of the token.
        session: whose it is; compared, never sent.
        ticket: the page's own name for what it asked for; it may end it.
    """

    def __init__(
        self, source: CarriedRun, engine: Engine, reading: Reading, position: int, session: str = "", ticket: str = ""
    ) -> None:
        self.id = secrets.token_urlsafe(16)
        self.source, self.engine, self.reading, self.position = source, engine, reading, position
        self.session, self.ticket = session, ticket
        self.token: TokenReading | None = None
        self.end: str | None = None  # done, stopped, time, memory, error
        self.halted: str | None = None
        self.opened = False
        self.keeper: Keeper | None = None
        self.stop = threading.Event()
        self.finished = threading.Event()

    @property
    def nbytes(self) -> int:
        """Bytes of memory it takes: the run, and all that its model has read of it."""
        return self.source.nbytes + self.reading.nbytes

    def halt(self, end: str = "stopped") -> None:
        """End it, as `end` says, in the middle of a pass too."""
        self.halted = self.halted or end
        self.stop.set()

    def finish(self, end: str) -> None:
        """Nothing computes for it any more."""
        self.end = self.end or end
        self.finished.set()
        if self.keeper is not None:
            self.keeper.settled(self)

    # --- what is told ---------------------------------------------------------------------------------------------

    def shown(self) -> dict[str, Any]:
        """The token, once it has been read."""
        assert self.token is not None
        found = self.token.picture
        return {
            "kind": "token",
            "look": self.id,
            "run": self.source.run,
            "ticket": self.ticket,
            "token": found.position,
            "runs": [list(run) for run in found.runs],
            "reasons": list(found.reasons),
            "steps": [dict(step) for step in found.steps],
            "agreement": found.agreement,
            "tensors": packed(found.tensors),
            "each": found.each,
            "facts": found.facts,
        }


def layer_message(found: LayerPicture) -> dict[str, Any]:
    """A layer in a loop step."""
    return {
        "kind": "layer",
        "layer": found.layer,
        "block": found.block,
        "step": found.step,
        "stages": list(found.stages),
        "tensors": packed(found.tensors),
        "each": found.each,
        "columns": dataclasses.asdict(found.columns),
        "facts": found.facts,
        "frequencies": [float(turn) for turn in found.frequencies],
        "position": found.position,
        "shapes": found.shapes,
    }


def run_message(source: CarriedRun, lang: str, free: bool) -> dict[str, Any]:
    """A run, before any of it is read: its words, its model, where to look first.

    Args:
        free: whether its model may be loaded without asking.
    """
    meta, frames = source.trace.meta, source.trace.frames
    loops = [max((block["n_steps"] for block in frame["blocks"]), default=0) for frame in frames]
    telling = hero.telling(source.trace)
    return {
        "kind": "run",
        "run": source.run,
        "model": source.made_by,
        "called": meta["model"],
        "linked": not free,
        "about": " · ".join(about_loop(meta["blocks"], lang)),
        "layers": meta["shape"]["layers"],
        "blocks": [[*block["layers"], block["max_steps"]] for block in meta["blocks"]],
        "tokens": [
            [frame["text"], many, 1 if frame["phase"] == "prompt" else 0]
            for frame, many in zip(frames, loops, strict=True)
        ],
        "next": frames[-1]["next_text"] if frames else "",
        "palette": tints_of(loops),
        "telling": len(frames) - 1 if telling is None else telling,
    }


def messages(look: Look) -> Generator[str, None, None]:
    """A look's messages: the token when it has been read; nothing where it was ended before."""
    try:
        look.token = look.reading.read(look.position, look.stop)
        fits = look.keeper is None or look.keeper.weigh(look)
        if look.token is None or not fits:
            look.finish("memory" if look.token is not None else look.halted or "stopped")
            return
        look.finish("done")
        yield wire(look.shown())
    except BaseException:
        look.finish(look.halted or "error")
        raise
    finally:
        look.finish(look.halted or "stopped")
