"""One precision for a whole measurement: the model is held in it, what came of it says so, and it is refused beside its control."""

from __future__ import annotations

import base64
import copy
import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from loopviz.app import contract
from loopviz.app.controls.link_word import decode
from loopviz.app.explore.run import Registry
from loopviz.app.explore.service import Service
from loopviz.app.lab.service import Laboratory
from loopviz.app.lab.tool import tool
from loopviz.app.sessions.models import ModelRoom
from loopviz.app.sessions.tools import ToolRefused
from loopviz.app.texts import LANGUAGES, text
from loopviz.checks import ABSENT, FieldError
from loopviz.engine.local import LocalEngine as Loaded
from loopviz.engine.lowered import PrecisionRefused
from loopviz.lab import TASKS
from loopviz.model.checkpoints.errors import Note
from loopviz.model.precision import lower
from tests.app.lab.test_page import GATE, TOY, asked, put_together, said


@pytest.fixture
def laboratory(endless: Loaded, monkeypatch: pytest.MonkeyPatch) -> Laboratory:
    """Of a server whose model, "tiny", can be had as it has it and in half, and in nothing else."""
    monkeypatch.setitem(TASKS, "toy", TOY)
    GATE.set()
    lowered: Any = lower(copy.deepcopy(endless.model), torch.bfloat16)
    note = Note("precision_half", "", {"dtype": "bfloat16"})
    half = Loaded("tiny", lowered, endless.tokenizer, "made here", notes=(note,))

    def load(name: str, progress: Any, local: bool, precision: str = "server") -> Loaded:
        if precision not in ("server", "half"):
            raise PrecisionRefused("precision_refused", "no kernel", precision=precision, dtype=precision)
        return half if precision == "half" else endless

    return Laboratory(Service(ModelRoom("tiny", load=load), Registry()), every=0.01)


def model(laboratory: Laboratory, **question: Any) -> dict[str, Any]:
    answer = json.loads(laboratory.model(json.dumps({"model": "tiny", "lang": "en", "look": False, **question})))
    contract.check(answer, (contract.LabModel,), "model")
    return answer


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_measurement_is_made_in_it_and_says_so(laboratory: Laboratory, lang: str) -> None:
    page = put_together(said(laboratory.run(asked(precision="half", lang=lang), "me")))
    assert (page["end"], page["held"]) == ("done", text(lang, "measured.held", dtype="bfloat16"))
    [run] = laboratory.runs.of_session("me")
    assert run.experiment.subject.model.dtype is torch.bfloat16
    file = json.loads(laboratory.download(json.dumps({"run": page["run"], "kind": "json"})))
    assert json.loads(base64.b64decode(file["data"]))["model"]["dtype"] == "bfloat16"
    word = json.loads(laboratory.link(json.dumps({"run": page["run"], "row": 2, "lang": lang})))["word"]
    assert decode(word)[0].values["precision"] == "half"
    other = put_together(said(laboratory.run(asked(lang=lang), "you")))
    assert other["held"] == "", "nobody else's is"
    word = json.loads(laboratory.link(json.dumps({"run": other["run"], "row": 2, "lang": lang})))["word"]
    assert decode(word)[0].values["precision"] == "server"


def test_the_page_hears_what_it_costs_and_how_long_it_takes_so(laboratory: Laboratory) -> None:
    laboratory.room.get("tiny", precision="half")
    found = model(laboratory, precision="half")
    assert "tiny in half is ready" in found["text"]
    assert found["notes"]["said"] == [text("en", "note.precision_half", dtype="bfloat16")]
    assert found["precision"]["info"].startswith(text("en", "precision.info.half"))
    question = {"lang": "en", "model": "tiny", "task": "perplexity", "values": {"text": "a b c"}, "cut": False}
    times = {
        precision: json.loads(laboratory.sizes(json.dumps({**question, "precision": precision})))["sizes"]
        for precision in ("half", "server")
    }
    assert all(size["text"] for size in times["half"])
    assert not any(size["text"] for size in times["server"]), "that one is not here"
    laboratory.room.get("tiny")
    assert "notes" not in model(laboratory)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_what_cannot_be_had_is_refused_beside_the_control_with_a_way_out(laboratory: Laboratory, lang: str) -> None:
    last = said(laboratory.run(asked(precision="int8", lang=lang), "me"))[-1]
    contract.check(last, contract.MESSAGES["lab"], "status")
    assert (last["over"], last["bad"], last["field"]) == (True, True, "precision")
    assert last["act"] == {"label": text(lang, "precision.again"), "precision": "exact"}
    found = model(laboratory, precision="int8", lang=lang)
    assert (found["state"], found["precision"]["bad"]) == ("failed", True)
    assert "tiny" in found["precision"]["info"]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_ttt_model_has_none_of_it_and_is_named(laboratory: Laboratory, lang: str) -> None:
    why = text(lang, "limit.precision_ttt", precision="half", name="stories-ttt")
    last = said(laboratory.run(asked(model="stories-ttt", precision="half", lang=lang), "me"))[-1]
    assert (last["field"], why in last["text"], last["act"]["precision"]) == ("precision", True, "exact")
    found = model(laboratory, model="stories-ttt", precision="half", lang=lang)
    assert found["precision"] == {"info": text(lang, "refused", reason=why), "on": True, "bad": True}


@pytest.mark.parametrize("wrong", ["coarse", 7, ["exact"]])
def test_what_is_no_precision_is_refused_by_name(laboratory: Laboratory, wrong: Any) -> None:
    last = said(laboratory.run(asked(precision=wrong), "me"))[-1]
    assert (last["over"], last["bad"], last["field"]) == (True, True, "precision")
    assert "server, exact, half, int8, auto" in last["text"]
    assert model(laboratory, precision=wrong)["precision"]["bad"]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_numbers_that_grow_beyond_float16_are_offered_again_in_exact(
    laboratory: Laboratory, lang: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def grown(subject: Any, params: Any) -> Iterator[dict[str, Any]]:
        raise FieldError("", ABSENT, "logits_nan_float16")
        yield {}

    monkeypatch.setitem(TASKS, "toy", dataclasses.replace(TOY, run=grown))
    messages = said(laboratory.run(asked(precision="half", lang=lang), "me"))
    last = messages[-1]
    assert (last["field"], last["over"], last["act"]["precision"]) == ("precision", True, "exact")
    assert text(lang, "precision.overflow") in last["text"]
    assert not any("--" in str(message.get("reason", "")) for message in messages), "a page has no command line"


def test_a_program_names_it(laboratory: Laboratory) -> None:
    measure = tool(laboratory)
    argument = measure.schema()["properties"]["precision"]
    assert (argument["enum"], argument["default"]) == (["server", "exact", "half", "int8", "auto"], "server")

    def answered(**more: Any) -> Any:
        calls = measure.carry_out({"task": "toy", **more}, "a program")
        while True:
            try:
                next(calls)
            except StopIteration as end:
                return end.value

    assert answered(precision="half")["manifest"]["model"]["dtype"] == "bfloat16"
    assert answered()["manifest"]["model"]["dtype"] == "float32"
    for wrong, says in (("coarse", "must be one of 'server', 'exact'"), ("int8", "no kernel")):
        with pytest.raises(ToolRefused, match=says) as refused:
            answered(precision=wrong)
        assert [*refused.value.fields] == ["precision"]
