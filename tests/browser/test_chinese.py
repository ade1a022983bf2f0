"""The Chinese pages are in Chinese (A23): every word in Latin letters that can be met on them is a name, a symbol or a unit."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable

from playwright.sync_api import BrowserContext, Page, expect

from loopviz.app.texts import table
from tests.browser.test_explore import drawn, ended, run, settle

ALL_ON = "localStorage.setItem('loopviz.panels', JSON.stringify({ instrument: true, key_similarity: true, attention: true, kv_projection: true }))"
NAMES = {
    # of this program, models, libraries and people
    "LoopViz", "LoopLlama", "Llama", "SmolLM2", "stories-loop", "stories-noinject", "arrows-loop", "glassbox", "smollm2-135m-instruct",
    "tiny",
    "stories", "English", "Hugging", "Face", "Transformers", "transformers", "PyTorch", "Python", "Plotly", "Gradio", "TinyStories",
    "Huginn", "Ouro", "Geiping", "Elhoushi", "Koehn", "MIT", "BibTeX", "Jupyter", "DynamicCache", "Mistral", "Qwen", "Instruct", "Base", "cividis", "loopviz", "eval",
    # in the panels' formulas, explained in Chinese beside them
    "criterion", "itemsize", "kv", "next", "slots",
    # symbols, formats, units, keys
    "cos", "log", "exp", "softmax", "max", "min", "mod", "KL", "KV", "Key", "Value", "RMS", "RMSNorm", "PCA", "SVD", "EMA", "BLEU", "ROUGE", "RoPE", "GQA", "TTT", "Alpaca", "Vicuna",
    "JSON", "CSV", "Parquet", "PNG", "SVG", "HTML", "UTF", "gguf", "lines", "Manifest", "ppl", "id", "Tab", "Esc", "Enter", "Shift", "nat", "nats", "ms", "MB", "GB", "kB", "TB", "bfloat",
    "float", "norm", "head", "coda", "top", "argmax", "tok", "CPU", "GPU", "MLP", "CE", "LM", "BPE", "BOS", "EOS", "logit", "GFLOP", "MHA", "MQA", "LoRA", "LLaMA", "LayerNorm", "BatchNorm", "lens", "GSM",
}  # fmt: skip
# What a model wrote or a visitor typed, code and addresses, the options of lists of models.
OWN = """.lv-text, .lv-cells b, .lv-ring-line, .lv-card-text, .lv-next, .lv-pins, .lv-code, .lv-held .lv-chosen-words, textarea, math, .lv-example, datalist,
  .lv-tongue, .lv-tour-question, #lv-lang, .lv-model, .lv-about, .lv-repeat, script, style, .lv-link, .xtick, .ytick, .hoverlayer,
  .heatmap-label, [data-panel="text_by_loop"] .textpoint"""
_SAID = """(own) => { const said = [], shown = (node) => node.checkVisibility({ visibilityProperty: true });
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) { const at = walk.currentNode.parentElement; if (at && !at.closest(own) && shown(at)) said.push(walk.currentNode.data); }
  for (const node of document.querySelectorAll('[title], [aria-label], [placeholder], [data-title], option')) {
    if (node.closest(own) || !(node.matches('option') || shown(node))) continue;
    said.push(...['title', 'aria-label', 'placeholder', 'data-title'].map((name) => node.getAttribute(name)).filter(Boolean), node.matches('option') ? node.textContent : '');
  }
  return [...new Set(said.filter((text) => /[A-Za-z]{2}/.test(text)))]; }"""


def code() -> set[str]:
    """Names of parameters and the values one writes for them: the Lab speaks of them as they are to be written."""
    from loopviz.app import controls as st
    from loopviz.lab import TASKS
    from loopviz.lab.task import choices_of, plain_data

    found = {"null", "torch", "CUDA", "sacrebleu", "chrF", "rouge", "distinct", "ja", "count", "baseline", "reference"}
    for task in TASKS.values():
        for field in dataclasses.fields(task.params):
            found |= {
                field.name,
                *re.findall("[A-Za-z]+", str(plain_data(choices_of(field.metadata) or field.default))),
            }
    return found | {choice for control in st.CONTROLS for choice in (control.name, *control.choices)}


def foreign(texts: Iterable[str], more: frozenset[str] = frozenset()) -> dict[str, str]:
    """Words in Latin letters that are none of `NAMES`, each with a text it stands in.

    A technical name in brackets after the Chinese words, a quotation, a setting's assignment and a file's name are what
    they are in every language.
    """
    found = {}
    for said in texts:
        text = re.sub(
            r"python -m [^；]*|（[^）]*）|\([^)]*\)|“[^”]*”|\{[^}]*\}|\b\w+_\w+\b|\b\w+=\S+|\b[\w-]+\.(?:json|html|gguf|loopviz)\b|--?\w+",
            " ",
            said,
        )
        for word in re.findall(r"[A-Za-z][A-Za-z'-]+[A-Za-z]|[A-Za-z]{2,}", text):
            if word not in NAMES | more and not set(re.split("[-']", word)) <= NAMES | more:
                found.setdefault(word, said.strip()[:90])
    return found


def written(page: Page) -> frozenset[str]:
    """Words of the run that is shown, whole and as tokens: panels speak of them."""
    tokens = page.evaluate("document.querySelector('.lv').page.tokens.map((row) => row[0])")
    return frozenset(re.findall("[A-Za-z'-]{2,}", " ".join(tokens) + " " + "".join(tokens)))


def compared(page: Page) -> frozenset[str]:
    """Tokens of a comparison's texts: its table names the one whose prediction the cache changed most."""
    texts = page.evaluate("[...document.querySelectorAll('textarea')].map((field) => field.value)")
    texts += page.evaluate("[...document.querySelectorAll('.lv-card-text *')].map((token) => token.textContent)")
    words = re.findall("[A-Za-z]+", " ".join(texts))
    return frozenset(word[i:j] for word in words for i in range(len(word)) for j in range(i + 2, len(word) + 1))


def chinese(page: Page, more: frozenset[str] = frozenset(), data: str = "") -> None:
    """What the page says now is Chinese, but for `more`, and what stands in `data`, a selector."""
    found = foreign(page.evaluate(_SAID, f"{OWN}, {data}" if data else OWN), more)
    assert not found, "not Chinese:\n" + "\n".join(f"{word}: {said!r}" for word, said in sorted(found.items()))


def test_the_measure_finds_english() -> None:
    assert foreign(["循环次数（loop_count）", "KV 缓存 3.2 MB", "“Once”"]) == {}
    assert set(foreign(["Download plot", "基线 count 64"])) == {"Download", "plot", "count"}


def test_a23_explore_is_chinese(visit: Callable[..., Page], usual_context: BrowserContext) -> None:
    usual_context.once("page", lambda page: page.add_init_script(ALL_ON))
    page = visit("?lang=zh")
    drawn(page)
    page.evaluate("document.querySelectorAll('#lv-settings .label-wrap:not(.open)').forEach((node) => node.click())")
    page.evaluate("document.querySelectorAll('.lv-panel details').forEach((node) => (node.open = true))")
    chinese(page, written(page))
    settle(page, "sampling", "max_new_tokens", 8)
    run(page)
    ended(page)
    for tab in reversed(page.locator(".lv-tab").all()):
        tab.click()
        page.wait_for_function("() => !document.querySelector('.lv').page.looking")
        drawn(page)
        chinese(page, written(page))
    page.locator(".lv-share").click()
    chinese(page, written(page))
    page.keyboard.press("Escape")
    page.locator(".lv-export").nth(1).click()
    chinese(page, written(page))
    page.keyboard.press("Escape")
    page.locator("#lv-learn .lv-glossary-open").click()
    page.wait_for_selector(".lv-glossary section")
    chinese(page, written(page))
    page.keyboard.press("Escape")
    page.locator(".lv-keys-open").click()
    chinese(page, written(page))


def test_a23_the_tour_is_chinese(visit: Callable[..., Page]) -> None:
    page = visit("?lang=zh")
    page.locator("#lv-learn .lv-tour-open").click()
    for _ in range(20):
        page.wait_for_selector(".lv-tour")
        parts = [
            ".lv-tour h2",
            ".lv-tour-words",
            ".lv-tour-told",
            ".lv-tour-row",
        ]  # the answers to choose from are the model's words
        assert foreign(page.locator(part).inner_text() for part in parts) == {}
        before = page.locator(".lv-tour-place").inner_text()
        page.locator(".lv-tour-next").click()
        # the next step's words are there, or the tour is over
        page.wait_for_function(
            "(before) => document.querySelector('.lv-tour .lv-tour-place')?.textContent !== before", arg=before
        )
        if not page.locator(".lv-tour").count():
            break


def test_a23_compare_is_chinese(visit: Callable[..., Page]) -> None:
    page = visit("?lang=zh", at="compare")
    page.locator(".lv-asking > details > summary").click()
    page.locator("[data-field=max_new_tokens] input").fill("4")
    page.locator(".lv-setup summary").nth(1).click()
    page.locator(".lv-go").click()
    page.wait_for_selector('.lv-page[data-end="done"][data-drawn="true"]')
    chinese(page, compared(page))


def test_a23_the_lab_is_chinese(visit: Callable[..., Page]) -> None:
    page = visit("?lang=zh&task=norms", at="lab")
    expect(page.locator('.lv-task-group[open] .lv-task[data-task="norms"]')).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".lv-three p")).to_have_count(3)  # what one sees, why, and for a loop
    for task in page.locator(".lv-task").all():
        task.click()
        page.wait_for_selector('.lv-results[data-kind="recorded"]')
        # what is in a recorded table is what its file has: names that a program knows, and words of a text
        chinese(page, frozenset(code()), '.lv-results[data-kind="recorded"] tbody')
    page.locator('.lv-task[data-task="where"]').click()
    page.locator(".lv-asking > details > summary").click()
    page.locator("[data-field=coarsest] input").fill("4")
    page.locator("[data-field=finest] input").fill("4")
    page.locator(".lv-go").last.click()
    page.wait_for_selector('.lv-page[data-end="done"][data-drawn="true"]')
    chinese(page, frozenset(code()))


def test_who_goes_on_from_a_link_in_a_language_goes_on_in_it(visit: Callable[..., Page]) -> None:
    """Anatomy was English for who came to Explore by a Chinese link; what a link asks for is its tab's alone."""
    english, chinese = table("en"), table("zh")
    page = visit("?lang=zh")
    for to in ("anatomy", "lab", "explore"):
        page.click(f'.lv-way[data-page="{to}"]')
        page.wait_for_selector('.lv[data-ready="1"]' if to == "explore" else '.lv-page[data-ready="1"]')
        expect(
            page.locator('#lv-title .lv-way[data-page="compare"], .lv-top .lv-way[data-page="compare"]')
        ).to_have_text(chinese["nav.compare"])
    assert visit(at="lab").locator('.lv-way[data-page="compare"]').inner_text() == english["nav.compare"]
    page.bring_to_front()
    page.click("#lv-lang label:has-text('English')")
    expect(page.locator("#lv-run")).to_have_text(english["run"])
    page.click('.lv-way[data-page="anatomy"]')
    page.wait_for_selector('.lv-page[data-ready="1"]')
    expect(page.locator('.lv-way[data-page="compare"]')).to_have_text(english["nav.compare"])
