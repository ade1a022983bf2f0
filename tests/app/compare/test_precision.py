"""One precision for a whole comparison: it reaches every model, is told with what came of it, and is refused beside its control."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch

from loopviz.app import contract
from loopviz.app.compare.service import Comparisons
from loopviz.app.compare.tool import tool
from loopviz.app.controls.link_word import PageState, decode, encode
from loopviz.app.explore.run import Registry
from loopviz.app.explore.service import Service
from loopviz.app.sessions.models import ModelRoom
from loopviz.app.sessions.tools import ToolRefused
from loopviz.app.texts import LANGUAGES, text
from loopviz.engine.local import LocalEngine as Loaded
from loopviz.engine.lowered import PrecisionRefused
from loopviz.model.checkpoints.errors import Note
from loopviz.model.precision import lower
from tests.app.compare.test_service import BLOCK, asked, of_kind, put_together, said

NOTE = Note("precision_half", "", {"dtype": "bfloat16"})


def in_precisions(**engines: Loaded) -> Comparisons:
    """The comparisons of a server of two models, "tiny" and "other", in the precisions that are named; in any other they are refused."""

    def load(name: str, progress: Any, local: bool, precision: str = "server") -> Loaded:
        if precision not in engines:
            raise PrecisionRefused("precision_refused", "no kernel", precision=precision, dtype=precision)
        found = engines[precision]
        return Loaded(name, found.model, found.tokenizer, "made here", notes=found.notes)

    return Comparisons(Service(ModelRoom("tiny", load=load), Registry()), every=0)


@pytest.fixture
def comparisons(endless: Loaded) -> Comparisons:
    half: Any = lower(copy.deepcopy(endless.model), torch.bfloat16)
    return in_precisions(server=endless, half=Loaded("tiny", half, endless.tokenizer, notes=(NOTE,)))


def other(name: str) -> dict[str, Any]:
    return {"name": name, "plain": False, "values": {}, "base": None, "sweep": 0, "model": name}


def checked(comparisons: Comparisons, *cards: dict[str, Any] | None, **change: Any) -> dict[str, Any]:
    answer = json.loads(comparisons.check(json.dumps(asked(*cards, **change))))
    contract.check(answer, (contract.Checked,), "checked")
    return answer


@pytest.mark.parametrize("lang", LANGUAGES)
def test_it_reaches_every_model_and_is_told_with_what_came_of_it(comparisons: Comparisons, lang: str) -> None:
    request = asked(None, BLOCK, precision="half", lang=lang)
    request["cards"].append(other("other"))
    page = put_together(said(comparisons.run(request, "me")))
    assert [card["stage"] for card in page["cards"].values()] == ["done"] * 3
    assert page["held"] == text(lang, "measured.held", dtype="bfloat16")
    assert [decode(card["link"])[0].values["precision"] for card in page["cards"].values()] == ["half"] * 3
    [run] = comparisons.runs.of_session("me")
    assert {one.model.dtype for one in (run.comparison.subject, *run.comparison.subject.beside.values())} == {
        torch.bfloat16
    }
    manifest = run.experiment.manifest
    assert (manifest["model"]["dtype"], "beside_dtypes" in manifest) == ("bfloat16", False)
    plain = put_together(said(comparisons.run(asked(None, BLOCK, lang=lang), "you")))
    assert plain["held"] == "", "nobody else's are"
    assert [decode(card["link"])[0].values["precision"] for card in plain["cards"].values()] == ["server"] * 2


def test_the_page_hears_what_it_costs_before_anything_is_compared(comparisons: Comparisons) -> None:
    for name in ("tiny", "other"):
        comparisons.room.get(name, precision="half")
    answer = checked(comparisons, None, BLOCK, other("other")["values"], precision="half")["model"]
    assert "tiny in half is ready" in answer["text"]
    assert answer["precision"]["info"].startswith(text("en", "precision.info.half"))
    assert not answer["precision"]["bad"]
    assert answer["notes"]["said"] == [text("en", "note.precision_half", dtype="bfloat16")]
    request = asked(None, precision="half")
    request["cards"].append(other("other"))
    both = json.loads(comparisons.check(json.dumps(request)))["model"]["notes"]
    assert [note.split(":")[0] for note in both["said"]] == ["tiny", "other"], "of several, each by name"
    comparisons.room.get("tiny")
    assert checked(comparisons, None, BLOCK)["model"]["notes"] is None


@pytest.mark.parametrize("lang", LANGUAGES)
def test_what_cannot_be_had_is_refused_beside_the_control_with_a_way_out(comparisons: Comparisons, lang: str) -> None:
    last = said(comparisons.run(asked(None, BLOCK, precision="int8", lang=lang), "me"))[-1]
    contract.check(last, contract.MESSAGES["compare"], "status")
    assert (last["over"], last["bad"], last["field"]) == (True, True, "precision")
    assert "precision='int8'" in last["text"]
    assert last["act"] == {"label": text(lang, "precision.again"), "precision": "exact"}
    answer = checked(comparisons, None, BLOCK, precision="int8", lang=lang)
    assert answer["model"]["precision"]["bad"]
    assert "tiny" in answer["model"]["precision"]["info"]
    assert answer["model"]["state"] == "failed"
    said(comparisons.run(asked(None, BLOCK, lang=lang), "me"))
    assert not checked(comparisons, None, BLOCK, lang=lang)["model"]["precision"]["bad"], "as the server has it"


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_ttt_model_is_refused_by_name_on_its_card_and_beside_the_control(comparisons: Comparisons, lang: str) -> None:
    request = asked(None, precision="half", lang=lang)
    request["cards"] += [other("stories-ttt"), other("other")]
    messages = said(comparisons.run(request, "me"))
    [snapshot] = of_kind(messages, "snapshot")
    why = text(lang, "limit.precision_ttt", precision="half", name="stories-ttt")
    assert snapshot["refused"] == {"1": why}
    assert [card["stage"] for card in put_together(messages)["cards"].values()] == ["done"] * 2, "the others run"
    answer = json.loads(comparisons.check(json.dumps(request)))
    assert answer["model"]["precision"] == {"info": text(lang, "refused", reason=why), "on": True, "bad": True}
    assert [card["refused"] for card in answer["cards"]] == [None, why, None]
    own = {**request, "model": "stories-ttt", "cards": request["cards"][:1] * 2}
    last = said(comparisons.run(own, "you"))[-1]
    assert (last["field"], last["act"]["precision"]) == ("precision", "exact")
    assert why in last["text"]


@pytest.mark.parametrize("wrong", ["coarse", 7, ["exact"]])
def test_what_is_no_precision_is_refused_by_name(comparisons: Comparisons, wrong: Any) -> None:
    last = said(comparisons.run(asked(None, BLOCK, precision=wrong), "me"))[-1]
    assert (last["over"], last["bad"], last["field"]) == (True, True, "precision")
    assert "server, exact, half, int8, auto" in last["text"]
    answer = json.loads(comparisons.check(json.dumps(asked(None, BLOCK, precision=wrong))))
    assert answer["model"]["precision"]["bad"]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_numbers_that_grow_beyond_float16_are_offered_again_in_exact(endless: Loaded, lang: str) -> None:
    wide: Any = copy.deepcopy(endless.model)
    with torch.no_grad():
        wide.model.layers[2].mlp.down_proj.weight.fill_(6e4)
    half: Any = lower(wide, torch.float16)
    comparisons = in_precisions(server=endless, half=Loaded("tiny", half, endless.tokenizer))
    last = said(comparisons.run(asked(None, BLOCK, precision="half", lang=lang), "me"))[-1]
    assert (last["over"], last["bad"], last["field"]) == (True, True, "precision")
    assert last["text"] == text(lang, "refused", reason=text(lang, "precision.overflow"))
    assert last["act"] == {"label": text(lang, "precision.again"), "precision": "exact"}


def test_a_link_brings_it(comparisons: Comparisons) -> None:
    word, _ = encode(PageState(values=decode("")[0].values.changed({"precision": "half"})))
    opened = json.loads(comparisons.opening(json.dumps({"word": word, "lang": "en"})))
    assert opened["values"]["precision"] == "half"


def test_a_program_names_it(comparisons: Comparisons) -> None:
    compare = tool(comparisons)
    argument = compare.schema()["properties"]["precision"]
    assert (argument["enum"], argument["default"]) == (["server", "exact", "half", "int8", "auto"], "server")
    assert "int8" in argument["description"]
    request = {
        "prompt": "Once",
        "configurations": [{"plain": True}, {"settings": BLOCK}],
        "settings": {"max_new_tokens": 3},
    }

    def answered(**more: Any) -> Any:
        calls = compare.carry_out({**request, **more}, "a program")
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
