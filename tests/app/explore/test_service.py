"""Runs as the page starts them: refused in words, stopped within a token, never seen by another, gone when they end."""

from __future__ import annotations

import copy
import gc
import json
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from loopviz.app import controls as st
from loopviz.app.controls.link_word import PageState, decode, encode
from loopviz.app.controls.presets import PRESETS
from loopviz.app.explore import first_run
from loopviz.app.explore.answers import View
from loopviz.app.explore.run import Registry
from loopviz.app.explore.service import WONDER, Service
from loopviz.app.explore.tool import tool
from loopviz.app.sessions import bounds
from loopviz.app.sessions.models import ModelRefused, ModelRoom
from loopviz.app.sessions.tools import ToolRefused
from loopviz.app.texts import text
from loopviz.engine.local import LocalEngine as Loaded
from loopviz.engine.lowered import PrecisionRefused
from loopviz.model.checkpoints.errors import Note
from loopviz.model.precision import lower
from loopviz.panels import PANELS, Focus
from loopviz.prompt_templates import written
from tests.app.by_hand import only
from tests.app.page_double import unwire
from tests.conftest import make_llama


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    """A tiny random model of six layers that never ends its text by itself."""
    from loopviz.model.checkpoints.load import as_loop_llama
    from tests.conftest import make_tokenizer

    tokenizer = make_tokenizer()
    model = as_loop_llama(make_llama(num_hidden_layers=6, eos_token_id=None)).eval()
    model.generation_config.eos_token_id = None
    return Loaded("tiny", model, tokenizer)


@pytest.fixture
def service(loaded: Loaded) -> Service:
    """A service whose models are the tiny one, by the name of "tiny", and none other."""
    return Service(ModelRoom("tiny", load=only(loaded)), Registry(), every=0)


def values(**change: Any) -> dict[str, Any]:
    return st.defaults() | {"model": "tiny", "block_start": 2, "block_end": 3, "max_new_tokens": 12} | change


def said(stream: Iterator[str]) -> list[dict[str, Any]]:
    return [unwire(text) for text in stream]


def shown(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages that change what is on screen."""
    return [message for message in messages if message["kind"] != "status"]


def test_a_run_from_prompt_to_end(service: Service) -> None:
    messages = shown(said(service.run("Once upon", values(), "en", "me")))
    assert messages[0]["kind"] == "snapshot"
    assert messages[-1]["end"] == "length"
    assert set(messages[0]["figures"]) == set(first_run.opening_panels())
    prompt = sum(row[3] for message in messages for row in message["tokens"])
    tokens = sum(len(message["tokens"]) for message in messages)
    assert tokens == prompt + 12 - 1
    assert len(service.registry) == 1
    assert service.registry.active() == 0


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_behind_a_measurement_nobody_says_wait(service: Service, lang: str) -> None:
    """Only Explore's runs were counted: behind two measurements nothing was said at all."""
    lab = text(lang, "nav.lab")
    service.places.most = 2
    with service.places.join("lab"), service.places.join("lab"):
        second = service.run("Once upon", values(), lang, "second")
        first = service.run("Once upon", values(), lang, "first")
        for stream, key, ahead in ((first, "live.queued.next", 0), (second, "live.queued", 1)):
            lines = (message["text"] for message in map(unwire, stream) if message["kind"] == "status")
            line = next(line for line in lines if lab in line)
            said_first = text(lang, key, n=ahead, running=f"{lab}, {lab}")
            assert line == f"{said_first} · {text(lang, 'live.queued.open')}", "nothing is known of what the test holds"
        assert service.places.taken() == 2
        first.close()
        second.close()


def test_loops_reach_the_model(service: Service) -> None:
    messages = shown(said(service.run("Once", values(loop_count=7, virtual_layer_count=2), "en", "me")))
    assert {tuple(row[1]) for message in messages for row in message["tokens"]} == {(7,)}


@pytest.mark.parametrize(
    ("prompt", "change", "control", "words"),
    [
        ("", {}, "prompt", "empty"),
        ("   ", {}, "prompt", "empty"),
        (None, {}, "prompt", "empty"),
        ("x" * 100_000, {}, "prompt", "100000"),
        ("word " * 400, {}, "prompt", "context is 128 tokens"),
        ("half \ud800 pair", {}, "prompt", "surrogate"),
        ("a", {"model": "no/such-model"}, "model", "no such"),
        ("a", {"model": ""}, "model", "empty"),
        ("a", {"model": 7}, "model", "empty"),
        ("a", {"block_end": 6}, "block_end", "0..5"),
        ("a", {"block_start": -1}, "block_start", "-1"),
        ("a", {"block_start": 4}, "block_start", "comes after"),
        ("a", {"block_start": 2.5}, "block_start", "2.5"),
        ("a", {"loop_count": 11}, "loop_count", "max_loop_count=10"),
        ("a", {"loop_count": 0}, "loop_count", "whole number"),
        ("a", {"loop_strategy": "dynamic_stop", "virtual_layer_count": 9}, "virtual_layer_count", "min_loop_count=5"),
        ("a", {"loop_strategy": "forever"}, "loop_strategy", "fixed_count"),
        ("a", {"loop_strategy": "dynamic_stop", "cosine_threshold": float("nan")}, "cosine_threshold", "nan"),
        ("a", {"kl_threshold": float("inf")}, "kl_threshold", "inf"),
        ("a", {"max_new_tokens": 10**9}, "max_new_tokens", "1024"),
        ("a", {"temperature": "hot"}, "temperature", "'hot'"),
        ("a", {"seed": None}, "seed", "None"),
        ("a", {"loop_injection": "linear"}, "loop_injection", "not trained"),
    ],
)
def test_bad_input_is_told_beside_its_control_and_leaves_the_screen(
    service: Service, prompt: Any, change: dict[str, Any], control: str, words: str
) -> None:
    good = shown(said(service.run("Once", values(max_new_tokens=1), "en", "me")))
    messages = said(service.run(prompt, values(**change), "en", "me"))
    assert shown(messages) == []
    assert messages[-1]["bad"]
    assert [*messages[-1]["beside"]] == [control]
    assert words in messages[-1]["beside"][control]
    # what was on screen can still be asked about
    assert service.registry.active() == 0
    assert (
        json.loads(service.questions.focus(json.dumps({"run": good[0]["run"], "focus": {"token": 1}})))["kind"]
        == "snapshot"
    )


def test_everything_refused_is_told_at_once(service: Service) -> None:
    service.room.get("tiny")
    messages = said(service.run("", values(block_end=77, loop_injection="none"), "en", "me"))
    assert "2 settings" in messages[-1]["text"]
    assert messages[-1]["beside"].keys() == {"prompt", "block_end"}
    assert messages[-1]["open"] == ["loop"], "the groups that are to be seen"


def test_a_model_that_failed_is_tried_again(service: Service, loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, calls = service.room._load, []

    def once(name: str, progress: Any, local: bool) -> Loaded:
        calls.append(name)
        if len(calls) == 1:
            raise OSError("the network is down")
        return plain(name, progress, local)

    monkeypatch.setattr(service.room, "_load", once)
    assert shown(said(service.run("Once", values(), "en", "me"))) == []
    assert [problem.control for problem in service.model_problem("tiny")] == ["model"]
    assert shown(said(service.run("Once", values(), "en", "me")))[-1]["end"] == "length"
    assert service.model_problem("tiny") == []


def in_precisions(**engines: Any) -> Service:
    """A service of one model, "tiny", in the precisions that are named; in any other it is refused."""

    def load(name: str, progress: Any, local: bool, precision: str = "server") -> Loaded:
        if precision not in engines:
            raise PrecisionRefused("precision_refused", "no kernel", precision=precision, dtype=precision)
        return engines[precision]

    return Service(ModelRoom("tiny", load=load), Registry(), every=0)


def test_a_run_is_made_in_the_precision_that_was_chosen_and_nobody_elses_is(loaded: Loaded) -> None:
    model: Any = copy.deepcopy(loaded.model)
    service = in_precisions(server=loaded, half=Loaded("tiny", lower(model, torch.bfloat16), loaded.tokenizer))
    asked = values(precision="half", max_new_tokens=3)
    half = shown(said(service.run("Once upon", asked, "en", "me")))
    assert half[-1]["end"] == "length"
    assert "held in bfloat16" in half[0]["about"]
    other = shown(said(service.run("Once upon", values(max_new_tokens=3), "en", "another")))
    assert "held in" not in other[0]["about"]
    mine = service.settings_of(half[0]["run"])
    assert mine is not None
    assert mine[0]["precision"] == "half", "run again, it is so again"
    assert service.problems(asked | {"block_end": 99}, "en") != []


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_precision_that_cannot_be_had_is_refused_beside_its_control_with_a_way_out(loaded: Loaded, lang: str) -> None:
    service = in_precisions(server=loaded)
    asked = values(precision="int8")
    last = said(service.run("Once upon", asked, lang, "me"))[-1]
    assert (last["over"], last["bad"], last["open"]) == (True, True, ["model"])
    assert [*last["beside"]] == ["precision"]
    assert "int8" in last["beside"]["precision"]
    assert last["act"] == {"label": text(lang, "precision.again"), "precision": "exact"}
    (problem,) = service.model_problem("tiny", lang, "int8")
    assert problem.control == "precision"
    assert service.model_problem("tiny", lang) == [], "as the server has it, it is there"


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_run_that_grows_beyond_float16_is_offered_again_in_exact(loaded: Loaded, lang: str) -> None:
    wide: Any = copy.deepcopy(loaded.model)
    with torch.no_grad():
        wide.model.layers[2].mlp.down_proj.weight.fill_(6e4)
    half = Loaded("tiny", lower(copy.deepcopy(wide), torch.float16), loaded.tokenizer)
    service = in_precisions(server=Loaded("tiny", wide, loaded.tokenizer), half=half)
    last = said(service.run("Once upon", values(precision="half"), lang, "me"))[-1]
    assert last["beside"] == {"precision": text(lang, "refused", reason=text(lang, "precision.overflow"))}
    assert "--" not in last["text"], "a page has no command line"
    assert last["act"] == {"label": text(lang, "precision.again"), "precision": "exact"}
    assert shown(said(service.run("Once upon", values(precision="exact"), lang, "me")))[-1]["end"] == "length"


def test_a_page_asks_for_a_model_in_a_precision_and_hears_what_that_costs(loaded: Loaded) -> None:
    half = Loaded("tiny", loaded.model, loaded.tokenizer, notes=(Note("precision_no_half", ""),))
    service = in_precisions(server=loaded, half=half)
    for name, notes in (("half", True), ("server", False), ("of a stranger", False)):
        asked = {"lang": "en", "model": "tiny", "precision": name, "again": False, "linked": False, "look": False}
        service.room.get("tiny", precision=name if name == "half" else "")
        answer = json.loads(service.questions.model_status(json.dumps(asked)))
        assert (answer["state"], "notes" in answer) == ("ready", notes)
    assert service.room.held() == 2, "a precision that there is none of is the server's"


def test_a_link_and_a_program_may_name_a_precision(loaded: Loaded) -> None:
    service = in_precisions(server=loaded)
    word, _ = encode(PageState(st.default_settings().changed({"precision": "int8"})))
    assert decode(word)[0].values["precision"] == "int8"
    assert len(encode(PageState(st.default_settings()))[0] or "") < len(word or ""), "as the server has it is not said"
    asks = tool(service).carry_out({"prompt": "Hello", "settings": {"precision": "int8"}}, "a program")
    with pytest.raises(ToolRefused) as refused:
        list(asks)
    assert [*refused.value.fields] == ["precision"]


def test_refusals_lead_in_the_visitor_s_language(service: Service) -> None:
    messages = said(service.run("", values(), "zh", "me"))
    assert "提示词为空" in messages[-1]["text"]


@pytest.mark.parametrize("asked", [{"chat": True}, {"template": "chat"}])
def test_a_program_s_template_is_refused_where_a_page_s_gives_way(
    service: Service, loaded: Loaded, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any]
) -> None:
    monkeypatch.setattr(loaded.tokenizer, "chat_template", None)
    asks = tool(service).carry_out({"prompt": "Hello", "settings": {**asked, "max_new_tokens": 2}}, "a program")
    with pytest.raises(ToolRefused, match="this model has no chat template of its own") as refused:
        list(asks)
    assert [*refused.value.fields] == ["template"]
    form = {**values(**asked), st.SUITS: "", st.TOUCHED: ("template",)}
    said_to_page = said(service.run("Hello", form, "en", "me"))
    assert not said_to_page[-1].get("bad")
    assert service.suited(form)[1] == {"template": "chat"}, "and its controls are told"


def test_chat_without_a_template_is_refused(service: Service, loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaded.tokenizer, "chat_template", None)
    assert [*said(service.run("Hello", values(chat=True), "en", "me"))[-1]["beside"]] == ["template"]


@pytest.mark.parametrize(("template", "input"), [("alpaca", "a dog"), ("vicuna", "")])
def test_a_run_in_a_template_is_taken_over_with_it_and_gone_on_from_without(template: str, input: str) -> None:
    from loopviz.model.checkpoints.load import as_loop_llama
    from tests.conftest import make_tokenizer

    model = as_loop_llama(make_llama(max_position_embeddings=512)).eval()
    there = Service(ModelRoom("tiny", load=only(Loaded("tiny", model, make_tokenizer()))), Registry(), every=0)
    asked = values(template=template, input=input, max_new_tokens=2, block_start=1, block_end=1)
    said(there.run("Say it.", asked, "en", "me"))
    [run] = there.registry.of_session("me")
    read = "".join(frame["text"] for frame in run.trace.frames if frame["phase"] == "prompt")
    assert read.endswith(written(template, "Say it.", input)), "all that the model reads is shown"
    found = there.settings_of(run.id)
    assert found is not None
    again, _ = st.of_run(run.trace.meta)
    for settings in (found[0], again):
        assert (settings["template"], settings["input"]) == (template, input)
    assert found[1] == "Say it."
    branch = there.branched(run.id, found[0], len(run.trace) - 1, 3)
    assert branch is not None
    assert branch[0].items() >= {"template": "none", "input": "", "loop_count": 3}.items()
    assert branch[1].startswith(written(template, "Say it.", input)), (
        "without the mark that the tokenizer puts before it"
    )


def test_an_unforeseen_error_is_a_message_with_a_reference_not_a_trace(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loopviz.engine.stream", lambda *a, **k: (_ for _ in ()).throw(RuntimeError("secret /path")))
    messages = said(service.run("Once", values(), "en", "me"))
    assert "secret" not in messages[-1]["text"]
    assert messages[-1]["bad"]
    assert service.registry.active() == 0


def streaming(service: Service, **change: Any) -> Iterator[str]:
    """A run of "me" whose first words have come."""
    stream = service.run("Once", values(**{"max_new_tokens": 100, **change}), "en", "me")
    while unwire(next(stream))["kind"] != "snapshot":
        pass
    return stream


def loops(service: Service) -> list[int]:
    (run,) = service.registry.of_session("me")
    return [frame["blocks"][0]["n_steps"] for frame in run.trace.frames]


def test_a_run_begun_before_its_model_is_there_is_of_its_own_settings(service: Service) -> None:
    """All but what the visitor touched: until the model arrives the form holds settings for none in particular."""
    early = values(block_start=10, block_end=14) | {st.SUITS: ""} | PRESETS[0].values
    early[st.TOUCHED] = tuple(PRESETS[0].values)
    assert said(service.run("Once upon", early, "en", "s"))[-1]["end"] == "length"
    (run,) = service.registry.of_session("s")
    assert run.trace.meta["loop"]["loop_layers"] == [2, 2]
    assert run.values == st.clean(early)[0] | {"block_start": 2, "block_end": 2}
    assert service.own_settings(early | {st.SUITS: "tiny"}) is None, "they stay from then on"
    assert "layer 10 is not in" in said(service.run("Once upon", early | {st.SUITS: "tiny"}, "en", "s"))[-1]["text"]


def test_the_form_asks_for_a_model_s_settings_only_where_it_has_not_got_them(service: Service) -> None:
    """Every start had it ask, by an event more, and its first word wait for a message more."""
    service.room.get("tiny")
    settled, early = (said(service.run("Once", values() | {st.SUITS: whose}, "en", "me")) for whose in ("tiny", ""))
    assert [message for message in settled if message["kind"] == "status"] == []
    assert [message["suit"] for message in early if message["kind"] == "status"] == [True]
    assert early[0]["kind"] == "status"


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_prompt_that_takes_long_is_said_to_be_read(
    service: Service, monkeypatch: pytest.MonkeyPatch, lang: str
) -> None:
    service.room.get("tiny")
    monkeypatch.setattr(bounds, "seconds_of_reading", lambda *_: 2 * WONDER)
    first = said(service.run("Once", values(), lang, "me"))[0]
    assert (first["kind"], first["text"]) == ("status", text(lang, "live.reading"))
    assert "suit" not in first


def test_reading_a_longer_prompt_is_estimated_to_take_longer(loaded: Loaded) -> None:
    form = st.Form.read(values())
    short, long = (bounds.seconds_of_reading(loaded, form.settings, tokens, ()) for tokens in (4, 400))
    assert 0 < short < long


def test_a_loop_changed_during_a_run_changes_that_run(service: Service) -> None:
    assert service.steer(values(loop_count=2), "en", "me") == (None, {}), "nothing runs"
    stream = streaming(service)
    assert service.steer(values(max_new_tokens=100), "en", "me") == (None, {}), "nothing was changed"
    said, later = service.steer(values(max_new_tokens=100, loop_count=7), "en", "me")
    assert "loop_count=7" in unwire(said)["text"]
    assert later == {}
    messages = shown(unwire(next(stream)) for _ in range(4))
    (run,) = service.registry.of_session("me")
    had = run.trace.meta["changes"][0]["index"]
    assert loops(service) == [4] * had + [7] * (len(run) - had)
    assert had < len(run)
    told = [message for message in messages if "about" in message]
    assert f"from token {had}: loop_count=7" in told[-1]["about"]
    assert [i + 1 for i, colour in enumerate(told[-1]["palette"]) if colour] == [4, 7]
    assert service.steer(values(max_new_tokens=100, loop_count=7), "en", "me") == (None, {}), "it has it already"
    stream.close()
    assert service.steer(values(loop_count=2), "en", "me") == (None, {})


def test_what_a_run_cannot_change_is_for_the_next_and_says_why(service: Service) -> None:
    stream = streaming(service)
    changed = values(max_new_tokens=100, virtual_layer_count=2, greedy=False, loop_damping=0.5)
    said, later = service.steer(changed, "en", "me")
    assert "loop_damping=0.5" in unwire(said)["text"], "the rest is changed"
    assert later["virtual_layer_count"] == "later.layout"
    assert later["greedy"] == "later.sampling"
    said, later = service.steer(changed | {"model": "another", "loop_damping": 0.25}, "en", "me")
    assert "loop_damping" not in unwire(said)["text"]
    assert later["loop_damping"] == later["model"] == "later.model"
    stream.close()
    (run,) = service.registry.of_session("me")
    assert {change["blocks"][0]["slots"] for change in run.trace.meta["changes"]} <= {5}


def test_nobody_changes_another_s_run_nor_to_what_is_refused(service: Service) -> None:
    stream = streaming(service)
    assert service.steer(values(loop_count=2), "en", "somebody else") == (None, {})
    assert service.steer(values(max_new_tokens=100, loop_count=11), "en", "me") == (None, {}), "told beside the control"
    assert service.steer(values(max_new_tokens=100, loop_damping="much"), "en", "me") == (None, {})
    few = values(max_new_tokens=100, loop_strategy="dynamic_stop", min_loop_count=2, virtual_layer_count=2)
    said, _ = service.steer(few, "en", "me")
    assert unwire(said)["bad"], "the form would do, but this run's cache has five slots"
    assert "virtual_layer_count=5" in unwire(said)["text"]
    for _ in range(3):
        next(stream)
    assert set(loops(service)) == {4}
    stream.close()


def test_two_visitors_never_meet(service: Service) -> None:
    streams = {
        "a": service.run("Once upon", values(seed=1), "en", "a"),
        "b": service.run("从前有", values(loop_count=2), "en", "b"),
    }
    messages: dict[str, list[dict[str, Any]]] = {"a": [], "b": []}
    while streams:
        for name, stream in list(streams.items()):
            if (text := next(stream, None)) is None:
                del streams[name]
            else:
                messages[name].append(unwire(text))
    runs = {name: {message["run"] for message in shown(found)} for name, found in messages.items()}
    assert len(runs["a"]) == len(runs["b"]) == 1
    assert runs["a"].isdisjoint(runs["b"])
    for name, loops in (("a", 4), ("b", 2)):
        assert {row[1][0] for message in shown(messages[name]) for row in message["tokens"]} == {loops}
    # stopping is by session: a cannot stop b


def test_stop_ends_within_a_token_and_the_run_says_so(service: Service) -> None:
    stream = service.run("Once", values(max_new_tokens=100), "en", "me")
    while unwire(next(stream))["kind"] != "snapshot":
        pass
    (run,) = service.registry.of_session("me")
    before = len(run)
    service.stop("nobody")
    assert not run.stop.is_set()
    service.stop("me")
    assert run.end is None, "it has not ended yet, and nobody says so"
    rest = said(stream)
    assert len(run) == before
    assert rest[-1]["end"] == "stopped"
    assert run.finished.is_set()


class NeverWaitedFor(threading.Event):
    """The end of a run, for which no request's thread may wait."""

    def wait(self, timeout: float | None = None) -> bool:
        raise AssertionError("waited for a run")


def test_h3_80_stops_wait_for_no_run(service: Service) -> None:
    """Each waited up to ten seconds in one of forty threads that the pages are served from as well."""
    stream = service.run("Once", values(max_new_tokens=100), "en", "me")
    while unwire(next(stream))["kind"] != "snapshot":
        pass
    (run,) = service.registry.of_session("me")
    run.finished = NeverWaitedFor()
    for _ in range(80):
        service.stop("me")
    assert not run.finished.is_set()
    assert said(stream)[-1]["end"] == "stopped"


def test_h3_a_run_that_begins_waits_for_no_other(service: Service) -> None:
    first = service.run("Once", values(max_new_tokens=100), "en", "me")
    while unwire(next(first))["kind"] != "snapshot":
        pass
    (run,) = service.registry.of_session("me")
    run.finished = NeverWaitedFor()
    second = shown(said(service.run("Again", values(), "en", "me")))
    assert second[-1]["end"] == "length"
    assert run.stop.is_set()
    assert service.places.taken() == 1, "the first has its place until it has ended"
    said(first)
    assert service.places.taken() == 0


@pytest.mark.parametrize("how", ["stop", "leave", "another run", "its own line"])
def test_h1_long_prompt_cannot_be_left(service: Service, loaded: Loaded, how: str) -> None:
    """Whatever ends a run ends it while its prompt is read: no layer begins any more, and its place is free."""
    ran: list[int] = []

    def begin(layer: Any, given: Any) -> None:
        ran.append(1)
        if len(ran) == 5:
            if how == "stop":
                service.stop("me")
            elif how == "leave":
                service.leave("me")
            elif how == "another run":
                service.starts.begin("me")
            else:
                service.registry.of_session("me")[0].stop.set()

    handles = [layer.register_forward_pre_hook(begin) for layer in loaded.model.model.layers]
    messages = said(service.run("Once upon a time", values(), "en", "me"))
    for handle in handles:
        handle.remove()
    assert len(ran) == 5
    assert shown(messages) == []
    if how in ("stop", "its own line"):
        assert (messages[-1]["text"], messages[-1]["over"]) == (text("en", "live.end.stopped"), True)
    assert service.places.taken() == 0
    assert len(service.registry) == 0
    assert shown(said(service.run("Once", values(), "en", "me")))[-1]["end"] == "length"


def test_running_again_keeps_the_old_result_until_the_new_one_speaks(service: Service) -> None:
    (first,) = {message["run"] for message in shown(said(service.run("Once", values(), "en", "me")))}
    stream = service.run("Again", values() | {st.SUITS: ""}, "en", "me")
    assert unwire(next(stream))["kind"] == "status", "nothing to show yet"
    assert service.registry.get(first) is not None
    while (message := unwire(next(stream)))["kind"] != "snapshot":
        pass
    assert service.registry.get(first) is None
    stream.close()
    assert service.registry.get(message["run"]).end == "stopped"


def test_a_run_is_looked_at_as_the_page_wishes(service: Service) -> None:
    wishes = {
        "panels": ["convergence"],
        "focus": {"metric": "entropy", "token": 2, "step": 3, "pins": [1], "lang": "en"},
    }
    stream = service.run("Once", values(), "zh", "me", View.read(json.dumps(wishes)))
    first = shown(said(stream))[0]
    assert set(first["figures"]) == {"convergence"}
    focus = first["focus"]
    assert (focus["metric"], focus["lang"]) == ("entropy", "zh")
    assert (focus["token"], focus["step"], focus["pins"]) == (None, None, []), (
        "the old run's words are not the new one's"
    )


@pytest.mark.parametrize("on", [[], *([name] for name, panel in PANELS.items() if getattr(panel, "NEEDS", ()))])
def test_what_a_panel_needs_is_recorded_only_while_it_is_on(service: Service, on: list[str]) -> None:
    view = View.read(json.dumps({"panels": ["convergence", *on], "focus": {"lens": "direct"}}))
    first = shown(said(service.run("Once", values(max_new_tokens=2), "en", "me", view)))[0]
    assert set(first["extras"]) == {extra for name in on for extra in PANELS[name].NEEDS}
    assert set(first["figures"]) == {"convergence", *on}


def test_a_lens_that_is_looked_through_is_recorded(service: Service) -> None:
    view = View.read(json.dumps({"panels": [], "focus": {"lens": "exit"}}))
    assert shown(said(service.run("Once", values(max_new_tokens=1), "en", "me", view)))[0]["extras"] == ["exit"]


def test_the_exit_lens_is_recorded_by_itself_where_the_direct_one_misleads(service: Service) -> None:
    """A6: layers follow the block, and the model was not trained as that loop."""
    plain = service.room.get("tiny").model.config
    assert not plain.loop_blocks(), "the tests' model is a plain Llama"
    middle, last = (1, 1), (plain.num_hidden_layers - 1,) * 2
    for layers, panels, lens, extras in (
        (middle, ["would_say"], None, ["exit"]),
        (middle, ["text_by_loop"], None, ["exit"]),
        (middle, ["convergence"], None, ["exit"]),  # words are read above the panels, whichever are on
        (middle, ["convergence"], "direct", []),
        (middle, ["would_say"], "direct", []),
        (last, ["would_say"], None, []),
    ):
        view = View.read(json.dumps({"panels": panels, "focus": {"lens": lens}}))
        form = values(max_new_tokens=1, block_start=layers[0], block_end=layers[1])
        assert shown(said(service.run("Once", form, "en", "me", view)))[0]["extras"] == extras, (layers, panels, lens)


@pytest.mark.parametrize("wishes", ["", "{", None, "[]", '{"panels": 3, "focus": {"metric": "x"}}', "x" * 9999])
def test_wishes_that_are_none_are_the_usual_ones(service: Service, wishes: Any) -> None:
    view = View.read(wishes)
    assert view.panels.keys() == first_run.opening_panels().keys()
    assert view.every.keys() == first_run.usual_panels().keys()
    assert view.focus == Focus()


def test_b8_a_panel_that_is_on_in_a_closed_group_is_recorded_for_but_not_drawn(service: Service) -> None:
    """Else whoever opens its group after a run would find that nothing was recorded for it."""
    view = View.read(
        json.dumps({"panels": ["convergence"], "on": ["convergence", "attention", "would_say"], "focus": {}})
    )
    assert list(view.every) == ["convergence", "would_say", "attention"]
    form = values(max_new_tokens=2, block_start=1, block_end=1)
    snapshot = shown(said(service.run("Once", form, "en", "me", view)))[0]
    assert snapshot["figures"].keys() == {"convergence"}
    assert set(snapshot["extras"]) == {"attention", "exit"}


def test_fifty_abandoned_runs_leave_nothing(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    import loopviz.model

    caches: list[weakref.ref[Any]] = []
    made = loopviz.model.LoopCache.__init__

    def remember(self: Any, *args: Any, **kwargs: Any) -> None:
        caches.append(weakref.ref(self))
        made(self, *args, **kwargs)

    monkeypatch.setattr(loopviz.model.LoopCache, "__init__", remember)
    loaded = service.room.get("tiny")
    threads = set(threading.enumerate())
    for i in range(50):
        stream = service.run("Once upon a time", values(), "en", f"visitor {i}")
        for _ in range(i % 5 + 1):
            next(stream)
        stream.close()
        service.registry.forget(f"visitor {i}")
    del stream
    gc.collect()
    assert len(caches) >= 40
    assert [cache() for cache in caches if cache() is not None] == []
    assert len(service.registry) == 0
    assert {thread for thread in threading.enumerate() if thread.is_alive()} <= threads
    assert len(loaded.model.model._loop_hooks) == 0


def test_questions_of_strangers_get_no_answer(service: Service) -> None:
    (run,) = {message["run"] for message in shown(said(service.run("Once", values(), "en", "me")))}
    for question in (
        "",
        "{",
        "[]",
        "null",
        3,
        None,
        "x" * 10_000,
        '{"run": "guess"}',
        '{"run": null}',
        '{"run": ["a"]}',
    ):
        assert json.loads(service.questions.resync(question)) == {"kind": "gone"}
        assert json.loads(service.questions.focus(question)) == {"kind": "gone"}
    for focus in (
        None,
        [],
        {"token": 10**30},
        {"token": -1},
        {"token": 1e300},
        {"metric": "x"},
        {"lang": "../x"},
        {"nope": 1},
    ):
        answer = json.loads(service.questions.focus(json.dumps({"run": run, "focus": focus})))
        assert answer["kind"] == "snapshot"
        assert answer["focus"]["token"] is None


def test_the_model_s_state_is_told_in_both_languages(service: Service) -> None:
    assert json.loads(service.questions.model_status('{"lang": "en"}'))["state"] == "waiting"
    service.room.get("tiny")
    for lang in ("en", "zh"):
        answer = json.loads(service.questions.model_status(json.dumps({"lang": lang})))
        assert (answer["state"], answer["lang"]) == ("ready", lang)
        assert "tiny" in answer["text"]


def test_the_model_s_state_is_of_the_one_the_visitor_has_chosen(service: Service) -> None:
    def told(**asked: Any) -> tuple[str, str]:
        answer = json.loads(service.questions.model_status(json.dumps({"lang": "en", **asked})))
        return answer["state"], answer["text"]

    service.room.get("tiny")
    assert told(model="other") == ("waiting", "other is not loaded yet")
    with pytest.raises(ModelRefused):
        list(service.waiting("other", "en"))
    for name in ("other", " other "):
        state, line = told(model=name)
        assert (state, line.startswith("other could not be loaded")) == ("failed", True)
    assert told(model="tiny") == told(), "another visitor's model is still what it was"
    assert told()[0] == "ready"
    for name in ("", None, 3, "x" * 301):
        assert told(model=name) == ("failed", text("en", "rule.model_name", limit=st.MODEL_NAME_LIMIT))


@pytest.fixture
def mine() -> Iterator[dict[str, list[Any]]]:
    """What the functions that somebody has registered by the names of "mine" were given."""
    from loopviz.model import CHOOSERS, CRITERIA, MERGES, register_criterion, register_layer_chooser, register_merge

    given: dict[str, list[Any]] = {"criterion": [], "merge": [], "chooser": []}

    @register_criterion("mine")
    def criterion(ctx: Any) -> Any:
        given["criterion"].append(ctx.block.cosine_threshold)
        return ctx.cosine_holds() | True

    @register_merge("mine")
    def merge(merged: Any, new: Any, step: int, alpha: float) -> Any:
        given["merge"].append(alpha)
        return new if merged is None else merged.lerp(new, 1 - alpha)

    @register_layer_chooser("mine")
    def chooser(ctx: Any) -> Any:
        given["chooser"].append(ctx.block.layer_threshold)
        return ctx.all_layers()

    yield given
    del CRITERIA["mine"], MERGES["mine"], CHOOSERS["mine"]


def test_a_run_uses_what_people_register_by_name(service: Service, mine: dict[str, list[Any]]) -> None:
    own = {"convergence_criterion": "mine", "merge_strategy": "mine", "layer_chooser": "mine"}
    how = {
        "loop_strategy": "dynamic_stop",
        "min_loop_count": 3,
        "cosine_threshold": -0.5,
        "kv_cache_mode": "merge_strategy",
    }
    asked = values(**own, **how, merge_ema_alpha=0.25, layer_threshold=1.5)
    assert service.problems(asked, "en") == []
    shown(said(service.run("Once upon", asked, "en", "me")))
    (run,) = service.registry.of_session("me")
    (block,) = run.trace.meta["blocks"]
    assert (block["criterion"], block["merge"], block["chooser"]) == ("mine", "mine", "mine")
    assert {frame["blocks"][0]["stop_reason"] for frame in run.trace.frames} == {"mine"}
    assert {frame["blocks"][0]["n_steps"] for frame in run.trace.frames} == {3}
    assert set(mine["criterion"]) == {st.cosine_of(-0.5)}
    assert set(mine["chooser"]) == {1.5}
    # the page switched the weight off for all but ema, and the function got the default
    assert set(mine["merge"]) == {0.25}


def test_what_gave_way_is_called_by_its_own_name(mine: dict[str, list[Any]]) -> None:
    """A name that somebody registered has no word in the texts: the page's answer was a KeyError."""
    from loopviz.app.controls.face import face

    looks = face(st.BY_NAME["merge_strategy"], values(), [], "zh", gave={"merge_strategy": "mine"})
    assert "mine" in looks["info"]
