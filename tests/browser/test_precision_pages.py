"""A precision is chosen on Compare and on the Lab, and what is measured in it says so; what cannot be had is refused with a way out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from loopviz.app.texts import table

TEXT = "Once upon a time there was a little loop that went round and round. The loop thought again, and again. "


def fits(page: Page) -> None:
    """Nothing of the page sticks out of it."""
    wide = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1], wide
    field = page.locator("[data-field=precision]").bounding_box()
    assert field is not None
    assert field["x"] >= 0
    assert field["x"] + field["width"] <= wide[1]


@pytest.mark.parametrize(("lang", "width"), [("en", 1280), ("zh", 390)])
def test_two_configurations_are_compared_in_int8(visit: Callable[..., Page], lang: str, width: int) -> None:
    page, words = visit(f"?lang={lang}", at="compare", viewport={"width": width, "height": 900}), table(lang)
    cards = page.locator(".lv-setup")
    cards.nth(1).locator(".lv-card-head button").click()
    expect(cards).to_have_count(2)
    page.locator(".lv-asking > details > summary").click()
    page.locator("[data-field=max_new_tokens] input").fill("4")
    choice = page.locator("[data-field=precision]")
    expect(choice.locator(".lv-field-title")).to_have_text(words["precision.label"])
    expect(choice.locator(".lv-field-info")).to_contain_text(
        words["precision.info.server"].format(precision=words["precision.auto"])
    )
    choice.locator("select").select_option("int8")
    expect(choice.locator(".lv-field-info")).to_contain_text(words["precision.info.int8"])
    page.locator(".lv-go").click()
    expect(page.locator('.lv-page[data-end="done"][data-drawn="true"]')).to_be_visible()
    expect(page.locator(".lv-asking .lv-model")).to_contain_text("int8")
    expect(page.locator(".lv-found .lv-question")).to_contain_text(words["measured.held"].format(dtype="int8"))
    notes = page.locator(".lv-model-notes")
    notes.locator("summary").click()
    expect(notes.locator("li")).to_have_count(2)  # what it costs, how far a loop settles
    expect(notes).to_contain_text("KL")
    box = notes.locator("ul").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width, "it does not stick out"
    fits(page)
    page.keyboard.press("Escape")
    assert "?s=" in (cards.nth(1).locator(".lv-card-open").get_attribute("href") or "")
    if width < 980:
        return
    with page.context.expect_page() as opened:
        cards.nth(1).locator(".lv-card-open").click()
    explore = opened.value
    explore.wait_for_selector('.lv[data-ready="1"][data-model="ready"]')
    expect(explore.locator("#ctl-precision input")).to_have_value(words["precision.int8"])
    explore.locator("#lv-title .lv-way[data-page=compare]").click()
    expect(explore).to_have_url(re.compile(r"/compare\?s="))
    expect(explore.locator("[data-field=precision] select")).to_have_value("int8")


@pytest.mark.parametrize(("lang", "width"), [("en", 1280), ("zh", 390)])
def test_a_quick_measurement_is_made_in_int8(visit: Callable[..., Page], lang: str, width: int, tmp_path: Path) -> None:
    page = visit(f"?task=perplexity&lang={lang}", at="lab", viewport={"width": width, "height": 900})
    words = table(lang)
    page.locator("[data-field=text] textarea").fill(TEXT * 8)
    choice = page.locator("[data-field=precision]")
    expect(choice.locator(".lv-field-title")).to_have_text(words["precision.label"])
    choice.locator("select").select_option("int8")
    expect(choice.locator(".lv-field-info")).to_contain_text(words["precision.info.int8"])
    expect(page.locator(".lv-asking .lv-model")).to_contain_text("int8")
    expect(page.locator('.lv-page[data-model="ready"]')).to_be_visible()
    page.locator(".lv-sizes button").first.click()
    expect(page.locator('.lv-page[data-end="done"][data-drawn="true"]')).to_be_visible()
    expect(page.locator(".lv-found .lv-question")).to_contain_text(words["measured.held"].format(dtype="int8"))
    with page.expect_download() as chosen:
        page.locator(".lv-rows .lv-files button").last.click()
    chosen.value.save_as(tmp_path / "manifest.json")
    assert json.loads((tmp_path / "manifest.json").read_text())["model"]["dtype"] == "int8"
    notes = page.locator(".lv-model-notes")
    notes.locator("summary").click()
    expect(notes.locator("li")).to_have_count(2)
    fits(page)


def test_what_a_ttt_model_cannot_be_held_in_is_refused_with_a_button_that_leads_out(visit: Callable[..., Page]) -> None:
    page, words = visit("?task=context_length", at="lab"), table("en")
    why = words["limit.precision_ttt"].format(precision="int8", name="stories-ttt")
    page.locator("[data-field=text] textarea").fill(TEXT * 40)
    page.locator("[data-field=model] input").fill("stories-ttt")
    page.locator("[data-field=precision] select").select_option("int8")
    expect(page.locator("[data-field=precision] .lv-field-info")).to_contain_text(why)
    page.locator(".lv-sizes button").first.click()
    expect(page.locator(".lv-status.lv-bad")).to_contain_text(why)
    page.locator(".lv-out").click()
    expect(page.locator("[data-field=precision] select")).to_have_value("exact")
    expect(page.locator('.lv-page[data-end="done"]')).to_be_visible()
    expect(page.locator(".lv-out")).to_be_hidden()
