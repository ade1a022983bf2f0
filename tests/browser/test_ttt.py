"""TTT in a browser: a run watched, steered and looked into, in English and dark; refused, forgotten in and read on a phone, in Chinese."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from loopviz.panels.ttt import TTT_PANELS
from tests.browser.test_axe import findings
from tests.engine import tiny, tiny_ttt

Visit = Callable[..., Page]
IDLE = '.lv-page[data-state="idle"]'
NEXT = "document.querySelector('.lv-page').page"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random TTT model."""
    made = tmp_path_factory.mktemp("ttt") / "tiny-ttt"
    tiny_ttt.model(num_attention_heads=2, hidden_size=16).save_pretrained(made)
    tiny.tokenizer().save_pretrained(made)
    return made


def opened(visit: Visit, query: str, folder: Path, **options: Any) -> Page:
    """The page, with the tiny model named."""
    page = visit(at="compare", **options)
    page.goto(page.url.replace("compare", "ttt").partition("?")[0] + query)
    page.wait_for_selector('.lv-page[data-ready="1"]')
    field(page, "model").fill(str(folder))
    return page


def field(page: Page, name: str) -> Any:
    return page.locator(f'[data-field="{name}"] :is(input, textarea, select)')


def drawn(page: Page, panel: str) -> list[list[float]]:
    """What Plotly has drawn: the curves' numbers."""
    return page.evaluate(
        "(name) => document.querySelector(`[data-panel=${name}] .lv-plot`).data.map(({ y }) => y)", panel
    )


def test_a_run_is_watched_steered_and_looked_into(visit: Visit, folder: Path) -> None:
    page = opened(visit, "?lang=en&__theme=dark", folder)
    field(page, "prompt").fill("Once upon a time there was a small dog.")
    field(page, "max_new_tokens").fill("400")
    field(page, "pace").select_option("25")
    page.get_by_role("button", name="Run", exact=True).click()
    page.wait_for_selector('[data-i="40"]', state="attached")
    expect(page.locator('[data-panel="inner_loss"] .main-svg').first).to_be_visible()
    page.get_by_role("button", name="Forget now").click()
    expect(page.locator(".lv-ttt-changed")).not_to_have_count(0)
    slider = page.locator(".lv-ttt-rate .lv-ttt-slider")
    slider.focus()
    page.keyboard.press("Home")
    expect(page.locator(".lv-ttt-rate .lv-ttt-value")).to_have_text("× 0")
    page.wait_for_function("() => document.querySelector('.lv-page').page.run.changes.some(({ scale }) => scale === 0)")
    page.get_by_role("button", name="Stop").click()
    page.wait_for_selector(f'{IDLE}[data-end="stopped"][data-drawn="true"]')
    changes = page.evaluate(f"{NEXT}.run.changes")
    assert changes[0]["forget"]
    words, learned = page.evaluate(f"{NEXT}.words.length"), drawn(page, "rates")[0]
    zero = next(change["index"] for change in changes if change["scale"] == 0)
    assert len(drawn(page, "inner_loss")[0]) == len(learned) == words
    assert set(learned[zero:]) == {0}
    assert 0 not in learned[:zero]
    for name in TTT_PANELS:
        expect(page.locator(f'[data-panel="{name}"] .main-svg').first).to_be_visible()
    # one layer's one head, one word: by keys
    field(page, "layer").select_option("1")
    field(page, "head").select_option("0")
    strip = page.locator(".lv-words")
    strip.focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector(f'.lv-page[data-token="{words - 2}"][data-drawn="true"]')
    expect(page.locator('[data-panel="held"] .lv-headline')).to_contain_text(f"layer 1, head 0, after word {words - 2}")
    page.locator('[data-i="12"]').click()
    expect(page.locator('[data-panel="dual"] .lv-headline')).to_contain_text("words 12 to 15")
    page.get_by_role("button", name="What does it lose if it forgets").click()
    expect(page.locator('[data-panel="forgetting"] .lv-headline')).to_contain_text("after word 12")
    details = page.locator('[data-panel="drift"] details')
    details.locator("summary").click()
    expect(details.locator("math").first).to_be_visible()
    expect(details).to_contain_text("2407.04620")
    # four inner rules by one slider
    page.get_by_role("button", name="What if it learned by another rule?").click()
    expect(page.locator('[data-panel="rules"] .lv-headline')).to_contain_text("TTT-Linear, layer 1, head 0")
    page.locator(".lv-ttt-rule .lv-ttt-slider").focus()
    for rule in ("gated_deltanet", "deltanet", "linear_attention"):
        page.keyboard.press("ArrowLeft")
        page.wait_for_selector(f'[data-panel="rules"][data-rule="{rule}"]')
    expect(page.locator(".lv-ttt-what")).to_contain_text("Linear attention: adds")
    field(page, "head").select_option("mean")
    expect(page.locator('[data-panel="rules"] .lv-headline')).to_contain_text(
        "Linear attention, layer 1, mean of 2 heads"
    )
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.evaluate("document.querySelectorAll('.lv details').forEach((node) => (node.open = true))")
    # a plot's own buttons, under the mouse, are every page's
    assert [one for one in findings(page) if "modebar" not in one] == []


def test_run_pressed_before_the_server_has_answered_is_done_once_it_has(visit: Visit, folder: Path) -> None:
    """It stayed at "Waiting": what is begun before Gradio listens goes nowhere."""
    page = visit(at="compare")
    held: list[Route] = []
    met: list[bool] = []
    page.route("**/component_server**", lambda route: held.append(route) if not met else route.continue_())
    page.goto(page.url.replace("compare", "ttt").partition("?")[0])
    page.wait_for_selector('.lv-page[data-ready="1"]')
    field(page, "model").fill(str(folder))
    field(page, "max_new_tokens").fill("5")
    field(page, "pace").select_option("0")
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.locator(".lv-status").first).to_contain_text("Waiting")
    assert held
    met.append(True)
    for route in held:
        route.continue_()
    page.wait_for_selector(f'{IDLE}[data-end="length"][data-drawn="true"]')


def test_a_refused_start_leaves_the_run_before_alive_and_what_is_pressed_early_is_done(
    visit: Visit, folder: Path
) -> None:
    page = opened(visit, "?lang=en", folder)
    field(page, "prompt").fill("Once upon a time there was a small dog.")
    field(page, "max_new_tokens").fill("30")
    field(page, "pace").select_option("0")
    run = page.get_by_role("button", name="Run", exact=True)
    run.click()
    page.wait_for_selector(f'{IDLE}[data-end="length"][data-drawn="true"]')
    first = page.evaluate(f"{NEXT}.run.run")
    # refused: the text of before can still be looked into
    field(page, "prompt").fill(" ")
    run.click()
    page.wait_for_selector(f'{IDLE} [data-field="prompt"].lv-field-bad')
    said = page.locator(".lv-asking .lv-status").inner_text()
    page.locator('[data-i="5"]').click()
    expect(page.locator('[data-panel="held"] .lv-headline')).to_contain_text("after word 5")
    assert page.locator(".lv-asking .lv-status").inner_text() == said, "the refusal is not talked over"
    page.get_by_role("button", name="What does it lose if it forgets").click()
    expect(page.locator('[data-panel="forgetting"] .lv-headline')).to_contain_text("after word 5")
    # what is asked of the run before and comes late is of no use to the next
    held: list[Route] = []
    page.route(
        "**/component_server**",
        lambda route: held.append(route) if '"rules"' in (route.request.post_data or "") else route.continue_(),
    )
    page.get_by_role("button", name="What if it learned by another rule?").click()
    page.wait_for_timeout(200)
    field(page, "prompt").fill("The sun was hot and the cat")
    field(page, "pace").select_option("4")
    run.click()
    assert held
    for route in held:
        route.continue_()
    # Forget and the rate, before a first word has come
    page.get_by_role("button", name="Forget now").click()
    page.locator(".lv-ttt-rate .lv-ttt-slider").focus()
    page.keyboard.press("Home")
    page.wait_for_function("(first) => document.querySelector('.lv-page').page.run.run !== first", arg=first)
    page.wait_for_function("() => document.querySelector('.lv-page').page.run.changes.some(({ scale }) => scale === 0)")
    assert page.evaluate(f"{NEXT}.run.changes")[0]["forget"]
    page.get_by_role("button", name="Stop").click()
    page.wait_for_selector(f'{IDLE}[data-end="stopped"]')
    expect(page.locator('[data-panel="rules"]')).to_be_hidden()


def test_what_is_refused_and_a_run_on_a_phone_in_chinese(visit: Visit, folder: Path) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
    page = opened(visit, "?lang=zh", folder, **phone)
    go = page.get_by_role("button", name="运行", exact=True)
    field(page, "model").fill("stories-loop")
    go.click()
    expect(page.locator('[data-field="model"].lv-field-bad .lv-field-info')).to_contain_text(
        "stories-loop: no TTT model"
    )
    field(page, "model").fill(str(folder))
    field(page, "prompt").fill(" ")
    go.click()
    expect(page.locator('[data-field="prompt"].lv-field-bad')).to_be_visible()
    page.locator(".lv-ttt-examples button").first.click()
    field(page, "max_new_tokens").fill("12")
    field(page, "pace").select_option("0")
    go.click()
    page.wait_for_selector(f'{IDLE}[data-end="length"][data-drawn="true"]')
    expect(page.locator(".lv-field-bad")).to_have_count(0)
    expect(page.locator('[data-panel="drift"] .lv-headline')).to_contain_text("‖W_0‖")
    expect(page.locator('[data-panel="dual"] .lv-question').last).to_contain_text("没有随附读同样词元的这种模型")
    page.get_by_role("button", name="English").click()
    expect(page.locator('[data-panel="drift"] .lv-headline')).to_contain_text("mean of 2 heads: now")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
