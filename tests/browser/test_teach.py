"""Teach in a browser: a model is taught, rests, is kept and fetched, in English; the page in Chinese on a phone."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.test_axe import findings

pytest.importorskip("peft", reason="optional: pip install 'loopviz[teach]'")

Visit = Callable[..., Page]
TEXT = "Once upon a time there was a small loop that went round and round. " * 12
SMALL = {"most": 2, "steps": 40, "window": 16, "batch": 1, "every": 10, "rank": 2, "lr": "0.02"}
PICTURES = os.environ.get("LOOPVIZ_TEACH_PICTURES")  # a folder: what the page looks like is written there


def field(page: Page, name: str) -> Any:
    return page.locator(f'[data-field="{name}"] :is(input, textarea, select)')


def drawn(page: Page, panel: str) -> list[list[float]]:
    """What Plotly has drawn: the curves' numbers."""
    return page.evaluate(
        "(name) => document.querySelector(`[data-panel=${name}] .lv-plot`).data.map(({ y }) => y)", panel
    )


def whole(page: Page) -> None:
    """All pictures are of the last step: the page says that it has drawn before it draws again."""
    page.wait_for_function(
        """() => ['loss', 'by_loops', 'curves'].every((name) => { const { data } = document.querySelector(`[data-panel=${name}] .lv-plot`);
      const figure = document.querySelector('.lv-page').page.run.figures[name];
      return data?.length === figure.data.length && data.every(({ y }, i) => y.length === figure.data[i].y.length); })"""
    )


def pictured(page: Page, name: str) -> None:
    if PICTURES:
        page.screenshot(path=Path(PICTURES) / f"{name}.png", full_page=True)


def filled(page: Page, **numbers: Any) -> None:
    page.evaluate("document.querySelector('.lv-teach-form details').open = true")
    for name, value in numbers.items():
        field(page, name).fill(str(value))


def test_a_model_is_taught_rests_and_what_it_learned_is_kept(visit: Visit, tmp_path: Path) -> None:
    page = visit(at="teach")
    expect(field(page, "first")).to_have_value("4")
    assert field(page, "text").input_value().strip(), "a text of ours to begin with"
    filled(page, **SMALL)
    field(page, "text").fill("Too short.")
    page.get_by_role("button", name="Teach", exact=True).click()
    expect(page.locator('[data-field="text"] .lv-field-info')).to_contain_text("at least 40 are needed")
    field(page, "text").fill(TEXT)
    page.get_by_role("button", name="Teach", exact=True).click()
    page.wait_for_function("() => +document.querySelector('.lv-page').dataset.step >= 2")
    page.get_by_role("button", name="Pause").click()
    page.wait_for_function("() => ['paused', 'over'].includes(document.querySelector('.lv-page').dataset.phase)")
    if page.get_attribute(".lv-page", "data-phase") == "paused":  # a quick machine may have been done before
        pictured(page, "teach-paused")
        page.get_by_role("button", name="Go on").click()
    page.wait_for_selector('.lv-page[data-phase="over"][data-end="done"]')
    whole(page)
    assert [len(curve) for curve in drawn(page, "loss")] == [40, 5]
    assert [len(curve) for curve in drawn(page, "by_loops")] == [4, 4]
    assert len(drawn(page, "curves")) == 4
    page.get_by_role("button", name="Keep").click()
    save = page.get_by_role("button", name="Save my-loop.zip")
    expect(save).to_be_visible()
    with page.expect_download() as download:
        save.click()
    download.value.save_as(tmp_path / "kept.zip")
    with zipfile.ZipFile(tmp_path / "kept.zip") as archive:
        assert {"my-loop/adapter_config.json", "my-loop/loop_adapter.json"} <= set(archive.namelist())
    assert findings(page) == []
    pictured(page, "teach-desktop")
    with page.expect_popup() as opened:
        page.get_by_role("link", name="Before beside after").click()
    beside_it(opened.value)


def beside_it(page: Page) -> None:
    """Compare, with the model and what it learned as two cards; both write."""
    page.wait_for_selector('.lv-page[data-ready="1"][data-model="ready"]')
    names = page.locator(".lv-setup .lv-card-name")
    assert [one.input_value() for one in names.all()] == ["Plain model", "What was taught"]
    page.get_by_role("button", name="Compare", exact=True).click()
    page.wait_for_selector('.lv-page[data-end="done"][data-rows="2"]')
    for card in page.locator(".lv-setup").all():
        expect(card.locator(".lv-card-text span").first).to_be_attached()
    page.locator("[data-lang=zh]").click()
    expect(names.nth(1)).to_have_value("教过之后")
    page.close()


def test_prompts_and_responses_are_put_in_a_template_that_is_chosen(visit: Visit) -> None:
    page = visit(at="teach")
    expect(field(page, "template")).to_be_disabled()
    rows = "\n".join(f'{{"prompt": "Count to {n}.", "response": "one"}}' for n in range(4))
    records = {"name": "mine.jsonl", "mimeType": "application/json", "buffer": rows.encode()}
    page.locator(".lv-teach-source input").set_input_files([records])
    expect(field(page, "template")).to_be_enabled()
    assert "as it is (none)" in field(page, "template").inner_text()
    field(page, "template").select_option("vicuna")
    filled(page, **{**SMALL, "window": 200, "steps": 1, "every": 1})
    page.get_by_role("button", name="Teach", exact=True).click()
    page.wait_for_selector('.lv-page[data-phase="over"][data-end="done"]')
    expect(page.locator(".lv-teach-told .lv-teach-command")).to_contain_text("--template vicuna")
    field(page, "kind").select_option("text")
    expect(field(page, "template")).to_be_disabled()


def test_the_page_on_a_phone_in_chinese(visit: Visit) -> None:
    page = visit("?lang=zh", at="teach", viewport={"width": 390, "height": 844})
    filled(page, **SMALL)
    field(page, "text").fill(TEXT)
    page.get_by_role("button", name="开始教", exact=True).click()
    page.wait_for_selector('.lv-page[data-phase="over"][data-end="done"]')
    whole(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert findings(page) == []
    pictured(page, "teach-phone-zh")
    page.goto(page.url.replace("teach", "lab"))
    expect(page.locator('.lv-nav [data-page="teach"]')).to_be_hidden()
    expect(page.locator('.lv-side [data-page="teach"]')).to_be_visible()


def test_a_keep_that_is_refused_leaves_the_page_with_what_is_made(visit: Visit) -> None:
    """It stopped listening: the training went on unseen."""
    page = visit(at="teach")
    filled(page, **{**SMALL, "steps": 100000, "every": 10000})
    field(page, "text").fill(TEXT)
    page.get_by_role("button", name="Teach", exact=True).click()
    page.wait_for_function("() => +document.querySelector('.lv-page').dataset.step >= 1")
    page.evaluate(
        """() => { const { page } = document.querySelector('.lv-page'); page.wanted = page.run.run; page.ticket = 'another';
        page.receive({ kind: 'status', ticket: 'another', text: 'Not just now.', bad: true, over: true }); }"""
    )
    step = int(page.get_attribute(".lv-page", "data-step") or 0)
    page.wait_for_function("(step) => +document.querySelector('.lv-page').dataset.step > step", arg=step)
    line = page.locator(".lv-asking > .lv-status")
    expect(line).to_contain_text("Not just now.")
    expect(page.get_by_role("button", name="Keep")).to_be_enabled()
    page.get_by_role("button", name="Stop").click()
    page.wait_for_selector('.lv-page[data-phase="over"][data-end="stopped"]')
    page.locator("[data-lang=zh]").click()
    expect(line).to_contain_text("可以保留")
    expect(line).not_to_contain_text("Not just now.")


def test_the_file_that_was_opened_is_told_in_the_page_s_language(visit: Visit) -> None:
    page = visit(at="teach")
    text = {"name": "mine.txt", "mimeType": "text/plain", "buffer": TEXT.encode()}
    page.locator(".lv-teach-source input").set_input_files([text])
    expect(field(page, "text")).to_have_value(TEXT)
    expect(page.locator(".lv-teach-source .lv-question")).to_have_text(f"mine.txt: {len(TEXT)} characters")
    page.locator("[data-lang=zh]").click()
    expect(page.locator(".lv-teach-source .lv-question")).to_have_text(f"mine.txt：{len(TEXT)} 个字符")
