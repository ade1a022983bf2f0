"""A grid of cells: what it means, that it goes on where it was killed, in processes and on Ray."""

from __future__ import annotations

import importlib.util
import json

import pandas as pd
import pytest

from loopviz import cli
from loopviz.lab import sweep
from loopviz.lab.experiment import Experiment
from loopviz.lab.perplexity import PERPLEXITY, PerplexityParams
from loopviz.lab.tasks import Subject
from loopviz.model.checkpoints import load_checkpoint

from .small import TEXT, save

GRID = """
task: perplexity
models: [{model}]
texts:
  one: {{file: one.txt}}
  two: {{text: "A little loop that went round and round and round and round."}}
configurations:
  own: {{}}
  last: {{loop: {{kv_cache_mode: merge_strategy, merge_strategy: last}}, loops: [3]}}
params: {{loops: [1, 3], paths: [cache], limit_tokens: 20, window: 3, draws: 9, loop: {{loop_damping: 0.5}}}}
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save(tmp_path_factory.mktemp("tiny model"), loop_count=2)


@pytest.fixture
def grid(model, tmp_path, monkeypatch):
    (tmp_path / "one.txt").write_text(TEXT)
    (tmp_path / "grid.yaml").write_text(GRID.format(model=json.dumps(model)))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "grid.yaml"


@pytest.fixture
def here(monkeypatch):
    """Cells run in this process, and are counted."""
    ran = []

    def locally(cells, workers, threads):
        for cell in cells:
            ran.append((cell.configuration, cell.text))
            yield sweep.run_cell(cell, threads)

    monkeypatch.setattr(sweep, "_locally", locally)
    return ran


ALL = [("own", "one"), ("own", "two"), ("last", "one"), ("last", "two")]


def test_every_cell_is_the_experiment_it_names(grid, model, here, tmp_path):
    assert sweep.run(grid, tmp_path / "r", say=lambda text: None) == 0
    assert here == ALL
    table = pd.read_csv("r.csv")
    assert list(table.columns[:4]) == ["model", "configuration", "text", "path"]
    assert table[["configuration", "text", "loops"]].to_numpy().tolist() == [
        *(["own", text, r] for text in ("one", "two") for r in (1, 3)),
        *(["last", text, 3] for text in ("one", "two")),
    ]
    loop = {"loop_damping": 0.5, "kv_cache_mode": "merge_strategy", "merge_strategy": "last"}
    params = PerplexityParams(
        file="one.txt", loops=(3,), paths=("cache",), limit_tokens=20, window=3, draws=9, loop=loop
    )
    expected = Experiment(PERPLEXITY, Subject.of(load_checkpoint(model)), params).run()
    assert table["nats"][4] == pytest.approx(expected.frame["nats"][0], rel=1e-9)
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text("utf-8").splitlines()]
    assert lines[2]["manifest"]["params"] == expected.manifest["params"]
    assert lines[2]["manifest"]["texts"] == expected.manifest["texts"]
    pd.testing.assert_frame_equal(pd.read_parquet("r.parquet"), table, check_dtype=False)


def test_a_killed_sweep_goes_on_where_it_stopped(grid, here, tmp_path):
    assert sweep.run(grid, tmp_path / "r", say=lambda text: None) == 0
    whole = pd.read_csv("r.csv")
    lines = (tmp_path / "r.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "r.jsonl").write_bytes(lines[0] + lines[1][: len(lines[1]) // 2])  # killed while it wrote the second
    here.clear()
    said = []
    assert sweep.run(grid, tmp_path / "r", say=said.append) == 0
    assert here == ALL[1:]
    assert said[0] == "4 cells, 1 of them finished before"
    pd.testing.assert_frame_equal(pd.read_csv("r.csv").drop(columns="seconds"), whole.drop(columns="seconds"))
    here.clear()
    (tmp_path / "one.txt").write_text(TEXT.upper())  # another text is another cell
    assert sweep.run(grid, tmp_path / "r", say=lambda text: None) == 0
    assert here == [ALL[0], ALL[2]]
    assert not pd.read_csv("r.csv")["nats"].equals(whole["nats"])


def test_a_cell_that_fails_is_told_and_tried_again(grid, here, tmp_path):
    wrong = grid.read_text().replace("loops: [3]", "window: 1000")
    (tmp_path / "wrong.yaml").write_text(wrong)
    said = []
    assert sweep.run(tmp_path / "wrong.yaml", tmp_path / "r", say=said.append) == 1
    assert any("last / one: window=1000: the model's context" in line for line in said)
    assert len(pd.read_csv("r.csv")) == 4
    here.clear()
    assert sweep.run(tmp_path / "wrong.yaml", tmp_path / "r", say=said.append) == 1
    assert here == ALL[2:]


def test_the_command_runs_cells_in_processes(grid, here, tmp_path, monkeypatch, capfd):
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "few.yaml").write_text(grid.read_text().replace("  own: {}\n", ""))
    assert cli.main(["sweep", "few.yaml", "--out", "new/few", "--workers", "1"]) == 0
    assert "2 of 2" in capfd.readouterr().err
    assert len(pd.read_csv("new/few.csv")) == 2
    assert (
        json.loads((tmp_path / "new/few.jsonl").read_text("utf-8").splitlines()[0])["manifest"]["machine"]["threads"]
        == 1
    )


@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is optional: pip install -r requirements-ray.txt"
)
def test_cells_run_on_ray(grid, here, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_worker_niceness", "0")  # Ray's own would wait for whatever else the machine does
    grid.write_text(grid.read_text().replace("  own: {}\n", ""))
    assert sweep.run(grid, tmp_path / "local", say=lambda text: None) == 0
    assert sweep.run(grid, tmp_path / "ray", ray_address="local", say=lambda text: None) == 0
    one, other = pd.read_csv("local.csv"), pd.read_csv("ray.csv")
    pd.testing.assert_frame_equal(one.drop(columns="seconds"), other.drop(columns="seconds"))
    assert len(here) == 2, "Ray's cells ran in this process"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("task: perplexity", "task: smell", "task='smell': unknown"),
        ("task:", "tusk:", "tusk: no field of a grid"),
        ("limit_tokens: 20", "limit_tokens: many", "configuration 'own', text 'one': limit_tokens='many'"),
        ("models: [", "models: [] # [", r"models=\[\]"),
        ("own: {}", "own: 3", "configurations.own=3: must be a mapping"),
        ("one.txt", "none.txt", "none.txt: cannot be read"),
        ("task: perplexity", "task: [", "not YAML"),
        ("task: perplexity", "task: perplexity\ndtype: int8", "dtype='int8'"),
    ],
)
def test_refusals(grid, here, tmp_path, old, new, says):
    assert old in grid.read_text()
    grid.write_text(grid.read_text().replace(old, new))
    with pytest.raises(ValueError, match=says):
        sweep.run(grid, tmp_path / "r")
    assert not list(tmp_path.glob("r*"))
    assert here == []


def test_what_is_no_result_is_not_written_over(grid, here, tmp_path, capfd):
    (tmp_path / "r.jsonl").write_text("a diary\n")
    assert cli.main(["sweep", str(grid), "--out", "r"]) == 2
    assert "not the results of a sweep" in capfd.readouterr().err
    assert (tmp_path / "r.jsonl").read_text() == "a diary\n"
    assert cli.main(["sweep", str(grid), "--out", "r", "--workers", "0"]) == 2
    assert "--workers 0" in capfd.readouterr().err
