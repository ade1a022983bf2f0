"""A comparison that a replica makes is the comparison: events, results, rows, the end of one of several."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from loopviz.engine.engine import EngineLost
from loopviz.engine.local import LocalEngine
from loopviz.engine.ray_engine import RayEngine
from loopviz.engine.serving import served_engine
from loopviz.engine.ttt_local import LocalTTT
from loopviz.lab.comparison.remote import RemoteComparison, comparison_of
from loopviz.lab.fellows import load_subject
from loopviz.lab.measure import subject_of
from loopviz.lab.tasks.compare import CompareParams, Comparison
from tests.engine import tiny
from tests.engine.serve_double import Killed, ServeDouble
from tests.engine.test_ray_engine import eventually

LOOPS = (None, {"loop_count": 2}, {"loop_count": 3, "virtual_layer_count": 2})
TIMES = ("tokens_per_second", "ms_per_token")


@pytest.fixture(scope="module")
def here() -> LocalEngine:
    return LocalEngine("tiny", tiny.model(loop_layers=(1, 2), loop_count=4), tiny.tokenizer(), "made here")


@pytest.fixture
def far() -> Iterator[Callable[..., tuple[RayEngine, ServeDouble]]]:
    doubles = []

    def serve(*engines: LocalEngine) -> tuple[RayEngine, ServeDouble]:
        doubles.append(ServeDouble(*engines))
        return RayEngine(engines[0].name, doubles[-1], (Killed,)), doubles[-1]

    yield serve
    for double in doubles:
        double.close()


def asked(**more: Any) -> CompareParams:
    known = {"names": tuple(f"c{i}" for i in range(len(LOOPS))), "loops": LOOPS, "max_new_tokens": 8}
    return CompareParams(prompt="Once upon", continuation=" a time there", **known | more)


def told(comparison: Comparison) -> tuple[list[Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """Its events, its rows and what became of its results, without times."""
    events = [*comparison.events()]
    rows = [{name: value for name, value in event.row.items() if name not in TIMES} for event in events if event.row]
    results = [{name: value for name, value in vars(result).items() if name != "ms"} for result in comparison.results]
    return [(event.setup, event.kind, event.stage, event.reason) for event in events], rows, results


@pytest.mark.parametrize("more", [{}, {"do_sample": True, "seed": 3, "baseline": 1}, {"sweeps": (0, 3, 0)}])
def test_it_is_the_comparison(here: LocalEngine, far: Any, more: dict[str, Any]) -> None:
    engine, double = far(here)
    there = comparison_of(subject_of(engine), asked(**more))
    assert isinstance(there, RemoteComparison)
    assert told(there) == told(comparison_of(subject_of(here), asked(**more)))
    assert eventually(lambda: not double.replicas[0]._works)


def test_a_configuration_that_cannot_be_had_is_refused_alike(here: LocalEngine, far: Any) -> None:
    engine, _ = far(here)
    params = asked(loops=(None, {"loop_layers": (1, 99)}, {"loop_count": 2}))
    there, near = told(comparison_of(subject_of(engine), params)), told(Comparison(subject_of(here), params))
    assert there == near
    assert any(kind == "refused" and "99" in reason for _, kind, _, reason in there[0])


def test_a_prompt_or_continuation_that_is_too_long_is_refused_before_anything_runs(here: LocalEngine, far: Any) -> None:
    engine, double = far(here)
    with pytest.raises(ValueError, match="continuation"):
        comparison_of(subject_of(engine), CompareParams(prompt="Once", continuation="word " * 400))
    assert double.asked.count("work") == 1, "what the model is, and no more"


def test_one_is_ended_and_the_others_go_on(here: LocalEngine, far: Any) -> None:
    engine, _ = far(here)
    there = comparison_of(subject_of(engine), asked(max_new_tokens=120))
    rows: dict[int, Any] = {}
    for event in there.events():
        if event.kind == "token" and event.setup == 1 and event.done == 3:
            there.stops[1].set()
        if event.row is not None:
            rows[event.setup] = event.row
    assert set(rows) == {0, 1, 2}
    assert 3 <= rows[1]["new_tokens"] < 120
    assert (rows[0]["new_tokens"], rows[2]["new_tokens"]) == (120, 120)


def test_who_leaves_ends_it_there(here: LocalEngine, far: Any) -> None:
    engine, double = far(here)
    events = comparison_of(subject_of(engine), asked(max_new_tokens=120)).events()
    for _ in range(4):
        next(events)
    events.close()  # type: ignore[attr-defined]
    assert eventually(lambda: not double.replicas[0]._works)


def test_a_replica_that_dies_ends_it_in_words_and_what_there_is_stays(here: LocalEngine, far: Any) -> None:
    engine, double = far(here)
    there = comparison_of(subject_of(engine), asked(max_new_tokens=120))
    events = there.events()
    while (event := next(events)).kind != "token":
        pass
    double.kill()
    with pytest.raises(EngineLost, match="what there is stays: begin it again"):
        list(events)
    assert len(there.results[event.setup].ids) >= 1


@pytest.mark.parametrize("main", ["stories-loop", "stories-ttt"])
def test_models_of_both_kinds_stand_beside_each_other(far: Any, main: str) -> None:
    """The one is a cluster's, the other (TTT) in the pages' process; whichever is compared, and whichever stands beside it."""
    loop, ttt = served_engine("stories-loop", "exact"), load_subject("stories-ttt")
    engine, _ = far(loop)
    learner = LocalTTT("stories-ttt", ttt.model, ttt.tokenizer)
    models = {"stories-loop": engine, "stories-ttt": learner}
    other = next(name for name in models if name != main)
    params = asked(names=("own", "other"), loops=({}, {}), models=("", other))
    there = comparison_of(subject_of(models[main], beside={other: models[other]}), params)
    assert isinstance(there, RemoteComparison)
    near = {"stories-loop": loop, "stories-ttt": learner}
    assert told(there) == told(Comparison(subject_of(near[main], beside={other: near[other]}), params))
