"""How long a visitor waits: from `python app.py` to a page that can answer, and from Run to the first token.

    python benchmarks/startup.py                  the bundled default model
    python benchmarks/startup.py --model arrows-loop --repeats 5 [--save NAME]

Every repeat starts the app in a new process and opens it in a fresh Chromium context (nothing cached) as soon as it
answers. Prints medians, with the smallest and largest, of the seconds until: the server sends the page; the recorded run is
drawn in every panel on screen (from the page's first byte); the page takes input; the model is ready; and, from pressing
Run, until the first new token is on the screen.

Beside each, in turn with it and in processes of their own, what cannot be avoided: Gradio imported and an empty Blocks served, and opened
in the same browser until Gradio has built it; PyTorch,
transformers and Gradio imported; the prompt read and one token decoded by the engine alone (warm, everything recorded that the
page's panels ask for). The ratios are of the medians. With --save also NAME.json and NAME.csv.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.results import Figure, about, tell  # noqa: E402

PROMPT = "Once upon a time, a small robot"  # of a model that the recorded run is not of
STEPS = {
    "served": "`python app.py` to the server's first answer",
    "sight": "the page's first byte to the recorded run drawn in every panel on screen",
    "drawn": "`python app.py` to a page that takes input",
    "ready": "`python app.py` to a page whose model can answer",
    "first": "Run to the first new token on the screen",
}
# What cannot be avoided, and the command that does nothing else; of the first, until it answers, of the second until it ends.
EMPTY = """import sys, gradio
with gradio.Blocks() as demo:
    pass
demo.launch(server_port=int(sys.argv[-1]), quiet=True, ssr_mode=False)
"""
IMPORTS = "import torch, transformers, gradio"
LEAST = {
    "empty": "`import gradio` and an empty Blocks served, to its first answer",
    "built": "the same, opened in the browser, until Gradio has built it",
    "imports": f"`{IMPORTS}`",
    "step": "the prompt read and one token decoded, the engine alone",
}
RATIOS = (
    ("drawn", "empty", "<= 1.5x"),
    ("drawn", "built", ""),
    ("ready", "imports", "<= 1.3x"),
    ("first", "step", "<= 3x"),
)
ALONE = 12  # tokens of the engine's own run
# When every panel that is on and on screen is drawn, after the document's first byte.
SIGHT = """
const look = () => {
  const page = document.querySelector('.lv')?.page;
  const shown = page?.run ? [...page.panels.values()].filter((panel) => panel.on && panel.onScreen) : [];
  if (shown.length && shown.every((panel) => panel.drawn > 0))
    window.sight = (performance.now() - performance.getEntriesByType('navigation')[0].responseStart) / 1000;
  else requestAnimationFrame(look);
};
look();
"""
# When the first word that is not of the prompt came; the clock starts with the press of Run.
FIRST_TOKEN = """
() => new Promise((resolve) => {
  const { dataset } = document.querySelector('.lv');
  const { run } = dataset, began = performance.now();
  const look = () => {
    if (dataset.run !== run && document.querySelector('.lv-tok[data-i]:not(.lv-prompt)'))
      resolve((performance.now() - began) / 1000);
    else requestAnimationFrame(look);
  };
  document.querySelector('#lv-run').click();
  look();
})
"""


def visit(browser: Any, model: str | None) -> dict[str, float]:
    """One start, one page, one run."""
    from scripts.serving import served

    command = [sys.executable, "app.py", *(["--model", model] if model else [])]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    context = browser.new_context(viewport={"width": 1280, "height": 1800})  # tall enough for the first panels
    context.set_default_timeout(600_000)
    began = time.perf_counter()
    try:
        with served(command, every=0.02, **quiet) as (url, _):
            seconds = {"served": time.perf_counter() - began}
            page = context.new_page()
            page.add_init_script(SIGHT)
            page.goto(url, wait_until="commit")
            page.wait_for_function("() => window.sight")
            seconds["sight"] = page.evaluate("window.sight")
            page.wait_for_selector('#lv-live .lv[data-ready="1"]')
            seconds["drawn"] = time.perf_counter() - began
            page.wait_for_selector('.lv[data-model="ready"]')
            seconds["ready"] = time.perf_counter() - began
            page.wait_for_timeout(2000)  # the model's arrival settles its controls; a visitor reads and types
            seconds["first"] = page.evaluate(FIRST_TOKEN)
            return seconds
    finally:
        context.close()


def least(browser: Any, steps: Callable[[], float]) -> dict[str, float]:
    """Seconds that cannot be avoided, of each of `LEAST`.

    Args:
        browser: that pages are opened in.
        steps: the engine's own, as :func:`engine_alone` gives it.
    """
    from scripts.serving import served

    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    alone = {**os.environ, "GRADIO_ANALYTICS_ENABLED": "False"}  # it would ask a server of Gradio's
    began = time.perf_counter()
    with served([sys.executable, "-c", EMPTY], every=0.02, env=alone, **quiet) as (url, _):
        seconds = {"empty": time.perf_counter() - began}
        context = browser.new_context(viewport={"width": 1280, "height": 1800})
        page = context.new_page()
        page.goto(url, wait_until="commit")
        page.wait_for_selector("gradio-app footer")  # all that an empty one shows
        seconds["built"] = time.perf_counter() - began
        context.close()
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)
    return seconds | {"imports": time.perf_counter() - began, "step": steps()}


def engine_alone(model: str | None) -> Callable[[], float]:
    """A function that tells the seconds in which the engine reads the page's prompt and decodes a token after it.

    Under the settings that a page opens with, everything recorded that its panels ask for.
    """
    from loopviz.app.main import DEFAULT_MODEL, spare_a_core

    spare_a_core()  # as the app does, before PyTorch is imported
    from loopviz.app.controls.loop_values import loop_fields, stream_fields
    from loopviz.app.explore.first_run import opening_panels, settings
    from loopviz.app.explore.snapshot import needs
    from loopviz.engine import StreamSettings, stream
    from loopviz.model.checkpoints.layout_choice import arrange
    from loopviz.model.checkpoints.load import load_checkpoint

    loaded = load_checkpoint(model or DEFAULT_MODEL)
    arrange(loaded.model)  # as the app runs it
    loaded.model.generation_config.eos_token_id = None
    values, prompt = settings(model or DEFAULT_MODEL) or ({}, PROMPT)
    view = loaded.model.with_loop(**loop_fields(values)) if values else loaded.model
    extras = tuple(sorted(set().union(*map(needs, opening_panels().values()))))
    wanted = (stream_fields(values) if values else {}) | {"max_new_tokens": ALONE}

    def once() -> float:
        times = []
        began = time.perf_counter()
        for frame in stream(view, loaded.tokenizer, prompt, StreamSettings(record="full", extras=extras, **wanted)):
            if frame["phase"] == "generated" or frame["index"] == frame["pass_tokens"] - 1:
                times.append(time.perf_counter() - began)
                began = time.perf_counter()
        return times[0] + statistics.median(times[1:])

    once()  # warm
    return once


def figures(visits: Sequence[Mapping[str, float]], unavoidable: Sequence[Mapping[str, float]]) -> list[Figure]:
    """What was measured of all repeats, in seconds, and the ratios.

    Args:
        visits: as :func:`visit` gives them.
        unavoidable: as :func:`least` does.
    """

    def ends(all_of: Sequence[Mapping[str, float]], key: str) -> tuple[float, dict[str, float]]:
        values = [seconds[key] for seconds in all_of]
        return statistics.median(values), {"least": min(values), "most": max(values)}

    found = []
    for all_of, words in ((visits, STEPS), (unavoidable, LEAST)):
        for key, name in words.items():
            value, told = ends(all_of, key)
            found.append(Figure(name, value, "", told, "s"))
    for key, base, aim in RATIOS:
        name = f"{STEPS[key]} / {LEAST[base]}"
        found.append(Figure(name, ends(visits, key)[0] / ends(unavoidable, base)[0], aim))
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a name, Hub id, folder or .gguf file; default: the app's own")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--save", type=Path, metavar="NAME", help="write NAME.json and NAME.csv, too")
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    from scripts.run import find_chromium

    steps = engine_alone(options.model)
    visits, unavoidable = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        for _ in range(options.repeats + 1):  # in turn, so that what disturbs one disturbs all
            visits.append(visit(browser, options.model))
            unavoidable.append(least(browser, steps))
        browser.close()
    found = about(("torch", "gradio"), model=options.model or "the default one", repeats=options.repeats)
    tell(found, figures(visits[1:], unavoidable[1:]), options.save)  # the first warms the disk


if __name__ == "__main__":
    main()
