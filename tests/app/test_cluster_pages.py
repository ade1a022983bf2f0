"""Pages whose models are a cluster's do what they do with models of their own: Anatomy reads, Compare compares, the Lab measures.

What a replica that dies leaves is told in the page's language, and the next one does it.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from loopviz.app.anatomy.service import Anatomy
from loopviz.app.compare.service import Comparisons
from loopviz.app.explore.run import Registry
from loopviz.app.explore.service import Service
from loopviz.app.lab.service import Laboratory
from loopviz.app.profile import LOCAL
from loopviz.app.sessions.carried import CarriedRun
from loopviz.app.sessions.models import ModelRoom
from loopviz.app.texts import LANGUAGES
from loopviz.engine.local import LocalEngine
from loopviz.engine.ray_engine import RayEngine
from tests.app.anatomy.test_service import MINE, made
from tests.app.anatomy.test_service import asked as asked_of_anatomy
from tests.app.compare.test_service import asked as asked_of_compare
from tests.app.page_double import unwire
from tests.engine import tiny
from tests.engine.serve_double import Killed, ServeDouble
from tests.engine.test_ray_engine import eventually
from tests.lab.small import TEXT

MODEL, TRACE = made()
HERE = LocalEngine("tiny", MODEL, tiny.tokenizer(), "made here")
CLUSTER = dataclasses.replace(LOCAL, engine="ray://auto")
LOST = {"en": "the replica that did this ended before it was done", "zh": "做这件事的副本中途结束了"}
TIMES = r'"(tokens_per_second|ms_per_token|created|run|look|id|ticket|seq|first|last|seconds|eta)": [^,}\]]*'


@pytest.fixture
def handle() -> Iterator[ServeDouble]:
    double = ServeDouble(HERE, HERE)
    yield double
    double.close()


def service_of(engine: Any) -> Service:
    service = Service(ModelRoom("tiny", load=lambda *_, **__: engine, profile=CLUSTER), Registry(), every=0)
    service.room.get("tiny")
    service.carried.take(CarriedRun(MINE, TRACE, "tiny", own=True))
    return service


def cluster(handle: ServeDouble) -> Service:
    return service_of(RayEngine("tiny", handle, (Killed,)))


def last(messages: Iterator[str]) -> dict[str, Any]:
    return [*map(unwire, messages)][-1]


def settled(message: dict[str, Any]) -> str:
    """Without what the clock and chance bring."""
    return re.sub(TIMES, "", json.dumps(message, sort_keys=True))


# -- Anatomy -----------------------------------------------------------------------------------------------------------


def looks(service: Service) -> list[str]:
    """A word of a run read again, a layer of it, two loop steps, distances and the draw, as the page is told."""
    anatomy, told = Anatomy(service), []
    token = last(anatomy.run(asked_of_anatomy(), "me"))
    assert token["kind"] == "token"
    asked = {"look": token["look"], "layer": 2, "step": 1, "other": 2, "head": 0, "column": 1, "lang": "en"}
    for ask in (anatomy.layer, anatomy.beside, anatomy.distance, anatomy.draw):
        told.append(json.loads(ask(json.dumps(asked))))
    assert [one["kind"] for one in told] == ["layer", "beside", "distance", "draw"]
    need = json.loads(anatomy.need(json.dumps({"model": "tiny", "lang": "en"})))
    assert (need["kind"], need["refused"]) == ("need", False), "a check against transformers is made there, too"
    return [settled(one) for one in (token, *told)]


def test_anatomy_shows_what_it_shows_of_a_model_of_its_own(handle: ServeDouble) -> None:
    assert looks(cluster(handle)) == looks(service_of(HERE))


@pytest.mark.parametrize("lang", LANGUAGES)
def test_where_a_replica_dies_anatomy_says_so_and_the_next_word_is_read(handle: ServeDouble, lang: str) -> None:
    anatomy = Anatomy(cluster(handle))
    token = last(anatomy.run(asked_of_anatomy(), "me"))
    handle.kill()
    answer = json.loads(anatomy.layer(json.dumps({"look": token["look"], "layer": 2, "step": 1, "lang": lang})))
    assert answer["kind"] == "no"
    assert LOST[lang] in answer["text"]
    assert last(anatomy.run(asked_of_anatomy(token=4), "me"))["kind"] == "token"
    handle.kill()
    gone = last(anatomy.run(asked_of_anatomy(token=3, lang=lang), "me"))
    assert (gone["kind"], gone["bad"], gone.get("field")) == ("status", True, None)


# -- Compare -----------------------------------------------------------------------------------------------------------


def test_compare_compares_as_with_a_model_of_its_own(handle: ServeDouble) -> None:
    rows = []
    for service in (cluster(handle), service_of(HERE)):
        comparisons = Comparisons(service, every=0)
        asked = asked_of_compare(None, {"block_start": 1, "block_end": 2, "loop_count": 3})
        page = last(comparisons.run(asked, "me"))
        assert page["end"] == "done"
        whole = json.loads(comparisons.look(json.dumps({"run": page["run"], "lang": "en"})))
        data = json.loads(comparisons.download(json.dumps({"run": page["run"], "kind": "json"})))
        assert data["name"].endswith(".json")
        cards = [
            {**card["row"], "text": card["pieces"], "differs": card["differs"]} for card in whole["cards"].values()
        ]
        rows.append([settled(card) for card in cards])
    assert rows[0] == rows[1]
    assert len(rows[0]) == 2


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_comparison_whose_replica_dies_ends_in_words_and_keeps_what_there_is(handle: ServeDouble, lang: str) -> None:
    comparisons = Comparisons(cluster(handle), every=0)
    asked = asked_of_compare(None, {"block_start": 1, "block_end": 2}, lang=lang, shared={"max_new_tokens": 100})
    stream = map(unwire, comparisons.run(asked, "me"))
    for message in stream:
        if message["kind"] == "news" and message["cards"]:
            handle.kill()
            break
    end = [*stream][-1]
    assert (end["kind"], end["bad"]) == ("status", True)
    assert LOST[lang] in end["text"]
    (run,) = comparisons.runs.of_session("me")
    assert run.end == "error"
    assert last(comparisons.run(asked | {"shared": {"max_new_tokens": 3}}, "me"))["end"] == "done"


# -- the Lab -----------------------------------------------------------------------------------------------------------


def measurement(**change: Any) -> dict[str, Any]:
    values = {"text": TEXT, "loops": "1, 3", "limit_tokens": 40, "window": 12, "draws": 20} | change.pop("values", {})
    return {"lang": "en", "model": "tiny", "task": "perplexity", "ticket": "t1", "values": values} | change


# has a row soon and is not done before somebody has ended it
LONG = measurement(values={"loops": ", ".join(map(str, range(1, 33))), "paths": "cache", "batch": 1})


def test_the_lab_measures_as_with_a_model_of_its_own(handle: ServeDouble) -> None:
    found = []
    for service in (cluster(handle), service_of(HERE)):
        laboratory = Laboratory(service, every=0.01)
        sizes = json.loads(laboratory.sizes(json.dumps({**measurement(), "cut": False})))
        page = last(laboratory.run(measurement(), "me"))
        assert page["end"] == "done"
        (run,) = laboratory.runs.of_session("me")
        link = json.loads(laboratory.link(json.dumps({"run": page["run"], "row": 1, "lang": "en"})))
        rows = [settled(row) for row in run.experiment.rows]
        found.append((sizes, rows, run.experiment.manifest["model"], link))
    assert found[0][1:] == found[1][1:]
    assert [size["values"] for size in found[0][0]["sizes"]] == [size["values"] for size in found[1][0]["sizes"]]
    assert found[0][3]["word"]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_measurement_whose_replica_dies_ends_in_words_and_keeps_its_rows(handle: ServeDouble, lang: str) -> None:
    laboratory = Laboratory(cluster(handle), every=0.01)
    asked = LONG | {"lang": lang}
    stream = map(unwire, laboratory.run(asked, "me"))
    next(message for message in stream if message["kind"] == "news" and message["rows"])
    handle.kill()
    end = [*stream][-1]
    assert end["end"] == "error"
    assert LOST[lang] in end["reason"]
    (run,) = laboratory.runs.of_session("me")
    assert 0 < len(run.experiment.rows) < 32
    handle.kill()
    gone = last(laboratory.run(asked, "me"))
    assert gone.get("bad") or gone["end"] == "error"
    assert json.loads(laboratory.sizes(json.dumps({**measurement(), "cut": False})))["kind"] == "sizes"


def test_a_stop_ends_a_measurement_there(handle: ServeDouble) -> None:
    laboratory = Laboratory(cluster(handle), every=0.01)
    stream = map(unwire, laboratory.run(LONG, "me"))
    next(message for message in stream if message["kind"] == "news" and message["rows"])
    laboratory.stop(json.dumps({"ticket": "t1"}))
    assert [*stream][-1]["end"] == "stopped"
    assert eventually(lambda: not handle.replicas[0]._works)
