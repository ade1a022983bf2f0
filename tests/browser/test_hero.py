"""The first screen: asking in one row, the text, the ring, the strip of guesses, the real sliders, a paragraph and its branch."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from loopviz.app.explore import first_run
from loopviz.app.texts import text
from loopviz.panels import GROUPS, Focus, hero
from loopviz.panels.kit.follower import lens_of, said
from tests.browser.test_explore import (
    Visit,
    data,
    drawn,
    ended,
    inside,
    looked,
    reached,
    run,
    same_as_server,
    settle,
    show,
)
from tests.browser.test_layout import PHONE, made_narrow_and_wide, shift
from tests.browser.test_layout import inside as within
from tests.browser.test_panels import USUAL, on_screen, screens

SIZES: list[dict[str, Any]] = [
    {"viewport": {"width": 1440, "height": 900}},
    {"viewport": {"width": 1280, "height": 720}},
    PHONE,
]
IDS = ["1440x900", "1280x720", "phone"]
PARTS = ["#ctl-prompt textarea", "#lv-run", "#lv-stop", "#lv-try", "#lv-ways", ".lv-text", ".lv-legend", ".lv-ring svg", ".lv-cells",
         ".lv-strip-end", "#lv-dial-loops", "#lv-dial-damping", ".lv-explain-words", ".lv-branch"]  # fmt: skip
# of elements, those that are not wholly in the window, or lie under the bar of a narrow one
OUTSIDE = """(parts) => parts.filter((part) => { const node = document.querySelector(part), box = node.getBoundingClientRect();
  const bar = document.querySelector('#lv-buttons'), low = getComputedStyle(bar).position === 'fixed' && !bar.contains(node) ? bar.getBoundingClientRect().top : innerHeight;
  return !node.checkVisibility({ visibilityProperty: true }) || box.top < 0 || box.left < 0 || box.right > innerWidth || box.bottom > low + 0.5; })"""
STILL = (0.05, 0.02)  # layout shift of loading, and of the first run
LESS = 0.1 - 1e-9  # of a size that these were not set for: below 0.1 a page is called good (web.dev/cls)


def told(page: Page) -> dict[str, Any]:
    """What the strip, the ring and the paragraph show."""
    return page.evaluate("""() => ({
      cells: [...document.querySelectorAll('.lv-cell')].map((cell) => [cell.querySelector('small').textContent, cell.querySelector('b')?.textContent, cell.querySelector('.lv-cell-p')?.textContent]),
      end: document.querySelector('.lv-strip-end').textContent, turns: document.querySelectorAll('.lv-ring-track').length,
      under: document.querySelector('.lv-ring-under').textContent, said: document.querySelector('.lv-explain-words').textContent })""")


def above_the_fold(page: Page) -> None:
    """B1: all that tells of the loop is on the first screen."""
    assert page.evaluate("scrollY") == 0
    assert page.evaluate(OUTSIDE, PARTS) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    shown = told(page)
    assert shown["turns"] >= 2
    assert len({cell[1] for cell in shown["cells"]}) >= 2, "the answer changes loop by loop"
    assert shown["said"]
    # nothing of it lies on anything else of it
    over = page.evaluate(
        """(parts) => { const boxes = parts.map((part) => [part, document.querySelector(part).getBoundingClientRect()]), found = [];
          boxes.forEach(([one, a], i) => boxes.slice(i + 1).forEach(([other, b]) => {
            if (a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1) found.push([one, other]); }));
          return found; }""",
        [part for part in PARTS if part != ".lv-cells"],
    )
    assert over == []


def opens_on_two_pictures(page: Page, most: float) -> None:
    """B8: the page is short. It was 4.7 screens high, and 8,737 px on a phone."""
    assert data(page, "run") == first_run.RUN
    assert on_screen(page) == USUAL[GROUPS[0]] == ["convergence", "state_trajectory"]
    assert screens(page) <= most


@pytest.mark.parametrize("size", [*SIZES, {"viewport": {"width": 1024, "height": 1366}}], ids=[*IDS, "1024x1366"])
def test_a_page_that_opens_shows_the_loop_and_two_pictures_and_nothing_moves_then_nor_in_the_first_run(
    visit: Visit, size: dict[str, Any]
) -> None:
    """A17, A10 of a phone, B1, B8: what is so of a page that somebody has just opened, and of the first press on Run."""
    page = visit(**size)
    drawn(page)
    still = STILL if size in SIZES else (LESS, LESS)
    loaded = shift(page)
    assert loaded <= still[0], "A17: at load"
    if size in SIZES:
        above_the_fold(page)
    if size is PHONE:
        opens_on_two_pictures(page, most=3)
        assert not within(page, ".lv-status")
    elif size == SIZES[0]:
        opens_on_two_pictures(page, most=1.6)
    run(page)
    if size is PHONE:  # A10: the run is brought into view
        page.wait_for_function("() => document.querySelector('.lv-text').getBoundingClientRect().top < innerHeight / 2")
    ended(page)
    if size is PHONE:
        expect(page.locator(".lv-status")).to_be_in_viewport()
        assert within(page, ".lv-text")
    looked(page)
    drawn(page)
    assert shift(page) - loaded <= still[1], "A17: in the first run"
    if size == SIZES[0]:  # a window made narrow after a run leaves no plot over what is under it
        made_narrow_and_wide(page)


@pytest.mark.parametrize("size", SIZES, ids=IDS)
def test_b1_the_loop_is_above_the_fold_in_chinese_too(look: Visit, size: dict[str, Any]) -> None:
    page = look("?lang=zh", **size)
    drawn(page)
    above_the_fold(page)


def test_every_number_of_the_hero_is_the_trace_s(look: Visit) -> None:
    page, trace = look(), first_run.stored()
    assert trace is not None
    shown, at = told(page), hero.telling(trace)
    assert at == inside(page, "page.focus.token")
    block = trace.frames[at]["blocks"][0]
    guesses = said(block, lens_of(trace.meta, Focus()))
    assert shown["turns"] == block["n_steps"]
    assert [cell[0] for cell in shown["cells"]] == [f"↻{r}" for r in range(1, block["n_steps"] + 1)]
    assert [cell[1] for cell in shown["cells"]] == [row[0].strip() for row in guesses.texts]
    assert [cell[2] for cell in shown["cells"]] == shares(guesses)
    kl = block["steps"]["kl"]
    assert f"{float(f'{kl[-1]:.2g}'):g}" in shown["under"].replace("e-0", "e-")
    limit = trace.meta["blocks"][0]["kl_threshold"]
    assert [float(number) for number in re.findall(r"[\d.]+", shown["end"])] == [
        float(f"{kl[-1]:.3g}"),
        float(f"{limit:.3g}"),
    ]
    assert shown["said"] == hero.explain(trace, Focus(token=at))["text"]
    assert data(page, "focus") == str(at)
    for other in (30, 45, 60, at):  # the strip and the paragraph say one thing of every word
        inside(page, "page.look({ token: arg })", other)
        page.wait_for_function("(at) => document.querySelector('.lv').page.hero.word.token === at", arg=other)
        looked(page)
        assert [cell[2] for cell in told(page)["cells"]] == shares(said(trace.frames[other]["blocks"][0], "same"))


def shares(guesses: Any) -> list[str]:
    """What cells say of the likeliest word's probability."""
    percents = [100 * math.exp(row[0]) for row in guesses.logprobs]
    return ["< 1 %" if p < 0.5 else "> 99 %" if p >= 99.5 else f"{round(p)} %" for p in percents]


def a_cell_selects_its_step_everywhere(page: Page) -> None:
    drawn(page)
    show(page, "would_say")
    drawn(page)
    epoch = inside(page, "page.epoch")
    cell = page.locator(".lv-cell").nth(1)
    cell.click()
    page.wait_for_function("before => document.querySelector('.lv').page.epoch > before", arg=epoch)
    assert inside(page, "page.focus.step") == 2
    expect(cell).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".lv-ring-number")).to_have_text("2")
    outlined = inside(page, "page.panels.get('would_say').figure.layout.shapes[0].visible")
    assert outlined, "the panels look at it, too"
    # by keyboard: one cell is reached by Tab, arrows go on from it and leave the words alone
    token = data(page, "focus")
    assert page.locator(".lv-cell[tabindex='0']").count() == 1
    cell.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.querySelector('.lv').page.focus.step === 3")
    assert data(page, "focus") == token
    expect(page.locator(".lv-cell").nth(2)).to_be_focused()
    names = page.locator(".lv-cell").evaluate_all("cells => cells.map((cell) => cell.getAttribute('aria-label'))")
    assert len(set(names)) == len(names)
    # the strip and the ↑ ↓ keys say one thing
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("ArrowDown")
    page.wait_for_function("() => document.querySelector('.lv').page.focus.step === 2")
    expect(cell).to_have_attribute("aria-pressed", "true")


def test_b5_a_run_that_has_ended_is_looked_at_from_its_telling_word_unless_the_visitor_looks_at_one_and_the_hero_keeps_the_law(
    visit: Visit,
) -> None:
    page = visit()
    same = """async () => { const { page } = document.querySelector('.lv');
      const whole = JSON.parse(await page.server.focus(JSON.stringify({ ...page.view(), shown: page.seq })));
      return [whole.hero, page.hero.word]; }"""
    settle(page, "sampling", "max_new_tokens", 30)
    run(page, "Once upon a time")
    ended(page)
    looked(page)
    own = page.evaluate("document.querySelector('.lv').page.focus.token")
    prompt = inside(page, "page.promptTokens")
    assert own >= prompt - 1
    # the law of panels: what is there is what the server would send, after a live run and in a replay
    server, own = page.evaluate(same)
    assert own == server
    page.evaluate("document.querySelector('.lv').page.moveTo(9)")
    page.wait_for_function("() => document.querySelector('.lv').dataset.t === '9'")
    page.evaluate("document.querySelector('.lv').page.moveTo(20)")
    page.wait_for_function("() => document.querySelector('.lv').dataset.t === '20'")
    server, own = page.evaluate(same)
    assert own == server
    assert own["token"] == 19
    # a word that the visitor looks at while a run is made stays the one
    settle(page, "sampling", "max_new_tokens", 100)
    run(page, "Once upon a time")
    reached(page, 12)
    page.evaluate("document.querySelector(\".lv-tok[data-i='3']\").click()")
    ended(page)
    page.wait_for_function("() => !document.querySelector('.lv').page.looking")
    assert data(page, "focus") == "3"
    same_as_server(page)


def test_the_paragraph_of_a_paused_replay_is_asked_for(look: Visit) -> None:
    page = look()
    trace = first_run.stored()
    assert trace is not None
    whole_run = int(data(page, "t"))
    page.evaluate("document.querySelector('.lv').page.moveTo(12)")
    page.wait_for_function("() => document.querySelector('.lv').page.hero.explain.told?.token === 11")
    whole = hero.explain(type(trace)(trace.meta, trace.frames[:12]), Focus())
    assert whole is not None
    expect(page.locator(".lv-explain-words")).to_have_text(whole["text"])
    # as it was
    inside(page, "page.moveTo(arg)", whole_run)
    page.wait_for_function("(t) => document.querySelector('.lv').dataset.t === String(t)", arg=whole_run)
    telling = hero.telling(trace)
    inside(page, "page.look({ token: arg })", telling)
    page.wait_for_function("(at) => document.querySelector('.lv').page.hero.word.token === at", arg=telling)
    looked(page)


def test_the_sliders_are_the_form_s_own_controls_and_act_while_a_run_is_made(visit: Visit) -> None:
    page = visit()
    dial, box = page.locator("#lv-dial-loops"), page.locator("#ctl-loop_count input[type=number]")
    expect(dial).to_have_value(box.input_value())
    dial.fill("6")
    expect(box).to_have_value("6")
    settle(page, "loop", "loop_count", 3)
    expect(dial).to_have_value("3")
    # a way to loop sets both, and which of them it is
    page.click("#ctl-loop_strategy input[value=dynamic_stop]")
    expect(dial).to_have_value(page.input_value("#ctl-max_loop_count input[type=number]"))
    dial.fill("9")
    expect(page.locator("#ctl-max_loop_count input[type=number]")).to_have_value("9")
    page.click("#ctl-loop_strategy input[value=fixed_count]")
    expect(dial).to_have_value("3")
    page.locator("#lv-dial-damping").fill("0.5")
    settle(page, "sampling", "max_new_tokens", 8)
    run(page, "Once upon a time")
    ended(page)
    assert {row[1][0] for row in inside(page, "page.tokens")} == {3}
    assert inside(page, "page.form.dials.loop_damping") == 0.5
    # and while a run is made: a long one, whose panels would only keep a busy machine from the press on Stop
    for name in USUAL[GROUPS[0]]:
        page.click(f".lv-switch[data-name={name}]")
    settle(page, "sampling", "max_new_tokens", 900)
    run(page, "Once upon a time")
    reached(page, 10)
    page.locator("#lv-dial-loops").fill("7")
    page.wait_for_function("() => document.querySelector('.lv').page.tokens.some((row) => row[1][0] === 7)")
    page.click("#lv-stop")
    ended(page, "stopped")


def test_a_cell_selects_its_step_everywhere_and_the_branch_runs_the_text_up_to_the_word_with_so_many_loops(
    visit: Visit,
) -> None:
    page = visit()
    a_cell_selects_its_step_everywhere(page)
    # B3
    settle(page, "loop", "loop_count", 5)
    settle(page, "sampling", "max_new_tokens", 14)
    first = run(page, "Once upon a time")
    ended(page)
    looked(page)
    page.click('.lv-tok[data-i="12"]')
    page.wait_for_function("() => document.querySelector('.lv').page.hero.explain.told?.token === 12")
    loops = inside(page, "page.hero.explain.told.branch.loops")
    until = inside(page, "page.tokens.slice(0, 13).map((row) => row[0]).join('')")
    expect(page.locator(".lv-branch")).to_have_text(re.compile(f"^Try {loops} loops? from here$"))
    page.click(".lv-branch")
    page.wait_for_function("before => document.querySelector('.lv').dataset.run !== before", arg=first)
    ended(page)
    assert {row[1][0] for row in inside(page, "page.tokens")} == {loops}
    assert page.input_value("#ctl-prompt textarea") == until
    expect(page.locator("#ctl-loop_count input[type=number]")).to_have_value(str(loops))


def test_lists_open_under_their_buttons_and_close_again(look: Visit) -> None:
    page = look()
    opener, one = page.locator("#lv-ways .lv-drop-open"), page.locator("#lv-preset-kl")
    expect(opener).to_have_attribute("aria-expanded", "false")
    expect(one).not_to_be_visible()
    opener.click()
    expect(one).to_be_visible()
    expect(one).to_contain_text(text("en", "preset.kl.line"))
    expect(opener).to_have_attribute("aria-expanded", "true")
    opener.focus()
    page.keyboard.press("ArrowDown")
    expect(page.locator("#lv-preset-four")).to_be_focused()
    page.keyboard.press("Escape")
    expect(one).not_to_be_visible()
    expect(opener).to_be_focused()
    opener.click()
    page.click("#lv-try .lv-drop-open")
    expect(one).not_to_be_visible()
    expect(page.locator(".lv-example").first).to_be_visible()
    page.mouse.click(5, 5)
    expect(page.locator(".lv-example").first).not_to_be_visible()


def test_motion_is_left_out_for_who_wants_none(look: Visit) -> None:
    page = look()
    page.wait_for_function("() => document.querySelector('.lv').page.hero.ring.frame === 0")  # its first time round
    page.emulate_media(reduced_motion="reduce")
    page.evaluate("""() => { const dot = document.querySelector('.lv-ring-dot'); window.moves = 0;
      new MutationObserver(() => (window.moves += 1)).observe(dot, { attributes: true }); }""")
    page.locator(".lv-ring-again").click()
    turns = told(page)["turns"]
    expect(page.locator(".lv-ring-number")).to_have_text(str(turns))
    page.evaluate("() => new Promise((done) => setTimeout(done, 700))")
    assert page.evaluate("window.moves") <= 3, "it stands where it ends"
    assert inside(page, "page.hero.ring.frame") == 0
    page.emulate_media(reduced_motion="no-preference")


def test_the_word_goes_round_once_a_loop(look: Visit) -> None:
    page = look()
    page.wait_for_function("() => document.querySelector('.lv').page.hero.ring.frame === 0")  # its first time round
    page.evaluate("""() => { const { hero } = document.querySelector('.lv').page, { at } = hero.ring; window.loops = []; window.at = at;
      hero.ring.at = (step) => { window.loops.push(step); at(step); }; }""")
    turns = told(page)["turns"]
    page.locator(".lv-ring-again").click()
    page.wait_for_function("() => window.loops.at(-1) === 0")
    seen = page.evaluate("window.loops")
    inside(page, "(page.hero.ring.at = window.at)")
    assert seen[-2] == turns
    assert seen == [*sorted(seen[:-1]), 0]


def test_a_plain_model_and_several_blocks_have_a_ring_of_their_own(look: Visit) -> None:
    """No bundled model has several blocks: the page's own ring is shown one, and what it says is asked of it."""
    page = look()
    seen = page.evaluate("""() => { const { page } = document.querySelector('.lv'), { ring, word } = page.hero;
      const of = (stack, loops, block) => { ring.show({ stack, loops, block, hero: word, word: 'eat', next: 'it' });
        const svg = ring.svg, box = svg.getBoundingClientRect();
        const out = [...svg.querySelectorAll('circle, rect, path, text')].filter((node) => { const own = node.getBoundingClientRect();
          return own.width && (own.left < box.left - 12 || own.right > box.right + 12 || own.top < box.top - 6 || own.bottom > box.bottom + 8); }).map((node) => node.outerHTML);
        return { label: svg.getAttribute('aria-label'), turns: svg.querySelectorAll('.lv-ring-track').length, others: svg.querySelectorAll('.lv-ring-other').length,
          stacks: svg.querySelectorAll('.lv-ring-back').length, words: svg.textContent, odd: /NaN|undefined/.test(svg.outerHTML), out }; };
      return { plain: of({ layers: 12, blocks: [] }, [], 0), all: of({ layers: 2, blocks: [[0, 1]] }, [3], 0), one: of({ layers: 30, blocks: [[10, 14]] }, [4], 0),
        two: of({ layers: 12, blocks: [[2, 3], [6, 8]] }, [2, 5], 1), many: of({ layers: 40, blocks: [[1, 2], [5, 6], [9, 9], [20, 30]] }, [1, 2, 3, 4], 0),
        long: of({ layers: 2, blocks: [[0, 1]] }, [64], 0), skip: of({ layers: 6, blocks: [[2, 3]] }, [0], 0) }; }""")
    inside(page, "page.hero.show()")  # its own again
    assert {name: (one["turns"], one["others"], one["stacks"]) for name, one in seen.items()} == {
        "plain": (0, 0, 1),
        "all": (3, 0, 0),
        "one": (4, 0, 2),
        "two": (5, 1, 3),
        "many": (1, 3, 5),
        "long": (64, 0, 0),
        "skip": (0, 0, 2),
    }
    assert not any(one["odd"] or not one["label"] for one in seen.values())
    assert {name: one["out"] for name, one in seen.items() if one["out"]} == {}
    assert "layers 10–14" in seen["one"]["words"]
    assert "15–29" in seen["one"]["words"]


def test_b2_the_legend_says_which_words_thought_longest(look: Visit) -> None:
    page = look()
    for dark in (False, True):
        if dark:
            page.click("#lv-dark")
        page.wait_for_function("(dark) => document.body.classList.contains('dark') === dark", arg=dark)
        legend = page.locator(".lv-legend")
        expect(legend).to_contain_text("settled at once")
        expect(legend).to_contain_text("thought longest")
        # more loops: a thicker line under the word, whatever the colour is
        lines = page.evaluate("""() => [...document.querySelectorAll('.lv-text .lv-tok[data-loops]:not(.lv-prompt)')].map((word) =>
          [Number(word.dataset.loops), Math.abs(parseFloat(getComputedStyle(word).boxShadow.match(/(-?[\\d.]+)px (-?[\\d.]+)px/)[2]))])""")
        by_loops = dict(sorted(lines))
        assert list(by_loops.values()) == sorted(by_loops.values()), f"dark: {dark}"
        assert max(by_loops.values()) > min(by_loops.values()), f"dark: {dark}"
    page.click("#lv-dark")
