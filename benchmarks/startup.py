"""How long a visitor waits: from `python app.py` to a page that can answer, and from Run to the first token.

    python benchmarks/startup.py                  the bundled default model
    python benchmarks/startup.py --model arrows-loop --repeats 5

Every repeat starts the app in a new process and opens it in a fresh Chromium context (nothing cached) as soon as it
answers. Prints medians, with the smallest and largest, of the seconds until: the server sends the page; the recorded run is
drawn in every panel on screen (from the page's first byte); the page takes input; the model is ready; and, from pressing
Run, until the first new token is on the screen.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
STEPS = {
    "served": "`python app.py` to the server's first answer",
    "sight": "the page's first byte to the recorded run drawn in every panel on screen",
    "drawn": "`python app.py` to a page that takes input",
    "ready": "`python app.py` to a page whose model can answer",
    "first": "Run to the first new token on the screen",
}
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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a name, Hub id, folder or .gguf file; default: the app's own")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    from scripts.run import find_chromium

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        visits = [visit(browser, options.model) for _ in range(options.repeats + 1)][1:]  # the first warms the disk
        browser.close()
    print(
        f"{options.model or 'the default model'}, {os.cpu_count()} cores, medians of {options.repeats} (least, most)\n"
    )
    print("| figure | seconds |\n|---|---|")
    for key, words in STEPS.items():
        values = [seconds[key] for seconds in visits]
        print(f"| {words} | {statistics.median(values):.2f} ({min(values):.2f}, {max(values):.2f}) |")


if __name__ == "__main__":
    main()
