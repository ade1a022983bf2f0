"""What Compare opens with: the recorded comparison, whole, in both languages; and sweeps as a visitor makes them."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from loopviz.app import contract
from loopviz.app.compare import opening, recorded
from loopviz.app.compare.service import Comparisons
from loopviz.app.contract import check
from loopviz.app.controls.link_word import decode
from loopviz.app.explore.run import Registry
from loopviz.app.explore.service import Service
from loopviz.app.profile import PUBLIC
from loopviz.app.sessions.models import ModelRoom
from loopviz.app.texts import LANGUAGES, table
from loopviz.engine.local import LocalEngine as Loaded
from tests.app.by_hand import only
from tests.app.compare.test_service import BLOCK, EMA, asked, of_kind, put_together, said
from tests.app.page_double import unwire


@pytest.fixture
def comparisons(endless: Loaded) -> Comparisons:
    return Comparisons(Service(ModelRoom("tiny", load=only(endless)), Registry()), every=0)


def look(comparisons: Comparisons, **more: Any) -> dict[str, Any]:
    return json.loads(comparisons.look(json.dumps({"run": recorded.RUN, "lang": "en"} | more)))


@pytest.mark.parametrize("lang", list(LANGUAGES))
def test_b10_a_finished_comparison_is_there_before_anything_has_run(comparisons: Comparisons, lang: str) -> None:
    found = look(comparisons, lang=lang)
    check(found, (contract.CompareSnapshot,), "recorded")
    cards = recorded.cards()
    assert cards is not None
    assert found["end"] == "done"
    assert found["model"] == cards["model"]
    assert set(found["cards"]) == {str(i) for i in range(len(cards["cards"]))}
    assert found["names"]["0"] == table(lang)["compare.plain"]
    assert "→" in found["verdict"]
    assert found["axes"] == ["kv_bytes_per_token", "perplexity"]
    rows = [card["row"] for card in found["cards"].values() if "row" in card]
    sweep = next(card for card in found["cards"].values() if "rows" in card)
    assert all(row["perplexity"] for row in [*rows, *sweep["rows"]])
    assert [row["swept"] for row in sweep["rows"]] == [1, 2, 3, 4, 6, 8, 12, 16]
    assert all(card["pieces"] for card in found["cards"].values() if "row" in card), "their texts"
    # looking once more, as it were another's, changes nothing of the first
    assert look(comparisons, lang=lang, view="kl", axes=["loops_mean", "perplexity"])["view"] == "kl"
    assert look(comparisons, lang=lang) == found


def test_b10_each_recorded_card_opens_in_explore_as_it_ran(comparisons: Comparisons) -> None:
    found, cards = look(comparisons), recorded.cards()
    for place, card in enumerate(cards["cards"]):
        link = found["cards"][str(place)]["link"]
        assert (link is None) == bool(card["sweep"])
        if link is not None:
            state, problems = decode(link, default_model="tiny", local=True, lang="en")
            assert problems == []
            assert state.prompt == cards["prompt"]
            assert state.values["model"] == cards["model"]
            assert state.values["virtual_layer_count"] == card["values"].get(
                "virtual_layer_count", state.values["virtual_layer_count"]
            )


def test_b10_its_table_comes_as_files(comparisons: Comparisons) -> None:
    for kind in contract.TABLE_FILES:
        answer = json.loads(comparisons.download(json.dumps({"run": recorded.RUN, "kind": kind})))
        assert answer["kind"] == "file"
        assert len(answer["data"]) > 100


def test_b10_the_recorded_cards_are_those_the_page_is_set_up_with() -> None:
    assert recorded.cards()["cards"] == opening.cards()


def test_b10_a_damaged_or_missing_file_leaves_the_page_without_it_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, comparisons: Comparisons
) -> None:
    damaged = tmp_path / "damaged.json"
    damaged.write_bytes(recorded.FILE.read_bytes().replace(b'"perplexity": ', b'"perplexity": 1', 1))
    with caplog.at_level(logging.WARNING):
        assert recorded.stored(damaged) is None
        assert recorded.stored(tmp_path / "none.json") is None
        assert recorded.cards(tmp_path / "none.json") is None
    assert "digest" in caplog.text
    assert "none.json" in caplog.text
    monkeypatch.setattr(recorded, "stored", lambda: None)
    assert look(comparisons) == {"kind": "gone"}
    assert json.loads(comparisons.download(json.dumps({"run": recorded.RUN, "kind": "csv"}))) == {"kind": "gone"}


# --- the verdict of a visitor's own ----------------------------------------------------------------------------------


def test_b10_the_verdict_follows_what_has_been_measured(comparisons: Comparisons) -> None:
    messages = said(comparisons.run(asked(None, BLOCK, EMA), "me"))
    told = [message["verdict"] for message in messages if "verdict" in message]
    page = put_together(messages)
    assert told[0] == ""
    assert not told[-1].startswith("So far"), "all there is"
    between = [words for words in told[1:-1] if words and words != told[-1]]
    assert between
    assert all(words.startswith("So far: ") for words in between), (
        "nothing beats another while others are still to come"
    )
    assert not any("Only" in words for words in told), "of one alone there is nothing to say while others come"
    assert told[-1] == json.loads(comparisons.look(json.dumps({"run": page["run"], "lang": "en"})))["verdict"] != ""
    chinese = json.loads(comparisons.look(json.dumps({"run": page["run"], "lang": "zh"})))["verdict"]
    assert chinese not in ("", told[-1])


def test_b10_without_a_continuation_the_verdict_does_not_call_one_better(comparisons: Comparisons) -> None:
    page = put_together(said(comparisons.run(asked(None, BLOCK, continuation=""), "me")))
    verdict = json.loads(comparisons.look(json.dumps({"run": page["run"], "lang": "en"})))["verdict"]
    assert verdict.startswith("Without a continuation nothing says which is better.")


def test_a_comparison_that_was_stopped_says_so_far_and_does_not_speak_of_refusals(comparisons: Comparisons) -> None:
    messages = []
    for text in comparisons.run(asked(None, BLOCK, EMA), "me"):
        messages.append(unwire(text))
        if messages[-1].get("cards", {}).get("0", {}).get("row"):
            comparisons.stop(json.dumps({"ticket": "t1"}))
    page = put_together(messages)
    assert page["end"] == "stopped"
    assert page["verdict"].startswith("So far: ")
    assert "c2" in page["verdict"].partition("No value from: ")[2]
    assert "⚠" not in page["verdict"]


# --- sweeps -----------------------------------------------------------------------------------------------------------


def swept(most: Any, **more: Any) -> dict[str, Any]:
    card = {"name": "sweep", "plain": False, "values": BLOCK, "sweep": most}
    return asked(None, **more) | {"cards": [{"name": "p", "plain": True, "values": {}}, card]}


def test_b10_a_sweep_is_one_card_a_curve_and_a_row_each(comparisons: Comparisons) -> None:
    messages = said(comparisons.run(swept(4), "me"))
    [snapshot] = of_kind(messages, "snapshot")
    assert set(snapshot["cards"]) == {"0", "1"}
    last = json.loads(comparisons.look(json.dumps({"run": snapshot["run"], "lang": "en"})))
    card = last["cards"]["1"]
    assert [row["swept"] for row in card["rows"]] == [1, 2, 3, 4]
    assert [row["setup"] for row in card["rows"]] == [f"sweep: {n}" for n in (1, 2, 3, 4)]
    assert (card["stage"], card["done"], card["total"], card["link"]) == ("done", 4, 4, None)
    assert [len(last["figures"][name]["data"]) for name in ("convergence", "loops", "kv")] == [1, 1, 1]
    assert sum(len(trace["x"]) for trace in last["pareto"]["data"] if trace["name"] == "sweep") == 4
    stages = [m["cards"]["1"]["stage"] for m in of_kind(messages, "news") if "1" in m["cards"]]
    assert "sweep" in stages
    for message in messages:
        check(message, contract.MESSAGES["compare"], "message")


@pytest.mark.parametrize("most", [1, 257, 10**9, -1])
def test_b10_a_sweep_beyond_its_ends_is_refused_by_name(comparisons: Comparisons, most: int) -> None:
    [snapshot] = of_kind(said(comparisons.run(swept(most), "me")), "snapshot")
    assert f"sweep={most}" in snapshot["refused"]["1"]
    assert set(snapshot["cards"]) == {"0"}


def test_b10_a_sweep_is_refused_by_a_server_whose_limits_it_is_beyond(
    comparisons: Comparisons, monkeypatch: Any
) -> None:
    import dataclasses

    comparisons.room.get("tiny", "en", lambda: False)
    monkeypatch.setattr(comparisons.room, "profile", dataclasses.replace(PUBLIC, estimate_seconds=1e-4))
    answer = json.loads(comparisons.check(json.dumps(swept(64))))
    assert "sweep=64" in answer["cards"][1]["refused"]


def test_b10_what_a_comparison_costs_is_told_before_it_runs(comparisons: Comparisons) -> None:
    comparisons.room.get("tiny", "en", lambda: False)
    answer = json.loads(comparisons.check(json.dumps(swept(64) | {"lengths": [40, 100]})))
    check(answer, (contract.Checked,), "checked")
    assert all(card["cost"].startswith("about ") for card in answer["cards"])
    assert answer["cost"].startswith("about ")
    answer = json.loads(comparisons.check(json.dumps(swept(64) | {"lang": "zh"})))
    assert answer["cost"].startswith("约")
