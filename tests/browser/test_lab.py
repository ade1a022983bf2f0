"""The manual's experiment at one press of the Lab page: it fills its table and plot, can be ended, and its rows open in Explore."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from playwright.sync_api import Page, expect

from loopviz.lab.tasks.manual_experiment import CONFIGURATIONS, SIZES

TEXT = "Once upon a time there was a little loop that went round and round. The loop thought again, and again. "


def test_the_manual_s_experiment_is_one_press(visit: Callable[..., Page], tmp_path: Path) -> None:
    page = visit(at="lab")
    expect(page.locator('.lv-task[data-task="experiment"]')).to_have_attribute("aria-pressed", "true")
    sizes = page.locator(".lv-sizes button")
    expect(sizes).to_have_text([re.compile(rf"^{size.words['en']}( · about .+)?$") for size in SIZES])
    page.locator("[data-field=text] textarea").fill(TEXT * 8)
    sizes.first.click()
    expect(page.locator('.lv-page[data-end="done"][data-drawn="true"]')).to_be_visible()
    rows = page.locator(".lv-table tbody tr")
    expect(rows).to_have_count(1 + len(CONFIGURATIONS))
    expect(rows.first.locator("th")).to_have_text("baseline")
    spilt = "nodes => nodes.filter((node) => node.scrollWidth > node.clientWidth || getComputedStyle(node).whiteSpace !== 'normal')"
    assert page.eval_on_selector_all(".lv-table tbody th", f"{spilt}.length") == 0, "a name lies over the numbers"
    bars = page.locator('[data-panel="plot"] .main-svg .barlayer .trace')
    expect(bars).to_have_count(4)
    # what was pressed can be read
    page.locator(".lv-asking > details > summary").click()
    for name in ("window", "prompt_tokens", "new_tokens"):
        expect(page.locator(f"[data-field={name}] input")).to_have_value(str(SIZES[0].values[name]))
    for name in SIZES[0].fits:  # as much as some seconds allow here
        assert 1 <= int(page.locator(f"[data-field={name}] input").input_value()) <= SIZES[0].values[name]
    with page.expect_download() as chosen:
        page.locator(".lv-rows .lv-files button").first.click()
    chosen.value.save_as(tmp_path / "table.csv")
    table = pd.read_csv(tmp_path / "table.csv")
    assert table["mean_loops"].tolist()[:3] == [1, 3, 5]
    assert (table["peak_bytes"] > 0).all()
    # the baseline has no loop to open; the others open with theirs
    page.locator(".lv-after button").first.click()
    expect(page.locator(".lv-status.lv-bad")).to_contain_text("Explore")
    with page.context.expect_page(lambda one: "?s=" in one.url or one.url == "about:blank") as tab:
        page.locator(".lv-after button").nth(2).click()
    explore = tab.value  # in a tab of its own: the measurement stays
    expect(explore).to_have_url(re.compile(r"/\?s="))
    explore.wait_for_selector('.lv[data-ready="1"][data-model="ready"]')
    expect(explore.locator("#ctl-block_start input")).to_have_value("4")
    expect(explore.locator("#ctl-block_end input")).to_have_value("7")
    explore.close()


def test_the_manual_s_experiment_can_be_ended_between_two_tokens(visit: Callable[..., Page]) -> None:
    page = visit(at="lab")
    page.locator("[data-field=text] textarea").fill(TEXT * 60)
    page.locator(".lv-sizes button").last.click()
    page.wait_for_function("() => +document.querySelector('.lv-page').dataset.rows >= 1")
    for button in page.locator(".lv-sizes button").all():
        expect(button).to_be_enabled()  # another start would take this one's place
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.locator('.lv-page[data-end="stopped"]')).to_be_visible()
    assert 1 <= page.locator(".lv-table tbody tr").count() < 4
    # a start while one is made ends it and comes
    page.locator(".lv-sizes button").last.click()
    page.wait_for_function("() => document.querySelector('.lv-page').dataset.state === 'running'")
    first = page.evaluate(
        "document.querySelector('.lv-page').page?.run?.run ?? document.querySelector('.lv-page').dataset.run"
    )
    page.locator(".lv-sizes button").first.click()
    expect(page.locator('.lv-page[data-end="done"]')).to_be_visible()
    assert (
        page.evaluate(
            "document.querySelector('.lv-page').page?.run?.run ?? document.querySelector('.lv-page').dataset.run"
        )
        != first
    )


def test_c2_a_number_that_is_too_much_is_refused_beside_its_field(visit: Callable[..., Page]) -> None:
    page = visit(at="lab")
    page.locator('.lv-task[data-task="perplexity"]').click()
    page.locator("[data-field=text] textarea").fill(TEXT * 8)
    page.locator(".lv-asking > details > summary").click()
    field = page.locator("[data-field=batch]")
    expect(field.locator("input")).to_have_attribute("max", "4096")
    expect(field.locator(".lv-field-info")).to_contain_text("1 to 4,096.")
    field.locator("input").fill("100000")
    field.locator("input").blur()
    page.locator(".lv-as-set").click()
    expect(field).to_have_class(re.compile("lv-field-bad"))
    expect(field.locator(".lv-field-info")).to_contain_text("batch=100000: must be from 1 to 4,096")
    expect(page.locator(".lv-status.lv-bad")).to_contain_text("batch=100000")
    field.locator("input").fill("8")
    page.locator(".lv-as-set").click()
    expect(field).not_to_have_class(re.compile("lv-field-bad"))


def test_b11_the_lab_opens_finished_and_quick_comes_to_a_headline_with_no_field_touched(
    visit: Callable[..., Page],
) -> None:
    page = visit("?task=perplexity", at="lab")
    results = page.locator(".lv-results")
    expect(results).to_have_attribute("data-kind", "recorded")
    expect(page.locator(".lv-found .lv-badge")).to_have_text("recorded")
    recorded = page.locator(".lv-verdict").inner_text()
    assert "loops" in recorded
    expect(page.locator('[data-panel="plot"] .main-svg').first).to_be_visible()
    expect(page.locator('[data-panel="plot"] .main-svg').first).to_contain_text("trained: 1 to 16 loops")
    expect(page.locator(".lv-table tbody tr").first).to_be_visible()
    # text, model and what it is held in, and what is asked: the others are under More
    visible = page.locator(".lv-asking .lv-field:visible")
    assert {one.get_attribute("data-field") for one in visible.all()} == {"model", "precision", "loops", "text"}
    assert page.locator("[data-field=text] textarea").input_value().strip()
    quick, full = page.locator(".lv-sizes button").all()
    for button, size in ((quick, "Quick"), (full, "Full")):
        expect(button).to_have_text(re.compile(rf"^{size} · about \d+ (s|min|h)$"))
    before = page.locator(".lv-found").bounding_box()
    quick.click()
    expect(page.locator('.lv-page[data-end="done"][data-shown="own"]')).to_be_visible()
    expect(page.locator(".lv-verdict")).not_to_have_text(recorded)
    expect(page.locator(".lv-verdict")).to_contain_text("Best at")
    expect(page.locator(".lv-found .lv-badge")).to_be_hidden()
    after = page.locator(".lv-found").bounding_box()
    assert before is not None
    assert after is not None
    assert abs(before["y"] - after["y"]) <= 2, "what is measured takes the recorded one's place"
    # in the other language the same result
    page.locator("[data-lang=zh]").click()
    expect(page.locator(".lv-verdict")).to_contain_text("最好的是")
    # another measurement opens with its own
    page.locator('.lv-task[data-task="influence"]').click()
    expect(results).to_have_attribute("data-kind", "recorded")
    expect(page.locator(".lv-verdict")).to_contain_text("第")


def test_a_small_experiment_is_one_figure_and_one_slider(visit: Callable[..., Page]) -> None:
    page = visit("?task=norms", at="lab")
    slider, said = page.locator(".lv-walk input"), page.locator(".lv-walk-said")
    verdict = page.locator(".lv-verdict").inner_text()
    expect(said).to_have_text(verdict)  # at the last place, all that was measured
    marks = """(x) => { const [mark, ...more] = document.querySelector('[data-panel="plot"] .lv-plot')._fullLayout.shapes;
      return !more.length && mark.x0 === x && mark.x1 === x; }"""
    page.wait_for_function(marks, arg=8)
    slider.focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    expect(said).to_contain_text("After loop 1 ")
    expect(slider).to_have_attribute("aria-valuetext", "1")
    page.wait_for_function(marks, arg=1)
    # in the other language the same place
    page.locator("[data-lang=zh]").click()
    expect(said).to_contain_text("第 1 次循环之后")
    expect(page.locator(".lv-walk label")).to_contain_text("循环步或层")
    # a size is a name; a measurement without a slider has none
    page.locator('.lv-task[data-task="llama_sizes"]').click()
    expect(page.locator(".lv-walk output")).to_have_text("Llama 3.1 405B")
    page.locator('.lv-task[data-task="perplexity"]').click()
    expect(page.locator(".lv-results")).to_have_attribute("data-kind", "recorded")
    expect(page.locator(".lv-walk")).to_be_hidden()


def test_b11_a_text_of_ones_own_is_one_press_away(visit: Callable[..., Page]) -> None:
    page = visit("?task=influence", at="lab")
    expect(page.locator(".lv-story")).to_contain_text("story")
    page.get_by_role("button", name="Use my own text").click()
    text = page.locator("[data-field=text] textarea")
    expect(text).to_be_focused()
    expect(text).to_have_value("")
    expect(page.locator("[data-field=file] input")).to_be_visible()
    page.locator(".lv-sizes button").first.click()
    expect(page.locator(".lv-status.lv-bad")).to_contain_text("There is no text")
    text.fill("Once upon a time there was a loop. " * 8)
    expect(page.get_by_role("button", name="Use my own text")).to_be_hidden()
    page.locator(".lv-sizes button").first.click()
    expect(page.locator('.lv-page[data-end="done"][data-shown="own"]')).to_be_visible()
