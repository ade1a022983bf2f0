"""What the Lab opens with: a recorded measurement a task; sizes with the time they take here."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from loopviz.app import contract
from loopviz.app.contract import check
from loopviz.app.explore.run import Registry
from loopviz.app.explore.service import Service
from loopviz.app.lab import recorded
from loopviz.app.lab.run import said_of
from loopviz.app.lab.service import Laboratory
from loopviz.app.sessions.models import ModelRoom
from loopviz.app.texts import LANGUAGES
from loopviz.engine.local import LocalEngine as Loaded
from loopviz.engine.work import Rate, Work
from loopviz.lab import TASKS
from tests.app.by_hand import only
from tests.conftest import make_llama

WORDS = "Once upon a time there was a little loop that went round and round. " * 60


@pytest.fixture(scope="module")
def loaded(tiny_tokenizer: Any) -> Loaded:
    from loopviz.model.checkpoints.load import as_loop_llama

    return Loaded("tiny", as_loop_llama(make_llama()).eval(), tiny_tokenizer, "made here")


@pytest.fixture
def laboratory(loaded: Loaded) -> Laboratory:
    made = Laboratory(Service(ModelRoom("tiny", load=only(loaded)), Registry()), every=0.01)
    made.room.get("tiny", "en", lambda: False)
    return made


def look(laboratory: Laboratory, task: str, lang: str = "en") -> dict[str, Any]:
    return json.loads(laboratory.look(json.dumps({"run": f"{recorded.PREFIX}{task}", "lang": lang})))


@pytest.mark.parametrize("task", list(TASKS))
def test_b11_each_measurement_has_one_to_look_at(laboratory: Laboratory, task: str) -> None:
    for lang in LANGUAGES:
        found = look(laboratory, task, lang)
        check(found, (contract.LabSnapshot,), "recorded")
        assert found["end"] == "done"
        assert found["headline"]
        assert found["done"] >= len(found["rows"]) > 0
        assert (found["figure"] is None) == (TASKS[task].plot is None)
        assert found["opens"] is False
    answer = json.loads(laboratory.download(json.dumps({"run": f"{recorded.PREFIX}{task}", "kind": "json"})))
    assert answer["kind"] == "file"


@pytest.mark.parametrize(("lang", "so_far"), [("en", "So far: "), ("zh", "到目前为止：")])
def test_what_part_of_a_table_comes_to_is_said_to_be_so_far(lang: str, so_far: str) -> None:
    """“Best at 2 loops” while eight are to come is no result."""
    kept = recorded.stored("perplexity")
    assert kept is not None
    part = dataclasses.replace(kept, rows=kept.rows[:3], complete=False)
    assert said_of(part, lang).startswith(so_far)
    assert not said_of(kept, lang).startswith(so_far)
    assert said_of(dataclasses.replace(part, rows=[]), lang) == ""


def test_b11_the_trained_range_is_on_the_recorded_figure(laboratory: Laboratory) -> None:
    [shape] = look(laboratory, "perplexity")["figure"]["layout"]["shapes"]
    assert (shape["x0"], shape["x1"]) == (1, 16)


def test_b11_what_is_not_recorded_is_gone(
    laboratory: Laboratory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert look(laboratory, "nothing") == {"kind": "gone"}
    monkeypatch.setattr(recorded, "FOLDER", tmp_path)
    monkeypatch.setattr(recorded, "stored", recorded.stored.__wrapped__)
    assert look(laboratory, "influence") == {"kind": "gone"}
    recorded.path_of("influence").write_text("{}", encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        assert look(laboratory, "influence") == {"kind": "gone"}
    assert "lab-influence.json" in caplog.text
    tasks = json.loads(laboratory.tasks("{}"))["tasks"]
    assert {task["name"]: task["kept"] for task in tasks}["influence"] is True
    assert {task["name"]: task["kept"] for task in tasks}["where"] is False


# --- sizes ------------------------------------------------------------------------------------------------------------


def sizes(laboratory: Laboratory, task: str, lang: str = "en", **more: Any) -> dict[str, Any]:
    asked = {"lang": lang, "model": "tiny", "task": task, "values": {"text": WORDS}, "cut": False} | more
    answer = json.loads(laboratory.sizes(json.dumps(asked)))
    check(answer, (contract.LabSizes,), "sizes")
    return answer


@pytest.mark.parametrize("task", list(TASKS))
def test_b11_every_measurement_comes_quick_and_full_with_its_time(laboratory: Laboratory, task: str) -> None:
    more = {"values": {"text": WORDS, "csv": "prompt\nOnce upon\nThe dog"}}
    found = sizes(laboratory, task, **more)["sizes"]
    assert len(found) == len(TASKS[task].sizes) == 2
    assert [size.words["en"] for size in TASKS[task].sizes] == ["Quick", "Full"]
    assert all(one["text"].startswith("about ") for one in found), found
    assert all(one["text"].startswith("约") for one in sizes(laboratory, task, "zh", **more)["sizes"])


def test_b11_quick_reads_as_much_as_five_seconds_allow_here(
    laboratory: Laboratory, loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(loaded), "rate", lambda self, doubted=False: Rate(0.0, 1e-9, 0.0, 0.0, 0.0))
    whole = sizes(laboratory, "perplexity")["sizes"][0]
    monkeypatch.setattr(type(loaded), "rate", lambda self, doubted=False: Rate(0.0, 1e-3, 0.0, 0.0, 0.0))
    found = sizes(laboratory, "perplexity")["sizes"]
    assert whole["values"]["limit_tokens"] == 512
    assert 64 <= found[0]["values"]["limit_tokens"] < 512
    assert found[0]["text"] in ("about 3 s", "about 4 s", "about 5 s")
    assert found[1]["values"]["limit_tokens"] == 4096, "the full one is what it is"
    assert found[0]["values"]["window"] == 64
    assert found[0]["values"]["paths"] == "full", "whole passes alone"


def test_b11_what_cannot_be_told_is_not(laboratory: Laboratory, loaded: Loaded) -> None:
    assert [one["text"] for one in sizes(laboratory, "perplexity", values={})["sizes"]] == ["", ""]
    assert [one["text"] for one in sizes(laboratory, "perplexity", model="nowhere/else")["sizes"]] == ["", ""]
    assert sizes(laboratory, "nothing")["sizes"] == []
    assert sizes(laboratory, "perplexity", values={"text": WORDS, "loops": "many"})["as_set"] == ""
    found = sizes(laboratory, "perplexity", values={"text": WORDS[:400]}, cut=True)["sizes"]
    assert all(one["text"].endswith("or more") for one in found), "of a text of which only the beginning is known"


def test_b11_an_estimate_is_the_work_at_the_measured_speed(
    laboratory: Laboratory, loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(loaded), "rate", lambda self, doubted=False: Rate(1.0, 0.0, 0.0, 0.0, 0.0))
    task = dataclasses.replace(TASKS["influence"], work=lambda subject, params: Work(passes=42.0))
    monkeypatch.setitem(TASKS, "influence", task)
    assert sizes(laboratory, "influence")["sizes"][1]["text"] == "about 40 s"
