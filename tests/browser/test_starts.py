"""Starting anything while something runs: the first ends, the second comes, and the page shows one state.

Each kind once; `benchmarks/starts.py` tries them many times and prints a table.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from loopviz.app.controls.presets import PRESETS
from loopviz.app.texts import table
from loopviz.panels import GROUPS
from tests.browser.test_explore import (
    Visit,
    data,
    ended,
    example,
    inside,
    reached,
    run,
    same_as_server,
    settle,
    show,
    way,
)
from tests.browser.test_panels import USUAL

LONG = 400  # new tokens of a run that is not to end by itself


def idle(page: Page, how: str = "length") -> None:
    """Wait until nothing runs, and the page shows a run that ended so."""
    page.wait_for_function("() => document.querySelector('.lv').dataset.state === 'idle'")
    ended(page, how)


def words(page: Page) -> str:
    return "".join(row[0] for row in inside(page, "page.tokens") if row[3])


def begun(page: Page) -> int:
    """How many runs the page has begun."""
    return int(data(page, "n"))


def long_run(page: Page) -> None:
    """A run that goes on, begun by Run."""
    settle(page, "sampling", "max_new_tokens", LONG)
    run(page, "The first")
    reached(page, 12)


def by_preset(page: Page) -> None:
    way(page, "one_slot")


def by_example(page: Page) -> None:
    example(page, 1)


def by_run(page: Page) -> None:
    page.click("#lv-run")


def by_keys(page: Page) -> None:
    page.press("#ctl-prompt textarea", "Shift+Enter")


STARTS: dict[str, Callable[[Page], None]] = {
    "run": by_run,
    "keys": by_keys,
    "example": by_example,
    "preset": by_preset,  # last: its loop stays
}


def to(page: Page) -> Page:
    """Go to one of several tabs: one behind another is due no frame, and a press waits for one."""
    page.bring_to_front()
    return page


def goes_on(page: Page) -> None:
    """Wait for three more tokens of a run, or for its own end: it is another's machine that says how far it is."""
    to(page).wait_for_function(
        "n => { const d = document.querySelector('.lv').dataset; return d.end || +d.t >= n; }",
        arg=int(data(page, "t")) + 3,
    )
    assert data(page, "end") in ("", "length"), "the other's stop, or start, is not its"


def test_two_tabs_of_one_visitor_run_at_once(visit: Visit) -> None:
    """Each has a session of its own: neither ends, nor shows, the other's run."""
    pages = []
    for prompt in ("The first", "The second"):
        pages.append(page := visit())
        for name in USUAL[GROUPS[0]]:  # what is drawn of both is not what is asked, and most of what they cost
            page.click(f".lv-switch[data-name={name}]")
        settle(page, "sampling", "max_new_tokens", 900)
        page.fill("#ctl-prompt textarea", prompt)
    one, two = pages
    assert one.context is two.context
    for page in pages:
        to(page).click("#lv-run")
        page.wait_for_selector('.lv[data-state="running"]:not([data-run="recorded"])')
    for page in pages:
        reached(to(page), 3)
    assert data(one, "run") != data(two, "run")
    assert [data(page, "state") for page in pages] == ["running", "running"]
    to(one).click("#lv-stop")
    idle(one, "stopped")
    goes_on(two)
    settle(to(one), "sampling", "max_new_tokens", 6)
    one.click("#lv-run")  # a second start of the one is no start of the other
    idle(one)
    goes_on(two)
    if data(two, "state") == "running":
        two.evaluate("document.querySelector('#lv-stop').click()")  # it may end by itself before a hand is there
    two.wait_for_function("() => document.querySelector('.lv').dataset.state === 'idle'")
    assert (words(one), words(two)) == ("The first", "The second")
    for page in pages:
        same_as_server(to(page))


def other_word(page: Page) -> None:
    """Force another word after the third: what is offered there may be no whole character, which cannot be forced."""
    page.locator(".lv-tok[data-i]").nth(2).click()
    page.locator("[title^='Run again from here']:enabled").first.click()


def test_another_word_forced_while_a_run_is_made_takes_its_place(page: Page) -> None:
    """The run it goes on from is the one it ends."""
    settle(page, "sampling", "max_new_tokens", LONG)
    first = run(page, "Once upon a time")
    reached(page, 8)
    assert data(page, "state") == "running"
    settle(page, "sampling", "max_new_tokens", 4)
    begun = inside(page, "page.tokens.slice(0, 3).map((row) => row[0]).join('')")
    other_word(page)
    page.wait_for_function("run => document.querySelector('.lv').dataset.run !== run", arg=first)
    idle(page)
    prompt = page.input_value("#ctl-prompt textarea")
    assert words(page) == prompt
    assert prompt.startswith(begun)
    assert len(prompt) > len(begun), "it goes on from what the run had written"
    assert inside(page, "page.generated()") == 3  # the fourth was chosen, not read
    same_as_server(page)


@pytest.mark.parametrize("first", ["run", "continue"])
def test_going_on_while_a_start_has_nothing_to_show_yet_takes_its_place(page: Page, first: str) -> None:
    """While a run is made there is no Continue; until its first word the one before is still to be gone on from."""
    before = begun(page)
    settle(page, "sampling", "max_new_tokens", 5)
    page.fill("#ctl-prompt textarea", "Once upon")
    page.click("#lv-run")
    page.wait_for_selector(f'.lv[data-n="{before + 1}"]')
    idle(page)
    text = inside(page, "page.tokens.map((row) => row[0]).join('')") + page.locator(".lv-text .lv-unread").inner_text()
    page.get_by_role("button", name="Continue").evaluate(
        "(more, first) => { (first === 'run' ? document.querySelector('#lv-run') : more).click(); more.click(); }",
        first,
    )
    page.wait_for_selector(f'.lv[data-n="{before + 3}"]')
    idle(page)
    assert words(page) == text == page.input_value("#ctl-prompt textarea")
    assert inside(page, "page.generated()") == 4
    same_as_server(page)


def stopped(page: Page, lang: str) -> None:
    """Stop what runs; the page says "stopping" until it has stopped, and nothing after."""
    page.evaluate("""() => {
      const root = document.querySelector('.lv'), line = document.querySelector('.lv-state');
      const seen = (window.seen = []);
      const look = () => {
        const now = `${root.dataset.state}: ${line.textContent}`;
        if (seen.at(-1) !== now) seen.push(now);
      };
      new MutationObserver(look).observe(root, { attributes: true, attributeFilter: ['data-state'] });
    }""")
    page.click("#lv-stop")
    idle(page, "stopped")
    assert page.evaluate("window.seen.slice(-2)") == [f"stopping: {table(lang)['live.state.stopping']}", "idle: "]
    assert page.evaluate("document.querySelector('.lv-state').textContent") == ""


def test_a25_the_buttons_say_what_goes_on_and_h1_the_page_says_stopping_until_it_has_stopped(page: Page) -> None:
    """A25: Run and Stop looked the same whether something ran or not.

    H1: it said "stopped" while a prompt was still being read, for as long as that took.
    """
    go, stop, line = page.locator("#lv-run"), page.locator("#lv-stop"), page.locator(".lv-state")
    expect(stop).to_be_disabled()
    expect(line).to_be_empty()
    still = go.evaluate("node => getComputedStyle(node, '::before').content")
    long_run(page)
    expect(go).to_have_attribute("data-state", "running")
    expect(go).to_have_attribute("aria-busy", "true")
    expect(stop).to_be_enabled()
    expect(line).to_have_text(re.compile(r"^writing · \d+ words$"))
    page.evaluate("window.scrollTo(0, document.documentElement.scrollHeight)")  # the text is off screen
    moving = go.evaluate("node => getComputedStyle(node, '::before').content")
    assert moving != still, "it can be seen, too"
    stopped(page, "en")
    expect(go).to_have_attribute("data-state", "idle")
    expect(go).to_have_attribute("aria-busy", "false")
    expect(stop).to_be_disabled()
    expect(line).to_be_empty()
    page.click("#lv-lang label:has-text('中文')")  # what the page says, in the other language too
    expect(go).to_have_text("运行")
    long_run(page)
    stopped(page, "zh")
    page.click("#lv-lang label:has-text('English')")
    expect(go).to_have_text("Run")


def test_five_clicks_are_one_run(page: Page) -> None:
    before = begun(page)
    settle(page, "sampling", "max_new_tokens", 12)
    page.evaluate("for (let i = 0; i < 5; i++) document.querySelector('#lv-run').click()")
    idle(page)
    assert begun(page) - before == 5
    same_as_server(page)
    assert len(inside(page, "page.tokens.filter((row) => !row[3])")) == 11


def test_stop_ends_a_start_that_has_nothing_to_show_yet(page: Page) -> None:
    settle(page, "sampling", "max_new_tokens", LONG)
    page.evaluate(
        "document.querySelector('#lv-run').click(); document.querySelector('#lv-stop').disabled = false; document.querySelector('#lv-stop').click()"
    )
    page.wait_for_function("() => document.querySelector('.lv').dataset.state === 'idle'")
    expect(page.locator(".lv-status")).to_contain_text("stopped")
    settle(page, "sampling", "max_new_tokens", 5)
    page.click("#lv-run")
    idle(page)


def test_a_late_answer_about_the_run_before_does_not_take_the_page_back(page: Page) -> None:
    """What is looked at in a run may be answered when the next is on show already: as it ended, or was the recorded one."""
    settle(page, "sampling", "max_new_tokens", 4)
    page.evaluate("document.querySelector('.lv').page.showRecorded()")
    page.wait_for_selector('.lv[data-run="recorded"]')
    before = data(page, "run")
    page.evaluate("""() => { const { page } = document.querySelector('.lv'), ask = page.server.focus, usual = page.connection.functions;
      window.putBack = () => { page.connection.functions = usual; };
      page.connection.functions = { ...page.server, focus: async (question) => {
        const answer = await ask(question);
        window.answered ??= JSON.parse(answer).run;
        while (page.run === window.answered) await new Promise((resolve) => setTimeout(resolve, 20)); // until the next run is here
        window.late = true;
        return answer; } };
      page.look({ token: 2 }); }""")
    page.wait_for_function("() => window.answered")
    run(page, "The second")
    page.wait_for_function("() => window.late")
    idle(page)
    assert data(page, "run") not in ("", before, page.evaluate("window.answered"))
    assert words(page) == "The second"
    # to go back is still possible
    page.evaluate("document.querySelector('.lv').page.showRecorded()")
    page.wait_for_function("() => document.querySelector('.lv').dataset.run === 'recorded'")
    page.evaluate("window.putBack()")


def test_a12_run_again_is_this_run_with_what_it_lacked(page: Page) -> None:
    """A12: it ran what the controls said: another story."""
    before, usual = begun(page), page.input_value("#ctl-loop_count input[type=number]")
    settle(page, "sampling", "max_new_tokens", 6)
    settle(page, "loop", "loop_count", 3)
    page.fill("#ctl-prompt textarea", "Once upon a time")
    page.click("#lv-run")
    page.wait_for_selector(f'.lv[data-n="{before + 1}"]')
    idle(page)
    first, text, loops = data(page, "run"), inside(page, "page.tokens.map((row) => row[0])"), 3
    # the controls and the prompt say something else by now
    settle(page, "loop", "loop_count", 7)
    settle(page, "sampling", "max_new_tokens", 4)
    page.fill("#ctl-prompt textarea", "Another")
    show(page, "attention")
    panel = page.locator(".lv-panel[data-panel=attention]")
    panel.get_by_role("button", name="Run again").click()
    page.wait_for_function("run => document.querySelector('.lv').dataset.run !== run", arg=first)
    idle(page)
    assert inside(page, "page.tokens.map((row) => row[0])") == text
    assert {row[1][0] for row in inside(page, "page.tokens")} == {loops}
    expect(page.locator("#ctl-loop_count input[type=number]")).to_have_value(str(loops))
    expect(page.locator("#ctl-max_new_tokens input[type=number]")).to_have_value("6")
    expect(page.locator("#ctl-prompt textarea")).to_have_value("Once upon a time")
    assert inside(page, "page.panels.get('attention').figure.data.length") > 0, "with what it lacked"
    expect(panel.locator(".lv-lacking")).to_be_hidden()
    page.click(".lv-switch[data-name=attention]")
    settle(page, "loop", "loop_count", int(usual))


@pytest.mark.parametrize("second", STARTS)
def test_a_start_while_a_run_is_made_takes_its_place(page: Page, second: str) -> None:
    """A3: 10 of 24 second starts were lost, with 500 and 422 in the console."""
    long_run(page)
    first = data(page, "run")
    settle(page, "sampling", "max_new_tokens", 9)
    if second in ("run", "keys"):
        page.fill("#ctl-prompt textarea", "The second")
    STARTS[second](page)
    idle(page)
    assert data(page, "run") not in ("", first)
    assert words(page) == page.input_value("#ctl-prompt textarea") != ""
    if second == "preset":
        assert {row[1][0] for row in inside(page, "page.tokens")} == {4}
        expect(page.locator("#lv-preset-one_slot")).to_have_class(re.compile("lv-on"))
    same_as_server(page)


def test_presets_clicked_one_after_the_other_end_with_the_last(visit: Visit) -> None:
    """What the tour tells a newcomer to do; sometimes the second came before the first had its first token."""
    page = visit()
    settle(page, "sampling", "max_new_tokens", LONG)
    for preset in PRESETS:
        way(page, preset.name)
    reached(page, 12)
    assert data(page, "n") == str(len(PRESETS))
    expect(page.locator(".lv-about")).to_contain_text("versions merged (ema)")
    assert data(page, "state") == "running"
    page.click("#lv-stop")
    idle(page, "stopped")


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_prompt_s_keys_do_what_the_page_says(visit: Visit, lang: str) -> None:
    """case_shift_enter: Shift+Enter runs, as the line beside the box and the list of keys say; Enter makes a line."""
    page = visit(f"?lang={lang}")
    said = table(lang)["prompt.info"]
    assert "Shift+Enter" in said
    expect(page.locator("#ctl-prompt .info-text")).to_have_text(said)
    page.keyboard.press("?")
    expect(page.locator("dialog.lv-keys")).to_contain_text("Shift + Enter")
    expect(page.locator("dialog.lv-keys")).to_contain_text(table(lang)["live.key.run"])
    page.keyboard.press("Escape")
    settle(page, "sampling", "max_new_tokens", 5)
    box = page.locator("#ctl-prompt textarea")
    box.fill("Lily")
    box.press("Enter")
    box.press_sequentially("had")
    assert box.input_value() == "Lily\nhad"
    assert data(page, "n") == "0", "Enter makes a line"
    for n, key in enumerate(("Shift+Enter", "Control+Enter", "Meta+Enter"), 1):
        box.press(key)
        idle(page)
        assert (data(page, "n"), box.input_value(), words(page)) == (str(n), "Lily\nhad", "Lily\nhad")


def test_an_input_method_s_enter_is_its_own(visit: Visit) -> None:
    page = visit()
    box = page.locator("#ctl-prompt textarea")
    box.fill("小")
    for composing in ({"isComposing": True}, {"keyCode": 229}):
        for shift in (True, False):
            event = {"key": "Enter", "bubbles": True, "cancelable": True, "shiftKey": shift, **composing}
            left = box.evaluate("(box, event) => box.dispatchEvent(new KeyboardEvent('keydown', event))", event)
            assert left, "it is left to the input method"
    assert data(page, "n") == "0"


def test_every_key_of_the_list_does_something(visit: Visit) -> None:
    """KINDS 8: what the page says about itself."""
    page = visit()
    settle(page, "sampling", "max_new_tokens", 12)
    page.fill("#ctl-prompt textarea", "Once upon a time")
    page.press("#ctl-prompt textarea", "Shift+Enter")
    idle(page)
    page.focus(".lv-text")

    def seen() -> list[Any]:
        return [data(page, "focus"), *inside(page, "[page.focus.step, page.focus.pins.length]")]

    for key in ("ArrowLeft", "ArrowLeft", "ArrowRight", "ArrowUp", "ArrowUp", "ArrowDown", "p", "p", "Escape"):
        before = seen()
        page.keyboard.press(key)
        page.wait_for_function(
            "() => { const p = document.querySelector('.lv').page; return !p.looking && !p.asking; }"
        )
        assert seen() != before, key
    page.keyboard.press(" ")
    page.wait_for_function("() => document.querySelector('.lv').dataset.playing === '1'")
    page.keyboard.press(" ")
    page.wait_for_function("() => document.querySelector('.lv').dataset.playing === '0'")
    page.keyboard.press("?")
    expect(page.locator("dialog.lv-keys")).to_be_visible()
