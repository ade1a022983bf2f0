"""What a server counts of its visitors' work: runs by page and by how they ended, refusals, tokens. No prompt, no name, no visitor.

Kept as Prometheus' client keeps it; :mod:`loopviz.app.server.metrics` serves it.
"""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, disable_created_metrics

disable_created_metrics()  # when a counter began is of no use to anybody, and doubles the lines

LEFT = "left"  # the end of what its visitor took back, or replaced, before it began to be made


class Counted:
    """The counters of one server.

    Attributes:
        registry: that holds them.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._runs = Counter(
            "loopviz_runs",
            "Runs, comparisons and measurements by page and end",
            ["page", "end"],
            registry=self.registry,
        )
        self._refused = Counter(
            "loopviz_refused", "What was asked for and not begun, by page", ["page"], registry=self.registry
        )
        self._tokens = Counter(
            "loopviz_tokens", "Tokens read and written in runs, by page", ["page"], registry=self.registry
        )
        self._acts = Counter(
            "loopviz_acts",
            "What was asked for and is no run (saved runs, class folders, answers, files, calls of programs) by act and end",
            ["act", "end"],
            registry=self.registry,
        )

    def take(self, page: str, run: Any, left: bool) -> None:
        """Something that was asked for has come to its end.

        Args:
            run: what became of it; None: nothing was begun.
            left: whether its visitor took it back, or asked for something else.
        """
        if run is None and not left:
            self._refused.labels(page).inc()
            return
        self._runs.labels(page, getattr(run, "end", None) or LEFT).inc()
        if (trace := getattr(run, "trace", None)) is not None:
            self._tokens.labels(page).inc(len(trace))

    def note(self, act: str, end: str) -> None:
        """Something was asked for that is no run.

        Args:
            act, end: as its line in the log says them.
        """
        self._acts.labels(act, end).inc()
