"""Journeys through the Explore page in a real Chromium. They wait on the page's data attributes, never on the clock."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from loopviz.app.explore import first_run
from loopviz.app.explore.event_stream import PREFIX
from loopviz.panels import GROUPS, PANELS
from tests.browser.conftest import narrow

USUAL = [*first_run.usual_panels()]  # those that are on until a visitor says otherwise
SHOWN = [*first_run.opening_panels()]  # and of these the open group's


Visit = Callable[..., Page]


def data(page: Page, name: str) -> str:
    return page.evaluate(f"document.querySelector('.lv').dataset.{name} ?? ''")


def settle(page: Page, group: str, control: str, value: float) -> None:
    """Type a number into a control, opening its group (on a phone the sheet, too), and wait until the page has taken it."""
    box, sheet = page.locator(f"#ctl-{control} input[type=number]"), narrow(page)
    if sheet:
        page.click(".lv-sheet-open")
    if not box.is_visible():
        page.click(f"#lv-group-{group} .label-wrap")
    box.fill(str(value))
    box.press("Tab")
    if sheet:
        page.click(".lv-sheet-close")


def run(page: Page, prompt: str | None = None) -> str:
    """Press Run; return the run's id once its first tokens are there."""
    before = data(page, "run")
    if prompt is not None:
        page.fill("#ctl-prompt textarea", prompt)
    page.click("#lv-run")
    page.wait_for_function("before => !['', before].includes(document.querySelector('.lv').dataset.run)", arg=before)
    return data(page, "run")


def way(page: Page, preset: str) -> None:
    """Choose a way to loop from its list; a run starts."""
    page.click("#lv-ways .lv-drop-open")
    page.click(f"#lv-preset-{preset}")


def example(page: Page, i: int) -> None:
    """Choose a prompt to try from its list; a run starts."""
    page.click("#lv-try .lv-drop-open")
    page.locator(".lv-example").nth(i).click()


def looked(page: Page) -> None:
    """Wait until the page looks at the word that a run which has ended is looked at from, and nothing is asked any more."""
    page.wait_for_function(
        "() => { const { page } = document.querySelector('.lv'); return page.end && page.focus.token !== null && !page.looking; }"
    )


def ended(page: Page, how: str = "length") -> None:
    page.wait_for_selector(f'.lv[data-end="{how}"]')


def reached(page: Page, tokens: int) -> None:
    page.wait_for_function("n => +document.querySelector('.lv').dataset.t >= n", arg=tokens)


def drawn(page: Page) -> None:
    """Wait until every panel shows everything."""
    page.wait_for_function(
        "() => { const d = document.querySelector('.lv').dataset; return d.end !== '' && d.drawn === d.t; }"
    )


def show(page: Page, *panels: str) -> None:
    """Open the group of these panels and switch them on; both are remembered in the browser: for a visit of its own."""
    for name in panels:
        page.click(f"#lv-tab-{PANELS[name].GROUP}")
        switch = page.locator(f".lv-switch[data-name={name}]")
        if switch.get_attribute("aria-pressed") != "true":
            switch.click()
    page.wait_for_function("() => !document.querySelector('.lv').page.looking")


def inside(page: Page, script: str, arg: Any = None) -> Any:
    """Evaluate with `page` as the page's own object."""
    return page.evaluate(f"(arg) => {{ const page = document.querySelector('.lv').page; return {script}; }}", arg)


def differences(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """Where two pieces of JSON differ."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        for key in one:
            yield from differences(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            yield from differences(a, b, f"{path}[{i}]")
    elif one != other:
        yield f"{path}: {one!r:.200} != {other!r:.200}"


def same_as_server(page: Page) -> None:
    """What the page holds is what the server would send it anew."""
    server, own = page.evaluate(
        """async () => {
          const page = document.querySelector('.lv').page;
          const whole = JSON.parse(await page.server.resync(JSON.stringify({ run: page.run, epoch: -1, seq: -1 })));
          const on = [...page.panels].filter(([, panel]) => panel.figure);
          const figures = Object.fromEntries(on.map(([name, panel]) => [name, panel.figure]));
          return [[whole.tokens, whole.figures, whole], [page.tokens, figures]];
        }"""
    )
    assert server[2]["kind"] == "snapshot", f"{server[2]!r:.500}"
    assert own[0] == server[0]
    assert own[1].keys() == server[1].keys()
    for name in own[1]:
        assert list(differences(own[1][name], server[1][name], name))[:5] == []


def test_opens_alone_explains_itself_and_says_why_a_control_does_nothing(visit: Visit) -> None:
    page = visit()
    expect(page.locator(".lv-panel")).to_have_count(len(PANELS))
    for name in USUAL:
        panel = PANELS[name]
        show(page, name)
        section = page.locator(f'.lv-panel[data-panel="{name}"]')
        expect(section.locator("h2")).to_have_text(panel.TEXTS["en"]["title"])
        section.locator("summary").click()
        expect(section.locator(".lv-formula math").first).to_be_visible()
        expect(section.locator(".lv-how")).to_contain_text(panel.TEXTS["en"]["how"][:40])
    assert page.evaluate("document.title") == "LoopViz"
    # controls that do nothing are off and say why
    expect(page.locator("#ctl-min_loop_count input[type=number]")).to_be_disabled()
    expect(page.locator("#ctl-min_loop_count .info-text")).to_contain_text("only used when looping until it settles")
    page.click("#ctl-loop_strategy input[value=dynamic_stop]")
    expect(page.locator("#ctl-min_loop_count input[type=number]")).to_be_enabled()
    expect(page.locator("#ctl-loop_count input[type=number]")).to_be_disabled()
    expect(page.locator("#ctl-cosine_threshold .info-text")).to_contain_text("cos ≥ 0.95")
    settle(page, "loop", "min_loop_count", 3)
    page.click("#lv-group-kv .label-wrap")
    expect(page.locator("#ctl-virtual_layer_count input[type=number]")).to_have_value("3")
    expect(page.locator("#ctl-virtual_layer_count .info-text")).to_contain_text("At most 3 here")
    settle(page, "loop", "max_loop_count", 2)
    expect(page.locator("#ctl-max_loop_count .info-text")).to_contain_text("must be >= min_loop_count=3")


def test_a_prompt_becomes_text_and_pictures(visit: Visit) -> None:
    page = visit()
    page.evaluate("document.querySelectorAll('.lv-plot').forEach((node, i) => { node.mark = i; })")
    run(page, "Once upon a time")
    ended(page)
    drawn(page)
    total = int(data(page, "t"))
    rows = inside(page, "page.tokens")
    assert total == len(rows) == page.locator(".lv-tok[data-i]").count()
    assert "".join(row[0] for row in rows if row[3]) == "Once upon a time"
    assert total == sum(row[3] for row in rows) + 64 - 1
    assert {row[1][0] for row in rows} == {4}
    expect(page.locator(".lv-text .lv-unread")).to_have_count(1)
    # Plotly would offer to upload the chart to its makers' cloud
    offered = page.evaluate("[...document.querySelectorAll('.modebar-btn')].map((button) => button.dataset.title)")
    assert offered
    assert not [title for title in offered if "share" in title.lower() or "cloud" in title.lower()]
    assert page.evaluate(
        "[...document.querySelectorAll('.lv-plot.js-plotly-plot')].map((node) => node._context.plotlyServerURL)"
    ) == [""] * len(SHOWN)
    # something is drawn in every panel of every group, by the nodes that were there before
    for group in GROUPS:
        page.click(f"#lv-tab-{group}")
        page.wait_for_function("() => !document.querySelector('.lv').page.looking")
        drawn(page)
        for name in [name for name in USUAL if group == PANELS[name].GROUP]:
            plot = page.locator(f'.lv-panel[data-panel="{name}"] .lv-plot')
            assert plot.locator(".main-svg").count() >= 1
            assert (
                plot.locator(".scatterlayer path, .scatterlayer text, .heatmaplayer image, .barlayer path").count() >= 1
            ), name
            assert page.locator(f'.lv-panel[data-panel="{name}"] .lv-sr').inner_text()
        same_as_server(page)
    assert page.evaluate("[...document.querySelectorAll('.lv-plot')].map((node) => node.mark)") == [*range(len(PANELS))]


def at(page: Page, tokens: int) -> None:
    """Show a finished run as it was after so many tokens, forward by the edits that streaming sends, and draw it."""
    page.evaluate("(tokens) => document.querySelector('.lv').page.moveTo(tokens)", tokens)
    page.wait_for_function(
        """(tokens) => { const page = document.querySelector('.lv').page;
          return page.seq === tokens && [...page.panels.values()].every((p) => !p.figure || !p.onScreen || p.drawn === p.seq); }""",
        arg=tokens,
    )


def middle(page: Page, panel: str, x: float, y: float) -> tuple[float, float]:
    """The point at these shares of a panel's first plot area."""
    area = page.locator(f'[data-panel="{panel}"] .nsewdrag').first.bounding_box()
    assert area is not None
    return area["x"] + area["width"] * x, area["y"] + area["height"] * y


def test_what_the_reader_does_survives_streaming_and_a_click_selects_everywhere(visit: Visit) -> None:
    """Zoom, a trace hidden in the legend, the hover label; and no plot node is replaced. Then what is pressed in another run."""
    page = visit(height=2200)
    show(page, "token_loop_map")
    settle(page, "sampling", "max_new_tokens", 40)
    run(page)
    ended(page)
    total = int(data(page, "t"))
    at(page, total // 3)
    plot = page.locator('.lv-panel[data-panel="convergence"] .lv-plot')
    page.evaluate("document.querySelectorAll('.lv-plot, .lv-plot .main-svg').forEach((node) => { node.mark = 1; })")
    page.mouse.move(*middle(page, "convergence", 0.3, 0.5))
    page.mouse.down()
    page.mouse.move(*middle(page, "convergence", 0.8, 0.5), steps=4)
    page.mouse.up()
    page.wait_for_function("() => !document.querySelector('.lv').page.panels.get('convergence').dragging")
    zoomed = plot.evaluate("node => node._fullLayout.xaxis.range")
    assert zoomed[1] - zoomed[0] < 3
    plot.locator(".legendtoggle").first.click()
    page.wait_for_function(
        "() => document.querySelector('[data-panel=convergence] .lv-plot')._fullData.some((t) => t.visible === 'legendonly')"
    )
    pointer, height = middle(page, "token_loop_map", 0.32, 0.4)
    page.mouse.move(pointer - 4, height)
    page.mouse.move(pointer, height)
    hover = page.locator('[data-panel="token_loop_map"] .hoverlayer .hovertext')
    expect(hover).to_have_count(1)
    for tokens in (total // 2, total):
        at(page, tokens)
        assert plot.evaluate("node => node._fullLayout.xaxis.range") == zoomed
        assert plot.evaluate("node => node._fullData.some((t) => t.visible === 'legendonly')")
        # the label is of what lies under the pointer now: columns grow narrower as tokens come
        under = page.evaluate(
            """(x) => { const plot = document.querySelector('[data-panel=token_loop_map] .lv-plot');
              const axis = plot._fullLayout.xaxis;
              return Math.round(axis.p2c(x - plot.getBoundingClientRect().left - axis._offset)); }""",
            pointer,
        )
        expect(hover).to_contain_text(f"token {under} ")
        marks = page.evaluate("[...document.querySelectorAll('.lv-plot, .lv-plot .main-svg')].map((node) => node.mark)")
        assert set(marks) == {1}
    drawn(page)
    same_as_server(page)
    # a click selects everywhere
    settle(page, "sampling", "max_new_tokens", 12)
    run(page, "Once upon a time")
    ended(page)
    looked(page)
    drawn(page)
    first = inside(page, "page.epoch")
    titles = "[...page.panels.values()].map((panel) => panel.figure?.layout.title?.text ?? '')"
    page.click('.lv-tok[data-i="3"]')
    page.wait_for_function("before => document.querySelector('.lv').page.epoch === before + 1", arg=first)
    assert data(page, "focus") == "3"
    expect(page.locator(".lv-selected")).to_have_attribute("data-i", "3")
    assert sum("token 3 " in title for title in inside(page, titles)) >= 2
    expect(page.locator(".lv-chosen")).to_contain_text("Token 3")
    same_as_server(page)
    # a column of the map
    page.mouse.click(*middle(page, "token_loop_map", 0.5, 0.6))
    page.wait_for_function("() => !['', '3'].includes(document.querySelector('.lv').dataset.focus)")
    page.wait_for_function("before => document.querySelector('.lv').page.epoch === before + 2", arg=first)
    chosen = data(page, "focus")
    expect(page.locator(".lv-selected")).to_have_attribute("data-i", chosen)
    assert sum(f"token {chosen} " in title for title in inside(page, titles)) >= 2
    # by keyboard, and back to following
    page.focus(".lv-text")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".lv-selected")).to_have_attribute("data-i", str(int(chosen) + 1))
    page.keyboard.press("Escape")
    expect(page.locator(".lv-selected")).to_have_count(0)
    # the quantity of the map
    before = inside(page, "page.panels.get('token_loop_map').figure.layout.title.text")
    page.get_by_label("Quantity shown").select_option(label="unsureness (entropy)")
    page.wait_for_function(
        "t => document.querySelector('.lv').page.panels.get('token_loop_map').figure.layout.title.text !== t",
        arg=before,
    )
    same_as_server(page)
    # three dimensions are drawn by the whole Plotly, fetched for them; two by the small one again
    for dims, script in (("3-D", "loopvizWholePlotly"), ("2-D", "loopvizPlotly")):
        page.get_by_label("Dimensions", exact=True).select_option(label=dims)
        page.wait_for_function(
            """async (script) => {
              const panel = document.querySelector('.lv').page.panels.get('state_trajectory');
              return script in window && panel.dirtySince === null && panel.drawer === (await window[script]);
            }""",
            arg=script,
        )
        scenes = page.locator("[data-panel=state_trajectory] .gl-container canvas")
        expect(scenes if dims == "2-D" else scenes.first).to_have_count(int(dims == "3-D"))


def test_clicks_while_streaming_lose_nothing(page: Page) -> None:
    settle(page, "sampling", "max_new_tokens", 160)
    run(page)
    for token in (2, 5, 9, 4):
        reached(page, token + 10)
        page.evaluate("i => document.querySelector(`.lv-tok[data-i='${i}']`).click()", token)
    page.evaluate("for (const i of [1, 2, 3, 6]) document.querySelector(`.lv-tok[data-i='${i}']`).click()")
    ended(page)
    page.wait_for_function("() => { const p = document.querySelector('.lv').page; return !p.looking && !p.asking; }")
    assert data(page, "focus") == "6"
    same_as_server(page)


def test_messages_that_never_arrive_are_asked_for(page: Page) -> None:
    inside(page, "page.lossy = page.receive")
    page.evaluate(
        """() => { const page = document.querySelector('.lv').page; let n = 0;
          page.receive = function (message) {
            if (message.kind === 'frames' && (n++ % 3 === 1 || message.end)) { page.lost = (page.lost ?? 0) + 1; return; }
            this.lossy(message);
          }; }"""
    )
    settle(page, "sampling", "max_new_tokens", 60)
    run(page)
    ended(page)
    assert inside(page, "page.lost") >= 2
    same_as_server(page)
    inside(page, "(page.receive = page.lossy, 0)")


@pytest.mark.parametrize("line", ["stands", "is blocked"])
def test_frames_come_by_the_run_s_own_line_or_else_by_gradio(page: Page, line: str) -> None:
    if line == "is blocked":
        page.route(f"**/{PREFIX}/**", lambda route: route.fulfill(status=204))
    inside(page, "(page.byLine = 0, page.all = 0)")
    inside(
        page,
        """(() => {
          const { receive, listen } = page;
          page.putBack = () => Object.assign(page, { receive, listen });
          page.receive = (message) => { page.all += message.kind === 'frames'; receive.call(page, message); };
          page.listen = (run) => {
            listen.call(page, run);
            page.line.addEventListener('message', () => { page.byLine += 1; });
          };
        })()""",
    )
    # time for the line to be there
    settle(page, "sampling", "max_new_tokens", 160 if line == "stands" else 40)
    run(page, "Once upon a time")
    ended(page)
    drawn(page)
    same_as_server(page)
    by_line, everything = inside(page, "page.byLine"), inside(page, "page.all")
    inside(page, "page.putBack()?.seq")
    page.unroute_all()
    if line == "stands":
        assert by_line > everything / 2
    else:
        assert by_line == 0
        assert everything > 2


def test_stop_then_run_again(page: Page) -> None:
    settle(page, "sampling", "max_new_tokens", 900)
    first = run(page)
    reached(page, 12)
    page.click("#lv-stop")
    ended(page, "stopped")
    stopped_at = int(data(page, "t"))
    assert stopped_at < 900
    same_as_server(page)
    settle(page, "sampling", "max_new_tokens", 6)
    assert run(page) != first
    ended(page)
    same_as_server(page)


def test_run_pressed_twice_is_one_run(page: Page) -> None:
    settle(page, "sampling", "max_new_tokens", 400)
    first = run(page, "Once upon a time")
    reached(page, 12)
    settle(page, "sampling", "max_new_tokens", 10)
    second = run(page, "The loop")
    assert second != first
    ended(page)
    drawn(page)
    rows = inside(page, "page.tokens")
    assert "".join(row[0] for row in rows if row[3]) == "The loop"
    assert len(rows) == sum(row[3] for row in rows) + 9
    assert (
        page.evaluate(
            "async (run) => (JSON.parse(await document.querySelector('.lv').page.server.resync(JSON.stringify({ run })))).kind",
            first,
        )
        == "gone"
    )


def test_two_visitors_at_once_see_only_their_own(visit: Visit) -> None:
    pages = {"Once upon": visit(apart=True), "从前有一个": visit(apart=True)}
    for page in pages.values():
        settle(page, "sampling", "max_new_tokens", 150)
    runs = [run(page, prompt) for prompt, page in pages.items()]
    assert runs[0] != runs[1]
    for prompt, page in pages.items():
        ended(page)
        rows = inside(page, "page.tokens")
        assert "".join(row[0] for row in rows if row[3]) == prompt
        assert len(rows) == sum(row[3] for row in rows) + 149
        same_as_server(page)


def test_closed_tabs_free_their_place(visit: Visit) -> None:
    """Two runs are made at a time: two tabs closed halfway must not keep a third visitor waiting."""
    for _ in range(2):
        page = visit()
        settle(page, "sampling", "max_new_tokens", 900)
        run(page)
        reached(page, 15)
        page.close()
    page = visit()
    settle(page, "sampling", "max_new_tokens", 10)
    run(page)
    ended(page)


def test_text_is_text_and_bad_input_is_told_beside_the_control_and_the_result_stays(visit: Visit) -> None:
    """Markup, template code and handlebars in a prompt are shown, not run."""
    page = visit()
    settle(page, "sampling", "max_new_tokens", 5)
    prompt = "${window.broken=1}{{value}}<img src=x onerror='window.broken=2'>`</script>"
    first = run(page, prompt)
    ended(page)
    drawn(page)
    assert page.evaluate("window.broken") is None
    assert page.locator(".lv-text").inner_text().startswith(prompt)
    assert page.locator(".lv img").count() == 0
    # bad input
    page.fill("#ctl-prompt textarea", "")
    page.click("#lv-run")
    expect(page.locator("#ctl-prompt .info-text")).to_contain_text("the prompt is empty")
    expect(page.locator(".lv-status")).to_have_class("lv-status lv-bad")
    page.fill("#ctl-prompt textarea", "again")
    settle(page, "loop", "block_end", 40)
    expect(page.locator("#ctl-block_end .info-text")).to_contain_text("layer 40 is not in a 12-layer model (0..11)")
    page.click("#lv-run")
    expect(page.locator(".lv-status")).to_contain_text("layer 40 is not in")
    assert data(page, "run") == first
    assert page.input_value("#ctl-prompt textarea") == "again", "nothing typed is lost"
    assert page.locator(".lv-tok[data-i]").count() == int(data(page, "t")) > 0
    settle(page, "loop", "block_end", 6)
    expect(page.locator("#ctl-block_end .info-text")).not_to_contain_text("layer 40")
    assert run(page) != first
    ended(page)
    settle(page, "sampling", "max_new_tokens", 1000)
    page.fill("#ctl-prompt textarea", "word " * 900)
    page.click("#lv-run")
    expect(page.locator("#ctl-prompt .info-text")).to_contain_text("context is 1,024 tokens")
    page.fill("#ctl-prompt textarea", "x")
    page.fill("#ctl-model input", "/no/such/model")
    page.press("#ctl-model input", "Enter")
    expect(page.locator("#ctl-model .info-text")).to_contain_text("no such file or folder")
    expect(page.locator(".lv-model")).to_have_text(re.compile("^model could not be loaded"))


def test_chinese_and_back_dark_and_light(visit: Visit) -> None:
    page = visit("?lang=zh")  # the language is remembered, and the look
    settle(page, "sampling", "max_new_tokens", 5)
    expect(page.locator("#lv-run")).to_have_text("运行")
    expect(page.locator(".lv-panel h2").first).to_have_text(next(iter(PANELS.values())).TEXTS["zh"]["title"])
    page.fill("#ctl-prompt textarea", "从前有一个小循环")
    first = run(page)
    ended(page)
    assert (
        inside(page, "page.panels.get('convergence').figure.layout.xaxis.title.text")
        == (PANELS["convergence"].TEXTS["zh"]["step"])
    )
    page.click("#lv-lang label:has-text('English')")
    expect(page.locator("#lv-run")).to_have_text("Run")
    page.wait_for_function(
        "t => document.querySelector('.lv').page.panels.get('convergence').figure.layout.xaxis.title.text === t",
        arg=PANELS["convergence"].TEXTS["en"]["step"],
    )
    assert data(page, "run") == first
    assert page.input_value("#ctl-prompt textarea") == "从前有一个小循环"
    assert page.evaluate("document.documentElement.lang") == "en"
    drawn(page)
    ink = "getComputedStyle(document.querySelector('.lv-plot .xtitle')).fill"
    light = page.evaluate(ink)
    page.click("#lv-dark")
    page.wait_for_function(f"light => {ink} !== light", arg=light)
    expect(page.locator("body")).to_have_class("dark")
    # at an address without a language, the one that is chosen is remembered
    page.evaluate("history.replaceState(null, '', location.pathname)")
    page.click("#lv-lang label:has-text('中文')")
    expect(page.locator("#lv-run")).to_have_text("运行")
    # the look is remembered, and no frame of the next page is painted in the other, by us or by Gradio as it comes
    page.add_init_script(
        """window.looks = new Set();
        (function look() {
          if (document.body) looks.add(document.body.classList.contains('dark'));
          requestAnimationFrame(look);
        })();"""
    )
    page.reload()
    expect(page.locator("#lv-run")).to_have_text("运行")
    expect(page.get_by_text("录制的运行").first).to_be_visible()
    page.wait_for_selector('.lv[data-model="ready"]')
    assert page.evaluate("[...looks]") == [True]


def test_a_browser_that_prefers_chinese_gets_it(visit: Visit) -> None:
    page = visit(locale="zh-CN")
    expect(page.locator("#lv-run")).to_have_text("运行")


def test_on_a_phone_nothing_sticks_out(visit: Visit) -> None:
    page = visit(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    settle(page, "sampling", "max_new_tokens", 30)
    run(page)
    ended(page)
    drawn(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    wide = page.evaluate(
        """[...document.querySelectorAll('.lv-grid, .lv-card, #lv-ask, #lv-settings, .lv-plot .main-svg')]
           .filter((node) => { const box = node.getBoundingClientRect(); // panels lie side by side, in a part that scrolls
             return node.closest('.lv-grid') !== node && node.closest('.lv-grid') ? box.width > 391 : box.right > 391; })
           .map((node) => node.className)"""
    )
    assert wide == []


def test_events_are_private(app_url: str) -> None:
    with urllib.request.urlopen(app_url + "gradio_api/info", timeout=60) as answer:
        told = json.load(answer)
    assert set(told["named_endpoints"]) == {"/run", "/open_run", "/compare", "/measure"}, (
        "what programs may ask; no event of a page"
    )
    assert told["unnamed_endpoints"] == {}


def test_a_chooser_of_layers_brings_its_panel_until_it_is_switched_off(page: Page) -> None:
    settle(page, "sampling", "max_new_tokens", 6)
    shown = "() => document.querySelector('.lv').page.panels.get('layers_run').on"
    show(page, "would_say")  # of the same group
    assert not page.evaluate(shown)
    page.click("#lv-group-step .label-wrap")
    page.locator("#ctl-layer_chooser input").click()
    page.get_by_role("option", name="influence").click()
    page.wait_for_function("() => !document.querySelector('#ctl-layer_threshold input').disabled")
    run(page, "the cat sat on")
    page.wait_for_function(shown)
    ended(page)
    drawn(page)
    told = "() => document.querySelector('.lv').page.panels.get('layers_run').figure.data[0].x.length"
    assert page.evaluate(told) == int(data(page, "t"))
    page.click('.lv-switch[data-name="layers_run"]')
    run(page)
    ended(page)
    assert not page.evaluate(shown), "what a visitor switched off stays off"
