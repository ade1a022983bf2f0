"""Models on a cluster, for real: a Ray of this machine, its Serve, a replica that is killed, another that comes where runs are many.

Two minutes; skipped without Ray.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from loopviz.engine.address import RayAddress
from loopviz.engine.engine import EngineLost, Request
from loopviz.engine.ray_engine import RayEngine, remote_engine
from loopviz.engine.serving import served_engine
from loopviz.lab import TASKS, Experiment
from loopviz.lab.comparison.remote import comparison_of
from loopviz.lab.measure import subject_of
from loopviz.lab.tasks.compare import CompareParams, Comparison
from loopviz.paths import PACKAGE
from loopviz.trace import Trace
from tests.engine.test_local import settled

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="Ray is optional: pip install -r requirements-ray.txt"
    ),
]
MODEL = "stories-loop"
LONG = Request("Once upon a time", {}, {"max_new_tokens": 400})


@pytest.fixture(scope="module")
def engine() -> Iterator[RayEngine]:
    """Of an application that this process serves, on a Ray of its own."""
    import ray
    from ray import serve

    from loopviz.engine.ray_app import app

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")  # Ray's own would wait for whatever else the machine does
        patch.setenv("RAY_AUTH_MODE", "disabled")  # else it writes a token into the home
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(PACKAGE.parent), os.environ.get("PYTHONPATH")))))
        ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20)
        try:
            serve.start(http_options={"location": "NoServer"})
            serve.run(app({"models": MODEL, "replicas": "1"}), name="loopviz", route_prefix=None)
            yield remote_engine(MODEL, RayAddress("auto"))
        finally:
            serve.shutdown()
            ray.shutdown()


def eventually(true: Callable[[], Any]) -> bool:
    until = time.monotonic() + 120
    while not (found := true()) and time.monotonic() < until:
        time.sleep(0.05)
    return bool(found)


def gone(run: Any) -> bool:
    """Whether no replica makes a run."""
    try:
        run.steer(loop_count=2)
    except EngineLost:
        return True
    return False


def test_a_run_is_that_of_the_model_here(engine: RayEngine) -> None:
    here = served_engine(MODEL, "exact")
    request = Request("Once upon a time", {"loop_count": 3}, {"max_new_tokens": 20, "do_sample": True, "seed": 4})
    assert settled([*engine.start(request).frames]) == settled([*here.start(request).frames])
    assert engine.describe({"loop_count": 5}).blocks == here.describe({"loop_count": 5}).blocks
    with pytest.raises(ValueError, match="loop_count=0: must be"):
        engine.start(Request("Once", {"loop_count": 0}, {}))


def test_it_is_steered_and_stopped_at_the_replica(engine: RayEngine) -> None:
    run = engine.start(LONG)
    for frame in run.frames:
        if frame["index"] == 5:
            run.steer(loop_count=8)
        if run.meta["changes"]:
            break
    (change,) = run.meta["changes"]
    assert change["index"] == frame["index"] > 5
    assert frame["blocks"][0]["n_steps"] == 8
    run.stop()
    assert [*run.frames] == []
    assert eventually(lambda: gone(run)), "the replica makes it no longer"
    assert frame["index"] < 300


def test_a_run_is_read_again_and_checked_at_a_replica(engine: RayEngine) -> None:
    here = served_engine(MODEL, "exact")
    run = here.start(Request("Once upon a time", {}, {"max_new_tokens": 6, "record": "full"}))
    trace = Trace(run.meta, [*run.frames])
    far, near = engine.read_again(trace), here.read_again(trace)
    stop = threading.Event()
    one, other = far.read(4, stop), near.read(4, stop)
    assert one is not None
    assert other is not None
    layer = trace.meta["blocks"][0]["layers"][0]
    assert pickle.dumps(one.layer(layer, 2)) == pickle.dumps(pickle.loads(pickle.dumps(other.layer(layer, 2))))
    assert one.draw(1.0, 0, 1.0).kept == other.draw(1.0, 0, 1.0).kept
    assert far.need(4) == near.need(4)
    assert all(row.agrees for row in engine.parity(False, "float32", stop))


def test_it_is_measured_and_compared_at_a_replica(engine: RayEngine) -> None:
    here, task = served_engine(MODEL, "exact"), TASKS["perplexity"]
    asked = task.params(
        text="Once upon a time there was a little dog. " * 9, limit_tokens=60, window=20, loops=(1, 4), draws=50
    )
    found = [Experiment(task, subject_of(one), asked).run() for one in (engine, here)]
    far, near = ([{**row, "seconds": 0} for row in one.rows] for one in found)
    assert far == near
    assert found[0].manifest["model"] == found[1].manifest["model"]
    params = CompareParams(
        prompt="Once", continuation=" there was a dog.", names=("a", "b"), loops=(None, {}), max_new_tokens=8
    )
    rows = [
        {event.setup: (event.row["perplexity"], event.row["agreement"]) for event in made.events() if event.row}
        for made in (comparison_of(subject_of(engine), params), Comparison(subject_of(here), params))
    ]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 2


def test_another_replica_comes_where_runs_are_many(engine: RayEngine) -> None:
    """From `RUNS` at one on, as `target_ongoing_requests` says."""
    from ray import serve

    from loopviz.engine.ray_app import RUNS, app

    serve.run(app({"models": MODEL, "replicas": "2"}), name="many", route_prefix=None)
    many = remote_engine(MODEL, RayAddress("auto", "many"))

    def replicas() -> int:
        (deployment,) = [one for name, one in serve.status().applications["many"].deployments.items() if name != "door"]
        return deployment.replica_states.get("RUNNING", 0)

    assert replicas() == 1
    stop = threading.Event()
    # readings that stay open are requests, and cost no processor that the new replica needs to come
    trace = Trace(*_begun(many))
    open_ones = [many.read_again(trace) for _ in range(RUNS + 4)]
    assert eventually(lambda: replicas() == 2)
    assert all(one.read(2, stop) is not None for one in open_ones)
    open_ones.clear()  # a replica that is needed no more waits for what is open there
    gc.collect()
    serve.delete("many", _blocking=False)


def _begun(engine: RayEngine) -> tuple[Any, list[Any]]:
    run = engine.start(Request("Once upon a time", {}, {"max_new_tokens": 3}))
    return run.meta, [*run.frames]


def test_a_replica_killed_in_the_middle_ends_the_run_in_words_and_another_makes_the_next(engine: RayEngine) -> None:
    run = engine.start(LONG)
    next(run.frames)
    replicas = [
        one for one in psutil.Process().children(recursive=True) if "ServeReplica:loopviz:stories" in _called(one)
    ]
    assert replicas
    for one in replicas:
        one.kill()
    with pytest.raises(EngineLost, match="the replica that made this run ended before it did"):
        for _ in run.frames:
            pass
    again = engine.start(Request("Once upon a time", {}, {"max_new_tokens": 5}))
    assert [*again.frames][-1]["finish"] == "length"


def test_what_the_cluster_does_not_serve_is_refused_by_name(engine: RayEngine) -> None:
    with pytest.raises(
        ValueError, match="model='smollm2': is none of the models that this server's cluster serves: stories"
    ):
        remote_engine("smollm2", RayAddress("auto"))
    with pytest.raises(EngineLost, match="run on a cluster, ray://auto/other, which does not answer"):
        remote_engine(MODEL, RayAddress("auto", "other"))


def _called(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
