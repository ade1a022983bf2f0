"""Whether every press counts: starts while something runs, and switches from every model to every other, in a browser.

    python benchmarks/starts.py                   both tables
    python benchmarks/starts.py --only starts

Starts: a run is begun in one way and, a moment later, another one in another way. Right: the second comes and is the one
shown, of the prompt and settings that stand there, and the browser's console holds no error. Switches: of the models in the
box and two plain ones made for it, every one after every other. Right: the run is of the model chosen and of the very loop
the controls show. Nothing is timed; what is printed is tried x right, and what was wrong.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from playwright.sync_api import Error, Page, sync_playwright  # noqa: E402

from scripts.run import find_chromium  # noqa: E402
from scripts.serving import served  # noqa: E402
from tests.conftest import make_llama, make_tokenizer  # noqa: E402

READY = '.lv[data-ready="1"][data-model="ready"]'
PROMPT = "#ctl-prompt textarea"


def _listed(page: Page, drop: str, item: str) -> None:
    """Choose from a list under a button."""
    page.click(f"{drop} .lv-drop-open")
    page.locator(item).click()


KINDS: dict[str, Callable[[Page], None]] = {
    "preset": lambda page: _listed(page, "#lv-ways", "#lv-preset-one_slot"),
    "other preset": lambda page: _listed(page, "#lv-ways", "#lv-preset-ema"),
    "example": lambda page: _listed(page, "#lv-try", ".lv-example >> nth=1"),
    "Run": lambda page: page.click("#lv-run"),
    "Shift+Enter": lambda page: page.press(PROMPT, "Shift+Enter"),
}
MOMENTS = (100, 700)  # milliseconds between two starts
NEW = "before => { const d = document.querySelector('.lv').dataset; return d.run !== before && +d.t > 0 }"


def data(page: Page, name: str) -> str:
    """A mark that the page sets for those who watch it."""
    return page.evaluate(f"document.querySelector('.lv').dataset.{name} ?? ''")


def value(page: Page, control: str) -> str:
    return page.input_value(f"#ctl-{control} input[type=number]")


def open_page(browser: Any, url: str, wrong: list[str]) -> Page:
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.set_default_timeout(20_000)
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(url)
    page.wait_for_selector(READY)
    return page


def start_twice(page: Page, first: str, second: str, moment: int) -> str:
    """What is wrong with the second of two starts; "" when nothing is."""
    page.fill(PROMPT, "The first of two")
    before = data(page, "n") or "0"
    KINDS[first](page)
    page.wait_for_timeout(moment)
    if second in ("Run", "Shift+Enter"):
        page.fill(PROMPT, "The second of two")
    shown = data(page, "run")
    KINDS[second](page)
    try:
        page.wait_for_function("n => +document.querySelector('.lv').dataset.n >= n", arg=int(before) + 2)
        page.wait_for_function(NEW, arg=shown)
        page.evaluate("document.querySelector('#lv-stop').click()")  # does nothing where it has ended by itself
        page.wait_for_function("() => document.querySelector('.lv').dataset.state === 'idle'")
    except Error as error:
        return f"the second start never came ({str(error).splitlines()[0]})"
    script = "document.querySelector('.lv').page.tokens.filter((row) => row[3]).map((row) => row[0]).join('')"
    said, asked = page.evaluate(script), page.input_value(PROMPT)
    if said.strip() != asked.strip():
        return f"the run is of {said!r}, the prompt says {asked!r}"
    if "preset" in second and f"lv-preset-{ {'preset': 'one_slot'}.get(second, 'ema') }" != page.evaluate(
        "document.querySelector('.lv-preset.lv-on')?.id"
    ):
        return "the preset pressed last is not lit"
    return ""


def starts(browser: Any, url: str) -> list[str]:
    """The rows of the table of starts."""
    rows = []
    for first, second in itertools.product(KINDS, KINDS):
        if first == second and "preset" in first:
            continue
        wrong: list[str] = []
        page = open_page(browser, url, wrong)
        tried = len(MOMENTS)
        found = [said for moment in MOMENTS if (said := start_twice(page, first, second, moment))]
        page.close()
        rows.append((f"{first}, then {second}", tried, tried - len(found) if not wrong else 0, [*found, *wrong]))
    return table("start", rows)


def switch(page: Page, model: str) -> str:
    """What is wrong with a run of ``model``, chosen now; "" when nothing is."""
    page.fill("#ctl-model input", model)
    page.press("#ctl-model input", "Enter")
    name = Path(model).name if "/" in model else model
    try:
        page.wait_for_function(
            "name => document.querySelector('.lv-model').textContent.includes(`${name} is ready`)", arg=name
        )
        page.fill(PROMPT, "a>b b>c a?" if model == "arrows-loop" else "a b")
        before = data(page, "run")
        page.click("#lv-run")
        page.wait_for_function(NEW, arg=before)
        page.evaluate("document.querySelector('#lv-stop').click()")  # does nothing where it has ended by itself
        page.wait_for_function("() => document.querySelector('.lv').dataset.state === 'idle'")
    except Error as error:
        refused = page.locator(".lv-status").text_content() or ""
        return f"{name}: {str(error).splitlines()[0]} ({refused.strip()[:160]})"
    about = page.locator(".lv-about").text_content() or ""
    dynamic = page.is_checked("#ctl-loop_strategy input[value=dynamic_stop]")
    first, last = value(page, "block_start"), value(page, "block_end")
    wanted = [
        name,
        f"layer {first} " if first == last else f"layers {first}–{last} ",
        f"{value(page, 'max_loop_count' if dynamic else 'loop_count')} times",
    ]
    missing = [part for part in wanted if part not in about]
    return f"{name}: the run says {about!r}, the controls {missing}" if missing else ""


def switches(browser: Any, url: str, models: list[str]) -> list[str]:
    """The rows of the table of switches: one walk that takes every ordered pair of models once."""
    wrong: list[str] = []
    page, found = open_page(browser, url, wrong), dict.fromkeys(models, 0)
    said: dict[str, list[str]] = {model: [] for model in models}
    tried = dict.fromkeys(models, 0)
    for one, other in itertools.permutations(models, 2):
        switch(page, one)
        bad = switch(page, other)
        tried[other] += 1
        found[other] += not bad
        said[other] += [f"after {Path(one).name}: {bad}"] if bad else []
    page.close()
    rows = [(f"to {Path(m).name} from every other", tried[m], found[m], said[m]) for m in models]
    return table("switch", rows) + [f"console: {line}" for line in wrong]


def table(what: str, rows: list[tuple[str, int, int, list[str]]]) -> list[str]:
    """Markdown, a row each and their sum, and below it what was wrong."""
    lines = [f"| {what} | tried | right |", "|---|---:|---:|"]
    lines += [f"| {name} | {tried} | {right} |" for name, tried, right, _ in rows]
    lines += [f"| **all** | {sum(row[1] for row in rows)} | {sum(row[2] for row in rows)} |", ""]
    return lines + [f"{name}: {said}" for name, *_, wrong in rows for said in wrong]


def plain_model(folder: Path, layers: int) -> str:
    """A plain Llama of so many layers, as somebody's own folder."""
    make_llama(num_hidden_layers=layers).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return str(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["starts", "switches"])
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        served([sys.executable, "app.py"]) as (url, _),
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        if options.only != "switches":
            print("\n".join(starts(browser, url)), flush=True)
        if options.only != "starts":
            own = [plain_model(Path(folder) / f"plain-{layers}", layers) for layers in (4, 30)]
            bundled = ["stories-loop", "stories-noinject", "arrows-loop", "glassbox"]
            print("\n".join(switches(browser, url, [*bundled, *own])), flush=True)
        browser.close()


if __name__ == "__main__":
    main()
