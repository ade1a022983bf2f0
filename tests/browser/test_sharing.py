"""What leaves the page and comes back: a link, a run's file, a report, a panel's picture and data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from playwright.sync_api import Browser, Page, expect

from loopviz.trace.file import load
from tests.browser.conftest import PATIENCE, Visits
from tests.browser.test_explore import (
    Visit,
    data,
    drawn,
    ended,
    inside,
    run,
    same_as_server,
    settle,
)


@pytest.fixture
def finished(lasting: Visits) -> Iterator[Page]:
    """A page with a finished run of a few words, for the tests that save something of it and leave it as it is."""
    page = lasting.look()
    page.bring_to_front()  # a page behind another's tab is given no frames
    if data(page, "run") == "recorded":
        short_run(page)
    yield page
    wrong, lasting.wrong[:] = [*lasting.wrong], []
    assert wrong == []


def chosen(page: Page, what: str, menu: str = "Save & share") -> None:
    """Choose an action of a menu."""
    page.get_by_role("button", name=menu).first.click()
    page.get_by_role("button", name=what).first.click()


def saved(page: Page, what: str, folder: Path, menu: str = "Save & share") -> Path:
    """The file an action gives."""
    with page.expect_download() as waited:
        chosen(page, what, menu)
    file = folder / waited.value.suggested_filename
    waited.value.save_as(file)
    return file


def short_run(page: Page, prompt: str = "Once upon a time") -> None:
    """A finished run of a few words, all drawn."""
    settle(page, "sampling", "max_new_tokens", 8)
    run(page, prompt)
    ended(page)
    drawn(page)


def test_a_link_reopens_what_was_set_up_and_run_at_once_runs_what_it_holds(visit: Visit) -> None:
    page = visit()
    settle(page, "loop", "loop_count", 3)
    short_run(page, "The loop thought")
    page.locator(".lv-switch[data-name=state_trajectory]").click()
    page.get_by_role("listbox", name="Generated text").get_by_role("option").nth(3).click()
    page.wait_for_function("() => document.querySelector('.lv').dataset.focus === '3'")
    chosen(page, "Copy link")
    word = page.get_by_label("Link to what is set up here").input_value().partition("?")[2]
    other = visit(f"?{word}", apart=True)
    expect(other.locator("#ctl-prompt textarea")).to_have_value("The loop thought")
    expect(other.locator("#ctl-loop_count input[type=number]")).to_have_value("3")
    assert inside(other, "JSON.parse(page.wishes()).panels") == inside(page, "JSON.parse(page.wishes()).panels")
    assert "state_trajectory" not in inside(other, "JSON.parse(page.wishes()).panels")
    # A13: a link brings settings, never a result, and nobody else's run stands in its place
    assert data(other, "run") == ""
    expect(other.locator(".lv-linked")).to_contain_text("The loop thought")
    expect(other.locator(".lv-linked")).to_contain_text("run 3 times")
    expect(other.locator(".lv-tok")).to_have_count(0)
    other.locator(".lv-link-recorded").click()
    other.wait_for_function("() => document.querySelector('.lv').dataset.run === 'recorded'")
    other.reload()
    other.wait_for_selector('.lv[data-ready="1"][data-model="ready"]')
    other.locator(".lv-link-run").click()
    ended(other)
    other.wait_for_function("() => document.querySelector('.lv').dataset.focus === '3'")
    untimed = "page.tokens.map((row) => row.slice(0, 5))"
    assert inside(other, untimed) == inside(page, untimed)
    same_as_server(other)
    # a link that is run at once runs what it holds: on a slow connection its words are there before the controls are; they are
    # waited for, and Stop ends that
    held: list[Any] = []
    free: list[bool] = []
    page.route("**/run/predict**", lambda route: route.continue_() if free else held.append(route))
    page.goto(f"{page.url.partition('?')[0]}?{word}")
    page.locator(".lv-link-run").click()
    page.wait_for_selector('.lv[data-state="starting"]')
    page.evaluate("() => document.querySelector('.lv').page.stopping()")
    page.wait_for_selector('.lv[data-state="idle"]')
    page.evaluate("() => document.querySelector('.lv').page.start()")
    page.wait_for_selector('.lv[data-state="starting"]')
    while not held:  # Gradio comes later than our own script
        page.wait_for_timeout(100)
    free.append(True)
    for route in held:
        route.continue_()
    ended(page)
    assert inside(page, "page.tokens.map((row) => row[1][0])") == [3] * len(inside(page, "page.tokens"))
    assert "".join(inside(page, "page.tokens.map((row) => row[0])")).startswith("The loop thought")


def test_a_damaged_link_is_told_and_the_page_opens_all_the_same(visit: Visit) -> None:
    page = visit("?s=1damaged")
    expect(page.locator(".lv-notice-bad")).to_contain_text("Of it:")
    settle(page, "sampling", "max_new_tokens", 4)
    run(page)
    ended(page)


def test_a_run_is_saved_and_opened_again(finished: Page, visit: Visit, tmp_path: Path) -> None:
    page = finished
    file = saved(page, "Save run", tmp_path)
    trace = load(file)
    assert [frame["text"] for frame in trace.frames] == inside(page, "page.tokens.map((row) => row[0])")
    other = visit(apart=True, refused=True)
    other.locator(".lv input[type=file]").set_input_files(file)
    expect(other.locator(".lv-badge")).to_have_text(f"opened file · {file.name}")
    drawn(other)
    assert inside(other, "page.tokens") == inside(page, "page.tokens")
    other.get_by_role("slider", name="Tokens shown").fill("3")
    other.wait_for_function("() => document.querySelector('.lv').dataset.t === '3'")
    # a file that is none is told, and what is on screen stays
    (tmp_path / "notes.loopviz").write_text("not a run")
    other.locator(".lv input[type=file]").set_input_files(tmp_path / "notes.loopviz")
    expect(other.locator(".lv-notice-bad")).to_contain_text("This is not a run saved by LoopViz")
    assert data(other, "t") == "3"


def test_a_report_opens_offline(finished: Page, browser: Browser, tmp_path: Path) -> None:
    page = finished
    file = saved(page, "Report", tmp_path)
    context = browser.new_context(offline=True)
    report = context.new_page()
    report.set_default_timeout(PATIENCE)
    asked: list[str] = []
    report.on("request", lambda request: asked.append(request.url))
    report.goto(file.as_uri(), wait_until="domcontentloaded")
    report.wait_for_selector("body[data-ready='1']")
    report.wait_for_selector("article[data-panel='convergence'] .main-svg", state="attached")
    assert report.locator(".tok").count() >= int(data(page, "t"))
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    context.close()


def test_a_panel_s_picture_and_data(finished: Page, tmp_path: Path) -> None:
    page = finished
    menu = "Export: " + inside(page, "page.panels.get('convergence').words.name")
    table = pd.read_csv(saved(page, "Data (CSV)", tmp_path, menu))
    assert len(table) > 8
    whole = pd.read_parquet(saved(page, "Data (Parquet)", tmp_path, menu))
    assert list(whole.columns) == list(table.columns)
    assert saved(page, "Picture (PNG)", tmp_path, menu).read_bytes()[:4] == b"\x89PNG"
    picture = saved(page, "Picture (SVG)", tmp_path, menu).read_text(encoding="utf-8")
    assert "Does the loop settle?" in picture
    assert picture.count("<path") > 10
