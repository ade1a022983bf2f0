"""The contract of a panel, its texts in both languages, Focus and Op."""

from __future__ import annotations

import json
import re
import string
import types

import pytest

import loopviz.panels as panels
from loopviz.figures.labels import COMMON
from loopviz.panels import GROUPS, LANGUAGES, METRICS, PANELS, TEXT_KEYS, Focus, apply, figure_json, group_of
from loopviz.trace import EXTRAS
from tests.panels.cases import looped

ORDERED = ["convergence", "token_loop_map", "kv_occupancy"]


def test_panels_are_found_in_page_order():
    assert [panel.ORDER for panel in PANELS.values()] == sorted(panel.ORDER for panel in PANELS.values())
    assert [name for name in PANELS if name in ORDERED] == ORDERED


@pytest.mark.parametrize("lack", ["NAME", "GROUP", "ORDER", "TEXTS", "data", "figure", "patch", "summary"])
def test_a_module_that_is_not_a_panel_is_refused_by_name(lack):
    words = {lang: dict.fromkeys(TEXT_KEYS, "x") for lang in LANGUAGES}
    whole = {"NAME": "n", "GROUP": GROUPS[0], "ORDER": 1, "TEXTS": words}
    whole |= {"data": len, "figure": len, "patch": len, "summary": len}
    module = types.ModuleType("loopviz.panels.mine")
    module.__dict__.update({key: value for key, value in whole.items() if key != lack})
    with pytest.raises(ImportError, match=rf"loopviz\.panels\.mine.*{lack}"):
        panels._check(module)


def test_b8_a_panel_of_no_group_is_refused_by_name():
    module = types.ModuleType("loopviz.panels.mine")
    words = {lang: dict.fromkeys(TEXT_KEYS, "x") for lang in LANGUAGES}
    module.__dict__.update(NAME="n", GROUP="misc", ORDER=1, TEXTS=words, data=len, figure=len, patch=len, summary=len)
    with pytest.raises(ImportError, match=r"panels\.mine: GROUP='misc'.*thinking, words, memory, cost"):
        panels._check(module)


def test_b8_panels_stand_in_four_groups_and_names_lead_to_theirs():
    assert set(GROUPS) == {panel.GROUP for panel in PANELS.values()}
    assert len(GROUPS) == 4
    assert group_of([]) == GROUPS[0]
    for name, panel in PANELS.items():
        assert group_of([name]) == panel.GROUP
    assert group_of(["cost", "kv_occupancy", "attention"]) == "words", "the first group of which one is named"
    assert group_of(list(PANELS)) == GROUPS[0]


def test_a_panel_without_a_language_is_refused():
    module = types.ModuleType("loopviz.panels.mine")
    module.__dict__.update(NAME="n", GROUP=GROUPS[0], ORDER=1, data=len, figure=len, patch=len, summary=len)
    module.TEXTS = {"en": dict.fromkeys(TEXT_KEYS, "x"), "zh": {**dict.fromkeys(TEXT_KEYS, "x"), "how": ""}}
    with pytest.raises(ImportError, match=r"'zh'.*how"):
        panels._check(module)


def test_a_panel_that_needs_an_extra_must_say_when_it_is_not_there():
    module = types.ModuleType("loopviz.panels.mine")
    words = {lang: dict.fromkeys(TEXT_KEYS, "x") for lang in LANGUAGES}
    module.__dict__.update(
        NAME="n", GROUP=GROUPS[0], ORDER=1, TEXTS=words, data=len, figure=len, patch=len, summary=len, NEEDS=("keys",)
    )
    with pytest.raises(ImportError, match="not_recorded"):
        panels._check(module)
    for lang in LANGUAGES:
        words[lang]["not_recorded"] = "x"
    assert panels._check(module) is module


@pytest.mark.parametrize("name", PANELS)
def test_what_a_panel_needs_can_be_recorded(name):
    assert set(getattr(PANELS[name], "NEEDS", ())) <= set(EXTRAS)


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("name", PANELS)
def test_choices_are_values_of_the_focus(name, lang):
    focus = Focus(lang=lang)
    choices = figure_json(PANELS[name].figure(looped(), focus))["layout"]["meta"].get("choices", {})
    for field, choice in choices.items():
        assert choice.keys() == {"label", "options", "value"}
        values = [value for value, _ in choice["options"]]
        assert choice["value"] in values
        assert len(set(values)) == len(values) > 1
        assert all(
            isinstance(label, str) and label for label in (choice["label"], *(text for _, text in choice["options"]))
        )
        for value in values:
            looked = Focus.from_json({**focus.to_json(), field: value})
            shown = figure_json(PANELS[name].figure(looped(), looked))["layout"]["meta"]["choices"][field]
            assert shown["value"] == value, "the choice made is the one shown"


def fields(text):
    return sorted(name for _, name, _, _ in string.Formatter().parse(text) if name)


@pytest.mark.parametrize("texts", [COMMON, *(p.TEXTS for p in PANELS.values())], ids=["common", *PANELS])
def test_both_languages_say_the_same_things(texts):
    assert texts["en"].keys() == texts["zh"].keys()
    for key, en in texts["en"].items():
        zh = texts["zh"][key]
        assert en.strip()
        assert zh.strip()
        if key == "formula":
            assert en == zh
        elif not key.startswith("hover"):
            assert fields(en) == fields(zh), key
        if key in ("title", "question", "how", "units", "source", "cost", "no_data"):
            assert any("\u4e00" <= char <= "\u9fff" for char in zh), key


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("name", PANELS)
def test_every_trace_that_can_be_hovered_says_what_it_is_in_this_language(name, lang):
    other = {trace.get("hovertemplate") for trace in _data(name, next(x for x in LANGUAGES if x != lang))}
    for trace in _data(name, lang):
        if trace.get("hoverinfo") == "skip":
            continue
        template = trace["hovertemplate"]
        assert template.endswith("<extra></extra>")
        assert "{{" not in template
        assert fields(template.replace("%{", "{")), template  # plotly's own fields, nothing left to format
        assert not fields(template.replace("%{", "").replace("}", "")), template
        assert template not in other


def _data(name, lang):
    return figure_json(PANELS[name].figure(looped(), Focus(lang=lang)))["data"]


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("name", PANELS)
def test_axes_are_titled_in_this_language(name, lang):
    words = set(PANELS[name].TEXTS[lang].values())
    layout = figure_json(PANELS[name].figure(looped(), Focus(lang=lang)))["layout"]
    titled = [axis["title"]["text"] for key, axis in layout.items() if key[:5] in ("xaxis", "yaxis")]
    assert titled
    for title in titled:  # a number may follow, in brackets
        assert {title, re.split(r" ?[(（]", title)[0]} & words, title


@pytest.mark.parametrize("name", PANELS)
@pytest.mark.parametrize("metric", METRICS)
def test_figures_are_plain_json_of_fixed_height(name, metric):
    trace = looped()
    figure = figure_json(PANELS[name].figure(trace, Focus(metric=metric)))
    text = json.dumps(figure, allow_nan=False)
    assert "bdata" not in text
    assert len(json.dumps(figure["layout"]["template"])) < 1500
    assert "uirevision" not in figure["layout"], "the page's to set"
    later = figure_json(PANELS[name].figure(looped(tokens=40), Focus(metric=metric)))
    assert figure["layout"]["height"] == later["layout"]["height"] > 100


@pytest.mark.parametrize(
    ("fields_", "name"),
    [
        ({"token": -1}, "token"),
        ({"token": True}, "token"),
        ({"token": "3"}, "token"),
        ({"token": 1.0}, "token"),
        ({"block": None}, "block"),
        ({"block": -1}, "block"),
        ({"step": 0}, "step"),
        ({"metric": "loss"}, "metric"),
        ({"metric": ["kl"]}, "metric"),
        ({"lang": "fr"}, "lang"),
        ({"zoom": 1}, "zoom"),
        ({"pins": 3}, "pins"),
        ({"pins": [1, 1]}, "pins"),
        ({"pins": [-1]}, "pins"),
        ({"pins": [True]}, "pins"),
        ({"pins": list(range(7))}, "pins"),
        ({"layer": -1}, "layer"),
        ({"lens": "tuned"}, "lens"),
        ({"dims": 4}, "dims"),
        ({"dims": 2.0}, "dims"),
        ({"context": 0}, "context"),
        ({"context": 8192.0}, "context"),
        ({"context": "8192"}, "context"),
        ({"context": [8192]}, "context"),
        ({"batch": 2}, "batch"),
        ({"batch": True}, "batch"),
        ({"threshold": 1.1}, "threshold"),
        ({"threshold": -0.1}, "threshold"),
        ({"threshold": "0.5"}, "threshold"),
        ({"threshold": True}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
    ],
)
def test_focus_refuses_by_name(fields_, name):
    with pytest.raises(ValueError, match=name):
        Focus.from_json(fields_)


@pytest.mark.parametrize("data", [None, [], "token", 3])
def test_focus_refuses_what_is_not_a_mapping(data):
    with pytest.raises(ValueError, match="mapping"):
        Focus.from_json(data)


def test_focus_round_trip():
    focus = Focus(
        token=4,
        block=1,
        step=2,
        metric="rank",
        lang="zh",
        pins=(7, 2),
        layer=3,
        lens="exit",
        dims=3,
        context=131072,
        batch=64,
        threshold=0.5,
    )
    assert all(focus.to_json()[name] != value for name, value in Focus().to_json().items()), "every field is tried"
    assert Focus.from_json(json.loads(json.dumps(focus.to_json()))) == focus
    assert Focus.from_json({}) == Focus()


def test_apply_edits_in_order():
    figure = {"data": [{"y": [1]}], "layout": {}}
    ops = [
        {"op": "append", "path": ["data", 0, "y"], "value": [2, None]},
        {"op": "set", "path": ["data", 0, "y", 0], "value": 9},
        {"op": "set", "path": ["layout", "title"], "value": {"text": "x"}},
    ]
    assert apply(figure, ops) is figure
    assert figure == {"data": [{"y": [9, 2, None]}], "layout": {"title": {"text": "x"}}}
    figure["layout"]["title"]["text"] = "y"
    assert ops[2]["value"] == {"text": "x"}, "a figure shares nothing with the Ops that made it"


@pytest.mark.parametrize(
    "op",
    [
        {"op": "append", "path": ["data", 1, "y"], "value": [1]},
        {"op": "append", "path": ["layout", "title"], "value": [1]},
        {"op": "splice", "path": ["data", 0, "y", 1], "value": [1, 2]},
        {"op": "splice", "path": ["data", 0, "y", -1], "value": [1]},
        {"op": "set", "path": ["data", 0, "y", 5], "value": 1},
        {"op": "set", "path": ["nowhere", "x"], "value": 1},
        {"op": "remove", "path": ["data", 0], "value": None},
    ],
)
def test_apply_refuses_what_does_not_fit(op):
    with pytest.raises(ValueError, match=r"path|op="):
        apply({"data": [{"y": [1]}], "layout": {}}, [op])


@pytest.mark.parametrize("name", PANELS)
@pytest.mark.parametrize("blocks", [[(2, 5)], [(0, 1), (3, 4)]], ids=["one block", "two blocks"])
def test_s4_a_figure_has_one_colour_bar_at_most(name, blocks):
    """S4: colour bars were repeated where one would do."""
    figure = PANELS[name].data(looped(blocks=blocks, extras=EXTRAS), Focus())
    own = [trace for trace in figure["data"] if trace.get("type") == "heatmap" and "coloraxis" not in trace]
    bars = [trace for trace in own if trace.get("showscale", True)]
    bars += [trace for trace in figure["data"] if trace.get("marker", {}).get("showscale")]
    axes = {trace["coloraxis"] for trace in figure["data"] if "coloraxis" in trace}
    assert axes == {key for key in figure["layout"] if key.startswith("coloraxis")}
    bars += [axis for axis in axes if figure["layout"][axis].get("showscale", True)]
    assert len(bars) <= 1
