"""A TTT model on the Compare page: beside looped ones, alone, by folder; what does not apply is refused, or said, by name."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from loopviz.app import contract
from loopviz.app import controls as st
from loopviz.app.compare.service import Comparisons
from loopviz.app.contract import check
from loopviz.app.explore.run import Registry
from loopviz.app.explore.service import Service
from loopviz.app.lab.service import Laboratory
from loopviz.app.profile import PUBLIC
from loopviz.app.sessions import bounds
from loopviz.app.sessions.models import ModelRoom
from loopviz.app.sessions.ttt_models import either_room, learns
from loopviz.app.texts import LANGUAGES, text
from tests.app.page_double import unwire
from tests.engine import tiny, tiny_ttt

NEW = {"max_new_tokens": 5}


@pytest.fixture(scope="module")
def comparisons() -> Comparisons:
    made = Comparisons(Service(ModelRoom("stories-loop"), Registry()), every=0)
    for name in ("stories-loop", "stories-ttt", "stories-attention"):
        made.room.get(name)
    return made


def card(name: str, model: str = "", **more: Any) -> dict[str, Any]:
    return {"name": name, "plain": False, "values": {}, "base": None, "sweep": 0, "model": model, **more}


def asked(*cards: dict[str, Any], **change: Any) -> dict[str, Any]:
    usual = {"lang": "en", "model": "stories-loop", "prompt": "One day, a bird", "continuation": " found a key."}
    usual |= {"shared": NEW, "ticket": "t1", "baseline": 0, "lengths": [15, 13], "linked": False, "look": False}
    return usual | {"cards": list(cards), "suits": "stories-loop"} | change


def shown(comparisons: Comparisons, lang: str, *cards: dict[str, Any], **change: Any) -> dict[str, Any]:
    messages = [unwire(message) for message in comparisons.run(asked(*cards, **change), "me")]
    run = next(message["run"] for message in messages if message["kind"] == "snapshot")
    return json.loads(comparisons.look(json.dumps({"run": run, "lang": lang})))


def checked(comparisons: Comparisons, *cards: dict[str, Any], **change: Any) -> dict[str, Any]:
    answer = json.loads(comparisons.check(json.dumps(asked(*cards, **change))))
    check(answer, (contract.Checked,), "checked")
    return answer


@pytest.mark.parametrize("lang", LANGUAGES)
def test_it_is_compared_beside_looped_models(comparisons: Comparisons, lang: str) -> None:
    cards = [card("loop"), card("ttt", "stories-ttt"), card("attention", "stories-attention")]
    page = shown(comparisons, lang, *cards)
    check(page, (contract.CompareSnapshot,), "snapshot")
    loop, ttt, attention = (page["cards"][str(place)] for place in range(3))
    assert [one["stage"] for one in (loop, ttt, attention)] == ["done"] * 3
    assert all(one["row"]["perplexity"] > 1 and len(one["pieces"]) == 5 for one in (loop, ttt, attention))
    assert ttt["row"]["memory_bytes"] == 135_168
    assert ttt["said"]["memory"] == text(lang, "compare.kept.state")
    assert ttt["said"]["loops_mean"] == ttt["said"]["stops"] == text(lang, "compare.no_loop")
    assert ttt["said"]["kv_bytes_per_token"] == text(lang, "compare.no_kv")
    assert loop["said"]["memory"] == text(lang, "compare.kept.kv")
    assert (loop["row"]["loops_mean"], attention["row"]["stops"]) == (8, "plain")
    assert ttt["link"] is None
    assert loop["link"] != attention["link"]
    assert page["axes"] == ["memory_bytes", "perplexity"]
    assert {column["name"] for column in page["columns"] if column["first"]} >= {"memory", "memory_bytes"}
    assert "ttt" in page["figures"]["loops"]["layout"]["annotations"][0]["text"]
    assert not page["figures"]["loops"]["data"][1]["y"]


def test_a_link_to_explore_opens_the_other_model_as_it_ran(comparisons: Comparisons) -> None:
    from loopviz.app.controls.link_word import decode

    page = shown(comparisons, "en", card("loop"), card("attention", "stories-attention"))
    word = page["cards"]["1"]["link"]
    values = decode(word, default_model="stories-loop", local=True, lang="en")[0].values
    assert (values["model"], values["loop_count"]) == ("stories-attention", 1)


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"values": {"loop_count": 3}}, "loop_count.label"),
        ({"values": {"kv_cache_mode": "merge_strategy"}}, "kv_cache_mode.label"),
        ({"plain": True}, "compare.plain"),
        ({"sweep": 8}, "compare.sweep"),
    ],
)
@pytest.mark.parametrize("model", ["stories-ttt", "stories-attention"])
def test_what_is_set_on_it_is_refused_by_name_before_and_as_it_begins(
    comparisons: Comparisons, change: dict[str, Any], names: str, model: str
) -> None:
    cards = [card("loop"), card("set", model, **change)]
    for lang in LANGUAGES:
        found = checked(comparisons, *cards, lang=lang)["cards"]
        assert found[0]["refused"] is None
        assert text(lang, names) in found[1]["refused"]
        assert model in found[1]["refused"]
    page = shown(comparisons, "en", *cards)
    assert page["refused"].keys() == {"1"}
    assert page["cards"].keys() == {"0"}


def test_its_card_offers_nothing_to_set_and_says_what_it_is(comparisons: Comparisons) -> None:
    linked = {"model": "stories-ttt", "values": {"loop_count": 3}}
    found = checked(comparisons, card("loop"), card("ttt", "stories-ttt"), card("linked", "stories-ttt", base=linked))
    loop, ttt, of_link = found["cards"]
    assert (loop["fixed"], ttt["fixed"], ttt["controls"], ttt["values"]) == (False, True, {}, {})
    assert loop["controls"]
    assert "TTT-Linear, 2 layers of 8 heads" in ttt["about"]
    assert ttt["cost"]
    assert text("en", "compare.ttt.linked") in of_link["about"], "ignored, with a word"
    assert of_link["refused"] is None


def test_it_may_be_the_pages_own_model(comparisons: Comparisons) -> None:
    answer = checked(comparisons, card("own"), card("loop", "stories-loop"), model="stories-ttt")
    assert answer["model"]["state"] == "ready"
    assert answer["base"] is None
    assert [one["refused"] for one in answer["cards"]] == [None, None]
    page = shown(comparisons, "en", card("own"), card("loop", "stories-loop"), model="stories-ttt")
    assert [page["cards"][place]["row"]["memory"] for place in "01"] == ["state", "kv"]
    refused = checked(comparisons, card("own"), card("x", values={"loop_count": 2}), model="stories-ttt")
    assert "TTT model" in refused["cards"][1]["refused"]


def test_by_folder_where_paths_may_be_named_and_only_there(tmp_path: Path) -> None:
    folder = tmp_path / "my-ttt"
    tiny_ttt.model(num_attention_heads=2, hidden_size=16).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    free = Comparisons(Service(ModelRoom("stories-loop"), Registry()), every=0)
    assert learns(free.room.get(str(folder)))
    free.room.get("stories-loop")
    told = checked(free, card("loop"), card("mine", str(folder)))["cards"][1]
    assert told["refused"] is None
    page = shown(free, "en", card("loop"), card("mine", str(folder)))
    assert page["cards"].keys() == {"0", "1"}
    assert page["cards"]["1"]["stage"] == "refused"
    assert "reads other tokens than stories-loop" in page["cards"]["1"]["reason"]
    hosted = Comparisons(Service(ModelRoom("stories-loop", profile=PUBLIC), Registry()), every=0)
    hosted.room.get("stories-loop")
    refused = checked(hosted, card("loop"), card("mine", str(folder)), card("ttt", "stories-ttt"))["cards"]
    assert "my-ttt" not in refused[1]["refused"]
    assert "stories-ttt" in refused[1]["refused"], "what is offered here are models of both kinds"
    assert refused[1]["state"] == "failed"
    assert refused[2]["refused"] is None


def test_one_of_a_name_that_is_none_is_refused_on_its_card_and_the_others_run(comparisons: Comparisons) -> None:
    page = shown(comparisons, "en", card("loop"), card("none", "no-such-model"))
    assert page["cards"].keys() == {"0"}
    assert "no-such-model" in page["refused"]["1"]


def test_a_model_that_was_let_go_meanwhile_refuses_its_card_and_no_other(
    comparisons: Comparisons, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loaded for its card, then dropped for the next one's sake: the whole comparison ended in a KeyError."""
    ready, gone = comparisons.room.ready, "stories-ttt"
    monkeypatch.setattr(comparisons.room, "ready", lambda name, *how: None if name == gone else ready(name, *how))
    page = shown(comparisons, "en", card("loop"), card("ttt", gone))
    assert page["cards"].keys() == {"0"}
    assert "stories-ttt" in page["refused"]["1"]


def test_the_sum_is_bounded_whichever_card_comes_first(comparisons: Comparisons) -> None:
    """A first card whose model reads less than the prompt let all others pass unadded."""
    comparisons.room.get("stories-loop")
    loaded = comparisons.room.get("stories-ttt")
    long = bounds.Compared(loaded.describe().shape, st.defaults() | {"max_new_tokens": 8})
    short = long._replace(shape=dataclasses.replace(long.shape, context=16))
    profile = dataclasses.replace(PUBLIC, work_bytes=1)
    for cards in ([short, long], [long, short]):
        assert bounds.of_comparison(cards, loaded, 40, 1, profile, "en") is not None
    assert bounds.of_comparison([short], loaded, 40, 1, profile, "en") is None, "told in its own words"


def test_both_rooms_are_one_and_shared_by_the_pages(comparisons: Comparisons) -> None:
    jobs = Service(ModelRoom("stories-loop"), Registry())
    one, other = either_room(jobs.room), either_room(jobs.room)
    assert one.ttt is other.ttt
    assert one.get("stories-ttt") is other.ready("stories-ttt")
    assert one.holds(one.get("stories-ttt"))
    assert {"stories-loop", "stories-ttt", "stories-attention"} <= {*one.names}
    assert all(one.refusal(name) is None for name in one.names)
    one.profile = dataclasses.replace(PUBLIC)
    assert jobs.room.profile is one.ttt.profile is PUBLIC or jobs.room.profile == PUBLIC


def test_the_lab_measures_it_where_it_can_and_says_so_elsewhere() -> None:
    laboratory = Laboratory(Service(ModelRoom("stories-loop"), Registry()), every=0.01)
    laboratory.room.get("stories-ttt")
    story = "One day, a bird found a key. The bird was happy and sang to the sun. " * 20
    values = {"text": story, "tokens": 200, "lengths": "16, 64", "beside": "stories-attention"}
    usual = {"lang": "en", "ticket": "t", "model": "stories-ttt"}

    def said(task: str, **change: Any) -> list[dict[str, Any]]:
        payload = {**usual, "task": task, "values": {**values, **change}}
        return [unwire(message) for message in laboratory.run(payload, "me")]

    told = said("context_length")
    assert told[-1]["end"] == "done"
    headline = next(one["headline"] for one in reversed(told) if "headline" in one)  # the last need not have it anew
    assert "stories-ttt" in headline
    assert "stories-attention" in headline
    refused = said("perplexity")[-1]
    assert "model='stories-ttt': a TTT model, and this measures loops" in refused["text"]
    asked = {"lang": "en", "model": "stories-ttt", "task": "perplexity", "values": {"text": story}, "cut": False}
    assert {size["text"] for size in json.loads(laboratory.sizes(json.dumps(asked)))["sizes"]} == {""}
    known = json.loads(laboratory.model(json.dumps({"lang": "en", "model": "stories-ttt"})))
    assert (known["loop"], known["context"]) == ({}, 4096)


def test_no_folder_is_measured_beside_another_on_a_server_for_strangers(tmp_path: Path) -> None:
    laboratory = Laboratory(Service(ModelRoom("stories-loop", profile=PUBLIC), Registry()), every=0.01)
    laboratory.room.get("stories-loop")
    values = {"text": "One day, a bird found a key. " * 40, "tokens": 100, "lengths": "16", "beside": str(tmp_path)}
    payload = {"lang": "en", "ticket": "t", "model": "stories-loop", "task": "context_length", "values": values}
    last = [unwire(message) for message in laboratory.run(payload, "me")][-1]
    assert "not one of the models that may be named here" in json.dumps(last)
    assert "stories-ttt" in json.dumps(last)
