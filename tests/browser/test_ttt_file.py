"""TTT in a browser: the recorded run at first sight, a word chosen on a plot, a run saved, opened, refused; in both languages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from loopviz.app.ttt import opened
from loopviz.panels.ttt import TTT_PANELS
from loopviz.trace.file import load, save
from tests.browser.test_axe import findings
from tests.browser.test_ttt import IDLE, NEXT, field
from tests.trace.synthetic import random_trace

Visit = Callable[..., Page]


def at_ttt(visit: Visit, query: str = "?lang=en", **options: Any) -> Page:
    page = visit(at="compare", **options)
    page.goto(page.url.replace("compare", "ttt").partition("?")[0] + query)
    page.wait_for_selector(f'{IDLE}[data-end="length"][data-drawn="true"][data-model="ready"]')
    return page


def click_at(page: Page, panel: str, x: float, y: float) -> None:
    """A click on a plot, at a place of its axes."""
    where = page.evaluate(
        """([panel, x, y]) => {
          const plot = document.querySelector(`[data-panel=${panel}] .lv-plot`);
          plot.scrollIntoView({ block: "center" });
          const { xaxis, yaxis } = plot._fullLayout;
          const box = plot.getBoundingClientRect();
          return [box.x + xaxis._offset + xaxis.l2p(x), box.y + yaxis._offset + yaxis.l2p(y)];
        }""",
        [panel, x, y],
    )
    page.mouse.move(where[0] - 2, where[1])
    page.mouse.move(*where)
    page.wait_for_timeout(150)
    page.mouse.click(*where)


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_recorded_run_is_shown_at_first_sight_and_run_replaces_it(visit: Visit, lang: str) -> None:
    trace = opened.stored()
    assert trace is not None
    dark = "&__theme=dark" if lang == "zh" else ""
    page = at_ttt(visit, f"?lang={lang}{dark}")
    expect(page.locator(".lv-ttt-files .lv-badge")).to_have_text({"en": "recorded run", "zh": "录制的运行"}[lang])
    assert page.evaluate(f"{NEXT}.words.length") == len(trace)
    for name in [*TTT_PANELS, "attention"]:
        expect(page.locator(f'[data-panel="{name}"] .main-svg').first).to_be_visible()
    assert [one for one in findings(page) if "modebar" not in one] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    field(page, "max_new_tokens").fill("6")
    field(page, "pace").select_option("0")
    page.get_by_role("button", name={"en": "Run", "zh": "运行"}[lang], exact=True).click()
    page.wait_for_function(f"() => {NEXT}.words.length < 40 && {NEXT}.run.end === 'length'")
    expect(page.locator(".lv-ttt-files .lv-badge")).to_be_hidden()


def test_a_click_on_a_plot_chooses_its_word(visit: Visit) -> None:
    page = at_ttt(visit)
    # out of sight it is drawn after what is in sight
    expect(page.locator('[data-panel="drift"] .main-svg').first).to_be_visible()
    y = page.evaluate("document.querySelector('[data-panel=drift] .lv-plot').data[0].y[21]")
    click_at(page, "drift", 21, y)
    page.wait_for_selector('.lv-page[data-token="21"][data-drawn="true"]')
    expect(page.locator('.lv-words [data-i="21"]')).to_have_attribute("aria-selected", "true")
    expect(page.locator('[data-panel="dual"] .lv-headline')).to_contain_text("words 16 to 31")
    click_at(page, "dual", 2, 9)  # the row of word 25
    page.wait_for_selector('.lv-page[data-token="25"]')
    click_at(page, "held", 3, 0.1)  # ages are no words
    page.wait_for_timeout(200)
    assert page.evaluate(f"{NEXT}.where.token") == 25


def test_a_run_is_saved_and_opened_and_another_kind_is_told_where_it_belongs(visit: Visit, tmp_path: Path) -> None:
    page = at_ttt(visit, "?lang=zh", refused=True)
    with page.expect_download() as coming:
        page.get_by_role("button", name="保存运行").click()
    file = tmp_path / coming.value.suggested_filename
    coming.value.save_as(file)
    assert load(file) == opened.stored()
    choose = page.locator(".lv-ttt-files input[type=file]")
    choose.set_input_files(file)
    expect(page.locator(".lv-ttt-files .lv-badge")).to_have_text(f"打开的文件 · {file.name}")
    page.wait_for_selector(f'{IDLE}[data-drawn="true"]')
    page.locator('[data-i="12"]').click()
    expect(page.locator('[data-panel="held"] .lv-headline')).to_contain_text("第 12 个词")
    page.get_by_role("button", name="遗忘").last.click()
    expect(page.locator('[data-panel="forgetting"] .main-svg').first).to_be_visible()
    looped = tmp_path / "looped.loopviz"
    save(random_trace(0, 3), looped)
    choose.set_input_files(looped)
    expect(page.locator(".lv-status").first).to_contain_text("应在“探索”页打开")
    expect(page.locator(".lv-ttt-files .lv-badge")).to_have_text(f"打开的文件 · {file.name}")
    page.get_by_role("button", name="English").click()
    expect(page.locator(".lv-ttt-files .lv-badge")).to_have_text(f"opened file · {file.name}")
    expect(page.locator('[data-panel="held"] .lv-headline')).to_contain_text("after word 12")


def test_a_run_is_kept_opened_by_its_link_as_it_was_looked_at_and_deleted(visit: Visit) -> None:
    page = at_ttt(visit, apart=True, refused=True)
    field(page, "layer").select_option("1")
    page.locator('[data-i="12"]').click()
    page.wait_for_selector(f'{IDLE}[data-token="12"][data-drawn="true"]')
    page.get_by_role("button", name="Link to this very run").click()
    link = page.get_by_label("Link to the saved run").input_value()
    said = page.locator(".lv-notice").first
    said.get_by_text("Saved until").wait_for()
    assert "/ttt?" in link

    other = at_ttt(visit, f"?lang=zh&__theme=dark&{link.partition('?')[2]}", apart=True, refused=True)
    expect(other.locator(".lv-ttt-files .lv-badge")).to_contain_text("已保存的运行 · ")
    assert other.evaluate(f"{NEXT}.n") == 0, "nothing was run"
    assert other.evaluate(f"{NEXT}.where") == {"layer": 1, "head": None, "token": 12}
    assert other.evaluate(f"{NEXT}.words") == page.evaluate(f"{NEXT}.words")
    expect(other.locator('[data-panel="held"] .lv-headline')).to_contain_text("第 12 个词")
    expect(other.locator(".lv-notice").first).to_be_hidden()

    page.goto(link)  # its owner, in the same browser, at another time
    said.get_by_text("You saved this run.").wait_for()
    page.get_by_role("button", name="Delete it from the server").click()
    said.get_by_text("Deleted").wait_for()
    page.goto(link)
    said.get_by_text("This saved run was deleted: by who saved it,").wait_for()
    expect(page.locator(".lv-ttt-files .lv-badge")).to_have_text("recorded run")
