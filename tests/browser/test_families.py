"""Folders of published looped models open in Explore as they were published, with a sentence on what they do, and run."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from loopviz.anatomy.stage_list import ALL
from loopviz.app.texts import table
from tests.browser.test_explore import run, same_as_server, settle
from tests.model.families.official import with_letters

# What each was published with: (first, last) looped layer, loops, what is read out, where the loop starts.
PUBLISHED = {
    "ouro": ((0, 2), 4, "gate", "entry"),
    "nanbeige": ((0, 2), 2, "last", "entry"),
    "huginn": ((2, 5), 5, "last", "random"),
    "huginn_retro_llama": ((2, 4), 32, "last", "random"),
    "huginn_retro_olmo2": ((1, 2), 32, "last", "random"),
    "looplm_naive": ((2, 2), 4, "last", "random"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The oracles' folders, each with a tokenizer of single letters."""
    root = tmp_path_factory.mktemp("families")
    for name in PUBLISHED:
        with_letters(name, root / name)
    return root


# Whether the controls hold these numbers; and these choices, of a list or of buttons one of which is pressed.
HELD = """(wanted) => Object.entries(wanted).every(([name, value]) => +document.querySelector(`#ctl-${name} input`).value === value)"""
CHOSEN = """(wanted) => Object.entries(wanted).every(([name, value]) => {
  const shown = document.querySelector(`#ctl-${name} input:checked`) ?? document.querySelector(`#ctl-${name} input`);
  return new RegExp(`(^|[(（])${value}([)）]|$)`).test(shown.value);
})"""


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_published_model_opens_as_it_was_published_and_runs(
    visit: Callable[..., Page], folders: Path, lang: str
) -> None:
    page = visit(f"?lang={lang}")
    page.evaluate("document.querySelectorAll('#lv-settings .label-wrap:not(.open)').forEach((node) => node.click())")
    settle(page, "sampling", "max_new_tokens", 4)
    for name, ((first, last), loops, read_out, start) in PUBLISHED.items():
        page.fill("#ctl-model input", str(folders / name))
        page.press("#ctl-model input", "Enter")
        expect(page.locator(".lv-model")).to_contain_text(name)
        expect(page.locator(".lv-model-notes summary")).to_be_visible()
        # a model's settings come one after the other; those of the model before may be among them
        numbers = {"block_start": first, "block_end": last, "loop_count": loops, "virtual_layer_count": loops}
        page.wait_for_function(HELD, arg=numbers)
        choices = {"exit_selection": read_out, "loop_init": start, "unreached_slots": "latest"}
        page.wait_for_function(CHOSEN, arg=choices)
        page.locator(".lv-model-notes summary").click()
        expect(page.locator(".lv-model-notes li").first).to_be_visible()
        told = page.locator(".lv-model-notes li").first.inner_text()
        family = {"huginn_retro_llama": "retrofitted_llama", "huginn_retro_olmo2": "retrofitted_olmo2"}.get(name, name)
        family = "looplm" if name == "looplm_naive" else family
        assert told == table(lang)[f"note.family.{family}"].format(first=first, last=last, loops=loops)
        page.locator(".lv-model-notes summary").click()
        run(page, "once upon a time")
        page.wait_for_function("() => ['length', 'eos'].includes(document.querySelector('.lv').dataset.end)")
        same_as_server(page)


def opened(page: Page, folder: Path, loops: int, tokens: int) -> None:
    """A model's own loop stands in the form, and a short run of it is on the page."""
    page.evaluate("document.querySelectorAll('#lv-settings .label-wrap:not(.open)').forEach((node) => node.click())")
    settle(page, "sampling", "max_new_tokens", tokens)
    page.fill("#ctl-model input", str(folder))
    page.press("#ctl-model input", "Enter")
    expect(page.locator(".lv-model")).to_contain_text(folder.name)
    page.wait_for_function(HELD, arg={"loop_count": loops})
    run(page, "once upon a time")
    page.wait_for_function("() => ['length', 'eos'].includes(document.querySelector('.lv').dataset.end)")


def test_a_gates_threshold_is_moved_and_run_with(visit: Callable[..., Page], folders: Path) -> None:
    page = visit(apart=True)
    opened(page, folders / "ouro", 4, 5)
    panel = page.locator('.lv-panel[data-panel="exit_gate"]')  # it came with the gate
    slider = panel.get_by_label("Threshold q")
    expect(slider).to_have_value("1")
    panel.scroll_into_view_if_needed()
    page.wait_for_selector('[data-panel="exit_gate"] .js-plotly-plot')
    dots = "() => document.querySelector('[data-panel=exit_gate]').querySelector('.js-plotly-plot').data[1].y"
    before = page.evaluate(dots)
    assert set(before) == {4}, "published: q = 1 reads out the last"
    for value in ("0.9", "0.6", "0.15"):
        slider.fill(value)  # as a hand moves it: each fires `input`
    expect(panel.locator("output")).to_have_text("0.15")
    page.wait_for_function(
        f"() => {{ const y = ({dots})(); return y.length === {len(before)} && y.some((step) => step < 4); }}"
    )
    same_as_server(page)
    slider.focus()
    for key in ("ArrowRight", "ArrowLeft"):
        for _ in range(12):  # by keys: an answer to an earlier one does not take it back
            slider.press(key)
        expect(panel.locator("output")).to_have_text({"ArrowRight": "0.27", "ArrowLeft": "0.15"}[key])
    same_as_server(page)
    first, act = page.locator(".lv").get_attribute("data-run"), panel.locator(".lv-act")
    expect(act).to_have_text("Run with threshold 0.15")
    act.click()
    page.wait_for_function("(first) => document.querySelector('.lv').dataset.run !== first", arg=first)
    page.wait_for_function("() => ['length', 'eos'].includes(document.querySelector('.lv').dataset.end)")
    page.wait_for_function(HELD, arg={"exit_threshold": 0.15})
    expect(act).to_be_hidden()  # this run's own threshold
    same_as_server(page)


def test_random_starts_are_overlaid_with_one_click(visit: Callable[..., Page], folders: Path) -> None:
    page = visit(apart=True)
    opened(page, folders / "huginn", 5, 2)
    with page.context.expect_page() as tab:
        page.locator('.lv-panel[data-panel="convergence"] .lv-act').click()
    lab = tab.value  # in a tab of its own: the run stays
    lab.wait_for_selector('.lv-page[data-end="done"][data-drawn="true"]')
    expect(lab.locator('.lv-task[data-task="starts"]')).to_have_attribute("aria-pressed", "true")
    expect(lab.locator(".lv-table tbody tr")).to_have_count(3 * 6)  # three seeds, steps 0 to 5
    expect(lab.locator("[data-field=text] textarea")).to_have_value("once upon a time")
    expect(lab.locator('[data-panel="plot"]')).to_contain_text("its own start, seed + 3")
    assert "values" not in lab.url, "loaded again, it measures nothing by itself"


# What a layer of each has that a plain Llama's has not; and the run of a layer that ends its loop (its last layer, its last step), besides.
STAGES = {
    "ouro": ({"norm_attended", "norm_down"}, {"step_norm", "read_out"}),
    "nanbeige": (set(), {"step_norm"}),
    "huginn": ({"scaled", "norm_stream", "norm_result"}, {"left_norm"}),
    "huginn_retro_llama": (set(), set()),
    "huginn_retro_olmo2": ({"norm_attended", "norm_down", "norm_query", "norm_key"}, set()),
    "looplm_naive": ({"norm_query", "norm_key"}, set()),
}
WALKED = "document.querySelector('.lv-page').page.stages.map(({ name }) => name)"


def walk(page: Page) -> set[str]:
    """Every stage of the layer that is shown is read about; their names."""
    names = page.evaluate(WALKED)
    for name in names:
        page.evaluate("(stage) => document.querySelector('.lv-page').page.go({ stage })", name)
        page.wait_for_selector(f'.lv-page[data-stage="{name}"][data-drawn="true"]')
        expect(page.locator(f'.lv-way-box[data-stage="{name}"]')).to_have_attribute("aria-pressed", "true")
        assert "anatomy." not in page.locator(".lv-stage").inner_text(), name
    assert page.locator(".lv-way-box").count() == len(names)
    return set(names)


# (that every word is there in both languages is `tests/app/test_texts.py`'s)
@pytest.mark.parametrize(("name", "lang"), zip(PUBLISHED, itertools.cycle(["en", "zh"]), strict=False))
def test_a_published_model_s_layers_open_in_anatomy_with_the_stages_that_they_have(
    visit: Callable[..., Page], folders: Path, name: str, lang: str
) -> None:
    page = visit(f"?lang={lang}", apart=True)
    (first, last), loops, *_ = PUBLISHED[name]
    opened(page, folders / name, loops, 3)
    page.click('.lv-way[data-page="anatomy"]')
    page.wait_for_selector('.lv-page[data-drawn="true"]')
    expect(page.locator(".lv-agreement")).to_have_attribute("data-same", "true")
    own, ending = STAGES[name]
    plain = {stage.name for stage in ALL}
    assert walk(page) - plain == own | ({"start"} if first == 0 and PUBLISHED[name][3] != "entry" else set())
    page.evaluate("(to) => document.querySelector('.lv-page').page.go(to)", {"layer": last, "step": loops})
    page.wait_for_selector(f'.lv-page[data-layer="{last}"][data-step="{loops}"][data-drawn="true"]')
    assert walk(page) - plain == own | ending
    page.evaluate("(to) => document.querySelector('.lv-page').page.go(to)", {"layer": first, "step": 1})
    page.wait_for_selector(f'.lv-page[data-layer="{first}"][data-step="1"][data-drawn="true"]')
    assert ("start" in walk(page)) == (PUBLISHED[name][3] != "entry")
