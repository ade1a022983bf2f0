"""What the tour says holds in the stored run; what does not hold for a run is not said of it; its steps fit the page."""

from __future__ import annotations

import json
import re
import string
from itertools import pairwise
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from loopviz.app import recording, server, tour
from loopviz.app.texts import LANGUAGES
from loopviz.app.texts.glossary import BY_KEY
from loopviz.app.texts.tour import STEPS, Step
from loopviz.panels import PANELS, Focus
from loopviz.trace import Trace
from tests.trace.synthetic import random_trace


@pytest.fixture(scope="module")
def trace() -> Trace:
    stored = recording.stored()
    assert stored is not None
    return stored


@pytest.fixture(scope="module")
def known(trace: Trace) -> dict[str, Any]:
    return tour.facts(trace, "en")


@pytest.fixture(scope="module")
def played() -> dict[str, dict[str, dict[str, Any]]]:
    """The tour as a page fetches it: by language and step."""
    client = TestClient(Starlette(routes=server.routes()))
    answers = {lang: client.get(f"/{server.PREFIX}/x/tour.{lang}.json").json() for lang in LANGUAGES}
    return {lang: {step["key"]: step for step in answer["steps"]} for lang, answer in answers.items()}


def plain(step: dict[str, Any]) -> str:
    return "".join(piece if isinstance(piece, str) else piece[0] for piece in step["words"])


def loops(trace: Trace, at: int) -> int:
    return trace.frames[at]["blocks"][0]["n_steps"]


def winners(trace: Trace, at: int) -> list[str]:
    return [texts[0].strip() for texts in trace.frames[at]["blocks"][0]["steps"]["topk_texts"]]


# --- what the stored run must hold ------------------------------------------------------------------------------------


def test_every_step_is_shown_on_the_stored_run(played: dict[str, Any]) -> None:
    """Another recording for which one is left out is a worse first run: choose another."""
    for lang in LANGUAGES:
        assert list(played[lang]) == [step.key for step in STEPS]


def test_the_run_loops_and_is_written_after_its_prompt(trace: Trace, played: dict[str, Any]) -> None:
    assert max(loops(trace, t) for t in range(len(trace))) > 1
    assert played["en"]["replay"]["shown"] == trace.meta["prompt_tokens"] < len(trace) - 1
    assert played["en"]["replay"]["play"]


def test_the_hard_word_is_one(trace: Trace, known: dict[str, Any], played: dict[str, Any]) -> None:
    at = known["hard"]
    written = [t for t, frame in enumerate(trace.frames) if frame["phase"] == "generated"]
    assert at in written
    assert all(loops(trace, at) >= loops(trace, t) for t in written)
    assert sum(loops(trace, at) > loops(trace, t) for t in written) > len(written) / 2, "more than over most others"
    said = plain(played["en"]["hard"])
    assert f"“{trace.frames[at]['text'].strip()}”" in said
    assert f"{loops(trace, at)} loops" in said
    assert {"max": "upper bound", "kl": "KL", "cosine": "cosine"}[trace.frames[at]["blocks"][0]["stop_reason"]] in said
    step = played["en"]["hard"]
    assert step["target"] == f"#lv-word-{at}"
    assert step["shown"] == at + 1 == step["focus"]["token"] + 1, "the slider stands where it had just been read"


def test_its_loops_change_less_and_less(trace: Trace, known: dict[str, Any], played: dict[str, Any]) -> None:
    steps = trace.frames[known["hard"]]["blocks"][0]["steps"]
    assert 1 - steps["cosine"][-1] < 0.1 * (1 - steps["cosine"][0])
    assert steps["kl"][-1] < 0.1 * steps["kl"][0]
    assert trace.meta["blocks"][0]["strategy"] == "dynamic_stop"
    assert played["en"]["curve"]["focus"]["token"] == known["hard"]


def test_a_word_changes_its_mind(trace: Trace, known: dict[str, Any], played: dict[str, Any]) -> None:
    at, since = known["turn"], known["turn_step"]
    won = winners(trace, at)
    assert won[0] != won[-1]
    assert set(won[since - 1 :]) == {won[-1]}
    assert won[since - 2] != won[-1]
    changes = [sum(a != b for a, b in pairwise(winners(trace, t))) for t in range(len(trace))]
    held = [t for t in range(len(trace)) if trace.frames[t]["phase"] == "generated"]
    assert changes[at] == max(changes[t] for t in held if winners(trace, t)[0] != winners(trace, t)[-1])
    said = plain(played["en"]["guess"])
    assert f"“{won[0]}” is ahead" in said
    assert f"from loop {since} on it is “{won[-1]}”" in said
    assert played["en"]["guess"]["focus"]["token"] == at


def test_an_easy_word_takes_fewer_loops(trace: Trace, known: dict[str, Any], played: dict[str, Any]) -> None:
    easy, hard = known["easy"], known["hard"]
    written = [t for t, frame in enumerate(trace.frames) if frame["phase"] == "generated"]
    words = [t for t in written if re.search(r"\w\w", trace.frames[t]["text"])]
    assert easy in words
    assert loops(trace, easy) == min(loops(trace, t) for t in words) < loops(trace, hard)
    said = plain(played["en"]["path"])
    assert f"only {loops(trace, easy)} loops" in said
    assert f"took {loops(trace, hard)}." in said
    assert f"{trace.meta['shape']['hidden']} numbers" in said
    assert sorted(played["en"]["path"]["focus"]["pins"]) == sorted([easy, hard])


def test_how_the_run_remembers_is_said_as_the_page_says_it(trace: Trace, played: dict[str, Any]) -> None:
    from loopviz.app.drawing import about

    for lang in LANGUAGES:
        memory = re.search(r"(?:This run: |这次运行：)(.+?)[.。]$", plain(played[lang]["memory"]))
        assert memory
        assert memory[1] in about(trace.meta, lang)


def test_a_panel_that_is_off_and_needs_more_is_switched_on(played: dict[str, Any]) -> None:
    from loopviz.app import drawing

    (name,) = played["en"]["panels"]["panels"]
    assert PANELS[name].NEEDS
    assert not drawing.usual(PANELS[name])


# --- a run for which something does not hold --------------------------------------------------------------------------


def test_of_a_plain_model_nothing_about_loops_is_said() -> None:
    run = random_trace(3, 6, blocks=[])
    assert [step.key for step in tour.steps(run)] == ["replay", "panels", "yours", "more"]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_equal_loops_make_no_hard_word(lang: str) -> None:
    run = random_trace(5, 12, strategy="fixed_count")
    keys = [step.key for step in tour.steps(run)]
    assert "text" in keys
    assert not {"hard", "curve", "map", "path"} & set(keys)
    known = tour.facts(run, lang)
    for step in tour.steps(run):
        assert plain(tour.played(step, known, lang))


@pytest.mark.parametrize(
    "what", [{}, {"top_k": 0}, {"record": "off"}, {"blocks": [(0, 0), (2, 3)]}, {"prompt_tokens": 9}]
)
@pytest.mark.parametrize("seed", range(3))
def test_any_run_gets_a_tour_that_is_filled_in(seed: int, what: dict[str, Any]) -> None:
    run = random_trace(seed, 10, **{"strategy": "dynamic_stop", "max_steps": 8, **what})
    for lang in LANGUAGES:
        known = tour.facts(run, lang)
        for step in tour.steps(run):
            shown = tour.played(step, known, lang)
            Focus.from_json(shown["focus"])
            assert shown["shown"] is None or 1 <= shown["shown"] <= len(run)
            assert json.dumps(shown)


def test_a_token_is_text_whatever_it_is() -> None:
    pieces = tour._pieces("read “{hard_text}” ([loop](#loop_step))", {"hard_text": "[x](#kl) {y}"})
    assert pieces == ["read “[x](#kl) {y}” (", ["loop", "loop_step"], ")"]


# --- the steps fit the page -------------------------------------------------------------------------------------------


def _page() -> str:
    """Everything that gives the page its ids and classes."""
    made = [path.read_text(encoding="utf-8") for path in server.ASSETS.glob("*.js")]
    return "".join(made) + (recording.FILE.parents[2] / "loopviz/app/explore.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.key)
def test_a_step_points_at_something_of_the_page(step: Step) -> None:
    page = _page()
    for panel in re.findall(r'\[data-panel="(\w+)"\]', step.target):
        assert panel in PANELS
        assert panel in step.panels, "a panel that is explained is on"
    for kind in re.findall(r"\.([\w-]+)", step.target):
        assert re.search(rf'"[^"]*\b{kind}\b[^"]*"', page), kind
    for name in re.findall(r"#([\w-]+)", step.target):
        assert re.search(rf'["`]{name}(?:["`]|\$)', page), name


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.key)
def test_a_step_says_the_same_in_both_languages(step: Step) -> None:
    places, links = {}, {}
    for lang in LANGUAGES:
        said = step.said(lang)
        assert said.title.strip()
        assert re.search(r"[\u4e00-\u9fff]", said.title + said.words) if lang == "zh" else said.words.isprintable()
        bare = tour._LINK.sub(r"\1", said.words)
        assert "[" not in bare
        assert not re.search(r"\d", bare), "a number of a run is a fact, not text"
        places[lang] = {name for _, name, _, _ in string.Formatter().parse(said.words) if name}
        links[lang] = {link[1] for link in tour._LINK.findall(said.words)}
        assert len(said.words) < 560, "short steps"
    assert places["en"] == places["zh"]
    assert links["en"] == links["zh"] <= BY_KEY.keys()
    assert set(step.claims) <= tour.CLAIMS.keys()


def test_the_tour_does_things() -> None:
    """It moves the slider, plays, holds a word and a loop, pins, changes choices, switches a panel on."""
    focus = [dict(step.focus) for step in STEPS]
    assert any(step.play for step in STEPS)
    assert any(step.shown and not step.play for step in STEPS)
    for name in ("token", "step", "pins", "metric", "dims"):
        assert any(name in asked for asked in focus), name
    assert any("@" in panel for step in STEPS for panel in step.panels)
