"""Where things are on the page: what stays in reach, what does not move, what is not cut off, at the sizes people have."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from loopviz.panels import PANELS
from tests.browser.conftest import Visits, left
from tests.browser.test_explore import drawn, show

Visit = Callable[..., Page]
WIDE = [(1440, 900), (1280, 720), (1024, 1366)]
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
# What a random model writes has no spaces: one word of forty characters wraps as it grows, and nothing else moves.
_WATCHED = """() => { const growing = ({ sources }) => sources.length && sources.every(({ node }) => node?.nodeType === 3 && node.parentElement?.closest('.lv-text'));
  return new Promise((done) => new PerformanceObserver((list) => done(list.getEntries()
  .filter((entry) => !entry.hadRecentInput && !growing(entry)).map((entry) => entry.value))).observe({ type: 'layout-shift', buffered: true })
  || setTimeout(() => done([]), 500)); }"""


# Whoever gives a page its Plotly: what each plot is drawn at is noted.
_DRAWN = """(() => { let known; window.lvDrawn = [];
  Object.defineProperty(window, 'Plotly', { configurable: true, get: () => known, set(given) {
    known = given;
    const { react } = given;
    given.react = function (plot, data, layout, ...rest) {
      window.lvDrawn.push(`${plot.closest('[data-panel]')?.dataset.panel}: ${plot.clientWidth} x ${layout.height}`);
      return react.call(this, plot, data, layout, ...rest);
    };
  } }); })()"""


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


def resized(page: Page, width: int, height: int, off: float = 4) -> None:
    """Give a page's window another size; its plots have followed, to less than so many pixels (one at rest may be 2 off)."""
    page.set_viewport_size({"width": width, "height": height})
    page.wait_for_function(
        """(off) => [...document.querySelectorAll('.lv-panel:not([hidden]) .main-svg')].every((plot) =>
          Math.abs(plot.clientWidth - plot.closest('.lv-plot').clientWidth) < off)""",
        arg=off,
    )


def made_narrow_and_wide(page: Page) -> None:
    """After a run: Plotly forgot a plot's height when the window's size changed, and panels drawn again in a run lay over others."""
    for width in (1400, 416, 1400, 416):
        resized(page, width, 1250, off=2)
        # it settles a frame or two later: what lies over others for good is the fault
        page.wait_for_function("""() => [...document.querySelectorAll('.lv-panel:not([hidden]) .main-svg')].every((plot) =>
          plot.getBoundingClientRect().bottom <= plot.closest('.lv-plot-wrap').getBoundingClientRect().bottom + 1)""")


@pytest.mark.parametrize("size", [(1440, 900), (1280, 720), (390, 844)], ids=str)
def test_a_plot_is_drawn_once_as_explore_opens(
    visit: Visit, usual_context: BrowserContext, size: tuple[int, int]
) -> None:
    """What stands in for Gradio's layout is as wide as it, and lines in it are as high: drawing is most of what opening costs."""
    usual_context.once("page", lambda page: page.add_init_script(_DRAWN))
    page = visit(viewport={"width": size[0], "height": size[1]})
    page.wait_for_timeout(300)  # what would draw one anew does it within a frame or two
    plots = page.evaluate("lvDrawn")
    assert plots
    assert len({plot.split(":")[0] for plot in plots}) == len(plots)
    for wrap, plot in page.evaluate(
        """[...document.querySelectorAll('.lv-panel:not([hidden]) .main-svg')].map((plot) =>
        [plot.closest('.lv-plot-wrap').clientWidth, plot.clientWidth])"""
    ):
        assert plot <= wrap


def test_a7_the_settings_stay_beside_every_panel(visit: Visit) -> None:
    page = visit(viewport={"width": WIDE[0][0], "height": WIDE[0][1]})
    show(page, "token_loop_map", "loops_per_token")
    for width, height in WIDE:
        resized(page, width, height)
        for name in ("state_trajectory", "loops_per_token"):
            page.evaluate(f"document.querySelector('.lv-panel[data-panel={name}]').scrollIntoView()")
            assert page.evaluate("scrollY") > height / 2, (width, name)
            for control in ("ctl-model", "ctl-loop_count"):
                page.evaluate(f"document.querySelector('#{control}').scrollIntoView({{ block: 'nearest' }})")
                assert inside(page, f"#{control}"), (width, name, control)
            assert page.evaluate("scrollY") > height / 2, ("the page itself did not have to scroll", width, name)


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


def test_a22_what_a_plot_says_of_itself_is_never_cut_nor_covered(visit: Visit) -> None:
    page = visit(viewport={"width": WIDE[0][0], "height": WIDE[0][1]})
    for name in ("convergence", "kv_occupancy", "loops_per_token", "token_loop_map"):
        show(page, name)
        drawn(page)
        panel = page.locator(f".lv-panel[data-panel={name}]")
        for width, height in (*WIDE, (390, 844)):
            resized(page, width, height)
            panel.scroll_into_view_if_needed()
            said = panel.locator(".lv-headline")
            expect(said).not_to_be_empty()
            assert said.evaluate("(node) => node.scrollWidth <= node.clientWidth"), (name, width)
            assert panel.locator(".gtitle").count() == 0, ("not in the plot, where it would be cut", name, width)
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
            assert covered == [], (name, width)
        resized(page, *WIDE[0])  # where the next one is switched on


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


# each opened once for all that is asked of it, one after the other: a browser keeps six lines to a server, and every page has one
PAGES = {
    "": "",
    "anatomy": "anatomy",
    "ttt": "ttt",
    "compare": "compare",
    "lab": "lab",
    "teach": "teach",
    "learn": "learn",
    "learn?lesson=arrows": "a lesson",
}


@pytest.fixture(scope="module", params=PAGES, ids=[name or "explore" for name in PAGES.values()])
def of_ours(
    request: pytest.FixtureRequest, browser: Browser, usual_context: BrowserContext, app_url: str
) -> Iterator[tuple[str, Page]]:
    """A page's name and it: it is looked at and tabbed through, and nothing of it is pressed but by the last test."""
    at, _, query = request.param.partition("?")
    visits = Visits(browser, usual_context, app_url)
    page = visits.open(query and f"?{query}", at=at)
    if at == "ttt":  # its recorded run comes after it
        page.wait_for_selector('.lv-page[data-end="length"][data-drawn="true"]')
    yield PAGES[request.param], page
    left(page)
    assert visits.wrong == []


def test_a21_headings_come_in_order(of_ours: tuple[str, Page]) -> None:
    levels = of_ours[1].evaluate(
        "[...document.querySelectorAll('h1, h2, h3, h4, h5, h6')].filter((node) => !node.closest('dialog')).map((node) => +node.localName[1])"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels)), levels


def test_a21_every_control_has_a_name_of_its_own(of_ours: tuple[str, Page]) -> None:
    name, page = of_ours
    if not name:
        names = page.evaluate(
            "[...document.querySelectorAll('.lv-panel-head > button, .lv-panel-head > .lv-menu > button')].filter((node) => !node.hidden).map((node) => node.getAttribute('aria-label'))"
        )
        assert len(names) == len(set(names)) == 2 * len(PANELS)
    unnamed = """[...document.querySelectorAll('button, a[href], input:not([type=hidden]), select, textarea, [role=button]')].filter((node) =>
      node.checkVisibility() && !node.closest('.lv-untold') && !(node.getAttribute('aria-label') || node.getAttribute('aria-labelledby') || node.title
      || node.labels?.length || /[\\p{L}\\p{N}]/u.test(node.textContent))).map((node) => node.outerHTML.slice(0, 160))"""
    assert page.evaluate(unnamed) == []


def test_a21_all_can_be_reached_by_tab_and_seen_to_be(of_ours: tuple[str, Page]) -> None:
    name, page = of_ours
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
    if not name:  # the last that is asked of Explore: in another language and look it is another page
        language_and_look_are_changed_by_keyboard(page)


def language_and_look_are_changed_by_keyboard(page: Page) -> None:
    page.locator("#lv-lang input[type=radio]").last.focus()
    page.keyboard.press("Space")
    expect(page.locator("#lv-run")).to_have_text("运行")
    look = page.locator("#lv-dark")
    expect(look).to_have_attribute("aria-label", re.compile(".+"))
    look.focus()
    page.keyboard.press("Enter")
    expect(page.locator("body")).to_have_class(re.compile(r"\bdark\b"))
