"""Explore's panels in their groups, the frames they fill, and the bar that stays in reach: by mouse, keyboard and finger."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from loopviz.app.explore import first_run
from loopviz.app.texts import table
from loopviz.panels import GROUPS, PANELS
from tests.browser.test_explore import data, drawn, ended, inside, run, same_as_server, settle, show
from tests.browser.test_layout import PHONE, shift

Visit = Callable[..., Page]
USUAL = {
    group: [name for name in first_run.usual_panels() if group == PANELS[name].GROUP] for group in GROUPS
}  # as they are on for somebody who was never here


def on_screen(page: Page) -> list[str]:
    return page.evaluate(
        "[...document.querySelectorAll('.lv-panel')].filter((node) => node.checkVisibility()).map((node) => node.dataset.panel)"
    )


def settled(page: Page) -> None:
    page.wait_for_function("() => !document.querySelector('.lv').page.looking")
    drawn(page)


def screens(page: Page) -> float:
    """How many windows high the page is."""
    return page.evaluate("document.documentElement.scrollHeight / innerHeight")


# --- groups


def groups_are_tabs_for_mouse_and_keyboard(page: Page, lang: str) -> None:
    """B8."""
    words = table(lang)
    tabs = page.get_by_role("tab")
    expect(tabs).to_have_text([words[f"live.group.{group}"] for group in GROUPS])
    for group, tab in zip(GROUPS, tabs.all(), strict=True):
        tab.click()
        settled(page)
        expect(tab).to_have_attribute("aria-selected", "true")
        expect(page.get_by_role("tab", selected=True)).to_have_count(1)
        assert on_screen(page) == USUAL[group]
        panel = page.get_by_role("tabpanel")
        assert tab.get_attribute("aria-controls") == panel.get_attribute("id")
        expect(panel).to_have_attribute("aria-labelledby", tab.get_attribute("id") or "")
        switches = page.locator(".lv-switch:visible").evaluate_all("(all) => all.map((node) => node.dataset.name)")
        assert switches == [name for name in PANELS if group == PANELS[name].GROUP]
    token = data(page, "focus")
    for key, at in (("ArrowRight", 0), ("ArrowRight", 1), ("ArrowLeft", 0), ("ArrowLeft", 3), ("Home", 0), ("End", 3)):
        page.keyboard.press(key)
        expect(tabs.nth(at)).to_be_focused()
        expect(tabs.nth(at)).to_have_attribute("aria-selected", "true")
    settled(page)
    assert on_screen(page) == USUAL[GROUPS[3]]
    assert data(page, "focus") == token, "the arrows went through the tabs, and not through the words"
    # one stop of the Tab key, then the switches of the group
    page.keyboard.press("Tab")
    expect(page.locator(".lv-switch:visible").first).to_be_focused()


def test_b8_the_server_draws_the_open_group_alone_which_is_remembered_and_may_be_empty(visit: Visit) -> None:
    page = visit()
    page.click("#lv-tab-memory")
    settled(page)
    settle(page, "sampling", "max_new_tokens", 8)
    run(page)
    ended(page)
    drawn(page)
    held = "[...page.panels].filter(([, panel]) => panel.figure).map(([name]) => name)"
    assert inside(page, held) == USUAL["memory"]
    same_as_server(page)
    for name in USUAL["memory"]:
        page.click(f".lv-switch[data-name={name}]")
    page.wait_for_function("() => !document.querySelector('.lv').page.looking")
    assert on_screen(page) == []
    expect(page.locator(".lv-shelf-none")).to_be_visible()
    page.reload()
    page.wait_for_selector('.lv[data-ready="1"][data-model="ready"]')
    expect(page.locator("#lv-tab-memory")).to_have_attribute("aria-selected", "true")
    assert on_screen(page) == []
    show(page, "kv_occupancy")
    settled(page)
    assert on_screen(page) == ["kv_occupancy"]
    expect(page.locator(".lv-shelf-none")).to_be_hidden()


def test_b8_what_a_closed_group_needs_is_recorded_and_a_run_that_brings_a_panel_says_in_which_group(
    visit: Visit,
) -> None:
    page = visit()
    show(page, "attention")
    page.click("#lv-tab-thinking")
    settled(page)
    settle(page, "sampling", "max_new_tokens", 4)
    page.click("#lv-group-step .label-wrap")
    page.locator("#ctl-layer_chooser input").click()
    page.get_by_role("option", name="influence").click()
    page.wait_for_function("() => !document.querySelector('#ctl-layer_threshold input').disabled")
    run(page)
    ended(page)
    tab = page.locator("#lv-tab-words")
    expect(tab).to_have_class(re.compile("lv-news"))
    expect(tab).to_have_attribute("aria-description", table("en")["live.group.news"])
    tab.click()
    settled(page)
    assert "layers_run" in on_screen(page)
    expect(tab).not_to_have_class(re.compile("lv-news"))
    assert inside(page, "page.panels.get('attention').figure.data.length") > 0


def test_b8_the_tour_opens_the_groups_it_speaks_of_and_gives_the_visitor_s_back_and_a_link_opens_its_group(
    visit: Visit,
) -> None:
    page = visit()
    page.click("#lv-tab-cost")
    settled(page)
    page.get_by_role("button", name="Take the tour").first.click()
    card, seen = page.locator(".lv-tour"), set()
    expect(card).to_be_visible()
    for _ in range(20):
        page.wait_for_function("() => !document.querySelector('.lv').page.looking")
        target = inside(page, "page.tour.steps[page.tour.at]")
        for name in target["panels"]:
            assert name in on_screen(page)
            seen.add(PANELS[name].GROUP)
        page.locator(".lv-tour-next").click()
        if not card.count():
            break
    assert len(seen) >= 2
    expect(page.locator("#lv-tab-cost")).to_have_attribute("aria-selected", "true")
    settled(page)
    assert on_screen(page) == USUAL["cost"]
    a_link_opens_the_group_it_was_made_in(page, visit)


def a_link_opens_the_group_it_was_made_in(page: Page, visit: Visit) -> None:
    """B8."""
    show(page, "key_similarity")
    page.locator(".lv-share").click()
    page.get_by_role("button", name="Copy link").click()
    address = page.locator(".lv-link").input_value()
    # another person: what this one's browser remembers of groups is not theirs
    page.evaluate("localStorage.clear()")
    page.close()
    other = visit("?" + address.partition("?")[2])
    other.wait_for_function("() => document.querySelector('#lv-tab-memory')?.getAttribute('aria-selected') === 'true'")
    assert on_screen(other) == ["kv_occupancy", "key_similarity", "kv_projection"]
    other.click("#lv-tab-words")
    settled(other)
    assert on_screen(other) == USUAL["words"], "of another group it says nothing"


# --- frames


def the_room_around_its_axes_becomes_no_less_until_another_run(page: Page) -> None:
    """Where it changes Plotly draws everything once more, and it changed with every label that came or went."""
    before, held, after = page.evaluate("""async () => {
      const { panels } = document.querySelector('.lv').page, panel = panels.get('convergence'), left = [];
      const draw = async () => { await panel.draw(); left.push(panel.plot._fullLayout._size.l); };
      panel.around = null;
      await draw();
      panel.around = { ...panel.around, sides: { ...panel.around.sides, l: left[0] + 31 } };
      await draw();
      panel.around = { ...panel.around, scene: 'of another run' };
      await draw();
      return left; }""")
    assert (held, after) == (before + 31, before)


def test_b7_plots_fill_their_row_and_words_unfolded_beside_one_do_not_make_it_a_tower(visit: Visit) -> None:
    """400 px of white stood under the lower of two panels."""
    page = visit(height=1200)
    drawn(page)
    plot = page.locator("[data-panel=state_trajectory] .main-svg").first
    before = plot.bounding_box()
    page.locator("[data-panel=convergence] summary").click()
    page.wait_for_function("() => document.querySelector('[data-panel=convergence] details').open")
    drawn(page)
    the_room_around_its_axes_becomes_no_less_until_another_run(page)
    after = plot.bounding_box()
    assert before is not None
    assert after is not None
    assert abs(after["height"] - before["height"]) < 4
    page.locator("[data-panel=convergence] summary").click()
    page.wait_for_function(
        "(height) => Math.abs(document.querySelector('[data-panel=state_trajectory] .main-svg').clientHeight - height) < 4",
        arg=before["height"],
    )
    page.set_viewport_size({"width": 1280, "height": 900})
    for group in GROUPS:
        page.click(f"#lv-tab-{group}")
        settled(page)
        for name in [name for name in PANELS if group == PANELS[name].GROUP and not getattr(PANELS[name], "NEEDS", ())]:
            show(page, name)
        settled(page)
        page.wait_for_function(
            """() => [...document.querySelectorAll('.lv-panel:not([hidden])')].every((panel) => {
              const [wrap, plot] = ['.lv-plot-wrap', '.main-svg'].map((at) => panel.querySelector(at)?.getBoundingClientRect());
              return !plot || Math.abs(wrap.height - plot.height) < 3; })"""
        )


# --- in reach


def past_the_text(page: Page) -> None:
    page.evaluate("window.scrollTo(0, document.documentElement.scrollHeight)")
    page.wait_for_function("() => document.querySelector('.lv-text').getBoundingClientRect().bottom <= 0")
    expect(page.locator(".lv-reach-row")).to_be_visible()  # an observer tells it, a frame or two later


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_b6_the_bar_comes_when_the_text_is_gone_and_moves_nothing_and_b8_groups_are_tabs(
    visit: Visit, lang: str
) -> None:
    page = visit(f"?lang={lang}", viewport={"width": 1280, "height": 720})
    drawn(page)
    bar, row = page.locator(".lv-reach"), page.locator(".lv-reach-row")  # the bar itself takes no room
    expect(row).to_be_hidden()
    tops = "[...document.querySelectorAll('.lv-panel:not([hidden])')].map((node) => node.getBoundingClientRect().top + scrollY)"
    before, moved = page.evaluate(tops), shift(page)
    past_the_text(page)
    box = row.bounding_box()
    assert box is not None
    assert (round(box["y"]), round(box["height"])) == (0, 44)
    assert page.evaluate(tops) == before
    assert shift(page) == moved
    expect(bar.get_by_role("button", name=table(lang)["live.reach.run"], exact=True)).to_be_visible()
    assert bar.get_attribute("aria-label") == table(lang)["live.reach"]
    # tabbed into it moves no page, and as long as the keyboard is in it, it stays
    page.locator("#lv-group-sampling .label-wrap").evaluate("(node) => node.focus({ preventScroll: true })")
    high = page.evaluate("scrollY")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.matches('.lv-reach .lv-play')")
    assert page.evaluate("scrollY") == high
    page.evaluate("window.scrollTo(0, 0)")
    two_frames = "new Promise((then) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(then))))"
    page.evaluate(two_frames)
    expect(row).to_be_visible()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.matches('.lv-reach input')")
    page.keyboard.press("Shift+Tab")
    expect(row).to_be_visible()
    # another Shift+Tab would go down the page again, to where the text is out of sight
    page.evaluate("document.activeElement.blur()")
    expect(row).to_be_hidden()
    page.set_viewport_size({"width": 1280, "height": 900})
    groups_are_tabs_for_mouse_and_keyboard(page, lang)


def test_b6_what_is_tabbed_to_is_not_under_the_bar_which_shows_the_words_around_the_one_shown(visit: Visit) -> None:
    page = visit(height=560)
    drawn(page)
    past_the_text(page)
    assert hidden_focus(page) == []
    page.set_viewport_size({"width": 1280, "height": 600})
    page.evaluate("document.activeElement.blur()")
    page.evaluate("document.querySelector('.lv').page.look({ token: 12 })")
    settled(page)
    past_the_text(page)
    words = page.locator(".lv-reach-words [data-word]")
    assert words.evaluate_all("(all) => all.map((node) => +node.dataset.word)") == [*range(6, 19)]
    expect(page.locator(".lv-reach-words .lv-selected")).to_have_attribute("data-word", "12")
    page.locator(".lv-reach-words [data-word='14']").click()
    settled(page)
    assert data(page, "focus") == "14"
    assert page.evaluate("scrollY") > 0, "the page stays where it is"
    expect(page.locator(".lv-reach-words .lv-selected")).to_have_attribute("data-word", "14")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".lv-reach-words .lv-selected")).to_have_attribute("data-word", "15")


def slide(page: Page, which: int, value: str) -> None:
    page.locator(".lv-reach .lv-slide input").nth(which).fill(value)


def test_b6_its_sliders_are_the_form_s_own_and_act_and_stop_while_it_runs(visit: Visit) -> None:
    page = visit(height=600)
    settle(page, "sampling", "max_new_tokens", 8)
    past_the_text(page)
    slides = page.locator(".lv-reach .lv-slide input")
    expect(slides).to_have_count(2)
    expect(page.locator("#ctl-loop_damping")).to_have_count(0)  # its group is closed: Gradio has not even built it
    real = page.locator("#ctl-loop_count input[type=number]")
    expect(slides.first).to_have_value(real.input_value())
    slide(page, 0, "7")
    expect(real).to_have_value("7")
    slide(page, 1, "0.5")
    page.click("#lv-group-step .label-wrap")
    expect(page.locator("#ctl-loop_damping input[type=number]")).to_have_value("0.5")
    past_the_text(page)
    before = data(page, "run")
    page.locator(".lv-reach-run").click()
    page.wait_for_function("before => document.querySelector('.lv').dataset.run !== before", arg=before)
    ended(page)
    assert {row[1][0] for row in inside(page, "page.tokens")} == {7}, "the run was made with what the slider said"
    assert page.evaluate("document.querySelector('.lv-text').getBoundingClientRect().bottom") <= 0
    # what is set in the form is shown here, and of a loop that settles the bound
    settle(page, "loop", "loop_count", 3)
    past_the_text(page)
    expect(slides.first).to_have_value("3")
    page.locator("#ctl-loop_strategy input[value=dynamic_stop]").check()
    expect(page.locator(".lv-reach .lv-slide").first).to_contain_text("at most")
    slide(page, 0, "11")
    expect(page.locator("#ctl-max_loop_count input[type=number]")).to_have_value("11")
    # while it runs, a loop is changed from the bar, and the run stopped
    page.locator("#ctl-loop_strategy input[value=fixed_count]").check()
    settle(page, "sampling", "max_new_tokens", 900)
    run(page, "Once upon a time")
    past_the_text(page)
    slide(page, 0, "6")
    page.wait_for_function("() => document.querySelector('.lv').page.tokens.some((row) => row[1][0] === 6)")
    page.locator(".lv-reach-stop").click()
    ended(page, "stopped")
    expect(page.locator(".lv-reach-stop")).to_be_disabled()


def hidden_focus(page: Page) -> list[str]:
    """Tab through all of the page: what had the keyboard while the bar, or what stands at a phone's foot, lay over all of it."""
    found = []
    page.evaluate("document.querySelector('#lv-tab-thinking').focus()")
    for key in ["Tab"] * 40 + ["Shift+Tab"] * 40:
        page.keyboard.press(key)
        at = page.evaluate(
            """() => { const node = document.activeElement, box = node.getBoundingClientRect();
              if (node === document.body || node.closest('.lv-reach, #lv-buttons, .modebar, #lv-settings') || !box.height) return '';
              const over = [...document.querySelectorAll('.lv-reach-row, #lv-buttons')].filter((one) => one.checkVisibility() && getComputedStyle(one.closest('.lv-reach') ?? one).position !== 'relative')
                .map((one) => one.getBoundingClientRect()).some((one) => box.top >= one.top && box.bottom <= one.bottom && box.left < one.right && box.right > one.left);
              return over ? node.outerHTML.slice(0, 90) : ''; }"""
        )
        found += [at] if at else []
    return found


# --- a phone


def swipe(page: Page, by: int) -> None:
    """The panels are moved to the side, as a finger would, by so many pixels; then they come to rest by themselves."""
    page.locator("#lv-panels").evaluate("(panels, by) => panels.scrollBy({ left: -by })", by)


def test_b6_on_a_phone_panels_lie_side_by_side_and_what_is_tabbed_to_is_not_under_the_bar(look: Visit) -> None:
    page = look(**PHONE)
    drawn(page)
    page.evaluate("document.querySelector('#lv-panels').scrollIntoView({ block: 'center' })")
    middle = """() => { const found = document.elementFromPoint(innerWidth / 2, innerHeight / 2).closest('.lv-panel'); return found?.dataset.panel; }"""
    assert page.evaluate(middle) == "convergence"
    top = page.evaluate("scrollY")
    swipe(page, -260)
    page.wait_for_function(f"() => ({middle})() === 'state_trajectory'")
    page.wait_for_function("() => document.querySelector('[data-panel=state_trajectory] .scatterlayer path') !== null")
    swipe(page, 260)
    page.wait_for_function(f"() => ({middle})() === 'convergence'")
    assert abs(page.evaluate("scrollY") - top) <= 4, "and nowhere else"
    # a panel switched on is the one seen, and a tab begins with its first
    page.locator(".lv-switch[data-name=token_loop_map]").click()
    page.wait_for_function(f"() => ({middle})() === 'token_loop_map'")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.locator(".lv-switch[data-name=token_loop_map]").click()
    page.wait_for_function("() => !document.querySelector('.lv').page.looking")
    # tabbed to, from the first panel on
    drawn(page)
    swipe(page, 10_000)
    past_the_text(page)
    assert hidden_focus(page) == []
    page.evaluate("document.activeElement.blur()")


def test_b6_on_a_phone_the_bar_stands_over_the_buttons_and_a10_the_settings_are_a_press_away(look: Visit) -> None:
    page = look(**PHONE)  # and this is the last test of it: it makes runs
    drawn(page)
    assert not page.locator("#ctl-loop_count").is_visible()
    expect(page.locator(".lv-reach-row")).to_be_hidden()
    past_the_text(page)
    row, buttons = page.locator(".lv-reach-row").bounding_box(), page.locator("#lv-buttons").bounding_box()
    assert row is not None
    assert buttons is not None
    assert abs(row["y"] + row["height"] - buttons["y"]) <= 2
    assert buttons["y"] + buttons["height"] <= 845
    assert page.locator(".lv-reach-run").is_hidden(), "Run is just below"
    slide(page, 0, "5")
    expect(page.locator("#ctl-loop_count input[type=number]")).to_have_value("5")
    # the sheet lies over it, and its going leaves the page where it was
    top = page.evaluate("scrollY")
    page.locator(".lv-sheet-open").click()
    expect(page.locator("#ctl-model")).to_be_in_viewport()
    assert page.evaluate(
        """() => { const box = document.querySelector('.lv-reach-row').getBoundingClientRect();
          return Boolean(document.elementFromPoint(box.left + box.width / 2, box.top + box.height / 2).closest('#lv-settings')); }"""
    )
    page.locator("#ctl-loop_count input[type=number]").fill("3")
    page.keyboard.press("Escape")
    expect(page.locator("#ctl-model")).not_to_be_visible()
    expect(page.locator(".lv-sheet-open")).to_be_focused()
    assert page.evaluate("scrollY") == top
    settle(page, "sampling", "max_new_tokens", 8)
    past_the_text(page)
    run(page)
    page.wait_for_function("() => document.querySelector('.lv-text').getBoundingClientRect().top < innerHeight / 2")
    expect(page.locator(".lv-reach-row")).to_be_hidden()
    ended(page)
    # a run takes its words from the settings, closed or not
    expect(page.locator(".lv-about")).to_contain_text("3 times")
    page.locator(".lv-sheet-open").click()
    page.locator("#ctl-loop_count input[type=number]").fill("6")
    run(page)
    expect(page.locator("#ctl-model")).not_to_be_visible()
    expect(page.locator(".lv-about")).to_contain_text("6 times")
