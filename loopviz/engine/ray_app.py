"""The models of a cluster, as an application of Ray Serve: a deployment each, of as many replicas as its runs want.

    serve run --name loopviz loopviz.engine.ray_app:app models=stories-loop replicas=4

and then, wherever LoopViz runs (:mod:`loopviz.engine.ray_engine`), `LOOPVIZ_ENGINE=ray://auto`. Needs the extra `ray`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from ray import serve

from loopviz.engine.replica import Replica
from loopviz.engine.serving import Serving, served_engine, serving

RUNS = 8  # of a replica, from which on another is begun: so many share passes well (benchmarks/batch.py)
ONGOING = 64  # runs and questions of one at a time; more wait for another
DRAIN = 330.0  # seconds that one which is needed no more is left, so that its runs end by themselves


class Door:
    """What stands before the models: for programs by its handle, for people and their health checks by HTTP.

    Args:
        served: the deployment of each model, by the model's name.
        deployments: Ray Serve begins what is bound here.
    """

    def __init__(self, served: Mapping[str, str], *deployments: Any) -> None:
        self._served, self._deployments = dict(served), deployments

    async def models(self) -> dict[str, str]:
        """As it was given."""
        return self._served

    async def __call__(self, request: Any) -> dict[str, Any]:
        """As JSON: the names of the models."""
        return {"models": [*self._served]}


def app(args: Mapping[str, Any]) -> Any:
    """The application, for `serve run` and `serve deploy`.

    Args:
        args: as :class:`loopviz.engine.serving.Serving` has them.

    Raises:
        FieldError: an argument that there is not, or whose value it may not have.
    """
    asked = serving(args)
    served = asked.deployments()
    made = [_deployment(served[name], asked).bind(partial(served_engine, name, asked.precision)) for name in served]
    door = serve.deployment(name="door", ray_actor_options={"num_cpus": 0})(Door)
    return door.bind(served, *made)


def _deployment(name: str, asked: Serving) -> Any:
    return serve.deployment(
        name=name,
        ray_actor_options={"num_cpus": asked.cpus},
        autoscaling_config={
            "min_replicas": asked.least,
            "max_replicas": asked.replicas,
            "target_ongoing_requests": RUNS,
        },
        max_ongoing_requests=ONGOING,
        graceful_shutdown_timeout_s=DRAIN,
    )(Replica)
