"""What is to be known of a model that loads all the same stands beside its name, a press away."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

from loopviz.app.texts import table
from tests.browser.test_explore import Visit, ended, inside, run


@pytest.mark.parametrize(("lang", "width"), [("en", 1280), ("zh", 390)])
def test_a_model_s_notes_are_told_beside_its_name(
    visit: Visit, llama_folder: Callable[..., Path], lang: str, width: int
) -> None:
    folder = llama_folder()
    config = json.loads((folder / "config.json").read_text())
    config |= {"auto_map": {"AutoModel": "mine.Model"}, "pad_token_id": 999}
    (folder / "config.json").write_text(json.dumps(config))
    page = visit(f"?lang={lang}", viewport={"width": width, "height": 900})
    notes = page.locator(".lv-model-notes")
    expect(notes).to_be_hidden()  # nothing is to be said of the first one
    if width < 980:
        page.locator(".lv-sheet-open").click()
    page.fill("#ctl-model input", str(folder))
    page.press("#ctl-model input", "Enter")
    if width < 980:
        page.locator(".lv-sheet-close").click()
    words = table(lang)
    expect(notes.locator("summary")).to_have_text(words["model.notes"].format(n=2))
    listed = notes.locator("li")
    expect(listed.first).to_be_hidden()
    notes.locator("summary").press("Enter")
    expect(listed.first).to_be_visible()  # the list is shown by an event of its own, a little later
    expect(listed.first).to_have_text(words["note.code_ignored"])
    expect(listed.nth(1)).to_contain_text("pad_token_id")
    box = notes.locator("ul").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width, "it does not stick out"
    assert str(folder.parent) not in notes.inner_text(), "no path of the server's"
    notes.locator("summary").press("Escape")
    expect(listed.first).to_be_hidden()
    notes.locator("summary").click()
    expect(listed.first).to_be_visible()
    page.mouse.click(5, 5)
    expect(listed.first).to_be_hidden()


def test_a_precision_is_chosen_and_told_and_a_way_out_sets_exact_and_runs(visit: Visit) -> None:
    page, words = visit(), table("en")
    page.click("#ctl-precision input")
    page.locator("#ctl-precision").get_by_role("option", name=words["precision.half"]).click()
    expect(page.locator("#ctl-precision .info-text")).to_contain_text(words["precision.info"])
    first = run(page, "Once")  # which waits for the model, however long that is not looked at
    ended(page)
    expect(page.locator(".lv-about")).to_contain_text("float16")
    expect(page.locator(".lv-model")).to_contain_text("in half is ready")
    notes = page.locator(".lv-model-notes")
    notes.locator("summary").click()
    expect(notes.locator("li")).to_have_count(3)  # which half, what it costs, how far a loop settles
    expect(notes).to_contain_text("ms once through all layers")
    page.keyboard.press("Escape")
    # as the server offers it, of a run whose numbers grew beyond float16
    inside(page, "page.statusLine.offer(arg)", {"label": "Again in exact", "precision": "exact"})
    page.locator(".lv-out").click()
    page.wait_for_function("run => !['', run].includes(document.querySelector('.lv').dataset.run)", arg=first)
    ended(page)
    expect(page.locator("#ctl-precision input")).to_have_value(words["precision.exact"])
    expect(page.locator(".lv-about")).not_to_contain_text("float16")
