"""The committed tables are those of the models that are bundled now, and of tasks and columns that there are now."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import pytest

from loopviz.lab import TASKS, Subject
from loopviz.lab.experiment import check_manifest
from loopviz.lab.task import params_from_json, params_to_json, plain_data
from loopviz.model.checkpoints.load import load_checkpoint

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = sorted((ROOT / "docs" / "lab").glob("*.json"))
TEXTS = "".join(path.read_text("utf-8") for path in (ROOT / "docs" / "lab").glob("*.md"))


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_a_committed_table_can_be_repeated(path):
    manifest = json.loads(path.read_text("utf-8"))
    check_manifest(manifest)
    assert manifest["complete"]
    task = TASKS[manifest["task"]]
    asked = params_to_json(params_from_json(task.params, manifest["params"]))
    assert manifest["params"].items() <= asked.items()
    usual = {field.name: plain_data(field.default) for field in dataclasses.fields(task.params)}
    later = asked.keys() - manifest["params"].keys()  # parameters that came since: as they are by themselves
    assert {name: asked[name] for name in later} == {name: usual[name] for name in later}
    with path.with_suffix(".csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == [column.name for column in task.columns]
    assert len(rows) == manifest["rows"]
    assert manifest["command"]
    assert path.stem in TEXTS
    folder = ROOT / manifest["model"]["name"]
    if folder.is_dir():
        assert Subject.of(load_checkpoint(folder)).digest == manifest["model"]["digest"], "measure the new weights"
