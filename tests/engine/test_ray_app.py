"""Models on a cluster, for real: a Ray of this machine, its Serve, a replica that is killed. Half a minute; skipped without Ray."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from loopviz.engine.address import RayAddress
from loopviz.engine.engine import EngineLost, Request
from loopviz.engine.ray_engine import RayEngine, remote_engine
from loopviz.engine.serving import served_engine
from loopviz.paths import PACKAGE
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
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20)
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
