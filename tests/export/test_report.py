"""The report: everything of a run in one file that fetches nothing, and that no text of a trace can break out of."""

from __future__ import annotations

import base64
import gzip
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings

from loopviz.cli import main
from loopviz.export import report
from loopviz.figures import plotlyjs
from loopviz.panels import PANELS, Focus, apply, figure_json
from loopviz.trace import Trace, file
from tests.app.page_double import unpack
from tests.trace.synthetic import make_meta, random_trace, traces

PAYLOADS = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "' onmouseover='alert(1)",
    '" autofocus onfocus="alert(1)',
    "<!--<script>",
    "</title></style></pre>",
    "]]>&amp;${x}{{value}}\u202e\u2028\0",
    "你好 🙂 \r\n\t",
    "half \ud83d",
]
VOID = {"meta", "input"}


class Page(HTMLParser):
    """A parsed report: its elements' texts and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[int] = []
        self.texts: dict[int, str] = {}
        self.feed(text)
        self.close()
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(attrs) == len(dict(attrs))
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(len(self.elements) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.elements[self.open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        for i in self.open:
            self.texts[i] = self.texts.get(i, "") + data

    def all(self, tag: str, **attrs: str) -> list[tuple[dict[str, str | None], str]]:
        return [
            (found, self.texts.get(i, ""))
            for i, (name, found) in enumerate(self.elements)
            if name == tag and attrs.items() <= found.items()
        ]


def data_of(page: Page) -> Any:
    """What the report's script reads."""
    ((_, packed),) = page.all("script", id="lv-data")
    return json.loads(gzip.decompress(base64.b64decode(packed, validate=True)))


def hostile() -> Trace:
    trace = random_trace(2, len(PAYLOADS) + 3, blocks=[(1, 2), (4, 4)], strategy="dynamic_stop", max_steps=5)
    meta = trace.meta
    meta["prompt"] = meta["model"] = " ".join(PAYLOADS)
    meta["settings"] = {payload: payload for payload in PAYLOADS} | meta["settings"]
    meta["loop"]["more"] = [PAYLOADS, {"deep": PAYLOADS[0]}]
    meta["versions"][PAYLOADS[1]] = PAYLOADS[2]
    meta["created"] = PAYLOADS[3]
    for frame, payload in zip(trace.frames, PAYLOADS, strict=False):
        frame["text"] = frame["next_text"] = payload
        for block in frame["blocks"]:
            block["stop_reason"] = payload
            block["steps"]["topk_texts"] = [[payload] * len(row) for row in block["steps"]["topk_texts"]]
    return trace


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_every_panel_with_all_its_words(lang: str) -> None:
    text = report.to_html(random_trace(1, 6), Focus(lang=lang), panels=RECORDED)
    page = Page(text)
    for name in RECORDED:
        ((_, said),) = page.all("article", **{"data-panel": name})
        words = PANELS[name].TEXTS[lang]
        for key in ("title", "question", "how", "units", "source"):
            assert words[key] in said, (name, key)
    assert len(page.all("math")) >= len(RECORDED)
    assert page.all("html")[0][0]["lang"] == {"en": "en", "zh": "zh-Hans"}[lang]


@pytest.fixture(autouse=True)
def light(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports without Plotly.js, quick to parse, but where it matters."""
    if "plotly" not in request.node.name:
        monkeypatch.setattr(report, "_plotly", lambda small: "")


# what every run records enough for
RECORDED = [name for name, panel in PANELS.items() if not getattr(panel, "NEEDS", ())]


def test_exactly_how_the_run_was_made() -> None:
    trace = random_trace(1, 5, blocks=[(1, 2), (4, 4)], strategy="dynamic_stop", kv_mode="merge_strategy")
    page = Page(report.to_html(trace))
    rows = {text for _, text in page.all("tr")}
    meta = trace.meta
    for values in (meta["settings"], *meta["blocks"], meta["loop"], meta["shape"], meta["versions"]):
        for name, value in values.items():
            assert name + (value if isinstance(value, str) else json.dumps(value)) in rows
    assert page.all("pre")[0][1] == meta["prompt"]


@pytest.mark.parametrize(
    "text", ["One\rtwo\r\nthree", "\u202eשלום\u202c", "e\u0301 👩‍👩‍👧", "a\ufffd", "x" * 100_000, " "]
)
def test_any_text_is_in_the_report_as_it_is(text: str) -> None:
    trace = random_trace(1, 3, blocks=[(1, 2)])
    trace.meta["prompt"] = trace.frames[1]["text"] = text
    made = report.to_html(trace, panels=[])
    assert "\r" not in made, "a browser reads one as a line feed"
    page = Page(made)
    assert page.all("pre")[0][1] == text
    assert text in [said for _, said in page.all("span")]


def test_nothing_of_a_trace_is_ever_markup_or_code() -> None:
    trace = hostile()
    plain = random_trace(2, len(trace), blocks=[(1, 2), (4, 4)], strategy="dynamic_stop", max_steps=5)
    for focus in (Focus(), Focus(lang="zh", token=2)):
        page, usual = Page(report.to_html(trace, focus)), Page(report.to_html(plain, focus))
        assert len(page.all("script")) == len(usual.all("script")) == 3
        assert {tag for tag, _ in page.elements} == {tag for tag, _ in usual.elements}
        names = [{name for _, attrs in one.elements for name in attrs} for one in (page, usual)]
        assert names[0] == names[1]
        assert not any(name.startswith("on") for name in names[0])
        tokens = page.all("span", **{"data-i": "0"})
        assert tokens[0][1] == PAYLOADS[0]
        shown = [text for attrs, text in page.all("span") if "data-i" in attrs]
        wanted = [frame["text"].replace("\ud83d", "?") for frame in trace.frames]
        assert shown == wanted
        assert [row for row in page.all("title") if row[1].endswith(trace.meta["model"].replace("\ud83d", "?"))]


def test_nothing_is_fetched() -> None:
    text = report.to_html(random_trace(1, 4))
    page = Page(text)
    for tag, attrs in page.elements:
        assert tag not in {"link", "iframe", "img", "object", "embed", "base", "form"}
        assert not attrs.keys() & {"src", "href", "action", "srcset", "data", "poster"}
    ((policy, _),) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy["content"].startswith("default-src 'none'; ")
    assert "http" not in policy["content"]
    style = page.all("style")[0][1]
    assert "@import" not in style
    assert re.findall(r"url\((?!data:)", style) == []  # the font of formulas is in the file
    script = next(text for attrs, text in page.all("script") if not attrs)
    assert "showSendToCloud: false" in script
    assert '"sendChartToCloud"' in script
    assert "http" not in script


@pytest.mark.parametrize(("dims", "whole", "most"), [(2, False, 1_000_000), (3, True, 2_500_000)])
def test_the_plotly_in_it_is_one_that_draws_its_figures_once_and_compressed(dims: int, whole: bool, most: int) -> None:
    text = report.to_html(random_trace(1, 1), Focus(dims=dims))
    ((_, packed),) = Page(text).all("script", id="lv-plotly")
    assert gzip.decompress(base64.b64decode(packed)) == (plotlyjs.whole() if whole else plotlyjs.small())
    assert len(text) < most


@pytest.mark.parametrize("focus", [Focus(), Focus(token=2, block=1, metric="kl", lang="zh", pins=(1,))])
def test_the_replay_shows_each_panel_as_it_was_after_every_token(focus: Focus) -> None:
    trace = random_trace(4, 7, blocks=[(1, 2), (4, 5)], strategy="dynamic_stop", max_steps=5)
    data = data_of(Page(report.to_html(trace, focus, panels=RECORDED)))
    assert list(data["panels"]) == RECORDED
    then = Focus.from_json({**focus.to_json(), "token": None})
    for name, found in data["panels"].items():
        panel, figure = PANELS[name], found["empty"]
        assert found["figure"] == plain_json(panel.figure(trace, focus))
        for count in range(len(trace) + 1):
            if count:
                apply(figure, unpack(found["ops"][count - 1]))
            seen = Trace(trace.meta, trace.frames[:count])
            assert figure == plain_json(panel.figure(seen, then)), (name, count)
            assert found["summaries"][count] == panel.summary(seen, then)


def plain_json(figure: Any) -> Any:
    return json.loads(json.dumps(figure_json(figure)))


@given(traces(max_tokens=3))
@settings(max_examples=5, deadline=None)
def test_any_trace_has_a_report(trace: Trace) -> None:
    page = Page(report.to_html(trace))
    tokens = [text for attrs, text in page.all("span") if "data-i" in attrs]
    assert len(tokens) == len(trace)
    assert data_of(page)["total"] == len(trace)


@pytest.mark.parametrize(
    "trace", [Trace(make_meta()), random_trace(1, 3, blocks=[]), random_trace(1, 3, record="off", states=False)]
)
def test_runs_without_tokens_loops_or_recorder(trace: Trace) -> None:
    for replay in (True, False):
        data = data_of(Page(report.to_html(trace, Focus(lang="zh"), replay=replay)))
        assert all(("ops" in panel) == replay for panel in data["panels"].values())


def test_a_panel_the_run_recorded_too_little_for_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    name = RECORDED[0]
    monkeypatch.setattr(PANELS[name], "NEEDS", ("attention",), raising=False)
    page = Page(report.to_html(random_trace(1, 3)))
    assert not page.all("article", **{"data-panel": name})
    assert any(PANELS[name].TEXTS["en"]["title"] in text for _, text in page.all("p"))


def test_a_panel_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'speed' is no panel; there are .*convergence"):
        report.to_html(random_trace(1, 3), panels=["speed"])


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("name", PANELS)
def test_every_panels_formula_becomes_mathml(name: str, lang: str) -> None:
    made = report.formula(PANELS[name].TEXTS[lang]["formula"])
    assert "<math" in made
    assert "<code>" not in made, "a part of it is not understood"


def test_a_formula_that_is_not_understood_stands_as_its_source() -> None:
    assert report.formula(r"\nosuchthing{<x>}") == r"<div class='formula'><code>\nosuchthing{&lt;x&gt;}</code></div>"
    assert report.formula(r"\frac{a}{").count("<code>") == 1
    assert "<code>" not in report.formula(r"\arg\max_v p(v)")
    assert report.formula(r"a=b,\qquad c=d").count("<math") == 2
    assert report.formula(r"\text{if }\bigl(a\quad b\bigr)").count("<math") == 2


def test_both_languages_say_the_same() -> None:
    english, chinese = report.TEXTS["en"], report.TEXTS["zh"]
    assert english.keys() == chinese.keys()
    for key in english:
        assert sorted(re.findall(r"\{\w+\}", english[key])) == sorted(re.findall(r"\{\w+\}", chinese[key])), key
        assert re.search(r"[\u4e00-\u9fff]", chinese[key]), key
        assert not re.search(r"['\"<&]", english[key] + chinese[key]), "they are put into attributes as they are"


def test_from_the_command_line(tmp_path: Any, capfd: pytest.CaptureFixture[str]) -> None:
    trace = random_trace(5, 4)
    file.save(trace, tmp_path / "t")
    assert main.main(["export", str(tmp_path / "t"), "--html", str(tmp_path / "r.html"), "--lang", "zh"]) == 0
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert text == report.to_html(trace, Focus(lang="zh"))
    assert main.main(["export", str(tmp_path / "t"), "--html", str(tmp_path / "no" / "r.html")]) == 2
    assert "no" in capfd.readouterr().err
