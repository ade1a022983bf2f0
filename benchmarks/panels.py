"""What each panel costs a token of streaming, at the start of a long run and at its end: server CPU and bytes.

    python benchmarks/panels.py                     512 tokens x 16 loops, every panel on, everything recorded
    python benchmarks/panels.py --tokens 128 --loops 4

No model runs: the frames are drawn at random (tests/trace/synthetic.py), so nothing but the panels is measured. For every
panel the median over the first and over the last tokens of the run, of

* `ms`: CPU of `panel.patch` in the server, and of writing its ops as they are sent;
* `bytes`: those ops as sent, packed JSON (loopviz.app.sessions.messages), before any compression.

`hero` is what stands above them, the strip of guesses and the ring, with how large its messages are on a line of their own.
The last rows are all of these together, as a page with all of them on pays it: what is made, and what goes over the wire,
where each message continues the gzip stream of a run's own line (loopviz.app.explore.event_stream).
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads that wait in a loop would be counted as a panel's CPU

EDGE = 24  # tokens at either end that a median is over


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=512, help="of the run (default: %(default)s)")
    parser.add_argument("--loops", type=int, default=16, help="most loop steps of a token (default: %(default)s)")
    parser.add_argument("--layers", type=int, default=6, help="of the model; two of them loop (default: %(default)s)")
    parser.add_argument("--hidden", type=int, default=192, help="hidden size (default: %(default)s)")
    parser.add_argument("--strategy", default="fixed_count", choices=("fixed_count", "dynamic_stop"))
    options = parser.parse_args()
    if options.tokens < 2 * EDGE + 1:
        parser.error(f"--tokens {options.tokens}: at least {2 * EDGE + 1}, for two ends to compare")
    return options


HERO, HERO_ALONE = "hero", "hero, on a line of its own"
Costs = dict[str, list[tuple[float, int]]]  # by end of the run ("first", "last"): (CPU ms, bytes) of each token


def measure(options: argparse.Namespace) -> tuple[dict[str, Costs], Costs]:
    """What each panel costs, by name; and what squeezing their messages adds to the time and makes of the bytes."""
    from loopviz.app.explore.event_stream import squeezer
    from loopviz.app.sessions.messages import dumps, pack
    from loopviz.panels import PANELS, Focus, hero
    from loopviz.trace import EXTRAS, Trace
    from tests.trace.synthetic import make_meta, random_frames

    shape = {"layers": options.layers, "hidden": options.hidden, "max_steps": options.loops, "slots": 4}
    meta = make_meta(**shape, strategy=options.strategy, extras=EXTRAS, prompt_tokens=8)
    frames, focus = random_frames(0, meta, options.tokens), Focus()
    # past the prompt, whose tokens come together, and the first fit of the trajectory's axes
    starts = {"first": 12, "last": options.tokens - EDGE}
    grown = {end: Trace(meta, frames[:at]) for end, at in starts.items()}
    patches = {HERO: hero.patch} | {name: panel.patch for name, panel in PANELS.items()}
    found: dict[str, Costs] = {name: {end: [] for end in starts} for name in [*patches, HERO_ALONE]}
    line: Costs = {end: [] for end in starts}
    squeeze, alone = ({end: squeezer() for end in starts} for _ in range(2))
    for patch in patches.values():  # their memories of a run are made as it goes, not at its end
        for at, trace in zip(starts.values(), grown.values(), strict=True):
            patch(Trace(meta, trace.frames[:-1]), frames[at - 1], focus)
            patch(trace, frames[at], focus)
    for i in range(EDGE):  # both ends in turn: what else the machine does falls on both
        for end, at in starts.items():
            message = []
            for name, patch in patches.items():
                began = time.process_time_ns()
                ops = patch(grown[end], frames[at + i], focus)
                sent = dumps(pack(ops)).encode() if ops else b""
                found[name][end].append(((time.process_time_ns() - began) / 1e6, len(sent)))
                message.append(sent)
            began = time.process_time_ns()
            size = len(alone[end](message[0]))
            made = found[HERO][end][-1][0]
            found[HERO_ALONE][end].append((made + (time.process_time_ns() - began) / 1e6, size))
            began = time.process_time_ns()
            size = len(squeeze[end](b"".join(message)))
            line[end].append(((time.process_time_ns() - began) / 1e6, size))
            grown[end].append(frames[at + i])
    return found, line


def main() -> None:
    """Measure and print the table."""
    from rich.console import Console
    from rich.table import Table

    options = arguments()
    found, line = measure(options)
    whole = {
        end: [
            tuple(map(sum, zip(*of_token, strict=True)))
            for of_token in zip(*(p[end] for name, p in found.items() if name != HERO_ALONE), strict=True)
        ]
        for end in ("first", "last")
    }
    wire = {
        end: [(made + squeezed, size) for (made, _), (squeezed, size) in zip(whole[end], line[end], strict=True)]
        for end in line
    }
    table = Table("panel", "ms first", "ms last", "bytes first", "bytes last", "last / first")
    for column in table.columns[1:]:
        column.justify = "right"
    rows = sorted(found.items(), key=lambda row: -statistics.median(ms for ms, _ in row[1]["last"]))
    for name, ends in [*rows, ("all together", whole), ("on the wire", wire)]:
        ms, size = ({end: statistics.median(pair[i] for pair in ends[end]) for end in ends} for i in (0, 1))
        growth = f"{ms['last'] / ms['first']:.2f}" if ms["first"] else "-"
        cells = (f"{ms['first']:.2f}", f"{ms['last']:.2f}", f"{size['first']:,.0f}", f"{size['last']:,.0f}", growth)
        table.add_row(name, *cells)
    print(f"{options.tokens} tokens x {options.loops} loops ({options.strategy}), medians of {EDGE} tokens")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
