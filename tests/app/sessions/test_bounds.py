"""What is too much for a server is refused before it begins, by name, with what would fit; what takes too long ends."""

from __future__ import annotations

import dataclasses
import json
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as how
from hypothesis import strategies as hy

from loopviz.app import controls as st
from loopviz.app.compare.request import MOST
from loopviz.app.compare.service import Comparisons
from loopviz.app.explore import answers
from loopviz.app.explore.answers import Questions, View
from loopviz.app.explore.run import Registry
from loopviz.app.explore.service import Service
from loopviz.app.lab.service import Laboratory
from loopviz.app.profile import GIB, LOCAL, PUBLIC, Profile
from loopviz.app.sessions import bounds
from loopviz.app.sessions.models import ModelRoom
from loopviz.app.texts import LANGUAGES
from loopviz.engine.local import LocalEngine as Loaded
from loopviz.engine.work import Rate, Shape, Work
from loopviz.lab import TASKS
from loopviz.lab.task import param
from loopviz.panels import PANELS, Focus
from loopviz.panels.kit.focus import BATCHES, CONTEXTS, MOST_PINS
from tests.app.by_hand import ByHand, needs_of
from tests.app.page_double import unwire
from tests.conftest import make_llama

STORY = "Once upon a time, there was a little girl named Lily. She loved to play with her toys. One day, Lily saw a big dog in the park. "
# Far ends of whatever is a number, and what is none though it looks like one.
FAR: tuple[Any, ...] = (
    10**9, 10**400, -(10**400), -1, -(10**9), 1e300, -1e300, math.nan, math.inf, -math.inf, 0.5, True, None,
    "9" * 300, "-1", "1e9", "nan", "inf", "0x7f", "1_000", "", " ", "１２", "\ud800", [1], [[[[1]]]], {"a": 1}, [10**9] * 50,
)  # fmt: skip


@pytest.fixture(scope="module")
def loaded(tiny_tokenizer: Any) -> Loaded:
    from loopviz.model.checkpoints.load import as_loop_llama

    model = as_loop_llama(make_llama(num_hidden_layers=6, eos_token_id=None, max_position_embeddings=4096)).eval()
    model.generation_config.eos_token_id = None
    return Loaded("tiny", model, tiny_tokenizer, "made here")


@pytest.fixture
def room(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> ModelRoom:
    def load(name: str, progress: Callable[..., None], local: bool) -> Loaded:
        return loaded

    room = ModelRoom("tiny", profile=PUBLIC, load=load)
    room.get("tiny")
    # a machine that is always as fast: 20 us for a layer and token
    monkeypatch.setattr(Loaded, "rate", lambda self, doubted=False: Rate(1e-4, 2e-5, 1e-8, 1e-4, 1e-5))
    return room


@pytest.fixture
def service(room: ModelRoom) -> Service:
    return Service(room, Registry(), every=0)


@pytest.fixture
def laboratory(service: Service) -> Laboratory:
    return Laboratory(service, every=0.01)


@pytest.fixture
def comparisons(service: Service) -> Comparisons:
    return Comparisons(service, every=0)


def limits(**change: Any) -> Profile:
    return dataclasses.replace(PUBLIC, **change)


def values(**change: Any) -> dict[str, Any]:
    return st.defaults() | {"model": "tiny", "block_start": 2, "block_end": 3, "max_new_tokens": 12} | change


def said(stream: Iterator[str]) -> list[dict[str, Any]]:
    return [unwire(text) for text in stream]


# --- one estimate, one set of limits ---------------------------------------------------------------------------------


def test_a_run_that_would_take_too_long_is_refused_beside_the_number_with_what_would_fit(service: Service) -> None:
    service.room.profile = limits(estimate_seconds=5.0, seconds_run=None)
    asked = values(max_new_tokens=1024, loop_count=32, max_loop_count=64)
    [problem] = service.problems(asked, "en", STORY)
    assert problem.control == "loop_count"
    assert problem.reason.startswith("loop_count=32: this would take about ")
    assert "at most 5 s may be asked for" in problem.reason
    fits = int(problem.reason.split("up to ")[1].split(",")[0])
    assert service.problems(asked | {"loop_count": fits}, "en", STORY) == []
    assert service.problems(asked | {"loop_count": 32}, "en", STORY)
    [chinese] = service.problems(asked, "zh", STORY)
    assert "大约需要" in chinese.reason
    assert chinese.control == "loop_count"


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"loop_strategy": "dynamic_stop", "max_loop_count": 9, "min_loop_count": 5},
        {"kv_cache_mode": "merge_strategy"},
        {"virtual_attention_mode": "serial", "virtual_layer_count": 2, "loop_count": 7},
        {"layer_chooser": "influence", "block_end": 5},
        {"kv_cache_dtype": "fp8"},
    ],
)
def test_the_shape_of_a_form_is_that_of_the_model_it_makes(room: ModelRoom, change: dict[str, Any]) -> None:
    loaded, asked = room.get("tiny"), values(**change)
    model = loaded.model.with_loop(**st.loop_fields(asked))
    assert bounds.shape_of(loaded, asked) == Shape.of(model.config, 4)
    assert bounds.shape_of(loaded, None) == Shape.of(loaded.model.with_loop(loop_layers=None).config, 4)


def test_every_way_that_is_told_would_fit(service: Service) -> None:
    service.room.profile = limits(estimate_seconds=4.0, seconds_run=None)
    asked = values(max_new_tokens=1024, loop_count=16, max_loop_count=64)
    [problem] = service.problems(asked, "en", STORY)
    ways = problem.reason.split("what would fit: ")[1].split(", or ")
    names = {"loop_count": ways[0], "max_new_tokens": ways[1]}
    for name, way in names.items():
        fits = int(way.rsplit(" ", 1)[1].replace(",", ""))
        assert service.problems(asked | {name: fits}, "en", STORY) == [], name
        assert fits >= 0.8 * asked[name] or service.problems(asked | {name: int(1.3 * fits) + 1}, "en", STORY)


def test_h1_a_prompt_is_not_longer_than_can_be_read_in_the_time_a_run_may_take(service: Service) -> None:
    """`long_prompt_cannot_be_left`: all layers, 32 loops, 16 slots, within the sliders."""
    prompt = "the quick brown fox jumps over a lazy dog and then " * 100
    whole = {"block_start": 0, "block_end": 5, "loop_count": 32, "max_loop_count": 64, "virtual_layer_count": 16}
    asked = values(**whole, virtual_attention_mode="serial", max_new_tokens=1)
    service.room.profile = limits(seconds_run=10.0)
    [problem] = service.problems(asked, "en", prompt)
    assert "reading the prompt alone would take about" in problem.reason
    assert "a run may take 10 s on this server" in problem.reason
    assert service.problems(asked | {"loop_count": 1}, "en", prompt) == []
    assert [m["kind"] for m in said(service.run(prompt, asked, "en", "me"))] == ["status"]
    assert len(service.registry) == 0
    service.room.profile = dataclasses.replace(LOCAL, work_bytes=PUBLIC.work_bytes)
    assert service.problems(asked, "en", prompt) == [], "at home time is the visitor's own"


def test_h1_what_a_prompt_holds_is_bounded_at_home_too(service: Service) -> None:
    service.room.profile = dataclasses.replace(LOCAL, work_bytes=20 * 2**20)
    asked = values(block_start=0, block_end=5, loop_count=32, max_loop_count=64, virtual_layer_count=16)
    [problem] = service.problems(asked, "en", STORY * 12)
    assert "of memory, and at most 20.0 MiB may be used" in problem.reason
    assert service.problems(values(), "en", "Once") == []


def test_what_a_panel_records_counts(service: Service) -> None:
    prompt = STORY * 20
    asked, extras, most = values(loop_count=4), ("attention", "exit", "keys"), 2**20
    while True:  # the least memory with which the run fits when nothing more is recorded
        service.room.profile = limits(work_bytes=most)
        if not service.problems(asked, "en", prompt):
            break
        most += 2**20
    assert service.problems(asked, "en", prompt, extras)
    view = View(dict(PANELS), Focus())
    [line] = said(service.run(prompt, asked, "en", "me", view))
    assert line["bad"]


def test_a_prompt_past_the_context_is_told_in_its_own_words(service: Service) -> None:
    service.room.profile = limits(seconds_run=0.001, estimate_seconds=0.001)
    assert service.problems(values(), "en", "a" * 20_000) == []
    assert service.too_long("a" * 20_000, values()) is not None


def test_a_run_is_not_steered_beyond_the_limits(service: Service) -> None:
    service.room.profile = limits(estimate_seconds=20.0)
    run = service.run("Once", values(max_new_tokens=1024, loop_count=1, max_loop_count=64), "en", "me")
    assert unwire(next(run))["kind"] == "snapshot"
    line, _ = service.steer(values(max_new_tokens=1024, loop_count=32, max_loop_count=64), "en", "me")
    assert line is None
    [made] = service.registry.of_session("me")
    assert made.loop["loop_count"] == 1
    run.close()


def card(**own: Any) -> dict[str, Any]:
    return {"name": "", "plain": False, "values": {"block_start": 2, "block_end": 3, **own}}


def comparison(*cards: dict[str, Any], new: int = 8, prompt: str = STORY) -> dict[str, Any]:
    shared = {"max_new_tokens": new}
    return {"lang": "en", "model": "tiny", "prompt": prompt, "shared": shared, "cards": list(cards), "ticket": "t1"}


def test_a_configuration_that_would_take_too_long_is_refused_on_its_card(comparisons: Comparisons) -> None:
    comparisons.room.profile = limits(estimate_seconds=10.0)
    asked = comparison(card(), card(loop_count=32, max_loop_count=64), new=512)
    checked = json.loads(comparisons.check(json.dumps(asked)))
    assert checked["cards"][0]["refused"] is None
    assert checked["cards"][1]["refused"].startswith("loop_count=32: this would take about")


def test_configurations_that_fit_alone_are_refused_together(comparisons: Comparisons) -> None:
    cards = [card(loop_count=n) for n in range(2, 2 + MOST)]
    asked = comparison(*cards, new=200)
    loaded = comparisons.room.get("tiny")
    alone = max(
        bounds.of_comparison([shape], loaded, 40, 1, limits(estimate_seconds=0.0), "en") is not None
        for shape in [(bounds.shape_of(loaded, values(loop_count=7)), values(max_new_tokens=200))]
    )
    assert alone
    for seconds in range(1, 200):
        comparisons.room.profile = limits(estimate_seconds=float(seconds))
        if not any(one["refused"] for one in json.loads(comparisons.check(json.dumps(asked)))["cards"]):
            break
    [line] = [message for message in said(comparisons.run(asked, "me")) if message.get("over")]
    assert line["field"] == "max_new_tokens"
    assert "max_new_tokens=200: this would take about" in line["text"]
    assert len(comparisons.runs) == 0


def test_what_a_run_waits_for_in_memory_is_what_its_limit_is_asked_about(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs, asked = needs_of(service.places, monkeypatch), values(max_new_tokens=2)
    assert said(service.run(STORY, asked, "en", "me", View({}, Focus())))[-1]["end"] == "length"
    [need] = needs
    service.room.profile = limits(work_bytes=math.ceil(need))
    assert service.problems(asked, "en", STORY) == []
    service.room.profile = limits(work_bytes=math.ceil(need) - 1)
    [problem] = service.problems(asked, "en", STORY)
    assert "of memory" in problem.reason


def test_what_a_measurement_waits_for_in_memory_is_what_its_limit_is_asked_about(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs = needs_of(laboratory.jobs.places, monkeypatch)
    filled = {"text": STORY, "loops": "1,2", "paths": "full"}
    asked = {"lang": "en", "model": "tiny", "task": "perplexity", "ticket": "t", "values": filled}
    assert said(laboratory.run(asked, "me"))[-1]["end"] == "done"
    [need] = needs
    laboratory.room.profile = limits(work_bytes=math.ceil(need) - 1)
    [line] = [message for message in said(laboratory.run(asked, "me")) if message.get("over")]
    assert "of memory" in line["text"]
    assert needs == [need], "refused before it waits"


def test_what_a_comparison_waits_for_in_memory_is_what_its_limit_is_asked_about(
    comparisons: Comparisons, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs, asked = needs_of(comparisons.jobs.places, monkeypatch), comparison(card(), card(loop_count=3), new=2)
    said(comparisons.run(asked, "me"))
    [need] = needs
    comparisons.room.profile = limits(work_bytes=math.ceil(need) - 1)
    [line] = [message for message in said(comparisons.run(asked, "me")) if message.get("over")]
    assert "of memory" in line["text"]
    comparisons.room.profile = limits(work_bytes=math.ceil(need))
    said(comparisons.run(asked, "me"))
    assert needs == [need, need]


CASES: dict[str, tuple[str, dict[str, Any], str]] = {
    "lab_pass_nobody_can_stop": ("perplexity", {"loops": "1000000", "paths": "full"}, "loops"),
    "lab_windows_of_all_the_text_at_once": (
        "perplexity",
        {"loops": "1", "paths": "full", "limit_tokens": "100000000", "batch": "100000", "window": "256"},
        "limit_tokens",
    ),
    "batch alone": ("perplexity", {"loops": "1", "paths": "full", "batch": "100000"}, "batch"),
    "a batch within its ends": (
        "perplexity",
        {"loops": "1", "paths": "full", "limit_tokens": "4096", "batch": "4096", "window": "1024", "overlap": "1000"},
        "batch",
    ),
    "exits max_loops": ("exits", {"max_loops": "1000000000"}, "max_loops"),
    "starts draws": ("starts", {"draws": "1000000000"}, "draws"),
    "starts draws within their ends": ("starts", {"draws": "10000", "loops": "1024"}, "draws"),
    "ablation loops": ("ablation", {"loop": '{"loop_count": 1000000000}'}, "loop"),
    "loop use": ("loop_use", {"limit_tokens": "9000000", "window": "2048"}, "limit_tokens"),
    "too many entries": ("perplexity", {"loops": ",".join(map(str, range(1, 400)))}, "loops"),
}


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize(("task", "asked", "field"), CASES.values(), ids=CASES)
def test_c1_c2_a_measurement_that_is_too_much_is_refused_by_name_before_anything_is_made_of_it(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch, task: str, asked: dict[str, Any], field: str, lang: str
) -> None:
    def began(*_: Any) -> Any:
        raise AssertionError("it began")

    monkeypatch.setitem(TASKS, task, dataclasses.replace(TASKS[task], cells=began, run=began))
    filled = {"text": STORY * 15_000, **asked}
    messages = said(
        laboratory.run({"lang": lang, "model": "tiny", "task": task, "ticket": "t", "values": filled}, "me")
    )
    [line] = [message for message in messages if message.get("over")]
    assert line["field"] == field
    assert field in line["text"]
    assert len(laboratory.runs) == 0
    assert laboratory.jobs.places.taken() == 0


def test_a_task_that_states_no_work_is_offered_only_where_nothing_bounds_it(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TASKS, "influence", dataclasses.replace(TASKS["influence"], work=None))
    asked = {"lang": "en", "model": "tiny", "task": "influence", "ticket": "t", "values": {"text": STORY}}
    [line] = [message for message in said(laboratory.run(asked, "me")) if message.get("over")]
    assert "what this measurement costs is not known" in line["text"]
    laboratory.room.profile = LOCAL
    assert said(laboratory.run(asked, "me"))[-1]["end"] == "done"


def test_a_rate_that_would_refuse_is_measured_again(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model may have arrived while the machine was busy: that must not refuse its runs for good."""
    asked: list[bool] = []

    def rate(self: Loaded, doubted: bool = False) -> Rate:
        asked.append(doubted)
        return Rate(1e-4, 1e-5, 1e-9, 1e-4, 1e-5) if doubted else Rate(1, 1, 1, 1, 1)

    monkeypatch.setattr(Loaded, "rate", rate)
    assert service.problems(values(), "en", STORY) == []
    assert True in asked


# --- both ends of every number ---------------------------------------------------------------------------------------


def test_every_control_that_is_a_number_has_both_ends() -> None:
    for control in st.CONTROLS:
        if control.kind in ("whole", "number"):
            assert -math.inf < control.low < control.high <= 2**31, control.name
            for value in FAR:
                cleaned, _ = st.clean(st.defaults() | {control.name: value})
                assert control.low <= cleaned[control.name] <= control.high


def test_every_number_of_a_selection_has_both_ends() -> None:
    """A field of `Focus` that is a number is a place in a run, or one of a few values; `read_focus` bounds places."""
    usual = Focus().to_json()
    whole = {name for name, value in usual.items() if isinstance(value, int)} | {"token", "step", "layer"}
    assert whole == {"token", "block", "step", "layer", "dims", "context", "batch"}
    for name in whole:
        for value in (10**9, 10**400, -1, math.nan, math.inf, -math.inf, "9" * 300, [[1]]):
            assert answers.read_focus({name: value}) is None, (name, value)
    assert answers.read_focus({"pins": [10**9]}) is None
    assert answers.read_focus({"pins": list(range(MOST_PINS + 1))}) is None
    assert max(CONTEXTS) < 10**6 > max(BATCHES)


@how(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(hy.sampled_from(st.CONTROLS), hy.sampled_from(FAR), hy.sampled_from(list(LANGUAGES)))
def test_a_far_end_in_explore_and_compare_is_refused_in_words(
    service: Service, comparisons: Comparisons, control: st.Control, far: Any, lang: str
) -> None:
    problems = service.problems(values(**{control.name: far}), lang, "Once")
    assert all(problem.reason and len(problem.reason) < 400 for problem in problems)
    shown = {"lang": lang, "model": "tiny", "shared": {control.name: far}, "cards": [card(**{control.name: far})] * 2}
    try:
        question = json.dumps(shown)
    except ValueError:  # more digits than JSON is written with
        return
    assert json.loads(comparisons.check(question))["kind"] in ("checked", "gone")


@how(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(hy.data())
def test_a_far_end_in_a_measurement_ends_as_words(laboratory: Laboratory, data: hy.DataObject) -> None:
    """Refused, or measured where the value is one that fits; never an error that nobody foresaw."""
    task = data.draw(hy.sampled_from([task for name, task in TASKS.items() if name != "experiment"]))
    field = data.draw(hy.sampled_from(dataclasses.fields(task.params)))
    far, lang = data.draw(hy.sampled_from(FAR)), data.draw(hy.sampled_from(list(LANGUAGES)))
    small = {"limit_tokens": 24, "window": 12, "draws": 2, "prompts": 1, "new_tokens": 2, "max_new_tokens": 2}
    known = task.params.__dataclass_fields__
    filled = {name: value for name, value in {"text": STORY, **small}.items() if name in known} | {field.name: far}
    payload = {"lang": lang, "model": "tiny", "task": task.name, "ticket": "t", "values": filled}
    stream = laboratory.run(payload, "me")
    for message in map(unwire, stream):
        line = message.get("text") or message.get("reason") or ""
        assert "went wrong" not in line
        assert "服务器上出现" not in line
        if message["kind"] == "snapshot":
            stream.close()


@pytest.mark.parametrize("far", FAR)
def test_a_far_end_in_a_question_is_answered(service: Service, far: Any) -> None:
    asked = {"run": "recorded", "epoch": far, "seq": far, "first": far, "last": far, "shown": far, "token": far}
    try:
        question = json.dumps(asked | {"focus": {"token": far}, "panels": far, "split": far, "n": far})
    except ValueError:
        return
    some = Questions(service.registry, service.room)
    for ask in (some.resync, some.focus, some.advance, some.text_until, some.guesses, some.model_status):
        assert isinstance(json.loads(ask(question)), dict)


# --- limits of time --------------------------------------------------------------------------------------------------


def test_h5_a_run_ends_after_its_time_with_what_it_has(service: Service, timers: list[ByHand]) -> None:
    """`two_visitors_hold_every_place`: a run has a time limit on a public server."""
    messages = []
    for message in service.run("Once", values(max_new_tokens=1024), "en", "me"):
        messages.append(unwire(message))
        if messages[-1]["kind"] == "snapshot":
            [timer] = timers
            assert timer.seconds == PUBLIC.seconds_run
            timer.fire()
    assert messages[-1]["end"] == "time"
    [run] = service.registry.of_session("me")
    assert run.end == "time"
    assert 1 <= len(run.trace) < 1024
    assert timer.cancelled
    assert service.places.taken() == 0


def test_h5_a_run_whose_time_is_over_before_its_first_token_says_so(
    service: Service, timers: list[ByHand], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "loopviz.app.explore.service.WONDER", -1.0
    )  # its prompt takes long: a message comes before it is read
    lines = []
    for message in service.run("Once", values(), "zh", "me"):
        lines.append(unwire(message))
        if timers:
            timers[0].fire()
    assert lines[-1]["over"]
    assert "最长时间" in lines[-1]["text"]


def test_h5_a_comparison_ends_after_its_time_with_what_it_has(comparisons: Comparisons, timers: list[ByHand]) -> None:
    messages = []
    for message in comparisons.run(comparison(card(), card(loop_count=2), new=400, prompt="Once"), "me"):
        messages.append(unwire(message))
        if any(one.get("pieces") for one in messages[-1].get("cards", {}).values()):
            [timer] = timers
            assert timer.seconds == PUBLIC.seconds_compare
            timer.fire()
    assert messages[-1]["end"] == "time"
    assert timer.cancelled


def test_at_home_nothing_is_timed(service: Service, timers: list[ByHand]) -> None:
    service.room.profile = LOCAL
    assert said(service.run("Once", values(), "en", "me"))[-1]["end"] == "length"
    assert timers == []


# --- words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "says"),
    [(0.2, "1 s"), (59, "59 s"), (600, "10 min"), (7_000, "2 h"), (864_000, "10 days"), (1e300, "more than a year")],
)
def test_durations_as_people_say_them(seconds: float, says: str) -> None:
    assert bounds.duration(seconds, "en") == says


def test_sizes_as_people_say_them() -> None:
    assert bounds.size(1.5 * GIB, "en") == "1.5 GiB"
    assert bounds.size(300 * 2**20, "en") == "300 MiB"
    assert bounds.size(21_200 * GIB, "zh") == "21,200 GiB"


def test_when_no_number_alone_would_do_several_are_to_be_lowered() -> None:
    profile, rate = limits(work_bytes=10), Rate(1, 1, 1, 1, 1)
    way = bounds.Way("batch", "Batch", 50, 1, lambda n: Work(kept=1000 + n))
    told = bounds.refused(lambda work: bounds.excess(work, rate, profile), way.work(50), [way], "en")
    assert told.control == "batch"
    assert told.reason.endswith("lower several of the settings")
    assert param(1, "n", "n").metadata["high"] is None


def test_a_deadline_leaves_out_the_time_in_which_its_clock_stands() -> None:
    """A comparison that let others go before ended by the time in which nothing was computed for it, and even while it did."""
    ended = threading.Event()
    with bounds.deadline(0.1, ended.set) as clock:
        clock.stand()
        clock.stand()
        assert not ended.wait(0.3), "it stands longer than there was time"
        clock.go()
        clock.go()
        assert ended.wait(60)
    never = threading.Event()
    with bounds.deadline(0.05, never.set):
        pass
    with bounds.deadline(None, never.set) as clock:
        clock.stand()
        clock.go()
    assert not never.wait(0.15)
