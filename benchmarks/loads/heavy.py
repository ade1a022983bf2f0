"""One visitor who asks for the most of everything beside ordinary ones: what these still get, against their fair share.

The share is by visitor and not by click (`loopviz/app/sessions/fair_share.py`: a second of a place that a visitor has had costs her a
second of waiting): beside one more visitor who never rests, n who never rest either keep n parts of n + 1 of what they had.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.attacks.serving import Attacked
from benchmarks.attacks.visiting import Visitor, is_refusal
from benchmarks.loads.asked import (
    Ask,
    all_panels,
    largest_comparisons,
    largest_measurements,
    largest_runs,
    own,
    prompt_of,
)
from benchmarks.loads.ran import PATIENCE, Ran, at_once, run
from benchmarks.loads.row import Row
from benchmarks.loads.together import PANELS

HEAD_START = 5.0  # seconds for which she has been at it when the others begin
BEGUN = 60.0  # seconds until what she asks for is refused, or begins


class Deaf(Visitor):
    """One whose messages arrive and are not read, but for the last of each run: what a browser does elsewhere costs nothing here."""

    _raw = ""

    def hear(self, data: str) -> None:
        """A line of its stream."""
        if data.startswith('{"msg":"process_generating"'):
            self._raw = data
            return
        self.catch_up()
        super().hear(data)

    def catch_up(self) -> None:
        """Read the last message that arrived, after all."""
        raw, self._raw = self._raw, ""
        if raw:
            super().hear(raw)


@dataclass
class Had:
    """What she got: how her runs, comparisons and measurements ended, and the tokens of her runs (prompts are counted)."""

    ends: dict[str, Counter[str]] = field(default_factory=dict)
    tokens: int = 0

    def take(self, page: str, told: Iterable[Mapping[str, Any]]) -> None:
        """One has ended; `told` is what was read of it."""
        end = "cut off"
        for said in told:
            self.tokens += (said.get("last", said.get("total", 0)) or 0) if page == "explore" else 0
            end = "refused" if is_refusal(said) else str(said.get("end") or end)
        self.ends.setdefault(page, Counter())[end] += 1

    def words(self) -> str:
        """In a sentence."""
        pages = {"explore": "runs", "compare": "comparisons", "lab": "measurements"}
        ends = {page: ", ".join(f"{end} {n}" for end, n in found.most_common()) for page, found in self.ends.items()}
        said = "; ".join(f"{pages[page]}: {ends[page]}" for page in pages if page in ends)
        return f"{self.tokens:,} tokens; {said}"


def admitted(server: Attacked, page: str, payloads: Iterable[Any], wishes: Any = None) -> Any:
    """The first of what is asked for that the server begins.

    Raises:
        SystemExit: it refuses them all.
    """
    words = "nothing came"
    for payload in payloads:
        visitor = Visitor(server, page, name="admitted")
        visitor.begin(payload, wishes)
        said = visitor.wait(lambda told: is_refusal(told) or told["kind"] in ("snapshot", "completed"), BEGUN)
        visitor.stop()
        visitor.leave()
        if said is not None and said["kind"] == "snapshot":
            return payload
        words = str(said and said.get("text"))
    raise SystemExit(f"{page}: she is refused all of it: {words}")


class Heavy:
    """The visitor who asks for the most: tabs that run all the time, one that compares, one that measures.

    Args:
        tabs: of runs.
    """

    def __init__(self, server: Attacked, tabs: int) -> None:
        self.server, self.tabs, self.had = server, tabs, Had()
        runs, self.wishes = [(ask.prompt, dict(ask.values)) for ask in largest_runs()], all_panels()
        self.payloads: dict[str, Any] = {"explore": admitted(server, "explore", runs, self.wishes)}
        self.payloads |= {"compare": admitted(server, "compare", largest_comparisons())}
        self.payloads |= {"lab": admitted(server, "lab", largest_measurements())}
        self._over, self._counting = threading.Event(), threading.Lock()
        self._open: list[Deaf] = []
        self._working: list[threading.Thread] = []

    def words(self) -> str:
        """What she asks for."""
        values = self.payloads["explore"][1]
        loops = f"up to {values['max_loop_count']} loops and {values['virtual_layer_count']} slots"
        run = f"{self.tabs} tabs of runs with {loops}, {values['max_new_tokens']:,} tokens, all panels"
        compare, lab = self.payloads["compare"], self.payloads["lab"]["values"]
        cards, new = len(compare["cards"]), compare["shared"]["max_new_tokens"]
        most = compare["cards"][0]["values"]["max_loop_count"]
        return (
            f"{run}; a comparison of {cards} with up to {most} loops and {new:,} tokens; "
            f"perplexity of {lab['limit_tokens']} tokens at {lab['loops']} loops"
        )

    def begin(self) -> None:
        """All tabs press Run, and again when they are done."""
        for page in ("explore",) * self.tabs + ("compare", "lab"):
            visitor = Deaf(self.server, page, name="heavy")
            self._open.append(visitor)
            self._working.append(threading.Thread(target=self._tab, args=(visitor,), daemon=True))
        for thread in self._working:
            thread.start()

    def _tab(self, visitor: Deaf) -> None:
        while not self._over.is_set() and self.server.alive:
            visitor.told.clear()
            visitor.run(self.payloads[visitor.page], PATIENCE, self.wishes if visitor.page == "explore" else None)
            visitor.catch_up()  # of a run that its tab was closed on
            with self._counting:
                self.had.take(visitor.page, [said for _, said in visitor.told])

    def leave(self) -> None:
        """All tabs are closed."""
        self._over.set()
        at_once([visitor.leave for visitor in self._open])
        for thread in self._working:
            thread.join()


def ordinary(server: Attacked, asks: Sequence[Ask], seconds: float) -> tuple[list[list[Ran]], float]:
    """Visitors who run all the time for so many seconds: the runs of each, and when the time was over."""
    visitors = [Visitor(server, name=f"ordinary {n}") for n in range(len(asks))]
    found: list[list[Ran]] = [[] for _ in asks]
    until = time.monotonic() + seconds

    def one(n: int) -> None:
        while time.monotonic() < until:
            prompt = prompt_of(n + len(asks) * len(found[n]))
            found[n].append(run(visitors[n], Ask(prompt, asks[n].values, asks[n].wishes)))

    threads = [threading.Thread(target=one, args=(n,), daemon=True) for n in range(len(asks))]
    for thread in threads:
        thread.start()
    time.sleep(max(0.0, until - time.monotonic()))
    at_once([visitor.leave for visitor in visitors])
    for thread in threads:
        thread.join()
    refused = next((ran.why for rans in found for ran in rans if ran.refused), "")
    if refused:
        raise SystemExit(f"an ordinary visitor was refused: {refused}")
    return found, until


def measure(server: Attacked, asked: argparse.Namespace) -> list[Row]:
    """Ordinary visitors by themselves, then beside her."""
    asks = [own(n, asked.tokens, PANELS[asked.panels]) for n in range(asked.ordinary)]
    heavy = Heavy(server, asked.tabs)
    server.rest(most=30)
    before = ordinary(server, asks, asked.seconds)
    server.rest(most=30)
    heavy.begin()
    time.sleep(HEAD_START)
    beside = ordinary(server, asks, asked.seconds)
    heavy.leave()
    return rows(asked, before, beside, heavy.words(), heavy.had)


def speeds(found: tuple[list[list[Ran]], float], seconds: float) -> list[float]:
    """Tokens/s of each visitor: what was written until the time was over."""
    rans, until = found
    return [sum(ran.tokens_by(until) for ran in some) / seconds for some in rans]


def waits(found: tuple[list[list[Ran]], float]) -> str:
    """Seconds to the first generated token of every run; of one that still waits as many as it has waited."""
    rans, until = found
    seconds = [until - ran.began if ran.first is None else ran.first for some in rans for ran in some]
    still = sum(ran.first is None for some in rans for ran in some)
    return f"median {statistics.median(seconds):.2f} s, worst {max(seconds):.2f} s of {len(seconds)} ({still} still waited)"


def rows(
    asked: argparse.Namespace,
    before: tuple[list[list[Ran]], float],
    beside: tuple[list[list[Ran]], float],
    she: str,
    had: Had,
) -> list[Row]:
    """The table: visitors by themselves, beside her, and what she asked for and got."""
    own, left = speeds(before, asked.seconds), speeds(beside, asked.seconds)
    n = len(own)
    share = n / (n + 1)
    bar = f">= {share:.0%}: {n} of {n + 1} visitors' shares"
    kept, least = sum(left) / sum(own), min(now / then for now, then in zip(left, own, strict=True))
    title = f"{n} visitors who run all the time for {asked.seconds:g} s"
    return [
        Row(f"{title}, by themselves: new tokens/s of all", f"{sum(own):.0f}"),
        Row(
            "the same beside one who asks for the most of everything",
            f"{sum(left):.0f}: {kept:.0%}",
            bar,
            kept >= share,
        ),
        Row("the same, of the one who kept least", f"{least:.0%}", bar, least >= share),
        Row("their first generated token, by themselves", waits(before)),
        Row("their first generated token, beside her", waits(beside)),
        Row("she asked for", she),
        Row("and had until then", had.words()),
    ]
