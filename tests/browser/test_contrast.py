"""Every text on every page can be read, in light and dark (A20): measured in pixels, with runs that show all there is."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from scripts.serving import served
from tests.browser.conftest import PATIENCE
from tests.browser.contrast import contrast, faint

pytestmark = pytest.mark.browser

ALL_ON = "localStorage.setItem('loopviz.panels', JSON.stringify({ instrument: true, key_similarity: true, attention: true, kv_projection: true }))"
STILL = "() => { const d = document.querySelector('.lv').dataset; return d.end && d.drawn === d.t; }"


@pytest.fixture(scope="module")
def bundled_url() -> Iterator[str]:
    """The address of the app with the models it comes with."""
    with served([sys.executable, "app.py"], env={**os.environ, "OMP_NUM_THREADS": "1"}) as (url, _):
        yield url


@pytest.fixture(params=["light", "dark"])
def page(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme=request.param)
    opened = context.new_page()
    opened.set_default_timeout(PATIENCE)
    opened.add_init_script(ALL_ON)
    yield opened
    context.close()


def ready(page: Page, url: str) -> None:
    page.goto(url)
    page.wait_for_selector('.lv[data-ready="1"][data-model="ready"]')
    page.wait_for_function(STILL)


def read(page: Page) -> None:
    """All of the page can be read."""
    found = faint(page)
    assert not found, "\n".join(map(str, found[:30]))


def test_the_measure_finds_what_is_too_faint(page: Page) -> None:
    """Grey on white, text on an image, a thinned ancestor; and passes what is not."""
    page.set_content("""<body style="background: white; margin: 0; font: 16px sans-serif"><p style="color: #999">grey</p>
      <p style="color: #333">dark</p><div style="opacity: .4"><p style="color: black">thinned</p></div>
      <svg width="200" height="30"><rect width="200" height="30" fill="#fee838"/><text y="20" fill="white">on yellow</text></svg>
      <h1 style="color: #8a8a8a; font-size: 30px">large</h1></body>""")
    assert {one.text for one in faint(page)} == {"grey", "thinned", "on yellow"}
    assert round(float(contrast(*(__import__("numpy").array(x) for x in ([0.0] * 3, 1.0, [[255.0] * 3])))[0])) == 21


def test_a20_the_recorded_run_and_a_word_held_can_be_read(page: Page, bundled_url: str) -> None:
    ready(page, bundled_url)
    page.evaluate("document.querySelector('.lv').page.look({ token: 12, pins: [3] })")
    page.wait_for_function("() => !document.querySelector('.lv').page.looking")
    page.wait_for_function(STILL)
    page.evaluate("document.querySelectorAll('#lv-settings .label-wrap:not(.open)').forEach((node) => node.click())")
    read(page)


@pytest.mark.parametrize("model", ["glassbox", "arrows-loop", "stories-loop"])
def test_a20_runs_with_all_panels_can_be_read(page: Page, bundled_url: str, model: str) -> None:
    """Cells near certainty (glassbox), deep chains (arrows), what is recorded anew: hatches, bars, heat maps, tints."""
    ready(page, bundled_url)
    page.fill("#ctl-model input", model)
    page.press("#ctl-model input", "Enter")
    page.wait_for_function(
        "(model) => document.querySelector('.lv-model').textContent.startsWith(`${model} is ready`)", arg=model
    )
    before = page.evaluate("document.querySelector('.lv').dataset.run")
    page.click("#lv-run")
    page.wait_for_function(
        "(before) => { const d = document.querySelector('.lv').dataset; return d.run !== before && d.end; }", arg=before
    )
    page.evaluate("document.querySelector('.lv').page.look({ token: 3 })")
    page.wait_for_function("() => !document.querySelector('.lv').page.looking")
    page.wait_for_function(STILL)
    read(page)


def test_a20_glossary_and_tour_can_be_read(page: Page, bundled_url: str) -> None:
    ready(page, bundled_url)
    page.click("#lv-learn .lv-glossary-open")
    page.wait_for_selector(".lv-glossary section")
    read(page)
    page.keyboard.press("Escape")
    page.click("#lv-learn .lv-tour-open")
    page.wait_for_selector(".lv-tour")
    read(page)


def test_a20_a_comparison_can_be_read(page: Page, bundled_url: str) -> None:
    page.goto(bundled_url + "compare")
    page.wait_for_selector('.lv-page[data-ready="1"][data-model="ready"]')
    page.locator(".lv-asking summary").click()
    page.locator("[data-field=max_new_tokens] input").fill("12")
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a20_a_report_can_be_read(browser: Browser, tmp_path: Path, scheme: str) -> None:
    from loopviz import report
    from loopviz.panels import Focus
    from tests.test_report import hostile

    report.save(hostile(), tmp_path / "report.html", Focus())
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto((tmp_path / "report.html").as_uri())
    page.wait_for_selector("body[data-ready='1']")
    for article in page.locator("article").all():
        article.scroll_into_view_if_needed()
    page.wait_for_function("[...document.querySelectorAll('article')].every((node) => node.dataset.drawn)")
    read(page)
    context.close()
