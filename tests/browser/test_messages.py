"""What Python packs, the pages' own scripts unpack: edits of figures, messages, a whole run. The law of the border."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Error, Page

from loopviz.app.contract import MOST_SLUG
from loopviz.app.explore.run import Run, messages
from loopviz.app.explore.snapshot import token_row
from loopviz.app.sessions.file_desk import slug
from loopviz.app.sessions.messages import dumps, pack, wire
from loopviz.figures.edits import Op, append, apply, put, splice
from loopviz.figures.labels import fill
from loopviz.panels import METRICS, PANELS, Focus
from loopviz.paths import ASSETS
from loopviz.trace.pace import sharing_of, tokens_per_second
from tests.app.explore.test_run import Clock
from tests.app.explore.test_run import Page as Double
from tests.app.page_double import unpack
from tests.trace.synthetic import random_trace

WORDS = ["", "x", "data", "它", '"', "'", "\\", "a b", "</script>", "\u2028", "👩‍👧", "0"]


def plain(rng: random.Random, depth: int = 3) -> Any:
    """Some JSON."""
    kinds: list[Callable[[], Any]] = [
        lambda: rng.choice([None, True, False]),
        lambda: rng.randrange(-(2**40), 2**40),
        lambda: rng.uniform(-1, 1) * 10 ** rng.randrange(-30, 15),
        lambda: rng.choice(WORDS),
        lambda: [plain(rng, depth - 1) for _ in range(rng.randrange(4))],
        lambda: {rng.choice(WORDS): plain(rng, depth - 1) for _ in range(rng.randrange(4))},
    ]
    return rng.choice(kinds[: None if depth else 4])()


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every path in a value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, entry in inner for place in places(entry, (*path, key)))]


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def edit(rng: random.Random, figure: dict[str, Any]) -> Op:
    """An edit that fits the figure as it is."""
    path = rng.choice(places(figure))
    here, made = at(figure, path), [plain(rng) for _ in range(rng.randrange(3))]
    if isinstance(here, list) and rng.random() < 0.5:
        return append(path, made)
    if isinstance(here, list) and here:
        start = rng.randrange(len(here))
        return splice(path, start, made[: len(here) - start])
    if isinstance(here, dict) and rng.random() < 0.5:
        return put([*path, rng.choice(WORDS)], plain(rng))
    return put(path or ("layout",), plain(rng))


@pytest.mark.parametrize("seed", range(4))
def test_edits_packed_here_and_folded_there_give_what_they_give_here(scripts: Page, seed: int) -> None:
    """The fold law across the border. In several messages, as a page gets them; the path begins anew in each."""
    rng, sent, wanted = random.Random(seed), [], []
    for _ in range(80):
        figure = {"data": plain(rng) or [], "layout": {}, "more": [1, [2, {"a": []}]]}
        parts, begun = [], dumps(figure)
        for _ in range(rng.randrange(1, 4)):
            ops = []
            for _ in range(rng.randrange(6)):
                ops.append(edit(rng, figure))
                apply(figure, ops[-1:])
            parts.append(pack(ops))
            assert unpack(json.loads(dumps(parts[-1]))) == json.loads(dumps(ops)), "the double of the tests"
        sent.append(wire({"figure": json.loads(begun), "parts": parts}))
        wanted.append(json.loads(dumps(figure)))
    folded = scripts.evaluate(
        """async (sent) => {
          const { applyOps, unwire } = await import("/core/messages.js");
          return JSON.stringify(sent.map((text) => {
            const { figure, parts } = unwire(text);
            for (const ops of parts) applyOps(figure, ops);
            return figure;
          }));
        }""",
        sent,
    )
    assert json.loads(folded) == wanted
    assert len({json.dumps(figure) for figure in wanted}) > 40


@pytest.mark.parametrize(
    "op",
    [
        append(["layout"], [1]),
        append(["data", 5, "x"], [1]),
        put(["data", 3], 1),
        put(["nowhere", "x"], 1),
        splice(["data"], 2, [1, 2]),
        {"op": "cut", "path": ["data"], "value": 1},
    ],
)
def test_an_edit_that_does_not_fit_is_refused_on_both_sides(scripts: Page, op: Any) -> None:
    figure: dict[str, Any] = {"data": [1, 2, 3], "layout": {}}
    with pytest.raises(ValueError, match=r"not in this figure|must be"):
        apply(json.loads(dumps(figure)), [op])
    packed = [[9, 0, *op["path"], op["value"]]] if op["op"] == "cut" else pack([op])
    with pytest.raises(Error, match=r"not in this figure|unknown op|TypeError"):
        scripts.evaluate(
            """async ([figure, ops]) => (await import("/core/messages.js")).applyOps(figure, ops)""", [figure, packed]
        )


def test_a_run_s_messages_make_of_the_real_page_what_they_make_of_the_tests_double(scripts: Page) -> None:
    """tests/app/explore/test_run.py folds by its own `Page`, without a browser: here stands the one that counts."""
    for seed in range(6):
        rng = random.Random(seed)
        trace = random_trace(seed, rng.randrange(3, 12), blocks=rng.choice([[], [(2, 3)], [(0, 1), (3, 4)]]))
        run, double, sent = Run(trace.meta, PANELS), Double(), []

        def say(text: str, double: Double = double, sent: list[str] = sent) -> None:
            double.receive(text)
            sent.append(text)

        for text in messages(run, iter(trace.frames), clock=Clock(0.03)):
            say(text)
            if rng.random() < 0.3:
                say(wire(run.look(Focus(token=rng.choice([None, 1]), metric=rng.choice(METRICS)))))
        shown = json.loads(scripts.evaluate(REAL, [sent, list(PANELS)]))
        assert shown.pop("asked") == 0, "it missed something"
        assert shown == {
            name: getattr(double, name) for name in ("run", "epoch", "seq", "end", "tokens", "next", "figures", "hero")
        }
        double.same_as(run)


# The page's run without what draws it: its parts are told, and do nothing.
REAL = """async ([sent, names]) => {
  const { RunView } = await import("/explore/run_view.js");
  const { applyOps, unwire } = await import("/core/messages.js");
  const nothing = () => null;
  class Bare extends RunView {
    asked = 0;
    config = null;
    text = {};
    about = { replaceChildren: nothing };
    connection = { asking: false, offline: 0, hold: nothing, close: nothing };
    hero = { word: null, tell: nothing, take({ hero }) { this.word = hero; }, fold({ hero }) { applyOps(this.word, hero); } };
    linked = { close: nothing };
    player = { show: nothing };
    screen = { wake: nothing };
    share = { isFile: () => false, show: nothing, saw: nothing };
    shelf = { bring: () => false, on: () => names };
    starts = { past: new Set(), starting: false, halting: false };
    statusLine = { show: nothing, said: "", bad: false };
    tour = { moved: nothing, show: nothing };
    words = { add: (rows, next) => (this.next = next), cut: nothing, toBeginning: nothing, recolour: nothing, showLegend: nothing };
    panels = new Map(names.map((name) => [name, { on: true, needs: [], figure: null, summary: {}, take(figure) { this.figure = figure; }, lack: nothing, touch: nothing, keep: nothing, lacksFigure() { return !this.figure; } }]));
    ask() { this.asked += 1; return Promise.resolve(null); }
    look() {}
    say() {}
    mark() {}
    listen() {}
    showSelection() {}
  }
  const page = new Bare();
  for (const message of sent.map(unwire)) message.kind === "snapshot" ? page.snapshot(message) : page.frames(message);
  const { run, epoch, seq, end, tokens, next, asked } = page;
  const figures = Object.fromEntries([...page.panels].filter(([, panel]) => panel.figure).map(([name, panel]) => [name, panel.figure]));
  return JSON.stringify({ run, epoch, seq, end, tokens, next, asked, figures, hero: page.hero.word });
}"""


# --- what else is said on both sides --------------------------------------------------------------------------------------


def test_a_stranger_s_name_becomes_the_same_part_of_a_file_s_name(scripts: Page) -> None:
    names = [
        "a/b",
        "..",
        "-x-",
        "模型 7B",
        "x" * 59 + "..z",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "",
        "a" * 80,
        "e\u0301",
    ]
    asked = "async (names) => { const { slug } = await import('/explore/panel_image.js'); return names.map(slug); }"
    assert scripts.evaluate(asked, names) == [slug(name, MOST_SLUG) for name in names]


def test_a_text_s_places_are_filled_alike(scripts: Page) -> None:
    texts = [
        "{n} layer passes",
        "{n} tokens and {m} loop steps",
        "{n} generated tokens, {m} loops",
        "{n} times, {none}",
        "{n} 个",
    ]
    values = [{"n": n, "m": m, "none": "-"} for n in (0, 1, 2) for m in (1, 5)]
    asked = """async ([texts, values]) => {
      const { fill } = await import("/core/dom.js");
      return values.flatMap((one) => texts.map((text) => fill(text, one)));
    }"""
    assert scripts.evaluate(asked, [texts, values]) == [fill(text, **one) for one in values for text in texts]


def test_tokens_a_second_are_counted_alike(scripts: Page) -> None:
    asked = """async (runs) => {
      const { RunState } = await import("/explore/run_state.js");
      return runs.map((tokens) => Object.assign(new RunState(), { tokens }).rate());
    }"""
    traces = [random_trace(seed, 9) for seed in range(5)]
    rows = [[["", [], [], int(f["phase"] == "prompt"), None, f["wall_ms"]] for f in trace.frames] for trace in traces]
    wanted = [tokens_per_second(trace.frames) for trace in traces]
    assert any(wanted)
    assert scripts.evaluate(asked, rows) == pytest.approx(wanted)


def test_runs_a_pass_are_counted_alike(scripts: Page) -> None:
    asked = """async (runs) => {
      const { RunState } = await import("/explore/run_state.js");
      return runs.map((tokens) => Object.assign(new RunState(), { tokens }).runsPerPass());
    }"""
    traces = [random_trace(seed, 9) for seed in range(3)]
    traces[2].frames[-1]["pass_runs"] = None
    rows = [[token_row(frame) for frame in trace.frames] for trace in [*traces, random_trace(1, 2, prompt_tokens=2)]]
    wanted = [sharing_of(trace.frames).mean for trace in traces]
    assert all(runs > 1 for runs in wanted)
    assert scripts.evaluate(asked, rows) == [*map(pytest.approx, wanted), None]


def test_a_text_that_is_missing_is_an_error_in_tests_and_its_key_for_a_visitor(scripts: Page) -> None:
    """Every page of these tests has its words so: a key that nobody worded would stand there, and no test would say so."""
    asked = """async (strict) => {
      window.loopvizStrict = strict;
      const { textOr, worded } = await import("/core/dom.js");
      const texts = worded({ "live.run": "Run" });
      try {
        return [texts["live.run"], textOr(texts, "live.none", "none"), texts["live.none"] ?? "live.none"];
      } finally {
        window.loopvizStrict = true;
      }
    }"""
    assert scripts.evaluate("window.loopvizStrict"), "every context of the browser's has it"
    assert scripts.evaluate(asked, False) == ["Run", "none", "live.none"]
    with pytest.raises(Error, match=r"no text: live\.none"):
        scripts.evaluate(asked, True)


def test_what_gradio_builds_late_is_found_all_the_same(scripts: Page) -> None:
    """Its buttons come when they are loaded: lists did not say that they can be opened, where one came after our functions."""
    said = scripts.evaluate("""async () => {
      const { whenBuilt } = await import("/explore/gradio_parts.js");
      const said = [];
      whenBuilt("#late", (part) => said.push(part.id));
      const before = said.length;
      document.body.append(Object.assign(document.createElement("p"), { id: "late" }));
      await new Promise((done) => setTimeout(done));
      whenBuilt("#late", (part) => said.push(`${part.id} at once`));
      document.body.append(document.createElement("p"));
      await new Promise((done) => setTimeout(done));
      for (const one of document.querySelectorAll("body > p")) one.remove();
      return [before, ...said];
    }""")
    assert said == [0, "late", "late at once"]


def test_what_becomes_wider_than_its_place_can_be_scrolled_by_keys(scripts: Page) -> None:
    """Other words, or the font of a formula that came late, made it wider, and its own box was as before: no key reached the rest."""
    font = base64.b64encode((ASSETS / "fonts" / "math.woff2").read_bytes()).decode()
    said = scripts.evaluate(
        """async (font) => {
      const { scrollable } = await import("/core/dom.js");
      const style = Object.assign(document.createElement("style"), {
        textContent: `@font-face { font-family: late; src: url(data:font/woff2;base64,${font}); size-adjust: 400% }`,
      });
      const made = (family, text) => {
        const node = document.createElement("div");
        Object.assign(node.style, { font: `16px ${family}`, width: "100px", height: "90px", overflow: "auto", whiteSpace: "nowrap" });
        node.textContent = text;
        document.body.append(node);
        scrollable(node, "called");
        return node;
      };
      const becomes = async (node, tab) => {
        for (let i = 0; i < 300 && node.tabIndex !== tab; i++) await new Promise((done) => setTimeout(done, 20));
        return node.tabIndex;
      };
      document.head.append(style);
      const node = made("serif", "x");
      const said = [node.tabIndex];
      for (const [text, tab] of [["x".repeat(90), 0], ["y", -1]]) {
        node.textContent = text;
        said.push(await becomes(node, tab));
      }
      const late = made("late, serif", "x = y + z");
      said.push(await becomes(late, 0));
      for (const one of [node, late, style]) one.remove();
      return said;
    }""",
        font,
    )
    assert said == [-1, 0, -1, 0]
