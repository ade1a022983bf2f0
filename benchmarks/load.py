"""Many visitors at once, on a server of their own over loopback: how long each waits, and whether what is left ends.

    python benchmarks/load.py                            all four; some ten minutes on two cores
    python benchmarks/load.py --parts class heavy        these
    python benchmarks/load.py --visitors 8 --runs 60     fewer

`class`: visitors who each start a run of stories-loop within three seconds, against one who is alone. `heavy`: ordinary visitors,
who run now and then, with and without one beside them who has ten tabs that run all the time. `left`: a hundred tabs closed while
theirs runs, or waits. `memory`: many runs, one after the other. The server is of the profile `class`, one thread a product; nobody has
a browser, so that all of the machine is the server's and these visitors'. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.attacks.serving import MIB, Attacked, attacked
from benchmarks.attacks.visiting import Visitor, is_last, ready, request
from scripts.processors import processor

MODEL = "stories-loop"
TOKEN = "load"  # of the server's numbers
SUBJECTS = ("dog", "robot", "girl", "boat", "bird", "king", "tree", "fish", "boy", "cat")
ORDINARY, TABS = 5, 10
WITHIN = 3.0  # seconds within which all of a class press Run
GRACE = 2.0  # seconds after which nothing of a closed tab may be made
LEFT, AT_ONCE = 100, 50  # tabs that are closed; open at a time
LONG = {"model": MODEL, "max_new_tokens": 200, "loop_count": 32}  # a run that is not over when its tab is closed
PATIENCE = 600.0


@dataclass
class Ran:
    """What one run came to: seconds to its first token and its end since Run was pressed, and its tokens. None: it did not come."""

    first: float | None
    end: float | None
    tokens: int


def run(visitor: Visitor, prompt: str, tokens: int, panels: Sequence[str] = ()) -> Ran:
    """A run, from its click to its end."""
    began = time.monotonic()
    values = {"model": MODEL, "max_new_tokens": tokens}
    visitor.run((prompt, values), PATIENCE, {"panels": [*panels]})
    told = [(when - began, said) for when, said in visitor.told if when >= began]
    shown = [(when, said) for when, said in told if said["kind"] in ("snapshot", "frames")]
    ended = next((when for when, said in told if is_last(said)), None)
    made = max((said.get("total") or said.get("last") or 0 for _, said in shown), default=0)
    return Ran(shown[0][0] if shown else None, ended if shown else None, made)


def at_once(works: Sequence[Callable[[], None]]) -> None:
    """Do them in threads of their own; returns when all are done."""
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def prompt_of(n: int) -> str:
    """No two visitors ask the same."""
    return f"Once upon a time there was a {('little', 'big', 'sad', 'happy')[n // len(SUBJECTS) % 4]} {SUBJECTS[n % len(SUBJECTS)]}"


def gauges(server: Attacked) -> dict[str, float]:
    """The server's numbers, by name."""
    asked = urllib.request.Request(f"{server.url}/loopviz-metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(asked, timeout=30) as answer:
        found = re.findall(r"^(loopviz_\w+) ([\d.e+]+)$", answer.read().decode(), re.M)
    return {name: float(value) for name, value in found}


def seconds(values: Sequence[float | None], tried: int) -> str:
    """Median and worst of what came, and how many did not."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return "none came"
    missing = f", {tried - len(known)} of {tried} never" if len(known) < tried else ""
    return f"median {statistics.median(known):.1f} s, worst {known[-1]:.1f} s{missing}"


def of_class(server: Attacked, asked: argparse.Namespace) -> list[tuple[str, str]]:
    """A class that begins together."""
    alone = [run(Visitor(server, name=f"alone {n}"), prompt_of(n), asked.tokens) for n in range(4)][1:]
    one = statistics.median(ran.tokens / ran.end for ran in alone if ran.end)
    visitors = [Visitor(server, name=f"pupil {n}") for n in range(asked.visitors)]
    found: list[Ran] = []
    opened: list[float] = []
    over = threading.Event()

    def pupil(n: int) -> None:
        time.sleep(WITHIN * n / len(visitors))
        found.append(run(visitors[n], prompt_of(n), asked.tokens))

    def onlooker() -> None:
        while not over.wait(0.5):
            opened.append(request(server, "GET", "/").seconds)

    watcher = threading.Thread(target=onlooker, daemon=True)
    watcher.start()
    began = time.monotonic()
    at_once([lambda n=n: pupil(n) for n in range(len(visitors))])
    whole = time.monotonic() - began
    over.set()
    watcher.join()
    for visitor in visitors:
        visitor.leave()
    total = sum(ran.tokens for ran in found) / whole
    means = statistics.fmean(ran.end for ran in found if ran.end)
    most = max(ran.end for ran in found if ran.end)
    title = f"{asked.visitors} visitors, {asked.tokens} new tokens each, within {WITHIN:g} s"
    return [
        (f"{title}: first token", seconds([ran.first for ran in found], len(found))),
        (f"{title}: end", f"{seconds([ran.end for ran in found], len(found))} ({most / means:.1f}x the mean)"),
        (f"{title}: tokens/s of all", f"{total:.0f}; one alone {one:.0f}: {total / one:.2f}x"),
        (f"{title}: the page `/` meanwhile", seconds(opened, len(opened))),
    ]


def of_heavy(server: Attacked, asked: argparse.Namespace) -> list[tuple[str, str]]:
    """Ordinary visitors beside a heavy one."""
    rows = []
    for tabs in (0, TABS):
        over, waits, had = threading.Event(), [], [0]
        heavy = [Visitor(server, name="heavy") for _ in range(tabs)]

        def tab(visitor: Visitor, over: threading.Event = over, had: list[int] = had) -> None:
            while not over.is_set():
                had[0] += run(visitor, prompt_of(0), asked.tokens * 2).tokens

        def ordinary(n: int, waits: list[float | None] = waits) -> None:
            visitor = Visitor(server, name=f"ordinary {n}")
            time.sleep(n)
            for turn in range(asked.turns):
                waits.append(run(visitor, prompt_of(n + turn), asked.tokens).first)
                time.sleep(3)
            visitor.leave()

        busy = [threading.Thread(target=tab, args=(visitor,), daemon=True) for visitor in heavy]
        for thread in busy:
            thread.start()
        time.sleep(5 if tabs else 0)
        at_once([lambda n=n: ordinary(n) for n in range(ORDINARY)])
        over.set()
        for visitor in heavy:
            visitor.leave()
        beside = f"beside one with {tabs} tabs that run all the time ({had[0]:,} tokens)" if tabs else "by themselves"
        title = f"{ORDINARY} ordinary visitors, {asked.turns} runs each, {beside}: first token"
        rows.append((title, seconds(waits, len(waits))))
        time.sleep(GRACE)
    return rows


def of_left(server: Attacked, asked: argparse.Namespace) -> list[tuple[str, str]]:
    """Tabs that are closed."""
    running, waiting, begun, done = [], [], 0, 0
    while done < asked.left:
        several = min(AT_ONCE, asked.left - done)
        visitors = [Visitor(server, name=f"tab {done + n}") for n in range(several)]
        at_once([lambda v=visitor: v.begin((prompt_of(0), LONG)) for visitor in visitors])
        time.sleep(1.0)
        begun += int(gauges(server)["loopviz_running"])
        at_once([visitor.leave for visitor in visitors])
        time.sleep(GRACE)
        now = gauges(server)
        running.append(now["loopviz_running"])
        waiting.append(now["loopviz_waiting"])
        done += several
    said = f"{max(running):.0f} running, {max(waiting):.0f} waiting"
    return [(f"{asked.left} tabs closed, {AT_ONCE} at a time, {begun} of them in mid-run: {GRACE:g} s later", said)]


def of_memory(server: Attacked, asked: argparse.Namespace) -> list[tuple[str, str]]:
    """Runs, one after the other, their tabs closed."""
    measured = []
    for n in range(asked.runs):
        visitor = Visitor(server, name=f"memory {n}")
        run(visitor, prompt_of(n), 8)
        visitor.leave()
        if n + 1 in (max(1, asked.runs // 10), asked.runs):
            server.rest(most=10)
            measured.append((server.held() / MIB, *server.counts()))
    (before, *counts), (after, *then) = measured[0], measured[-1]
    grown = f"{before:.0f} to {after:.0f} MiB ({after / before - 1:+.1%}); threads {counts[0]} to {then[0]}, files {counts[1]} to {then[1]}"
    return [(f"{asked.runs} runs, from the {max(1, asked.runs // 10)}th on: memory", grown)]


PARTS = {"class": of_class, "heavy": of_heavy, "left": of_left, "memory": of_memory}


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=tuple(PARTS), default=list(PARTS))
    parser.add_argument("--visitors", type=int, default=30, help="of a class")
    parser.add_argument("--tokens", type=int, default=48, help="new tokens of a run")
    parser.add_argument("--turns", type=int, default=4, help="runs of an ordinary visitor")
    parser.add_argument("--left", type=int, default=LEFT, help="tabs that are closed")
    parser.add_argument("--runs", type=int, default=300, help="while memory is watched")
    asked = parser.parse_args()
    rows = []
    for name in asked.parts:
        print(f"{name} ...", file=sys.stderr, flush=True)
        with attacked("class", environ={"LOOPVIZ_METRICS_TOKEN": TOKEN}) as server:
            ready(server, MODEL)
            run(Visitor(server), prompt_of(0), 8)  # what the first run alone pays
            rows += PARTS[name](server, asked)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{processor()}, {os.cpu_count()} CPUs; load of the machine at the end: {load}\n")
    print("| what | found |\n|---|---|")
    print("\n".join(f"| {title} | {found} |" for title, found in rows))


if __name__ == "__main__":
    main()
