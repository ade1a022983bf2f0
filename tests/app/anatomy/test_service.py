"""Anatomy as its page has it: a run shown, a word read again, its layers told to rounding; and what bad input gets."""

from __future__ import annotations

import copy
import dataclasses
import gc
import itertools
import json
import re
import threading
import weakref
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import pytest
import torch

from loopviz.anatomy.reread import Reread
from loopviz.anatomy.stage_list import ALL, STAGES
from loopviz.anatomy.stages import layer_stages, stages_of
from loopviz.app import contract
from loopviz.app.anatomy.page import ARTICLE, EXPERIMENTS, data
from loopviz.app.anatomy.recorded import recorded
from loopviz.app.anatomy.service import Anatomy
from loopviz.app.controls import refusal
from loopviz.app.explore.run import Registry
from loopviz.app.explore.service import Service
from loopviz.app.profile import LOCAL, PUBLIC
from loopviz.app.sessions.carried import CarriedRun
from loopviz.app.sessions.models import ModelRoom
from loopviz.app.texts import LANGUAGES, text
from loopviz.checks import FieldError
from loopviz.engine import StreamSettings, run
from loopviz.engine.local import LocalEngine
from loopviz.model.precision import lower
from loopviz.panels import hero
from loopviz.paths import PACKAGE
from loopviz.trace import Trace
from tests.anatomy.kinds import ENDS_OF_5, LAYERS, loops
from tests.anatomy.test_reread import KINDS
from tests.app.anatomy.test_packing import keeps_its_digits, unpack
from tests.app.by_hand import needs_of, only
from tests.app.page_double import unwire
from tests.engine import tiny

LOOPS = loops(ENDS_OF_5)
NUMBERS = itertools.count(1)
MINE = "m" * 22  # the id of a run that was taken along


def made(kind: str = "serial") -> tuple[Any, Trace]:
    model = tiny.model(**KINDS[kind])
    return model, run(
        model, tiny.tokenizer(), "Once upon a time", StreamSettings(max_new_tokens=6, record="full", seed=1)
    )


def served(model: Any, trace: Trace | None, **change: Any) -> Anatomy:
    """The page's service, with a run that was taken along."""
    engine = LocalEngine("tiny", model, tiny.tokenizer(), "made here")
    service = Service(ModelRoom("tiny", load=only(engine), **change), Registry())
    if trace is not None:
        service.carried.take(CarriedRun(MINE, trace, "tiny", own=True))
    return Anatomy(service)


def asked(**change: Any) -> dict[str, Any]:
    return {"lang": "en", "ticket": "t" * 16, "n": next(NUMBERS), "run": MINE, "token": 5} | change


def said(stream: Iterator[str]) -> list[dict[str, Any]]:
    found = [unwire(one) for one in stream]
    for message in found:
        contract.check(message, contract.MESSAGES["anatomy"], "anatomy")
    return found


def ask(anatomy: Anatomy, name: str, **question: Any) -> dict[str, Any]:
    contract.check(question, (contract.QUESTIONS["anatomy"][name][0],), name)
    answer = json.loads(getattr(anatomy, name)(json.dumps(question)))
    contract.check(answer, contract.QUESTIONS["anatomy"][name][1], name)
    return answer


def read(anatomy: Anatomy, **change: Any) -> dict[str, Any]:
    *_, last = said(anatomy.run(asked(**change), "me"))
    assert last["kind"] == "token", last
    return last


def refused(anatomy: Anatomy, **change: Any) -> dict[str, Any]:
    *_, last = said(anatomy.run(asked(**change), "me"))
    assert last["kind"] == "status"
    assert last["bad"]
    assert last["over"]
    return last


# --- a word, its layers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_told_is_the_probe_s_to_rounding(kind: str) -> None:
    """Every stage of every run of a layer, every strategy and cache mode."""
    model, trace = made(kind)
    anatomy = served(model, trace)
    token = read(anatomy)
    probed = Reread(model, trace).probe(5)
    assert token["agreement"]["is_the_runs"]
    assert [tuple(one) for one in token["runs"]] == [
        (one.layer, -1 if one.block is None else one.block, one.step) for one in probed.layers
    ]
    keeps_its_digits(token["tensors"]["embedding"], probed.embedding.numpy())
    for one in probed.layers:
        told = ask(anatomy, "layer", look=token["look"], layer=one.layer, step=one.step, lang="en")
        assert told["stages"] == [stage.key for stage in stages_of(probed, one, model.config)]
        for stage in layer_stages(probed, one, model.config):
            for name in stage.tensors:
                if name in ("visible", "keys", "values"):
                    continue
                keeps_its_digits(told["tensors"][name], getattr(one, name).numpy())
        kept = [told["columns"]["places"][i] for i in told["columns"]["keys"]]
        keeps_its_digits(told["tensors"]["keys"], one.keys[:, kept].numpy())
        assert told["position"] == 5


def test_the_recorded_run_opens_on_the_word_that_tells_most() -> None:
    source = recorded()
    assert source is not None
    shown = ask(served(tiny.model(), None), "show", run=None, lang="en")
    assert shown["run"] == contract.RECORDED
    assert shown["model"] == "stories-loop"
    assert not shown["linked"]
    assert shown["telling"] == hero.telling(source.trace)
    assert [word for word, _, _ in shown["tokens"]] == [frame["text"] for frame in source.trace.frames]


def test_the_next_word_another_layer_and_the_word_before_need_no_second_reading() -> None:
    """The keys and values stay; the tensors of the word before are let go of."""
    anatomy = served(*made())
    first = read(anatomy, token=5)
    reading = anatomy.runs.get(first["look"]).reading  # type: ignore[union-attr]
    second = read(anatomy, token=6)
    assert anatomy.runs.get(second["look"]).reading is reading  # type: ignore[union-attr]
    assert ask(anatomy, "layer", look=first["look"], layer=1, step=1, lang="en") == {"kind": "gone"}
    assert ask(anatomy, "layer", look=second["look"], layer=1, step=1, lang="en")["kind"] == "layer"
    assert len(anatomy.runs) == 1


def test_two_loop_steps_distances_and_what_is_drawn_from() -> None:
    model, trace = made()
    anatomy = served(model, trace)
    token = read(anatomy)
    where = {"look": token["look"], "layer": 1, "step": 1, "lang": "en"}
    pairs = ask(anatomy, "beside", **where, other=2)["stages"]
    assert pairs.keys() == {stage.name for stage in STAGES}
    assert 0 < pairs["state"][1] < 10
    probed = Reread(model, trace).probe(5)
    one = probed.layer_run(1, 1)
    assert one is not None
    told = ask(anatomy, "distance", **where, head=1, column=2, most=9)
    scores = unpack(told["scores"])
    assert told["from"] == 0
    positions, _ = one.columns()
    assert scores.shape == (10,)
    assert scores[5 - int(positions[2])] == pytest.approx(
        float(one.scores[1, 2]), rel=5e-3, abs=5e-3 * abs(scores).max()
    )
    drawn = ask(anatomy, "draw", look=token["look"], temperature=1.0, top_k=3, top_p=1.0, lang="en")
    assert drawn["kept"] == 3
    assert sum(chance > 0 for *_, chance in drawn["rows"]) == 3


def test_a_score_at_the_run_s_own_distance_is_told_however_far_it_is() -> None:
    """Of a word further than distances are told at a time, its own score was not among them."""
    model, trace = made()
    anatomy = served(model, trace, profile=dataclasses.replace(PUBLIC, distances=3))
    last = len(trace) - 1
    token = read(anatomy, token=last)
    probed = Reread(model, trace).probe(last).layer_run(1, 1)
    assert probed is not None
    where = {"look": token["look"], "layer": 1, "step": 1, "lang": "en", "head": 1}
    for column, position in enumerate(probed.columns()[0].tolist()):
        if not probed.visible[column]:
            continue
        told = ask(anatomy, "distance", **where, column=column, most=last + 8)
        scores = unpack(told["scores"])
        assert len(scores) == 3
        own = float(probed.scores[1, column])
        assert scores[last - position - told["from"]] == pytest.approx(own, rel=5e-3, abs=5e-3 * abs(scores).max())


# --- what bad input gets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("token", [-1, 10**6, 99])
def test_a_word_outside_the_run_is_told_beside_the_words(token: int, lang: str) -> None:
    last = refused(served(*made()), token=token, lang=lang)
    assert last["field"] == "token"
    assert str(token) in last["text"]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_layer_or_loop_step_outside_the_run_is_told(lang: str) -> None:
    anatomy = served(*made())
    look = read(anatomy)["look"]
    for name, layer, step, field, number in (
        ("layer", 9, 1, "layer", "9"),
        ("layer", -1, 1, "layer", "-1"),
        ("layer", 1, 7, "step", "7"),
        ("layer", 0, 2, "step", "0"),
    ):
        answer = ask(anatomy, name, look=look, layer=layer, step=step, lang=lang)
        assert (answer["kind"], answer["field"]) == ("no", field)
        assert number in answer["text"]
    answer = ask(anatomy, "beside", look=look, layer=1, step=1, other=8, lang=lang)
    assert (answer["kind"], answer["field"]) == ("no", "step")
    answer = ask(anatomy, "distance", look=look, layer=1, step=1, head=77, column=0, most=4, lang=lang)
    assert answer["kind"] == "no"
    answer = ask(anatomy, "draw", look=look, temperature=0.0, top_k=0, top_p=1.0, lang=lang)
    assert answer["kind"] == "no"


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("temperature", [0.0, 1e-5, 1e300, -1])
def test_a_temperature_that_no_run_takes_is_refused_in_the_visitor_s_words(temperature: float, lang: str) -> None:
    anatomy = served(*made())
    look = read(anatomy)["look"]
    answer = ask(anatomy, "draw", look=look, temperature=temperature, top_k=0, top_p=1.0, lang=lang)
    reason = refusal.told(FieldError("temperature", temperature, "finite_from", low="0.0001", high="100"), lang)
    assert answer == {"kind": "no", "field": "", "text": text(lang, "refused", reason=reason)}


def test_a_run_that_is_not_kept_is_gone_and_it_is_said_what_to_do() -> None:
    anatomy = served(tiny.model(), None)
    assert ask(anatomy, "show", run=MINE, lang="en") == {"kind": "gone"}
    last = refused(anatomy)
    assert last["field"] == "run"
    assert "Explore" in last["text"]
    assert ask(anatomy, "layer", look=None, layer=0, step=0, lang="en") == {"kind": "gone"}


def test_a_run_of_another_model_is_refused_with_what_differs() -> None:
    _, trace = made()
    last = refused(served(tiny.model(layers=4), trace))
    assert last["field"] == "model"
    assert "layers=4" in last["text"]


@pytest.mark.parametrize("kind", [*LAYERS, *LOOPS])
def test_what_is_told_of_any_model_the_page_knows_words_and_formulas_of(kind: str) -> None:
    """A layer's stages are such as the page was told, and what they are drawn with, and said with, is there in both languages."""
    model = tiny.model(**(LAYERS | LOOPS)[kind])
    settings = StreamSettings(max_new_tokens=2, record="full")
    anatomy = served(model, run(model, tiny.tokenizer(), "Once upon a time", settings))
    page = data(anatomy.room)
    known = {stage["key"]: stage for stage in (*page["stages"], *page["others"])}
    token = read(anatomy)
    assert token["agreement"]["is_the_runs"]
    for layer, _, step in token["runs"]:
        told = ask(anatomy, "layer", look=token["look"], layer=layer, step=step, lang="en")
        for stage in (known[key] for key in told["stages"]):
            where = told if stage["within"] else token
            assert set(stage["drawn"]) <= where["tensors"].keys(), stage["key"]
            for lang in LANGUAGES:
                for words in (f"stage.{stage['title']}", f"box.{stage['name']}", f"about.{stage['about']}"):
                    assert text(lang, f"anatomy.{words}")


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_model_whose_layers_cannot_be_told_stage_by_stage_is_refused_in_the_visitor_s_language(lang: str) -> None:
    """It made the run, and is not said to be another."""
    peft = pytest.importorskip("peft")
    model = tiny.model(**KINDS["serial"], qk_norm="head")
    worn = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"])).base_model.model
    trace = run(worn, tiny.tokenizer(), "Once upon a time", StreamSettings(max_new_tokens=6))
    last = refused(served(worn, trace), lang=lang)
    assert last["field"] == "model"
    error = FieldError("qk_norm", "head", "anatomy_lora_on_norm")
    assert last["text"] == text(lang, "anatomy.not_written", model="tiny", reason=refusal.told(error, lang))


def test_a_model_of_the_same_sizes_that_did_not_make_the_run_is_told_apart() -> None:
    """Nothing stops it from being read; what comes of it is not the run's, and is not said to be."""
    _, trace = made()
    token = read(served(tiny.model(seed=1, **KINDS["serial"]), trace))
    assert not token["agreement"]["is_the_runs"]


def test_a_plain_model_of_the_same_sizes_that_did_not_make_the_run_is_told_apart() -> None:
    """There are no states to compare, but there is the next word's log-probability."""
    _, trace = made("plain")
    agreement = read(served(tiny.model(seed=1, **KINDS["plain"]), trace))["agreement"]
    assert agreement["compared"]
    assert not agreement["is_the_runs"]


def test_a_word_of_which_no_number_was_recorded_is_not_said_to_be_the_run_s() -> None:
    model = tiny.model()
    settings = StreamSettings(max_new_tokens=3, record="off")
    trace = run(model, tiny.tokenizer(), "Once upon a time", settings)
    anatomy = served(model, trace)
    agreement = read(anatomy, token=1)["agreement"]
    assert (agreement["compared"], agreement["is_the_runs"]) == (False, False)
    agreement = read(anatomy, token=len(trace) - 1)["agreement"]
    assert (agreement["compared"], agreement["is_the_runs"]) == (True, True)


def test_a_model_that_cannot_be_had_is_told_beside_its_name() -> None:
    model, trace = made()
    anatomy = served(model, None)
    anatomy.jobs.carried.take(CarriedRun(MINE, trace, "no such model", own=False))
    assert ask(anatomy, "show", run=MINE, lang="en")["linked"]
    last = refused(anatomy, agreed=True)
    assert last["field"] == "model"
    assert read(anatomy, model="tiny")["agreement"]["is_the_runs"]  # by the name it has here


def test_a_model_that_a_file_names_is_loaded_only_once_the_visitor_agreed() -> None:
    """The page asks; a page that does not ask gets nothing."""
    model, trace = made()
    anatomy = served(model, None)
    anatomy.jobs.carried.take(CarriedRun(MINE, trace, "somebody/model", own=False))
    last = refused(anatomy)
    assert last["field"] == "model"
    assert "somebody/model" in last["text"]
    assert anatomy.room.status("somebody/model").state == "waiting"  # nothing was begun
    anatomy.jobs.carried.take(CarriedRun(MINE, trace, "tiny", own=False))
    assert not ask(anatomy, "show", run=MINE, lang="en")["linked"]  # it is the page's own
    assert read(anatomy)["agreement"]["is_the_runs"]


def test_a_stranger_s_file_names_no_folder_of_a_public_server() -> None:
    model, trace = made()
    anatomy = served(model, None, profile=PUBLIC)
    anatomy.jobs.carried.take(CarriedRun(MINE, trace, "/etc", own=False))
    last = refused(anatomy)
    assert last["field"] == "model"


def test_more_memory_than_may_be_used_is_refused_before_with_the_bytes() -> None:
    model, trace = made()
    anatomy = served(model, trace, profile=dataclasses.replace(PUBLIC, work_bytes=1000))
    last = refused(anatomy)
    assert last["field"] == "token"
    assert re.search(r"\d.* (kB|KB|KiB|MB|MiB|bytes|B)\b", last["text"]), last["text"]


def test_more_than_may_be_kept_is_refused_before_it_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the run itself, which is kept beside it."""
    model, trace = made()
    need = LocalEngine("tiny", model, tiny.tokenizer()).read_again(trace).need(5)
    profile = dataclasses.replace(PUBLIC, run_bytes=trace.nbytes + need)
    anatomy = served(model, trace, profile=profile)
    needs = needs_of(anatomy.jobs.places, monkeypatch)
    assert read(anatomy)["token"] == 5
    assert needs == [need], "what it waits for"
    profile = dataclasses.replace(profile, run_bytes=trace.nbytes + need - 1)
    anatomy = served(model, trace, profile=profile)
    last = refused(anatomy)
    assert last["field"] == "token"
    assert re.search(r"\d.* (kB|KB|KiB|MB|MiB|bytes|B)\b", last["text"]), last["text"]
    assert len(anatomy.runs) == 0


def test_a_run_stopped_within_its_prompt_is_refused() -> None:
    model, trace = made()
    last = refused(served(model, Trace(trace.meta, trace.frames[:3])), token=1)
    assert last["field"] == "run"


@pytest.mark.parametrize(
    "question", ["", "[]", "{}", '{"look": 3, "layer": "x"}', '{"look": "x", "step": true}', "\ud800", 3, None]
)
def test_nothing_in_a_question_is_trusted(question: Any) -> None:
    anatomy = served(*made())
    read(anatomy)
    for name, (_, answers) in contract.QUESTIONS["anatomy"].items():
        contract.check(json.loads(getattr(anatomy, name)(question)), answers, name)


def test_what_is_stopped_says_so_and_leaves_nothing() -> None:
    model, trace = made()
    anatomy = served(model, trace)
    anatomy.jobs.room.get("tiny")
    stream = anatomy.run(asked(), "me")
    assert unwire(next(stream))["kind"] == "status"  # it begins
    ask(anatomy, "stop", ticket="t" * 16)
    rest = [unwire(one) for one in stream]
    assert rest[-1]["over"]
    assert all(message["kind"] == "status" for message in rest)


def test_who_leaves_leaves_nothing() -> None:
    anatomy = served(*made())
    read(anatomy)
    anatomy.forget("me")
    assert len(anatomy.runs) == 0
    assert threading.active_count() < 50


def several(model: Any, trace: Trace, models: int = 1) -> tuple[Anatomy, list[weakref.ref[LocalEngine]]]:
    """The page's service where no more than so many models are held beside the default; and every one that was loaded."""
    made: list[weakref.ref[LocalEngine]] = []

    def load(name: str, progress: Any, local: bool) -> LocalEngine:
        engine = LocalEngine(name, copy.deepcopy(model), tiny.tokenizer(), "made here")
        made.append(weakref.ref(engine))
        return engine

    room = models * LocalEngine("tiny", model, tiny.tokenizer()).n_bytes
    profile = dataclasses.replace(LOCAL, model_bytes=room)
    anatomy = Anatomy(Service(ModelRoom("tiny", load=load, profile=profile), Registry()))
    anatomy.jobs.carried.take(CarriedRun(MINE, trace, "tiny", own=True))
    return anatomy, made


def test_a_model_that_is_let_go_of_is_not_held_by_what_was_read_of_it() -> None:
    anatomy, loaded = several(*made())
    look = read(anatomy, model="first")["look"]
    where = {"look": look, "layer": 1, "step": 1, "lang": "en"}
    assert ask(anatomy, "layer", **where)["kind"] == "layer"
    anatomy.room.get("second")
    gc.collect()
    assert loaded[0]() is None
    assert len(anatomy.runs) == 0
    assert ask(anatomy, "layer", **where) == {"kind": "gone"}
    assert read(anatomy, model="first")["agreement"]["is_the_runs"]  # it can be read again


def test_a_model_that_is_let_go_of_as_it_reads_reads_to_the_end_and_is_held_no_longer_than_that() -> None:
    anatomy, loaded = several(*made())
    anatomy.room.get("first")
    stream = anatomy.run(asked(model="first"), "me")
    assert unwire(next(stream))["kind"] == "status"  # it begins
    anatomy.room.get("second")
    *_, last = said(stream)
    assert last["kind"] == "token"
    assert ask(anatomy, "draw", look=last["look"], temperature=1.0, top_k=0, top_p=1.0, lang="en") == {"kind": "gone"}
    del stream
    gc.collect()
    assert loaded[0]() is None


def test_a_model_that_is_looked_into_is_not_the_one_needed_least() -> None:
    model, trace = made()
    anatomy, loaded = several(model, trace, models=2)
    look = read(anatomy, model="first")["look"]
    anatomy.room.get("second")
    assert ask(anatomy, "layer", look=look, layer=1, step=1, lang="en")["kind"] == "layer"
    anatomy.room.get("third")
    gc.collect()
    assert [engine() is None for engine in loaded] == [False, True, False]


def test_a_check_that_has_ended_holds_no_model() -> None:
    anatomy, loaded = several(*made())
    assert said(anatomy.run(asked(check="model", model="first"), "me"))[-1]["end"] == "done"
    assert len(anatomy.checks) == 1
    anatomy.room.get("second")
    gc.collect()
    assert loaded[0]() is None


# --- what the page is told once ---------------------------------------------------------------------------------------------


def test_every_stage_names_the_line_that_computes_it() -> None:
    """The number, and the words by which a browser finds the line: it is the first place that has them."""
    told = data(ModelRoom("tiny"))
    lines = (PACKAGE / "anatomy" / "llama.py").read_text(encoding="utf-8").splitlines()
    places = [entry["code"] for entry in told["stages"]] + told["article"]
    assert len(places) == len(ALL) + len(ARTICLE)
    for stage, place in itertools.zip_longest(ALL, places):
        path, _, number = place["at"].partition(":")
        assert path == "loopviz/anatomy/llama.py"
        line = lines[int(number) - 1]
        words = unquote(place["url"].partition("#:~:text=")[2])
        assert words == line.strip()
        assert next(i for i, one in enumerate(lines, 1) if words in one) == int(number)
        if stage is not None and stage.line:
            assert stage.line in line


def test_every_stage_and_function_is_worded_and_its_formula_typeset() -> None:
    told = data(ModelRoom("tiny"))
    for lang in LANGUAGES:
        texts = told["texts"][lang]
        for entry in told["stages"]:
            assert "<math" in entry["formula"]
            for part in ("stage", "box", "about"):
                assert texts[f"anatomy.{part}.{entry['name']}"]
        assert all(texts[f"anatomy.article.{place['name']}"] for place in told["article"])
        assert all(texts[f"anatomy.axis.{axis}"] for stage in ALL for axis in stage.axes)


def test_experiments_beside_a_stage_are_the_lab_s() -> None:
    from loopviz.lab.catalogue import titles

    told = data(ModelRoom("tiny"))
    named = {name for entry in told["stages"] for name in entry["lab"]}
    assert named == {name for names in EXPERIMENTS.values() for name in names} <= set(titles())
    for lang in LANGUAGES:
        assert all(told["texts"][lang][f"anatomy.lab.{name}"] for name in named)


def test_the_article_is_all_of_llama_py() -> None:
    import ast

    tree = ast.parse((PACKAGE / "anatomy" / "llama.py").read_text(encoding="utf-8"))
    named = [node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    assert [name for name in named if name not in ARTICLE] == ["head_width"]  # a line of arithmetic
    assert [name for name in named if name in ARTICLE] == list(ARTICLE)


# --- the check against transformers -----------------------------------------------------------------------------------------


def test_the_loaded_model_is_checked_in_every_number_format() -> None:
    model, trace = made("serial")
    anatomy = served(model, trace)
    anatomy.room.get("tiny")
    need = ask(anatomy, "need", article=False, model="tiny", lang="en")
    assert not need["refused"]
    assert re.search(r"\d", need["text"])
    told = said(anatomy.run(asked(check="model", model="tiny"), "me"))
    last = told[-1]
    assert (last["kind"], last["end"]) == ("parity", "done")
    wanted = [(dtype, attention) for dtype in contract.PARITY_DTYPES for attention in ("eager", "sdpa")]
    assert [(row["dtype"], row["attention"]) for row in last["rows"]] == wanted
    assert all(row["agrees"] and row["logits"] > 0 for row in last["rows"])
    for lang in LANGUAGES:
        texts = data(anatomy.room)["texts"][lang]
        assert all(texts[f"anatomy.cause.{row['cause']}"] for row in last["rows"])
    assert [message["kind"] for message in told].count("parity") == 2 + len(contract.PARITY_DTYPES)


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("which", ["model", "article"])
def test_a_check_that_is_too_large_is_refused_before_with_the_bytes(which: str, lang: str) -> None:
    model, trace = made()
    anatomy = served(model, trace, profile=dataclasses.replace(PUBLIC, work_bytes=1000))
    anatomy.room.get("tiny")
    need = ask(anatomy, "need", article=which == "article", model="tiny", lang=lang)
    assert need["refused"]
    last = refused(anatomy, check=which, model="tiny", lang=lang)
    assert last["text"] == need["text"]
    assert "anatomy check" in last["text"]


def test_what_a_check_needs_is_reckoned_once_a_number_format(monkeypatch: pytest.MonkeyPatch) -> None:
    anatomy = served(*made())
    anatomy.room.get("tiny")
    reckon, reckoned = LocalEngine.parity_need, []

    def counted(engine: LocalEngine, article: bool, dtype: str) -> Any:
        reckoned.append(dtype)
        return reckon(engine, article, dtype)

    monkeypatch.setattr(LocalEngine, "parity_need", counted)
    assert not ask(anatomy, "need", article=False, model="tiny", lang="en")["refused"]
    assert reckoned == list(contract.PARITY_DTYPES)


def test_short_memory_is_told_with_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    from loopviz.anatomy import parity

    monkeypatch.setattr(parity, "free_memory", lambda device: 10)
    anatomy = served(*made())
    anatomy.room.get("tiny")
    need = ask(anatomy, "need", article=False, model="tiny", lang="en")
    assert need["refused"]
    assert "free" in need["text"]


def test_what_a_check_needs_is_not_known_of_a_model_that_is_not_here() -> None:
    anatomy = served(*made())
    assert not ask(anatomy, "need", article=True, model="no such model", lang="en")["refused"]


@pytest.mark.parametrize("kept", [True, False])
def test_a_check_loads_no_model_that_a_file_names_before_the_visitor_agreed(kept: bool) -> None:
    """Nor once the file is not kept any more."""
    model, trace = made()
    anatomy = served(model, None)
    if kept:
        anatomy.jobs.carried.take(CarriedRun(MINE, trace, "somebody/model", own=False))
    last = refused(anatomy, check="model", model="somebody/model")
    assert last["field"] == "model"
    assert last["text"] == text("en", "anatomy.ask_model", model="somebody/model")
    assert anatomy.room.status("somebody/model").state == "waiting"  # nothing was begun
    last = refused(anatomy, check="model", model="somebody/model", agreed=True)
    assert "no such file" in last["text"]  # it was looked for
    assert said(anatomy.run(asked(check="model", model="tiny"), "me"))[-1]["end"] == "done"  # the visitor's own choice


def test_a_check_of_the_article_s_configuration_needs_no_model_but_the_default() -> None:
    """Whatever the run's was: only where it is computed is the engine's."""
    model, trace = made()
    anatomy = served(model, None, profile=dataclasses.replace(PUBLIC, work_bytes=1000))
    anatomy.jobs.carried.take(CarriedRun(MINE, trace, "somebody/model", own=False))
    last = refused(anatomy, check="article", model="somebody/model")
    assert last["field"] == "check"  # too large here; the model was none of its concern
    assert anatomy.room.status("somebody/model").state in ("waiting", "failed")
    assert ask(anatomy, "need", article=True, model="somebody/model", lang="en")["refused"]


@pytest.mark.parametrize("first", ["check", "look"])
def test_a_check_and_a_look_do_not_take_each_other_s_place(first: str) -> None:
    """Both wait, and each comes to its end, whichever was asked for first."""
    model, trace = made()
    anatomy = served(model, trace, profile=dataclasses.replace(LOCAL, runs_at_once=1))
    anatomy.room.get("tiny")
    check = asked(check="model", model="tiny", ticket="c" * 16)
    look = asked(ticket="l" * 16)
    order = [check, look] if first == "check" else [look, check]
    for n, each in enumerate(order, 1):
        each["n"] = n
    with anatomy.jobs.places.join("lab") as place:
        assert not list(place.wait(lambda: False))  # somebody else's run is made
        streams = {each["ticket"]: anatomy.run(each, "me") for each in order}
        for stream in streams.values():
            assert unwire(next(stream))["kind"] == "status"  # it waits in line
    ends: dict[str, list[dict[str, Any]]] = {}
    threads = [
        threading.Thread(target=lambda name=name, stream=stream: ends.update({name: said(stream)}))  # type: ignore[misc]
        for name, stream in streams.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ends["l" * 16][-1]["kind"] == "token"
    assert ends["c" * 16][-1]["end"] == "done"


def test_who_leaves_stops_a_check_too() -> None:
    anatomy = served(*made())
    anatomy.room.get("tiny")
    stream = anatomy.run(asked(check="model", model="tiny"), "me")
    next(stream)
    anatomy.forget("me")
    assert not [message for message in said(stream) if message["kind"] == "parity" and message["rows"]]
    assert len(anatomy.checks) == 0


def test_a_check_is_stopped_in_the_middle_of_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """It went on to the end of a number format: half a minute of the article's configuration."""
    from loopviz.anatomy import parity

    anatomy = served(*made())
    anatomy.room.get("tiny")
    build, layers = parity.build, 0
    question = asked(check="model", model="tiny")

    def count(*_: Any) -> None:
        nonlocal layers
        layers += 1
        if layers == 3:
            anatomy.stop(json.dumps({"ticket": question["ticket"]}))

    def watched(*given: Any) -> Any:
        models = build(*given)
        for model in models:
            for layer in model.model.layers:
                layer.register_forward_hook(count)
        return models

    monkeypatch.setattr(parity, "build", watched)
    last = said(anatomy.run(question, "me"))[-1]
    assert (last["end"], last["rows"]) == ("stopped", [])
    assert layers == 3


def test_every_cause_is_worded() -> None:
    from loopviz.anatomy.parity import CAUSES

    for lang in LANGUAGES:
        texts = data(ModelRoom("tiny"))["texts"][lang]
        assert {key for key in texts if key.startswith("anatomy.cause.")} == {
            f"anatomy.cause.{cause}" for cause in CAUSES
        }


def test_a_run_is_read_again_in_the_precision_that_it_was_made_in() -> None:
    model, _ = made()
    half = lower(copy.deepcopy(model), torch.bfloat16)
    trace = run(half, tiny.tokenizer(), "Once upon a time", StreamSettings(max_new_tokens=6, record="full", seed=1))
    engines = {"": LocalEngine("tiny", model, tiny.tokenizer()), "half": LocalEngine("tiny", half, tiny.tokenizer())}

    def load(name: str, progress: Any, local: bool, precision: str = "") -> LocalEngine:
        return engines[precision]

    service = Service(ModelRoom("tiny", load=load), Registry())
    service.carried.take(CarriedRun(MINE, trace, "tiny", own=True))
    assert read(Anatomy(service))["agreement"]["is_the_runs"]
    assert service.room.ready("tiny", "half") is engines["half"]
    assert service.room.ready("tiny") is None, "as the server has it nobody needed it"
