"""A sweep's cells as tasks of a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from loopviz import imports
from loopviz.paths import PACKAGE, install_hint
from loopviz.version import tell, version

from .workers import Died, Job


class RayCluster:
    """Cells as tasks of a Ray cluster. Its machines need LoopViz's requirements and must see the same files; LoopViz itself
    is sent to them.

    Args:
        address: of the cluster.
        threads: CPUs of a cell.
        modules: what `--import` named; the cluster's machines must find them as this one does.
    """

    def __init__(self, address: str, threads: int, modules: Sequence[str]) -> None:
        try:
            import ray
        except ImportError:
            raise ValueError(f"--ray: Ray is not installed; {install_hint('ray')}") from None
        self.ray, self.address, self.threads, self.modules = ray, address, threads, tuple(modules)
        self._running: dict[Any, Job] = {}

    def __enter__(self) -> RayCluster:
        runtime_env = {"py_modules": [str(PACKAGE)]}
        self._context = _connected(self.ray, self.address, runtime_env)
        self._context.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        for task in self._running:
            self.ray.cancel(task, force=True)
        self._running.clear()
        self._context.__exit__(None, None, None)

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Any]]:
        """Jobs with their results, as they come."""
        remote = self.ray.remote(num_cpus=self.threads, max_retries=2)(_on_ray)
        self._running = {remote.remote(version(), self.modules, job.function, job.arguments): job for job in jobs}
        while self._running:
            done, _ = self.ray.wait(list(self._running))
            yield from self._results(done)

    def finished(self) -> Iterator[tuple[Job, Any]]:
        """Results that have come in and have not been handed out."""
        done, _ = self.ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        yield from self._results(done)

    def _results(self, done: Sequence[Any]) -> Iterator[tuple[Job, Any]]:
        for task in done:
            job = self._running.pop(task)
            try:
                yield job, self.ray.get(task)
            except self.ray.exceptions.RayError as error:
                yield job, Died(f"was lost ({type(error).__name__})")


def _on_ray(release: str, modules: Sequence[str], function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    tell(release)  # the package's folder is sent, and what says its release is beside it
    imports.load(modules)
    return function(*arguments)


@contextmanager
def _connected(ray: Any, address: str, runtime_env: dict[str, Any]) -> Iterator[None]:
    own = not ray.is_initialized()
    if own:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told that somebody sweeps
        try:
            ray.init(address=address, runtime_env=runtime_env, log_to_driver=False)
        except ConnectionError as error:
            raise ValueError(f"--ray {address}: no cluster there ({' '.join(str(error).split())})") from None
    try:
        yield
    finally:
        if own:
            ray.shutdown()
