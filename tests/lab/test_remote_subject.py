"""What is measured at a replica is what is measured here: rows, manifest, refusals, an end; and what it will cost is told without it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from loopviz.checks import FieldError
from loopviz.engine.engine import EngineLost
from loopviz.engine.local import LocalEngine
from loopviz.engine.ray_engine import RayEngine
from loopviz.lab import TASKS, Experiment
from loopviz.lab.measure import model_of_row, subject_of
from loopviz.lab.task import Subject
from tests.engine.serve_double import Killed, ServeDouble
from tests.engine.test_ray_engine import eventually
from tests.lab import small
from tests.lab.reading.test_reach import ASKED, params

TIMES = ("ms", "s", "1/s", "tokens/s")  # units of what comes out otherwise each time


def engine_of(subject: Subject) -> LocalEngine:
    return LocalEngine(subject.name, subject.model, subject.tokenizer, subject.source)


@pytest.fixture
def elsewhere() -> Iterator[Callable[..., tuple[Subject, ServeDouble]]]:
    """A subject's model, on a cluster of so many replicas, as the thing that is measured."""
    doubles = []

    def serve(subject: Subject, replicas: int = 1) -> tuple[Subject, ServeDouble]:
        doubles.append(ServeDouble(*[engine_of(subject)] * replicas))
        return subject_of(RayEngine(subject.name, doubles[-1], (Killed,)), paths=True), doubles[-1]

    yield serve
    for double in doubles:
        double.close()


@pytest.fixture(scope="module")
def here() -> Subject:
    return small.subject(loop_count=3)


@pytest.mark.parametrize(
    "task", [task for task in TASKS.values() if "learner" not in ASKED[task.name]], ids=lambda task: task.name
)
def test_it_is_measured_there_as_here(here: Subject, elsewhere: Any, task: Any) -> None:
    there, _ = elsewhere(here)
    asked = params(task)
    assert task.cells(there, asked) == task.cells(here, asked)
    assert task.work(there, asked) == task.work(here, asked)
    far, near = Experiment(task, there, asked).run(), Experiment(task, here, asked).run()
    timed = {column.name for column in task.columns if column.unit in TIMES}
    assert len(timed) < len(task.columns)

    def untimed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{name: value for name, value in row.items() if name not in timed} for row in rows]

    if task.name != "roofline":  # whose rows are what this machine manages
        assert untimed(far.rows) == untimed(near.rows)
    assert (len(far.rows), far.complete, far.total, far.held) == (len(near.rows), True, near.total, near.held)
    known = {key: value for key, value in near.manifest.items() if key not in ("created", "seconds")}
    assert {key: far.manifest[key] for key in known} == known
    for row in far.rows:
        assert model_of_row(task, there, row, asked) == model_of_row(task, here, row, asked)


def test_a_file_of_this_machine_is_read_there(here: Subject, elsewhere: Any, tmp_path: Path) -> None:
    there, _ = elsewhere(here)
    file, task = tmp_path / "story.txt", TASKS["perplexity"]
    file.write_text(small.TEXT, encoding="utf-8")
    asked = task.params(file=str(file), **ASKED["perplexity"])
    far, near = Experiment(task, there, asked).run(), Experiment(task, here, asked).run()
    assert [row["perplexity"] for row in far.rows] == [row["perplexity"] for row in near.rows]
    assert far.manifest["texts"] == near.manifest["texts"]
    assert far.manifest["texts"][0]["name"] == "story.txt"


def test_models_beside_it_are_loaded_there_and_named_in_the_manifest(elsewhere: Any) -> None:
    from loopviz.engine.serving import served_engine

    engine = served_engine("stories-loop", "exact")
    here = Subject(engine.model, engine.tokenizer, engine.name, engine.source)
    there, _ = elsewhere(here)
    task = TASKS["context_length"]
    asked = task.params(text=small.TEXT, tokens=60, lengths=(12,), beside=("stories-attention",))
    far, near = Experiment(task, there, asked).run(), Experiment(task, here, asked).run()
    assert far.rows == near.rows
    assert far.held == near.held
    assert set(far.manifest["beside"]) == {"stories-attention"}
    assert far.manifest["beside"] == near.manifest["beside"]


def test_a_refusal_is_the_same(here: Subject, elsewhere: Any) -> None:
    there, _ = elsewhere(here)
    task = TASKS["perplexity"]
    asked = task.params(text="a", loops=(1,))
    refusals = []
    for subject in (here, there):
        with pytest.raises(ValueError, match=r".") as found:
            Experiment(task, subject, asked).run()
        refusals.append(str(found.value))
    assert refusals[0] == refusals[1]


def long(there: Subject) -> Experiment:
    task = TASKS["perplexity"]
    asked = task.params(text=small.TEXT * 40, window=12, batch=1, loops=(1, 3), draws=50)
    return Experiment(task, there, asked)


def test_a_stop_ends_it_there_and_keeps_what_was_yielded(here: Subject, elsewhere: Any) -> None:
    there, double = elsewhere(here)
    experiment = long(there)
    for n, _ in enumerate(experiment):
        if n == 3:
            experiment.stop.set()
    assert not experiment.complete
    experiment.close()  # as whoever runs one does
    assert eventually(lambda: not double.replicas[0]._works)
    other = long(there)
    next(iter(other))
    other.close()
    assert eventually(lambda: not double.replicas[0]._works), "closed, it ends there too"


def test_a_replica_that_dies_ends_it_in_words(here: Subject, elsewhere: Any) -> None:
    there, double = elsewhere(here, 2)
    experiment = long(there)
    next(iter(experiment))
    double.kill()
    with pytest.raises(EngineLost, match="the replica that did this ended before it was done"):
        experiment.run()
    assert Experiment(TASKS["norms"], there, params(TASKS["norms"])).run().complete, "by the other one"


def test_it_waits_for_who_takes_its_rows(here: Subject, elsewhere: Any) -> None:
    """What yields to others here stands still there."""
    there, double = elsewhere(here)
    experiment, passes = long(there), []
    handle = here.model.model.layers[0].register_forward_hook(lambda *_: passes.append(0))
    try:
        next(iter(experiment))
        (done,) = double.replicas[0]._works.values()
        assert eventually(lambda: done.room._value == 0)
        time.sleep(0.2)  # the step that was under way
        made = len(passes)
        time.sleep(0.3)
        assert len(passes) == made > 0
    finally:
        handle.remove()
        experiment.close()


def test_an_engine_that_is_neither_is_refused_by_name() -> None:
    with pytest.raises(FieldError, match="engine=Other: its model runs elsewhere"):
        subject_of(type("Other", (), {})())  # type: ignore[arg-type]
