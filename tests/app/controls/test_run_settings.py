"""Raw values become settings once: typed, whole, and never changed; what is refused is data."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from typing import Any

import orjson
import pytest

from loopviz.app import controls as st
from loopviz.app.controls import run_settings
from loopviz.app.texts import LANGUAGES
from loopviz.checks import FieldError


def test_settings_do_not_change() -> None:
    settings, errors = st.parse(st.defaults())
    assert not errors
    with pytest.raises(TypeError, match="do not change"):
        settings["loop_count"] = 7
    for change in (
        settings.clear,
        settings.popitem,
        lambda: settings.update(loop_count=7),
        lambda: settings.pop("chat"),
    ):
        with pytest.raises(TypeError):
            change()
    before = settings
    before |= {"loop_count": 7}
    assert settings["loop_count"] == 4
    assert type(before) is dict, "what is made of settings is raw again"
    assert st.parse(settings) == (settings, [])
    assert st.parse(settings)[0] is settings, "read once"


def test_settings_can_be_sent_and_kept() -> None:
    settings = st.default_settings()
    for again in (
        json.loads(json.dumps(settings)),
        orjson.loads(orjson.dumps(settings)),
        pickle.loads(pickle.dumps(settings)),
    ):
        assert again == settings == st.defaults()
    assert type(pickle.loads(pickle.dumps(settings))) is st.RunSettings


def test_values_get_their_own_types() -> None:
    settings, _ = st.parse(st.defaults() | {"loop_count": 7.0, "model": "  mine ", "top_p": 1})
    assert [(type(settings[name]), settings[name]) for name in ("loop_count", "top_p")] == [(int, 7), (float, 1.0)]
    assert settings.model == "mine"
    assert settings.changed({"chat": True}).chat
    with pytest.raises(FieldError, match="loop_count=0: must be a whole number from 1 to 32"):
        settings.changed({"loop_count": 0})
    with pytest.raises(KeyError):
        settings.changed({"loops": 3})


@pytest.mark.parametrize(
    ("name", "value", "rule", "english", "chinese"),
    [
        (
            "loop_count",
            0,
            "whole_in",
            "loop_count=0: must be a whole number from 1 to 32",
            "loop_count=0：须为 1 到 32 之间的整数",
        ),
        ("top_p", "x", "number_in", "top_p='x': must be a number from 0.05 to 1", "top_p='x'：须为 0.05 到 1 之间的数"),
        ("greedy", 1, "on_off", "greedy=1: must be on or off", "greedy=1：须为开或关"),
        (
            "loop_injection",
            "all",
            "one_of",
            "loop_injection='all': must be one of none, add, linear",
            "loop_injection='all'：须为以下之一：none, add, linear",
        ),
        ("model", "", "model_name", "the name is empty or longer than 300 characters", "名称为空或超过 300 个字符"),
        ("model", "a\ud800", "half_text", "half a character is no text: 'a\\ud800'", "半个字符不是文本：'a\\ud800'"),
    ],
)
def test_a_refused_value_is_a_field_and_a_rule_in_both_languages(
    name: str, value: Any, rule: str, english: str, chinese: str
) -> None:
    _, [error] = st.parse(st.defaults() | {name: value})
    assert (error.field, error.rule) == (name, rule)
    assert st.told(error, "en") == english
    assert st.told(error, "zh") == chinese
    assert [st.clean(st.defaults() | {name: value}, lang)[1] for lang in LANGUAGES] == [
        [st.Problem(name, english)],
        [st.Problem(name, chinese)],
    ]


@pytest.mark.parametrize(
    "value", [10**5000, -(10**5000), "x" * 100_000, [[]] * 10_000], ids=["far", "low", "text", "list"]
)
def test_a_value_beyond_all_measure_is_refused_shortly(value: Any) -> None:
    """Python refuses to write out a whole number of so many digits, in words of its own."""
    assert st.Form.read(st.defaults() | {"model": value}).errors[0].field == "model"
    for name in ("loop_count", "loop_damping", "greedy", "layer_chooser"):
        _, [error] = st.parse(st.defaults() | {name: value})
        assert error.field == name
        assert len(str(error)) < 200


def test_a_form_is_read_once_and_says_what_stands_beside_its_controls() -> None:
    raw = st.defaults() | {
        "model": "one",
        st.SUITS: "another",
        st.TOUCHED: ("loop_count",),
        "loop_count": 0,
        "seed": -1,
    }
    form = st.Form.read(raw)
    assert st.Form.read(form) is form
    assert (form.model, form.suits, form.suited, form.touched) == ("one", "another", False, ("loop_count",))
    assert [error.field for error in form.errors] == ["loop_count", "seed"]
    assert st.Form.read(st.defaults()).suited, "where nothing is said they are the chosen model's"
    after = form.changed({"loop_count": 6, "top_k": -1}, suits="one")
    assert after.suited
    assert after.settings["loop_count"] == 6
    assert [error.field for error in after.errors] == ["seed", "top_k"], "what was not changed is still refused"


def test_whoever_reads_a_form_again_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """`clean` was called in 25 places of 9 files, because clean values had the same type as raw ones."""
    from loopviz.app.explore.page import ExplorePage
    from loopviz.app.explore.run import Registry
    from loopviz.app.explore.service import Service
    from loopviz.app.sessions.models import ModelRoom

    read: Counter[str] = Counter()
    reader = run_settings.read_control

    def counted(control: st.Control, value: Any) -> Any:
        read[control.name] += 1
        return reader(control, value)

    monkeypatch.setattr(run_settings, "read_control", counted)
    page = ExplorePage(service := Service(ModelRoom("tiny"), Registry()))
    read.clear()
    form = st.Form.read(st.defaults() | {"model": "tiny"})
    service.problems(form, "en", "Once")
    service.suited(form)
    service.steer(form, "en", "me")
    service.too_long("Once", form)
    service.shortened("Once", form)
    assert set(read.values()) == {1}
    page._faces(form, "en")
    assert set(read.values()) == {1}


@pytest.mark.parametrize(
    ("raw", "template", "wrong"),
    [
        ({"chat": True}, "chat", []),
        ({"chat": False}, "none", []),
        ({"chat": False, "template": "alpaca"}, "alpaca", []),
        ({"chat": True, "template": "vicuna"}, "vicuna", []),
        ({"chat": 1}, "none", ["chat=1: must be on or off"]),
        ({"template": "llama"}, "none", ["template='llama': must be one of none, chat, alpaca, vicuna"]),
        ({"input": 7}, "none", ["input=7: must be text"]),
        ({"input": "a" * 20_001}, "none", ["input: 20,001 characters; at most 20,000 are taken"]),
        ({"input": "a\ud800"}, "none", ["input: half a surrogate pair at character 1, which is no text; remove it"]),
    ],
)
def test_what_a_prompt_is_put_in_by_the_names_of_then_and_now(
    raw: dict[str, Any], template: str, wrong: list[str]
) -> None:
    settings, errors = st.parse(st.defaults() | raw)
    assert [str(error) for error in errors] == wrong
    assert (settings["template"], settings.chat) == (template, template == "chat")
    assert settings.keys() == st.BY_NAME.keys(), "by the names of now alone"


def test_an_input_is_alpaca_s_alone_and_stays_as_typed() -> None:
    settings = st.default_settings().changed({"template": "alpaca", "input": "7 + 5"})
    assert settings.wording == {"template": "alpaca", "input": "7 + 5"}
    assert st.why_off("input", settings) is None
    other = settings.changed({"template": "vicuna"})
    assert other.wording == {"template": "vicuna", "input": ""}
    assert st.why_off("input", other) == "off.alpaca_only"
    assert other["input"] == "7 + 5"
