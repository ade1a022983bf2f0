"""Comparisons as the page starts them: refused in words, stopped, never seen by another; messages that add up."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest
import torch

from loopviz.app import controls as st
from loopviz.app.compare.page import _data
from loopviz.app.compare.request import Asked
from loopviz.app.compare.service import Comparisons
from loopviz.app.controls.link_word import PageState, decode, encode
from loopviz.app.explore.run import Registry
from loopviz.app.explore.service import Service
from loopviz.app.page import nav
from loopviz.app.profile import PUBLIC
from loopviz.app.sessions.models import ModelRoom
from loopviz.app.texts import LANGUAGES, table
from loopviz.engine.local import LocalEngine as Loaded
from loopviz.lab import Subject, repeat
from loopviz.panels import apply
from loopviz.paths import WEB
from tests.app.by_hand import only
from tests.app.page_double import unpack, unwire

BLOCK = {"block_start": 1, "block_end": 1}
EMA = {**BLOCK, "loop_count": 3, "kv_cache_mode": "merge_strategy"}
TOO_FAR = {"block_start": 1, "block_end": 9}


@pytest.fixture
def comparisons(endless: Loaded) -> Comparisons:
    return Comparisons(Service(ModelRoom("tiny", load=only(endless)), Registry()), every=0)


def asked(*cards: dict[str, Any] | None, **change: Any) -> dict[str, Any]:
    """What the page's script sends; None is the plain model."""
    made = [{"name": f"c{i}", "plain": values is None, "values": values or {}} for i, values in enumerate(cards)]
    usual = {"lang": "en", "model": "tiny", "prompt": "Once upon", "shared": {"max_new_tokens": 5}, "ticket": "t1"}
    return usual | {"cards": made, "baseline": 0, "continuation": " a time"} | change


def said(stream: Iterator[str]) -> list[dict[str, Any]]:
    return [unwire(text) for text in stream]


def of_kind(messages: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [message for message in messages if message["kind"] == kind]


def begun(stream: Iterator[str]) -> str:
    """Go on until there is something to show; the comparison's id."""
    return next(message["run"] for message in map(unwire, stream) if message["kind"] == "snapshot")


def put_together(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """What a page that gets every message ends with: the snapshot, and what came after it."""
    [page] = of_kind(messages, "snapshot")
    for news in of_kind(messages, "news"):
        assert news["first"] == page["seq"]
        page["seq"], page["end"] = news["last"], news["end"]
        page |= {name: news[name] for name in ("pareto", "verdict") if name in news}
        for place, card in news["cards"].items():
            before = page["cards"][place]["pieces"]
            assert card["from"] == len(before)
            page["cards"][place] = {**card, "from": 0, "pieces": before + card["pieces"]}
        for name, ops in news["ops"].items():
            apply(page["figures"][name], unpack(ops))
    return page


def test_the_messages_add_up_to_everything_there_is(comparisons: Comparisons) -> None:
    messages = said(comparisons.run(asked(None, BLOCK, EMA), "me"))
    page = put_together(messages)
    assert len(of_kind(messages, "news")) > 10, "texts and progress come while it runs"
    assert page["end"] == "done"
    assert page == json.loads(comparisons.look(json.dumps({"run": page["run"], "lang": "en"})))
    assert [len(card["pieces"]) for card in page["cards"].values()] == [5, 5, 5]
    assert {card["row"]["setup"] for card in page["cards"].values()} == {"c0", "c1", "c2"}
    assert {column["name"] for column in page["columns"]} == page["cards"]["0"]["row"].keys()
    assert [len(line["x"]) for line in page["figures"]["loops"]["data"]] == [5, 5, 5]


def test_h2_a_comparison_is_weighed_as_it_grows_and_ends_where_the_server_has_no_more_room(
    comparisons: Comparisons,
) -> None:
    keeper = comparisons.jobs.keeper
    page = put_together(said(comparisons.run(asked(None, BLOCK), "me")))
    assert keeper.total == comparisons.runs.get(page["run"]).nbytes > 1_000
    keeper.profile = dataclasses.replace(PUBLIC, run_bytes=1)
    page = put_together(said(comparisons.run(asked(None, BLOCK), "you")))
    assert page["end"] == "memory"
    assert all(table(lang)["compare.memory"] for lang in LANGUAGES)
    comparisons.forget("me")
    comparisons.forget("you")
    assert keeper.total == 0


def test_what_is_refused_says_so_on_its_card_and_the_others_run(comparisons: Comparisons) -> None:
    [snapshot] = of_kind(messages := said(comparisons.run(asked(None, TOO_FAR, EMA, baseline=2), "me")), "snapshot")
    assert "layer 9" in snapshot["refused"]["1"]
    page = put_together(messages)
    assert page["cards"].keys() == {"0", "2"}
    assert page["baseline"] == 2
    assert page["figures"]["kv"]["data"][1]["line"] != page["figures"]["kv"]["data"][0]["line"]
    last = said(comparisons.run(asked(TOO_FAR, {"loop_count": "x"}), "me"))[-1]
    assert last["over"]
    assert last["reasons"].keys() == {"0", "1"}
    assert last["ticket"] == "t1"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"prompt": " "}, "empty"),
        ({"prompt": None}, "empty"),
        ({"prompt": "x" * 30_000}, "30000"),
        ({"continuation": "x" * 30_000}, "30000"),
        ({"continuation": " and on" * 400}, "continuation: "),
        ({"prompt": "Once \ud83d"}, "prompt: half a surrogate pair at character 5"),
        ({"continuation": " a \ud83d time"}, "continuation: half a surrogate pair at character 3"),
        ({"cards": []}, "0 configurations"),
        ({"cards": [{}] * 7}, "7 configurations"),
        ({"cards": "many"}, "0 configurations"),
        ({"shared": {"temperature": 99, "greedy": False}}, "temperature=99"),
        ({"model": "nobody/knows"}, "no such file"),
    ],
)
def test_what_cannot_be_is_refused_in_words_and_leaves_nothing(
    comparisons: Comparisons, wrong: dict[str, Any], says: str
) -> None:
    last = said(comparisons.run(asked(None, BLOCK, **wrong), "me"))[-1]
    assert last["over"]
    assert last["bad"]
    assert says in last["text"]
    assert len(comparisons.runs) == 0


@pytest.mark.parametrize(
    "payload",
    [None, [], {"cards": [{"name": 3, "values": []}, None, 5], "lang": {}, "baseline": "1", "shared": 4, "ticket": 9}],
)
def test_anything_may_be_asked(comparisons: Comparisons, payload: Any) -> None:
    read = Asked.read(payload, "tiny")
    assert read.model == "tiny"
    assert said(comparisons.run(payload, "me"))[-1]["over"]
    assert json.loads(comparisons.check(json.dumps(payload)))["kind"] == "checked"


def test_names_are_told_apart() -> None:
    cards = [{"name": "a"}, {"name": "a"}, {"name": ""}, {"name": " a "}]
    assert Asked.read({"cards": cards}, "tiny").names() == ["a", "a (2)", "3", "a (3)"]


def test_one_is_stopped_and_the_others_go_on(comparisons: Comparisons) -> None:
    messages = []
    for text in comparisons.run(asked(None, BLOCK, EMA, shared={"max_new_tokens": 20}), "me"):
        messages.append(unwire(text))
        card = messages[-1].get("cards", {}).get("1", {})
        if len(card.get("pieces", [])) and card.get("done") == 3:
            comparisons.stop(json.dumps({"ticket": "t1", "place": 1}))
    page = put_together(messages)
    assert page["end"] == "done"
    assert [page["cards"][place]["stage"] for place in "012"] == ["done", "stopped", "done"]
    assert page["cards"]["1"]["row"]["new_tokens"] == 3
    told = [message["cards"] for message in of_kind(messages, "news")]
    first = next(cards["1"] for cards in told if cards.get("1", {}).get("stage") == "stopped")
    assert "row" not in first, "that comes in its turn; it is stopped while the others are still written"
    [run] = comparisons.runs.of_session("me")
    assert not run.experiment.manifest["complete"], "its row is not what the manifest would give again"


def test_all_are_stopped_and_what_was_measured_stays(comparisons: Comparisons) -> None:
    messages = []
    for text in comparisons.run(asked(None, BLOCK, EMA), "me"):
        messages.append(unwire(text))
        if messages[-1].get("cards", {}).get("0", {}).get("row"):
            comparisons.stop(json.dumps({"ticket": "t1"}))
    page = put_together(messages)
    assert page["end"] == "stopped"
    assert page["cards"]["0"]["row"]["perplexity"] is not None
    assert page["cards"]["2"]["stage"] == "stopped"
    row = page["cards"]["2"]["row"]  # its text was written with the others'
    assert (row["new_tokens"], row["ms_per_token"], row["perplexity"]) == (5, None, None)


@pytest.mark.parametrize("at", [5, 30, 100, 200])  # the prompt, a pass that texts share, timing, scoring
@pytest.mark.parametrize("how", ["stop", "leave"])
def test_h1_a_comparison_is_left_in_the_middle_of_a_pass(
    comparisons: Comparisons, endless: Loaded, how: str, at: int
) -> None:
    """At once while the prompt is read, a text written, or tokens are scored; what was measured stays."""
    ran: list[int] = []

    def begin(layer: Any, given: Any) -> None:
        ran.append(1)
        if len(ran) == at:
            comparisons.stop(json.dumps({"ticket": "t1"})) if how == "stop" else comparisons.forget("me")

    handles = [layer.register_forward_pre_hook(begin) for layer in endless.model.model.layers]
    messages = said(comparisons.run(asked(None, BLOCK, EMA), "me"))
    for handle in handles:
        handle.remove()
    assert len(ran) == at, "no layer begins after it"
    assert put_together(messages)["end"] == "stopped"
    assert comparisons.jobs.places.taken() == 0


def test_h3_a_question_about_a_comparison_waits_for_no_pass(comparisons: Comparisons, endless: Loaded) -> None:
    """A sibling: each look held a thread until the prompt of a configuration was read."""
    answers: list[Any] = []

    def begin(layer: Any, given: Any) -> None:
        runs = comparisons.runs.of_session("me")
        if runs and not answers:
            asking = threading.Thread(target=lambda: answers.append(comparisons.look(json.dumps({"run": runs[0].id}))))
            asking.start()
            asking.join(20)
            answers.append(None)

    handles = [layer.register_forward_pre_hook(begin) for layer in endless.model.model.layers]
    said(comparisons.run(asked(None, BLOCK), "me"))
    for handle in handles:
        handle.remove()
    assert answers[0] is not None, "no answer within the pass"
    assert json.loads(answers[0])["kind"] == "snapshot"


@pytest.mark.parametrize("nobody_s", ["", None, 0, [], "x" * 65])
def test_l5_stop_without_a_ticket(comparisons: Comparisons, nobody_s: Any) -> None:
    messages = []
    for text in comparisons.run(asked(None, BLOCK, ticket=nobody_s), "me"):
        messages.append(unwire(text))
        comparisons.stop(json.dumps({"ticket": nobody_s}))
        comparisons.stop(json.dumps({"ticket": ""}))
        comparisons.stop(json.dumps({}))
    assert put_together(messages)["end"] == "done"


def test_a_ticket_of_ten_megabytes_is_none_and_is_not_kept(comparisons: Comparisons) -> None:
    assert put_together(said(comparisons.run(asked(None, BLOCK, ticket="t" * 10_000_000), "me")))["end"] == "done"
    assert [start.ticket for start in comparisons.jobs.starts._newest.values()] == [""]


def test_what_waits_for_its_turn_can_be_taken_back(comparisons: Comparisons) -> None:
    comparisons.stop(json.dumps({"ticket": "t1"}))
    [last] = said(comparisons.run(asked(None, BLOCK), "me"))
    assert (last["over"], last["bad"], last["text"]) == (True, False, "stopped")


def test_who_leaves_leaves_nothing_and_who_starts_anew_ends_the_old(comparisons: Comparisons) -> None:
    first = comparisons.run(asked(None, BLOCK, ticket="t1"), "me")
    run = begun(first)
    elsewhere = comparisons.run(asked(None, BLOCK, ticket="t2"), "other")
    other = begun(elsewhere)
    comparisons.forget("me")
    assert json.loads(comparisons.look(json.dumps({"run": run})))["kind"] == "gone"
    assert json.loads(comparisons.look(json.dumps({"run": other})))["kind"] == "snapshot"
    assert said(first)[-1]["end"] is not None
    closed = comparisons.run(asked(None, BLOCK), "me")
    begun(closed)
    [kept] = comparisons.runs.of_session("me")
    closed.close()
    assert kept.finished.is_set()
    assert kept.end == "stopped"
    said(comparisons.run(asked(None, BLOCK), "me"))
    assert kept not in comparisons.runs.of_session("me")
    assert len(comparisons.runs) == 2


def test_settings_are_checked_as_they_are_changed(comparisons: Comparisons, endless: Loaded) -> None:
    question = json.dumps(asked(None, {**BLOCK, "loop_strategy": "dynamic_stop"}, TOO_FAR))
    only_looked = json.dumps(
        {**json.loads(question), "look": True}
    )  # nothing is loaded for it, however quickly that would be done
    before = json.loads(comparisons.check(only_looked))
    assert before["base"] is None, "the model is not there yet"
    comparisons.room.get("tiny")
    answer = json.loads(comparisons.check(question))
    assert answer["model"]["state"] == "ready"
    assert answer["base"]["block_end"] < endless.layers
    assert answer["looped"] is False, "this model has no loop to call its own"
    plain, dynamic, far = answer["cards"]
    assert plain["controls"] == {}
    assert not dynamic["controls"]["loop_count"]["on"]
    assert "layer 1 runs until" in dynamic["about"]
    assert dynamic["refused"] is None
    assert "layer 9" in far["refused"]


def test_a_card_opens_in_explore_as_it_was(comparisons: Comparisons, endless: Loaded) -> None:
    page = put_together(said(comparisons.run(asked(None, {**EMA, "loop_damping": 0.5}), "me")))
    states = [decode(page["cards"][place]["link"], default_model="x")[0] for place in "01"]
    assert [state.prompt for state in states] == ["Once upon"] * 2
    assert {**st.NEUTRAL}.items() <= states[0].values.items()
    assert st.loop_fields(states[1].values)["merge_strategy"] == "ema"
    assert st.loop_fields(states[1].values)["loop_damping"] == 0.5
    # Explore has no switch for "no loop": its one loop must be the same model
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        one = endless.model.with_loop(**st.loop_fields({**states[0].values, **BLOCK}))(ids).logits
        none = endless.model.with_loop(loop_layers=None)(ids).logits
    assert torch.equal(one, none)


def test_the_page_opens_with_what_a_link_says(comparisons: Comparisons) -> None:
    values = st.defaults() | {"model": "tiny", "loop_count": 7, "temperature": 1.5}
    word, _ = encode(PageState(values=values, prompt="Hello"))
    opened = json.loads(comparisons.opening(json.dumps({"word": word, "lang": "en"})))
    assert (opened["prompt"], opened["values"], opened["said"]) == ("Hello", values, [])
    assert opened["beside"] is None
    broken = json.loads(comparisons.opening(json.dumps({"word": "1???", "lang": "zh"})))
    assert (broken["values"]["model"], broken["prompt"], len(broken["said"])) == ("tiny", None, 1)


def test_the_table_comes_as_files_that_repeat_it(comparisons: Comparisons, endless: Loaded) -> None:
    page = put_together(said(comparisons.run(asked(None, BLOCK), "me")))

    def file(kind: str) -> bytes:
        answer = json.loads(comparisons.download(json.dumps({"run": page["run"], "kind": kind})))
        assert answer["name"].endswith(kind)
        return base64.b64decode(answer["data"])

    rows = [page["cards"][place]["row"] for place in "01"]
    assert pd.read_csv(io.BytesIO(file("csv")))["perplexity"].tolist() == pytest.approx([r["perplexity"] for r in rows])
    assert pd.read_parquet(io.BytesIO(file("parquet")))["setup"].tolist() == ["c0", "c1"]
    manifest = json.loads(file("json"))
    assert manifest["task"] == "compare"
    assert manifest["complete"]
    assert manifest["params"]["loops"][0] is None
    assert manifest["model"]["source"] == "made here"
    times = {"tokens_per_second", "ms_per_token"}
    again = repeat(manifest, subject=Subject(endless.model, endless.tokenizer, "tiny", "made here")).run().rows
    assert [{k: v for k, v in row.items() if k not in times} for row in again] == [
        {k: pytest.approx(v) if isinstance(v, float) else v for k, v in row.items() if k not in times} for row in rows
    ]
    assert json.loads(comparisons.download(json.dumps({"run": "x"})))["kind"] == "gone"


def test_the_page_may_look_otherwise(comparisons: Comparisons) -> None:
    page = put_together(said(comparisons.run(asked(None, BLOCK), "me")))
    question = {"run": page["run"], "lang": "zh", "view": "kl", "axes": ["perplexity", "kv_bytes_per_token"]}
    seen = json.loads(comparisons.look(json.dumps(question)))
    assert seen["view"] == "kl"
    assert seen["axes"] == ["perplexity", "kv_bytes_per_token"]
    assert "困惑度" in seen["pareto"]["layout"]["xaxis"]["title"]["text"]
    assert seen["figures"]["convergence"]["data"][1]["y"] != page["figures"]["convergence"]["data"][1]["y"]
    odd = json.loads(comparisons.look(json.dumps(question | {"view": "nothing", "axes": ["stops", 4], "lang": 5})))
    assert (odd["view"], odd["axes"]) == ("kl", seen["axes"])


def test_a15_the_comparison_opens_on_memory_against_perplexity(comparisons: Comparisons) -> None:
    page = put_together(said(comparisons.run(asked(None, BLOCK), "me")))
    scored = any(row["perplexity"] is not None for row in (card["row"] for card in page["cards"].values()))
    assert list(page["axes"]) == (["kv_bytes_per_token", "perplexity"] if scored else ["ms_per_token", "agreement"])
    groups = [column["group"] for column in page["columns"]]
    assert groups == sorted(groups, key=[None, "buys", "costs", "ran"].index), "the verdict comes first"


def test_the_step_that_a_gate_chose_is_in_sight_where_one_chooses(comparisons: Comparisons) -> None:
    gated = Comparisons(Service(ModelRoom("stories-loop"), Registry()), every=0)
    loop = {"block_start": 0, "block_end": 1, "exit_selection": "gate", "exit_threshold": 0.2}
    page = put_together(said(gated.run(asked({}, loop, model="stories-loop"), "me")))
    shown = {column["name"] for column in page["columns"] if column["first"]}
    assert "read_out_mean" in shown
    rows = [page["cards"][place]["row"] for place in "01"]
    assert rows[0]["read_out_mean"] is None
    assert 1 <= rows[1]["read_out_mean"] < rows[1]["loops_mean"] == rows[0]["loops_mean"]
    plain = put_together(said(comparisons.run(asked(None, BLOCK), "me")))
    assert "read_out_mean" not in {column["name"] for column in plain["columns"] if column["first"]}


# --- the page ----------------------------------------------------------------------------------------------------------


def test_the_script_finds_every_text_it_asks_for() -> None:
    script = "".join(
        (WEB / name).read_text(encoding="utf-8")
        for name in (
            "compare/main.js",
            "compare/results.js",
            "compare/configuration_card.js",
            "core/page_head.js",
            "core/plot.js",
        )
    )
    data = _data(ModelRoom("tiny"))
    for lang in LANGUAGES:
        known = data["texts"][lang].keys()
        wanted = set(re.findall(r"text\(\"([\w.]+)\"", script)) | set(re.findall(r"\"(compare\.[\w.]+)\"", script))
        assert {"compare.run", "compare.same", "live.noplot"} <= wanted
        assert wanted <= known
        stages = ("waiting", "text", "timing", "greedy", "scoring", "done", "stopped", "refused")
        assert {f"compare.stage.{stage}" for stage in stages} <= known
        for control in data["controls"]:
            assert {
                f"{control['name']}.label",
                *(f"{control['name']}.{choice}" for choice in control["choices"]),
            } <= known


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_pages_lead_to_each_other(lang: str) -> None:
    links = nav("compare", lang)
    assert 'href="./"' in links
    assert 'href="./compare" aria-current="page"' in links
    assert table(lang)["nav.explore"] in links
