"""Where things are on the page: what stays in reach, what does not move, what is not cut off, at the sizes people have."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from loopviz.panels import PANELS
from tests.browser.test_explore import drawn, ended, run, show

Visit = Callable[..., Page]
WIDE = [(1440, 900), (1280, 720), (1024, 1366)]
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
STILL = 0.1  # cumulative layout shift below which a page is called good (web.dev/cls)
# What a random model writes has no spaces: one word of forty characters wraps as it grows, and nothing else moves.
_WATCHED = """() => { const growing = ({ sources }) => sources.length && sources.every(({ node }) => node?.nodeType === 3 && node.parentElement?.closest('.lv-text'));
  return new Promise((done) => new PerformanceObserver((list) => done(list.getEntries()
  .filter((entry) => !entry.hadRecentInput && !growing(entry)).map((entry) => entry.value))).observe({ type: 'layout-shift', buffered: true })
  || setTimeout(() => done([]), 500)); }"""


def shift(page: Page) -> float:
    """All layout shift of a page since it was opened, but for words of the text that wrap as they are written."""
    return sum(page.evaluate(_WATCHED))


def inside(page: Page, selector: str) -> bool:
    """Whether an element is wholly in the window."""
    return page.evaluate(
        """(selector) => { const box = document.querySelector(selector).getBoundingClientRect();
        return box.top >= 0 && box.bottom <= innerHeight && box.left >= 0 && box.right <= innerWidth; }""",
        selector,
    )


@pytest.mark.parametrize(("width", "height"), WIDE)
def test_a7_the_settings_stay_beside_every_panel(visit: Visit, width: int, height: int) -> None:
    page = visit(viewport={"width": width, "height": height})
    show(page, "token_loop_map", "loops_per_token")
    for name in ("state_trajectory", "loops_per_token"):
        page.evaluate(f"document.querySelector('.lv-panel[data-panel={name}]').scrollIntoView()")
        assert page.evaluate("scrollY") > height / 2
        for control in ("ctl-model", "ctl-loop_count"):
            page.evaluate(f"document.querySelector('#{control}').scrollIntoView({{ block: 'nearest' }})")
            assert inside(page, f"#{control}"), (name, control)
        assert page.evaluate("scrollY") > height / 2, "the page itself did not have to scroll"


@pytest.mark.parametrize("size", [*WIDE, None], ids=str)
def test_a17_nothing_moves_at_load_or_in_the_first_run(visit: Visit, size: tuple[int, int] | None) -> None:
    page = visit(**({"viewport": {"width": size[0], "height": size[1]}} if size else PHONE))
    drawn(page)
    assert shift(page) < STILL
    before = shift(page)
    run(page)
    ended(page)
    drawn(page)
    assert shift(page) - before < STILL


def test_a10_on_a_phone_a_run_is_brought_into_view(visit: Visit) -> None:
    page = visit(**PHONE)
    assert not inside(page, ".lv-status")
    run(page)
    page.wait_for_function("() => document.querySelector('.lv-text').getBoundingClientRect().top < innerHeight / 2")
    ended(page)
    expect(page.locator(".lv-status")).to_be_in_viewport()
    assert inside(page, ".lv-text")


def test_a10_on_a_phone_the_settings_are_a_press_away(visit: Visit) -> None:
    page = visit(**PHONE)
    assert not page.locator("#ctl-loop_count").is_visible()
    page.evaluate("window.scrollTo(0, document.documentElement.scrollHeight)")
    top = page.evaluate("scrollY")
    page.locator(".lv-sheet-open").click()
    expect(page.locator("#ctl-model")).to_be_in_viewport()
    page.locator("#ctl-loop_count input[type=number]").fill("3")
    page.keyboard.press("Escape")
    expect(page.locator("#ctl-model")).not_to_be_visible()
    expect(page.locator(".lv-sheet-open")).to_be_focused()
    assert page.evaluate("scrollY") == top
    # a run takes its words from them, closed or not
    page.locator(".lv-sheet-open").click()
    run(page)
    expect(page.locator("#ctl-model")).not_to_be_visible()
    expect(page.locator(".lv-about")).to_contain_text("3 times")


def test_a27_a_note_says_whose_it_is_and_goes(visit: Visit) -> None:
    page = visit(apart=True)  # a clock is its whole context's: other visits' timers would stand still, or change places
    page.clock.install()
    page.click("#lv-tab-words")
    note, switch = page.locator(".lv-shelf-note"), page.locator(".lv-switch[data-name=attention]")
    switch.click()
    expect(note).to_have_text(re.compile("^Attention, "))
    page.clock.fast_forward(20_000)
    expect(note).to_be_empty()
    # and with the panel
    switch.click()
    switch.click()
    expect(note).not_to_be_empty()
    switch.click()
    expect(note).to_be_empty()


@pytest.mark.parametrize("size", [*WIDE, (390, 844)], ids=str)
def test_a22_what_a_plot_says_of_itself_is_never_cut_nor_covered(visit: Visit, size: tuple[int, int]) -> None:
    page = visit(viewport={"width": size[0], "height": size[1]})
    for name in ("convergence", "kv_occupancy", "loops_per_token", "token_loop_map"):
        show(page, name)
        drawn(page)
        panel = page.locator(f".lv-panel[data-panel={name}]")
        panel.scroll_into_view_if_needed()
        said = panel.locator(".lv-headline")
        expect(said).not_to_be_empty()
        assert said.evaluate("(node) => node.scrollWidth <= node.clientWidth"), name
        assert panel.locator(".gtitle").count() == 0, "not in the plot, where it would be cut"
        # Plotly's buttons, when they are there, lie on none of the words
        panel.locator(".lv-plot").hover()
        covered = panel.evaluate("""(panel) => {
          const bar = panel.querySelector('.modebar')?.getBoundingClientRect();
          if (!bar) return [];
          const over = (box) => box.width && box.left < bar.right && box.right > bar.left && box.top < bar.bottom && box.bottom > bar.top;
          const words = document.createTreeWalker(panel, NodeFilter.SHOW_TEXT), found = [];
          while (words.nextNode()) {
            const node = words.currentNode, range = document.createRange();
            range.selectNodeContents(node);
            if (!node.parentElement.closest('.lv-sr, style') && [...range.getClientRects()].some(over)) found.push(node.data);
          }
          return found;
        }""")
        assert covered == [], name


def test_a_window_made_narrow_after_a_run_leaves_no_plot_over_what_is_under_it(visit: Visit) -> None:
    """Plotly forgets a plot's height when the window's size changes: panels drawn again in a run had none and lay over others."""
    page = visit(viewport={"width": 1400, "height": 1250})
    run(page)
    ended(page)
    drawn(page)
    for width in (416, 1400, 416):
        page.set_viewport_size({"width": width, "height": 1250})
        page.wait_for_function("""() => { const plots = [...document.querySelectorAll('.lv-panel:not([hidden]) .main-svg')];
          return plots.every((plot) => Math.abs(plot.clientWidth - plot.closest('.lv-plot').clientWidth) < 2); }""")
        # it settles a frame or two later: what lies over others for good is the fault
        page.wait_for_function("""() => [...document.querySelectorAll('.lv-panel:not([hidden]) .main-svg')].every((plot) =>
          plot.getBoundingClientRect().bottom <= plot.closest('.lv-plot-wrap').getBoundingClientRect().bottom + 1)""")


@pytest.mark.parametrize("size", [*WIDE, (960, 540), (390, 844)], ids=str)
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_s4_the_head_s_line_is_whole_or_not_there(look: Visit, size: tuple[int, int], lang: str) -> None:
    page = look(f"?lang={lang}", viewport={"width": size[0], "height": size[1]})
    line = page.locator("#lv-title p")
    if line.is_visible():
        assert line.evaluate(
            "(node) => node.scrollWidth <= node.clientWidth + 1 && node.scrollHeight <= node.clientHeight + 1"
        )
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def each(visit: Visit) -> Iterator[Page]:
    """Every page, one after the other: a browser keeps six lines to a server, and every page that is open has one."""
    for query, at in (
        ("", ""),
        ("", "anatomy"),
        ("", "ttt"),
        ("", "compare"),
        ("", "lab"),
        ("", "teach"),
        ("?lesson=arrows", "learn"),
    ):
        page = visit(query, at=at)
        yield page
        page.close()


def test_a21_headings_come_in_order(visit: Visit) -> None:
    for page in each(visit):
        levels = page.evaluate(
            "[...document.querySelectorAll('h1, h2, h3, h4, h5, h6')].filter((node) => !node.closest('dialog')).map((node) => +node.localName[1])"
        )
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after <= before + 1 for before, after in pairwise(levels)), levels


def test_a21_every_control_has_a_name_of_its_own(visit: Visit) -> None:
    page = visit()
    names = page.evaluate(
        "[...document.querySelectorAll('.lv-panel-head > button, .lv-panel-head > .lv-menu > button')].filter((node) => !node.hidden).map((node) => node.getAttribute('aria-label'))"
    )
    assert len(names) == len(set(names)) == 2 * len(PANELS)
    unnamed = """[...document.querySelectorAll('button, a[href], input:not([type=hidden]), select, textarea, [role=button]')].filter((node) =>
      node.checkVisibility() && !node.closest('.lv-untold') && !(node.getAttribute('aria-label') || node.getAttribute('aria-labelledby') || node.title
      || node.labels?.length || /[\\p{L}\\p{N}]/u.test(node.textContent))).map((node) => node.outerHTML.slice(0, 160))"""
    page.close()
    for one in each(visit):
        assert one.evaluate(unnamed) == []


@pytest.mark.parametrize("at", ["", "learn", "anatomy", "ttt", "compare", "lab", "teach"])
def test_a21_all_can_be_reached_by_tab_and_seen_to_be(visit: Visit, at: str) -> None:
    page = visit(at=at)
    if at == "ttt":  # its recorded run comes after it
        page.wait_for_selector('.lv-page[data-end="length"][data-drawn="true"]')
    wanted = page.evaluate("""() => { const seen = [...document.querySelectorAll('button, a[href], input:not([type=hidden]), select, textarea, summary')]
      .filter((node) => node.checkVisibility({ visibilityProperty: true }) && !node.disabled && node.tabIndex >= 0 && !node.closest('.lv-untold, .modebar'));
      seen.forEach((node, i) => (node.dataset.stop = i)); return seen.map((node) => node.type === 'radio' ? 'radio in ' + node.closest('[id]').id : String(node.dataset.stop)); }""")
    page.evaluate("document.querySelector('[data-stop]').focus()")
    reached, unseen = {wanted[0]}, []
    most = 2 * len(wanted) + 300  # a plot's own buttons are among the stops, also of one drawn as it comes in sight
    for _ in range(most):
        page.keyboard.press("Tab")
        at_now = page.evaluate("""() => { const node = document.activeElement; if (!node || node === document.body) return null;
          const ring = (one) => { const { outlineStyle, outlineWidth } = getComputedStyle(one); return outlineStyle !== 'none' && parseFloat(outlineWidth) >= 1; };
          return [node.type === 'radio' ? 'radio in ' + node.closest('[id]').id : node.dataset.stop ?? '', ring(node) || ring(node.closest('label') ?? node), node.outerHTML.slice(0, 120)]; }""")
        if at_now is None:
            break
        reached.add(at_now[0])
        if not at_now[1]:
            unseen.append(at_now[2])
    assert unseen == []
    assert set(wanted) <= reached


def test_a21_language_and_look_are_changed_by_keyboard(visit: Visit) -> None:
    page = visit()
    page.locator("#lv-lang input[type=radio]").last.focus()
    page.keyboard.press("Space")
    expect(page.locator("#lv-run")).to_have_text("运行")
    look = page.locator("#lv-dark")
    expect(look).to_have_attribute("aria-label", re.compile(".+"))
    look.focus()
    page.keyboard.press("Enter")
    expect(page.locator("body")).to_have_class(re.compile(r"\bdark\b"))
