"""A model that runs elsewhere is the model it is: this end of Ray Serve and the other, over a handle without Ray."""

from __future__ import annotations

import gc
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from loopviz.checks import FieldError
from loopviz.engine import replica as far_end
from loopviz.engine.engine import EngineLost, Handle, Request
from loopviz.engine.local import LocalEngine
from loopviz.engine.ray_engine import RayEngine
from loopviz.engine.ray_line import AHEAD
from loopviz.trace import Trace, check_frame, check_meta
from loopviz.worker import WorkerEnded
from tests.engine import tiny
from tests.engine.elsewhere import again
from tests.engine.serve_double import Gated, Killed, ServeDouble
from tests.engine.test_local import settled

LOOP = {"loop_layers": (1, 2), "loop_count": 3, "virtual_layer_count": 2}
REQUEST = Request("Once upon 🙂", {"loop_count": 4}, {"max_new_tokens": 12, "do_sample": True, "seed": 2})
LONG = Request("Once", {}, {"max_new_tokens": 200})
PATIENCE = 60.0  # seconds, on a busy machine


@pytest.fixture(scope="module")
def here() -> LocalEngine:
    return LocalEngine("tiny", tiny.model(**LOOP), tiny.tokenizer(), "made here")


@pytest.fixture
def served() -> Iterator[Callable[..., tuple[RayEngine, ServeDouble]]]:
    """An engine, and the handle behind it, of these engines' replicas."""
    doubles = []

    def serve(*engines: Any) -> tuple[RayEngine, ServeDouble]:
        doubles.append(ServeDouble(*engines))
        return RayEngine("tiny", doubles[-1], (Killed,)), doubles[-1]

    yield serve
    for double in doubles:
        double.close()


def eventually(true: Callable[[], Any]) -> bool:
    until = time.monotonic() + PATIENCE
    while not (found := true()) and time.monotonic() < until:
        time.sleep(0.005)
    return bool(found)


def refusal(ask: Callable[[], Any]) -> ValueError:
    with pytest.raises(ValueError, match=r"must be|empty|not in a 5-layer") as found:
        ask()
    return found.value


def test_a_run_is_the_same_and_well_formed(here: LocalEngine, served: Any) -> None:
    engine, _ = served(here)
    runs_alike(here.start(REQUEST), engine.start(REQUEST))


def runs_alike(near: Handle, far: Handle) -> None:
    """Two runs are the same, and the far one is well formed."""
    assert settled({**far.meta, "created": 0}) == settled({**near.meta, "created": 0})
    frames = [*far.frames]
    assert settled(frames) == settled([*near.frames])
    check_meta(far.meta)
    for frame in frames:
        check_frame(frame)
    assert len(Trace(far.meta, frames)) == len(frames) > 12


def test_what_is_told_of_it_is_the_same(here: LocalEngine, served: Any) -> None:
    engine, _ = served(here)
    assert engine.describe() == here.describe()
    assert engine.describe({"loop_count": 9}) == here.describe({"loop_count": 9})
    assert (engine.name, engine.layers, engine.parameters) == (here.name, here.layers, here.parameters)
    assert engine.n_bytes == 0, "no weights are kept here"
    assert [*map(str, engine.check({"loop_count": 0}))] == [*map(str, here.check({"loop_count": 0}))] != []
    assert engine.check({"loop_count": 2}) == []
    assert engine.prompt_tokens("the dog", template="alpaca") == here.prompt_tokens("the dog", template="alpaca")
    assert engine.tokens("the dog", marks=False) == here.tokens("the dog", marks=False)
    assert engine.end_of("the small dog " * 9, 5) == here.end_of("the small dog " * 9, 5)
    assert engine.unread_share("从前") == here.unread_share("从前")
    assert engine.rate() == here.rate()


@pytest.mark.parametrize(
    "ask",
    [
        lambda engine: engine.start(Request("", {}, {})),
        lambda engine: engine.start(Request("a", {"loop_count": 0}, {})),
        lambda engine: engine.start(Request("a", {}, {"top_p": 7})),
        lambda engine: engine.prompt_tokens(""),
        lambda engine: engine.describe({"loop_layers": (1, 99)}),
    ],
)
def test_a_refusal_is_the_same(here: LocalEngine, served: Any, ask: Callable[[Any], Any]) -> None:
    engine, _ = served(here)
    near, far = refusal(lambda: ask(here)), refusal(lambda: ask(engine))
    assert str(far) == str(near)
    assert getattr(far, "rule", None) == getattr(near, "rule", None)


def test_what_a_page_asks_at_every_keystroke_is_asked_once(here: LocalEngine, served: Any) -> None:
    engine, handle = served(here)
    for _ in range(3):
        engine.describe(), engine.rate(), engine.check({"loop_count": 2}), engine.prompt_tokens("the dog")
    assert handle.asked == ["about", "check", "prompt_tokens"]
    engine.check({"loop_count": 3})
    assert handle.asked[3:] == ["check"], "another question"


# -- a finished run, read again ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(here: LocalEngine) -> Trace:
    run = here.start(REQUEST)
    return Trace(run.meta, [*run.frames])


def told_alike(near: Any, far: Any) -> None:
    """Two objects of the same kind with equal values, arrays in them too."""
    assert type(near) is type(far)
    assert pickle.dumps(again(near)) == pickle.dumps(again(far))


def test_a_token_is_read_as_here(here: LocalEngine, served: Any, finished: Trace) -> None:
    engine, _ = served(here)
    near, far = here.read_again(finished), engine.read_again(finished)
    for position in (3, len(finished) - 1):
        assert far.need(position) == near.need(position) > 0
        one, other = near.read(position, threading.Event()), far.read(position, threading.Event())
        told_alike(one.picture, other.picture)
        told_alike(one.layer(2, 2), other.layer(2, 2))
        told_alike(one.beside(1, 1, 3), other.beside(1, 1, 3))
        told_alike(one.distances(0, 0, 0, 1, 9, 5), other.distances(0, 0, 0, 1, 9, 5))
        told_alike(one.draw(0.7, 5, 0.9), other.draw(0.7, 5, 0.9))
        assert other.nbytes == one.nbytes > 0
        assert far.nbytes == near.nbytes
        for ask in (lambda token: token.layer(0, 9), lambda token: token.draw(-1, 0, 1.0)):
            assert str(refused(lambda ask=ask, token=other: ask(token))) == str(
                refused(lambda ask=ask, token=one: ask(token))
            )
    assert str(refused(lambda: far.read(999, threading.Event()))) == str(
        refused(lambda: near.read(999, threading.Event()))
    )


def refused(ask: Callable[[], Any]) -> ValueError:
    with pytest.raises(ValueError, match=r".") as found:
        ask()
    return found.value


def test_a_token_gives_way_to_the_next(here: LocalEngine, served: Any, finished: Trace) -> None:
    engine, _ = served(here)
    reading = engine.read_again(finished)
    first = reading.read(2, threading.Event())
    second = reading.read(3, threading.Event())
    second.layer(0, 0)
    with pytest.raises(ValueError, match="another token was read since"):
        first.layer(0, 0)


def test_a_run_of_another_model_is_refused_as_here(here: LocalEngine, served: Any, finished: Trace) -> None:
    other = LocalEngine("tiny", tiny.model(layers=3), tiny.tokenizer())
    engine, handle = served(other)
    assert str(refused(lambda: engine.read_again(finished))) == str(refused(lambda: other.read_again(finished)))
    assert eventually(lambda: not handle.replicas[0]._works)


def test_who_leaves_a_token_waits_for_nothing_and_may_ask_for_another(
    here: LocalEngine, served: Any, finished: Trace
) -> None:
    engine, _ = served(here)
    reading, stop = engine.read_again(finished), threading.Event()
    stop.set()
    assert reading.read(3, stop) is None
    token = reading.read(2, threading.Event())
    assert token.picture.position == 2


def test_a_reading_that_nobody_holds_ends_at_the_replica(here: LocalEngine, served: Any, finished: Trace) -> None:
    engine, handle = served(here)
    reading = engine.read_again(finished)
    assert len(handle.replicas[0]._works) == 1
    del reading
    gc.collect()
    assert eventually(lambda: not handle.replicas[0]._works)


def test_where_its_replica_dies_the_next_token_is_read_by_another(
    here: LocalEngine, served: Any, finished: Trace
) -> None:
    engine, handle = served(here, here)
    reading = engine.read_again(finished)
    token = reading.read(2, threading.Event())
    handle.kill()
    with pytest.raises(EngineLost, match="the replica that did this ended before it was done"):
        token.layer(0, 0)
    again = reading.read(2, threading.Event())
    told_alike(again.layer(1, 1), here.read_again(finished).read(2, threading.Event()).layer(1, 1))
    handle.kill()
    with pytest.raises(EngineLost):
        reading.read(3, threading.Event())


def test_a_check_against_transformers_is_made_where_the_model_is(here: LocalEngine, served: Any) -> None:
    plain = LocalEngine("tiny", tiny.model(), tiny.tokenizer())
    engine, handle = served(plain)
    assert engine.parity_need(False, "float32").need == plain.parity_need(False, "float32").need
    assert engine.parity(False, "float32", threading.Event()) == plain.parity(False, "float32", threading.Event()) != []
    assert "work" in handle.asked
    stop = threading.Event()
    stop.set()
    assert engine.parity(False, "float32", stop) == []
    assert eventually(lambda: not handle.replicas[0]._works)


# -- work in general ---------------------------------------------------------------------------------------------------


def counted(bench: Any, most: int) -> Iterator[int]:
    """Work that says how far it is, and what it was asked."""
    made = [0]
    bench.answer = lambda *said: [made[0], *said]
    for n in range(most):
        made[0] = n + 1
        yield n


def never(*_: Any) -> bool:
    return False


def test_work_is_done_no_further_than_it_is_taken(here: LocalEngine, served: Any) -> None:
    engine, _ = served(here)
    work = engine.work(counted, 200)
    assert work.first() == 0
    assert eventually(lambda: work.ask("how", "far")[0] == AHEAD + 1), "it stands still, and the next is made"
    time.sleep(0.1)
    assert work.ask("how", "far") == [AHEAD + 1, "how", "far"]
    assert [work.step(never)[0] for _ in range(199)] == [*range(1, 200)]
    assert work.step(never) is None


def test_work_that_nobody_asks_anything_of_for_an_hour_ends(
    here: LocalEngine, served: Any, finished: Trace, monkeypatch: Any
) -> None:
    """A pages' process that was killed ends nothing by itself."""
    engine, handle = served(here)
    replica = handle.replicas[0]
    works = engine.read_again(finished), engine.work(counted, 200)
    works[1].first()
    assert eventually(lambda: all(done.bench.idle_since for done in replica._works.values()))
    replica.check_health()
    assert len(replica._works) == 2
    monkeypatch.setattr(far_end, "IDLE", 0.01)
    time.sleep(0.02)
    replica.check_health()
    assert eventually(lambda: not replica._works)
    assert works[0].read(2, threading.Event()) is not None, "who comes back after all is read to again"


def test_work_that_is_refused_or_breaks_says_so(here: LocalEngine, served: Any) -> None:
    engine, handle = served(here)
    with pytest.raises(FieldError, match="a='b': must be"):
        engine.work(refuses).first()
    with pytest.raises(ZeroDivisionError):
        engine.work(breaks).first()
    assert eventually(lambda: not handle.replicas[0]._works)
    work = engine.work(counted, 200)
    work.first()
    work.close()
    assert eventually(lambda: not handle.replicas[0]._works), "it is closed at the other end too"


def refuses(bench: Any) -> Iterator[None]:
    raise FieldError("a", "b", "one_of", choices="c")
    yield


def breaks(bench: Any) -> Iterator[None]:
    yield 1 / 0


# -- stop --------------------------------------------------------------------------------------------------------------


def test_stop_ends_it_within_a_token_at_both_ends(here: LocalEngine, served: Any) -> None:
    gated = Gated(here, let=5)
    engine, handle = served(gated)
    stop = threading.Event()
    run = engine.start(LONG, stop)
    first = [next(run.frames) for _ in range(3)]
    assert len(first) == 3
    stop.set()
    assert [*run.frames] == []
    assert eventually(lambda: not handle.replicas[0]._runs), "the replica makes it no longer"
    gated.let.release(9)
    time.sleep(0.05)
    assert gated.made <= 5


@pytest.mark.parametrize("begun", [True, False])
def test_a_run_that_nobody_reads_on_ends_at_the_replica(here: LocalEngine, served: Any, begun: bool) -> None:
    engine, handle = served(Gated(here, let=3))
    run = engine.start(LONG)
    if begun:
        next(run.frames)
        run.frames.close()
    else:
        del run
        gc.collect()
    assert eventually(lambda: not handle.replicas[0]._runs)


def test_a_stop_before_there_is_a_meta_ends_the_wait(here: LocalEngine, served: Any) -> None:
    stop, held = threading.Event(), threading.Event()

    class Waits(Gated):
        def start(self, request: Request, stop: Any = None) -> Any:
            held.wait(PATIENCE)
            return super().start(request, stop)

    engine, _ = served(Waits(here))
    threading.Timer(0.05, stop.set).start()
    with pytest.raises(WorkerEnded) as ended:
        engine.start(LONG, stop)
    assert ended.value.why == "over"
    held.set()


# -- steering ----------------------------------------------------------------------------------------------------------


def test_it_is_steered_where_it_is_made(here: LocalEngine, served: Any) -> None:
    gated = Gated(here, let=4)
    engine, handle = served(Gated(here), gated)
    handle.replicas.reverse()  # the second is asked, and both are told
    run = engine.start(LONG)
    frames = [next(run.frames) for _ in range(3)]
    run.steer(loop_count=7)
    gated.let.release(4)
    frames += [next(run.frames) for _ in range(4)]
    (change,) = run.meta["changes"]
    assert change["loop"] == {"loop_count": 7}
    steps = [frame["blocks"][0]["n_steps"] for frame in frames]
    assert steps == [3] * change["index"] + [7] * (len(frames) - change["index"])
    assert 3 <= change["index"] <= 5
    with pytest.raises(FieldError, match="loop_count=0"):
        run.steer(loop_count=0)
    run.stop()
    assert eventually(lambda: not handle.replicas[0]._runs)
    with pytest.raises(EngineLost):
        run.steer(loop_count=2)


# -- a replica that dies -----------------------------------------------------------------------------------------------


def test_killed_before_the_first_frame_it_is_begun_again_elsewhere_as_it_was_steered(
    here: LocalEngine, served: Any
) -> None:
    first, second = Gated(here), Gated(here, let=99)
    engine, handle = served(first, second)
    run = engine.start(REQUEST)
    assert eventually(lambda: all(live.handle for live in handle.replicas[0]._runs.values()))
    run.steer(loop_count=6)
    handle.kill()
    frames = [*run.frames]
    assert [frame["index"] for frame in frames] == [*range(len(frames))]
    assert frames[-1]["finish"] == "length"
    assert frames[-1]["blocks"][0]["n_steps"] == 6
    assert run.meta["changes"][0]["loop"] == {"loop_count": 6}
    assert handle.asked.count("run") == 2


def test_killed_in_the_middle_it_ends_in_words_and_is_not_begun_again(here: LocalEngine, served: Any) -> None:
    engine, handle = served(Gated(here, let=2), here)
    run = engine.start(REQUEST)
    assert [next(run.frames)["index"] for _ in range(2)] == [0, 1]
    handle.kill()
    with pytest.raises(EngineLost, match="the replica that made this run ended before it did; what there is stays"):
        next(run.frames)
    assert handle.asked.count("run") == 1
    assert len([*engine.start(REQUEST).frames]) > 12, "another replica makes the next"


def test_killed_twice_before_the_first_frame_it_ends_in_words(here: LocalEngine, served: Any) -> None:
    engine, handle = served(Gated(here), Gated(here), here)
    run = engine.start(REQUEST)
    handle.kill()
    found: list[BaseException] = []

    def read() -> None:
        try:
            next(run.frames)
        except EngineLost as lost:
            found.append(lost)

    thread = threading.Thread(target=read)
    thread.start()
    assert eventually(lambda: handle.asked.count("run") == 2)
    handle.kill()
    thread.join(PATIENCE)
    assert [lost.rule for lost in found] == ["engine_lost"]
    assert handle.asked.count("run") == 2, "once more, and not for ever"


def test_a_question_that_nobody_answers_is_told_so(here: LocalEngine, served: Any) -> None:
    engine, handle = served(here)
    handle.kill()
    assert engine.describe() == here.describe(), "known"
    assert engine.rate(doubted=True) == engine.rate()
    with pytest.raises(EngineLost, match="no replica of this model has answered within 20 seconds"):
        engine.check({"loop_count": 2})
    with pytest.raises(EngineLost):
        engine.start(REQUEST)


def test_an_error_of_the_replicas_own_passes_as_it_is(here: LocalEngine, served: Any) -> None:
    class Broken(Gated):
        def start(self, request: Request, stop: Any = None) -> Any:
            raise ZeroDivisionError("a defect")

    engine, handle = served(Broken(here), here)
    with pytest.raises(ZeroDivisionError, match="a defect"):
        engine.start(REQUEST)
    assert handle.asked.count("run") == 1


# -- the other end -----------------------------------------------------------------------------------------------------


def test_another_loopviz_there_is_refused(here: LocalEngine, served: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(far_end, "versions", lambda: {"loopviz": "0.0.1", "schema": 1})
    with pytest.raises(FieldError, match=r"the cluster serves with loopviz 0\.0\.1, schema 1, and this server is"):
        served(here)


def test_a_replica_answers_what_it_is_asked_and_nothing_else(here: LocalEngine, served: Any) -> None:
    engine, _ = served(here)
    with pytest.raises(LookupError, match="method='read_again': must be one of describe, check"):
        engine._ask("read_again")


def test_a_replica_whose_run_hangs_is_sick(here: LocalEngine, served: Any, monkeypatch: Any) -> None:
    engine, handle = served(Gated(here, let=1))
    replica = handle.replicas[0]
    run = engine.start(LONG)
    next(run.frames)
    replica.check_health()
    monkeypatch.setattr(far_end, "STUCK", 0.01)
    time.sleep(0.02)
    with pytest.raises(RuntimeError, match=r"no token for 0\.01 seconds"):
        replica.check_health()
    run.frames.close()
    assert eventually(lambda: not replica._runs)
    replica.check_health()
