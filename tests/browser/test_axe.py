"""axe-core finds nothing serious on any page, in either language and look; headings are in order (WCAG 2.2 A and AA)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import BrowserContext, Page

from tests.browser import conftest
from tests.browser.conftest import PATIENCE, left
from tests.browser.test_contrast import ALL_ON, STILL, turned

AXE = Axe()
SERIOUS = {"serious", "critical"}
# Of less weight by axe's own measure, and still meant: a page is found through its headings and landmarks.
ALSO = {"heading-order", "page-has-heading-one", "empty-heading", "landmark-one-main", "landmark-unique"}
OPTIONS: dict[str, Any] = {"resultTypes": ["violations"], "rules": {"target-size": {"enabled": True}}}
COLOURS: dict[str, Any] = {
    "resultTypes": ["violations"],
    "runOnly": ["color-contrast", "link-in-text-block"],
}  # change with the look, and not with the language: looked at in the first
WITHOUT_COLOURS = {
    **OPTIONS,
    "rules": {**OPTIONS["rules"], **{rule: {"enabled": False} for rule in COLOURS["runOnly"]}},
}
# Gradio's own markup, which this app does not write: (rule, part of the element's address or source) -> why it stays.
OF_GRADIO: dict[tuple[str, str], str] = {}
LANGS = ("en", "zh")


@pytest.fixture(scope="module", params=LANGS)
def explore(usual_context: BrowserContext, bundled_url: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    """Explore with every panel on, for all tests of it one after the other."""
    page = opened(usual_context)
    page.goto(f"{bundled_url}?lang={request.param}")
    page.wait_for_selector('.lv[data-ready="1"][data-model="ready"]')
    page.wait_for_function(STILL)
    yield page
    left(page)


def opened(context: BrowserContext) -> Page:
    page = conftest.opened(context, reduced_motion="reduce")
    page.add_init_script(ALL_ON)
    return page


def findings(page: Page, within: str | None = None, options: dict[str, Any] = OPTIONS) -> list[str]:
    """What axe finds, a line an element; `within`: in a part of the page alone, where all else was looked at before.

    The marks inside of a plot are left out: they are ten thousand nodes, of which none has a role, and their texts' contrast is measured in
    pixels (`test_contrast.py`). The plot itself, its buttons and all that is said of it are looked at.
    """
    context: dict[str, Any] = {"include": [[within or "html"]], "exclude": [[".js-plotly-plot .main-svg > *"]]}
    found = []
    if not page.evaluate("'axe' in window"):  # half a megabyte of script: once a page
        page.evaluate(AXE.axe_script)
    for broken in page.evaluate("async (asked) => (await axe.run(...asked)).violations", [context, options]):
        if broken["impact"] not in SERIOUS and broken["id"] not in ALSO:
            continue
        for node in broken["nodes"]:
            at = " ".join(map(str, node["target"]))
            if not any(rule == broken["id"] and (part in at or part in node["html"]) for rule, part in OF_GRADIO):
                says = " ".join(node.get("failureSummary", "").split())
                found.append(f"{broken['id']} ({broken['impact']}) at {at}: {says} {node['html'][:160]}")
    return found


def passes(page: Page, within: str | None = None) -> None:
    """In English in one look, and the rules of colours in the other too; in Chinese all but those. Nothing is on its way from one to the other."""
    page.add_style_tag(content="*, *::before, *::after { transition: none !important; animation: none !important }")
    english = page.evaluate("document.documentElement.lang") == "en"
    found = []
    for i, options in enumerate((OPTIONS, COLOURS) if english else (WITHOUT_COLOURS,)):
        if i:
            turned(page)
        look = "dark" if page.evaluate("document.body.classList.contains('dark')") else "light"
        found += [f"{look}: {one}" for one in findings(page, within, options)]
    assert not found, f"{len(found)} findings:\n" + "\n".join(found[:60])


def test_axe_sees_a_fault(usual_context: BrowserContext) -> None:
    """Else nothing would be found on any page."""
    page = opened(usual_context)
    page.set_content(
        "<!doctype html><html lang=en><title>t</title><main><h1>a</h1><h3>b</h3><button></button><p style='color:#aaa'>grey</p></main>"
    )
    assert {one.split()[0] for one in findings(page)} == {"heading-order", "button-name", "color-contrast"}
    assert {one.split()[0] for one in findings(page, options=COLOURS)} == {"color-contrast"}
    left(page)


def test_the_recorded_run(explore: Page) -> None:
    passes(explore)


def test_a_word_held_and_every_group_of_settings_open(explore: Page) -> None:
    explore.evaluate("document.querySelectorAll('#lv-settings .label-wrap:not(.open)').forEach((node) => node.click())")
    explore.evaluate("document.querySelector('.lv').page.look({ token: 12, step: 1, pins: [3] })")
    explore.wait_for_function("() => !document.querySelector('.lv').page.looking")
    explore.wait_for_function(STILL)
    explore.evaluate("document.querySelectorAll('.lv-panel details').forEach((node) => (node.open = true))")
    passes(explore)


def test_glossary_tour_and_a_run_in_the_arrow_playground(explore: Page) -> None:
    explore.click("#lv-learn .lv-glossary-open")
    explore.wait_for_selector(".lv-glossary section")
    passes(explore, ".lv-glossary")
    explore.keyboard.press("Escape")
    explore.click("#lv-learn .lv-tour-open")
    explore.wait_for_selector(".lv-tour")
    explore.wait_for_function(STILL)
    passes(explore, ".lv-tour")
    explore.keyboard.press("Escape")
    explore.fill("#ctl-model input", "arrows-loop")
    explore.press("#ctl-model input", "Enter")
    explore.wait_for_selector(".lv-arrows-svg")
    explore.wait_for_function("() => document.querySelector('#ctl-max_loop_count input').value === '24'")
    before = explore.evaluate("document.querySelector('.lv').dataset.run")
    explore.click("#lv-run")
    explore.wait_for_function(
        "(before) => { const d = document.querySelector('.lv').dataset; return d.run !== before && d.end; }", arg=before
    )
    explore.wait_for_selector(".lv-arrows-hops .lv-chip")
    explore.wait_for_function(STILL)
    passes(explore, ".lv-arrows-place")


RUNS = ("compare", "lab")  # of these what they ran is looked at too: in English, for the time it takes


@pytest.mark.parametrize("lang", LANGS)
@pytest.mark.parametrize("at", ["anatomy", "ttt", *RUNS])
def test_a_page_as_it_opens_and_when_what_it_ran_has_ended(
    usual_context: BrowserContext, bundled_url: str, at: str, lang: str
) -> None:
    page = opened(usual_context)
    page.goto(f"{bundled_url}{at}?lang={lang}")
    page.wait_for_selector('.lv-page[data-ready="1"]')
    if at == "anatomy":
        page.wait_for_selector('.lv-page[data-drawn="true"]')
    page.evaluate("document.querySelectorAll('.lv details').forEach((node) => (node.open = true))")
    passes(page)
    if lang == "en" and at in RUNS:
        page.wait_for_selector('.lv-page[data-model="ready"]')
        if at == "compare":
            page.locator("[data-field=max_new_tokens] input").fill("4")
            judged = page.locator("[data-field=continuation] textarea")
            judged.fill(judged.input_value()[:80])  # a sweep reads it with every number of loops
            # what the cards ask was looked at, and is what it was; it is the most of the page
            page.evaluate("document.querySelectorAll('.lv-setups details').forEach((node) => (node.open = false))")
        page.locator(".lv-go:visible").last.evaluate("(button) => button.click()")
        assert page.get_attribute(".lv-page", "data-running") == "1", "what is looked at next is this run's"
        page.wait_for_selector(
            '.lv-page[data-running="0"][data-end="done"][data-drawn="true"]', timeout=4 * PATIENCE
        )  # a comparison is some twenty seconds of one quiet machine
        passes(page)
    left(page)


@pytest.mark.parametrize("lang", LANGS)
def test_learn_passes_asking_and_answered(usual_context: BrowserContext, bundled_url: str, lang: str) -> None:
    """A choice with its picture of arrows, a line to draw, what came of it, and the list of what is wrong with a file."""
    page = opened(usual_context)
    page.goto(f"{bundled_url}learn?lang={lang}")
    page.wait_for_selector('.lv-page[data-ready="1"][data-model="ready"]')
    passes(page)
    page.goto(f"{bundled_url}learn?lesson=arrows&lang={lang}")
    page.wait_for_selector('.lv-page[data-ready="1"][data-model="ready"] .lv-arrows-svg')
    passes(page)
    page.locator(".lv-choice-entry").nth(1).click()
    page.click(".lv-step .lv-go:visible")
    page.wait_for_selector(".lv-verdict:not(:empty)")
    page.click(".lv-class summary")
    page.wait_for_selector(".lv-code-square path")
    passes(page)
    page.click(".lv-next")
    page.fill(".lv-guess input[type=number]", "8")
    page.click(".lv-step .lv-go:visible")
    page.click(".lv-next")
    page.wait_for_selector(".lv-drawing")
    passes(page)
    page.focus('.lv-loop-point[tabindex="0"]')
    page.keyboard.press("ArrowUp")
    page.click(".lv-step .lv-go:visible")
    page.wait_for_selector(".lv-verdict:not(:empty)")
    passes(page)
    page.click(".lv-next")
    page.wait_for_selector(".lv-score:not(:empty)")
    passes(page)
    page.set_input_files(".lv-own-open input", {"name": "x.json", "mimeType": "application/json", "buffer": b"{}"})
    page.wait_for_selector(".lv-faults li")
    passes(page)
    left(page)
