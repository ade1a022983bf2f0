"""The Anatomy page's script with a server that answers when a test says so: what comes too late, what never comes, keys and focus."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from loopviz.anatomy.stage_list import ALL
from loopviz.app.anatomy.packing import packed
from loopviz.app.anatomy.page import data
from loopviz.app.sessions.messages import wire
from loopviz.app.sessions.models import ModelRoom
from tests.browser.conftest import bare

# `made.late`: names whose answers wait until `made.answer(name, answer)`; null is an answer that never came.
MOUNT = """async ([config, run, layer]) => {
  document.body.innerHTML = '<div class="lv lv-page"></div>';
  const made = (window.made = { asked: [], begun: [], late: {}, waiting: {} });
  made.answer = (name, answer) => made.waiting[name].shift()(JSON.stringify(answer));
  const usual = { show: ({ lang }) => ({ ...run, about: lang }), layer: (asked) => ({ ...layer, layer: asked.layer, step: asked.step }),
    beside: () => ({ kind: 'beside', stages: { query: [0.5, 0.12] } }), draw: () => ({ kind: 'draw', rows: [[' six', 2, 0.5, 0.9], [' ten', 1, 0.2, 0]], kept: 1, vocabulary: 9 }) };
  const server = new Proxy({}, { get: (_, name) => async (question) => {
    made.asked.push([name, JSON.parse(question)]);
    if (made.late[name]) return new Promise((resolve) => (made.waiting[name] ??= []).push(resolve));
    return JSON.stringify(usual[name]?.(JSON.parse(question)) ?? { kind: 'ok' });
  } });
  const { mount } = await import('/anatomy/main.js');
  const root = document.querySelector('.lv');
  made.page = mount({ root, server, props: { value: config }, watch: () => {}, begin: (asked) => made.begun.push(asked) });
  made.say = (message) => { made.page.receive({ ticket: made.begun.at(-1).ticket, ...message }); };
}"""
N, K, D, S, WIDE = 2, 1, 4, 3, 8
RUN = {
    "kind": "run", "run": "recorded", "model": "tiny", "called": "tiny", "linked": False, "about": "", "layers": 2,
    "blocks": [], "tokens": [[word, 0, 1] for word in ("one", " two", " three", " four", " five")], "next": " six",
    "palette": [], "telling": 1,
}  # fmt: skip


def layer() -> dict[str, Any]:
    """What a layer computed."""
    rng = np.random.default_rng(0)
    heads = {
        "query": (N, D),
        "turned": (N, D),
        "key": (K, D),
        "value": (K, D),
        "mixed": (N, D),
        "keys": (K, S, D),
        "values": (K, S, D),
    }
    wide = (
        "state",
        "normed",
        "gain",
        "layer_norm",
        "attended",
        "between",
        "normed_between",
        "gain_mlp",
        "layer_norm_mlp",
        "down",
        "result",
    )
    doors = ("gate", "up", "swish", "product", "swish_0.1", "swish_1", "swish_10")
    sizes = {**heads, "scores": (N, S), "weights": (N, S), **dict.fromkeys((*wide, *doors), (WIDE,))}
    lengths = {"state_norm": 5.0, "added_norm": 2.0, "after_norm": 6.0, "degrees": 10.0, "ratio": 0.4}
    columns = {
        "total": S, "seen": S, "places": [0, 1, 2], "positions": [0, 1, 2], "slots": [0, 0, 0], "visible": [True] * S,
        "keys": [0, 1, 2], "share": [1.0] * N,
    }  # fmt: skip
    return {
        "kind": "layer", "block": -1, "stages": [stage.key for stage in ALL], "tensors": packed({name: rng.standard_normal(size) for name, size in sizes.items()}),
        "each": {}, "columns": columns, "facts": {"state": {"norm": 2.0}, "between": lengths, "result": lengths}, "frequencies": [1.0, 0.1], "position": 2,
        "shapes": {"query": {"N": N, "D": D}, "key": {"K": K, "D": D}, "keys": {"K": K, "D": D}, "state": {"H": WIDE}},
    }  # fmt: skip


def token(number: int, steps: int = 0) -> dict[str, Any]:
    """A token that was read again, by layers that do not loop or took so many steps."""
    agreement = {"steps": True, "states": 0.5, "norm": 0.0, "logprob": 0.0, "compared": True, "is_the_runs": True}
    return {
        "kind": "token", "look": f"look{number}", "run": "recorded", "token": number, "runs": [[layer, 0 if steps else -1, step] for step in (range(1, steps + 1) if steps else [0]) for layer in (0, 1)],
        "reasons": [], "steps": [], "agreement": agreement, "each": {},
        "tensors": packed({name: np.ones(WIDE) for name in ("embedding", "final", "normed", "gain")}),
        "facts": {"head": {"vocabulary": 9}},
    }  # fmt: skip


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    made = bare(browser, viewport={"width": 1200, "height": 900}, reduced_motion="reduce", locale="en-GB")
    made.set_default_timeout(10_000)
    made.clock.install()
    config = wire(json.loads(json.dumps(data(ModelRoom("tiny")), default=list)))
    made.evaluate(MOUNT, [config, RUN, layer()])
    made.wait_for_function("made.begun.length")
    yield made
    made.context.close()


def say(page: Page, **message: Any) -> None:
    page.evaluate("(message) => made.say(message)", message)


def read(page: Page, number: int = 1, steps: int = 0) -> None:
    """The word that was asked for has been read."""
    say(page, **token(number, steps))
    page.wait_for_selector('[data-drawn="true"]')


def begun(page: Page) -> int:
    return page.evaluate("made.begun.length")


def line(page: Page) -> Any:
    return page.locator(".lv-anatomy-top .lv-status")


def test_a_word_that_was_not_read_is_read_again(page: Page) -> None:
    """The page said “choose the word again”, and the word that was chosen was passed over."""
    word = page.locator(".lv-words .lv-tok").nth(1)
    word.click()
    assert begun(page) == 1  # it is on its way
    say(page, kind="status", text="No.", bad=True, over=True)
    word.click()
    assert begun(page) == 2
    read(page)
    word.click()
    assert begun(page) == 2


def test_an_answer_that_comes_late_says_nothing_of_another_word(page: Page) -> None:
    read(page)
    page.evaluate("{ made.late.layer = true; made.page.layers.clear(); }")
    page.evaluate("made.page.go({ layer: 1 })")
    page.locator(".lv-words .lv-tok").nth(3).click()
    expect(page.locator(".lv-agreement")).to_be_hidden()  # of that word nothing is known
    page.wait_for_function("made.waiting.layer?.length")
    page.evaluate("made.answer('layer', { kind: 'no', field: '', text: 'Too late.' })")
    page.evaluate("new Promise((done) => queueMicrotask(() => queueMicrotask(done)))")
    expect(line(page)).to_have_text("Asking…")
    say(page, kind="status", text="Refused.", bad=True, over=True)
    for _ in range(page.evaluate("made.waiting.layer.length")):
        page.evaluate("(layer) => made.answer('layer', layer)", {**layer(), "layer": 0, "step": 0})
    page.evaluate("new Promise((done) => queueMicrotask(() => queueMicrotask(done)))")
    expect(line(page)).to_have_text("Refused.")
    assert page.get_attribute(".lv-page", "data-shown") == ""
    assert page.locator(".lv-stage-pictures > *").count() == 0


def test_a_reading_that_is_not_heard_of_any_more_is_told(page: Page) -> None:
    """It stayed “Asking…” for ever: the server is asked whether it is there, and the word can be chosen again."""
    page.clock.run_for(16_000)
    expect(line(page)).to_contain_text("choose the word again")
    page.locator(".lv-words .lv-tok").nth(1).click()
    assert begun(page) == 2
    page.evaluate("made.late.show = true")
    page.clock.run_for(16_000)
    page.wait_for_function("made.waiting.show?.length")
    page.evaluate("made.answer('show', null)")
    expect(page.locator('.lv-page[data-state="idle"]')).to_be_attached()
    expect(line(page)).to_contain_text("No answer came")


def test_a_key_that_is_held_reads_the_word_at_which_it_stops(page: Page) -> None:
    read(page)
    page.clock.pause_at("2030-01-01")  # the machine may be slow, the keys are not
    page.focus(".lv-words")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert begun(page) == 1
    page.clock.run_for(200)
    assert [asked["token"] for asked in page.evaluate("made.begun")] == [1, 4]


def test_focus_stays_where_it_is_used_and_keys_do_what_they_do_where_there_is_no_way(page: Page) -> None:
    """A list that was used was gone with its focus, and then its arrow keys walked through layers."""
    read(page)
    page.focus('.lv-way-box[data-stage="state"]')
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.stage") == "norm"
    page.evaluate("addEventListener('keydown', (event) => (made.kept = event.defaultPrevented))")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("made.kept")
    page.keyboard.press("PageDown")  # a model without loops
    assert not page.evaluate("made.kept")
    page.evaluate("made.page.go({ stage: 'weights' })")
    page.focus(".lv-stage-pictures select")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.value") == "0"
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.value") == "1"
    assert page.get_attribute(".lv-page", "data-layer") == "0"
    assert "loop step" not in page.get_attribute(".lv-stage", "aria-label")  # the layer does not loop


def test_the_slider_of_a_turn_goes_as_far_as_scores_are_told(page: Page) -> None:
    """Of a key far away the server tells the scores around the run's own distance: they were drawn as if from 0 on."""
    read(page)
    page.evaluate("{ made.late.distance = true; made.page.go({ stage: 'rope' }); }")
    page.wait_for_function("made.waiting.distance?.length")
    scores = packed({"scores": np.array([0.5, 0.25, 0.125])})["scores"]
    page.evaluate("(scores) => made.answer('distance', { kind: 'distance', from: 1, scores })", scores)
    slider, said = page.locator(".lv-stage .lv-dial-slider"), page.locator(".lv-rope-curve + .lv-heat-key")
    expect(said).to_have_text("distance 2: score 0.25")  # the run's
    assert slider.evaluate("({ min, max, value }) => [min, max, value]") == ["1", "3", "2"]
    slider.press("ArrowRight")
    expect(said).to_have_text("distance 3: score 0.125")


def test_a_language_chosen_and_changed_back_at_once(page: Page) -> None:
    read(page)
    page.evaluate("made.late.show = true")
    for lang in ("zh", "en"):
        page.evaluate("(lang) => made.page.frame.speak(lang)", lang)
    run = {**RUN, "about": "English"}
    page.evaluate("(run) => { const [zh, en] = made.waiting.show; en(JSON.stringify(run)); }", run)
    expect(page.locator(".lv-anatomy-top .lv-question").first).to_have_text("English")
    page.evaluate("(run) => made.answer('show', run)", {**RUN, "about": "中文"})
    page.evaluate("new Promise((done) => queueMicrotask(() => queueMicrotask(done)))")
    expect(page.locator(".lv-anatomy-top .lv-question").first).to_have_text("English")
    page.evaluate("{ made.late.show = false; made.page.look.runs = [[0, -1, 0]]; made.page.go({ layer: 1 }); }")
    expect(line(page)).to_contain_text("Layer 1 did not run")
    page.evaluate("made.page.frame.speak('zh')")
    expect(line(page)).to_contain_text("第 1 层没有")  # also what is said of the place


def test_a_check_can_be_begun_again_whatever_became_of_the_reading(page: Page) -> None:
    """Both buttons stayed shut where a check ended while no word was read."""
    button = page.locator(".lv-parity button").first
    button.click()
    expect(button).to_be_disabled()
    say(page, kind="parity", article=False, rows=[], end="done")
    expect(button).to_be_enabled()
    run = page.evaluate("() => { const run = made.page.run; made.page.run = null; return run; }")
    button.click()  # before the run is known
    assert begun(page) == 2
    page.evaluate("(run) => (made.page.run = run)", run)


def test_a_check_that_is_not_heard_of_any_more_is_told(page: Page) -> None:
    """It was “Computing…” for ever, with both buttons shut."""
    read(page)
    button, told = page.locator(".lv-parity button").first, page.locator(".lv-parity .lv-status")
    button.click()
    page.clock.run_for(16_000)
    expect(told).to_contain_text("press the button again")
    expect(button).to_be_enabled()
    say(page, kind="parity", article=False, rows=[], end=None)  # it only took its time
    expect(told).not_to_contain_text("press the button again")
    expect(button).to_be_disabled()
    page.evaluate("made.late.show = true")
    page.clock.run_for(16_000)
    page.wait_for_function("made.waiting.show?.length")
    page.evaluate("made.answer('show', null)")
    expect(told).to_contain_text("No answer came")
    expect(button).to_be_enabled()


COLOURS = "a cell is a number: blue below 0, orange above"

HEADS = ["query heads", "key/value heads"]
LENGTHS = ["before |x| 5", "added |Δ| 2", "after |x+Δ| 6"]
MARKS = {
    "query": HEADS, "key": HEADS, "rope": ["the run's distance", "the distance of the slider"], "between": LENGTHS, "result": LENGTHS,
    "swish": ["β 0.1", "β 1", "β 10"],
}  # fmt: skip


@pytest.mark.parametrize("beside", [False, True])
def test_whatever_has_a_colour_says_what_it_means(page: Page, beside: bool) -> None:
    """Some stages' colours were never told; a bare “12 %” stood beside a box; two loop steps of swish had two scales."""
    read(page, steps=2)
    page.evaluate("(beside) => made.page.go({ beside })", 2 if beside else 0)
    page.wait_for_function("(beside) => Boolean(made.page.other) === beside", arg=beside)
    box = page.locator('.lv-way-box[data-stage="query"]')
    assert ("changes by 12 %" in box.get_attribute("aria-label")) == beside
    assert ("changes by 12 %" in box.locator("title").text_content()) == beside
    for stage in page.evaluate("made.page.frame.config.stages"):
        page.evaluate("(stage) => made.page.go({ stage })", stage["name"])
        page.wait_for_selector(f'.lv-page[data-stage="{stage["name"]}"]')
        pictures = page.locator(".lv-stage-pictures canvas").count()
        keys = page.locator(".lv-stage-pictures .lv-heat-key").filter(has_text=COLOURS).all_inner_texts()
        assert len(keys) == (1 if pictures else 0), stage
        if keys and beside and stage["within"]:
            assert "its own picture" not in keys[0], stage  # two pictures share it
        if stage["name"] == "swish":
            assert pictures == (8 if beside else 4)
            assert "strongest at ±" in keys[0]
        if stage["name"] == "weights":
            expect(page.locator(".lv-stage-pictures")).to_contain_text(
                "The tint is strongest at the largest share shown"
            )
        parts = page.locator(".lv-stage-pictures .lv-key-part:has(svg)")
        expect(parts).to_have_text(MARKS.get(stage["name"], []))
        if stage["name"] in ("head", "sampling"):
            samples = [stage["name"] == "sampling" and "chance, as the sliders are", "share of all words (softmax)"]
            expect(page.locator(".lv-draw-part")).to_have_text([words for words in samples if words])
            assert page.locator(".lv-draw-part .lv-draw-sample").count() == sum(map(bool, samples))
