"""A class that begins together: every text as alone, how long each waits, what all get, and whether a page opens meanwhile."""

from __future__ import annotations

import argparse
import html
import re
import statistics
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from benchmarks.attacks.serving import Attacked
from benchmarks.attacks.visiting import Visitor, request
from benchmarks.loads.asked import Ask, all_panels, own
from benchmarks.loads.ran import Ran, alone, at_once, check, run
from benchmarks.loads.row import Row, at_least, below, worst_over_mean

RATIO, FIRST, WORST, UNEVEN, OPENS = 3.0, 2.0, 5.0, 2.0, 1.0  # the bars
CONNECTIONS = 6  # at a time, as browsers have them
PAUSE = 1.0  # seconds between two openings of the page
PANELS: Mapping[str, Mapping[str, object]] = {"opening": {}, "none": {"panels": [], "on": []}, "all": all_panels()}
_NAMED = re.compile(r"""<(?:link|script|img)\b[^>]*?\b(?:href|src)=["']([^"']+)["']""")


def named(document: str) -> list[str]:
    """The addresses of this server that a page's document has a browser fetch, each once."""
    found = (html.unescape(place) for place in _NAMED.findall(document))
    own = (place.removeprefix(".") for place in found if not re.match(r"[a-z]+:|//|#", place))
    return [*dict.fromkeys(place if place.startswith("/") else f"/{place}" for place in own)]


def opening(server: Attacked) -> float:
    """Seconds until the document of a page, and all that it names, is here."""
    began = time.monotonic()
    document = request(server, "GET", "/")
    if document.status != 200:
        raise SystemExit(f"GET /: {document.status} {document.text[:200]}")
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        list(pool.map(lambda place: request(server, "GET", place), named(document.text)))
    return time.monotonic() - began


def measure(server: Attacked, asked: argparse.Namespace) -> list[Row]:
    """All visitors together, then the same runs one after the other."""
    asks = [own(n, asked.tokens, PANELS[asked.panels]) for n in range(asked.visitors)]
    opened: list[float] = []
    over = threading.Event()

    def onlooker() -> None:
        while True:
            opened.append(opening(server))
            if over.wait(PAUSE):
                return

    watcher = threading.Thread(target=onlooker, daemon=True)
    watcher.start()
    found = together(server, asks, asked.within)
    over.set()
    watcher.join()
    server.rest(most=30)
    by_itself = [alone(server, ask, f"alone {n}") for n, ask in enumerate(asks)]
    return rows(asked, found, by_itself, opened)


def together(server: Attacked, asks: Sequence[Ask], within: float) -> list[Ran]:
    """Each of a visitor of its own; all press Run within so many seconds, and leave when all are done."""
    visitors = [Visitor(server, name=f"pupil {n}") for n in range(len(asks))]
    found: dict[int, Ran] = {}

    def pupil(n: int) -> None:
        time.sleep(within * n / len(asks))
        found[n] = run(visitors[n], asks[n])

    at_once([lambda n=n: pupil(n) for n in range(len(asks))])
    for visitor in visitors:
        visitor.leave()
    return [check(found[n], ask) for n, ask in enumerate(asks)]


def rows(
    asked: argparse.Namespace, found: Sequence[Ran], by_itself: Sequence[Ran], opened: Sequence[float]
) -> list[Row]:
    """The table of a class.

    Args:
        found, by_itself: of each visitor the run among all, and the same alone.
        opened: seconds that the page took to open meanwhile.
    """
    many = f"{len(found)} visitors, each with an own prompt and settings, {asked.tokens} new tokens, within {asked.within:g} s"
    others = [n for n, (ran, one) in enumerate(zip(found, by_itself, strict=True)) if ran.text != one.text]
    for n in others:
        print(f"visitor {n}: {found[n].text!r} instead of {by_itself[n].text!r}", file=sys.stderr)
    equal = len(found) - len(others)
    began, ended = min(ran.began for ran in found), max(ran.began + (ran.end or 0.0) for ran in found)
    total = sum(ran.tokens for ran in found) / (ended - began)
    one = sum(ran.tokens for ran in by_itself) / sum(ran.end or 0.0 for ran in by_itself)
    speeds = f"{total:.0f} / {one:.0f} tokens/s"
    waits = [(ran.end or 0.0) if ran.first is None else ran.first for ran in found]  # it may write nothing at all
    ends = [ran.end or 0.0 for ran in found]
    first = "the same: time to the first generated token"
    return [
        Row(f"{many}: texts", f"{equal} of {len(found)} equal to the same run alone", "all", not others),
        at_least(
            "the same: new tokens/s of all over one visitor's (the same runs one after the other)",
            total / one,
            RATIO,
            speeds,
        ),
        below(f"{first}, median", statistics.median(waits), FIRST),
        below(f"{first}, worst", max(waits), WORST),
        worst_over_mean(f"{first}, worst over mean", waits, UNEVEN),
        worst_over_mean("the same: until the run ends, worst over mean", ends, UNEVEN),
        below(
            "a page (document, styles and scripts) opens meanwhile, median",
            statistics.median(opened),
            OPENS,
            f" (worst {max(opened):.2f} s of {len(opened)})",
        ),
    ]
