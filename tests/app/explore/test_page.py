"""The Explore page's events: what goes up with them, what comes back, and how many there are."""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Callable
from typing import Any

import gradio as gr
import pytest

from loopviz.app import controls as st
from loopviz.app.explore import layout
from loopviz.app.explore import page as pages
from loopviz.app.explore.page import ExplorePage
from loopviz.app.explore.run import Registry
from loopviz.app.explore.service import Service
from loopviz.app.sessions.models import ModelRoom
from loopviz.engine.local import LocalEngine as Loaded
from tests.app.page_double import unwire
from tests.conftest import make_llama, make_tokenizer


@pytest.fixture(scope="module")
def page() -> ExplorePage:
    from loopviz.model.checkpoints.load import as_loop_llama

    loaded = Loaded("tiny", as_loop_llama(make_llama(num_hidden_layers=6)).eval(), make_tokenizer())
    made = ExplorePage(Service(ModelRoom("tiny", load=lambda *_: loaded), Registry()))
    made.service.room.get("tiny")
    return made


def form(page: ExplorePage, word: Any = "", **change: Any) -> dict[Any, Any]:
    """The form as Gradio hands it in."""
    values = st.defaults() | {"model": "tiny", "block_start": 2, "block_end": 3} | change
    parts = page.parts
    given = {component: values[name] for name, component in parts.controls.items()}
    return {**given, parts.prompt: "Once", parts.lang: "en", page.live: word}


def events(page: ExplorePage, keep: Callable[[Any], bool]) -> list[Any]:
    return [fn for fn in page.demo.fns.values() if keep(fn)]


def test_no_box_is_hidden_to_carry_what_a_visitor_never_sees(page: ExplorePage) -> None:
    """Two hidden boxes, later four, carried whose settings these are, what was touched, and what a model brings."""
    boxes = [block for block in page.demo.blocks.values() if isinstance(block, (gr.Textbox, gr.JSON, gr.State))]
    assert {*boxes} == {page.parts.prompt, page.parts.controls["input"]}
    hidden = [block for block in page.demo.blocks.values() if getattr(block, "visible", True) is not True]
    known = {page.parts.keep, *page.parts.examples}  # which have words, and are seen, when there is something to say
    assert set(hidden) <= known


def test_a_press_of_run_is_one_event_and_what_follows_its_end(page: ExplorePage) -> None:
    """It was a chain of six: a press, a start, looks, refusals, where the model is, and a script for each."""
    pressed = {page.parts.run._id, page.parts.stop._id}
    assert events(page, lambda fn: any(target in pressed for target, _ in fn.targets)) == [], "the script listens"
    (start,) = events(page, lambda fn: (page.live._id, "start") in fn.targets)
    after = [start]
    while more := events(page, lambda fn: fn.trigger_after == after[-1]._id):
        (following,) = more
        after.append(following)
    assert [fn.name for fn in after[:2]] == ["_run", "_settle"]
    assert len(after) == 3
    assert after[2].fn is None, "the script puts a refusal's words into the form"


@pytest.mark.parametrize(
    ("answer", "outputs"),
    [
        (lambda page: page._speak(form(page)), lambda parts: {parts.keep, *parts.worded, *parts.faced}),
        (lambda page: page._settle(form(page)), lambda parts: {parts.keep, *parts.faced}),
        (lambda page: page._shorten(form(page)), lambda parts: {parts.prompt, parts.keep}),
        (lambda page: page._suit(form(page, json.dumps({"suits": ""}))), lambda parts: {parts.live, *parts.faced}),
    ],
    ids=["speak", "settle", "shorten", "suit"],
)
def test_handlers_answer_by_component_and_for_all_they_may_change(
    page: ExplorePage, answer: Callable[[ExplorePage], Any], outputs: Callable[[Any], set[Any]]
) -> None:
    """They returned lists of up to 53 updates, counted by hand: one component more, and all behind it were another's."""
    assert answer(page).keys() == outputs(page.parts)


def test_no_handler_counts_positions() -> None:
    """Of what stands on the page: `3 + len(PRESETS) + len(CONTROLS)`."""
    for module in (pages, layout):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            assert not (isinstance(node, ast.BinOp) and "len" in ast.dump(node)), ast.unparse(node)
            assert not (isinstance(node, ast.Starred) and isinstance(node.ctx, ast.Store)), ast.unparse(node)


def test_what_the_script_knows_comes_in_the_live_element_s_place(page: ExplorePage) -> None:
    word = json.dumps({"touched": ["loop_count"], "gave": {"loop_damping": 0.5}, "suits": "another"})
    prompt, lang, read = page._read(form(page, word))
    assert (prompt, lang) == ("Once", "en")
    assert (read.suits, read.touched, read.gave) == ("another", ("loop_count",), {"loop_damping": 0.5})
    for nothing in ("", None, 3, "no JSON", "[]", "{}", json.dumps({"suits": 3}), page.live.value):
        _, _, read = page._read(form(page, nothing))
        assert (read.suits, read.touched, read.gave) == (page.suits, (), {}), nothing


def test_what_a_model_brings_is_never_said_twice_in_the_same_words(page: ExplorePage) -> None:
    """A page hears of changes of the live element alone: the same once more would never come."""
    said = [page._suit(form(page, json.dumps({"suits": ""})))[page.live] for _ in range(2)]
    first, second = map(unwire, said)
    assert first["id"] != second["id"]
    assert {**first, "id": ""} == {**second, "id": ""}
    assert first["model"] == "tiny"


def test_a_run_taken_over_takes_the_place_of_all_that_was_set(page: ExplorePage) -> None:
    asked = gr.EventData(None, {"model": "glassbox"})
    own = {page.parts.prompt: page.parts.prompt.value, page.parts.lang: "en"}
    brought = unwire(page._adopt(asked, own))
    assert (brought["kind"], brought["whole"], brought["suits"]) == ("brought", True, "")
    assert brought["changes"] == {"model": "glassbox"}
    assert brought["prompt"] != page.parts.prompt.value, "a prompt of ours gives way to its own"
    assert "prompt" not in unwire(page._adopt(asked, own | {page.parts.prompt: "My own words"}))
    gone = unwire(page._adopt(gr.EventData(None, {"run": "nobody's"}), own))
    assert (gone["kind"], gone["bad"]) == ("status", True)


def test_a_run_may_be_made_again_with_another_threshold_of_its_gate(
    page: ExplorePage, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = st.defaults() | {"model": "tiny"}
    monkeypatch.setattr(page.service, "settings_of", lambda run: (dict(values), "Once", []) if run == "one" else None)
    own = {page.parts.prompt: "", page.parts.lang: "en"}
    brought = unwire(page._adopt(gr.EventData(None, {"run": "one", "exit_threshold": 0.35}), own))
    assert (brought["changes"]["exit_selection"], brought["changes"]["exit_threshold"]) == ("gate", 0.35)
    assert brought["prompt"] == "Once"
    same = unwire(page._adopt(gr.EventData(None, {"run": "one"}), own))
    assert same["changes"]["exit_selection"] == "last"


def test_every_method_that_an_event_s_script_calls_is_the_form_s(page: ExplorePage) -> None:
    import re

    from loopviz.paths import WEB

    script = (WEB / "explore" / "form_state.js").read_text(encoding="utf-8")
    called = {
        name
        for fn in page.demo.get_config_file()["dependencies"]
        for name in re.findall(r"\b(?:loopvizForm\?|form)\.(\w+)\(", fn["js"] if isinstance(fn["js"], str) else "")
    }
    assert called >= {"touch", "choose", "bring", "adopted", "start", "settled", "word"}
    assert all(re.search(rf"^  {name}\(", script, re.M) for name in called), called


def test_an_event_that_fails_says_so_in_the_form_s_language(page: ExplorePage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "_faces", lambda *_, **__: 1 / 0)
    for lang, words in (("en", "Reference"), ("zh", "编号")):
        with pytest.raises(gr.Error, match=words):
            page._guarded(page._speak)(form(page) | {page.parts.lang: lang})
