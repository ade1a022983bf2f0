"""A grid of cells: what it means, that it goes on where it was killed, in processes and on Ray."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import psutil
import pytest

from loopviz.cli import main
from loopviz.lab import sweep
from loopviz.lab.experiment import Experiment
from loopviz.lab.task import Subject
from loopviz.lab.tasks import perplexity
from loopviz.lab.tasks.perplexity import PERPLEXITY, PerplexityParams
from loopviz.model.checkpoints.load import load_checkpoint
from loopviz.model.exit_gate import GATE_FILE, ExitGate, gate_bytes

from .small import TEXT, save
from .test_workers import gone, wait_for

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


class Here:
    """Cells run in this process, and are counted."""

    ran: list[tuple[str, str]]

    def __init__(self, most, modules=()):
        assert most >= 1

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def run(self, jobs):
        for job in jobs:
            if job.function is sweep.run_cell:
                self.ran.append((job.arguments[0].configuration, job.arguments[0].text))
            yield job, job.function(*job.arguments)

    def finished(self):
        return iter(())


@pytest.fixture
def here(monkeypatch):
    sweep._kept.clear()
    monkeypatch.setattr(Here, "ran", [], raising=False)
    monkeypatch.setattr(sweep, "Workers", Here)
    yield Here.ran
    sweep._kept.clear()


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


def test_a_cell_that_fails_is_told_and_tried_again(grid, here, tmp_path, monkeypatch):
    row = perplexity._row

    def fails(path, model, *rest):
        if model.config.merge_strategy == "last" and model.config.kv_cache_mode == "merge_strategy":
            raise RuntimeError("no luck")
        return row(path, model, *rest)

    monkeypatch.setattr(perplexity, "_row", fails)
    said = []
    assert sweep.run(grid, tmp_path / "r", say=said.append) == 1
    assert any("last / one: RuntimeError: no luck" in line for line in said)
    assert len(pd.read_csv("r.csv")) == 4
    here.clear()
    assert sweep.run(grid, tmp_path / "r", say=said.append) == 1
    assert here == ALL[2:]


def test_the_command_runs_cells_in_processes(grid, here, tmp_path, monkeypatch, capfd):
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "few.yaml").write_text(grid.read_text().replace("  own: {}\n", ""))
    assert main.main(["sweep", "few.yaml", "--out", "new/few", "--workers", "1"]) == 0
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
        ("task: perplexity", "task: perplexity\ndtype: int4", "dtype='int4'"),
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
    assert main.main(["sweep", str(grid), "--out", "r"]) == 2
    assert "not the results of a sweep" in capfd.readouterr().err
    assert (tmp_path / "r.jsonl").read_text() == "a diary\n"
    assert main.main(["sweep", str(grid), "--out", "r", "--workers", "0"]) == 2
    assert "--workers 0" in capfd.readouterr().err


# -- A1: what a finished cell was made of ------------------------------------------------------------------------------


def again(grid, tmp_path, **options) -> list[str]:
    """Run the sweep once more; what it said before the cells."""
    Here.ran.clear()
    said = []
    assert sweep.run(grid, tmp_path / "r", say=said.append, **options) == 0
    return said[: len(said) - 1 - len(Here.ran)]


@pytest.fixture
def own_model(grid, tmp_path):
    """A copy of the model that a test may change, and a grid of it."""
    folder = tmp_path / "own"
    save(folder, loop_count=2)
    grid.write_text(GRID.format(model=json.dumps(str(folder))))
    return folder


def test_a1_cells_run_again_when_the_weights_in_the_folder_are_others(own_model, grid, here, tmp_path):
    assert again(grid, tmp_path) == ["4 cells, 0 of them finished before"]
    before = pd.read_csv("r.csv")
    sweep._kept.clear()  # as a new process
    assert again(grid, tmp_path) == ["4 cells, 4 of them finished before"]
    model = load_checkpoint(own_model).model
    model.model.layers[1].mlp.down_proj.weight.data *= 3
    model.save_pretrained(own_model)
    sweep._kept.clear()
    assert again(grid, tmp_path) == [
        "4 cells, 0 of them finished before",
        f"4 finished before are run again: the weights of {own_model} have changed",
    ]
    assert here == ALL
    assert not pd.read_csv("r.csv")["nats"].equals(before["nats"])
    sweep._kept.clear()
    assert again(grid, tmp_path) == ["4 cells, 4 of them finished before"]


@pytest.mark.parametrize("what", ["configuration", "tokenizer", "exit gate"])
def test_a1_cells_run_again_when_what_surrounds_the_weights_has_changed(own_model, grid, here, tmp_path, what):
    """The same weights with another loop, or with other words, give other numbers."""
    again(grid, tmp_path)
    name = {"configuration": "config.json", "tokenizer": "tokenizer.json", "exit gate": GATE_FILE}[what]
    if what == "exit gate":
        (own_model / name).write_bytes(gate_bytes(ExitGate(32), {}))
        sweep._kept.clear()
        assert again(grid, tmp_path)[1] == f"4 finished before are run again: the exit gate of {own_model} has changed"
        gate = ExitGate(32)
        gate.bias.data.fill_(1.0)
        (own_model / name).write_bytes(gate_bytes(gate, {}))
    else:
        values = json.loads((own_model / name).read_text("utf-8"))
    if what == "configuration":
        values["rms_norm_eps"] = 1e-3
    elif what == "tokenizer":
        values["model"]["merges"] = values["model"]["merges"][:-5]
    if what != "exit gate":
        (own_model / name).write_text(json.dumps(values), "utf-8")
    sweep._kept.clear()
    assert again(grid, tmp_path)[1] == f"4 finished before are run again: the {what} of {own_model} has changed"
    assert here == ALL


def test_a1_cells_run_again_under_another_version(grid, here, tmp_path, monkeypatch):
    again(grid, tmp_path)
    known = sweep.versions()
    monkeypatch.setattr(sweep, "versions", lambda: {**known, "torch": "9.9", "pandas": "9.9"})
    assert again(grid, tmp_path)[1] == f"4 finished before are run again: torch was {known['torch']} and is 9.9"
    assert here == ALL
    monkeypatch.setattr(sweep, "versions", lambda: {**known, "torch": "9.9", "pandas": "0"})  # changes no number
    assert again(grid, tmp_path) == ["4 cells, 4 of them finished before"]


def test_a1_the_reason_is_told_for_texts_and_settings_too(grid, here, tmp_path):
    again(grid, tmp_path)
    (tmp_path / "one.txt").write_text(TEXT.upper())
    grid.write_text(grid.read_text().replace("draws: 9", "draws: 8"))
    assert again(grid, tmp_path)[1:] == [
        "2 finished before are run again: text one has changed",
        "2 finished before are run again: their settings have changed",
    ]


def test_a1_results_of_an_older_loopviz_are_read_and_their_cells_run_again(grid, here, tmp_path):
    again(grid, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text("utf-8").splitlines()]
    old = [{name: value for name, value in line.items() if name != "made_of"} | {"key": "0" * 64} for line in lines[:3]]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(line) + "\n" for line in old), "utf-8")
    assert again(grid, tmp_path) == [
        "4 cells, 0 of them finished before",
        "3 finished before are run again: written by an older LoopViz, which did not note what they were made of",
    ]
    assert len((tmp_path / "r.jsonl").read_text("utf-8").splitlines()) == 7, "old lines stay"
    assert len(pd.read_csv("r.csv")) == 6


# -- refused before anything runs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("loops: [3]", "window: 1000", "configuration 'last', text 'one': window=1000"),
        ("loop: {loop_damping: 0.5}", "loop: {loop_damping: 5}", "loop_damping=5"),
        ("loop: {loop_damping: 0.5}", "loop: {loop_layers: [0, 99]}", "layer 99 is not in"),
        ("loop: {loop_damping: 0.5}", "loop: {loop_dampings: 5}", "loop_dampings=5: not a loop field"),
        ('two: {text: "A little', 'two: {text: "A", window: 2} # ', "tokens=1: at least 2"),
        ("models: [", 'models: ["no/such/model", ', "no/such/model"),
        ("task: perplexity", "task: perplexity\ndevice: foo", "device='foo'"),
        ("task: perplexity", "task: perplexity\ndevice: cuda:99", "device='cuda:99'"),
        ("draws: 9", "draws: yes", r"draws='yes': must be a whole number \(line 10\)"),
        ("limit_tokens: 20", "limit_tokens: 1:30", r"limit_tokens='1:30': must be a whole number \(line 10\)"),
        ("one.txt}", "one.txt, text: a}", r"text, file: give exactly one of them; both are given \(line 5\)"),
        ("own: {}", "own: {lops: [1]}", r"lops=\[1\]: there is no such parameter.* \(line 8\)"),
        ("task: perplexity", "task: perplexity\ntask: where", "stands twice"),
        ("task: perplexity", "task: perplexity\nimports: [no_such_module_here]", "--import no_such_module_here"),
        ("task: perplexity", "task: perplexity\nimports: {a: b}", "imports="),
    ],
)
def test_a_cell_that_cannot_run_is_refused_before_the_first_one_runs(grid, here, tmp_path, old, new, says):
    assert old in grid.read_text()
    grid.write_text(grid.read_text().replace(old, new))
    with pytest.raises(ValueError, match=says):
        sweep.run(grid, tmp_path / "r")
    assert not list(tmp_path.glob("r*"))
    assert here == []


def test_case_grid_numbers_thresholds_and_booleans_are_what_a_person_means(grid, here, tmp_path):
    loop = "loop: {loop_norm: no, kl_threshold: 5e-4, loop_damping: 5e-1}"
    grid.write_text(grid.read_text().replace("loop: {loop_damping: 0.5}", loop))
    found = sweep.read_grid(grid)[0].params["loop"]
    assert found == {"loop_norm": False, "kl_threshold": 0.0005, "loop_damping": 0.5}


# -- B7: places --------------------------------------------------------------------------------------------------------


def test_b7_a_file_that_is_no_result_is_left_as_it_is_even_without_a_line_end(grid, here, tmp_path):
    for diary in ("a diary", '{"a": 1}\n', "[1]\n", '"x"'):
        (tmp_path / "r.jsonl").write_text(diary)
        with pytest.raises(ValueError, match="not the results of a sweep"):
            sweep.run(grid, tmp_path / "r")
        assert (tmp_path / "r.jsonl").read_text() == diary


def test_b7_tables_and_results_of_another_task_are_not_written_over(grid, here, tmp_path):
    (tmp_path / "r.csv").write_text("mine")
    with pytest.raises(ValueError, match=r"r\.csv is there already, and not of a sweep; .* --force"):
        sweep.run(grid, tmp_path / "r")
    assert (tmp_path / "r.csv").read_text() == "mine"
    assert here == []
    assert sweep.run(grid, tmp_path / "r", force=True, say=lambda text: None) == 0
    grid.write_text("task: influence\nmodels: [stories-loop]\nparams: {text: Once upon a time}\n")
    with pytest.raises(ValueError, match=r"the results of another task \(perplexity\)"):
        sweep.run(grid, tmp_path / "r")


def test_b7_a_place_that_cannot_be_written_is_refused_before_any_model_is_loaded(grid, here, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "r.parquet").mkdir()
    for out in ("file/r", "r"):
        with pytest.raises(ValueError, match="--out"):
            sweep.run(grid, tmp_path / out)
    assert not sweep._kept


def test_a_model_that_a_device_has_not_room_for_keeps_layers_behind_and_measures_the_same(
    model, grid, here, tmp_path, monkeypatch
):
    from loopviz.model import placing, precision

    assert sweep.run(grid, tmp_path / "whole", say=lambda text: None) == 0
    sweep._kept.clear()
    whole = load_checkpoint(model).model
    needed = precision.weight_bytes(whole) - 1000
    monkeypatch.setattr(placing, "free_bytes", lambda device: needed * placing.SPARE // (placing.SPARE - 1) + 1)
    assert sweep.run(grid, tmp_path / "part", say=lambda text: None) == 0
    (kept,) = sweep._kept.values()
    assert any(weight.is_meta for weight in kept.model.parameters()), "layers stayed behind"
    tables = [pd.read_csv(tmp_path / f"{name}.csv") for name in ("whole", "part")]
    assert tables[0]["nats"].tolist() == pytest.approx(tables[1]["nats"].tolist(), abs=1e-6)
    monkeypatch.setattr(placing, "free_bytes", lambda device: 1000)
    sweep._kept.clear()
    with pytest.raises(ValueError, match=r"the model needs [\d,]+ bytes there"):
        sweep.run(grid, tmp_path / "none", say=lambda text: None)


def test_b7_a_folder_takes_the_results_under_the_grids_name(grid, here, tmp_path, monkeypatch):
    (tmp_path / "results").mkdir()
    assert main.main(["sweep", str(grid), "--out", "results"]) == 0
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == ["grid.csv", "grid.jsonl", "grid.parquet"]
    assert main.main(["sweep", str(grid), "--out", "r.jsonl"]) == 2


def test_b7_a_line_that_the_disk_does_not_take_is_put_elsewhere_and_named(grid, here, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sweep.outputs, "check_file", lambda *args, **options: None)  # it had room when it was asked
    monkeypatch.setattr(sweep.os, "fsync", lambda number: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(ValueError, match=r"r\.jsonl: cannot be written \(No space left on device\); .* is in ") as told:
        sweep.run(grid, tmp_path / "r", say=lambda text: None)
    place = str(told.value).partition("is in ")[2].partition(":")[0]
    assert json.loads(Path(place).read_text("utf-8"))["configuration"] == "own"
    assert (tmp_path / "r.jsonl").read_bytes() == b"", "no half line is left"


# -- B2, B3, B5, B9: real processes ------------------------------------------------------------------------------------

SLOW = """
import os, time
from dataclasses import dataclass
from loopviz.lab import Column, Task, param, register
@dataclass(frozen=True)
class Params:
    text: str = param("", "A text.", "a", kind="text")
def run(subject, params):
    yield {"n": len(params.text)}
    if params.text == "slow":
        open(os.environ["NOTE"], "w").close()
        time.sleep(3600)
register(Task("slow", Params, (Column("n", "", {"en": "n: n", "zh": "n"}),), lambda subject, params: 1, run,
    {"en": {"title": "Slow", "question": "q", "how": "h", "cost": "c"}}))
"""


@pytest.mark.parametrize(
    ("sent", "to_group", "code"),
    [(signal.SIGINT, True, 130), (signal.SIGTERM, False, 143), (signal.SIGKILL, False, -9)],
    ids=["b2 Ctrl-C", "b9 SIGTERM", "b3 kill -9"],
)
def test_a_sweep_that_is_ended_keeps_its_finished_cells_and_leaves_no_process(model, tmp_path, sent, to_group, code):
    (tmp_path / "slow.py").write_text(SLOW)
    texts = "texts: {quick: {text: quick}, slow: {text: slow}}"
    (tmp_path / "grid.yaml").write_text(f"task: slow\nmodels: [{json.dumps(model)}]\n{texts}\n")
    note = tmp_path / "note"
    path = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    command = [sys.executable, "-m", "loopviz", "sweep", "grid.yaml", "--out", "r", "--import", "slow.py"]
    with subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PYTHONPATH": path, "NOTE": str(note)},
    ) as process:  # fmt: skip
        try:
            wait_for(lambda: note.exists() or process.poll() is not None, "the slow cell never began")
            children = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
            (os.killpg if to_group else os.kill)(process.pid, sent)
            told = process.communicate(timeout=60)[1]
        finally:
            process.kill()
    assert process.returncode == code, told
    assert "Traceback" not in told
    if sent != signal.SIGKILL:
        assert "interrupted: 1 of 2 cells finished and kept; run again to go on" in told
    assert children
    for child in children:
        wait_for(lambda child=child: gone(child), "a process outlived the sweep")
    lines = (tmp_path / "r.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["quick"]


def test_a_line_separator_in_a_text_ends_no_line_of_results(tmp_path):
    """Models write U+2028; a sweep could not be resumed after one."""
    line = {"key": "k", "model": "m", "configuration": "c", "text": "t", "error": "odd \u2028 word\x85"}
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps(line, ensure_ascii=False) + "\n", "utf-8")
    assert sweep.read_results(path).finished == {}


# -- L16: two sweeps on one --out ------------------------------------------------------------------------------------------


def test_l16_a_second_sweep_on_one_out_is_told_in_words_and_does_no_work(grid, here, tmp_path):
    told, refused = [], []

    def say(line):
        told.append(line)
        if "1 of 4" in line and not refused:
            with pytest.raises(
                ValueError, match=r"--out .*r\.jsonl: another sweep is writing there \(process \d+ on .*\)"
            ) as error:
                sweep.run(grid, tmp_path / "r", say=told.append)
            refused.append(error)

    assert sweep.run(grid, tmp_path / "r", say=say) == 0
    assert refused
    lines = (tmp_path / "r.jsonl").read_text().splitlines()
    assert len(lines) == len({json.loads(line)["key"] for line in lines}), "no cell was run twice"
    assert not list(tmp_path.glob(".r*")), "the lock has gone with the sweep"
    again = []
    assert sweep.run(grid, tmp_path / "r", say=again.append) == 0
    assert f"{len(lines)} of them finished before" in again[0]


def test_l16_the_lock_of_a_sweep_that_was_killed_binds_nobody(grid, here, tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from loopviz import outputs\n"
        f"with outputs.alone(Path({str(tmp_path / 'r.jsonl')!r}), '--out', 'sweep'): print('has it', flush=True); time.sleep(600)"
    )
    root = str(Path(__file__).parents[2])
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=root)
    try:
        assert holder.stdout.readline() == "has it\n"
        with pytest.raises(ValueError, match=rf"another sweep is writing there \(process {holder.pid} on"):
            sweep.run(grid, tmp_path / "r")
        assert here == []
        assert not (tmp_path / "r.jsonl").exists()
    finally:
        holder.kill()
        holder.wait()
    assert sweep.run(grid, tmp_path / "r", say=lambda line: None) == 0
    assert not list(tmp_path.glob(".r*"))
