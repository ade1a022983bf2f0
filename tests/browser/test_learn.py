"""Learn: a lesson from its question to the file of answers; a file with ten mistakes; a class link; by keyboard; on a phone."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from loopviz.lessons.bundled import bundled
from tests.lessons.test_faults import MISTAKES
from tests.lessons.toy import step, toy

TEN = [
    "one language is missing", "another type", "a measurement that is none", "a line through what is no curve",
    "an axis upside down", "two steps of one name", "a name with blanks", "to find what is not shown",
    "too many tokens", "a format of tomorrow",
]  # fmt: skip


def opened(page: Page, lesson: dict[str, Any]) -> None:
    """Open a lesson from disk."""
    file = {"name": "mine.json", "mimeType": "application/json", "buffer": json.dumps(lesson).encode()}
    page.set_input_files(".lv-own-open input", file)


def ours(page: Page, name: str) -> None:
    page.click(f'.lv-lesson-entry[data-lesson="{name}"]')
    page.wait_for_selector(f'.lv-page[data-lesson="{name}"]')


def test_learn_is_first_in_the_head_and_lists_every_lesson(visit: Callable[..., Page]) -> None:
    page = visit(at="learn")
    assert page.locator(".lv-nav .lv-way").first.inner_text() == "Learn"
    assert page.locator(".lv-nav .lv-way[aria-current]").inner_text() == "Learn"
    titles = page.locator(".lv-lesson-entry b").all_inner_texts()
    assert titles == [lesson["title"]["en"] for lesson in bundled().values()]
    explore = visit()
    assert explore.locator(".lv-nav .lv-way").first.inner_text() == "Learn"


def test_a_lesson_from_question_to_answer_file(visit: Callable[..., Page], tmp_path: Path) -> None:
    """Lesson 5, of the built model, whose right answers are known on paper: 3 loops, 6 loops."""
    page = visit(at="learn")
    ours(page, "damping")
    page.fill(".lv-who input", "Li Lei")
    expect(page.locator(".lv-step .lv-go").first).to_be_disabled()
    page.fill(".lv-guess input[type=number]", "3")
    page.click(".lv-step .lv-go:visible")
    expect(page.locator(".lv-verdict")).to_have_text("Exactly.")
    expect(page.locator(".lv-why")).to_contain_text("loop 3")
    assert page.locator(".lv-strip-words li").all_inner_texts()[0].endswith("a")
    page.click(".lv-next")
    expect(page.locator(".lv-step-count")).to_contain_text("2")
    page.locator(".lv-choice-entry").nth(0).click()  # 3: wrong
    page.click(".lv-step .lv-go:visible")
    expect(page.locator('.lv-choice-entry[data-judged="wrong"]')).to_have_count(1)
    expect(page.locator('.lv-choice-entry[data-judged="was_right"]')).to_contain_text("6")
    page.click(".lv-what-if button")
    expect(page.locator(".lv-says")).to_contain_text("twice")
    last = len(bundled()["damping"]["steps"])
    for _ in range(2, last):
        page.click(".lv-next")
        page.locator(".lv-choice-entry").nth(0).click()
        page.click(".lv-step .lv-go:visible")
        expect(page.locator(".lv-verdict")).not_to_be_empty()
    page.click(".lv-next")
    expect(page.locator(".lv-score")).to_contain_text(f"of {last} right")
    for kind in ("csv", "json"):
        with page.expect_download() as download:
            page.click(f'.lv-score-card button[value="{kind}"]')
        kept = tmp_path / kind
        download.value.save_as(kept)
        assert download.value.suggested_filename == f"loopviz-damping-Li-Lei.{kind}"
        text = kept.read_text(encoding="utf-8-sig")
        answers = list(csv.DictReader(io.StringIO(text))) if kind == "csv" else json.loads(text)["answers"]
        assert len(answers) == last
        assert [answers[0]["guess"], str(answers[0]["right"])] == ["3", "yes" if kind == "csv" else "True"]
        assert "6" in answers[1]["measured"]
    expect(page.locator('.lv-lesson-entry[data-lesson="damping"] .lv-tick')).to_have_text("✓")
    page.reload()
    page.wait_for_selector('.lv-page[data-ready="1"][data-model="ready"]')
    expect(page.locator('.lv-lesson-entry[data-lesson="damping"] .lv-tick')).to_have_text("✓")


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_file_with_ten_mistakes_is_told_all_of_them_by_field(visit: Callable[..., Page], lang: str) -> None:
    page = visit(f"?lang={lang}", at="learn")
    lesson = toy()
    for name in TEN:
        MISTAKES[name][0](lesson)
    opened(page, lesson)
    page.wait_for_selector(".lv-faults li")
    told = page.locator(".lv-faults li").all_inner_texts()
    assert len(told) >= len(TEN)
    for name in TEN:
        [line] = [line for line in told if line.startswith(MISTAKES[name][1] + ("=" if "=" in line else ""))][:1]
        assert bool(re.search("[\u4e00-\u9fff]", line)) == (lang == "zh")
    assert "mine.json" in page.locator(".lv-faults h3").inner_text()


def test_nothing_in_a_strangers_lesson_becomes_an_element(visit: Callable[..., Page]) -> None:
    page = visit(at="learn")
    lesson = toy() | {"model": "glassbox"}
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    lesson["title"]["en"] = lesson["about"]["en"] = evil
    first = step(lesson, "count")
    first["question"]["en"] = first["predict"]["choices"][0]["text"]["en"] = evil
    opened(page, lesson)
    expect(page.locator(".lv-step-question")).to_have_text(evil)
    assert page.locator(".lv-lesson img, .lv-lesson script").count() == 0


def test_a_class_link_opens_its_lesson_with_the_name(visit: Callable[..., Page], app_url: str) -> None:
    page = visit("?lesson=arrows&name=Klasse%207B", at="learn")
    page.wait_for_selector('.lv-page[data-lesson="arrows"]')
    assert page.input_value(".lv-who input >> nth=0") == "Klasse 7B"
    page.click(".lv-class summary")
    page.fill(".lv-class .lv-field input", "8 A")
    expect(page.locator(".lv-class-row input")).to_have_value(re.compile(r"lesson=arrows&name=8(\+|%20)A&lang=en"))
    expect(page.locator(".lv-code-square svg path")).to_have_attribute("d", re.compile("^M"))


def test_a_teachers_own_lesson_goes_by_link_and_stands_in_no_address_that_is_sent(visit: Callable[..., Page]) -> None:
    page = visit(at="learn")
    lesson = json.loads(json.dumps(bundled()["damping"])) | {"id": "mine", "version": 9}
    lesson["title"]["en"] = "Mine"
    opened(page, lesson)
    page.wait_for_selector('.lv-page[data-lesson="mine"]')
    page.click(".lv-class summary")
    expect(page.locator(".lv-class-row input")).to_have_value(re.compile("#own=1"))
    word = page.input_value(".lv-class-row input").split("#", 1)[1]
    asked: list[str] = []
    student = visit(f"#{word}", at="learn", apart=True)
    student.on("request", lambda request: asked.append(request.url))
    student.wait_for_selector('.lv-page[data-lesson="mine"]')
    expect(student.locator(".lv-lesson-head h2")).to_have_text("Mine")
    expect(student.locator(".lv-badge")).to_have_text("from a link")
    assert not any(word[5:40] in url for url in asked)
    student.fill(".lv-guess input[type=number]", "5")
    student.click(".lv-step .lv-go:visible")
    expect(student.locator(".lv-verdict")).to_have_text("Some way off.")


def test_a_line_is_drawn_by_keyboard_and_by_pointer(visit: Callable[..., Page]) -> None:
    page = visit("?lesson=arrows", at="learn")
    page.wait_for_selector('.lv-page[data-lesson="arrows"]')
    # the line stands in the third step: the first two are answered
    for guess in ("choice", "number"):
        if guess == "choice":
            page.locator(".lv-choice-entry").nth(2).click()
        else:
            page.fill(".lv-guess input[type=number]", "8")
        page.click(".lv-step .lv-go:visible")
        page.click(".lv-next")
    points = page.locator('.lv-loop-point[role="slider"]')
    expect(points).to_have_count(8)
    expect(page.locator(".lv-step .lv-go").first).to_be_disabled()
    page.focus('.lv-loop-point[tabindex="0"]')
    before = float(points.nth(0).get_attribute("aria-valuenow") or "")
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "End"):
        page.keyboard.press(key)
    assert float(points.nth(0).get_attribute("aria-valuenow") or "") == pytest.approx(before - 2 / 40)
    assert float(points.nth(1).get_attribute("aria-valuenow") or "") == 1
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Loop 2"
    expect(page.locator(".lv-step .lv-go").first).to_be_enabled()
    box = page.locator(".lv-drawing").bounding_box()
    assert box
    page.mouse.move(box["x"] + 70, box["y"] + box["height"] - 50)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 30, box["y"] + 30, steps=12)
    page.mouse.up()
    drawn = [float(points.nth(r).get_attribute("aria-valuenow") or "") for r in range(8)]
    assert drawn == sorted(drawn)
    assert drawn[-1] - drawn[0] > 0.5
    page.click(".lv-step .lv-go:visible")
    expect(page.locator(".lv-verdict")).to_contain_text("% alike")
    expect(page.locator(".lv-loop-chart .lv-loop-curve")).to_have_count(2)
    page.click(".lv-numbers summary")
    expect(page.locator(".lv-numbers tbody tr")).to_have_count(8)


def test_the_arrows_of_a_lesson_are_a_picture_and_the_token_goes_the_way_of_the_run(visit: Callable[..., Page]) -> None:
    page = visit("?lesson=arrows", at="learn", reduced_motion="reduce")
    page.wait_for_selector('.lv-page[data-lesson="arrows"] .lv-arrows-svg')
    assert page.locator(".lv-arrows-hops li").count() == 0, "nothing is given away"
    page.locator(".lv-choice-entry").nth(2).click()
    page.click(".lv-step .lv-go:visible")
    expect(page.locator(".lv-verdict")).to_have_text("Right.")
    expect(page.locator(".lv-arrows-hops li")).to_have_count(5)
    expect(page.locator(".lv-arrows-verdict")).to_contain_text("c → f → n → g → i")


def test_a_blind_step_shows_texts_without_names_and_names_them_after_the_guess(visit: Callable[..., Page]) -> None:
    page = visit("?lesson=slots", at="learn")
    page.wait_for_selector('.lv-page[data-lesson="slots"]')
    page.click(".lv-step .lv-go:visible")
    expect(page.locator(".lv-blind-text").first).not_to_be_empty()
    words = page.locator(".lv-guess-blind").inner_text()
    called = [run["called"]["en"] for run in bundled()["slots"]["steps"][0]["runs"].values()]
    assert not any(name in words for name in called)
    page.locator(".lv-choice-entry").nth(0).click()
    page.click(".lv-step .lv-go:visible")
    expect(page.locator(".lv-verdict")).not_to_be_empty()
    for name in called:
        expect(page.locator(".lv-guess-blind")).to_contain_text(name)


def test_stop_ends_a_step_and_it_can_be_run_again(visit: Callable[..., Page]) -> None:
    page = visit(at="learn")
    lesson = toy() | {"model": "stories-loop"}
    run = step(lesson, "count")["runs"]["run"]
    run["loop"] = {"loop_strategy": "fixed_count", "loop_count": 32}
    run["sampling"] = {"max_new_tokens": 128}
    opened(page, lesson)
    page.locator(".lv-choice-entry").nth(0).click()
    page.click(".lv-step .lv-go:visible")
    page.wait_for_selector('.lv-page[data-state="running"] .lv-progress:visible')
    page.click(".lv-step .lv-halt")
    expect(page.locator(".lv-step .lv-status")).to_contain_text("stopped")
    expect(page.locator(".lv-step .lv-go").first).to_be_enabled()


def test_the_language_changes_in_the_middle_of_a_lesson(visit: Callable[..., Page]) -> None:
    page = visit("?lesson=damping", at="learn")
    page.fill(".lv-guess input[type=number]", "3")
    page.click(".lv-step .lv-go:visible")
    expect(page.locator(".lv-verdict")).to_have_text("Exactly.")
    page.click('.lv-tongue[data-lang="zh"]')
    expect(page.locator(".lv-verdict")).to_have_text("分毫不差。")
    expect(page.locator(".lv-why")).to_contain_text("第 3 次循环")
    assert page.input_value(".lv-guess input[type=number]") == "3"


def test_on_a_phone_nothing_runs_over_the_edge(visit: Callable[..., Page]) -> None:
    page = visit("?lesson=arrows&name=7B", at="learn", viewport={"width": 390, "height": 844}, has_touch=True)
    page.wait_for_selector('.lv-page[data-lesson="arrows"] .lv-choice-entry')
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.wait_for_selector(".lv-step svg")  # the picture of arrows, which comes later than the words below it
    top = "document.querySelector('.lv-lesson').getBoundingClientRect().top"
    assert page.evaluate(f"{top} >= -1"), "the question is read first"
    page.locator(".lv-choice-entry").nth(2).tap()
    page.locator(".lv-step .lv-go:visible").tap()
    expect(page.locator(".lv-verdict")).to_have_text("Right.")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_who_uses_a_screen_reader_gets_a_legend_headings_in_order_and_a_live_result(visit: Callable[..., Page]) -> None:
    page = visit("?lesson=arrows", at="learn")
    page.wait_for_selector('.lv-page[data-lesson="arrows"] .lv-choice-entry')
    assert page.locator("fieldset.lv-guess > legend").inner_text() == "Your guess"
    assert page.locator('.lv-outcome[aria-live="polite"]').count() == 1
    levels = page.evaluate(
        "[...document.querySelectorAll('h1, h2, h3, h4')].filter((h) => h.offsetParent).map((h) => +h.tagName[1])"
    )
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    page.keyboard.press("Tab")
    page.locator(".lv-choice-entry input").nth(0).focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.locator(".lv-step .lv-go:visible").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".lv-verdict")).to_have_text("Right.")
    assert page.evaluate("document.activeElement.classList.contains('lv-step-result')")
