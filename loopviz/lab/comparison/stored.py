"""A finished comparison as a file that comes along: its table (:mod:`loopviz.lab.kept`), and what its texts and curves are made of.

The file is JSON, one object:

    {"format": "loopviz-comparison", "version": 1, "manifest": {...}, "rows": [...], "trained": ..., "results": [...], "page": {...},
     "digest": "..."}

`results` has, for each row, the fields of :class:`~loopviz.lab.comparison.result.Result`; each row must be what its result gives. `page`
is what a page needs to set up the same cards, and is checked by it. A file that is not so is refused by name.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loopviz.lab.comparison.result import Result
from loopviz.lab.comparison.setups import Setup
from loopviz.lab.kept import Kept, kept_json, kept_of, read_sealed, sealed
from loopviz.lab.tasks.compare import CompareParams, Comparison

FORMAT, VERSION = "loopviz-comparison", 1
DIGITS = 6  # of what curves are drawn from


@dataclass
class Finished:
    """A comparison that has ended, without its model: what a page shows of one.

    Attributes:
        model_name: of its model.
        params: what was compared.
        results: one a setup.
    """

    model_name: str
    params: CompareParams
    results: list[Result]
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self.setups: list[Setup] = self.params.setups()
        self.stops = [threading.Event() for _ in self.setups]

    @property
    def baseline(self) -> int:
        """As of a :class:`~loopviz.lab.tasks.compare.Comparison`."""
        return next(i for i, setup in enumerate(self.setups) if setup.of == self.params.baseline)


@dataclass(frozen=True)
class Stored:
    """A comparison read from its file.

    Attributes:
        kept: its table and manifest.
        results: of each setup, in their order.
        page: what the page's cards were.
    """

    kept: Kept
    results: list[Result]
    page: Mapping[str, Any]

    def named(self, names: Sequence[str]) -> tuple[Finished, Kept]:
        """The comparison and its table, its configurations called otherwise: names are of a language."""
        params = dataclasses.replace(self.kept.params, names=tuple(names))
        finished = Finished(self.kept.model_name, params, self.results)
        rows = [
            result.row(setup, i == finished.baseline)
            for i, (setup, result) in enumerate(zip(finished.setups, self.results, strict=True))
        ]
        return finished, dataclasses.replace(self.kept, params=params, rows=rows)


def stored_json(comparison: Comparison, experiment: Any, page: Mapping[str, Any]) -> dict[str, Any]:
    """A finished comparison as the file's object; its rows in the order of its setups."""
    experiment.rows[:] = [
        result.row(setup, i == comparison.baseline)
        for i, (setup, result) in enumerate(zip(comparison.setups, comparison.results, strict=True))
    ]
    kept = kept_json(experiment, None)
    results = [_result_json(result, setup) for result, setup in zip(comparison.results, comparison.setups, strict=True)]
    return sealed({**kept, "format": FORMAT, "version": VERSION, "results": results, "page": dict(page)})


def read_stored(path: Path) -> Stored:
    """The comparison in a file.

    Raises:
        ValueError: no such file of this version; naming what is wrong.
        OSError: it cannot be read.
    """
    values = read_sealed(path, FORMAT, VERSION)
    kept = kept_of(values, path.name)
    if not isinstance(kept.params, CompareParams):
        raise ValueError(f"{path.name}: no comparison; record it again")
    try:
        results = [_result_of(one) for one in values["results"]]
        stored = Stored(kept, results, dict(values["page"]))
        rows = stored.named(kept.params.names)[1].rows
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path.name}: results or page damaged ({error}); record it again") from None
    if rows != kept.rows:
        raise ValueError(f"{path.name}: a row is not what its result gives; record it again")
    return stored


def _result_json(result: Result, setup: Setup) -> dict[str, Any]:
    values = {thing.name: getattr(result, thing.name) for thing in dataclasses.fields(Result)}
    # of a sweep no curve is drawn; of the others a median a step is
    curves = {
        name: [] if setup.swept is not None else [[float(f"{value:.{DIGITS}g}") for value in step] for step in steps]
        for name, steps in result.curves.items()
    }
    return {**values, "curves": curves, "reasons": dict(result.reasons)}


def _result_of(values: Mapping[str, Any]) -> Result:
    names = {thing.name for thing in dataclasses.fields(Result)}
    if values.keys() != names:
        raise ValueError(f"a result has {sorted(values.keys() ^ names)} more or less than this version")
    return Result(**{**values, "reasons": Counter(values["reasons"])})
