"""An ordinary visitor while others attack: texts equal to the same run alone, and the page at once."""

from __future__ import annotations

import os
import statistics
import threading
import time
from typing import Any

from benchmarks.attacks import calls, far_ends
from benchmarks.attacks.finding import Finding, Options, most
from benchmarks.attacks.hub import GIANT, standing_in
from benchmarks.attacks.left import FOX, SMOLLM2
from benchmarks.attacks.serving import Attacked, attacked
from benchmarks.attacks.visiting import Visitor, pieces, ready, request

PAGE = 0.05  # seconds, the median
SECONDS = 120.0  # that the attacks may go on
PROMPTS = ("Once upon a time, there was", "One sunny day, a boy named Tim", "The little dog ran")
STOPS = 20  # at once, again and again


class Ordinary(threading.Thread):
    """A visitor who runs one prompt after another, and asks for the page, until told to end."""

    def __init__(self, server: Attacked, texts: dict[str, str]) -> None:
        super().__init__(daemon=True)
        self.server, self.texts, self.over = server, texts, threading.Event()
        self.pages: list[float] = []
        self.runs, self.wrong = 0, []

    def run(self) -> None:
        """Until the end."""
        threading.Thread(target=self._ask, daemon=True).start()
        while not self.over.is_set() and self.server.alive:
            for prompt, alone in self.texts.items():
                found = text_of(self.server, prompt)
                self.runs += 1
                if found != alone:
                    self.wrong.append(f"{prompt!r}: {found[-120:]!r} instead of {alone[-120:]!r}")
                if self.over.is_set():
                    break

    def _ask(self) -> None:
        while not self.over.is_set() and self.server.alive:
            answer = request(self.server, "GET", "/")
            self.pages.append(answer.seconds)
            if answer.status != 200:
                self.wrong.append(f"GET /: {answer.status}")
            time.sleep(0.2)


def text_of(server: Attacked, prompt: str) -> str:
    """What a greedy run of the bundled model writes."""
    visitor = Visitor(server)
    seconds, said = visitor.run((prompt, {"max_new_tokens": 32, "block_start": 0, "block_end": 1}), 120)
    rows = pieces(told for _, told in visitor.told)
    bad = next((told.get("text") for _, told in visitor.told if told.get("bad")), "")
    visitor.leave()
    return "".join(rows[place][0] for place in sorted(rows)) or f"nothing after {seconds:.0f} s {said} {bad}"


def row(options: Options) -> Finding:
    with standing_in() as hub, attacked(environ={"HF_ENDPOINT": hub.url, "LOOPVIZ_NAMED_MODELS": GIANT}) as server:
        ready(server, "stories-loop")
        ready(server, SMOLLM2)
        texts = {prompt: text_of(server, prompt) for prompt in PROMPTS}
        quiet = statistics.median(request(server, "GET", "/").seconds for _ in range(20))
        ordinary, until = Ordinary(server, texts), time.monotonic() + SECONDS
        ordinary.start()
        others = [threading.Thread(target=work, args=(server, until, options)) for work in (ends, hostile, stopping)]
        for thread in others:
            thread.start()
        for thread in others:
            thread.join(SECONDS + 60)
        ordinary.over.set()
        ordinary.join(130)
        wrong = list(ordinary.wrong)
        if not server.alive:
            wrong.append(f"the server is gone: {server.ended or server.words()[-300:]}")
    median = statistics.median(ordinary.pages) if ordinary.pages else 0.0
    if median >= PAGE:
        wrong.append(f"page: median {median * 1000:.0f} ms")
    load = os.getloadavg()[0]
    found = f"{ordinary.runs} runs, {ordinary.runs - len(ordinary.wrong)} equal; page: median {median * 1000:.0f} ms, "
    found += f"most {most(ordinary.pages) * 1000:.0f} ms of {len(ordinary.pages)} (undisturbed {quiet * 1000:.0f}; "
    found += f"load of the machine {load:.1f} on {os.cpu_count()} cores)"
    bar = f"texts equal to the same run alone, page median < {PAGE * 1000:.0f} ms"
    return Finding("ordinary use beside far ends, Stops and hostile calls", bar, found, wrong)


# --- what the others do -----------------------------------------------------------------------------------------------


def ends(server: Attacked, until: float, options: Options) -> None:
    """Far ends, one after another."""
    for _, attack in far_ends.everything():
        if time.monotonic() > until or not server.alive:
            return
        attack(server)


def hostile(server: Attacked, until: float, options: Options) -> None:
    """Random calls."""
    seed = options.seed
    while time.monotonic() < until and server.alive:
        seed += 1
        calls.attack(server, 50, seed, [])


def stopping(server: Attacked, until: float, options: Options) -> None:
    """Long prompts, and Stops of all of them at once."""
    values: dict[str, Any] = {
        "model": SMOLLM2,
        "block_start": 10,
        "block_end": 14,
        "loop_count": 4,
        "max_new_tokens": 2,
    }
    while time.monotonic() < until and server.alive:
        visitors = [Visitor(server) for _ in range(STOPS)]
        for visitor in visitors:
            visitor.begin((FOX * 40, values))
        time.sleep(1)
        threads = [threading.Thread(target=visitor.stop) for visitor in visitors]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for visitor in visitors:
            visitor.leave()
        time.sleep(1)
