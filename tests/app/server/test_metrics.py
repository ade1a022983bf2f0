"""Health for anybody, numbers for who has the token; what is counted is what was run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.testclient import TestClient

from loopviz.app.explore.run import Registry
from loopviz.app.explore.service import Service
from loopviz.app.server.assets import HEALTH, SERVER
from loopviz.app.server.metrics import METRICS, TOKEN, routes
from loopviz.app.sessions.models import ModelRefused, ModelRoom
from loopviz.app.sessions.ttt_models import ttt_room
from loopviz.app.ttt.service import TTT
from loopviz.version import version
from tests.engine import tiny_ttt

SECRET = {"authorization": "Bearer s3cret"}


def served(environ: dict[str, str]) -> tuple[Service, TestClient]:
    service = Service(ModelRoom("none", load=lambda *_: pytest.fail("nothing loads")), Registry())
    return service, TestClient(Starlette(routes=routes(service, environ)))


def numbers(client: TestClient) -> dict[tuple[str, ...], float]:
    """By name and the values of the labels `page` and `end`."""
    answer = client.get(METRICS, headers=SECRET)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, *(sample.labels[name] for name in ("page", "end") if name in sample.labels)): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_health_is_told_to_anybody_and_starts_nothing() -> None:
    service, client = served({})
    told = client.get(HEALTH)
    said = {"status": "ok", "version": version(), "profile": "local", "model": "waiting"}
    assert told.json() == {**said, "server": SERVER, "pages": ""}
    assert client.head(HEALTH).status_code == 200
    assert service.room.held() == 0


def test_a_model_that_cannot_be_loaded_is_told_to_who_watches() -> None:
    def broken(*_: Any) -> Any:
        raise ValueError("no such file")

    room = ModelRoom("none", load=broken)
    client = TestClient(Starlette(routes=routes(Service(room, Registry()), {})))
    with pytest.raises(ModelRefused):
        room.get("none")
    told = client.get(HEALTH)
    assert told.status_code == 503
    assert (told.json()["status"], told.json()["model"]) == ("failed", "failed")


@pytest.mark.parametrize("environ", [{}, {TOKEN: " "}])
def test_without_a_token_there_are_no_numbers(environ: dict[str, str]) -> None:
    _, client = served(environ)
    for headers in ({}, SECRET, {"authorization": "Bearer "}, {"authorization": ""}):
        assert client.get(METRICS, headers=headers).status_code == 404


def test_numbers_are_for_who_has_the_token() -> None:
    _, client = served({TOKEN: "s3cret"})
    for wrong in ("", "Bearer", "Bearer ", "Bearer S3cret", "Basic s3cret", "Bearer s3cret2", "Bearer \u00e9"):
        answer = client.get(METRICS, headers={"authorization": wrong.encode()})
        assert answer.status_code == 401
        assert "loopviz_" not in answer.text
    assert numbers(client)[("loopviz_running",)] == 0


def test_what_is_counted_is_what_was_run_and_no_word_of_it() -> None:
    service, client = served({TOKEN: "s3cret"})
    ttt = TTT(service, ttt_room(service.room, lambda *_: tiny_ttt.engine()), every=0, rest=0)

    def asked(prompt: str, **more: Any) -> Iterator[str]:
        begin = {"lang": "en", "ticket": "t" * 16, "model": "stories-ttt", "prompt": prompt, "max_new_tokens": 5}
        return ttt.run(begin | more, "somebody")

    list(asked("Once upon a time"))
    (run,) = ttt.runs
    list(asked("   "))
    stream = asked("Once upon a time", n=7)
    next(stream)
    during = numbers(client)
    assert during[("loopviz_running",)] == 1
    assert during[("loopviz_waiting",)] == 0
    stream.close()
    found = numbers(client)
    assert found[("loopviz_runs_total", "ttt", "length")] == 1
    assert found[("loopviz_runs_total", "ttt", "stopped")] == 1
    assert found[("loopviz_refused_total", "ttt")] == 1
    assert found[("loopviz_tokens_total", "ttt")] >= len(run.trace)
    assert found[("loopviz_running",)] == 0
    assert found[("loopviz_kept_bytes",)] == service.keeper.total > 0
    assert found[("loopviz_resident_bytes",)] > 2**20
    said = client.get(METRICS, headers=SECRET).text
    for private in ("Once", "somebody", "t" * 16, run.id):
        assert private not in said
    assert json.dumps(said)


def test_models_that_are_held_are_those_of_both_rooms() -> None:
    service = Service(ModelRoom("none", load=lambda *_: tiny_ttt.engine()), Registry())
    client = TestClient(Starlette(routes=routes(service, {TOKEN: "s3cret"})))
    held = []
    for load in (lambda: None, lambda: service.room.get("none"), lambda: ttt_room(service.room).get("stories-ttt")):
        load()
        held.append(numbers(client)[("loopviz_models_held",)])
    assert held == [0, 1, 2]
