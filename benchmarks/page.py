"""What watching costs: the page in a real Chromium beside the engine alone, on the same model, prompt and settings.

    python benchmarks/page.py                                  a random model of about two million parameters
    python benchmarks/page.py --panels all --rate 20           every panel of the open group switched on, no faster than 20 tokens a second
    python benchmarks/page.py --tokens 500 --loops 16 --rate 20 --panels all --repeats 1      a long run of many loops, in under three minutes
    python benchmarks/page.py --model smollm2-135m-instruct --start 10 --end 14 --tokens 48

Prints medians over the repeats: bytes over the wire a token, plot nodes rebuilt while streaming, milliseconds from the
last token's arrival until every panel shows it, the longest that a panel on screen stayed behind the newest token, how
much longer the panels on screen are redrawn for at the run's end than at its beginning, server
CPU a token that streaming adds (everything the server's process does between the first generated token and the last, less
the engine's own steps, and less what it spends in that time when nothing runs), what a run costs the server once (its
checks, its first and last picture), tokens a second with the page open and by the engine alone; and, after the run, the
time from a click on a word until the answer is there and until all panels on screen show it; and of a second run, how
many tokens the model still made after Stop was pressed (the page gets them in messages of several).

Milliseconds do not travel from machine to machine. So two more things are timed in the same run: one bare `Plotly.react` of the
convergence panel's figure as the run left it, in the same page, and one token of `stories-loop` by the engine alone, nothing
recorded; and what the page costs is said in multiples of these, too.

`--panels all` are the panels of the open group (`--group`): the page draws those of no other. What is done stands on stderr; what has no end
within a minute besides the time of its tokens ends the command, by its name. A short run, which is not counted, goes before.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import page_script  # noqa: E402
from benchmarks.page_rows import SMALL, rows  # noqa: E402
from loopviz.machine import processor  # noqa: E402

CLICKS = 9  # words selected after a run
REACTS = 12  # bare draws of one panel, the first of which makes the plot
STEPS = 48  # tokens of the model that a step is measured of
IDLE = 5  # seconds over which the idle server is measured
LIMIT = 60  # seconds after which what takes a few has no end
SLOW = 2.0  # tokens a second, where no pace is set: a run that is slower has no end
PROMPT = "Once upon a time, a small robot"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a name, Hub id, folder or .gguf file; default: a random one")
    parser.add_argument("--start", type=int, default=4, help="first looped layer")
    parser.add_argument("--end", type=int, default=5, help="last looped layer")
    parser.add_argument("--loops", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=200, help="new tokens of a run")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--panels",
        choices=("usual", "all"),
        default="usual",
        help="which panels of the open group are switched on; those of the other groups are drawn when their tab is opened",
    )
    parser.add_argument(
        "--group", default="thinking", help="the group of panels that is open: thinking, words, memory, cost"
    )
    parser.add_argument("--rate", type=float, help="tokens a second at most, as a larger model would make them")
    parser.add_argument("--serve", metavar="FILE", help=argparse.SUPPRESS)  # what this script starts itself with
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch, on both sides")
    return parser.parse_args()


def random_model(folder: Path) -> str:
    """A random Llama of twelve layers, 2.6 M parameters, and a byte-level tokenizer; it does not end its text itself."""
    import torch

    from tests.conftest import make_llama, make_tokenizer

    model = make_llama(num_hidden_layers=12, hidden_size=128, intermediate_size=384, max_position_embeddings=2048)
    with torch.no_grad():
        model.lm_head.weight[1] = 0
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return str(folder)


def serve(options: argparse.Namespace) -> None:
    """The app as it is, but for clocks around the engine; what they say of a run goes into a file.

    `engine`: CPU ms of the engine's own steps. `others`: CPU ms of everything else in this process between the first
    generated token and the last (making and sending messages, Gradio, the web server); `seconds` and `tokens` of that.
    `made`: when each generated token was there, seconds since 1970.
    """
    import loopviz.engine
    from loopviz.app.main import build, launch

    plain = loopviz.engine.stream

    def timed(*args: Any, **kwargs: Any) -> Iterator[Any]:
        frames, spent, marks, made = plain(*args, **kwargs), 0.0, [], []
        pause, due = 1 / options.rate if options.rate else 0.0, 0.0
        try:
            while True:
                began = time.thread_time()  # of this thread only: what the server does meanwhile is not the engine's
                frame = next(frames, None)
                spent += time.thread_time() - began
                if frame is None:
                    return
                if frame["phase"] == "generated":
                    time.sleep(max(0.0, due - time.perf_counter()))
                    due = time.perf_counter() + pause
                    made.append(time.time())
                    marks.append((time.process_time() - spent, time.perf_counter()))
                yield frame
        finally:
            frames.close()
            if len(marks) > 1:  # else it was stopped, or refused, before there was a time between two
                others, seconds = (last - first for first, last in zip(marks[0], marks[-1], strict=True))
                told = {"engine": spent * 1000, "others": others * 1000, "seconds": seconds, "tokens": len(marks) - 1}
                told["made"] = made
                part = Path(options.serve).with_suffix(".part")
                part.write_text(json.dumps(told))
                part.replace(options.serve)  # whole, or not there

    loopviz.engine.stream = timed
    launch(build(options.model), port=options.port)


def clocked(model: str, options: argparse.Namespace, clock: Path) -> AbstractContextManager[tuple[str, int]]:
    """The app by way of :func:`serve`, in a process of its own: its address and process id."""
    from scripts.serving import served

    if options.threads != 1:
        raise SystemExit("the engine's CPU is counted in its own thread: use --threads 1")
    command = [sys.executable, __file__, "--serve", str(clock), "--model", model]
    command += ["--rate", str(options.rate)] if options.rate else []
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    return served(command, env=environment, stdout=subprocess.DEVNULL)


def settle(page: Any, group: str, control: str, value: int) -> None:
    """Type a number into a control of the page."""
    box = page.locator(f"#ctl-{control} input[type=number]")
    if not box.is_visible():
        page.click(f"#lv-group-{group} .label-wrap")
    box.fill(str(value))
    box.press("Tab")


@dataclass(frozen=True)
class Pass:
    """How much of it one visit makes.

    Attributes:
        tokens: new ones of its run.
        clicks: words selected after it.
        stops: whether a second run is stopped.
    """

    tokens: int
    clicks: int = CLICKS
    stops: bool = True


WARM = Pass(tokens=40, clicks=2, stops=False)  # what compiles in the browser and in the server has by then


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Say on stderr what is done now, and by that name that it failed or had no end.

    Raises:
        SystemExit: it did.
    """
    from playwright.sync_api import Error

    began = time.perf_counter()
    print(f"{name} ...", end=" ", file=sys.stderr, flush=True)
    try:
        yield
    except Error as error:
        raise SystemExit(f"\n{name}: {error}") from None
    print(f"{time.perf_counter() - began:.1f} s", file=sys.stderr, flush=True)


def longest(options: argparse.Namespace, tokens: int) -> float:
    """Seconds after which a phase with so many new tokens has no end: `LIMIT` besides the time they take at the pace, or at a slow one."""
    return LIMIT + tokens / (options.rate or SLOW)


def opened(browser: Any, url: str, options: argparse.Namespace, tokens: int) -> tuple[Any, dict[str, float]]:
    """A page whose form asks for a run of so many new tokens, and the bytes that its stream has brought, as they come."""
    from loopviz.app.explore import event_stream

    page = browser.new_page(viewport={"width": 1280, "height": 1600})
    page.set_default_timeout(1000 * LIMIT)
    on, group = (json.dumps(shown) for shown in (list(watched_panels(options)), options.group))
    page.add_init_script(page_script.PANELS_ON % (on, group))
    wire = {"bytes": 0.0}
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    streams: set[str] = set()

    def asked(event: dict[str, Any]) -> None:
        if any(part in event["request"]["url"] for part in ("queue/data", event_stream.PREFIX)):
            streams.add(event["requestId"])

    def came(event: dict[str, Any]) -> None:
        if event["requestId"] in streams:
            wire["bytes"] += event["encodedDataLength"] or event["dataLength"]

    session.on("Network.requestWillBeSent", asked)
    session.on("Network.dataReceived", came)
    page.goto(url)
    page.wait_for_selector('.lv[data-ready="1"][data-model="ready"]')
    page.fill("#ctl-prompt textarea", PROMPT)
    for group, control, value in (
        ("loop", "block_start", options.start),
        ("loop", "block_end", options.end),
        ("loop", "max_loop_count", max(options.loops, 10)),
        ("loop", "loop_count", options.loops),
        ("sampling", "max_new_tokens", tokens),
    ):
        settle(page, group, control, value)
    page.wait_for_timeout(1500)  # the checks of the settings are over: only the run is measured
    page.evaluate(page_script.WATCH)
    return page, wire


def read_clock(clock: Path) -> dict[str, Any]:
    """What the server's clocks say of the last run (:func:`serve`).

    Raises:
        SystemExit: nothing: it made no two tokens.
    """
    until = time.monotonic() + 5
    while not clock.is_file():  # it is written as the run ends, which the page may hear first
        if time.monotonic() > until:
            raise SystemExit(f"{clock.name}: the server made no two tokens of the run")
        time.sleep(0.05)
    found: dict[str, Any] = json.loads(clock.read_text())
    return found


def watched_run(
    browser: Any, url: str, pid: int, clock: Path, options: argparse.Namespace, of: Pass
) -> dict[str, float]:
    """One run with the page open; of a pass that does not stop a second one, nothing is told of that."""
    import psutil

    process = psutil.Process(pid)

    def spent() -> float:
        times = process.cpu_times()
        return (times.user + times.system) * 1000

    with phase("the page opens"):
        page, wire = opened(browser, url, options, of.tokens)
    idle = -spent()
    page.wait_for_timeout(IDLE * 1000)
    before = spent()
    idle = (idle + before) / IDLE  # ms a second that the open page costs although nothing runs
    clock.unlink(missing_ok=True)
    with phase(f"a run of {of.tokens} new tokens"):
        page.click("#lv-run")
        page.wait_for_function("() => window.seen.drawn !== null", timeout=1000 * longest(options, of.tokens))
    server = spent() - before
    seen, clocks = page.evaluate("window.seen"), read_clock(clock)
    (began, first), (ended, last) = seen["began"], seen["ended"]
    sent = wire["bytes"] / last
    clicks, reacts, stopped = after_run(page, clock, options, of, last)
    page.close()
    return {
        "tokens": last,
        "react": statistics.median(reacts) if reacts else float("nan"),
        "bytes": sent,
        "behind": seen["behind"],
        "growth": growth(seen["draws"], last),
        "answered": statistics.median(answer for answer, _ in clicks),
        "selected": statistics.median(shown for _, shown in clicks),
        **stopped,
        "rebuilt": seen["rebuilt"],
        "lag": seen["drawn"] - ended,
        "cpu": (clocks["others"] - idle * clocks["seconds"]) / clocks["tokens"],
        "idle": idle,
        "once": server - clocks["engine"] - clocks["others"],
        "rate": (last - first) * 1000 / (ended - began),
    }


def after_run(
    page: Any, clock: Path, options: argparse.Namespace, of: Pass, last: int
) -> tuple[list[tuple[float, float]], list[float], dict[str, float]]:
    """What is done with a finished run of `last` tokens: ms of the clicks and of the bare draws, and of a second run what Stop did."""
    with phase(f"{of.clicks} clicks"):
        clicks = page.evaluate(page_script.limited(page_script.CLICK, LIMIT), of.clicks)
    with phase("bare draws"):
        reacts = page.evaluate(page_script.limited(page_script.REACT, LIMIT), REACTS)
    if not of.stops:
        return clicks, reacts, {}
    clock.unlink(missing_ok=True)
    with phase("a run that is stopped"):
        seconds = longest(options, last // 2)
        stop_ms, pressed = page.evaluate(page_script.limited(page_script.STOP, seconds), last // 2)
    made = read_clock(clock)["made"]
    return clicks, reacts, {"stop": stop_ms, "after_stop": sum(moment > pressed / 1000 for moment in made)}


def growth(draws: dict[str, list[tuple[int, float]]], tokens: int) -> float:
    """The panels' redraws together, over the last fifth of a run's tokens beside those over the second fifth: in the
    first, a browser still compiles what draws."""
    early, late = 0.0, 0.0
    for of in draws.values():
        parts = [[ms for at, ms in of if low <= 5 * at / tokens < low + 1] for low in (1, 4)]
        if all(parts):
            early, late = early + statistics.median(parts[0]), late + statistics.median(parts[1])
    return late / early if early else float("nan")


def watched_panels(options: argparse.Namespace) -> dict[str, Any]:
    """The panels that are drawn, by name: those of the open group that are on."""
    from loopviz.app.explore.first_run import usual_panels
    from loopviz.panels import PANELS

    there = PANELS if options.panels == "all" else usual_panels()
    return {name: panel for name, panel in there.items() if options.group == panel.GROUP}


def engine_run(loaded: Any, options: argparse.Namespace, tokens: int) -> dict[str, float]:
    """The same run by the engine alone, in this process; and the share of building messages without sending them."""
    from loopviz.app import controls as st
    from loopviz.app.explore.run import Run, messages
    from loopviz.app.explore.snapshot import needs
    from loopviz.engine import StreamSettings, run_meta, stream

    panels = watched_panels(options)
    extras = tuple(sorted(set().union(*map(needs, panels.values()))))

    values = st.defaults() | {"block_start": options.start, "block_end": options.end, "loop_count": options.loops}
    values["max_loop_count"] = max(options.loops, 10)
    model = loaded.model.with_loop(**st.loop_fields(values))
    wanted = StreamSettings(record="full", extras=extras, **st.stream_fields(values | {"max_new_tokens": tokens}))
    began = time.perf_counter()
    frames = list(stream(model, loaded.tokenizer, PROMPT, wanted))
    rate = len(frames) / (time.perf_counter() - began)
    run = Run(run_meta(model, loaded.tokenizer, PROMPT, wanted), panels)
    building = time.process_time()
    said = list(messages(run, iter(frames), every=0))  # a message a token: the dearest way
    building = (time.process_time() - building) * 1000 / len(frames)
    return {"rate": rate, "building": building, "json": sum(map(len, said)) / len(frames)}


def small_step(steps: int = STEPS) -> float:
    """CPU ms of one token of `stories-loop` as it loops by itself, by the engine alone and nothing recorded: the median of a run's."""
    from loopviz.engine import StreamSettings, stream
    from loopviz.model.checkpoints.layout_choice import arrange
    from loopviz.model.checkpoints.load import load_checkpoint

    loaded = load_checkpoint(SMALL)
    arrange(loaded.model)  # as the app runs it
    loaded.model.generation_config.eos_token_id = None
    marks = []
    for frame in stream(loaded.model, loaded.tokenizer, PROMPT, StreamSettings(max_new_tokens=steps, record="off")):
        if frame["phase"] == "generated":
            marks.append(time.thread_time() * 1000)
    return statistics.median(later - earlier for earlier, later in itertools.pairwise(marks))


def main() -> None:
    """Measure and print."""
    options = arguments()
    if options.serve:
        serve(options)
        return
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or random_model(Path(folder))
        import torch
        from playwright.sync_api import sync_playwright

        from loopviz.model.checkpoints.layout_choice import arrange
        from loopviz.model.checkpoints.load import load_checkpoint
        from scripts.run import find_chromium

        torch.set_num_threads(options.threads)
        with phase("the model, and the engine warmed up"):
            loaded = load_checkpoint(model)
            arrange(loaded.model)  # as the app runs it
            engine_run(loaded, options, WARM.tokens)
        alone, watched, steps, clock = [], [], [], Path(folder) / "engine.ms"
        with clocked(model, options, clock) as (url, pid), sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
            watched_run(browser, url, pid, clock, options, WARM)
            for _ in range(options.repeats):
                with phase("the same by the engine alone"):
                    alone.append(engine_run(loaded, options, options.tokens))
                with phase(f"a token of {SMALL}"):
                    steps.append(small_step())
                watched.append(watched_run(browser, url, pid, clock, options, Pass(options.tokens)))
            browser.close()

    found = rows(watched, alone, steps)
    if options.rate:
        found.pop()  # both are what was asked for
    tokens = int(watched[0]["tokens"])
    paced = f", at most {options.rate:g} tokens/s" if options.rate else ""
    print(
        f"{processor()}, {options.model or 'random model of 2.6 M parameters'}, layers {options.start}-{options.end}, {options.loops} "
        f"loops, {tokens} tokens, {options.threads} thread, {options.panels} panels of the group {options.group}{paced}, medians of {options.repeats}\n"
    )
    print("| figure | measured | target |\n|---|---|---|")
    for row in found:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
