"""A lesson as the page has it: opened and checked, a step tried, a guess judged, left."""

from __future__ import annotations

import base64
import dataclasses
import itertools
import json
import math
import re
from collections.abc import Iterator
from typing import Any

import pytest

from loopviz.app import contract
from loopviz.app.explore.run import Registry
from loopviz.app.explore.service import Service
from loopviz.app.learn import lesson_link
from loopviz.app.learn.page import data
from loopviz.app.learn.service import Lessons, Try
from loopviz.app.profile import PUBLIC
from loopviz.app.sessions.job import Refused
from loopviz.app.sessions.models import ModelRoom
from loopviz.engine.local import LocalEngine as Loaded
from loopviz.lessons.bundled import bundled
from tests.app.by_hand import needs_of, only
from tests.app.page_double import unwire
from tests.conftest import make_llama
from tests.lessons.test_bundled import EVERY, engine, fetched
from tests.lessons.test_faults import MISTAKES
from tests.lessons.toy import step, toy

__all__ = ["fetched"]  # what skips a lesson whose model is out of reach
NUMBERS = itertools.count(1)  # of starts: an older one would come too late


@pytest.fixture(scope="module")
def loaded(tiny_tokenizer: Any) -> Loaded:
    from loopviz.model.checkpoints.load import as_loop_llama

    return Loaded("tiny", as_loop_llama(make_llama()).eval(), tiny_tokenizer, "made here")


@pytest.fixture
def lessons(loaded: Loaded) -> Lessons:
    return Lessons(Service(ModelRoom("tiny", load=only(loaded)), Registry()), every=0)


def asked(name: str = "count", lesson: Any = None, **change: Any) -> dict[str, Any]:
    same = {"lang": "en", "ticket": "t" * 16, "n": next(NUMBERS), "id": "", "source": json.dumps(lesson or toy())}
    return {**same, "step": name, "what_if": False} | change


def said(stream: Iterator[str]) -> list[dict[str, Any]]:
    found = [unwire(text) for text in stream]
    for message in found:
        contract.check(message, contract.MESSAGES["learn"], "learn")
    return found


def ask(lessons: Lessons, name: str, **question: Any) -> dict[str, Any]:
    answer = json.loads(getattr(lessons, name)(json.dumps(question)))
    contract.check(answer, contract.QUESTIONS["learn"][name][1], name)
    return answer


def tried(lessons: Lessons, name: str = "count", **change: Any) -> dict[str, Any]:
    """A step's result."""
    *_, last = said(lessons.run(asked(name, **change), "me"))
    assert last["kind"] == "result", last
    return last


# --- opening ----------------------------------------------------------------------------------------------------------------


def test_the_list_has_every_lesson_without_its_steps(lessons: Lessons) -> None:
    told = json.loads(json.dumps(data(lessons.room), default=list))
    contract.check(told, contract.MESSAGES["learn"], "learn")
    assert [entry["id"] for entry in told["lessons"]] == list(bundled())
    assert all(entry["steps"] == len(bundled()[entry["id"]]["steps"]) for entry in told["lessons"])


@pytest.mark.parametrize("name", bundled())
def test_one_of_ours_is_opened_by_its_id(lessons: Lessons, name: str) -> None:
    answer = ask(lessons, "lesson", lang="en", id=name)
    assert answer["faults"] == []
    assert answer["lesson"] == bundled()[name]
    assert answer["source"] == ""


def test_a_name_that_is_none_is_told(lessons: Lessons) -> None:
    answer = ask(lessons, "lesson", lang="en", id="nothing")
    assert answer["lesson"] is None
    assert "arrows" in answer["faults"][0]["text"]


def test_a_file_with_ten_mistakes_is_told_all_of_them_in_the_visitors_language(lessons: Lessons) -> None:
    ten = [
        "one language is missing", "another type", "a measurement that is none", "a line through what is no curve",
        "an axis upside down", "two steps of one name", "a name with blanks", "to find what is not shown",
        "too many tokens", "a format of tomorrow",
    ]  # fmt: skip
    lesson = toy()
    for name in ten:
        MISTAKES[name][0](lesson)
    for lang in ("en", "zh"):
        answer = ask(lessons, "lesson", lang=lang, source=json.dumps(lesson))
        assert answer["lesson"] is None
        told = {fault["field"]: fault["text"] for fault in answer["faults"]}
        for name in ten:
            field = MISTAKES[name][1]
            assert told[field].startswith(field)
            assert bool(re.search("[\u4e00-\u9fff]", told[field])) == (lang == "zh")


def test_a_lesson_in_a_link_is_opened_and_names_no_model_that_nobody_chose(lessons: Lessons) -> None:
    word = lesson_link.pack(json.dumps(toy()))
    assert ask(lessons, "lesson", lang="en", word=word)["lesson"] == toy()
    foreign = toy()
    step(foreign, "count")["runs"]["run"]["model"] = "someone/model"
    answer = ask(lessons, "lesson", lang="en", word=lesson_link.pack(json.dumps(foreign)))
    assert answer["lesson"] is None
    assert [fault["field"] for fault in answer["faults"]] == ["model"]
    assert ask(lessons, "lesson", lang="en", source=json.dumps(foreign))["models"] == ["tiny", "someone/model"]


def test_two_own_lessons_of_one_id_share_no_answers_and_one_written_otherwise_is_the_same(lessons: Lessons) -> None:
    def key(source: str, **by: Any) -> str:
        return ask(lessons, "lesson", lang="en", **({"source": source} | by))["key"]

    other = toy()
    step(other, "count")["predict"]["choices"].reverse()
    assert key(json.dumps(toy())) != key(json.dumps(other))
    assert key(json.dumps(toy())) == key(json.dumps(toy(), indent=3, ensure_ascii=False))
    assert key(json.dumps(toy())) == key("", word=lesson_link.pack(json.dumps(toy())))
    assert key(json.dumps(bundled()["arrows"])) != key("", id="arrows") == "arrows"


@pytest.mark.parametrize("word", ["", "x", "1!", "1AAAA"])
def test_a_damaged_link_is_told(lessons: Lessons, word: str) -> None:
    answer = ask(lessons, "lesson", lang="zh", word=word)
    assert answer["faults"][0]["field"] == "link"
    assert "损坏" in answer["faults"][0]["text"]


def test_where_models_may_not_be_named_a_lesson_that_does_is_told_as_it_is_opened(loaded: Loaded) -> None:
    lessons = Lessons(Service(ModelRoom("tiny", profile=PUBLIC, load=only(loaded)), Registry()), every=0)
    lesson = toy() | {"model": "someone/model"}
    answer = ask(lessons, "lesson", lang="en", source=json.dumps(lesson))
    assert answer["lesson"] is None
    assert "someone/model" in answer["faults"][0]["text"]
    *_, last = said(lessons.run(asked(lesson=lesson), "me"))
    assert last["kind"] == "status"
    assert last["bad"]


# --- a step -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [one["id"] for one in toy()["steps"]])
def test_a_step_is_run_and_measured(lessons: Lessons, name: str) -> None:
    result = tried(lessons, name)
    assert (result["end"], result["step"], result["what_if"]) == ("done", name, False)
    assert set(result["measured"]) == set(step(toy(), name)["measure"])
    written = {run for run, made in step(toy(), name)["runs"].items() if "task" not in made}
    assert set(result["texts"]) == written  # a measurement of the Lab writes none
    assert result["made_with"]["tiny"] == "made here"
    assert "torch" in result["made_with"]


def test_a_what_if_is_run_and_says_its_sentence(lessons: Lessons) -> None:
    assert tried(lessons, what_if=True)["says"] == {"en": "Now 2.", "zh": "现在 2 次。"}


def test_a_step_with_a_picture_of_arrows_brings_the_way_of_its_first_run(lessons: Lessons) -> None:
    lesson = toy()
    step(lesson, "count")["picture"] = "arrow_graph"
    step(lesson, "count")["runs"]["run"]["prompt"] = "a>b b>c a?"
    assert tried(lessons)["way"] is None
    way = tried(lessons, lesson=lesson)["way"]
    assert way["prompt"] == "a>b b>c a?"
    assert len(way["steps"]) == 4
    assert 0 < way["said"][1] <= 1


def test_how_far_it_is_is_told_meanwhile(lessons: Lessons) -> None:
    told = [message for message in said(lessons.run(asked("blind"), "me")) if message["kind"] == "progress"]
    assert told[0]["done"] == 0
    assert told[-1]["total"] == 12
    assert [message["done"] for message in told] == sorted(message["done"] for message in told)
    assert {message["making"] for message in told[1:]} == {"one", "four"}


def test_a_guess_is_judged_in_both_languages(lessons: Lessons) -> None:
    result = tried(lessons)
    right = ask(lessons, "judge", run=result["run"], guess=1)
    assert (right["right"], right["choice"]) == (True, 1)
    assert right["why"] == {"en": "It took 4.", "zh": "用了 4 次。"}
    assert (right["guess"]["en"], right["measured"]["en"]) == ("four", "four (4)")
    wrong = ask(lessons, "judge", run=result["run"], guess=0)
    assert (wrong["right"], wrong["choice"], wrong["said"]["zh"]) == (False, 1, "不对：打勾的才是测得的答案。")
    assert ask(lessons, "judge", run=result["run"], guess="x")["right"] is None


def test_a_line_and_a_number_and_a_blind_guess_are_judged(lessons: Lessons) -> None:
    result = tried(lessons, "line")
    curve = result["measured"]["curve"]["value"]
    assert ask(lessons, "judge", run=result["run"], guess=curve)["score"] == pytest.approx(1)
    result = tried(lessons, "number")
    assert ask(lessons, "judge", run=result["run"], guess=4)["right"] is True
    result = tried(lessons, "blind")
    judged = ask(lessons, "judge", run=result["run"], guess="one")
    assert (judged["right"], judged["measured"]["en"]) == (True, "one loop")


def test_what_it_came_to_is_said_in_both_languages_and_can_be_had_again(lessons: Lessons) -> None:
    """A message may be lost; and a what-if takes the step's place before the language changes."""
    result = tried(lessons, "blind")
    same = result["measured"]["same"]["said"]
    assert (same["en"], same["zh"]) in (("yes", "是"), ("no", "否"))
    assert ask(lessons, "look", run=result["run"]) == result


def test_what_a_model_refuses_of_a_run_is_told_with_its_run(lessons: Lessons) -> None:
    lesson = toy()
    step(lesson, "count")["runs"]["run"]["loop"] = {"loop_layers": [1, 9]}
    *_, last = said(lessons.run(asked(lesson=lesson), "me"))
    assert (last["kind"], last["bad"], last["over"]) == ("status", True, True)
    assert "runs.run" in last["text"]
    assert "layer 9" in last["text"]


def test_what_cannot_be_measured_is_told_with_its_measurement(lessons: Lessons) -> None:
    lesson = toy()
    step(lesson, "count")["measure"]["loops"]["word"] = "nowhere"
    *_, last = said(lessons.run(asked(lesson=lesson), "me"))
    assert last["bad"]
    assert last["over"]
    assert "measure.loops" in last["text"]


def test_what_is_no_lesson_or_no_step_is_refused(lessons: Lessons) -> None:
    for change in (
        {"source": "{"},
        {"step": "none"},
        {"source": "", "id": "none"},
        {"step": "number", "what_if": True},
    ):
        *_, last = said(lessons.run(asked(**change), "me"))
        assert last["bad"], change
        assert last["over"], change


@pytest.mark.parametrize("payload", [None, 3, "x", [], {}, {"source": 3, "step": None, "ticket": {}, "n": "x"}])
def test_nothing_of_what_a_script_sends_is_trusted(lessons: Lessons, payload: Any) -> None:
    *_, last = said(lessons.run(payload, "me"))
    assert last["bad"]
    for name in contract.QUESTIONS["learn"]:
        answer = json.loads(getattr(lessons, name)(json.dumps(payload)))
        contract.check(answer, contract.QUESTIONS["learn"][name][1], name)


def test_more_than_the_servers_limits_allow_is_refused_before_it_begins(loaded: Loaded, monkeypatch: Any) -> None:
    small = dataclasses.replace(PUBLIC, work_bytes=1000)
    lessons = Lessons(Service(ModelRoom("tiny", profile=small, load=only(loaded)), Registry()), every=0)
    *_, last = said(lessons.run(asked(), "me"))
    assert last["bad"]
    assert "MiB" in last["text"]


@pytest.fixture(scope="module")
def public() -> Lessons:
    """As a server that anybody reaches teaches, with the models that come along."""
    room = ModelRoom("stories-loop", profile=PUBLIC, load=lambda name, progress, local: engine(name))
    return Lessons(Service(room, Registry()), every=0)


@pytest.mark.parametrize(("lesson", "one"), EVERY)
def test_every_step_of_every_lesson_may_run_under_the_public_limits(public: Lessons, lesson: Any, one: Any) -> None:
    """And its what-if: nothing of it is refused, by the server or by a model. They are made in `test_bundled`."""
    assert ask(public, "lesson", lang="en", id=lesson["id"])["faults"] == []
    for what_if in (False, True)[: 1 + ("what_if" in one)]:
        job = Try(public, asked(one["id"], id=lesson["id"], source="", what_if=what_if), "me")
        job.check()
        job.prepare(engine(job.model))
        assert [run.name for run, _ in job.making] == list((one["what_if"] if what_if else one)["runs"])


def test_a_lesson_is_made_under_the_public_limits(public: Lessons) -> None:
    """Within the memory and the time that a run may take there."""
    *_, last = said(public.run(asked("first", id="slots", source=""), "me"))
    assert (last["kind"], last.get("end")) == ("result", "done"), last


def test_a_step_that_asks_for_more_than_the_public_limits_is_refused_for_it(public: Lessons) -> None:
    """Else the test above would pass whatever a lesson asked for."""
    small = dataclasses.replace(PUBLIC, work_bytes=1_000)
    tight = Lessons(
        Service(ModelRoom("stories-loop", profile=small, load=lambda *_: engine("stories-loop")), Registry())
    )
    job = Try(tight, asked("first", id="slots", source=""), "me")
    job.check()
    with pytest.raises(Refused):
        job.prepare(engine(job.model))


# --- ending it --------------------------------------------------------------------------------------------------------------


def endless(name: str = "count") -> dict[str, Any]:
    lesson = toy()
    step(lesson, name)["runs"]["run"]["sampling"] = {"max_new_tokens": 100}
    return lesson


def test_stop_ends_it_and_nothing_is_measured(lessons: Lessons) -> None:
    stream = lessons.run(asked(lesson=endless()), "me")
    assert unwire(next(stream))["kind"] in ("status", "progress")
    lessons.stop(json.dumps({"ticket": "t" * 16}))
    last = said(stream)[-1]
    assert last.get("end") == "stopped" or last.get("over")
    assert not last.get("measured")


def test_one_who_leaves_leaves_nothing(lessons: Lessons) -> None:
    stream = lessons.run(asked(lesson=endless()), "me")
    next(stream)
    lessons.forget("me")
    said(stream)
    assert len(lessons.runs) == 0


def test_a_try_that_has_ended_holds_no_model(lessons: Lessons) -> None:
    """Its result stays; a model that is let go of goes."""
    tried(lessons)
    [attempt] = lessons.runs
    assert attempt.finished.is_set()
    assert attempt.runs == []  # each with its engine


def test_closing_its_stream_ends_it(lessons: Lessons) -> None:
    stream = lessons.run(asked(lesson=endless()), "me")
    while unwire(next(stream))["kind"] != "progress":
        pass
    [run] = lessons.runs
    stream.close()
    assert run.finished.is_set()
    assert run.end == "stopped"


def test_one_of_another_session_is_not_found_without_its_id(lessons: Lessons) -> None:
    tried(lessons)
    assert json.loads(lessons.look(json.dumps({"run": "guess"})))["kind"] == "gone"


# --- files and links ----------------------------------------------------------------------------------------------------------


def test_a_link_of_an_own_lesson_and_its_code(lessons: Lessons) -> None:
    packed = ask(lessons, "pack", source=json.dumps(toy()), lang="en")
    assert json.loads(lesson_link.unpack(packed["word"]) or "") == toy()
    assert ask(lessons, "pack", source="{", lang="en")["word"] is None
    code = ask(lessons, "code", url="https://example.org/learn?lesson=toy", lang="en")
    assert code["size"] > 20
    long = ask(lessons, "code", url="https://example.org/" + "x" * 5_000, lang="zh")
    assert (long["size"], long["path"]) == (0, "")
    assert "二维码" in long["text"]


def test_answers_are_a_file(lessons: Lessons) -> None:
    one = {"step": "count", "question": "?", "guess": "two", "measured": "4", "right": False, "score": 0, "when": "now"}
    same = {"student": "Li Lei", "lesson": "toy", "version": 3, "title": "A toy", "made_with": {}, "answers": [one]}
    found = json.loads(base64.b64decode(ask(lessons, "answers", kind="json", **same)["data"]))
    assert found["answers"][0]["guess"] == "two"


def test_a_step_waits_for_the_memory_that_its_runs_hold_one_after_the_other(lessons: Lessons, monkeypatch: Any) -> None:
    needs = needs_of(lessons.jobs.places, monkeypatch)
    tried(lessons)
    [need] = needs
    assert need > 0
    lessons.room.profile = dataclasses.replace(PUBLIC, work_bytes=math.ceil(need) - 1)
    *_, last = said(lessons.run(asked(), "me"))
    assert "MiB" in last["text"]
    assert needs == [need], "refused before it waits"
