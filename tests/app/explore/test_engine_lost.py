"""A page whose models run on a cluster: a replica that dies ends a run in words, in the page's language, and Run makes it again."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from threading import Thread
from typing import Any

import pytest

from loopviz.app import controls as st
from loopviz.app.controls.face import face
from loopviz.app.explore.run import Registry
from loopviz.app.explore.service import Service
from loopviz.app.profile import LOCAL
from loopviz.app.sessions.models import ModelRefused, ModelRoom
from loopviz.app.texts import text
from loopviz.checks import ABSENT, FieldError
from loopviz.engine.engine import EngineLost
from loopviz.engine.local import LocalEngine
from loopviz.engine.ray_engine import RayEngine
from tests.app.page_double import unwire
from tests.engine import tiny
from tests.engine.serve_double import Gated, Killed, ServeDouble

WORDS = {"en": "press Run to make it again", "zh": "请按“运行”重新生成"}


@pytest.fixture(params=[6])
def handle(request: Any) -> Iterator[ServeDouble]:
    """Two replicas; the first, which is asked, makes so many Frames and no more."""
    here = LocalEngine("tiny", tiny.model(loop_layers=(1, 2), loop_count=2), tiny.tokenizer())
    double = ServeDouble(Gated(here, let=request.param), Gated(here, let=999))
    yield double
    double.close()


def service_of(handle: ServeDouble) -> Service:
    engine = RayEngine("tiny", handle, (Killed,))
    service = Service(ModelRoom("tiny", load=lambda *_: engine), Registry(), every=0)
    service.room.get("tiny")
    return service


def values(**change: Any) -> dict[str, Any]:
    return st.defaults() | {"model": "tiny", "block_start": 1, "block_end": 2, "max_new_tokens": 12} | change


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_what_there_is_stays_the_word_is_said_and_run_goes_on(handle: ServeDouble, lang: str) -> None:
    service = service_of(handle)
    stream = map(unwire, service.run("Once", values(), lang, "me"))
    while (message := next(stream))["kind"] != "snapshot":
        pass
    shown = len(message["tokens"])
    handle.kill()
    last = [*stream][-1]
    assert (last["kind"], last["bad"], last["over"]) == ("status", True, True)
    assert WORDS[lang] in last["text"]
    assert "field" not in last
    assert "beside" not in last, "nothing is wrong with a setting"
    (run,) = service.registry.of_session("me")
    assert (run.end, run.finished.is_set()) == ("error", True)
    assert len(run.trace) >= shown > 0

    again = [*map(unwire, service.run("Once", values(), lang, "me"))]
    assert again[-1]["end"] == "length"


@pytest.mark.parametrize("handle", [0], indirect=True)
def test_killed_before_anything_is_shown_the_page_notices_nothing(handle: ServeDouble) -> None:
    service = service_of(handle)

    def kill_once_it_runs() -> None:  # beside the stream, which need not say anything before there is something to show
        while "run" not in handle.asked:
            time.sleep(0.01)
        handle.kill()

    killer = Thread(target=kill_once_it_runs)
    killer.start()
    told = [*map(unwire, service.run("Once", values(), "en", "me"))]
    killer.join()
    assert [message["end"] for message in told if message["kind"] != "status"][-1] == "length"
    assert handle.asked.count("run") == 2


def test_while_no_replica_answers_a_form_is_changed_without_an_error(handle: ServeDouble) -> None:
    service = service_of(handle)
    handle.kill()
    handle.kill()
    assert service.problems(values(loop_count=3), "en", "Once") == []
    assert service.problems(values(loop_count=3), "en", "")[0].control == "prompt"
    last = [*map(unwire, service.run("Once", values(loop_count=3), "en", "me"))][-1]
    assert "no replica of this model has answered" in last["text"]


def test_where_the_cluster_has_no_such_model_the_page_says_so_in_its_language(monkeypatch: Any) -> None:
    def refuse(name: str, address: Any) -> None:
        if name == "unreached":
            raise EngineLost("", ABSENT, "engine_unreached", address=str(address), said="refused")
        raise FieldError("model", name, "engine_not_served", known="tiny")

    monkeypatch.setattr("loopviz.engine.ray_engine.remote_engine", refuse)
    monkeypatch.setattr("loopviz.engine.address.find_spec", lambda name: object())
    room = ModelRoom("tiny", profile=LOCAL.__class__(**{**vars(LOCAL), "engine": "ray://auto/there"}))
    for name, said in (
        ("stories-loop", "不在此服务器的集群所提供的模型之列：tiny"),
        ("unreached", "集群 ray://auto/there"),
    ):
        with pytest.raises(ModelRefused, match=said):
            room.get(name, "zh")
    with pytest.raises(ModelRefused, match="is none of the models that this server's cluster serves: tiny"):
        room.get("stories-loop", "en")


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("precision", ["exact", "int8"])
def test_no_precision_is_chosen_of_a_cluster_s_models_and_the_control_says_why(
    lang: str, precision: str, monkeypatch: Any
) -> None:
    """`exact` was taken for the server's own, and did nothing: what a cluster holds models in is not known here."""
    monkeypatch.setattr("loopviz.engine.address.find_spec", lambda name: object())
    room = ModelRoom("tiny", profile=replace(LOCAL, engine="ray://auto"))
    with pytest.raises(ModelRefused, match=re.escape(f"precision={precision!r}")) as refused:
        room.get("tiny", lang, precision=precision)
    assert refused.value.field == "precision"
    values = {**st.defaults(), "precision": st.SERVER}
    told = face(st.BY_NAME["precision"], values, [], lang, server=room.precision)
    assert text(lang, "precision.info.cluster") in json.dumps(told, ensure_ascii=False)
