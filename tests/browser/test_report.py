"""The report and the notebook's frame in a Chromium without a network: all figures drawn, nothing asked for, nothing run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Frame, Page

import loopviz
from loopviz.export import report
from loopviz.panels import PANELS, Focus
from tests.export.test_report import hostile
from tests.trace.synthetic import random_trace

PATIENCE = 120_000  # milliseconds; generous, the machine may be busy


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page without a network, which must not err, ask anyone for anything, or run what a trace says."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True, color_scheme="dark")
    opened, wrong = context.new_page(), []
    opened.set_default_timeout(PATIENCE)
    opened.set_default_navigation_timeout(PATIENCE)
    opened.on(
        "request", lambda asked: wrong.append(asked.url) if not asked.url.startswith(("file:", "about:")) else None
    )
    opened.on("pageerror", lambda error: wrong.append(f"page error: {error}"))
    opened.on("dialog", lambda said: wrong.append(f"dialog: {said.message}"))
    opened.on("console", lambda said: wrong.append(f"console: {said.text}") if said.type == "error" else None)
    yield opened
    context.close()
    assert wrong == []


def drawn(page: Page | Frame, name: str, at: str) -> None:
    """Wait until the panel shows the run at `at`."""
    article = page.locator(f"article[data-panel='{name}']")
    article.scroll_into_view_if_needed()
    page.wait_for_selector(f"article[data-panel='{name}'][data-drawn='{at}'] .main-svg", state="attached")


def test_a_report_opens_offline_and_replays_the_run(page: Page, tmp_path: Path) -> None:
    trace = hostile()
    report.save(trace, tmp_path / "report.html", Focus(lang="zh"))
    page.goto((tmp_path / "report.html").as_uri(), wait_until="domcontentloaded")
    page.wait_for_selector("body[data-ready='1']")
    shown = [name for name in PANELS if page.locator(f"article[data-panel='{name}']").count()]
    assert "convergence" in shown
    for name in shown:
        drawn(page, name, "all")
    page.locator(".tok[data-i='4']").click()
    drawn(page, "convergence", "5")
    assert page.locator(".tok.here").get_attribute("data-i") == "4"
    assert page.locator(".tok.later").count() == len(trace) - 5
    page.set_viewport_size({"width": 500, "height": 900})
    page.wait_for_function("document.querySelector('article .main-svg').clientWidth < 500")
    over = page.evaluate("""() => [...document.querySelectorAll('article .main-svg')].filter((plot) =>
      plot.getBoundingClientRect().bottom > plot.closest('.plot').getBoundingClientRect().bottom + 1).length""")
    assert over == 0, "a plot keeps its height in a window made narrow"
    summary = page.locator("article[data-panel='convergence'] .summary").text_content()
    trace_then = type(trace)(trace.meta, trace.frames[:5])
    assert summary == PANELS["convergence"].summary(trace_then, Focus(lang="zh"))
    page.locator(".replay input").press("Home")
    drawn(page, "convergence", "0")
    page.locator(".replay button").nth(1).click()
    drawn(page, "convergence", "all")


def test_a_notebooks_frame_draws_and_stays_in_its_sandbox(page: Page, tmp_path: Path) -> None:
    shown = loopviz.explore(random_trace(1, 5), panels=["convergence"])
    (tmp_path / "notebook.html").write_text(f"<title>notebook</title>{shown._repr_html_()}", encoding="utf-8")
    page.goto((tmp_path / "notebook.html").as_uri(), wait_until="domcontentloaded")
    frame = page.locator("iframe").element_handle().content_frame()
    assert frame is not None
    frame.wait_for_selector("body[data-ready='1']")
    drawn(frame, "convergence", "all")
    # the frame is nobody's origin: it cannot reach the page around it
    assert frame.evaluate(
        "(() => { try { return parent.document.title; } catch (error) { return error.name; } })()"
    ) == ("SecurityError")
