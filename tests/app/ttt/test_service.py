"""The TTT page as its script has it: a run told live, looked at, steered, forgotten in; and what bad input gets."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import math
import threading
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from loopviz.app import contract
from loopviz.app.explore.run import Registry
from loopviz.app.explore.service import Service
from loopviz.app.profile import PUBLIC
from loopviz.app.sessions.models import ModelRoom
from loopviz.app.sessions.ttt_models import ttt_room
from loopviz.app.texts import LANGUAGES, text
from loopviz.app.ttt.page import data
from loopviz.app.ttt.run import TTTRun, messages, paced
from loopviz.app.ttt.service import TTT, other_changes
from loopviz.engine.engine import CONTROL, TTTRequest
from loopviz.engine.ttt_local import LocalTTT, load_ttt
from loopviz.figures.edits import CODES, apply
from loopviz.panels.ttt import TTT_PANELS, TTTFocus, rules
from loopviz.paths import PACKAGE
from loopviz.trace.schema import TTTChange
from tests.app.page_double import unwire
from tests.engine import tiny, tiny_ttt

NUMBERS = itertools.count(1)


def served(engine: LocalTTT | None = None, load: Any = None) -> TTT:
    """The page's service, a message for every frame."""
    service = Service(ModelRoom("none"), Registry())
    return TTT(service, ttt_room(service.room, load or (lambda *_: engine or tiny_ttt.engine())), every=0, rest=0)


def asked(**change: Any) -> dict[str, Any]:
    begin = {"lang": "en", "ticket": "t" * 16, "n": next(NUMBERS), "model": "stories-ttt", "prompt": "Once upon a time"}
    return begin | {"max_new_tokens": 9, "scale": 1.0} | change


def checked(stream: Iterator[str]) -> Iterator[dict[str, Any]]:
    for told in stream:
        message = unwire(told)
        contract.check(message, contract.MESSAGES["ttt"], "ttt")
        yield message


def ask(ttt: TTT, name: str, **question: Any) -> dict[str, Any]:
    contract.check(question, (contract.QUESTIONS["ttt"][name][0],), name)
    answer = json.loads(getattr(ttt, name)(json.dumps(question)))
    contract.check(answer, contract.QUESTIONS["ttt"][name][1], name)
    return answer


def unpacked(packed: list[list[Any]]) -> list[dict[str, Any]]:
    """Edits as `edits.pack` has packed them."""
    names, path, found = {code: op for op, code in CODES.items()}, [], []
    for code, shared, *rest in packed:
        value = rest.pop()
        path = [*path[:shared], *rest]
        found.append({"op": names[code], "path": path, "value": value})
    return found


class Page:
    """What the script does with messages."""

    def __init__(self) -> None:
        self.figures: dict[str, Any] = {}
        self.words: list[Any] = []
        self.last: dict[str, Any] = {}

    def receive(self, message: dict[str, Any]) -> None:
        if message["kind"] == "status":
            self.last = message
            return
        if message["kind"] == "snapshot":
            self.figures, self.words = copy.deepcopy(message["figures"]), list(message["words"])
        elif message["epoch"] == self.last["epoch"]:
            assert message["first"] == len(self.words)
            self.words += message["words"]
            for name, edits in message["ops"].items():
                apply(self.figures[name], unpacked(edits))
        self.last = message


def made(ttt: TTT, **change: Any) -> Page:
    page = Page()
    for message in checked(ttt.run(asked(**change), "me")):
        page.receive(message)
    return page


def test_what_the_page_has_folded_is_the_runs_own_pictures() -> None:
    ttt = served()
    page = made(ttt)
    (run,) = ttt.runs
    assert page.last["end"] == "length"
    assert len(page.words) == len(run.trace) == page.last["first"] + len(page.last["words"])
    wanted = {name: panel.data(run.trace, run.focus) for name, panel in TTT_PANELS.items()}
    assert page.figures == json.loads(json.dumps(wanted))
    assert page.last["summaries"] == {name: panel.summary(run.trace, run.focus) for name, panel in TTT_PANELS.items()}


def test_looking_elsewhere_while_it_is_made_goes_on_from_there() -> None:
    ttt, page = served(), Page()
    for message in checked(ttt.run(asked(), "me")):
        page.receive(message)
        if len(page.words) > 8 and page.last["epoch"] == 0:
            page.receive(ask(ttt, "look", run=page.last["run"], layer=1, head=2, token=3, lang="zh"))
    (run,) = ttt.runs
    assert (run.focus.layer, run.focus.head, run.focus.token, run.focus.lang) == (1, 2, 3, "zh")
    assert page.last["epoch"] == 1
    wanted = {name: panel.data(run.trace, run.focus) for name, panel in TTT_PANELS.items()}
    assert page.figures == json.loads(json.dumps(wanted))


def test_forgetting_and_the_rate_hold_from_the_next_word_on_and_are_told() -> None:
    ttt, page, done = served(), Page(), []
    for message in checked(ttt.run(asked(max_new_tokens=16), "me")):
        page.receive(message)
        if len(page.words) == 10 and not done:
            done.append(ask(ttt, "steer", run=page.last["run"], forget=True, scale=0.5, lang="en"))
            bad = ask(ttt, "steer", run=page.last["run"], forget=False, scale=99.0, lang="zh")
            assert bad["kind"] == "no"
            assert bad["field"] == "scale"
    assert done == [{"kind": "ok"}]
    (change,) = page.last["changes"]
    assert change == {"index": 10, "forget": True, "scale": 0.5}
    assert ask(ttt, "steer", run=page.last["run"], forget=True, scale=1.0, lang="en")["text"] == text("en", "ttt.ended")


@pytest.mark.parametrize("lang", LANGUAGES)
def test_what_a_run_would_lose_is_its_own_text_read_again(lang: str) -> None:
    ttt = served()
    page = made(ttt, max_new_tokens=12)
    (run,) = ttt.runs
    told = ask(ttt, "forgetting", run=run.id, token=4, lang=lang)
    kept, lost = (np.array(line["y"]) for line in told["figure"]["data"])
    own = np.array([-frame["next_logprob"] for frame in run.trace.frames])
    np.testing.assert_allclose(kept, own, rtol=1e-3)
    model, ids = run.engine.model, [frame["token_id"] for frame in run.trace.frames]  # type: ignore[attr-defined]
    from loopviz.ttt import TTTCache

    cache = TTTCache(model)
    with torch.no_grad():
        model(torch.tensor([ids[:5]]), past_key_values=cache, use_cache=True)
        cache.forget()
        logits = model(torch.tensor([ids[5:]]), past_key_values=cache, use_cache=True).logits[0].log_softmax(-1)
    following = [*ids[6:], run.trace.frames[-1]["next_id"]]
    wanted = [-float(logits[i, word]) for i, word in enumerate(following)]
    np.testing.assert_allclose(lost[5:], wanted, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(lost[:5], kept[:5], rtol=2e-3, atol=2e-3)
    assert f"{np.mean(np.array(wanted) - own[5:]):.3g}".lstrip("-")[:3] in told["summary"]
    assert told["figure"]["layout"]["shapes"][0]["x0"] == 4.5
    assert math.isfinite(page.words[0][2])
    last = len(run.trace) - 2
    assert ask(ttt, "forgetting", run=run.id, token=last, lang=lang)["kind"] == "forgetting"
    for wrong in (-1, last + 1, 10**9):
        assert ask(ttt, "forgetting", run=run.id, token=wrong, lang=lang)["field"] == "token"
    assert ask(ttt, "forgetting", run="none", token=0, lang=lang) == {"kind": "gone"}


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_control_is_asked_beside_the_matrix_and_where_there_is_none_that_is_said(lang: str) -> None:
    ttt = served()
    page = made(ttt)
    where = {"run": page.last["run"], "layer": 0, "head": None, "token": 3, "lang": lang}
    assert ask(ttt, "attention", **where) == {"kind": "no", "field": "", "text": text(lang, "ttt.control.none")}
    assert ask(ttt, "attention", **{**where, "run": None}) == {"kind": "gone"}
    own = served(load_ttt("stories-ttt", lambda *_: None, False))
    page = made(own)
    told = ask(own, "attention", **{**where, "run": page.last["run"], "token": None})
    assert told["kind"] == "attention"
    assert "stories-attention" in told["summary"]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_four_inner_rules_are_told_of_a_run_that_has_ended(lang: str) -> None:
    ttt, page = served(), Page()
    for message in checked(ttt.run(asked(max_new_tokens=12), "me")):
        page.receive(message)
        where = {"run": page.last.get("run"), "layer": 1, "head": 2, "token": None, "lang": lang}
        if page.words and not page.last["end"]:
            assert ask(ttt, "rules", **where)["text"] == text(lang, "ttt.running")
    told = ask(ttt, "rules", **where)["rules"]
    assert [rule["name"] for rule in told] == list(rules.RULES)
    assert len({rule["what"] for rule in told}) == 4
    for rule in told:
        assert rule["called"] in rule["what"]
        assert rule["called"] in rule["summary"]
        after, held = (line["y"] for line in rule["figure"]["data"])
        assert len(after) == len(held) == len(page.words)
    mlp = served(tiny_ttt.engine(ttt_layer_type="mlp"))
    where["run"] = made(mlp).last["run"]
    assert ask(mlp, "rules", **where)["text"] == rules.TEXTS[lang]["none"]
    assert ask(mlp, "rules", **{**where, "run": None}) == {"kind": "gone"}


def test_a_runs_own_forgetting_is_undone_where_it_was() -> None:
    ttt, page = served(), Page()
    for message in checked(ttt.run(asked(max_new_tokens=16), "me")):
        page.receive(message)
        if len(page.words) == 10 and not page.last["changes"]:
            assert ask(ttt, "forgetting", run=page.last["run"], token=1, lang="en")["text"] == text("en", "ttt.running")
            ask(ttt, "steer", run=page.last["run"], forget=True, scale=1.0, lang="en")
    (run,) = ttt.runs
    told = ask(ttt, "forgetting", run=run.id, token=9, lang="en")
    kept, lost = (np.array(line["y"]) for line in told["figure"]["data"])
    own = np.array([-frame["next_logprob"] for frame in run.trace.frames])
    np.testing.assert_allclose(lost, own, rtol=1e-3)
    assert np.abs(kept - own)[10:].max() > 1e-2


def test_a_change_is_put_in_its_place_under_the_rate_that_held() -> None:
    ttt = served()
    made(ttt)
    (run,) = ttt.runs
    own: list[TTTChange] = [
        {"index": 3, "forget": False, "inner_lr_scale": 0.5},
        {"index": 6, "forget": True, "inner_lr_scale": 2.0},
    ]
    run.trace.meta["ttt"]["changes"] = own
    added, forgot = other_changes(run.trace, 5)
    assert not forgot
    assert added == [own[0], {"index": 5, "forget": True, "inner_lr_scale": 0.5}, own[1]]
    turned, forgot = other_changes(run.trace, 6)
    assert forgot
    assert turned == [own[0], {**own[1], "forget": False}]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"prompt": "  "}, "prompt"),
        ({"prompt": "half \ud83d"}, "prompt"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"max_new_tokens": 10**6}, "max_new_tokens"),
        ({"scale": -1.0}, "scale"),
        ({"scale": 1e9}, "scale"),
        ({"pace": 1}, "pace"),
        ({"pace": -4}, "pace"),
        ({"model": " "}, "model"),
        ({"model": "x" * 999}, "model"),
    ],
)
@pytest.mark.parametrize("lang", LANGUAGES)
def test_what_is_refused_is_told_beside_its_field(change: dict[str, Any], field: str, lang: str) -> None:
    ttt = served()
    *_, last = checked(ttt.run(asked(lang=lang, **change), "me"))
    assert (last["kind"], last["bad"], last["over"], last["field"]) == ("status", True, True, field)
    assert not list(ttt.runs)


def test_a_model_that_is_no_ttt_model_is_refused_by_name() -> None:
    def load(name: str, progress: Any, allow_paths: bool) -> Any:
        return load_ttt(name, progress, allow_paths)

    ttt = served(load=load)
    for model, words in {"stories-loop": "no TTT model", "nobody-knows-it": "no TTT model of this name"}.items():
        *_, last = checked(ttt.run(asked(model=model), "me"))
        assert last["bad"]
        assert last["field"] == "model"
        assert model in last["text"]
        assert words in last["text"]


def test_a_public_server_opens_no_folder_and_names_what_it_offers() -> None:
    service = Service(ModelRoom("none", profile=PUBLIC), Registry())
    ttt = TTT(service, every=0, rest=0)
    *_, last = checked(ttt.run(asked(model="/tmp"), "me"))
    assert last["field"] == "model"
    assert last["text"].endswith("it offers stories-ttt")
    *_, last = checked(ttt.run(asked(model="stories-loop"), "me"))
    assert "no TTT model" in last["text"]
    assert str(PACKAGE) not in last["text"]
    assert data(ttt.room)["models"] == ["stories-ttt"]
    assert data(ttt.room)["most_new"] == PUBLIC.ttt_tokens


@pytest.mark.parametrize("lang", LANGUAGES)
def test_an_inner_loss_that_is_no_number_is_said_where_and_the_run_ends_with_what_there_is(lang: str) -> None:
    engine = tiny_ttt.engine(tie_word_embeddings=False)
    ids = tiny.tokenizer()("Once upon a time there was")["input_ids"]
    with torch.no_grad():
        engine.model.model.embed_tokens.weight[ids[9]] = float("nan")
    ttt = served(engine)
    page = made(ttt, prompt="Once upon a time there was", lang=lang)
    first = ids.index(ids[9])
    assert page.last["kind"] == "news"
    assert page.last["end"] == "error"
    assert page.last["reason"].startswith("inner_loss")
    assert f"{first}" in page.last["reason"]
    assert len(page.words) == first - first % 4 > 0
    (run,) = ttt.runs
    assert run.finished.is_set()
    assert ask(ttt, "look", run=run.id, layer=0, head=None, token=None, lang=lang)["reason"] == page.last["reason"]
    assert made(ttt, prompt="Once", max_new_tokens=1).last["end"] == "length", "nothing else is broken"


def test_a_stop_ends_it_and_a_start_takes_the_place_of_the_one_before() -> None:
    ttt, page = served(), Page()
    for message in checked(ttt.run(asked(max_new_tokens=400, ticket="mine"), "me")):
        page.receive(message)
        if len(page.words) == 12:
            ask(ttt, "stop", ticket="mine")
    assert page.last["end"] == "stopped"
    assert len(page.words) < 30
    made(ttt)
    assert len(list(ttt.runs)) == 1
    ttt.forget("me")
    assert not list(ttt.runs)


def test_words_come_no_faster_than_was_asked_for_and_a_stop_does_not_wait() -> None:
    class Clock(threading.Event):
        waits: ClassVar[list[float]] = []

        def wait(self, timeout: float | None = None) -> bool:
            assert timeout is not None
            self.waits.append(timeout)
            return self.is_set()

    frames = [{"phase": "prompt"}, {"phase": "generated"}, {"phase": "generated"}]
    assert list(paced(iter(frames), Clock(), 4)) == frames  # type: ignore[arg-type]
    assert Clock.waits == [0.25, 0.25]
    assert list(paced(iter(frames), Clock(), 0)) == frames  # type: ignore[arg-type]
    assert len(Clock.waits) == 2
    ttt, page = served(), Page()
    for message in checked(ttt.run(asked(max_new_tokens=9, pace=4, ticket="slow"), "me")):
        page.receive(message)
        if page.words:
            ask(ttt, "stop", ticket="slow")
    assert page.last["end"] == "stopped"


def test_what_nobody_would_send_is_as_if_nothing_were_said() -> None:
    ttt = served()
    made(ttt)
    (run,) = ttt.runs
    for question in ("", "[]", "{", json.dumps({"run": run.id, "layer": "x", "head": -5, "token": -9})):
        answer = json.loads(ttt.look(question))
        assert answer["kind"] in ("gone", "snapshot")
    for rubbish in (None, 5, {"prompt": 5}, {"prompt": "a", "scale": 10**400, "layer": -3, "n": 10**6}):
        for message in checked(ttt.run(rubbish, "you")):
            assert message["kind"] in ("status", "snapshot", "news")


def test_what_the_script_is_told_once_has_a_formula_and_a_line_of_code_for_every_picture() -> None:
    told = data(served().room)
    contract.check(json.loads(json.dumps(told, default=list)), contract.MESSAGES["ttt"], "ttt")
    assert {panel["name"] for panel in told["panels"]} == {*TTT_PANELS, "attention", "forgetting", "rules"}
    assert told["control"] == CONTROL
    for panel in told["panels"]:
        assert all("<math" in said for said in panel["formulas"].values())
        assert all(place["url"] for place in panel["code"])


def test_what_is_slow_to_draw_is_drawn_less_often() -> None:
    """Pictures grow with a run: drawn at a fixed beat they would take all its time."""
    engine = tiny_ttt.engine()
    handle = engine.start(TTTRequest("Once upon a time", {"max_new_tokens": 40}, 1.0))
    run = TTTRun(engine, handle, TTTFocus(0, None, None, "en"))
    now, drawn = [0.0], []

    def frames() -> Iterator[Any]:
        for frame in handle.frames:
            now[0] += 1.0
            yield frame

    draw = run._drawn

    def slowly() -> Any:
        drawn.append(now[0])
        now[0] += 5.0
        return draw()

    run._drawn = slowly  # type: ignore[method-assign]
    told = list(messages(run, frames(), every=0.5, rest=2.0, clock=lambda: now[0]))
    assert len(told) == len(drawn)
    gaps = [after - before - 5.0 for before, after in itertools.pairwise(drawn[:-1])]
    assert gaps
    assert all(gap == 10.0 for gap in gaps), gaps
    assert len(run.trace) == len(contract_words(told))


def contract_words(told: list[str]) -> list[Any]:
    return [word for message in told for word in unwire(message)["words"]]


class Reading:
    """An engine that reads again until it is told to leave."""

    def __init__(self, engine: LocalTTT) -> None:
        self.engine, self.begun = engine, threading.Semaphore(0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def inner_rules(self, trace: Any, layer: int, head: int | None, stop: threading.Event) -> Any:
        self.begun.release()
        assert stop.wait(30)
        return self.engine.inner_rules(trace, layer, head, stop)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_same_asked_anew_ends_what_is_read_for_it_and_so_does_leaving(lang: str) -> None:
    reading = Reading(tiny_ttt.engine())
    ttt = served(reading)  # type: ignore[arg-type]
    where = {"run": made(ttt).last["run"], "layer": 0, "head": None, "token": None, "lang": lang}
    answers: list[dict[str, Any]] = []
    asking = [threading.Thread(target=lambda: answers.append(ask(ttt, "rules", **where))) for _ in range(2)]
    asking[0].start()
    assert reading.begun.acquire(timeout=30)
    asking[1].start()
    asking[0].join(30)
    assert [answer["kind"] for answer in answers] == ["no"]
    assert answers[0]["text"] == text(lang, "refused", reason=told_in(lang))
    assert reading.begun.acquire(timeout=30)
    ttt.forget("me")
    asking[1].join(30)
    assert answers[1] == answers[0]


def told_in(lang: str) -> str:
    from loopviz.app.controls.refusal import told
    from loopviz.checks import ABSENT, FieldError

    return told(FieldError("", ABSENT, "left"), lang)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_few_are_read_for_at_a_time_and_who_finds_more_is_told(lang: str) -> None:
    reading = Reading(tiny_ttt.engine())
    ttt = served(reading)  # type: ignore[arg-type]
    ttt.room.profile = dataclasses.replace(ttt.room.profile, reading_patience=0.3)
    most, runs = ttt.readings.most, []
    for visitor in range(most + 1):
        *_, last = checked(ttt.run(asked(), f"visitor {visitor}"))
        runs.append(last["run"])
    where = {"layer": 0, "head": None, "token": None, "lang": lang}
    asking = [threading.Thread(target=ask, args=(ttt, "rules"), kwargs={**where, "run": run}) for run in runs[:most]]
    for one in asking:
        one.start()
        assert reading.begun.acquire(timeout=30)
    assert ask(ttt, "rules", **where, run=runs[most])["text"] == text(lang, "ttt.busy")
    for visitor in range(most):
        ttt.forget(f"visitor {visitor}")
    for one in asking:
        one.join(30)
    assert ttt.room.profile.readings_waiting + most < ttt.room.profile.short_events / 2, "Stop finds a thread"


def test_a_run_weighs_its_pictures_too() -> None:
    from loopviz.trace.weight import deep_bytes

    ttt = served()
    made(ttt, max_new_tokens=200)
    (run,) = ttt.runs
    pictures = deep_bytes(run._figures)
    assert run.nbytes >= run.trace.nbytes + pictures - 200_000, "all but what is of the same size in every run"
    assert run.nbytes <= run.trace.nbytes + 4 * pictures
