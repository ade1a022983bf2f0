"""The arrow playground on Explore, with the model that follows arrows: graph, prompt, run, selection and control are one thing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from loopviz.app.texts import table
from tests.browser.conftest import PATIENCE, narrow
from tests.browser.contrast import faint
from tests.browser.test_arrow_graph import CHAIN, PHONE, drag, node

PROMPT = "#ctl-prompt textarea"
ROUND = "a>b b>c c>a d>a e>b f>c g>d h>e i>f j>g k>h l>i g?"  # twelve arrows, of which three go round
EIGHT = "m>p d>b n>a c>b j>e b>f p>l f>k o>m g>m l>h h>c g?"  # eight arrows to follow
STILL = "() => { const { page } = document.querySelector('.lv'); return !page.looking && !page.asking; }"


def opened(browser: Browser, bundled_url: str, lang: str = "en", model: str = "arrows-loop", **options: Any) -> Page:
    """A visitor who has chosen the model."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce", **options})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(f"{bundled_url}?lang={lang}")
    page.wait_for_selector('.lv[data-ready="1"][data-model="ready"]')
    expect(page.locator(".lv-arrows-place")).to_be_hidden()
    chosen(page, model)
    return page


def chosen(page: Page, model: str) -> None:
    sheet = narrow(page)
    if sheet:
        page.click(".lv-sheet-open")
    page.fill("#ctl-model input", model)
    page.press("#ctl-model input", "Enter")
    page.wait_for_function(
        "(model) => document.querySelector('.lv-model').textContent.includes(model) && document.querySelector('.lv').dataset.model === 'ready'",
        arg=model,
    )
    if sheet:
        page.click(".lv-sheet-close")


@pytest.fixture(scope="module")
def visitor(browser: Browser, bundled_url: str) -> Iterator[Page]:
    page = opened(browser, bundled_url)
    yield page
    page.context.close()


@pytest.fixture
def page(visitor: Page) -> Page:
    """The one visitor, with the loops that the model comes with."""
    visitor.wait_for_selector(".lv-arrows-svg")
    most(visitor, 24)
    return visitor


def most(page: Page, loops: int) -> None:
    page.locator("#ctl-max_loop_count input[type=number]").fill(str(loops))
    page.locator("#ctl-max_loop_count input[type=number]").press("Tab")


def graph(page: Page) -> str:
    """What is drawn, as a prompt."""
    script = (
        "({ arrows, start }) => [...arrows.map((arrow) => arrow.join('>')), ...(start ? [start + '?'] : [])].join(' ')"
    )
    return page.evaluate(f"({script})(document.querySelector('.lv').page.arrows.graph.problem)")


def run(page: Page, prompt: str) -> None:
    """Type a prompt, run it, and wait until its guesses are shown."""
    page.fill(PROMPT, prompt)
    before = page.evaluate("document.querySelector('.lv').dataset.run")
    page.click("#lv-run")
    page.wait_for_function(
        "(before) => { const d = document.querySelector('.lv').dataset; return d.run !== before && d.end; }", arg=before
    )
    page.wait_for_selector(".lv-arrows-hops .lv-chip")
    page.wait_for_function(STILL)


def test_what_is_drawn_is_in_the_prompt_and_what_is_typed_is_drawn(page: Page) -> None:
    page.fill(PROMPT, "a>b a?")
    page.wait_for_selector("[data-arrow='a>b']")
    drag(page, "b", "k")
    expect(page.locator(PROMPT)).to_have_value("a>b b>k a?")
    drag(page, "b", "c")
    expect(page.locator(".lv-arrows-said")).to_contain_text("b leads to k already")
    expect(page.locator(PROMPT)).to_have_value("a>b b>k a?")
    page.fill(PROMPT, "Once upon a time")
    expect(page.locator(".lv-arrows-said")).to_contain_text("The prompt is no graph")
    assert graph(page) == "a>b b>k a?"
    # a prompt that Gradio puts there itself, by a button
    page.click("#lv-try .lv-drop-open")
    page.locator(".lv-example").nth(1).click()
    page.wait_for_function("() => document.querySelector('.lv').page.arrows.graph.problem.start === 'm'")
    assert graph(page) == page.input_value(PROMPT)


def test_what_was_drawn_is_what_runs(page: Page) -> None:
    page.fill(PROMPT, CHAIN.replace(" h>b", ""))
    page.wait_for_function("() => document.querySelector('.lv').page.arrows.graph.problem.arrows.length === 11")
    expect(page.locator(".lv-arrows-outside")).to_contain_text("No arrow leads away from h")
    drag(page, "h", "j")
    drawn = graph(page)
    assert drawn == CHAIN.replace(" h>b", "").replace(" h?", " h>j h?")
    run(page, page.input_value(PROMPT))
    assert (
        page.evaluate(
            "() => { const { page } = document.querySelector('.lv'); return page.tokens.slice(0, page.promptTokens).map((row) => row[0].trim()).join(' '); }"
        )
        == drawn
    )
    expect(page.locator(".lv-arrows-verdict")).to_contain_text("h → j → i")


def test_a_run_hops_an_arrow_a_loop_as_recorded(page: Page) -> None:
    run(page, CHAIN)
    expect(page.locator(".lv-arrows-verdict")).to_contain_text("✓")
    expect(page.locator(".lv-arrows-verdict")).to_contain_text("h → b → f → j → i")
    said = [chip.split()[1] for chip in page.locator(".lv-arrows-hops .lv-chip").all_inner_texts()]
    tokens = page.evaluate(
        "() => { const { page } = document.querySelector('.lv'); return [page.promptTokens - 1, page.tokens]; }"
    )
    question, rows = tokens
    assert len(said) == rows[question][1][0], "a chip for each loop of the question"
    assert said[-1] == rows[question + 1][0].strip(), "the last guess is what the model wrote"
    assert said == ["b", "f", "j", "i", *["i"] * (len(said) - 4)]


def test_a_step_selected_here_is_selected_everywhere_and_the_other_way(page: Page) -> None:
    run(page, CHAIN)
    page.locator(".lv-arrows-hops .lv-chip").nth(1).click()
    page.wait_for_function(STILL)
    assert page.evaluate("(({ token, step, }) => [token, step])(document.querySelector('.lv').page.focus)") == [12, 2]
    assert page.evaluate("document.querySelector('.lv').page.arrows.graph.step") == 2
    page.evaluate("document.querySelector('.lv').page.look({ step: 3 })")
    page.wait_for_function("() => document.querySelector('.lv').page.arrows.graph.step === 3")
    expect(page.locator(".lv-arrows-hops .lv-chip").nth(2)).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".lv-arrows-move")).to_have_count(3)
    # another word's loops are not the question's
    page.evaluate("document.querySelector('.lv').page.look({ token: 3, step: 1 })")
    page.wait_for_function(STILL)
    assert page.evaluate("document.querySelector('.lv').page.arrows.graph.step") == 3


WRITTEN = "() => { const { page } = document.querySelector('.lv'); return page.tokens[page.promptTokens][0].trim(); }"


def test_at_most_three_loops_is_the_control_itself(page: Page) -> None:
    """Capped, the loop stands where it has come to; the verdict is on what the model wrote, which may be further on."""
    page.fill(PROMPT, CHAIN)
    expect(page.locator(".lv-arrows-bound")).to_contain_text("At most 24 loops")
    page.locator(".lv-arrows-bound input").fill("3")
    expect(page.locator("#ctl-max_loop_count input[type=number]")).to_have_value("3")
    for prompt, stands, done in ((CHAIN, "j", "3 of 4"), (EIGHT, "l", "3 of 8")):
        run(page, prompt)
        expect(page.locator(".lv-arrows-hops .lv-chip")).to_have_count(3)
        written, verdict = page.evaluate(WRITTEN), page.locator(".lv-arrows-verdict")
        expect(verdict).to_contain_text(f"the model says {written} ")
        expect(verdict).to_contain_text(f"The loop itself had come to {stands}, {done} arrows on")
        end = page.evaluate("() => [...document.querySelectorAll('.lv-end')].map((node) => node.dataset.node).join()")
        assert len(end) == 1
        expect(verdict).to_contain_text("✓" if written == end else "✗")
    expect(page.locator(".lv-about")).to_contain_text("at most 3 times")
    # and the control moves the slider
    most(page, 7)
    expect(page.locator(".lv-arrows-bound")).to_contain_text("At most 7 loops")


def test_a_cycle_runs_and_every_loop_of_it_is_there(page: Page) -> None:
    run(page, ROUND)
    expect(page.locator(".lv-arrows-outside")).to_contain_text("never end")
    expect(page.locator(".lv-arrows-verdict")).to_contain_text("Neither right nor wrong")
    loops = page.evaluate(
        "() => { const { page } = document.querySelector('.lv'); return page.tokens[page.promptTokens - 1][1][0]; }"
    )
    expect(page.locator(".lv-arrows-hops .lv-chip")).to_have_count(loops)


def test_it_goes_with_the_model_and_can_be_folded(page: Page) -> None:
    place = page.locator(".lv-arrows-place")
    place.locator("summary").click()
    expect(page.locator(".lv-arrows")).to_be_hidden()
    place.locator("summary").click()
    expect(page.locator(".lv-arrows")).to_be_visible()
    chosen(page, "glassbox")
    expect(place).to_be_hidden()
    chosen(page, "arrows-loop")
    expect(place).to_be_visible()
    page.wait_for_function("() => document.querySelector('#ctl-max_loop_count input[type=number]').value === '24'")


def test_it_speaks_the_page_s_language(page: Page) -> None:
    run(page, CHAIN)
    words = table("zh")
    page.locator("#lv-lang label", has_text="中文").click()
    expect(page.locator(".lv-arrows-place h2")).to_have_text(words["arrows.title"])
    expect(page.locator(".lv-arrows-verdict")).to_contain_text("正确")
    expect(node(page, "h")).to_have_attribute("aria-label", "h，指向 b，题目所问")
    page.locator("#lv-lang label", has_text="English").click()
    expect(page.locator(".lv-arrows-verdict")).to_contain_text("Right")


def test_it_can_be_read_on_a_phone_in_both_looks_and_languages(browser: Browser, bundled_url: str) -> None:
    page = opened(browser, bundled_url, "zh", **PHONE)
    page.wait_for_selector(".lv-arrows-svg")
    page.evaluate("document.querySelector('.lv').page.arrows.graph.bound({ low: 1, high: 24, value: 3 })")
    run(page, ROUND)
    page.locator(".lv-arrows-hops .lv-chip").first.click()
    page.add_style_tag(
        content="#lv-buttons { display: none !important }"
    )  # it lies over whatever is at the window's end
    for lang in ("zh", "en"):
        if lang == "en":
            page.locator("#lv-lang label", has_text="English").evaluate("(label) => label.click()")
        expect(page.locator(".lv-arrows-place h2")).to_have_text(table(lang)["arrows.title"])
        page.wait_for_function(STILL)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), lang
        for look in ("light", "dark"):
            assert page.evaluate("document.body.classList.contains('dark')") == (look == "dark")
            found = [one for one in faint(page) if "lv-arrows" in one.path]
            assert found == [], (lang, look)
            page.evaluate("document.body.classList.toggle('dark')")
    page.context.close()
