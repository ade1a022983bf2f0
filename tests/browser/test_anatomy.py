"""Anatomy in a browser: the recorded run taken apart, by keys, by clicks, two loop steps side by side, on a phone, in Chinese."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, expect

from loopviz.anatomy.stage_list import ALL

Visit = Callable[..., Page]
DRAWN = '.lv-page[data-drawn="true"]'


def at(page: Page) -> tuple[str, ...]:
    """Where it looks: word, layer, loop step, stage; and that what is drawn is of there."""
    data = page.evaluate("({...document.querySelector('.lv-page').dataset})")
    return tuple(data[key] for key in ("token", "layer", "step", "stage"))


def opened(page: Page) -> Page:
    page.wait_for_selector(DRAWN)
    return page


def goes_to(page: Page, token: int, layer: int, step: int, stage: str) -> None:
    """It looks there, and has drawn what is there."""
    place = f'[data-token="{token}"][data-layer="{layer}"][data-step="{step}"][data-stage="{stage}"]'
    page.wait_for_selector(f'.lv-page{place}[data-shown="{token} {layer} {step}"]')


def told(page: Page, **question: Any) -> dict[str, Any]:
    """What the server says of a layer of the word that is shown."""
    return page.evaluate(
        "async (asked) => { const { page } = document.querySelector('.lv-page'); return page.frame.ask('layer', { look: page.look.look, lang: 'en', ...asked }); }",
        question,
    )


def test_the_recorded_run_by_keys(visit: Visit) -> None:
    """Stages, layers, loop steps and words, each by its keys; the numbers are the server's; the address comes back to them."""
    page = opened(visit(at="anatomy"))
    expect(page.locator(".lv-anatomy-run")).to_contain_text("recorded run")
    expect(page.locator(".lv-agreement")).to_have_attribute("data-same", "true")
    token = int(at(page)[0])
    assert at(page)[1:] == ("0", "1", "state")
    names = [stage.name for stage in ALL]
    for name in names[names.index("state") + 1 :]:
        page.keyboard.press("ArrowRight")
        goes_to(page, token, 0, 1, name)
        expect(page.locator(f'.lv-way-box[data-stage="{name}"]')).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".lv-draw-row")).not_to_have_count(0)
    while at(page)[3] != "between":
        page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowUp")
    goes_to(page, token, 1, 1, "between")
    page.keyboard.press("]")
    page.keyboard.press("PageUp")
    goes_to(page, token, 1, 3, "between")
    page.keyboard.press("[")
    goes_to(page, token, 1, 2, "between")
    facts = told(page, layer=1, step=2)["facts"]["between"]
    said = page.locator(".lv-stage-facts").first.inner_text()
    numbers = [float(number) for number in re.findall(r"\d+(?:\.\d+)?", said)]
    assert numbers[0] == float(f"{100 * facts['ratio']:.3g}")
    assert numbers[1] == float(f"{facts['degrees']:.3g}")
    page.focus(".lv-words")
    page.keyboard.press("ArrowLeft")  # there the keys choose words
    goes_to(page, token - 1, 1, 2, "between")
    assert f"token={token - 1}&layer=1&step=2&stage=between" in page.url
    page.reload()
    goes_to(page, token - 1, 1, 2, "between")
    page.focus(".lv-where select")
    page.keyboard.press("ArrowDown")  # a list keeps its keys
    assert at(page)[3] == "between"


def test_two_loop_steps_pictures_sliders_and_a_word_outside(visit: Visit) -> None:
    page = opened(visit("?stage=query&layer=1&step=2", at="anatomy"))
    expect(page.locator(".lv-head-line")).to_have_count(1)
    token = at(page)[0]
    page.select_option(".lv-where label:last-child select", "3")
    expect(page.locator(".lv-stage-both")).to_be_visible()
    pairs = page.evaluate("document.querySelector('.lv-page').page.changes")
    assert f"{100 * pairs['query'][1]:.3g} %" in page.locator(".lv-stage-both").inner_text()
    assert page.locator(".lv-way-change:not(:empty)").count() > 15
    page.click('.lv-way-box[data-stage="rope"]')
    dial = page.locator(".lv-hand").nth(5)
    before = dial.get_attribute("x2")
    score = page.locator(".lv-rope-curve + .lv-heat-key")
    expect(score).to_contain_text(f"distance {token}")
    page.locator(".lv-stage .lv-dial-slider").evaluate(
        "(node) => { node.value = '3'; node.dispatchEvent(new Event('input')); }"
    )
    expect(score).to_contain_text("distance 3")
    assert dial.get_attribute("x2") != before
    page.click('.lv-way-box[data-stage="weights"]')
    page.select_option(".lv-head-choice select", "1")
    assert page.locator(".lv-attended").count() == int(token) + 1
    page.click('.lv-way-box[data-stage="sampling"]')
    page.locator('[data-how="top_k"]').evaluate(
        "(node) => { node.value = '2'; node.dispatchEvent(new Event('input')); }"
    )
    expect(page.locator(".lv-draw-row:not([data-out])")).to_have_count(2)
    page.locator(".lv-parity").scroll_into_view_if_needed()
    expect(page.locator(".lv-parity-way .lv-question").first).to_contain_text(re.compile(r"needs up to \d"))
    page.locator(".lv-parity button").first.click()
    expect(page.locator(".lv-parity tbody tr")).to_have_count(4)
    expect(page.locator(".lv-parity tbody tr.lv-bad")).to_have_count(0)
    page.wait_for_selector('.lv-parity[data-state="idle"]')  # what is cut off is told to the console
    page.goto(page.url.split("?")[0] + "?token=9999")
    expect(page.locator(".lv-anatomy-top .lv-status")).to_contain_text("9999")
    expect(page.locator(".lv-anatomy-top .lv-status")).to_have_class(re.compile("lv-bad"))
    page.locator(".lv-words .lv-tok").nth(3).click()
    goes_to(page, 3, 0, 1, "state")


def test_a_run_of_one_s_own_comes_along_from_explore(visit: Visit) -> None:
    """It is left as its page is left, but for what was taken along: a reload finds it again; nobody else does."""
    page = visit()
    page.fill("#ctl-prompt textarea", "once upon a time")
    page.click("#lv-run")
    page.wait_for_function(
        "() => { const { run, t } = document.querySelector('.lv').dataset; return run !== 'recorded' && t > 8; }"
    )
    page.click("#lv-stop")
    page.wait_for_function(
        "() => { const { run, end } = document.querySelector('.lv').dataset; return run && run !== 'recorded' && end; }"
    )
    words = page.locator(".lv-text .lv-tok[data-i]").all_inner_texts()
    page.click('.lv-way[data-page="anatomy"]')
    opened(page)
    expect(page.locator(".lv-anatomy-run")).to_contain_text("brought from Explore")
    assert page.locator(".lv-words .lv-tok").all_inner_texts() == words
    expect(page.locator(".lv-agreement")).to_have_attribute("data-same", "true")
    page.reload()
    opened(page)
    expect(page.locator(".lv-anatomy-run")).to_contain_text("brought from Explore")
    stranger = opened(visit("#run=nobodyknowsthisone12345", at="anatomy"))
    expect(stranger.locator(".lv-anatomy-run")).to_contain_text("not kept any more")


def test_chinese_on_a_phone(visit: Visit) -> None:
    page = opened(visit("?lang=zh&stage=norm", at="anatomy", viewport={"width": 390, "height": 844}, has_touch=True))
    expect(page.locator(".lv-stage h2")).to_contain_text("统一大小")
    for stage in ALL:
        page.evaluate("(stage) => document.querySelector('.lv-page').page.go({ stage })", stage.name)
        page.wait_for_timeout(30)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), stage.name
        shown = page.locator(".lv-stage").inner_text()
        assert "anatomy." not in shown
        assert "undefined" not in shown
    page.locator(".lv-stage-ways button").first.click()
    expect(page.locator(".lv-stage h2")).to_contain_text("输出头")
    assert json.loads(page.evaluate("JSON.stringify(document.documentElement.lang)")) == "zh"
