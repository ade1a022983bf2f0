"""Every text on every page can be read, in light and dark (A20): measured in pixels, with runs that show all there is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import BrowserContext, Page

from loopviz.export import report
from loopviz.panels import PANELS, Focus
from tests.browser.conftest import left, opened
from tests.browser.contrast import contrast, faint
from tests.browser.test_explore import settle
from tests.export.test_report import hostile

ALL_ON = f"localStorage.setItem('loopviz.panels', JSON.stringify({json.dumps(dict.fromkeys(PANELS, True))}))"
STILL = "() => { const d = document.querySelector('.lv').dataset; return d.end && d.drawn === d.t; }"
DRAWN = """() => { const page = document.querySelector('.lv-page');
  return page ? page.dataset.drawn === 'true' : (({ drawn, t }) => drawn === t)(document.querySelector('.lv').dataset); }"""


def visited(context: BrowserContext, **media: Any) -> Page:
    """A page with every panel on."""
    page = opened(context, **media)
    page.add_init_script(ALL_ON)
    return page


@pytest.fixture
def page(usual_context: BrowserContext) -> Iterator[Page]:
    page = visited(usual_context)
    yield page
    left(page)


@pytest.fixture(scope="module")
def explore(usual_context: BrowserContext, bundled_url: str) -> Iterator[Page]:
    """Explore with every panel on, for all tests of it one after the other: opening it takes longer than measuring it."""
    page = visited(usual_context)
    page.goto(bundled_url)
    page.wait_for_selector('.lv[data-ready="1"][data-model="ready"]')
    page.wait_for_function(STILL)
    yield page
    left(page)


def turned(page: Page) -> None:
    """The other look, with everything drawn anew in it. By what the button does: an open dialog may lie over the button."""
    page.evaluate("""() => { document.querySelector('.lv, .lv-page').dataset.drawn = '';
      document.body.classList.toggle('dark'); }""")
    page.wait_for_function(DRAWN)


def read(page: Page) -> None:
    """All of the page can be read, in light and in dark; of Explore's panels every group."""
    read_as_it_is(page)
    # (by their names: which of them are not selected changes with every press)
    for tab in page.locator(".lv-tab[aria-selected=false]").evaluate_all("(tabs) => tabs.map((tab) => tab.id)"):
        page.click(f"#{tab}")
        page.wait_for_function("() => !document.querySelector('.lv').page.looking")
        page.wait_for_function(STILL)
        read_as_it_is(page)


def read_as_it_is(page: Page) -> None:
    """What of the page is shown can be read, in light and in dark; it stays in the look that was looked at last."""
    found = told(page)
    turned(page)
    legible(found + told(page))


def told(page: Page) -> list[str]:
    """The texts that are too faint in the look the page has now, a line a text."""
    look = "dark" if page.evaluate("document.body.classList.contains('dark')") else "light"
    return [f"{look}: {one}" for one in faint(page)]


def legible(found: list[str]) -> None:
    assert not found, f"{len(found)} texts are too faint:\n" + "\n".join(found[:60])


def looked_at(page: Page, look: str) -> None:
    """Another word selected, everything drawn."""
    page.evaluate(f"document.querySelector('.lv').page.look({look})")
    page.wait_for_function("() => !document.querySelector('.lv').page.looking")
    page.wait_for_function(STILL)


def test_the_measure_finds_what_is_too_faint(page: Page) -> None:
    """Grey on white, text on an image, a thinned ancestor; and passes what is not. It says which colours, and where."""
    page.set_content("""<!doctype html><body class="block" style="background: white; margin: 0; font: 16px sans-serif"><p style="color: #999">grey</p>
      <p style="color: #333">dark</p><div style="opacity: .4"><p style="color: black">thinned</p></div>
      <svg width="200" height="30"><rect width="200" height="30" fill="#fee838"/><text y="20" fill="white">on yellow</text></svg>
      <h1 style="color: #8a8a8a; font-size: 30px">large</h1><input disabled></body>""")
    found = {one.text: one for one in faint(page)}
    assert set(found) == {"grey", "thinned", "on yellow"}
    assert (found["grey"].colour, found["grey"].behind, found["grey"].at) == ("#999999", "#ffffff", (3, 16))
    assert (found["thinned"].colour, found["on yellow"].behind) == ("#999999", "#fee838")
    assert round(float(contrast(np.zeros(3), 1.0, np.full((1, 3), 255.0))[0])) == 21


def test_a20_the_recorded_run_and_a_word_held_can_be_read(explore: Page) -> None:
    looked_at(explore, "{ token: 12, pins: [3] }")
    explore.evaluate("document.querySelectorAll('#lv-settings .label-wrap:not(.open)').forEach((node) => node.click())")
    read(explore)


def test_a20_glossary_and_tour_can_be_read(explore: Page) -> None:
    """One after the other in one look, then in the other: everything below them is drawn anew once."""

    def glossary() -> list[str]:
        explore.click("#lv-learn .lv-glossary-open")
        explore.wait_for_selector(".lv-glossary section")
        found = told(explore)
        explore.keyboard.press("Escape")
        return found

    found = glossary()
    explore.click("#lv-learn .lv-tour-open")
    explore.wait_for_selector(".lv-tour")
    found += told(explore)
    turned(explore)
    found += told(explore)
    explore.keyboard.press("Escape")
    legible(found + glossary())


@pytest.mark.parametrize("model", ["glassbox", "arrows-loop", "stories-loop"])
def test_a20_runs_with_all_panels_can_be_read(explore: Page, model: str) -> None:
    """Cells near certainty (glassbox), deep chains (arrows), what is recorded anew: hatches, bars, heat maps, tints."""
    explore.fill("#ctl-model input", model)
    explore.press("#ctl-model input", "Enter")
    explore.wait_for_function(
        "(model) => document.querySelector('.lv-model').textContent.startsWith(`${model} is ready`)", arg=model
    )
    settle(explore, "sampling", "max_new_tokens", 8)  # (glassbox alone would make 73; they show no other kind of text)
    before = explore.evaluate("document.querySelector('.lv').dataset.run")
    explore.click("#lv-run")
    explore.wait_for_function(
        "(before) => { const d = document.querySelector('.lv').dataset; return d.run !== before && d.end; }", arg=before
    )
    looked_at(explore, "{ token: 3 }")
    read(explore)


def test_a20_a_comparison_can_be_read(page: Page, bundled_url: str) -> None:
    page.goto(bundled_url + "compare")
    page.wait_for_selector('.lv-page[data-ready="1"][data-model="ready"]')
    page.locator(".lv-asking > details > summary").click()
    page.locator("[data-field=max_new_tokens] input").fill("6")
    judged = page.locator("[data-field=continuation] textarea")
    judged.fill(judged.input_value()[:80])  # a sweep reads it with every number of loops
    page.locator(".lv-setup summary").nth(1).click()
    page.click(".lv-go")
    page.wait_for_selector('.lv-page[data-end="done"][data-drawn="true"]')
    read(page)


@pytest.mark.parametrize("task", ["where", "perplexity"])
def test_a20_a_measurement_can_be_read(page: Page, bundled_url: str, task: str) -> None:
    """And it is the first click of somebody who has typed nothing (A14)."""
    page.goto(f"{bundled_url}lab?task={task}")
    page.wait_for_selector('.lv-page[data-ready="1"][data-model="ready"]')
    page.locator(".lv-go").last.click()
    page.wait_for_selector('.lv-page[data-end="done"][data-drawn="true"]')
    assert page.locator(".lv-table tbody tr").count() > 2
    read(page)


def test_a20_a_report_can_be_read(usual_context: BrowserContext, tmp_path: Path) -> None:
    """A report follows the system's look, and has no button of its own: it is opened in either."""
    report.save(hostile(), tmp_path / "report.html", Focus())
    for scheme in ("light", "dark"):
        page = visited(usual_context, color_scheme=scheme)
        page.goto((tmp_path / "report.html").as_uri())
        page.wait_for_selector("body[data-ready='1']")
        for article in page.locator("article").all():
            article.scroll_into_view_if_needed()
        page.wait_for_function("() => [...document.querySelectorAll('article')].every((node) => node.dataset.drawn)")
        found = faint(page)
        assert not found, f"{scheme}:\n" + "\n".join(map(str, found))
        left(page)
