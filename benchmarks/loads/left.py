"""Tabs that are closed while their runs are made: nothing of them is made two seconds later."""

from __future__ import annotations

import argparse
import re
import sys
import time
import urllib.request

from benchmarks.attacks.serving import Attacked
from benchmarks.attacks.visiting import Visitor, is_last
from benchmarks.loads.asked import own
from benchmarks.loads.ran import at_once
from benchmarks.loads.row import Row
from benchmarks.loads.together import PANELS

TOKEN = "load"  # of the server's numbers
GRACE = 2.0  # seconds after which nothing of a closed tab may be made
AT_ONCE = 20  # tabs open at a time: more than a server makes runs, so that some wait
BEGIN = 30.0  # seconds within which as many runs as can are to be made
LONG = 200  # new tokens of a run that is not over when its tab is closed
BATCHES = 40  # at most: a server on which hardly a run is ever made is to be told, not waited for


def gauges(server: Attacked) -> dict[str, float]:
    """The server's numbers, by name."""
    asked = urllib.request.Request(f"{server.url}/loopviz-metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(asked, timeout=30) as answer:
        found = re.findall(r"^(loopviz_\w+) ([\d.e+]+)$", answer.read().decode(), re.M)
    return {name: float(value) for name, value in found}


def in_mid_run(visitor: Visitor) -> bool:
    """Whether its run has written something, and has not ended."""
    told = [said for _, said in [*visitor.told]]  # more may come meanwhile
    ended = any(is_last(said) or said.get("end") for said in told)
    return any(said["kind"] in ("snapshot", "frames") for said in told) and not ended


def batch(server: Attacked, first: int, several: int, panels: str) -> tuple[int, float, float]:
    """Tabs that begin together and are closed together as soon as their runs are made.

    Returns:
        How many were in mid-run as they were closed; and, :data:`GRACE` seconds later, the server's runs that are made, and that wait.
    """
    from loopviz.app.profile import CLASS

    visitors = [Visitor(server, name=f"tab {first + n}") for n in range(several)]
    asks = [own(first + n, LONG, PANELS[panels]) for n in range(several)]
    at_once(
        [
            lambda v=v, ask=ask: v.begin((ask.prompt, dict(ask.values)), ask.wishes)
            for v, ask in zip(visitors, asks, strict=True)
        ]
    )
    wanted, until = min(several, CLASS.runs_at_once), time.monotonic() + BEGIN
    while (begun := sum(map(in_mid_run, visitors))) < wanted and time.monotonic() < until:
        if any(is_last(said) for visitor in visitors for _, said in [*visitor.told]):  # others end soon, too
            break
        time.sleep(0.05)
    closed = time.monotonic()
    at_once([visitor.leave for visitor in visitors])
    time.sleep(max(0.0, closed + GRACE - time.monotonic()))
    now = gauges(server)
    return begun, now["loopviz_running"], now["loopviz_waiting"]


def measure(server: Attacked, asked: argparse.Namespace) -> list[Row]:
    """In batches, until as many as asked for were in mid-run."""
    begun, opened, running, waiting = 0, 0, [], []
    while begun < asked.left:
        if len(running) == BATCHES:
            raise SystemExit(f"only {begun} of {opened} tabs were in mid-run when they were closed")
        several = min(AT_ONCE, max(1, asked.left - begun))
        found, *left = batch(server, opened, several, asked.panels)
        print(
            f"{found} of {several} tabs in mid-run; then {left[0]:.0f} running, {left[1]:.0f} waiting", file=sys.stderr
        )
        begun, opened = begun + found, opened + several
        running.append(left[0])
        waiting.append(left[1])
    what = f"{opened} tabs closed in {len(running)} batches, {begun} of them in mid-run: {GRACE:g} s later, at most"
    return [Row(what, f"{max(running):.0f} running, {max(waiting):.0f} waiting", "0 running", not any(running))]
