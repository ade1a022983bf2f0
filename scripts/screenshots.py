"""Take the pictures of the README, `assets/screenshots/`, and the one of a link's preview, `assets/preview.png`.

    python scripts/screenshots.py                  all of them, from the app as it is, with the bundled models
    python scripts/screenshots.py explore phone    some

Needs the development requirements and a Chromium (`python3 scripts/run.py test` sets both up).
"""

from __future__ import annotations

import sys
from base64 import b64encode
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
FOLDER = ROOT / "assets" / "screenshots"
READY = '.lv[data-ready="1"][data-model="ready"]'
WIDE = {"width": 1400, "height": 1250}


def still(page: Any) -> None:
    """Wait until the run is over and every panel on screen shows all of it."""
    page.wait_for_function(
        "() => { const d = document.querySelector('.lv').dataset; return d.end && d.drawn === d.t; }"
    )
    page.wait_for_timeout(1500)  # formulas, fonts


def first_sight(page: Any, url: str) -> None:
    """What the page opens with."""
    page.goto(url)
    page.wait_for_selector(READY)
    still(page)


def panels(page: Any, url: str) -> None:
    """The open group of panels, in Chinese."""
    page.goto(url + "?lang=zh")
    page.wait_for_selector(READY)
    still(page)
    page.evaluate("document.querySelector('.lv-grid').scrollIntoView()")
    page.wait_for_timeout(1500)


def solved(page: Any, problem: int) -> str:
    """One of the suggested chains of arrows, followed until the state settles: the chain, and how its question settled."""
    page.set_viewport_size(WIDE)  # where every control is in sight
    before = page.evaluate("document.querySelector('.lv').dataset.run")
    page.click("#lv-try .lv-drop-open")
    page.locator(".lv-example").nth(problem).click()
    page.wait_for_function(
        "(before) => { const d = document.querySelector('.lv').dataset; return d.run !== before && d.end; }", arg=before
    )
    page.evaluate("""() => { const { page } = document.querySelector('.lv');
      page.look({ token: page.tokens.findIndex((row) => row[0].endsWith('?')) }); }""")
    page.wait_for_function("() => !document.querySelector('.lv').page.looking")
    still(page)
    page.set_viewport_size({"width": 416, "height": 1250})
    page.wait_for_timeout(1000)  # until the plot has the narrow panel's size
    panel = page.locator('.lv-panel[data-panel="convergence"]')
    panel.scroll_into_view_if_needed()
    page.mouse.move(0, 0)  # off the plot's buttons
    page.wait_for_timeout(500)
    picture = b64encode(panel.screenshot()).decode()
    prompt = page.input_value("#ctl-prompt textarea")
    *arrows, question = prompt.split()
    ways, chain = dict(arrow.split(">") for arrow in arrows), [question.rstrip("?")]
    while chain[-1] in ways:
        chain.append(ways[chain[-1]])
    words = f"<b>{len(chain) - 1} arrows: {' → '.join(chain)}</b><p>{escape(prompt)}</p>"
    return f'<div>{words}<img src="data:image/png;base64,{picture}"></div>'


def arrows(page: Any, url: str) -> None:
    """Chains of two, four and eight arrows beside each other: the deeper the problem, the more loops."""
    page.goto(url)
    page.wait_for_selector(READY)
    page.fill("#ctl-model input", "arrows-loop")
    page.press("#ctl-model input", "Enter")
    page.wait_for_function("() => document.querySelector('.lv-model').textContent.startsWith('arrows-loop is ready')")
    page.wait_for_function("() => document.querySelector('#ctl-max_loop_count input').value === '24'")
    page.fill("#ctl-max_loop_count input", "10")  # no more of the axis than is used
    columns = [solved(page, problem) for problem in (1, 0, 3)]
    page.set_content(
        """<style>body { margin: 12px; display: flex; align-items: start; gap: 12px; background: #f6f7f9; color: #1f2733; font: 15px system-ui }
        p { margin: 2px 0 8px; color: #5b6675; font-size: 13px } div { width: 392px } img { display: block }</style>"""
        + "".join(columns)
    )
    height = page.evaluate("document.querySelector('div').scrollHeight") + 24
    page.set_viewport_size({"width": 3 * (392 + 12) + 12, "height": height})


def preview(page: Any, url: str) -> None:
    """What a link shows where it is posted (`loopviz.app.server.link_preview`): the recorded run's words in their colours."""
    page.goto(url)
    page.wait_for_selector(READY)
    still(page)
    words = page.evaluate("document.querySelector('.lv-text').innerHTML")
    legend = page.evaluate("document.querySelector('.lv-legend').innerHTML")
    styles = ROOT / "assets" / "web" / "styles"
    sheet = "".join((styles / f"{name}.css").read_text(encoding="utf-8") for name in ("base", "explore", "hero"))
    own = """body { margin: 0; width: 1200px; height: 630px; box-sizing: border-box; padding: 52px 64px; overflow: hidden; background: #f6f7f9; color: #1f2733 }
      h1 { font: 650 62px/1.1 system-ui; margin: 0 } p { font: 30px/1.4 system-ui; margin: 8px 0 26px; color: #5b6675 }
      .lv-text { font: 33px/1.75 system-ui !important; height: auto !important; max-height: 285px; overflow: hidden !important; resize: none !important }
      .lv-legend { font: 22px system-ui; color: #5b6675; margin-top: 24px; gap: 10px } .lv-selected { outline: 0 } .lv-unread { display: none }"""
    said = "Watch a language model read every word several times over."
    page.set_content(
        f"<style>{sheet}</style><style>{own}</style><h1>LoopViz</h1><p>{said}</p>"
        f"<div class='lv-text'>{words}</div><div class='lv-legend'>{legend}</div>"
    )


SHOTS: dict[str, tuple[Callable[[Any, str], None], dict[str, Any]]] = {
    "explore": (first_sight, {"viewport": WIDE}),
    "explore-dark-zh": (panels, {"viewport": WIDE, "color_scheme": "dark"}),
    "arrows": (arrows, {"viewport": WIDE}),
    "preview": (preview, {"viewport": {"width": 1200, "height": 630}}),
    "phone": (first_sight, {"viewport": {"width": 390, "height": 1250}, "has_touch": True, "is_mobile": True}),
}


def main(names: list[str]) -> int:
    """Take the pictures named, or all; returns the exit code."""
    from playwright.sync_api import sync_playwright

    from scripts.run import find_chromium
    from scripts.serving import served

    if unknown := set(names) - set(SHOTS):
        print(f"{', '.join(sorted(unknown))}: must be of {', '.join(SHOTS)}", file=sys.stderr)
        return 2
    FOLDER.mkdir(parents=True, exist_ok=True)
    with served([sys.executable, "app.py"]) as (url, _), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        for name in names or SHOTS:
            shoot, options = SHOTS[name]
            page = browser.new_context(**options).new_page()
            page.set_default_timeout(300_000)
            shoot(page, url)
            file = (FOLDER.parent if name == "preview" else FOLDER) / f"{name}.png"
            page.screenshot(path=file)
            page.context.close()
            print(f"{file.relative_to(ROOT)}: {file.stat().st_size // 1024} KB")
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
