"""Present mode (B13): the text, the ring, the strip and one panel, large, by a presenter's keys, on a small projector."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.browser.test_explore import Visit, data, drawn, inside, looked

PROJECTOR = {"viewport": {"width": 960, "height": 540}}
SHOWN = [".lv-text", ".lv-ring svg", ".lv-cells", ".lv-presented .lv-plot", ".lv-present-hint"]
# of elements, those that are not wholly in the window
OUTSIDE = """(parts) => parts.filter((part) => { const box = document.querySelector(part)?.getBoundingClientRect();
  return !box || !box.width || box.top < 0 || box.left < 0 || box.right > innerWidth + 0.5 || box.bottom > innerHeight + 0.5; })"""
# panels whose plots are seen
PANELS = "() => [...document.querySelectorAll('.lv-panel')].filter((node) => node.checkVisibility()).map((node) => node.dataset.panel)"


def presented(page: Page) -> str:
    """The one panel that is shown, drawn."""
    page.wait_for_function(
        "() => document.querySelector('.lv-presented .js-plotly-plot .main-svg') && !document.querySelector('.lv').page.looking"
    )
    page.wait_for_timeout(300)
    (panel,) = page.evaluate(PANELS)
    return panel


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_b13_all_of_it_fits_a_small_projector(visit: Visit, lang: str) -> None:
    page = visit(f"?lang={lang}", **PROJECTOR)
    drawn(page)
    before = page.evaluate("[...document.querySelectorAll('.lv-plot')].map((node) => node.clientHeight)")
    page.keyboard.press("f")
    presented(page)
    assert page.evaluate(OUTSIDE, SHOWN) == []
    assert page.evaluate("parseFloat(getComputedStyle(document.querySelector('.lv-text')).fontSize)") >= 28
    for gone in ("#ctl-prompt", "#ctl-model", "#lv-title", ".lv-shelf", ".lv-explain", ".lv-player"):
        expect(page.locator(gone).first).to_be_hidden()
    page.keyboard.press("Escape")
    expect(page.locator("#lv-ask")).to_be_visible()
    drawn(page)
    page.wait_for_timeout(500)
    assert page.evaluate("[...document.querySelectorAll('.lv-plot')].map((node) => node.clientHeight)") == before
    assert not page.locator(".lv-presented, .lv-present-foot").count()


def test_b13_the_keys_are_a_presenter_s(visit: Visit) -> None:
    page = visit(**PROJECTOR)
    drawn(page)
    page.keyboard.press("F")
    first = presented(page)
    token = page.evaluate("document.querySelector('.lv').page.current()")
    page.keyboard.press("ArrowLeft")
    looked(page)
    assert page.evaluate("document.querySelector('.lv').page.focus.token") == token - 1
    page.keyboard.press("PageDown")  # as a clicker in the hand says it
    looked(page)
    assert page.evaluate("document.querySelector('.lv').page.focus.token") == token
    for step in (1, 2):
        page.keyboard.press("ArrowDown")
        looked(page)
        assert page.evaluate("document.querySelector('.lv').page.focus.step") == step
        expect(page.locator('.lv-cell[aria-pressed="true"] small')).to_contain_text(str(step))
    page.keyboard.press("ArrowUp")
    looked(page)
    assert page.evaluate("document.querySelector('.lv').page.focus.step") == 1
    page.keyboard.press(" ")  # the replay's, and no button's
    page.wait_for_function("() => document.querySelector('.lv').dataset.playing === '1'")
    page.keyboard.press(" ")
    page.wait_for_function("() => document.querySelector('.lv').dataset.playing === '0'")
    assert page.locator(".lv-present-foot").count() == 1
    inside(page, "page.look({ token: arg, step: 1 }, page.total)", token)
    looked(page)
    page.keyboard.press("v")
    page.wait_for_function("(first) => document.querySelector('.lv-presented').dataset.panel !== first", arg=first)
    assert presented(page) != first
    page.keyboard.press("b")
    expect(page.locator(".lv-present-dark")).to_be_visible()
    assert page.evaluate("document.elementFromPoint(480, 100).className") == "lv-present-dark"
    page.keyboard.press("ArrowRight")  # brings it back, and does nothing else
    expect(page.locator(".lv-present-dark")).to_be_hidden()
    assert page.evaluate("document.querySelector('.lv').page.focus.token") == token
    for _ in range(6):  # to another group's
        page.keyboard.press("v")
        presented(page)
    page.keyboard.press("Escape")
    expect(page.locator(".lv-present-foot")).to_have_count(0)
    drawn(page)
    page.wait_for_function(
        "() => [...document.querySelectorAll('.lv-panel')].filter((node) => node.checkVisibility()).every((node) => node.querySelector('.main-svg'))"
    )
    assert data(page, "end")


def test_b13_typing_an_f_is_typing(visit: Visit) -> None:
    page = visit()
    drawn(page)
    page.click("#ctl-prompt textarea")
    page.keyboard.type("ff")
    assert not page.evaluate("document.documentElement.classList.contains('lv-presenting')")
    assert page.input_value("#ctl-prompt textarea").count("ff") == 1
    page.locator(".lv-present-open").click()
    presented(page)
    page.locator(".lv-present-quit").click()
    expect(page.locator("#lv-ask")).to_be_visible()
