"""The researcher's door and links that show: Python and a notebook of a run, a link's two ways out, the foot, the badge."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from loopviz.app import controls as st
from loopviz.app.contract import FOOTER
from loopviz.app.controls.link_word import PageState, encode
from loopviz.app.server import citation
from tests.browser.conftest import PATIENCE
from tests.browser.test_explore import Visit, data, ended, inside, reached, settle
from tests.browser.test_sharing import chosen, saved, short_run


@pytest.fixture
def clipboard(usual_context: BrowserContext) -> Iterator[None]:
    """What the test's pages copy can be read: in the usual context, which has compiled their scripts already."""
    usual_context.grant_permissions(["clipboard-read", "clipboard-write"])
    yield
    usual_context.clear_permissions()


@pytest.mark.usefixtures("clipboard")
def test_python_of_a_run_is_copied_and_a_notebook_downloaded(visit: Visit, browser: Browser, tmp_path: Path) -> None:
    page = visit()
    settle(page, "loop", "loop_count", 3)
    short_run(page, "The loop thought")
    chosen(page, "Copy as Python")
    field = page.get_by_label("Python that makes this run again")
    expect(field).to_be_visible()
    expect(page.locator(".lv-notice").first).to_contain_text("was copied")
    code = field.input_value()
    assert page.evaluate("navigator.clipboard.readText()") == code
    assert "loop_count=3" in code
    names: dict[str, Any] = {}
    exec(compile(code, "run.py", "exec"), names)
    read = "".join(inside(page, "page.tokens.map((row) => row[0])"))
    assert names["trace"].text.startswith(read)
    assert len(names["trace"]) == int(data(page, "t"))
    book = saved(page, "Notebook", tmp_path)
    assert book.suffix == ".ipynb"
    cells = json.loads(book.read_text(encoding="utf-8"))["cells"]
    assert any("loop_count=3" in "".join(cell["source"]) for cell in cells)


def test_a_link_says_what_it_is_runs_nothing_and_has_two_ways_out(visit: Visit) -> None:
    page = visit()
    settle(page, "loop", "loop_count", 2)
    short_run(page, "Once there was a robot who lived in the very middle of a wood and thought all day")
    chosen(page, "Copy link")
    word = page.get_by_label("Link to what is set up here").input_value().partition("?")[2]
    tokens = "page.tokens.map((row) => row.slice(0, 5))"
    run_here = inside(page, tokens)
    for lang, says in (("en", "This link: "), ("zh", "此链接：")):
        # another person: nothing that is kept in this one's browser is theirs
        page.evaluate("localStorage.clear()")
        page.close()
        page = visit(f"?{word}&lang={lang}")
        card = page.locator(".lv-linked")
        expect(card.locator("h3")).to_contain_text(says)
        expect(card.locator("h3")).to_contain_text("Once there was a robot")
        page.wait_for_timeout(1500)
        assert data(page, "run") == "", "a link that somebody posted has begun a run"
        card.locator(".lv-link-recorded").click()
        page.wait_for_function("() => document.querySelector('.lv').dataset.run === 'recorded'")
        expect(card).to_be_hidden()
        page.evaluate("localStorage.clear()")
        page.reload()
        page.wait_for_selector('.lv[data-ready="1"][data-model="ready"]')
        page.locator(".lv-link-run").click()
        ended(page)
        assert inside(page, tokens) == run_here, lang


def test_a_press_on_a_page_of_ours_runs_what_its_link_holds_and_stop_ends_it(visit: Visit) -> None:
    page = visit("#model=stories-loop", at="lab")
    expect(page.locator("[data-field=model] input")).not_to_have_value("stories-loop")  # nobody else's link names one
    word, _ = encode(
        PageState(
            {**st.defaults(), "model": "stories-loop", "max_new_tokens": 200, "block_start": 0, "block_end": 1}, "Once"
        )
    )
    page.evaluate("(word) => { location.href = `./?s=${word}`; }", word)
    page.wait_for_selector('.lv[data-ready="1"]')
    reached(page, 4)
    page.locator("#lv-stop").click()
    page.wait_for_function("() => document.querySelector('.lv').dataset.end === 'stopped'")
    page.reload()  # to load it again is not to ask again
    expect(page.locator(".lv-linked")).to_be_visible()
    page.wait_for_timeout(1500)
    assert data(page, "run") == ""


@pytest.mark.usefixtures("clipboard")
@pytest.mark.parametrize("at", ["", "learn", "anatomy", "compare", "lab"])
def test_every_page_has_its_foot_in_its_language(visit: Visit, at: str) -> None:
    page = visit(at=at)
    foot = page.locator(f".{FOOTER}")
    expect(foot).to_be_visible()
    expect(foot).to_contain_text("MIT licence")
    expect(foot.locator('[lang="zh-Hans"]')).to_be_hidden()
    foot.get_by_role("button", name="Cite (BibTeX)").click()
    expect(foot.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == citation.bibtex()
    page.goto(f"{page.url.partition('?')[0]}?lang=zh")
    expect(page.locator(f".{FOOTER}")).to_be_visible(timeout=PATIENCE)
    expect(page.locator(f".{FOOTER}")).to_contain_text("许可证")
    expect(page.locator(f'.{FOOTER} [lang="en"]')).to_be_hidden()
    below = page.evaluate(
        "(name) => document.querySelector(`.${name}`).getBoundingClientRect().top - document.querySelector('gradio-app').getBoundingClientRect().bottom",
        FOOTER,
    )
    assert below > -2, "it stands below everything else"
    page.set_viewport_size({"width": 390, "height": 844})
    page.locator(f".{FOOTER} .lv-limits:visible summary").evaluate("(summary) => summary.click()")
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= 390, "a longer word beside the limits' values pushed them out of a phone"


def _checked(page: Page) -> None:
    """The check of the instrument has run, and its panel says so."""
    page.wait_for_function(
        "() => document.querySelector('.lv').page.about?.textContent && document.querySelector('.lv').dataset.end === 'length'"
    )
    panel = page.locator('.lv-panel[data-panel="instrument"]')
    expect(panel).to_be_visible()
    expect(panel).to_contain_text("rate: exact 0.75")


def test_the_badge_runs_the_check_and_opens_its_panel(visit: Visit) -> None:
    page = visit()
    badge = page.locator(f'.{FOOTER} [lang="en"] .lv-verified')
    expect(badge).to_have_text(re.compile(r"verified: measured = exact to \d(\.\d)?e-\d"))
    badge.click()
    _checked(page)


def test_an_address_that_asks_for_the_check_only_offers_it_when_it_comes_from_elsewhere(
    visit: Visit, app_url: str
) -> None:
    page = visit("#check")
    panel = page.locator('.lv-panel[data-panel="instrument"]')
    expect(panel).to_be_visible()
    expect(panel).to_contain_text("Run glassbox and check it")
    assert data(page, "run") == "recorded"


def test_a_figure_of_the_lab_has_its_manifest_and_the_formula_of_its_intervals_and_the_badge_leads_to_the_check(
    visit: Visit, tmp_path: Path
) -> None:
    page = visit("?task=prompts", at="lab")
    page.locator("[data-field=csv] textarea").fill("prompt\n" + "".join(f"Once upon a {word}\n" for word in "abcdefg"))
    page.locator(".lv-sizes button, .lv-go").first.click()
    page.wait_for_selector('.lv-page[data-end="done"]')
    figure = page.locator(".lv-panel", has=page.locator(".lv-of-figure"))
    with page.expect_download() as waited:
        figure.get_by_role("button", name="Manifest of this figure").click()
    waited.value.save_as(tmp_path / "m.json")
    manifest = json.loads((tmp_path / "m.json").read_text(encoding="utf-8"))
    assert (manifest["task"], manifest["rows"], manifest["complete"]) == ("prompts", 7, True)
    figure.get_by_role("button", name="How its intervals are made").click()
    term = page.locator(".lv-glossary .lv-here")
    expect(term).to_contain_text("bootstrap interval")
    expect(term.locator("math").first).to_be_visible()
    page.locator(".lv-glossary header button").click()
    expect(page.locator(".lv-glossary")).to_be_hidden()
    page.locator("[data-field=csv] textarea").fill("prompt,name\nOnce,a\n,b\n")
    page.locator(".lv-sizes button, .lv-go").first.click()
    expect(page.locator(".lv-asking .lv-status.lv-bad")).to_contain_text("row 3, column prompt: empty")
    # the badge of another page than Explore leads there
    page.locator(f'.{FOOTER} [lang="en"] .lv-verified').click()
    page.wait_for_selector('.lv[data-ready="1"]')
    _checked(page)


def test_where_a_model_is_chosen_it_can_be_looked_over(visit: Visit, app_url: str) -> None:
    page = visit()
    page.fill("#ctl-model input", "glassbox")
    page.press("#ctl-model input", "Enter")
    page.wait_for_function("() => document.querySelector('.lv-model').textContent.startsWith('glassbox is ready')")
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Check this checkpoint").click()
    lab = opened.value
    lab.wait_for_selector('.lv-page[data-ready="1"][data-model="ready"]', timeout=PATIENCE)
    expect(lab.locator("[data-field=model] input")).to_have_value("glassbox")
    lab.locator(".lv-sizes button, .lv-go").first.click()
    lab.wait_for_selector('.lv-page[data-end="done"]', timeout=PATIENCE)
    expect(lab.locator(".lv-rows tbody tr")).to_have_count(12)
