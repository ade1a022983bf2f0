"""Measurements that come along as files: given back as they were, and refused by name when they are anything else."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from loopviz.lab import TASKS, Experiment, Task
from loopviz.lab.comparison.stored import read_stored, stored_json
from loopviz.lab.kept import kept_json, read_kept, sealed
from loopviz.lab.tasks.compare import CompareParams, Comparison
from loopviz.paths import ASSETS
from tests.lab.small import SMALL, TEXT, subject

FILES = [ASSETS / "runs" / "compare.json", *sorted((ASSETS / "runs").glob("lab-*.json"))]


@pytest.fixture(scope="module")
def measured() -> Experiment:
    task = TASKS["perplexity"]
    return Experiment(task, subject(), task.params(text=TEXT, loops=(1, 3), paths=("full",), **SMALL)).run()


@pytest.fixture(scope="module")
def compared() -> dict[str, Any]:
    """A comparison as its file's object."""
    params = CompareParams(
        prompt="Once upon", continuation=" a time", names=("a", "b"), loops=(None, {}), sweeps=(0, 2), max_new_tokens=4
    )
    comparison = Comparison(subject(), params)
    experiment = Experiment(TASKS["compare"], comparison.subject, params)
    for event in comparison.events():
        if event.row is not None:
            experiment.rows.append(event.row)
    experiment.complete = True
    return stored_json(comparison, experiment, {"cards": 2})


def written(folder: Path, values: Any) -> Path:
    path = folder / "it.json"
    path.write_text(values if isinstance(values, str) else json.dumps(values), encoding="utf-8")
    return path


def test_a_measurement_comes_back_as_it_was(measured: Experiment, tmp_path: Path) -> None:
    kept = read_kept(written(tmp_path, kept_json(measured, (1, 16))))
    assert kept.rows == measured.rows
    assert kept.params == measured.params
    assert kept.trained == (1, 16)
    assert kept.model_name == "tiny"
    pd.testing.assert_frame_equal(kept.frame, measured.frame)
    assert kept.file("csv") == measured.file("csv")
    assert json.loads(kept.file("json")) == measured.manifest


def test_only_what_is_finished_is_kept(measured: Experiment) -> None:
    begun = Experiment(measured.task, measured.subject, measured.params)
    with pytest.raises(ValueError, match="not complete"):
        kept_json(begun, None)


def without(name: str) -> Any:
    return lambda values: sealed({key: value for key, value in values.items() if key != name})


def changed(**more: Any) -> Any:
    return lambda values: sealed({**values, **more})


SPOILT = [
    ("[", "not JSON"),
    ("[]", "no loopviz-measurement"),
    (lambda values: {**values, "rows": []}, "digest"),
    (lambda values: {**values, "digest": "x"}, "digest"),
    (without("digest"), None),  # sealed anew: whole
    (changed(version=0), "version=0"),
    (changed(version=2), "version=2"),
    (changed(format="loopviz-trace"), "no loopviz-measurement"),
    (without("rows"), "rows missing"),
    (without("manifest"), "missing"),
    (lambda values: sealed({**values, "rows": values["rows"][:1]}), "complete table"),
    (lambda values: sealed({**values, "rows": [{**row, "more": 1} for row in values["rows"]]}), "columns"),
    (lambda values: sealed({**values, "rows": [{**row, "nats": [1]} for row in values["rows"]]}), "nats="),
    (changed(trained=[16]), "trained="),
    (changed(trained=[0, 2]), "trained="),
    (lambda values: sealed({**values, "manifest": {**values["manifest"], "task": "gone"}}), "task='gone'"),
    (lambda values: sealed({**values, "manifest": {**values["manifest"], "complete": False}}), "complete"),
    (lambda values: sealed({**values, "manifest": {**values["manifest"], "params": {"loops": "many"}}}), "loops"),
    (lambda values: sealed({**values, "manifest": {**values["manifest"], "schema": 9}}), "schema=9"),
]


@pytest.mark.parametrize(("spoil", "says"), SPOILT)
def test_a_stale_or_damaged_file_is_refused_by_name(
    measured: Experiment, tmp_path: Path, spoil: Any, says: str | None
) -> None:
    values = kept_json(measured, None)
    path = written(tmp_path, spoil if isinstance(spoil, str) else spoil(values))
    if says is None:
        assert read_kept(path).rows == measured.rows
    else:
        with pytest.raises(ValueError, match=says):
            read_kept(path)


def test_a_file_of_another_measurement_is_not_this_ones(measured: Experiment, tmp_path: Path) -> None:
    path = written(tmp_path, kept_json(measured, None))
    with pytest.raises(ValueError, match="not the measurement"):
        read_kept(path, TASKS["influence"])


def test_a_comparison_comes_back_and_may_be_called_otherwise(compared: dict[str, Any], tmp_path: Path) -> None:
    stored = read_stored(written(tmp_path, compared))
    assert [row["swept"] for row in stored.kept.rows] == [None, 1, 2]
    assert stored.page == {"cards": 2}
    finished, kept = stored.named(["甲", "乙"])
    assert [row["setup"] for row in kept.rows] == ["甲", "乙", "乙"]
    assert [setup.name for setup in finished.setups] == ["甲", "乙", "乙"]
    assert finished.baseline == 0
    assert finished.results[0].pieces == stored.results[0].pieces != []
    assert stored.kept.rows[0]["perplexity"] == kept.rows[0]["perplexity"]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda values: {**values, "page": {}}, "digest"),
        (changed(version=9), "version=9"),
        (changed(results=[]), "damaged"),
        (changed(results=None), "damaged"),
        (without("page"), "damaged"),
        (lambda v: sealed({**v, "results": [{**one, "more": 1} for one in v["results"]]}), "damaged"),
        (lambda v: sealed({**v, "results": [{**one, "perplexity": 2.0} for one in v["results"]]}), "its result"),
    ],
)
def test_a_stale_or_damaged_comparison_is_refused_by_name(
    compared: dict[str, Any], tmp_path: Path, spoil: Any, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        read_stored(written(tmp_path, spoil(compared)))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_comes_along_is_of_this_version_and_of_the_model_that_comes_along(path: Path) -> None:
    """Else: python scripts/record_measurements.py"""
    from loopviz.lab import Subject
    from loopviz.model.checkpoints.load import load_checkpoint

    kept = read_stored(path).kept if path.stem == "compare" else read_kept(path)
    assert kept.manifest["model"]["digest"] == Subject.of(load_checkpoint(kept.model_name)).digest
    assert dataclasses.asdict(kept.params)


@pytest.mark.parametrize(
    "task", [task for task in TASKS.values() if task.name != "compare"], ids=lambda task: task.name
)
def test_what_comes_along_is_of_the_size_that_quick_has_now(task: Task) -> None:
    """A size that was changed without recording again showed figures without the intervals that its words promise."""
    params = read_kept(ASSETS / "runs" / f"lab-{task.name}.json").params
    quick = task.sizes[0]
    for name, value in {**task.first, **quick.values}.items():
        here = getattr(params, name)
        assert here <= value if name in quick.fits else here == value, name


def test_every_measurement_has_one_that_comes_along() -> None:
    assert {path.stem for path in FILES} == {"compare", *(f"lab-{entry}" for entry in TASKS)}
