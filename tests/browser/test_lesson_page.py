"""The Learn page's script with a server that answers when a test says so: what comes too late, what is kept, what is written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from loopviz.app.contract import MOST_STUDENT, STORED
from loopviz.app.learn.page import data
from loopviz.app.sessions.messages import wire
from loopviz.app.sessions.models import ModelRoom
from loopviz.lessons.sentences import written
from tests.browser.conftest import bare
from tests.lessons.toy import toy

# `made.asked`: what was asked, by name; `made.late`: names whose answers wait until `made.answer(name, answer)`.
MOUNT = """async ([config, lessons]) => {
  document.body.innerHTML = '<div class="lv lv-page"></div>';
  const made = (window.made = { asked: {}, begun: [], late: {}, answers: {}, waiting: {} });
  made.answer = (name, answer) => made.waiting[name].shift()(JSON.stringify(answer));
  const usual = { lesson: ({ id }) => lessons[id], model: () => ({ kind: 'model', name: 'tiny', state: 'ready', text: '' }) };
  const server = new Proxy({}, { get: (_, name) => async (question) => {
    (made.asked[name] ??= []).push(JSON.parse(question));
    if (made.late[name]) return new Promise((resolve) => (made.waiting[name] ??= []).push(resolve));
    return JSON.stringify(made.answers[name] ?? usual[name]?.(JSON.parse(question)) ?? { kind: 'ok' });
  } });
  const props = { value: config };
  let heard;
  const { mount } = await import('/learn/main.js');
  const root = document.querySelector('.lv');
  made.page = mount({ root, server, props, watch: (_, act) => (heard = act), begin: (asked) => made.begun.push(asked) });
  made.say = (message) => { made.page.receive(message); };
}"""
JUDGED = {
    "kind": "judged", "right": True, "score": 1, "choice": 0, **{
        name: {"en": name, "zh": "中"} for name in ("said", "why", "guess", "measured")
    },
}  # fmt: skip


def opened(lesson: dict[str, Any], key: str) -> dict[str, Any]:
    return {"kind": "lesson", "lesson": lesson, "source": "", "key": key, "models": ["tiny"], "faults": []}


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    made = bare(browser, viewport={"width": 1200, "height": 900}, reduced_motion="reduce")
    made.set_default_timeout(10_000)
    mounted(made)
    yield made
    made.context.close()


def mounted(page: Page) -> None:
    config = wire(json.loads(json.dumps(data(ModelRoom("tiny")), default=list)))
    second = toy() | {"id": "second"}
    page.evaluate(MOUNT, [config, {"toy": opened(toy(), "toy"), "second": opened(second, "second")}])


def choose(page: Page, name: str) -> None:
    page.evaluate("(name) => made.page.choose(name)", name)
    page.wait_for_selector(f'[data-lesson="{name}"]')


def begin(page: Page, guess: int | None = 0) -> dict[str, Any]:
    """Guess, run; what was asked for."""
    if guess is not None:
        page.locator(".lv-choice-entry").nth(guess).click()
    page.locator(".lv-buttons-row .lv-go:visible").click()
    return page.evaluate("made.begun.at(-1)")


def result(page: Page, asked: dict[str, Any], **change: Any) -> None:
    measured = {name: {"kind": "number", "value": 4, "said": {"en": "4", "zh": "4"}} for name in ("loops",)}
    same = {"kind": "result", "run": f"run-{asked['n']}", "ticket": asked["ticket"], "step": asked["step"]}
    more = {"what_if": False, "texts": {"one": "one text", "four": "another"}, "end": "done", "measured": measured}
    message = {**same, **more, "says": {"en": "", "zh": ""}, "way": None, "made_with": {"tiny": "here"}} | change
    page.evaluate("(message) => made.say(message)", message)


def kept(page: Page) -> dict[str, Any]:
    return json.loads(page.evaluate("(key) => localStorage.getItem(key) ?? '{}'", STORED["lessons"]))


def test_what_comes_of_a_step_that_was_left_is_not_the_next_ones(page: Page) -> None:
    """Neither its messages, nor the verdict on its guess; nor is that kept as an answer to another lesson."""
    choose(page, "toy")
    page.evaluate("made.late.judge = true")
    first = begin(page)
    result(page, first)
    page.wait_for_function("() => made.waiting.judge?.length === 1")
    page.evaluate("made.page.go(1)")
    page.evaluate("(judged) => made.answer('judge', judged)", JUDGED)
    expect(page.locator(".lv-step-question")).to_have_text("How many on average?")
    assert page.evaluate("made.page.view.judged") is None
    assert kept(page) == {}
    # a lesson is left while its runs are made: they are stopped, and not heard
    page.fill(".lv-guess input", "4")
    second = begin(page, None)
    choose(page, "second")
    assert page.evaluate("made.asked.stop.at(-1)") == {"ticket": second["ticket"]}
    page.evaluate(
        "(message) => made.say(message)", {"kind": "status", "text": "LATE", "bad": True, "ticket": second["ticket"]}
    )
    result(page, second)
    assert page.evaluate("[made.page.running, made.page.said, made.page.view.result]") == [False, "", None]
    assert page.evaluate("made.waiting.judge.length") == 0


def test_of_two_lessons_asked_for_the_later_is_opened(page: Page) -> None:
    page.evaluate("made.late.lesson = true")
    page.evaluate("() => { made.page.choose('toy'); made.page.choose('second'); }")
    page.wait_for_function("() => made.waiting.lesson?.length === 2")
    page.evaluate("(answers) => made.waiting.lesson.reverse().forEach((take, i) => take(JSON.stringify(answers[i])))",
        [opened(toy() | {"id": "second"}, "second"), opened(toy(), "toy")])  # fmt: skip
    page.wait_for_selector('[data-lesson="second"]')
    page.wait_for_timeout(20)
    assert page.evaluate("made.page.lesson.id") == "second"


def test_two_tabs_keep_each_others_answers_and_the_first_to_a_step_counts(page: Page) -> None:
    other = page.context.new_page()
    other.goto("http://scripts.test")
    mounted(other)
    for tab in (page, other):
        choose(tab, "toy")
    page.evaluate("(judged) => (made.answers.judge = judged)", JUDGED)
    other.evaluate("(judged) => (made.answers.judge = judged)", JUDGED | {"right": False})
    result(page, begin(page))
    expect(page.locator(".lv-verdict")).not_to_be_empty()
    expect(other.locator('.lv-dot[data-judged="right"]')).to_have_count(1)  # told by the other tab
    other.evaluate("made.page.go(1)")
    other.fill(".lv-guess input", "4")
    result(other, begin(other, None))
    expect(other.locator(".lv-verdict")).not_to_be_empty()
    other.evaluate("made.page.go(0)")
    result(other, begin(other, None))  # with the guess that the first tab made
    expect(other.locator(".lv-verdict")).not_to_be_empty()
    answers = kept(page)["toy"]["answers"]
    assert {name: one["right"] for name, one in answers.items()} == {"count": True, "number": False}


def test_answers_of_two_own_lessons_of_one_id_are_kept_apart(page: Page) -> None:
    for key, right in (("own:toy:1", True), ("own:toy:2", False)):
        page.evaluate("([answer, judged]) => Object.assign(made.answers, { lesson: answer, judge: judged })",
            [opened(toy(), key) | {"source": json.dumps(toy())}, JUDGED | {"right": right}])  # fmt: skip
        page.evaluate("made.page.ask({ source: '{}' }, 'mine.json')")
        page.wait_for_function("(key) => made.page.key === key", arg=key)
        assert page.locator(".lv-dot[data-judged='right'], .lv-dot[data-judged='wrong']").count() == 0
        result(page, begin(page))
        expect(page.locator(".lv-verdict")).not_to_be_empty()
    assert {key: one["answers"]["count"]["right"] for key, one in kept(page).items()} == {
        "own:toy:1": True,
        "own:toy:2": False,
    }


def test_a_blind_step_whose_run_is_gone_can_be_run_again(page: Page) -> None:
    choose(page, "toy")
    page.evaluate("made.page.go(3)")
    result(page, begin(page, None))
    page.locator(".lv-choice-entry").nth(0).click()
    for answer, said in (({"kind": "gone"}, "no longer keeps"), ({"kind": "failed", "text": "It broke."}, "It broke.")):
        page.evaluate("(answer) => (made.answers.judge = answer)", answer)
        page.locator(".lv-buttons-row .lv-go:visible").click()
        expect(page.locator(".lv-step .lv-status")).to_contain_text(said)
        expect(page.locator(".lv-buttons-row .lv-go:visible")).to_have_text("Write the texts")
        result(page, begin(page, None))
    page.evaluate("(judged) => (made.answers.judge = judged)", JUDGED)
    page.locator(".lv-buttons-row .lv-go:visible").click()
    expect(page.locator(".lv-verdict")).to_have_text("said")


def test_where_no_choice_is_right_none_is_shown_as_wrong(page: Page) -> None:
    choose(page, "toy")
    page.evaluate("(judged) => (made.answers.judge = judged)", JUDGED | {"right": None, "choice": None})
    result(page, begin(page))
    expect(page.locator(".lv-verdict")).not_to_be_empty()
    assert page.locator('[data-judged="wrong"]').count() == 0
    assert "✗" not in page.locator(".lv-lesson").inner_text()
    assert "✗" not in (page.locator(".lv-dot").first.get_attribute("aria-label") or "")
    steps = len(toy()["steps"])
    page.evaluate("(steps) => made.page.go(steps)", steps)
    expect(page.locator(".lv-score")).to_have_text(f"0 of {steps - 1} right")
    assert page.locator('[data-judged="wrong"]').count() == 0


def test_a_name_is_not_cut_in_the_middle_of_a_character(page: Page) -> None:
    page.evaluate("(name) => history.replaceState(null, '', `?name=${encodeURIComponent(name)}`)", "x" + "😀" * 100)
    mounted(page)
    assert page.input_value(".lv-who input >> nth=0") == "x" + "😀" * (MOST_STUDENT - 1)
    # of an earlier visit half of one may be kept
    page.evaluate(
        "(key) => { history.replaceState(null, '', '/'); localStorage.setItem(key, JSON.stringify('Li\\ud83d')); }",
        STORED["student"],
    )
    mounted(page)
    assert page.input_value(".lv-who input >> nth=0") == "Li"


# --- numbers and axes, on the page that all tests share ----------------------------------------------------------------------

NUMBERS = [
    0, 1, 3, 0.5, 2.5, 6.25, 6.790697674418604, 0.125, 0.9971, 0.99951, 0.999999, 0.0099, 0.0000123, 5.304813385e-06, 0.001,
    0.00099999, 1234.5, 999_999, 1_000_000, 6.02e23, 225_280, 1_802_240, 500, -0.5, -1e-5,
]  # fmt: skip


def test_a_number_is_written_by_the_page_as_by_the_server(scripts: Page) -> None:
    cases = [
        [shown, value]
        for shown in ("loops", "mean", "share", "bytes", "table", "plain")
        for value in NUMBERS
        if shown == "plain" or 0 <= value < 1e9
    ]
    script = "async (cases) => { const { written } = await import('/learn/measured.js'); return cases.map((one) => written(...one)); }"
    assert scripts.evaluate(script, cases) == [written(shown, value) for shown, value in cases]


@pytest.mark.parametrize(
    "axis",
    [
        (0, 1, "linear"), (-3.7, 12, "linear"), (1e16, 1e16 + 2, "linear"), (1e16, 1e16 + 32, "linear"), (-1e308, 1e308, "linear"),
        (1, 1, "linear"), (0, 5e-324, "linear"), (1e-6, 1, "log"), (2, 3, "log"), (5e-324, 1e308, "log"), (0, 1, "log"),
    ],
)  # fmt: skip
def test_an_axis_has_a_few_ticks_and_an_end_to_them(scripts: Page, axis: tuple[float, float, str]) -> None:
    low, high, scale = axis
    script = "async ([low, high, scale]) => { const { ticks } = await import('/learn/loop_chart.js'); return ticks({ low, high, scale }); }"
    found = scripts.evaluate(script, [low, high, scale])
    assert len(found) <= 12
    assert found == sorted(set(found))
    if low < high and axis != (-1e308, 1e308, "linear"):
        assert len(found) >= 2


def test_curves_without_numbers_or_of_one_still_have_an_axis(scripts: Page) -> None:
    curves = [[[None, None]], [[]], [[3.0]], [[5e-324, 1e300]], [[1e300]]]
    script = """async (all) => { const { axisOf, height, ticks } = await import('/learn/loop_chart.js');
      return all.map((curves) => { const axis = axisOf(curves); return [axis.low < axis.high, ticks(axis).length > 0, curves.flat().filter((v) => v !== null).map((v) => height(axis, v))]; }); }"""
    for apart, ticked, heights in scripts.evaluate(script, curves):
        assert apart
        assert ticked
        assert all(0 <= one <= 1 for one in heights)


def test_the_notes_for_who_presents_are_there_and_shut_where_a_step_has_some(page: Page) -> None:
    lesson = toy() | {"id": "noted"}
    lesson["steps"][1] |= {"notes": {"en": "Let them vote.", "zh": "请全班投票。"}}
    page.evaluate("([name, answer]) => (made.answers[name] = answer)", ["lesson", opened(lesson, "noted")])
    page.evaluate("made.page.ask({ source: '{}' }, 'mine.json')")
    page.wait_for_function("made.page.key === 'noted'")
    expect(page.locator(".lv-notes")).to_be_hidden()
    page.evaluate("made.page.go(1)")
    expect(page.locator(".lv-notes p")).to_be_hidden()
    page.click(".lv-notes summary")
    expect(page.locator(".lv-notes p")).to_have_text("Let them vote.")
