"""A run that the server keeps: saved, opened by its link with nothing run, deleted; and a class folder, in Chinese."""

from __future__ import annotations

from loopviz.app.contract import STORED
from loopviz.lessons.bundled import bundled
from tests.browser.test_explore import Visit, data, inside
from tests.browser.test_sharing import chosen, short_run


def test_a_run_is_kept_opened_by_its_link_and_deleted(visit: Visit) -> None:
    page = visit(apart=True, refused=True)
    short_run(page)
    page.get_by_role("listbox", name="Generated text").get_by_role("option").nth(3).click()
    page.wait_for_function("() => document.querySelector('.lv').dataset.focus === '3'")
    chosen(page, "Link to this very run")
    link = page.get_by_label("Link to the saved run").input_value()
    said = page.locator(".lv-notice").first
    said.get_by_text("Saved until").wait_for()

    other = visit(link.partition("/?")[2] and f"?{link.partition('?')[2]}", apart=True, refused=True)
    other.wait_for_function("() => document.querySelector('.lv-badge')?.textContent === 'saved run'")
    assert inside(other, "page.tokens") == inside(page, "page.tokens")
    assert data(other, "focus") == "3"
    assert inside(other, "page.n") == 0, "nothing was run"
    # where a list leads of a run whose page is another one
    assert inside(other, "page.share.stored.link({ run: 'x' }, './ttt')") == f"{link.partition('?')[0]}ttt?run=x"

    page.goto(link)  # its owner, in the same browser, at another time
    said.get_by_text("You saved this run.").wait_for()
    assert other.get_by_role("button", name="Delete it from the server").count() == 0
    page.get_by_role("button", name="Delete it from the server").click()
    said.get_by_text("Deleted").wait_for()
    other.goto(link)
    other.get_by_text("This saved run was deleted").wait_for()
    other.wait_for_function("() => document.querySelector('.lv').dataset.run === 'recorded'")


def test_a_class_gathers_its_runs_for_the_teacher(visit: Visit) -> None:
    teacher = visit("?lang=zh", apart=True)
    chosen(teacher, "新建班级文件夹", "保存与分享")
    teacher.get_by_label("班级名称").fill("<b>七班</b>")
    teacher.get_by_role("button", name="新建文件夹").click()
    pupils = teacher.get_by_label("学生链接").input_value()
    own = teacher.get_by_label("教师链接").input_value()

    pupil = visit(f"?{pupils.partition('?')[2]}", apart=True, refused=True)
    pupil.get_by_text("You are in the class “<b>七班</b>”").wait_for()
    short_run(pupil)
    chosen(pupil, "Link to this very run")
    pupil.get_by_label("Your name, for the teacher").fill("Ada")
    pupil.get_by_role("button", name="Save into “<b>七班</b>”").click()
    pupil.get_by_label("Link to the saved run").wait_for()
    tokens = inside(pupil, "page.tokens")

    lesson = next(iter(bundled().values()))
    words = {"en": "four", "zh": "四"}
    answer = {"guess": words, "measured": words, "right": True, "score": 1, "when": "2026-11-27T10:00:00Z", "raw": 0}
    answers = {step["id"]: answer for step in lesson["steps"]}
    record = {lesson["id"]: {"version": lesson["version"], "answers": answers, "made_with": {}}}
    pupil.evaluate("([key, record]) => localStorage.setItem(key, JSON.stringify(record))", [STORED["lessons"], record])
    pupil.goto(f"{pupils.partition('?')[0]}learn?lesson={lesson['id']}")  # which names no class: the tab is in one
    pupil.get_by_role("button", name="Hand in to “<b>七班</b>”").click()
    pupil.get_by_text("Handed in: the teacher of “<b>七班</b>” sees").wait_for()
    pupil.get_by_role("button", name="Take back what “Ada” handed in").click()
    pupil.get_by_text("Taken back: the teacher of “<b>七班</b>” does not see").wait_for()
    assert pupil.get_by_role("button", name="Take back").count() == 0
    pupil.get_by_role("button", name="Hand in to “<b>七班</b>”").click()
    pupil.get_by_role("button", name="Take back").wait_for()
    pupil.reload()  # it is known at another time, too
    back = pupil.get_by_role("button", name="Take back what “Ada” handed in")
    back.wait_for()

    seen = visit(f"?lang=zh&{own.partition('?')[2]}", apart=True)
    seen.get_by_text("“<b>七班</b>”：1 个已保存的运行").wait_for()
    seen.get_by_text("已提交的课程答案：1 份").wait_for()
    row, handed = seen.locator(".lv-stored-list").first.locator("li"), seen.locator(".lv-stored-list").last
    steps = len(lesson["steps"])
    assert handed.text_content().startswith(f"Ada: {lesson['title']['en']} {steps} 题中答对 {steps} 题")
    with seen.expect_download() as waited:
        seen.get_by_role("button", name="全部答案的表格（CSV）").click()
    assert waited.value.suggested_filename == "loopviz-b-七班-b.csv"
    assert row.locator("b").text_content() == "Ada: "
    handed.get_by_role("button", name="删除 Ada").click()
    seen.get_by_role("button", name="确定永久删除？ Ada").click()
    seen.get_by_text("已删除。", exact=True).wait_for()
    assert seen.locator(".lv-stored-list").count() == 1, "the runs are there still"
    back.click()
    pupil.get_by_text("There are no such answers here").wait_for()
    assert pupil.get_by_role("button", name="Take back").count() == 0
    row.locator("a").click()
    seen.wait_for_function("() => document.querySelector('.lv-badge')?.textContent === '已保存的运行'")
    assert inside(seen, "page.tokens") == tokens

    seen.go_back()
    seen.get_by_role("button", name="删除此文件夹").click()
    seen.get_by_role("button", name="确定永久删除“<b>七班</b>”？").click()
    seen.get_by_text("已删除，连同 1 个运行、0 份答案").wait_for()
    pupil.get_by_role("button", name="Hand in to “<b>七班</b>”").click()
    pupil.get_by_text("There is no such class folder here").wait_for()
