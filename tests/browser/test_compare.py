"""Configurations compared and one opened in Explore; a measurement made in the Lab, as a visitor does it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import VIEWPORT, Visits

PLAIN, SLOT = 0, 1  # of the cards a visit begins with, once the second has been taken away


@pytest.fixture
def compare(lasting: Visits) -> Iterator[Page]:
    """One visitor's page for the tests that leave its three cards as they were, and their settings unfolded."""
    page = lasting.look(at="compare")
    page.bring_to_front()  # a page behind another's tab is given no frames
    unfolded(page)
    yield page
    wrong, lasting.wrong[:] = [*lasting.wrong], []
    assert wrong == []


def unfolded(page: Page) -> None:
    """Unfold what a comparison, or a measurement, is asked with."""
    if not page.locator(".lv-asking > details[open]").count():
        page.locator(".lv-asking > details > summary").click()


def test_configurations_run_beside_each_other_and_open_in_explore(visit: Callable[..., Page]) -> None:
    page = visit(at="compare")
    cards = page.locator(".lv-setup")
    expect(cards).to_have_count(3)
    cards.nth(1).locator(".lv-card-head button").click()
    expect(cards).to_have_count(2)
    page.locator(".lv-asking > details > summary").click()
    page.locator("[data-field=max_new_tokens] input").fill("4")
    page.locator(".lv-go").click()
    expect(page.locator('.lv-page[data-end="done"][data-drawn="true"]')).to_be_visible()
    rows = page.locator(".lv-table[data-group=buys] tbody tr")
    expect(rows).to_have_count(2)
    for place in (PLAIN, SLOT):
        expect(cards.nth(place).locator(".lv-card-text span")).to_have_count(4)
        expect(cards.nth(place)).to_have_attribute("data-stage", "done")
    # one line a configuration; a model without a loop has none to settle
    lines = {
        name: page.locator(f'[data-panel="{name}"] .scatterlayer .js-line') for name in ("convergence", "loops", "kv")
    }
    expect(lines["convergence"]).to_have_count(1)
    expect(lines["loops"]).to_have_count(2)
    expect(lines["kv"]).to_have_count(2)
    expect(page.locator('[data-panel="pareto"] .scatterlayer .points path')).to_have_count(2)

    # another language, another pair of columns: the same comparison
    page.locator("[data-lang=zh]").click()
    expect(page.locator(".lv-table thead th").first).to_have_text("配置")
    page.locator("select[data-axis=x]").select_option("kv_bytes_per_token")
    expect(page.locator('[data-panel="pareto"] .xtitle')).to_contain_text("KV")

    # one opens in Explore as it was, and Explore's settings come back
    page.locator("[data-lang=en]").click()
    with page.context.expect_page() as opened:  # A13: beside the comparison, which stays
        cards.nth(SLOT).locator(".lv-card-open").click()
    page = opened.value
    expect(page).to_have_url(re.compile(r"/\?s="))
    page.wait_for_selector('.lv[data-ready="1"][data-model="ready"]')
    # B12: a press on a page of ours is the asking, so the very run begins by itself
    page.wait_for_function("() => document.querySelector('.lv').dataset.end")
    expect(page.locator(".lv-linked")).to_be_hidden()
    expect(page.locator("#lv-preset-one_slot")).to_have_class(re.compile("lv-on"))
    # the way back takes the settings along, on a slow server too: after a second and a half it went without them
    page.evaluate("""() => { const { page } = document.querySelector('.lv'), { link } = page.tell;
      page.tell.link = (asked) => setTimeout(() => link(asked), 2500); }""")
    page.locator("#lv-title .lv-way[data-page=compare]").click()
    expect(page.locator("#lv-title .lv-way[data-page=compare]")).to_have_attribute("aria-busy", "true")
    expect(page).to_have_url(re.compile(r"/compare\?s="))


LONG = "300"


def long_comparison(page: Page, tokens: str = LONG) -> str:
    """A comparison that goes on; its id."""
    before = page.locator(".lv-page").get_attribute("data-run") or ""
    unfolded(page)
    page.locator("[data-field=max_new_tokens] input").fill(tokens)
    page.locator("[data-field=prompt] textarea").fill("The first")
    page.locator(".lv-go").click()
    page.wait_for_selector(f'.lv-page[data-state="running"]:not([data-run=""], [data-run="{before}"])')
    expect(page.locator(".lv-setup .lv-card-text span").nth(3)).to_be_attached()
    return page.locator(".lv-page").get_attribute("data-run") or ""


def test_a_comparison_begun_while_one_runs_takes_its_place(compare: Page) -> None:
    page = compare
    first = long_comparison(page)
    page.locator("[data-field=max_new_tokens] input").fill("5")
    page.locator("[data-field=prompt] textarea").fill("The second")
    page.locator(".lv-go").click()
    page.wait_for_selector(f'.lv-page[data-end="done"][data-state="idle"]:not([data-run="{first}"])')
    for card in page.locator(".lv-setup").all():
        expect(card).to_have_attribute("data-stage", "done")
        expect(card.locator(".lv-card-text span")).to_have_count(5)
    expect(page.locator(".lv-status")).not_to_have_class(re.compile("lv-bad"))
    expect(page.locator(".lv-table[data-group=buys] tbody tr")).to_have_count(3)
    # three at once, none of which has anything to show yet, are one
    page.evaluate("for (let i = 0; i < 3; i++) document.querySelector('.lv-go').click()")
    page.wait_for_selector('.lv-page[data-end="done"][data-state="idle"][data-rows="3"]')
    expect(page.locator(".lv-table[data-group=buys] tbody tr")).to_have_count(3)


def test_a15_the_verdict_is_seen_or_said_to_be_further_right(compare: Page) -> None:
    page = compare
    before = page.locator(".lv-page").get_attribute("data-run") or ""
    page.locator("[data-field=max_new_tokens] input").fill("4")
    page.locator(".lv-go").click()
    page.wait_for_selector(f'.lv-page[data-end="done"][data-state="idle"]:not([data-run="{before}"])')
    for width in (1440, 1280, 1024, 390):
        page.set_viewport_size({"width": width, "height": 900})
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        for group in ("buys", "costs"):
            table = page.locator(f".lv-table[data-group={group}]")
            table.evaluate("(node) => (node.scrollLeft = 0)")
            fits = table.evaluate("(node) => node.scrollWidth <= node.clientWidth + 1")
            assert fits or width <= 1024, f"{group} at {width}"
            expect(table.locator("xpath=following-sibling::p")).to_be_visible(visible=not fits)
            # no cell that stays while the table scrolls hides one that does not
            table.evaluate("(node) => (node.scrollLeft = node.scrollWidth)")
            last = table.locator("tbody tr").first.locator("td").last
            assert last.evaluate("""(cell) => { const box = cell.getBoundingClientRect();
              cell.scrollIntoView({ block: 'center' }); const now = cell.getBoundingClientRect();
              return cell.contains(document.elementFromPoint(now.right - 4, now.top + 6)); }"""), f"{group} at {width}"
    page.set_viewport_size(VIEWPORT)


def test_s4_rounding_is_not_called_best(compare: Page) -> None:
    page = compare
    best = """async ([values, column]) => {
      const { best } = await import(new URL(document.querySelector('.lv-page').dataset.script.replace('compare/main.js', 'widgets/table.js'), document.baseURI));
      return best(values, column); }"""
    exact = {"better": "low", "noise": [1e-5, 1e-3]}
    assert page.evaluate(best, [[2.76e-8, 3.26e-8, 0], exact]) == []
    assert page.evaluate(best, [[2.76e-8, 3.26e-8, 0.2], exact]) == [True, True, False]
    assert page.evaluate(best, [[10.0, 10.2, 14.0], {"better": "low", "noise": [0, 0.05]}]) == [True, True, False]
    assert page.evaluate(best, [[None, 1.0, 2.0], {"better": "high"}]) == [False, False, True]
    assert page.evaluate(best, [[None, 1.0], {"better": "high"}]) == []
    assert page.evaluate(best, [[3, 4], {"better": None}]) == []


def test_another_model_chosen_while_a_comparison_runs(compare: Page) -> None:
    """The comparison goes on with the model it began with; the next is of the new one, with what that one brings."""
    page = compare
    first = long_comparison(page)
    card = page.locator(".lv-setup").nth(1)
    page.locator("[data-field=model] input").fill("glassbox")
    page.locator("[data-field=model] input").press("Tab")
    expect(page.locator(".lv-asking .lv-model")).to_contain_text("glassbox is ready")
    expect(card.locator(".lv-card-about")).to_contain_text("layer 0")  # its own block
    shown = card.locator(".lv-card-text span")
    assert page.locator(".lv-page").get_attribute("data-run") == first
    page.wait_for_function(
        "n => document.querySelectorAll('.lv-setup')[1].querySelectorAll('.lv-card-text span').length > n",
        arg=shown.count(),
    )
    expect(page.locator(".lv-page")).to_have_attribute("data-state", "running")
    page.locator("[data-field=max_new_tokens] input").fill("5")
    page.locator("[data-field=prompt] textarea").fill("hal")
    page.locator(".lv-go").click()
    page.wait_for_selector(f'.lv-page[data-end="done"][data-state="idle"]:not([data-run="{first}"])')
    for one in page.locator(".lv-setup").all():
        expect(one).to_have_attribute("data-stage", "done")
    expect(page.locator(".lv-status")).not_to_have_class(re.compile("lv-bad"))


def test_a30_who_waits_is_told_the_place_in_the_line(visit: Callable[..., Page]) -> None:
    first, second, third, last = (
        visit(at="compare", apart=True) for _ in range(4)
    )  # of a server's places two are for comparisons
    for page in (first, second):
        long_comparison(page, "900")
    for page, told in ((third, "you are next"), (last, "1 before you")):
        page.locator(".lv-go").click()
        expect(page.locator(".lv-status")).to_contain_text(told)
        expect(page.locator(".lv-status")).to_contain_text("running now: Compare, Compare")
    third.locator(".lv-halt").click()  # leaves the line
    expect(last.locator(".lv-status")).to_contain_text("you are next")
    first.locator(".lv-halt").click()
    last.wait_for_selector('.lv-page[data-end="done"][data-state="idle"]')
    second.locator(".lv-halt").click()


def test_b10_compare_opens_finished_and_the_verdict_changes_with_a_run(visit: Callable[..., Page]) -> None:
    page = visit(at="compare")
    results = page.locator(".lv-results")
    expect(results).to_have_attribute("data-kind", "recorded")
    expect(page.locator(".lv-found .lv-badge")).to_have_text("recorded")
    verdict = page.locator(".lv-verdict")
    expect(verdict).to_contain_text("→")
    recorded = verdict.inner_text()
    expect(page.locator('[data-panel="pareto"] .scatterlayer .points path').nth(8)).to_be_attached()  # a sweep's too
    expect(page.locator('[data-panel="pareto"] .xtitle')).to_contain_text("KV")
    expect(page.locator('[data-panel="pareto"] .ytitle')).to_contain_text("perplexity")
    # cost and quality, six columns beside the name, none of them out of sight
    for group, columns in (("costs", 4), ("buys", 4)):
        expect(page.locator(f".lv-table[data-group={group}] thead th")).to_have_count(columns)
    expect(page.locator(".lv-group[data-group=ran]")).to_be_hidden()
    every = page.get_by_role("button", name="All columns")
    every.click()
    expect(every).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".lv-group[data-group=ran]")).to_be_visible()
    expect(page.locator(".lv-table[data-group=buys] thead th")).to_have_count(7)
    links = page.locator(".lv-table[data-group=ran] .lv-after a")
    assert all(link.get_attribute("target") == "_blank" for link in links.all())
    assert links.count() >= 3
    every.click()
    # it speaks Chinese too
    page.locator("[data-lang=zh]").click()
    expect(verdict).to_contain_text("困惑度")
    page.locator("[data-lang=en]").click()
    expect(verdict).to_have_text(recorded)

    before = page.locator(".lv-found").bounding_box()
    page.locator(".lv-asking > details > summary").click()
    page.locator("[data-field=max_new_tokens] input").fill("4")
    page.locator(".lv-asking > details > summary").click()
    page.locator(".lv-go").click()
    expect(page.locator('.lv-page[data-end="done"][data-shown="own"][data-drawn="true"]')).to_be_visible()
    expect(page.locator(".lv-found .lv-badge")).to_be_hidden()
    expect(verdict).not_to_have_text(recorded)
    after = page.locator(".lv-found").bounding_box()
    assert before is not None
    assert after is not None
    assert abs(before["y"] - after["y"]) <= 2, "what is found takes the recorded one's place"
    # another prompt, the cards as they were: what is shown is not of it, in the other language neither, until it is made anew
    page.locator("[data-field=prompt] textarea").fill("The other")
    expect(results).to_have_attribute("data-kind", "old")
    page.locator("[data-lang=zh]").click()
    expect(verdict).to_contain_text("续文")
    expect(results).to_have_attribute("data-kind", "old")
    page.locator("[data-lang=en]").click()
    page.locator(".lv-go").click()
    expect(page.locator('.lv-page[data-end="done"][data-shown="own"][data-state="idle"]')).to_be_visible()
    # what is set up is another comparison now: what is shown says so, and stays
    shown = verdict.inner_text()
    page.locator(".lv-adders button").nth(1).click()
    expect(results).to_have_attribute("data-kind", "old")
    expect(page.locator(".lv-found .lv-badge")).to_be_visible()
    expect(verdict).to_have_text(shown)


def test_b10_a_sweep_of_the_loops_is_a_card_a_curve_and_rows(visit: Callable[..., Page]) -> None:
    page = visit(at="compare")
    cards = page.locator(".lv-setup")
    cards.nth(2).locator(".lv-card-head button").click()
    page.get_by_role("button", name="+ Loops 1 … 16, as a curve").click()
    sweep = cards.nth(2)
    expect(sweep.locator(".lv-card-about")).to_contain_text(re.compile(r"takes about \d+ s here"))
    expect(page.locator(".lv-cost")).to_contain_text("All together: about")
    field = sweep.locator("[data-field=sweep] input")
    field.fill("999")
    field.blur()
    expect(sweep.locator(".lv-card-status")).to_contain_text("sweep=999: must be a whole number from 2 to 256")
    field.fill("4")
    field.blur()
    expect(sweep.locator(".lv-card-name")).to_have_value("Loops 1 … 4")
    expect(sweep.locator(".lv-card-status")).to_be_empty()
    page.locator(".lv-asking > details > summary").click()
    page.locator("[data-field=max_new_tokens] input").fill("4")
    page.locator(".lv-go").click()
    expect(page.locator('.lv-page[data-end="done"][data-shown="own"][data-drawn="true"]')).to_be_visible()
    expect(page.locator(".lv-table[data-group=buys] tbody tr")).to_have_count(6)
    expect(page.locator(".lv-table[data-group=buys] tbody th").nth(2)).to_contain_text("Loops 1 … 4: 1")
    expect(sweep.locator(".lv-swept")).to_have_count(4)
    expect(sweep).to_have_attribute("data-stage", "done")
    expect(page.locator('[data-panel="pareto"] .scatterlayer .js-line')).to_have_count(
        2
    )  # what is not beaten, and the curve


def test_a_measurement_fills_its_table_and_is_kept_as_a_file_and_a_chosen_file_is_measured_whoever_saved_it(
    visit: Callable[..., Page], tmp_path: Path
) -> None:
    """The browser read a file as UTF-8 whatever it was, and put marks in the place of what was none."""
    page = visit("?task=perplexity", at="lab")
    expect(page.locator('.lv-task[data-task="perplexity"]')).to_have_attribute("aria-pressed", "true")
    fields = {"text textarea": "Once upon a time there was a loop. " * 4, "loops input": "1, 3", "paths input": "full"}
    fields |= {"window input": "16", "loop input": '{"loop_layers": [4, 5]}'}
    page.locator(".lv-asking > details > summary").click()
    for name, value in fields.items():
        kind, _, tag = name.partition(" ")
        page.locator(f"[data-field={kind}] {tag}").fill(value)
    page.locator(".lv-as-set").click()
    expect(page.locator('.lv-page[data-end="done"][data-drawn="true"]')).to_be_visible()
    expect(page.locator(".lv-table tbody tr")).to_have_count(2)
    expect(page.locator('[data-panel="plot"] .main-svg').first).to_be_visible()
    with page.expect_download() as chosen:
        page.locator(".lv-rows .lv-files button").first.click()
    chosen.value.save_as(tmp_path / "table.csv")
    assert pd.read_csv(tmp_path / "table.csv")["loops"].tolist() == [1, 3]
    # what is refused says so, and the page is ready for another try
    page.locator("[data-field=loops] input").fill("3, 1")
    page.locator(".lv-as-set").click()
    expect(page.locator(".lv-status.lv-bad")).to_contain_text("loops")
    expect(page.locator(".lv-as-set")).to_be_enabled()
    # a chosen file is measured, whoever saved it, and refused if it is no text
    words = "Once upon a time there was a loop.\n" * 4
    (tmp_path / "notepad.txt").write_bytes(words.replace("\n", "\r\n").encode("utf-16"))
    (tmp_path / "picture.txt").write_bytes(b"\x89PNG\r\n")
    page.locator("[data-field=text] textarea").fill("")
    for kind, value in {"loops": "1", "paths": "full", "window": "16", "loop": '{"loop_layers": [4, 5]}'}.items():
        page.locator(f"[data-field={kind}] input").fill(value)
    page.locator("[data-field=file] input").set_input_files(tmp_path / "notepad.txt")
    expect(page.locator("[data-field=file]")).to_contain_text("notepad.txt")
    page.locator(".lv-as-set").click()
    expect(page.locator('.lv-page[data-end="done"][data-drawn="true"]')).to_be_visible()
    expect(page.locator(".lv-table tbody tr")).to_have_count(1)
    expect(page.locator('.lv-page[data-end="done"][data-state="idle"][data-drawn="true"]')).to_be_visible()
    from_file = page.locator(".lv-table tbody tr").inner_text().split("\t")[:6]
    page.locator("[data-field=file] input").set_input_files([])
    page.locator("[data-field=text] textarea").fill(words)
    page.locator("[data-field=loops] input").fill("1, 3")
    page.locator(".lv-as-set").click()
    expect(page.locator(".lv-table tbody tr")).to_have_count(2)
    expect(page.locator('.lv-page[data-end="done"][data-drawn="true"]')).to_be_visible()
    assert page.locator(".lv-table tbody tr").first.inner_text().split("\t")[:6] == from_file
    page.locator("[data-field=text] textarea").fill("")
    page.locator("[data-field=file] input").set_input_files(tmp_path / "picture.txt")
    page.locator(".lv-as-set").click()
    expect(page.locator(".lv-status.lv-bad")).to_contain_text("file='picture.txt': not a UTF-8 text (byte 0")
