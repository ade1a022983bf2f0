"""The arrow playground: its truth is the task's own, what it refuses it says why, and a prompt, a graph and a run are one thing."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from loopviz.app.contract import ARROW_TASK
from loopviz.app.texts import table
from loopviz.paths import ASSETS, WEB
from loopviz.train.arrows import draw_problems, vocabulary
from loopviz.train.recipe import Arrows
from tests.browser.conftest import bare

TASK = Arrows()
CHAIN = "j>i k>c f>j d>i e>c c>n p>o l>o b>f m>b h>b g>p h?"  # h → b → f → j → i
WORDS = {lang: {key: said for key, said in table(lang).items() if key.startswith("arrows.")} for lang in ("en", "zh")}
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
IDLE = "() => document.querySelector('.lv').dataset.end && !document.querySelector('.lv').page.looking"


def ask(scripts: Page, script: str, arg: Any = None) -> Any:
    """Evaluate with the module of problems as `m` and the task as `task`."""
    return scripts.evaluate(
        f"async ([arg, task]) => {{ const m = await import('/widgets/arrow_problem.js'); return {script}; }}",
        [arg, dict(ARROW_TASK)],
    )


# --- problems -------------------------------------------------------------------------------------------------------------


def test_the_task_is_the_one_that_the_model_was_trained_on() -> None:
    recipe = json.loads((ASSETS / "models" / str(ARROW_TASK["model"]) / "recipe.json").read_text(encoding="utf-8"))
    arrows = recipe["arrows"]
    assert [ARROW_TASK[key] for key in ("nodes", "arrows", "hops")] == [
        arrows[key] for key in ("nodes", "arrows", "max_hops")
    ]
    assert vars(TASK).items() >= arrows.items()


def test_where_arrows_end_is_what_the_training_says(scripts: Page) -> None:
    """On problems that the training's own generator draws, of every depth it can draw."""
    hops = np.arange(600) % TASK.arrows + 1
    ids, _ = draw_problems(TASK, hops, np.random.default_rng(7))
    words = vocabulary(TASK.nodes)
    prompts = [" ".join(words[i] for i in row[:-1]) for row in ids]
    found = ask(
        scripts,
        "arg.map((p) => { const { problem } = m.parse(p, task); return [m.write(problem), m.walk(problem.arrows, problem.start), m.outside(problem, task)]; })",
        prompts,
    )
    for prompt, (written, walk, outside), row, depth in zip(prompts, found, ids, hops, strict=True):
        assert written == prompt
        assert (walk["end"], len(walk["path"]) - 1, walk["back"]) == (words[row[-1]], depth, None)
        assert [word["key"] for word in outside] == (["outside.deep"] if depth > TASK.max_hops else [])


def test_arrows_that_go_round_end_nowhere(scripts: Page) -> None:
    """On random graphs of an arrow a letter at most, followed here by hand."""
    rng, letters, cases = random.Random(3), vocabulary(TASK.nodes)[2 : 2 + TASK.nodes], []
    for _ in range(400):
        sources = rng.sample(letters, rng.randrange(1, TASK.nodes + 1))
        arrows = [[a, rng.choice([b for b in letters if b != a])] for a in sources]
        cases.append([arrows, rng.choice(letters)])
    rounds = 0
    for (arrows, start), walk in zip(
        cases, ask(scripts, "arg.map(([arrows, start]) => m.walk(arrows, start))", cases), strict=True
    ):
        leads, at, hops = dict(arrows), start, 0
        while at in leads and hops <= TASK.nodes:
            at, hops = leads[at], hops + 1
        if hops > TASK.nodes:
            rounds += 1
            assert walk["end"] is None
            assert leads[walk["path"][-1]] == walk["back"] in walk["path"]
        else:
            assert (walk["end"], len(walk["path"]) - 1) == (at, hops)
    assert 50 < rounds < 350


@pytest.mark.parametrize(
    ("prompt", "wrong"),
    [
        ("a>b a>c a?", "twice"),
        ("a>b a>b a?", "twice"),
        ("a>a a?", "self"),
        ("a>b a? b?", "questions"),
        ("a>b a? c>d", "after"),
        ("a>b b", "word"),
        ("Once upon a time", "word"),
        ("a>b b>q a?", "word"),
        ("A>b", "word"),
        ("a>b>c a?", "word"),
        ("a->b", "word"),
        ("a>b a??", "word"),
        ("1>2 1?", "word"),
    ],
)
def test_a_prompt_that_is_no_graph_is_refused_by_its_reason(scripts: Page, prompt: str, wrong: str) -> None:
    found = ask(scripts, "m.parse(arg, task)", prompt)
    assert found["wrong"]["key"] == f"wrong.{wrong}"
    for lang in WORDS:
        assert set(re.findall(r"\{(\w+)\}", WORDS[lang][f"arrows.wrong.{wrong}"])) <= set(found["wrong"]["values"])


@pytest.mark.parametrize("prompt", ["", "a>b", "a?", "  a>b\n b>c\t a?  ", CHAIN])
def test_a_prompt_that_is_being_written_is_a_graph_already(scripts: Page, prompt: str) -> None:
    assert ask(scripts, "m.write(m.parse(arg, task).problem)", prompt) == " ".join(prompt.split())


def test_what_training_never_had_is_named(scripts: Page) -> None:
    chain = " ".join(f"{a}>{b}" for a, b in zip("abcdefghi", "bcdefghij", strict=True))
    cases = {
        "a>b b>c c>a d>e f>g h>i j>k l>m n>o o>p g>h i>d a?": ["cycle"],
        "a>b b>c k>l l>k d>e f>g h>i n>o o>p g>h i>d j>d a?": ["round"],
        f"{chain} k>a l>a m>a a?": ["deep"],
        f"{chain} k>a l>a m>a j?": ["none"],
        "a>b a?": ["few"],
        f"{chain} k>a l>a m>a n>a b?": ["many"],
        "a>b b>a a?": ["cycle", "few"],
        "a>b b>c": ["few"],
    }
    for prompt, keys in cases.items():
        found = ask(scripts, "m.outside(m.parse(arg, task).problem, task)", prompt)
        assert [word["key"].removeprefix("outside.") for word in found] == keys, prompt


def test_puzzles_are_of_the_kind_that_was_trained(scripts: Page) -> None:
    depths = set()
    for arrows, start in ask(
        scripts, "Array.from({ length: 400 }, () => { const p = m.puzzle(task); return [p.arrows, p.start]; })"
    ):
        leads, at, hops = dict(arrows), start, 0
        assert len(leads) == len(arrows) == TASK.arrows
        for node in leads:
            seen = [node]
            while seen[-1] in leads:
                seen.append(leads[seen[-1]])
                assert len(seen) <= TASK.nodes, "a circle"
        while at in leads:
            at, hops = leads[at], hops + 1
        depths.add(hops)
    assert depths == set(range(1, TASK.max_hops + 1))


def test_filling_up_keeps_what_was_drawn(scripts: Page) -> None:
    for prompt in ("a>b b>c a?", "a>b b>a a?", "a?", "a>b", "c>d e>f g>h g?"):
        before, after = ask(scripts, "[m.parse(arg, task).problem, m.filled(m.parse(arg, task).problem, task)]", prompt)
        assert len(after["arrows"]) == TASK.arrows, prompt
        assert len({source for source, _ in after["arrows"]}) == TASK.arrows
        assert all(arrow in after["arrows"] for arrow in before["arrows"])
        assert after["start"] == before["start"]
        if before["start"]:
            walk = "((p) => m.walk(p.arrows, p.start))(arg)"
            assert ask(scripts, walk, before) == ask(scripts, walk, after), "the way is the same one"


def test_a_guess_is_a_hop_a_stay_or_a_jump(scripts: Page) -> None:
    said = ["b", " f", "j", "j", "a", "<end>", "b", "b>f", "f"]
    found = ask(scripts, f"m.moves(m.parse('{CHAIN}', task).problem.arrows, 'h', arg, task)", said)
    assert [move["kind"] for move in found] == ["hop", "hop", "hop", "stay", "jump", "none", "jump", "none", "hop"]
    assert [move["from"] for move in found] == ["h", "b", "f", "j", "j", "a", "a", "b", "b"]


@pytest.mark.parametrize("lang", WORDS)
def test_the_widget_asks_only_for_words_that_there_are(lang: str) -> None:
    script = "".join(
        (WEB / "widgets" / f"arrow_{part}.js").read_text(encoding="utf-8") for part in ("graph", "picture", "problem")
    )
    asked = set(re.findall(r'"(arrows\.[\w.]+)"', script))
    made = set(re.findall(r"`(arrows\.(?:\w+\.)?)\$\{", script))
    told = set(re.findall(r'(?:tell|key:)\s*\(?"(\w+)"', script))
    refused = {f"wrong.{key}" for key in re.findall(r'none\((?:asked \? )?"(\w+)"', script)}
    outside = {f"outside.{key}" for key in re.findall(r'add\((?:[^"()]*\? )?"(\w+)"', script)}
    assert len(asked) > 15
    assert {"refused", "added"} <= told
    assert len(refused) >= 4
    assert len(outside) >= 5
    assert made == {"arrows.", "arrows.move."}
    words = asked | {f"arrows.{key}" for key in told | refused | outside}
    assert words <= set(WORDS[lang])


# --- the graph by itself ------------------------------------------------------------------------------------------------------


class Graph:
    """A playground on a page without an app, and what it told."""

    def __init__(self, page: Page, lang: str, prompt: str) -> None:
        self.page = page
        page.set_content(
            "<!doctype html><title>graph</title><body class='gradio-container'><div class='lv' id='here' style='max-width: 900px'></div>"
        )
        for sheet in ("base", "explore", "arrows"):
            page.add_style_tag(path=WEB / "styles" / f"{sheet}.css")
        page.evaluate(
            """async ([texts, task, prompt]) => {
              const { ArrowGraph } = await import('/widgets/arrow_graph.js');
              const told = (window.told = { prompts: [], steps: [], loops: [] });
              window.graph = new ArrowGraph({ task, onChange: (p) => told.prompts.push(p), onSelect: (s) => told.steps.push(s), onBound: (n) => told.loops.push(n) });
              document.getElementById('here').append(window.graph.node);
              window.graph.label(texts);
              window.graph.set(prompt);
            }""",
            [WORDS[lang], dict(ARROW_TASK), prompt],
        )

    @property
    def prompt(self) -> str:
        """What is drawn."""
        return self.page.evaluate(
            "[...window.graph.problem.arrows.map((a) => a.join('>')), ...(window.graph.problem.start ? [window.graph.problem.start + '?'] : [])].join(' ')"
        )

    @property
    def told(self) -> dict[str, list[Any]]:
        return self.page.evaluate("window.told")

    def show(
        self, guesses: list[tuple[str, float]], prompt: str = CHAIN, said: tuple[str, float] | None = None
    ) -> None:
        """Another run: the guesses of its state, and what it said (the last of them, if nothing else)."""
        self.page.evaluate(
            """([prompt, rows]) => {
              const [said, ...guesses] = rows;
              window.graph.show({ id: String(Math.random()), prompt, guesses, said });
            }""",
            [prompt, [said or guesses[-1], *guesses]],
        )

    def __getattr__(self, name: str) -> Locator:
        return self.page.locator(f".lv-arrows-{name}")


def node(page: Page, letter: str) -> Locator:
    return page.locator(f".lv-arrows-node[data-node={letter}]")


def middle(page: Page, letter: str) -> tuple[float, float]:
    box = node(page, letter).locator("circle").bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def drag(page: Page, start: str, end: str) -> None:
    page.mouse.move(*middle(page, start))
    page.mouse.down()
    page.mouse.move(*middle(page, end), steps=4)
    page.mouse.up()


@pytest.fixture
def graph(scripts: Page) -> Iterator[Callable[..., Graph]]:
    """`graph(prompt=CHAIN, lang="en")` on the page of our scripts."""
    scripts.set_viewport_size({"width": 1000, "height": 800})
    scripts.emulate_media(reduced_motion="no-preference")
    yield lambda prompt=CHAIN, lang="en": Graph(scripts, lang, prompt)
    scripts.emulate_media(reduced_motion="no-preference")


def test_a_drag_draws_an_arrow_and_a_second_one_takes_it_away(graph: Callable[..., Graph]) -> None:
    made = graph("a>b a?")
    drag(made.page, "b", "c")
    assert made.told["prompts"] == ["a>b b>c a?"]
    expect(made.said).to_have_text("Arrow from b to c drawn.")
    expect(made.page.locator("[data-arrow='b>c'] > path").first).to_be_attached()
    drag(made.page, "b", "c")
    assert made.told["prompts"][1:] == ["a>b a?"]
    # to nowhere: nothing
    page = made.page
    page.mouse.move(*middle(page, "c"))
    page.mouse.down()
    page.mouse.move(5, 5)
    page.mouse.up()
    assert len(made.told["prompts"]) == 2


def test_two_arrows_from_one_node_are_refused_with_the_reason(graph: Callable[..., Graph]) -> None:
    made = graph("a>b a?")
    drag(made.page, "a", "c")
    expect(made.said).to_contain_text("a leads to b already")
    expect(made.said).to_contain_text("at most one arrow leads away from a letter")
    assert made.told["prompts"] == []
    assert made.prompt == "a>b a?"


def test_a_press_asks_about_a_node_and_a_press_on_an_arrow_removes_it(graph: Callable[..., Graph]) -> None:
    made = graph("a>e")
    expect(made.asked).to_have_text(WORDS["en"]["arrows.unasked"])
    node(made.page, "a").click()
    assert made.prompt == "a>e a?"
    expect(made.asked).to_have_text("Where do the arrows from a end?")
    middle_of = """(path) => { const { x, y } = path.getPointAtLength(path.getTotalLength() / 2).matrixTransform(path.getScreenCTM()); return [x, y]; }"""
    made.page.mouse.click(*made.page.locator("[data-arrow='a>e'] .lv-arrows-hit").evaluate(middle_of))
    assert made.prompt == "a?"
    node(made.page, "a").click()
    assert made.told["prompts"] == ["a>e a?", "a?", ""]


def test_by_keyboard_alone(graph: Callable[..., Graph]) -> None:
    made = graph("")
    page = made.page
    page.keyboard.press("Tab")
    expect(node(page, "a")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Space")
    expect(made.said).to_contain_text("An arrow from a")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(node(page, "c")).to_be_focused()
    page.keyboard.press("Enter")
    assert made.prompt == "a>c a?"
    page.keyboard.press("ArrowLeft")
    expect(node(page, "b")).to_be_focused()
    page.keyboard.press("k")  # its own key
    expect(node(page, "k")).to_be_focused()
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    expect(made.said).to_contain_text("cannot lead from k to k")
    page.keyboard.press("Escape")
    expect(made.said).to_have_text("No arrow drawn.")
    page.keyboard.press("a")
    page.keyboard.press("Delete")
    assert made.prompt == "a?"
    expect(node(page, "a")).to_have_attribute("aria-label", "a, leads nowhere, asked about")
    # what is drawn is a list too, and it keeps whoever takes from it
    page.evaluate("window.graph.set('a>b c>d a?')")
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.dataset.arrow") == "a>b":
            break
    page.keyboard.press("Enter")
    assert made.prompt == "c>d a?"
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Remove the arrow from c to d"


def test_by_finger(browser: Browser) -> None:
    """A touch that begins on a node draws; the page does not scroll away under it."""
    page = bare(browser, **PHONE)
    context = page.context
    made = Graph(page, "zh", "a>b a?")
    touch = context.new_cdp_session(page)
    (ax, ay), (bx, by) = middle(page, "e"), middle(page, "h")
    for kind, points in (
        ("touchStart", [{"x": ax, "y": ay}]),
        ("touchMove", [{"x": (ax + bx) / 2, "y": (ay + by) / 2}]),
        ("touchMove", [{"x": bx, "y": by}]),
        ("touchEnd", []),
    ):
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    page.wait_for_function("() => window.told.prompts.length")
    assert made.told["prompts"] == ["a>b e>h a?"]
    node(page, "e").tap()
    page.wait_for_function("() => window.told.prompts.length === 2")
    assert made.prompt == "a>b e>h e?"
    assert page.evaluate("scrollY") == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    context.close()


def test_a_prompt_that_is_no_graph_leaves_the_picture(graph: Callable[..., Graph]) -> None:
    made = graph()
    assert made.page.evaluate("window.graph.set('Once upon a time')") is False
    expect(made.said).to_contain_text("The prompt is no graph, so the picture stays as it was")
    expect(made.said).to_contain_text("“Once”")
    assert made.prompt == CHAIN
    assert made.page.evaluate("window.graph.set('a>b a?')") is True
    expect(made.said).to_be_empty()
    assert made.prompt == "a>b a?"


def test_a_run_hops_an_arrow_a_loop_and_ends_with_a_tick(graph: Callable[..., Graph]) -> None:
    made = graph()
    made.page.emulate_media(reduced_motion="reduce")  # at once
    made.show([("b", 0.93), ("f", 0.9), ("j", 0.99), ("i", 1.0), ("i", 1.0)])
    expect(made.page.locator(".lv-arrows-hop[data-loop]:not(button)")).to_have_count(4)
    expect(made.verdict).to_contain_text("✓")
    expect(made.verdict).to_contain_text(
        "Right: after 5 loops the model says i (100 %), and that is where the arrows end: h → b → f → j → i."
    )
    expect(node(made.page, "i")).to_have_class(re.compile("lv-end"))
    chips = made.hops.locator("button")
    assert [chip.strip() for chip in chips.all_inner_texts()] == [
        "↻1 b 93 %",
        "↻2 f 90 %",
        "↻3 j 99 %",
        "↻4 i 100 %",
        "↻5 i 100 %",
    ]
    # a loop chosen here is told, one chosen elsewhere moves the token
    chips.nth(1).click()
    assert made.told["steps"] == [2]
    assert made.page.evaluate("window.graph.step") == 2
    expect(chips.nth(1)).to_have_attribute("aria-pressed", "true")
    expect(made.page.locator(".lv-arrows-move")).to_have_count(2)
    made.page.evaluate("window.graph.select(4)")
    expect(chips.nth(3)).to_have_attribute("aria-pressed", "true")
    at = [made.token.get_attribute(key) for key in ("cx", "cy")]
    assert at == [node(made.page, "i").locator("circle").get_attribute(key) for key in ("cx", "cy")]


def test_a_wrong_end_has_a_cross_and_a_guess_off_the_arrows_is_dashed(graph: Callable[..., Graph]) -> None:
    made = graph()
    made.page.emulate_media(reduced_motion="reduce")
    made.show([("b", 0.9), ("f", 0.9), ("j", 0.6)])
    expect(made.verdict).to_contain_text("✗")
    expect(made.verdict).to_contain_text("the arrows end at i")
    expect(made.verdict).to_contain_text("j is on the way, 3 of 4 arrows on: an arrow takes a loop.")
    # the layers after the loop may go on from there by themselves: what counts is what the model says
    made.show([("b", 0.9), ("f", 0.9), ("j", 0.6)], said=("i", 0.66))
    expect(made.verdict).to_contain_text("✓")
    expect(made.verdict).to_contain_text("the model says i (66 %)")
    expect(made.verdict).to_contain_text("The loop itself had come to j, 3 of 4 arrows on")
    made.show([("n", 0.4), ("<end>", 0.3), ("c", 0.3)])
    jump = made.page.locator(".lv-arrows-move.lv-arrows-jump > path").first
    assert jump.evaluate("(path) => getComputedStyle(path).strokeDasharray") != "none"
    expect(made.hops.locator("button").nth(0)).to_have_attribute(
        "aria-label", "Loop 1: n (40 %), to which no arrow leads from h"
    )
    expect(made.hops.locator("button").nth(1)).to_have_attribute(
        "aria-label", "Loop 2: “<end>” (30 %), which is no letter"
    )
    expect(made.verdict).not_to_contain_text("on the way")


def test_a_cycle_is_allowed_and_has_no_right_answer(graph: Callable[..., Graph]) -> None:
    made = graph("a>b b>c a?")
    drag(made.page, "c", "b")
    round_ = "a>b b>c c>b a?"
    assert made.prompt == round_
    expect(made.outside).to_contain_text("The model was never trained on this:")
    expect(made.outside).to_contain_text(
        "From a the arrows go round, coming back to b, and never end. Watch what the model does."
    )
    made.page.emulate_media(reduced_motion="reduce")
    made.show([("b", 0.9), ("c", 0.9), ("b", 0.9), ("c", 0.8)], round_)
    expect(made.verdict).to_contain_text("Neither right nor wrong")
    expect(made.verdict).to_contain_text("an arrow a loop would have led to c")
    assert made.page.locator(".lv-arrows-verdict").evaluate("(node) => !/[✓✗]/.test(node.textContent)")


def test_the_token_is_seen_on_its_way_unless_motion_is_unwanted(browser: Browser) -> None:
    """Loop by loop, by a clock that the test turns."""
    page = bare(browser, viewport={"width": 1000, "height": 800})
    page.clock.install(time=datetime(2026, 1, 1))
    page.clock.pause_at(datetime(2026, 1, 2))
    made = Graph(page, "en", CHAIN)
    token = "[Number(graph.picture.token.getAttribute('cx')), Number(graph.picture.token.getAttribute('cy'))]"
    stands = "(node) => graph.picture.circle.place(node)"
    made.show([("b", 0.9), ("f", 0.9), ("j", 0.6)])
    expect(made.verdict).to_be_empty()
    assert page.evaluate("window.graph.step") == 0
    assert page.evaluate(token) == page.evaluate(stands, "h")
    page.clock.run_for(900)
    for step, (before, after) in enumerate((("h", "b"), ("b", "f"), ("f", "j")), start=1):
        assert page.evaluate("window.graph.step") == step
        assert page.evaluate(token) == pytest.approx(page.evaluate(stands, before)), "it has only begun"
        page.clock.run_for(225)
        assert page.evaluate(token) != pytest.approx(page.evaluate(stands, before), abs=10)
        assert page.evaluate(token) != pytest.approx(page.evaluate(stands, after), abs=10)
        page.clock.run_for(450)
        assert page.evaluate(token) == pytest.approx(page.evaluate(stands, after), abs=0.01)
        page.clock.run_for(225)
    expect(made.verdict).to_contain_text("✗")
    # the truth was not told before
    made.show([("b", 0.9), ("f", 0.9)])
    expect(made.page.locator(".lv-end")).to_have_count(0)
    page.clock.run_for(1_800)
    expect(made.page.locator(".lv-end")).to_have_count(1)
    page.emulate_media(reduced_motion="reduce")
    made.show([("b", 0.9), ("f", 0.9), ("j", 0.6)])
    assert page.evaluate("window.graph.step") == 3, "at once"
    page.context.close()


def test_a_graph_that_was_changed_keeps_no_verdict_of_another(graph: Callable[..., Graph]) -> None:
    made = graph()
    made.page.emulate_media(reduced_motion="reduce")
    made.show([("b", 0.9), ("f", 0.9), ("j", 0.9), ("i", 0.9)])
    expect(made.verdict).to_contain_text("✓")
    drag(made.page, "i", "a")
    expect(made.verdict).to_have_text(WORDS["en"]["arrows.stale"])
    expect(made.hops).to_be_hidden()
    expect(made.page.locator(".lv-end")).to_have_count(0)
    drag(made.page, "i", "a")
    expect(made.verdict).to_contain_text("✓")


def test_loops_allowed_are_told_once_the_slider_is_let_go(graph: Callable[..., Graph]) -> None:
    made = graph()
    expect(made.bound).to_be_hidden()
    made.page.evaluate("window.graph.bound({ low: 1, high: 24, value: 24 })")
    expect(made.bound).to_contain_text("At most 24 loops")
    made.bound.locator("input").fill("3")
    expect(made.bound).to_contain_text("At most 3 loops")
    assert made.told["loops"] == [3]
    made.page.evaluate("window.graph.bound({ low: 1, high: 24, value: 7 })")
    expect(made.bound).to_contain_text("At most 7 loops")
