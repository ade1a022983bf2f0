"""A TTT model beside a looped one on the Compare page, in English and in Chinese, dark and light, and on a phone."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.test_axe import findings

Visit = Callable[..., Page]
SAID = {
    "en": {
        "about": "TTT-Linear, 2 layers of 8 heads",
        "loops": "no loop (TTT)",
        "memory": "TTT state",
        "other": "KV cache",
        "curve": "stories-ttt: a TTT model has no loop",
        "state": "stories-ttt: bytes of its state",
        "page": "Runs on the page TTT",
        "refused": "is a TTT model and has neither a loop nor a KV cache to set",
    },
    "zh": {
        "about": "TTT-Linear，2 层",
        "loops": "无循环（TTT）",
        "memory": "TTT 状态",
        "other": "KV 缓存",
        "curve": "stories-ttt：TTT 模型没有循环",
        "state": "stories-ttt：为其状态的字节数",
        "page": "在 TTT 页运行",
        "refused": "是 TTT 模型，没有循环也没有 KV 缓存可设置",
    },
}


def set_up(visit: Visit, lang: str, query: str = "", **options: object) -> Page:
    """stories-loop as it comes, and stories-ttt beside it; a few words."""
    page = visit(query, at="compare", **options)
    page.locator(f"[data-lang={lang}]").click()
    page.locator(".lv-asking > details > summary").click()
    page.locator("[data-field=max_new_tokens] input").fill("6")
    model = page.locator("[data-field=model] input")
    model.fill("stories-loop")
    model.press("Tab")
    page.wait_for_selector('.lv-page[data-model="ready"]')
    page.locator("[data-field=prompt] textarea").fill("One day, a bird")
    page.locator("[data-field=continuation] textarea").fill(" found a key. The bird was happy.")
    cards = page.locator(".lv-setup")
    cards.nth(2).locator(".lv-card-head button").click()
    page.locator('[data-key="compare.other.add"]').click()
    expect(cards).to_have_count(3)
    expect(cards.nth(2).locator("[data-field=card-model] input")).to_have_value("stories-ttt")
    expect(cards.nth(2).locator(".lv-card-about")).to_contain_text(SAID[lang]["about"])
    return page


def cell(page: Page, group: str, row: int, title: str) -> str:
    """A cell of a row, by its column's heading."""
    table = page.locator(f".lv-table[data-group={group}]")
    heads = table.locator("thead th").all_inner_texts()
    column = next(i for i, head in enumerate(heads) if head.startswith(title))
    return table.locator("tbody tr").nth(row).locator("th, td").nth(column).inner_text()


@pytest.mark.parametrize(
    ("lang", "query", "options"),
    [("en", "?__theme=dark", {"apart": True}), ("zh", "", {"viewport": {"width": 390, "height": 844}})],
)
def test_a_ttt_model_beside_a_looped_one(
    visit: Visit, lang: str, query: str, options: dict[str, object], tmp_path: Path
) -> None:
    page, said = set_up(visit, lang, query, **options), SAID[lang]
    cards = page.locator(".lv-setup")
    expect(cards.nth(2).locator("details")).to_be_hidden()
    expect(cards.nth(1).locator("details")).to_be_visible()
    page.locator(".lv-go").click()
    page.wait_for_selector('.lv-page[data-end="done"][data-rows="3"][data-drawn="true"]')
    for place in range(3):
        expect(cards.nth(place)).to_have_attribute("data-stage", "done")
        expect(cards.nth(place).locator(".lv-card-text span")).to_have_count(6)
    page.locator(".lv-every").click()
    titles = {
        "en": ("loops, mean", "kind of memory", "KV cache a token"),
        "zh": ("平均循环次数", "记忆种类", "每词元 KV 缓存"),
    }[lang]
    names = page.locator(".lv-table[data-group=costs] tbody tr th").all_inner_texts()
    ttt = [name.strip() for name in names].index("stories-ttt")
    assert cell(page, "costs", ttt, titles[0]) == said["loops"]
    assert cell(page, "costs", ttt, titles[1]) == said["memory"]
    assert cell(page, "costs", 0, titles[1]) == said["other"]
    assert "135" in page.locator(".lv-table[data-group=costs] tbody tr").nth(ttt).inner_text()
    expect(page.locator('[data-panel="loops"] .annotation-text')).to_contain_text(said["curve"])
    expect(page.locator('[data-panel="convergence"] .annotation-text')).to_contain_text(said["curve"])
    expect(page.locator('[data-panel="kv"] .annotation-text')).to_contain_text(said["state"])
    expect(page.locator('[data-panel="kv"] .scatterlayer .js-line')).to_have_count(3)
    expect(page.locator('[data-panel="loops"] .scatterlayer .js-line')).to_have_count(2)
    expect(page.locator('[data-panel="pareto"] .scatterlayer .points path')).to_have_count(3)
    expect(page.locator(".lv-table[data-group=ran]").get_by_role("link", name=said["page"])).to_have_attribute(
        "href", re.compile("ttt")
    )
    folder = Path(os.environ.get("LOOPVIZ_SCREENSHOTS", tmp_path))
    page.screenshot(path=folder / f"ttt-compare-{lang}.png", full_page=True)
    assert findings(page) == []


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_what_a_ttt_model_has_not_is_refused_on_its_card_and_its_own_card_runs(visit: Visit, lang: str) -> None:
    page = set_up(visit, lang)
    cards = page.locator(".lv-setup")
    model = page.locator("[data-field=model] input")
    model.fill("stories-ttt")
    model.press("Tab")
    expect(cards.nth(0).locator(".lv-card-status")).to_contain_text(SAID[lang]["refused"])
    expect(cards.nth(1).locator(".lv-card-about")).to_contain_text(SAID[lang]["about"])
    named = cards.nth(2).locator("[data-field=card-model] input")
    named.fill("stories-attention")
    named.press("Tab")
    expect(cards.nth(2)).to_have_attribute("aria-label", "stories-attention")
    page.locator(".lv-go").click()
    page.wait_for_selector('.lv-page[data-end="done"][data-rows="2"]')
    expect(cards.nth(0)).to_have_attribute("data-stage", "refused")
    for place in (1, 2):
        expect(cards.nth(place)).to_have_attribute("data-stage", "done")
