"""A visitor's run, and what it came to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.attacks.serving import Attacked
from benchmarks.attacks.visiting import Visitor, is_last, pieces
from benchmarks.loads.asked import Ask

PATIENCE = 600.0  # seconds that a run may take, its wait counted


@dataclass
class Ran:
    """What one run came to. Seconds count since its visitor pressed Run.

    Attributes:
        began: by `time.monotonic`.
        first: until the first token that it wrote was there; None: none came.
        end: until nothing came any more; None: it was still at it, or did not begin.
        made: tokens it had written, and when.
        text: prompt and all that was written.
        why: it ended, in the server's word; or why it was not done.
        refused: whether it was not done.
    """

    began: float
    first: float | None = None
    end: float | None = None
    made: list[tuple[float, int]] = field(default_factory=list)
    text: str = ""
    why: str = ""
    refused: bool = False

    @property
    def tokens(self) -> int:
        """That it wrote."""
        return self.made[-1][1] if self.made else 0

    def tokens_by(self, when: float) -> int:
        """That it had written by then."""
        return max((made for at, made in self.made if self.began + at <= when), default=0)


def read(began: float, told: Iterable[tuple[float, Mapping[str, Any]]]) -> Ran:
    """A run by its messages and when they came.

    The page shows a token as it is chosen (`next`), before the model reads it: the first one that a run writes is there with the
    message that has all of the prompt.
    """
    ran, shown, prompt, rest = Ran(began), [], 0, None
    for when, said in told:
        if said["kind"] in ("snapshot", "frames"):
            shown.append(said)
            prompt, rest = said.get("prompt_tokens", prompt), said["next"]
            read_tokens = said.get("last", said.get("total", 0))
            made = read_tokens - prompt + (rest is not None) if read_tokens >= prompt else 0
            ran.made.append((when - began, made))
            if made > 0 and ran.first is None:
                ran.first = when - began
            ran.why = said["end"] or ran.why
        elif said.get("bad") or (is_last(said) and said["failed"]):
            ran.refused, ran.why = True, ran.why or str(said.get("text"))
        if is_last(said) and shown:
            ran.end = when - began
    rows = pieces(shown)
    ran.text = "".join(rows[place][0] for place in sorted(rows)) + (rest or "")
    return ran


def run(visitor: Visitor, ask: Ask, patience: float = PATIENCE) -> Ran:
    """A run, from its click to its end; as far as it came, when its tab is closed before that."""
    visitor.told.clear()
    began = time.monotonic()
    _, said = visitor.run((ask.prompt, dict(ask.values)), patience, ask.wishes)
    ran = read(began, list(visitor.told))
    if said is not None and said["kind"] == "refused":
        ran.refused, ran.why = True, f"HTTP {said['status']}: {said['text'][:200]}"
    return ran


def check(ran: Ran, ask: Ask) -> Ran:
    """The same.

    Raises:
        SystemExit: the server did not make the run: nothing can be told of it.
    """
    if ran.refused or not ran.made:
        raise SystemExit(f"{ask.prompt!r}, {dict(ask.values)}: {ran.why or 'nothing came'}")
    return ran


def alone(server: Attacked, ask: Ask, name: str) -> Ran:
    """A run of a visitor who leaves after it."""
    visitor = Visitor(server, name=name)
    try:
        return check(run(visitor, ask), ask)
    finally:
        visitor.leave()


def at_once(works: Sequence[Callable[[], None]]) -> None:
    """Do them in threads of their own; returns when all are done."""
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
