"""For who hosts: whether the server is well (`/loopviz-health`), and what it does, as Prometheus reads it (`/loopviz-metrics`).

Health says nothing that a page does not. The numbers are for whoever knows the token of `LOOPVIZ_METRICS_TOKEN` (sent as
`Authorization: Bearer ...`); a server without one has no such address.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import psutil
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import GaugeMetricFamily
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from loopviz.app.server.assets import HEALTH, SERVER
from loopviz.version import version

if TYPE_CHECKING:
    from loopviz.app.sessions.job import Jobs

METRICS = "/loopviz-metrics"
TOKEN = "LOOPVIZ_METRICS_TOKEN"  # the variable's name


class Now:
    """What a server holds at the moment it is asked; a collector of Prometheus' client.

    Args:
        jobs: what the pages of the server share.
    """

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._process = psutil.Process()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges."""
        jobs, memory = self._jobs, self._process.memory_info()
        places = jobs.places.now()
        for name, words, value in (
            ("loopviz_running", "Places taken by what is made now", places.running),
            ("loopviz_waiting", "In line for a place", places.waiting),
            ("loopviz_kept_bytes", "Bytes of runs that are kept, as last weighed", jobs.keeper.total),
            ("loopviz_kept_bytes_most", "Bytes of runs that may be kept", jobs.keeper.profile.kept_bytes),
            ("loopviz_models_held", "Models held, of those that loop", jobs.room.held()),
            ("loopviz_resident_bytes", "Resident memory of the process", memory.rss),
            ("loopviz_threads", "Threads of the process", self._process.num_threads()),
        ):
            yield GaugeMetricFamily(name, words, value=value)


def routes(jobs: Jobs, environ: Mapping[str, str], pages: str = "") -> list[Route]:
    """The two addresses.

    Args:
        environ: `LOOPVIZ_METRICS_TOKEN`, where the numbers are served.
        pages: the version of the pages (:func:`loopviz.app.server.assets.version_of`): an open page whose server was away asks for it.
    """
    jobs.counted.registry.register(Now(jobs))
    token = environ.get(TOKEN, "").strip()

    async def health(request: Request) -> Response:
        state = jobs.room.seen(jobs.room.default).state  # a probe loads nothing
        well = state != "failed"
        told = {
            "status": "ok" if well else "failed",
            "version": version(),
            "profile": jobs.room.profile.name,
            "model": state,
            "server": SERVER,
            "pages": pages,
        }
        return JSONResponse(told, 200 if well else 503, headers={"Cache-Control": "no-store"})

    def metrics(request: Request) -> Response:
        if not token:
            return Response(status_code=404)
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), token.encode()):
            return Response(status_code=401, headers={"WWW-Authenticate": "Bearer"})
        return Response(
            generate_latest(jobs.counted.registry),
            media_type=CONTENT_TYPE_LATEST,
            headers={"Cache-Control": "no-store"},
        )

    return [Route(HEALTH, health, methods=["GET", "HEAD"]), Route(METRICS, metrics, methods=["GET"])]
