"""How long Anatomy takes: its first picture once the model is there, a step of each key, another word.

    python benchmarks/anatomy.py                                          the recorded run
    python benchmarks/anatomy.py --model smollm2-135m-instruct --layers 10 14 --loops 4

Serves the app, makes a run of the model (unless it is the recorded one), brings it from Explore as a file, and walks through it in
Chromium by keys. Prints milliseconds, median and largest: until the page shows what was asked for, and until the browser has drawn
the frame after that.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

RELOADS = 3
SHOWN = '.lv-page[data-drawn="true"]'
# Press a key, or choose a word; milliseconds until the page shows what it asked for, and until the next frame.
STEP = """
async ([key, token]) => {
  const root = document.querySelector('.lv-page');
  const began = performance.now();
  if (token === null) document.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
  else root.page.go({ token });
  while (root.dataset.drawn !== 'true') await new Promise((resolve) => setTimeout(resolve, 1));
  const shown = performance.now() - began;
  await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
  return [shown, performance.now() - began];
}
"""
# When our script stands in the page, and when the first picture does: what comes before is the same on every page.
STANDS = """
const look = () => {
  const { ready, drawn } = document.querySelector('.lv-page')?.dataset ?? {};
  if (ready === '1') window.stands ??= performance.now();
  if (drawn === 'true') window.drawn = performance.now();
  else setTimeout(look, 4);
};
look();
"""
KEYS = {
    "stage (→)": ["ArrowRight"] * 20,
    "layer (↑ ↓)": ["ArrowUp"] * 8 + ["ArrowDown"] * 8,
    "loop step (])": ["]"] * 3 + ["["] * 3 + ["]"] * 3,
}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a named model, run first (default: the recorded run)")
    parser.add_argument("--layers", type=int, nargs=2, default=(0, 0), metavar=("A", "B"), help="of its looped block")
    parser.add_argument("--loops", type=int, default=4, help="default: %(default)s")
    parser.add_argument("--tokens", type=int, default=24, help="to generate (default: %(default)s)")
    parser.add_argument("--prompt", default="The capital of France is", help="default: %(default)s")
    return parser.parse_args()


def made(options: argparse.Namespace, folder: Path) -> Path:
    """A run of the model, as a file."""
    from loopviz.engine import StreamSettings, run
    from loopviz.model.checkpoints import load_checkpoint
    from loopviz.trace.file import dumps

    loaded = load_checkpoint(options.model, loop_layers=tuple(options.layers), loop_count=options.loops)
    settings = StreamSettings(max_new_tokens=options.tokens, record="full")
    trace = run(loaded.model, loaded.tokenizer, options.prompt, settings, model_name=options.model)
    file = folder / "run.loopviz"
    file.write_bytes(dumps(trace))
    return file


def opened(page: Any, url: str, file: Path | None) -> tuple[float, float]:
    """The page on the run, its model there; of a reload (the median of some), milliseconds to the first picture, and of these since our script stands."""
    page.add_init_script(STANDS)
    if file is None:
        page.goto(f"{url}anatomy")
    else:
        page.goto(url)
        page.wait_for_selector('.lv[data-ready="1"]')
        page.set_input_files("input[type=file]", file)
        page.wait_for_function("() => !['', 'recorded'].includes(document.querySelector('.lv').dataset.run)")
        page.wait_for_timeout(1000)
        page.click('.lv-way[data-page="anatomy"]')
    page.wait_for_selector(SHOWN, timeout=600_000)
    page.wait_for_timeout(2000)
    times = []
    for _ in range(RELOADS):
        page.reload()
        page.wait_for_function("() => window.drawn")
        begun = page.evaluate("performance.getEntriesByType('navigation')[0].responseStart")
        stands, drawn = page.evaluate("[window.stands, window.drawn]")
        times.append((drawn - begun, drawn - stands))
        page.wait_for_timeout(2000)
    return statistics.median(time for time, _ in times), statistics.median(time for _, time in times)


def walked(page: Any) -> dict[str, list[list[float]]]:
    """Milliseconds of every step, by what was walked."""
    first = page.evaluate("(document.querySelector('.lv-page').page.run.blocks[0] ?? [0])[0]")
    page.evaluate("(layer) => document.querySelector('.lv-page').page.go({ layer })", first)
    steps: dict[str, list[list[float]]] = {}
    for what, keys in KEYS.items():
        page.wait_for_timeout(600)
        steps[what] = []
        for key in keys:
            steps[what].append(page.evaluate(STEP, [key, None]))
            page.wait_for_timeout(200)  # as quick as a finger
    words = page.evaluate("document.querySelector('.lv-page').page.run.tokens.length")
    steps["another word"] = [page.evaluate(STEP, ["", token]) for token in range(max(0, words - 6), words)]
    return steps


def main() -> None:
    """Measure and print."""
    from playwright.sync_api import sync_playwright

    from scripts.run import find_chromium
    from scripts.serving import served

    options = arguments()
    with tempfile.TemporaryDirectory() as folder:
        file = made(options, Path(folder)) if options.model else None
        quiet = {"stdout": -3, "env": {**os.environ}}
        with served([sys.executable, "app.py"], **quiet) as (url, _), sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            first, steps = opened(page, url, file), walked(page)
            browser.close()
    print(f"{'a reload to the first picture':32} {first[0]:8.0f} ms; since the page's script stands {first[1]:.0f}")
    for what, times in steps.items():
        shown, drawn = zip(*times, strict=True)
        found = [statistics.median(shown), max(shown), statistics.median(drawn), max(drawn)]
        print("{:32} {:8.0f} ms, at most {:.0f}; with the next frame {:.0f}, at most {:.0f}".format(what, *found))


if __name__ == "__main__":
    main()
