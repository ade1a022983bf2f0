"""Change 9: a page whose model runs in another process is the page it is: nothing but plain data reaches a model."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from loopviz.app import controls as st
from loopviz.app.compare.service import Comparisons
from loopviz.app.explore.answers import Questions
from loopviz.app.explore.run import Registry
from loopviz.app.explore.service import Service
from loopviz.app.lab.service import Laboratory
from loopviz.app.sessions.models import ModelRoom
from loopviz.engine.engine import Engine
from loopviz.engine.local import LocalEngine
from loopviz.model.checkpoints.load import as_loop_llama
from tests.app.page_double import unwire
from tests.conftest import make_llama, make_tokenizer
from tests.engine.elsewhere import Elsewhere


@pytest.fixture(scope="module")
def here() -> LocalEngine:
    model = as_loop_llama(make_llama(num_hidden_layers=6, eos_token_id=None)).eval()
    model.generation_config.eos_token_id = None
    return LocalEngine("tiny", model, make_tokenizer(), "made here")


@pytest.fixture
def elsewhere(here: LocalEngine) -> Elsewhere:
    return Elsewhere(here)


def service_of(engine: Engine) -> Service:
    service = Service(ModelRoom("tiny", load=lambda *_: engine), Registry(), every=0)
    service.room.get("tiny")
    return service


def values(**change: Any) -> dict[str, Any]:
    return st.defaults() | {"model": "tiny", "block_start": 2, "block_end": 3, "max_new_tokens": 12} | change


def told(stream: Iterator[str]) -> tuple[list[tuple[Any, ...]], list[Any]]:
    """What is said, and what is in the text, without what the clock and chance bring: which words come together is the clock's."""
    said, rows = [], []
    for message in map(unwire, stream):
        rows += [row[:5] for row in message.get("tokens", [])]
        if message["kind"] == "status" or message.get("end"):
            said.append((message["kind"], message.get("text"), message.get("end")))
    return said, rows


def test_a_run_is_the_same_wherever_its_model_runs(here: LocalEngine, elsewhere: Elsewhere) -> None:
    asked = ("Once upon", values(greedy=False, seed=3, loop_count=5), "en", "me")
    assert told(service_of(elsewhere).run(*asked)) == told(service_of(here).run(*asked))
    assert {"describe", "check", "prompt_tokens", "start"} <= set(elsewhere.asked)


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize(
    ("prompt", "change"),
    [
        ("", {}),
        ("Once", {"block_end": 9}),
        ("Once", {"loop_strategy": "dynamic_stop", "virtual_layer_count": 9}),
        ("Once", {"loop_norm": True}),
        ("好" * 300, {}),
    ],
)
def test_a_refusal_is_the_same_and_at_the_same_control(
    here: LocalEngine, elsewhere: Elsewhere, prompt: str, change: dict[str, Any], lang: str
) -> None:
    refused = []
    for engine in (here, elsewhere):
        service = service_of(engine)
        said, _ = told(service.run(prompt, values(**change), lang, "me"))
        refused.append((said, service.problems(values(**change), lang, prompt)))
    assert refused[0] == refused[1]
    assert refused[0][0][-1][1]


def test_a_run_is_steered_stopped_and_told_of_from_elsewhere(elsewhere: Elsewhere) -> None:
    service = service_of(elsewhere)
    stream = service.run("Once", values(max_new_tokens=100), "en", "me")
    while unwire(next(stream))["kind"] != "snapshot":
        pass
    line, later = service.steer(values(max_new_tokens=100, loop_count=9), "en", "me")
    assert "loop_count=9" in unwire(line)["text"]
    assert later == {}
    (run,) = service.registry.of_session("me")
    while len(run.trace) < 20:
        next(stream)
    assert run.trace.meta["changes"][0]["loop"] == {"loop_count": 9}
    assert run.trace.frames[-1]["blocks"][0]["n_steps"] == 9
    service.stop("me")
    assert [unwire(line) for line in stream][-1]["end"] == "stopped"
    assert len(run.trace) < 100


def test_what_a_page_asks_of_a_model_is_answered_from_elsewhere(here: LocalEngine, elsewhere: Elsewhere) -> None:
    answers = []
    long = "Once upon a time there was a dog. " * 60
    for engine in (here, elsewhere):
        service = service_of(engine)
        comparisons, laboratory = Comparisons(service), Laboratory(service)
        cards = [{"name": "a", "plain": True, "values": {}}, {"name": "b", "values": {"block_end": 9}}]
        asked = {"lang": "en", "model": "tiny", "prompt": "Once", "shared": {}, "cards": cards}
        status = Questions(service.registry, service.room).model_status(json.dumps({"lang": "en"}))
        answers.append(
            [
                service.suited(values() | {st.SUITS: "another"}),
                service.too_long(long, values()),
                service.shortened(long, values()),
                service.prompt_hint("tiny", "从前" * 20, "en"),
                re.sub(r'"id": "[^"]*"', "", status),
                comparisons.check(json.dumps(asked)),
                laboratory.model(json.dumps({"model": "tiny"})),
            ]
        )
    assert answers[0] == answers[1]
    assert answers[0][2], "a prompt too long is shortened"


def test_what_must_read_a_model_itself_says_that_it_is_elsewhere(elsewhere: Elsewhere) -> None:
    from loopviz.lab.measure import subject_of

    with pytest.raises(ValueError, match="engine=Elsewhere: its model runs elsewhere; measure it where it runs"):
        subject_of(elsewhere)
