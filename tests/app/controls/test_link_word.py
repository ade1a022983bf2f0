"""Links: what was set up comes back; whatever else stands in an address is told, and never raises."""

from __future__ import annotations

import base64
import json
import re
import zlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as hy

from loopviz.app import controls as st
from loopviz.app.controls import link_word
from loopviz.app.controls.link_word import DEFAULTS, MOST_CHARACTERS, MOST_UNPACKED, PageState, decode, encode
from loopviz.app.texts.links import TEXTS
from loopviz.panels import METRICS, Focus
from loopviz.panels.kit.focus import BATCHES, CONTEXTS

CHARACTERS = hy.characters(exclude_categories=())  # halves of surrogate pairs too
SOME = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)  # a busy machine is no fault


def _control(control: st.Control) -> hy.SearchStrategy[Any]:
    if control.kind == "whole":
        return hy.integers(int(control.low), int(control.high))
    if control.kind == "number":
        return hy.floats(control.low, control.high)
    if control.kind == "choice":
        return hy.sampled_from(control.choices)
    if control.kind == "flag":
        return hy.booleans()
    if control.kind == "long":
        return hy.text(max_size=40)
    return hy.sampled_from(["smollm2-135m-instruct", "org/Model-1.5B", "arrows-loop", "模型"])


VALUES = hy.fixed_dictionaries({control.name: _control(control) for control in st.CONTROLS})
FOCUSES = hy.builds(
    Focus,
    token=hy.none() | hy.integers(0, 10**6),
    block=hy.integers(0, 9),
    step=hy.none() | hy.integers(1, 64),
    metric=hy.sampled_from(METRICS),
    pins=hy.lists(hy.integers(0, 10**6), max_size=6, unique=True).map(tuple),
    layer=hy.none() | hy.integers(0, 99),
    lens=hy.sampled_from(["direct", "exit"]),
    dims=hy.sampled_from([2, 3]),
    context=hy.sampled_from(CONTEXTS),
    batch=hy.sampled_from(BATCHES),
    threshold=hy.none() | hy.floats(0, 1),
)
STATES = hy.builds(
    PageState,
    values=VALUES,
    prompt=hy.none() | hy.text(CHARACTERS, max_size=300),
    focus=FOCUSES,
    panels=hy.none() | hy.lists(hy.sampled_from(["convergence", "kv_occupancy", "cost"]), unique=True).map(tuple),
    recorded=hy.none() | hy.just("first-run"),
    beside=hy.none() | hy.sampled_from(["/tmp/loopviz-1/my-loop", "./mine", "C:\\mine"]),
)


def crafted(data: Any) -> str:
    """The word of a link that holds ``data``, whatever it is."""
    return "1" + link_word._pack(data if isinstance(data, bytes) else json.dumps(data).encode())


@given(STATES)
@SOME
def test_what_was_set_up_comes_back(state: PageState) -> None:
    word, told = encode(state)
    assert word is not None
    assert told == []
    assert re.fullmatch(r"1[A-Za-z0-9_-]*", word)
    back, problems = decode(word)
    assert problems == []
    assert dict(back.values) == dict(state.values)
    assert back.focus == state.focus
    assert (back.panels, back.recorded) == (state.panels, state.recorded)
    if state.prompt is None:
        assert back.prompt is None
    else:  # half a character cannot be sent: it becomes the character that says so
        assert back.prompt == re.sub("[\ud800-\udfff]", "\ufffd", state.prompt)


@given(hy.text(CHARACTERS, max_size=200) | hy.text("ABCabc019-_", max_size=200).map("1".__add__))
@SOME
def test_any_word_at_all_gives_a_page(word: str) -> None:
    state, problems = decode(word, lang="zh")
    assert st.clean(state.values)[1] == []
    if state == PageState(focus=Focus(lang="zh")):
        assert problems or word == encode(PageState())[0]
    json.dumps([*state.values.values(), state.prompt, *problems], ensure_ascii=False).encode()


JSON = hy.recursive(
    hy.none() | hy.booleans() | hy.integers() | hy.floats() | hy.text(CHARACTERS, max_size=5),
    lambda inner: hy.lists(inner, max_size=4) | hy.dictionaries(hy.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
KEYS = hy.sampled_from(["values", "prompt", "focus", "panels", "recorded", "else"])
INNER = hy.dictionaries(hy.sampled_from([*st.BY_NAME, *Focus().to_json(), "x"]), JSON, max_size=5)


@given(hy.dictionaries(KEYS, JSON | INNER, max_size=6))
@SOME
def test_any_content_gives_a_page_with_values_that_could_have_been_typed(data: dict[str, Any]) -> None:
    state, problems = decode(crafted(data), local=False, default_model="ours")
    values, wrong = st.clean(state.values)
    assert wrong == []
    assert values == state.values
    assert not link_word.is_path(state.values["model"])
    assert state.prompt is None or len(state.prompt) <= st.PROMPT_LIMIT
    assert Focus.from_json(state.focus.to_json()) == state.focus
    assert all(re.fullmatch(r"[a-z0-9_-]+", name) for name in state.panels or ())
    json.dumps([state.values, state.prompt, state.recorded, *problems], ensure_ascii=False).encode()  # can be sent
    if "else" in data:
        assert any("else" in problem.reason for problem in problems)


def test_a_usual_link_is_short_and_says_nothing_that_is_default() -> None:
    assert len(encode(PageState())[0]) <= 8
    state = PageState(
        {**DEFAULTS, "loop_strategy": "dynamic_stop", "max_loop_count": 16, "convergence_criterion": "kl"},
        "The capital of France is",
        Focus(token=12, step=3),
    )
    assert len(encode(state)[0]) <= 60
    assert decode(encode(state)[0])[0] == state


def test_links_already_in_the_world_open_as_they_did() -> None:
    """Version 1's words, made once and kept: a change of defaults, dictionary or format must not touch them."""
    state = PageState(
        {**DEFAULTS, "block_start": 3, "loop_count": 6, "greedy": False, "kl_threshold": -3.2, "model": "org/m"},
        "Hé 🙂 你好\n",
        Focus(token=4, metric="kl", pins=(1, 2), dims=3),
        ("convergence", "cost"),
        "first-run",
    )
    assert decode(GOLDEN) == (state, [])
    # the page's defaults may change; version 1's may not, and know every control the page had when it was made
    assert set(DEFAULTS) <= set(st.defaults())
    assert set(link_word.FOCUS) <= set(Focus().to_json())


GOLDEN = "1q0Yw4c7ML0rXB6ViFN8Z66D4yQwjmoz1jHRQw61WB-F2j8MrFT7Mn9mk8GTvgqdL98bkIfsY6lUTHUQuQ85BhjpGsfAcCTIUXkog52BoPgeqRCpQ0jKLikt0i0rzlGoB"


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize(
    ("word", "key"),
    [
        (None, "damaged"),
        (7, "damaged"),
        ("", "damaged"),
        ("1", "damaged"),
        ("0abc", "damaged"),
        ("<script>", "damaged"),
        ("2abc", "newer"),
        ("1%%%%", "damaged"),
        ("1" + "A" * MOST_CHARACTERS, "damaged"),
        (crafted(b"[" * 60_000), "damaged"),
        (crafted(b'{"values":' * 50 + b"1" + b"}" * 50), "damaged"),
        (crafted(b"\xff"), "damaged"),
        (crafted([1]), "damaged"),
        (crafted({}) + "AAAA", "damaged"),
    ],
)
def test_a_damaged_link_opens_the_usual_page_and_says_so(word: Any, key: str, lang: str) -> None:
    state, problems = decode(word, lang=lang, default_model="ours")
    assert state == PageState({**st.defaults(), "model": "ours"})
    assert [problem.reason for problem in problems] == [TEXTS[lang][key]]


def test_a_link_cut_short_is_refused_whole() -> None:
    word = encode(PageState(prompt="Once upon a time, there was a dragon", focus=Focus(token=3)))[0]
    for end in range(1, len(word)):
        state, problems = decode(word[:end])
        assert state == PageState()
        assert len(problems) == 1


def test_a_bomb_is_not_unpacked() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(b'{"prompt":"' + b" " * 4_000_000 + b'"}') + packer.flush()
    word = "1" + base64.urlsafe_b64encode(packed).rstrip(b"=").decode()
    assert len(word) < MOST_CHARACTERS < MOST_UNPACKED
    assert [problem.reason for problem in decode(word)[1]] == [TEXTS["en"]["damaged"]]


def test_a_prompt_no_address_can_hold_is_refused_with_the_reason() -> None:
    import random

    prompt = "".join(random.Random(0).choices("abcdefghijklmnopqrstuvwxyz ", k=19_000))
    word, problems = encode(PageState(prompt=prompt), lang="zh")
    assert word is None
    assert problems[0].control == "prompt"
    assert "7000" in problems[0].reason
    longest = "好" * st.PROMPT_LIMIT
    assert decode(encode(PageState(prompt=longest))[0])[0].prompt == longest
    state, problems = decode(crafted({"prompt": "a" * (st.PROMPT_LIMIT + 1)}))
    assert state.prompt is None
    assert [problem.control for problem in problems] == ["prompt"]


@pytest.mark.parametrize("path", ["/srv/models/secret", "~/m", "./m", "..\\m", "C:/m", "C:\\m", "file:///etc/passwd"])
def test_places_of_a_machine_stay_on_it(path: str) -> None:
    state = PageState({**DEFAULTS, "model": path, "loop_count": 7})
    here, told = encode(state)
    assert told == []
    assert decode(here)[0] == state
    word, told = encode(state, local=False)
    assert [problem.control for problem in told] == ["model"]
    opened, problems = decode(word, local=False, default_model="/srv/default")
    assert opened.values == {**DEFAULTS, "model": "/srv/default", "loop_count": 7}
    assert problems == []
    for default in ("ours", path):  # the answer does not tell which path is the server's own
        opened, problems = decode(here, local=False, default_model=default)
        assert opened.values["model"] == default
        assert [problem.control for problem in problems] == ["model"]


@pytest.mark.parametrize("path", ["/srv/mine", "./mine", "C:\\mine"])
def test_a_folder_beside_is_of_this_machine_alone(path: str) -> None:
    state = PageState({**DEFAULTS}, beside=path)
    word, told = encode(state)
    assert (decode(word)[0], told) == (state, [])
    assert encode(state, local=False)[0] == encode(PageState({**DEFAULTS}))[0], (
        "it is in no link of a server for strangers"
    )
    opened, problems = decode(word, local=False)
    assert opened.beside is None
    assert [problem.control for problem in problems] == ["model"]


@pytest.mark.parametrize("name", ["org/model", "smollm2-135m", "", 7, ["/srv/mine"], "/srv/" + "a" * 5000])
def test_a_link_has_nothing_beside_that_would_be_fetched(name: Any) -> None:
    """A folder of this machine, or nothing."""
    opened, problems = decode(crafted({"beside": name, "prompt": "Hi"}))
    assert (opened.beside, opened.prompt) == (None, "Hi")
    assert [problem.control for problem in problems] == ["link"]


def test_what_cannot_be_used_is_named_and_the_rest_is_used() -> None:
    data = {
        "values": {"loop_count": 99, "max_loop_count": 12, "loop_norm": "yes", "warp": 9},
        "focus": {"token": 3, "step": 0, "metric": "speed", "dims": 3.0, "layer": 10**7},
        "panels": ["convergence", "../x", "gone"],
        "recorded": "other",
    }
    state, problems = decode(crafted(data), panels={"convergence"}, recorded={"first"})
    assert state.values["max_loop_count"] == 12
    assert state.values["loop_count"] == DEFAULTS["loop_count"]
    assert state.focus == Focus(token=3)
    assert state.panels == ("convergence",)
    assert state.recorded is None
    said = " ".join(problem.reason for problem in problems)
    for name in ("loop_count=99", "loop_norm", "warp", "step", "metric", "dims", "layer", "../x", "gone", "other"):
        assert name in said
    assert {"loop_count", "loop_norm", "link"} == {problem.control for problem in problems}


def test_both_languages_say_the_same() -> None:
    assert TEXTS["en"].keys() == TEXTS["zh"].keys()
    for key, english in TEXTS["en"].items():
        assert re.findall(r"\{\w+\}", english) == re.findall(r"\{\w+\}", TEXTS["zh"][key])
        assert re.search(r"[\u4e00-\u9fff]", TEXTS["zh"][key])
