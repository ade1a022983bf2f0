"""The page's questions about stored and finished runs; and that nothing in a question is trusted."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from loopviz.app.explore import (
    first_run,
    served,  # noqa: F401  (hands the server what it serves)
)
from loopviz.app.explore.answers import Questions, View
from loopviz.app.explore.config import page_config
from loopviz.app.explore.run import Registry, Run, messages
from loopviz.app.server import assets, source_code
from loopviz.app.sessions.models import ModelRoom
from loopviz.panels import PANELS, Focus
from loopviz.trace import Trace
from loopviz.trace.file import save
from tests.trace.synthetic import random_trace


@pytest.fixture
def trace() -> Trace:
    return random_trace(11, 9)


@pytest.fixture
def questions(trace: Trace, monkeypatch: pytest.MonkeyPatch) -> Questions:
    """Questions to a server whose stored run is `trace`, and which has no other."""
    monkeypatch.setattr(first_run, "stored", lambda: trace)
    return Questions(Registry(), ModelRoom("none"))


def ask(question: Any, **asked: Any) -> dict[str, Any]:
    return json.loads(question(json.dumps(asked)))


def test_the_stored_run_in_the_repository_can_be_read() -> None:
    """When the format of traces changes: python scripts/record_first_run.py."""
    stored = first_run.stored.__wrapped__()
    assert stored is not None
    assert len(stored) > stored.meta["prompt_tokens"]
    assert first_run.ending(stored) in ("eos", "length", "context")


def test_a_page_opens_with_words_and_the_usual_panels_of_its_first_group(
    trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_run, "stored", lambda: trace)
    for lang in ("en", "zh"):
        opening = json.loads(first_run.opening.__wrapped__(lang))
        assert opening["config"] == json.loads(json.dumps(page_config(lang)))
        shown = opening["snapshot"]
        assert (shown["run"], shown["seq"], shown["total"], shown["focus"]["lang"]) == ("recorded", 9, 9, lang)
        assert shown["figures"].keys() == first_run.opening_panels().keys()
        assert len(shown["figures"]) == 2, "of the first group two pictures: the page is short as it opens"


def test_without_a_stored_run_the_page_opens_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bad.loopviz").write_bytes(b"not a trace")
    for path in (tmp_path / "none.loopviz", tmp_path / "bad.loopviz"):
        assert first_run.stored.__wrapped__(path) is None
    monkeypatch.setattr(first_run, "stored", lambda: None)
    assert first_run.opening.__wrapped__("en") is None
    for known in ("_mark", "_raw"):
        monkeypatch.setattr(assets, known, getattr(assets, known).__wrapped__)
    monkeypatch.setattr(first_run, "opening", lambda lang: None)
    assert assets.opening_urls() == {}
    assert assets.early_tags.__wrapped__() == ""


def test_what_the_page_opens_with_has_another_address_when_the_run_or_the_code_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address is told before it is made."""
    run, code = tmp_path / "run.loopviz", tmp_path / "words.py"
    files = {"loopviz/words.py": code}
    monkeypatch.setattr(source_code, "files", lambda: files)
    marks = []
    for written in ((b"run", b"code"), (b"another run", b"code"), (b"run", b"other code"), (b"run", b"code")):
        run.write_bytes(written[0])
        code.write_bytes(written[1])
        marks.append(first_run._mark.__wrapped__(run))
    assert len(set(marks[:3])) == 3
    assert marks[3] == marks[0]


def test_a_stored_run_survives_its_file(trace: Trace, tmp_path: Path) -> None:
    save(trace, tmp_path / "run.loopviz")
    assert first_run.stored.__wrapped__(tmp_path / "run.loopviz") == trace


def test_everybody_moves_through_the_stored_run_alone(questions: Questions, trace: Trace) -> None:
    here = {"run": "recorded", "epoch": 4, "panels": ["convergence"]}
    mine = ask(questions.focus, **here, focus={"token": 1}, shown=3)
    yours = ask(questions.focus, **here, focus={"token": 5}, shown=None)
    assert (mine["seq"], mine["epoch"], mine["focus"]["token"]) == (3, 5, 1)
    assert (yours["seq"], yours["epoch"], yours["focus"]["token"]) == (9, 5, 5)
    assert mine["figures"].keys() == {"convergence"}
    on = ask(questions.advance, **here, focus={"token": 1}, **{"from": 3, "to": 6, "split": True})
    assert [(step["first"], step["last"]) for step in on["steps"]] == [(3, 4), (4, 5), (5, 6)]
    assert on["epoch"] == 4
    back = ask(questions.advance, **here, focus={}, **{"from": 6, "to": 2})
    assert (back["kind"], back["seq"], back["epoch"]) == ("snapshot", 2, 5)
    assert back["end"] == first_run.ending(trace)


def test_edits_are_given_only_for_the_figures_they_fit(trace: Trace) -> None:
    registry = Registry()
    run = Run(trace.meta, PANELS, "me")
    registry.begin(run)
    list(messages(run, iter(trace.frames)))
    questions = Questions(registry, ModelRoom("none"))
    epoch = ask(questions.focus, run=run.id, focus={"metric": "kl"}, shown=2)["epoch"]
    assert ask(questions.advance, run=run.id, epoch=epoch, **{"from": 2, "to": 4})["kind"] == "steps"
    assert ask(questions.advance, run=run.id, epoch=epoch - 1, **{"from": 2, "to": 4})["kind"] == "snapshot"
    assert ask(questions.advance, run="guess", epoch=epoch, **{"from": 2, "to": 4})["kind"] == "gone"


@pytest.mark.parametrize("wrong", [None, -1, 1.5, "3", True, [], {}, 10**30])
def test_places_that_are_none_are_the_ends(questions: Questions, wrong: Any) -> None:
    answer = ask(
        questions.advance, run="recorded", epoch=wrong, focus=wrong, panels=wrong, **{"from": wrong, "to": wrong}
    )
    assert answer["kind"] == "steps"
    assert answer["steps"][-1]["last"] == 9
    assert ask(questions.focus, run="recorded", epoch=wrong, focus=wrong, panels=wrong, shown=wrong)["seq"] == 9
    assert (
        ask(questions.text_until, run="recorded", token=wrong, piece=wrong if wrong != "3" else None)["kind"] == "text"
    )


def test_unknown_panels_are_nobody_s(questions: Questions) -> None:
    answer = ask(questions.focus, run="recorded", panels=["nope", "../x", 3, None, "kv_occupancy"], focus={})
    assert answer["figures"].keys() == {"kv_occupancy"}


def test_a_text_to_go_on_from(questions: Questions, trace: Trace) -> None:
    assert ask(questions.text_until, run="recorded")["prompt"] == trace.text
    pieces = [frame["text"] for frame in trace.frames]
    assert ask(questions.text_until, run="recorded", token=3, piece=" else")["prompt"] == "".join(pieces[:4]) + " else"
    assert ask(questions.text_until, run="recorded", token=3, piece="x" * 1000)["prompt"] == trace.text, "no token"
    assert ask(questions.text_until, run="guess")["kind"] == "gone"


def test_the_guesses_of_a_token_are_all_that_were_recorded(questions: Questions, trace: Trace) -> None:
    """Of a strip there are only so many; a graph on which one is followed needs the guess of every loop."""
    for token, frame in enumerate(trace.frames):
        answer = ask(questions.guesses, run="recorded", token=token)
        assert (answer["run"], answer["token"]) == ("recorded", token)
        steps = frame["blocks"][-1]["steps"]
        assert len(answer["steps"]) == len(steps["topk_texts"]) == len(steps["norm"])
        rows = [*answer["steps"], answer["said"]]
        pieces = [*(texts[0] for texts in steps["topk_texts"]), frame["next_text"]]
        logs = [*(row[0] for row in steps["topk_logprobs"]), frame["next_logprob"]]
        assert [piece for piece, _ in rows] == pieces
        assert [p for _, p in rows] == [None if log is None else pytest.approx(math.exp(log), abs=1e-4) for log in logs]
    assert ask(questions.guesses, run="recorded", token=len(trace))["steps"] == []
    assert ask(questions.guesses, run="recorded", token=-3)["steps"] == []
    assert ask(questions.guesses, run="guess", token=0)["kind"] == "gone"


@pytest.mark.parametrize(
    ("typed", "pieces", "template", "prompt"),
    [
        ("Once upon", ["<s>", "Once", " upon", " a"], False, "Once upon a"),  # a mark the tokenizer would add again
        ("Once upon", ["Once", " upon", " a"], False, "Once upon a"),
        ("OOO", ["O", "O", "O", "h"], False, "OOOh"),
        ("Hi", ["<s>", "user: Hi", " there"], True, "<s>user: Hi there"),  # of a template all belongs to the text
        ("once", ["Once", " upon"], False, "Once upon"),  # a tokenizer that changes what it reads
        ("Hi", ["<s>", "A chat between a", " curious", " user"], "vicuna", "A chat between a curious user"),
        ("Hi", ["<s>", "Below is an in", "struction"], "alpaca", "Below is an instruction"),
    ],
)
def test_only_the_mark_of_the_beginning_is_left_out(
    typed: str, pieces: list[str], template: bool | str, prompt: str
) -> None:
    trace = random_trace(12, len(pieces))
    trace.meta["prompt"] = typed
    said_so = {"chat": template} if isinstance(template, bool) else {"template": template}
    trace.meta["settings"] = {**trace.meta["settings"], **said_so}
    for frame, piece in zip(trace.frames, pieces, strict=True):
        frame["text"] = piece
    said = "".join(frame["text"] for frame in trace.frames)
    assert Questions._as_prompt(trace, said) == prompt


def test_a_new_run_is_looked_at_with_its_own_threshold() -> None:
    view = View(focus=Focus(token=3, threshold=0.3, metric="kl"))
    assert view.fresh("zh") == Focus(metric="kl", lang="zh")
