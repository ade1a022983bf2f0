"""What a visitor does with a finished run: it is there at once, plays, is looked at, kept apart from one's own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from loopviz.app.explore import first_run
from loopviz.panels import PANELS
from tests.browser.conftest import PATIENCE
from tests.browser.test_explore import (
    SHOWN,
    Visit,
    data,
    drawn,
    ended,
    inside,
    run,
    same_as_server,
    settle,
    show,
    way,
)


@pytest.fixture
def first_sight(browser: Browser, app_url: str) -> Iterator[Callable[[], Page]]:
    """A page just opened by somebody who has never been here; nothing is waited for."""
    contexts = []

    def look() -> Page:
        contexts.append(browser.new_context(viewport={"width": 1280, "height": 900}))
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(app_url)
        return page

    yield look
    for context in contexts:
        context.close()


def recorded(page: Page) -> None:
    """Show the recorded run, on which a visit begins."""
    if data(page, "run") != "recorded":
        page.get_by_role("button", name="Recorded run").click()
        page.wait_for_selector('.lv[data-run="recorded"]')


def shown(page: Page) -> int:
    return int(data(page, "t"))


def still(page: Page) -> None:
    """Wait until nothing is asked and nothing moves."""
    page.wait_for_function(
        "() => { const p = document.querySelector('.lv').page;"
        " return !p.looking && !p.asking && !p.player.moving && !p.player.playing; }"
    )


def words(page: Page) -> Locator:
    """The words of the run's text."""
    return page.get_by_role("listbox", name="Generated text").get_by_role("option")


def held(page: Page) -> Locator:
    """The word that is held."""
    return page.get_by_role("listbox", name="Generated text").get_by_role("option", selected=True)


def titles(page: Page) -> str:
    return inside(page, "[...page.panels.values()].map((panel) => panel.figure?.layout.title?.text ?? '').join('|')")


def test_the_recorded_run_is_there_before_anything_is_asked(first_sight: Callable[[], Page]) -> None:
    trace = first_run.stored()
    assert trace is not None
    page = first_sight()
    expect(page.get_by_text("recorded run", exact=True).first).to_be_visible()
    drawn(page)
    assert shown(page) == len(trace)
    text = page.get_by_role("listbox", name="Generated text").inner_text()
    assert text.replace("↵", "").split() == trace.text.replace("↵", "").split()
    for name in SHOWN:
        plot = page.get_by_role("region", name=inside(page, f"page.panels.get('{name}').words.name"))
        expect(plot.locator(".main-svg").first).to_be_visible()


def test_replay(page: Page) -> None:
    recorded(page)
    total = shown(page)
    scrubber = page.get_by_role("slider", name="Tokens shown")
    expect(scrubber).to_have_attribute("aria-valuetext", f"{total} of {total} tokens")
    # drag back: everything is as it was then
    scrubber.fill("9")
    page.wait_for_function("() => document.querySelector('.lv').dataset.t === '9'")
    still(page)
    assert words(page).count() == 9
    assert "token 8 " in titles(page)
    back = inside(page, "JSON.stringify([...page.panels].map(([name, panel]) => panel.figure))")
    # forward, by edits, and back again by a snapshot: the same
    scrubber.fill("14")
    page.wait_for_function("() => document.querySelector('.lv').dataset.t === '14'")
    assert "token 13 " in titles(page)
    scrubber.fill("9")
    page.wait_for_function("() => document.querySelector('.lv').dataset.t === '9'")
    still(page)
    assert inside(page, "JSON.stringify([...page.panels].map(([name, panel]) => panel.figure))") == back
    # play to the end, as fast as it goes
    speed = page.get_by_role("combobox", name="Replay speed")
    usual = speed.input_value()
    speed.select_option("4")
    page.get_by_role("button", name="Play").click()
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    page.wait_for_function("total => +document.querySelector('.lv').dataset.t === total", arg=total)
    expect(page.get_by_role("button", name="Play")).to_be_visible()
    drawn(page)
    server, own = page.evaluate(
        """async () => { const page = document.querySelector('.lv').page;
          const view = { ...page.view(), epoch: 0, shown: null };
          const whole = JSON.parse(await page.server.focus(JSON.stringify(view)));
          return [whole.figures, Object.fromEntries([...page.panels].filter(([, p]) => p.figure).map(([n, p]) => [n, p.figure]))]; }"""
    )
    assert own == server
    speed.select_option(usual)


def test_keys(page: Page) -> None:
    recorded(page)
    total = shown(page)
    page.keyboard.press("Escape")  # the page opens on a word that tells something
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    expect(held(page)).to_have_attribute("data-i", str(total - 3))
    page.keyboard.press("ArrowUp")
    still(page)
    assert inside(page, "page.focus.step") == 1
    page.keyboard.press("p")
    expect(page.get_by_role("button", name=f"Unpin {total - 3} ")).to_be_visible()
    page.keyboard.press("Escape")
    expect(held(page)).to_have_count(0)
    still(page)
    assert inside(page, "page.focus.pins") == [total - 3]
    page.keyboard.press("Space")
    page.wait_for_function("() => document.querySelector('.lv').dataset.playing === '1'")
    page.wait_for_function(
        "total => { const t = +document.querySelector('.lv').dataset.t; return t > 0 && t < total; }", arg=total
    )
    page.keyboard.press("Space")
    still(page)
    at = shown(page)
    page.keyboard.press("ArrowRight")  # past the last word shown, the replay goes on
    page.wait_for_function("at => +document.querySelector('.lv').dataset.t === at + 1", arg=at)
    # keys are left alone where somebody types
    page.get_by_role("textbox", name="Prompt").first.focus()
    page.keyboard.press("End")
    page.keyboard.type(" p?")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert page.get_by_role("textbox", name="Prompt").first.input_value().endswith(" p?")
    page.get_by_role("button", name="Keys").click()
    expect(page.get_by_role("dialog", name="Keys")).to_contain_text("play or pause the replay")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.evaluate("document.querySelector('.lv').page.look({ pins: [] })")  # a shorter run has no such word
    still(page)


def test_panels_are_switched_and_stay_so(visit: Visit) -> None:
    page = visit()
    name = SHOWN[0]
    title = PANELS[name].TEXTS["en"]["title"]
    label = inside(page, f"page.panels.get('{name}').words.name")
    group = page.get_by_role("group", name="Panels")
    switch = group.get_by_role("button", name=label, exact=True)
    expect(switch).to_have_attribute("aria-pressed", "true")
    switch.click()
    expect(page.get_by_role("heading", name=title)).to_be_hidden()
    settle(page, "sampling", "max_new_tokens", 12)
    run(page, "Once")
    ended(page)
    assert name not in inside(page, "JSON.parse(page.wishes()).panels")
    same_as_server(page)  # it has no figure, and the server made none
    switch.click()  # drawn from what the run recorded
    expect(page.get_by_role("heading", name=title)).to_be_visible()
    drawn(page)
    same_as_server(page)
    switch.click()
    page.reload()
    expect(page.get_by_text("recorded run", exact=True).first).to_be_visible()
    expect(page.get_by_role("heading", name=title)).to_be_hidden()


def test_one_s_own_run_and_the_recorded_one(page: Page) -> None:
    settle(page, "sampling", "max_new_tokens", 12)
    own = run(page, "Once upon a time")
    ended(page)
    expect(page.locator(".lv-badge")).to_be_hidden()
    page.get_by_role("button", name="Recorded run").click()
    expect(page.locator(".lv-badge")).to_be_visible()
    page.get_by_role("button", name="Back to my run").click()
    page.wait_for_function("own => document.querySelector('.lv').dataset.run === own", arg=own)
    drawn(page)
    same_as_server(page)
    # replay works on it as well
    page.get_by_role("slider", name="Tokens shown").fill("5")
    page.wait_for_function("() => document.querySelector('.lv').dataset.t === '5'")
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("() => { const d = document.querySelector('.lv').dataset; return d.t === d.total; }")
    drawn(page)
    same_as_server(page)


def test_going_on_changing_and_forcing_a_word(page: Page) -> None:
    settle(page, "sampling", "max_new_tokens", 6)
    first = run(page, "Once upon a time")
    ended(page)
    text = inside(page, "page.tokens.map((row) => row[0]).join('')") + page.locator(".lv-text .lv-unread").inner_text()
    page.get_by_role("button", name="Continue").click()
    page.wait_for_function("run => document.querySelector('.lv').dataset.run !== run", arg=first)
    ended(page)
    assert inside(page, "page.tokens.filter((row) => row[3]).map((row) => row[0]).join('')") == text
    box = page.get_by_role("textbox", name="Prompt").first
    page.get_by_role("button", name="Edit").click()
    expect(box).to_be_focused()
    page.wait_for_function("n => document.querySelector('#ctl-prompt textarea').value.length > n", arg=len(text))
    assert box.input_value().startswith(text)
    # another word after the third
    words(page).nth(2).click()
    other = page.locator("[title^='Run again from here']:enabled").first
    expect(other).to_be_visible()
    piece = inside(
        page,
        "page.alternatives.rows.find(([piece]) => piece && piece !== page.alternatives.said && !piece.includes('\\ufffd'))[0]",
    )
    start = inside(page, "page.tokens.slice(0, 3).map((row) => row[0]).join('')")
    before = data(page, "run")
    other.click()
    page.wait_for_function("run => document.querySelector('.lv').dataset.run !== run", arg=before)
    ended(page)
    assert inside(page, "page.tokens.filter((row) => row[3]).map((row) => row[0]).join('')") == start + piece


def test_a_preset_sets_the_loop_and_runs(page: Page) -> None:
    settle(page, "sampling", "max_new_tokens", 10)
    page.get_by_role("textbox", name="Prompt").first.fill("Once upon a time")
    before = data(page, "run")
    way(page, "one_slot")
    page.wait_for_function("before => !['', before].includes(document.querySelector('.lv').dataset.run)", arg=before)
    ended(page)
    assert inside(page, "page.tokens[0][1]") == [4]
    expect(page.get_by_text("Every loop overwrites the one version kept of a word")).to_be_visible()
    expect(page.locator(".lv-about")).to_contain_text("one memory slot shared by all loops")
    settle(page, "loop", "loop_count", 3)  # no longer the preset's
    expect(page.get_by_text("Every loop overwrites")).to_have_count(0)


def test_the_line_and_the_cost_panel_say_one_rate_whatever_was_said_meanwhile(page: Page) -> None:
    """A4: after a message during a run the line said 198 tokens/s of 11.5, and the panel another."""
    show(page, "cost")
    settle(page, "sampling", "max_new_tokens", 40)
    run(page, "Once upon a time")
    inside(page, "page.say('something is said')")
    ended(page)
    drawn(page)
    line = page.locator(".lv-status").inner_text()
    said = page.locator('[data-panel="cost"] .lv-sr').text_content()
    (one,), (other,) = (re.findall(r"([\d.,]+) tokens/s by the clock", text) for text in (line, said))
    assert (
        abs(float(one.replace(",", "")) - float(other.replace(",", ""))) <= 0.006 * float(one.replace(",", "")) + 0.05
    )
