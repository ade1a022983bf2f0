"""Prompts with markup, template code, LaTeX, control and right-to-left characters on Compare, TTT and Lab: text stays text.

On Explore: `test_explore.py`, on Learn: `test_learn.py`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable

from playwright.sync_api import Page, expect

Visit = Callable[..., Page]
HOSTILE = {
    "html": "<img src=x onerror='window.broken=1'><script>window.broken=2</script></textarea><svg onload='window.broken=3'>",
    "template": "${window.broken=4}{{value}}<img src=x onerror='window.broken=5'>`</script>",
    "latex": r"$$\href{javascript:window.broken=6}{x}$$ \(\unicode{x3c}\frac{1}{0}\) \def\a{\a}\a",
    "control": "Once\x07 upon\x1b[31m a\u0085 time\u2028 there",
    "right to left": "\u202eecno\u202c \u2066\u05d0\u05d1 \u0627\u0644 nopu\u202e",
}
VERBATIM = ("html", "template", "latex")  # of the others a tokenizer may make pieces of a character
# Text with marks of direction that could turn what stands behind it: in no element of its own that keeps it in.
LEAKS = """() => {
  const marks = /[\\u202a-\\u202e\\u2066-\\u2069]/;
  const texts = document.createTreeWalker(document.querySelector('.lv'), NodeFilter.SHOW_TEXT);
  const found = [];
  while (texts.nextNode()) {
    const text = texts.currentNode;
    if (!marks.test(text.data) || text.parentElement.closest('svg, textarea, script')) continue;
    let box = text.parentElement;
    while (getComputedStyle(box).display === 'inline' && getComputedStyle(box).unicodeBidi === 'normal') box = box.parentElement;
    const inline = getComputedStyle(box).display === 'inline';
    if (!inline && box.textContent.trim() !== text.data.trim()) found.push(`${box.className || box.tagName}: ${text.data}`);
  }
  return found;
}"""


def harmless(page: Page) -> None:
    """Nothing of what was written has become an element, run as a script, or turned the words around it."""
    assert page.evaluate("window.broken") is None
    assert page.locator(".lv :is(img, script, [onload], [onerror], a[href^='javascript:'])").count() == 0
    assert page.locator(":is(.lv-text, .lv-words, .lv-card-text) :is(math, svg)").count() == 0
    assert page.evaluate(LEAKS) == []


def test_on_compare(visit: Visit) -> None:
    page = visit(at="compare")
    page.locator(".lv-asking > details > summary").click()
    page.locator("[data-field=max_new_tokens] input").fill("3")
    for prompt in HOSTILE.values():
        before = page.locator(".lv-page").get_attribute("data-run") or "none"
        page.locator("[data-field=prompt] textarea").fill(prompt)
        page.locator(".lv-go").click()
        page.wait_for_selector(f'.lv-page[data-end="done"][data-drawn="true"]:not([data-run="{before}"])')
        expect(page.locator(".lv-status.lv-bad")).to_have_count(0)
        harmless(page)


def test_on_ttt(visit: Visit) -> None:
    page = visit(at="ttt")
    page.locator("[data-field=max_new_tokens] input").fill("3")
    for name, prompt in HOSTILE.items():
        before = page.evaluate("document.querySelector('.lv-page').page.run?.run ?? null")
        page.locator("[data-field=prompt] textarea").fill(prompt)
        page.locator(".lv-go").click()
        page.wait_for_function(
            """(before) => { const { page, dataset } = document.querySelector('.lv-page');
              return page.run && page.run.run !== before && dataset.end && dataset.state === 'idle'; }""",
            arg=before,
        )
        expect(page.locator(".lv-status.lv-bad")).to_have_count(0)
        if name in VERBATIM:
            assert prompt in page.evaluate("document.querySelector('.lv-words').textContent")
        harmless(page)


def test_in_the_lab_where_prompts_and_names_stand_in_a_table(visit: Visit) -> None:
    page = visit(at="lab")
    page.locator('.lv-task[data-task="prompts"]').click()
    page.locator(".lv-asking > details > summary").click()
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([("name", "prompt"), *((text, text) for text in HOSTILE.values())])
    page.locator("[data-field=csv] textarea").fill(table.getvalue())
    page.locator("[data-field=max_new_tokens] input").fill("2")
    page.locator(".lv-as-set").click()
    page.wait_for_selector('.lv-page[data-end="done"][data-drawn="true"]')
    expect(page.locator(".lv-table tbody tr")).to_have_count(len(HOSTILE))
    expect(page.locator(".lv-table tbody")).to_contain_text(HOSTILE["latex"])
    harmless(page)
