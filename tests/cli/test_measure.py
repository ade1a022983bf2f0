"""`python -m loopviz eval`: a table, what repeats it, and refusals in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

import pandas as pd
import pytest

from loopviz import outputs, signals
from loopviz.cli import main, measure
from loopviz.lab import MODULES
from loopviz.lab.experiment import Experiment, repeat
from loopviz.lab.task import Subject
from loopviz.lab.tasks import perplexity
from loopviz.lab.tasks.perplexity import PERPLEXITY, PerplexityParams
from loopviz.model.checkpoints.load import load_checkpoint
from tests.lab.small import TEXT, save


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save(tmp_path_factory.mktemp("tiny model"), loop_count=2)


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "t.txt").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments) -> int:
    return main.main(["eval", *map(str, arguments)])


SMALL = ("--limit-tokens", 30, "--window", 5, "--batch", 3, "--overlap", 0, "--file", "t.txt")


def test_eval_measures_prints_and_saves_and_its_manifest_repeats_it(model, here, capfd):
    loop = ("--loop-count", 3, "--virtual-attention-mode", "serial")
    options = (*SMALL, "--loops", "1,4", "--loop", '{"loop_layers": [1, 1]}', *loop, "--draws", 50, "--threads", 1)
    assert run("perplexity", "--model", model, *options, "--out", "new/p") == 0
    out, err = capfd.readouterr()
    params = PerplexityParams(
        file="t.txt",
        limit_tokens=30,
        window=5,
        batch=3,
        overlap=0,
        loops=(1, 4),
        draws=50,
        loop={"loop_layers": [1, 1], "loop_count": 3, "virtual_attention_mode": "serial"},
    )
    expected = Experiment(PERPLEXITY, Subject.of(load_checkpoint(model)), params).run().frame
    found = pd.read_csv("new/p.csv")
    pd.testing.assert_frame_equal(found.drop(columns="seconds"), expected.drop(columns="seconds"), check_dtype=False)
    assert len(out.splitlines()) == 5
    assert f"{expected['perplexity'][0]:.6g}" in out
    assert expected["low"].notna().all()  # six windows
    assert "perplexity: 4 of 4 rows" in err
    manifest = json.loads((here / "new/p.json").read_text("utf-8"))
    assert manifest["command"].startswith("python -m loopviz eval perplexity --model ")
    assert manifest["machine"]["threads"] == 1
    assert (manifest["complete"], manifest["rows"]) == (True, 4)

    assert run("--from", "new/p.json", "--out", "again") == 0
    again = pd.read_parquet("again.parquet")
    pd.testing.assert_frame_equal(
        again.drop(columns="seconds"), pd.read_parquet("new/p.parquet").drop(columns="seconds")
    )
    os.rename("t.txt", "moved.txt")
    capfd.readouterr()
    assert run("--from", "new/p.json") == 2
    assert "t.txt: cannot be read" in capfd.readouterr().err
    assert run("--from=new/p.json", "--file", "moved.txt", "--model", model) == 0
    (here / "moved.txt").write_text("another text")
    assert run("--from", "new/p.json", "--file", "moved.txt") == 2
    assert "not the text that was measured" in capfd.readouterr().err


def test_an_empty_cell_is_printed_empty(model, here, capfd):
    """Whatever its column holds: texts, whole numbers, numbers."""
    options = (*SMALL, "--modes", "serial,last", "--slots", "1,2", "--loop-layers", "1-2")
    assert run("ablation", "--model", model, *options) == 0
    out = capfd.readouterr().out
    assert "None" not in out
    assert "NaN" not in out
    assert "<NA>" not in out
    assert [line.split()[:3] for line in out.splitlines()[1:]] == [
        ["serial", "1", "2"],
        ["serial", "2", "2"],
        ["last", "2", "2"],
    ]


def test_the_model_without_its_loop(model, here, capfd):
    assert run("perplexity", "--model", model, *SMALL, "--loop", "null", "--paths", "full") == 0
    assert len(capfd.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("perplexity", "--loops", "0"), r"loops=(0,): must be ascending"),
        (("perplexity", "--text", "a"), "both are given"),
        (("perplexity", "--loop", '{"loop_count": 0}'), "loop_count=0"),
        (("perplexity", "--loop", "null", "--loop-count", "2"), "--loop null, --loop-count: without a loop"),
        (("perplexity", "--window", "1000"), "window=1000: the model's context is 128"),
        (("perplexity", "--threads", "0"), "--threads 0"),
        (("perplexity", "--out", "x.csv"), "--out x.csv: give the name without an ending"),
        (("ablation", "--loop", '{"loop_layers": null}'), "nothing loops"),
    ],
)
def test_a_refusal_is_one_line(model, here, capfd, arguments, says):
    task, *options = arguments
    assert run(task, "--model", model, "--file", "t.txt", "--limit-tokens", 12, *options) == 2
    out, err = capfd.readouterr()
    assert says in err
    assert err.count("\n") == 1
    assert out == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("smell",),
        ("perplexity",),
        ("perplexity", "--model", "x", "--loops", "one"),
        ("perplexity", "--model", "x", "--limit", "3"),
        ("perplexity", "--model", "x", "--loop", "[1]"),
        (),
    ],
)
def test_malformed_options_are_refused_before_anything_is_loaded(capfd, arguments):
    with pytest.raises(SystemExit) as refused:
        run(*arguments)
    assert refused.value.code == 2
    assert capfd.readouterr().out == ""


def test_help_names_tasks_and_parameters(capfd):
    with pytest.raises(SystemExit) as shown:
        run("--help")
    assert shown.value.code == 0
    assert "Perplexity by loops" in capfd.readouterr().out
    with pytest.raises(SystemExit):
        run("ablation", "-h")
    text = " ".join(capfd.readouterr().out.split())
    for part in ("--alphas", "(default: 0.3,0.5,0.7,0.9)", "--loop-layers", "95 %", "Cost:"):
        assert part in text


@pytest.mark.parametrize(
    ("text", "hint", "value"),
    [
        ("1,2", tuple[int, ...], [1, 2]),
        ('["a, b", "c"]', tuple[str, ...], ["a, b", "c"]),
        ("", tuple[str, ...], []),
        ("none", int | None, None),
        ("3", int | None, 3),
        ("1e-3", float, 0.001),
        ("no", bool, False),
        ('[{"loop_count": 2}, null]', tuple[dict | None, ...], [{"loop_count": 2}, None]),
    ],
)
def test_values(text, hint, value):
    assert measure.read_value(text, hint) == value


def test_ctrl_c_keeps_what_is_finished(model, here, capfd, monkeypatch):
    row = perplexity._row

    def stop(path, model, count, *rest):
        if (path, count) == ("cache", 2):
            raise KeyboardInterrupt
        return row(path, model, count, *rest)

    monkeypatch.setattr(perplexity, "_row", stop)
    assert run("perplexity", "--model", model, "--loops", "1,2,3", "--out", "part", *SMALL) == 130
    out, err = capfd.readouterr()
    assert "interrupted: 4 of 6 rows" in err
    assert len(out.splitlines()) == 5
    table = pd.read_csv("part.csv")
    assert table[["path", "loops"]].to_numpy().tolist() == [["full", 1], ["full", 2], ["full", 3], ["cache", 1]]
    assert json.loads((here / "part.json").read_text("utf-8"))["complete"] is False


def test_help_of_the_whole_needs_no_heavy_import():
    code = (
        "import sys; from loopviz.cli import main as cli\n"
        "cli._parser().format_help()\n"
        "print([m for m in ('torch', 'transformers', 'numpy', 'pandas', 'plotly', 'yaml', 'ray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_table_of_every_token_is_summed_up_and_a_log_has_a_line_a_tenth(model, here, capfd):
    """`loop_use` printed a row a token, and told a log as often."""
    loop = ("--loop", '{"loop_strategy": "dynamic_stop", "kv_cache_mode": "merge_strategy"}')
    options = ("--model", model, "--limit-tokens", 60, "--window", 20, "--file", "t.txt", *loop)
    assert run("loop_use", *options) == 0
    out, err = capfd.readouterr()
    head, *rows = out.splitlines()
    assert head.split()[:5] == ["block", "class", "tokens", "mean_loops", "error"]
    assert rows[-1].split()[:3] == ["0", "all", "60"]
    told = [line for line in err.splitlines() if line.startswith("loop_use: ")]
    assert 1 <= len(told) <= 10
    assert told[-1].startswith("loop_use: 60 of 60 rows")
    assert "60 rows, summed up here; --out STEM keeps each of them" in err
    assert run("loop_use", *options, "--out", "all") == 0
    assert capfd.readouterr().out == out
    assert len(pd.read_csv("all.csv")) == 60


def test_a_log_is_told_again_after_some_seconds_of_work_without_a_row(monkeypatch):
    class Slow:
        task, done, total, seconds, eta, share = PERPLEXITY, 0, 9, 1.0, None, 0.0

    clock = iter([0.0, 1.0, 11.0, 12.0])
    monkeypatch.setattr(measure.time, "monotonic", lambda: next(clock))
    progress = measure._Progress(Slow())
    told = []
    progress.say = told.append
    for _ in range(3):
        progress.update(False)
    assert told == ["perplexity: 0 of 9 rows, 1 s"]


# -- issue 10 ----------------------------------------------------------------------------------------------------------


def test_titles_are_the_tasks_own():
    """`eval --help` says them without importing the tasks."""
    from loopviz.lab import TASKS, TITLES

    own = {name: task.words["en"]["title"] for name, task in TASKS.items() if name in TITLES}
    assert own == TITLES
    assert {module.__name__ for module in map(_module_of, TITLES)} <= {f"loopviz.lab.tasks.{name}" for name in MODULES}


def _module_of(name):
    from loopviz.lab import TASKS

    return sys.modules[TASKS[name].run.__module__]


def test_help_of_eval_does_not_wait_for_torch():
    code = (
        "import sys; from loopviz.cli import main as cli\n"
        "for a in (['eval', '--help'], ['eval'], ['eval', 'smell']):\n"
        "    try: cli.main(a)\n"
        "    except SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Perplexity by loops" in done.stdout
    assert "loop_use" in done.stdout
    assert "invalid choice: 'smell'" in done.stderr


def test_a_tasks_name_may_be_written_with_a_dash(model, here, capfd):
    assert run("loop-use", "--model", model, "--file", "t.txt", "--window", 0) == 2
    assert "window=0" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("out", "says"),
    [
        ("t.txt/p", "t.txt is a file, no folder"),
        ("made", "--out made.csv: is a folder"),
        ("/dev/null/p", "--out /dev/null/p.csv"),
    ],
)
def test_b7_a_place_that_cannot_be_written_is_refused_before_a_model_is_loaded(here, capfd, monkeypatch, out, says):
    monkeypatch.setattr(measure, "load", lambda *_: pytest.fail("a model was loaded"))
    (here / "made.csv").mkdir()
    assert run("perplexity", "--model", "m", *SMALL, "--out", out) == 2
    assert says in capfd.readouterr().err
    with pytest.raises(SystemExit):
        run("perplexity", "--model", "m", *SMALL, "--out", "")
    assert "--out: empty" in capfd.readouterr().err
    assert sorted(path.name for path in here.iterdir()) == ["made.csv", "t.txt"]


def test_b7_a_folder_takes_the_table_under_the_tasks_name_and_says_so(model, here, capfd):
    (here / "results").mkdir()
    for out, place in (("results", "results"), ("new/", "new")):
        assert run("perplexity", "--model", model, *SMALL, "--loops", 1, "--paths", "full", "--out", out) == 0
        assert f"saved: {place}/perplexity.csv" in capfd.readouterr().err
        assert (here / place / "perplexity.json").is_file()
    assert not (here / "results.csv").exists()


def test_b7_another_tasks_table_is_not_written_over_without_asking(model, here, capfd):
    options = ("--model", model, *SMALL, "--loops", 1, "--paths", "full", "--out", "p")
    assert run("perplexity", *options) == 0
    assert run("perplexity", *options) == 0, "its own may be made anew"
    influence = ("influence", "--model", model, "--file", "t.txt", "--limit-tokens", 12, "--window", 6, "--out", "p")
    before = (here / "p.csv").read_bytes()
    capfd.readouterr()
    assert run(*influence) == 2
    assert "p.csv is there already, of another task (perplexity)" in capfd.readouterr().err
    assert (here / "p.csv").read_bytes() == before
    assert run(*influence, "--force") == 0
    (here / "q.csv").write_text("mine")
    assert run("perplexity", *options[:-1], "q") == 2
    assert (here / "q.csv").read_text() == "mine"
    (here / "s.jsonl").write_text("")
    (here / "s.csv").write_text("of a sweep")
    assert run("perplexity", *options[:-1], "s") == 2
    assert "made by a sweep (s.jsonl)" in capfd.readouterr().err


def test_b7_the_table_is_printed_before_it_is_saved_and_is_put_elsewhere_when_it_cannot_be(
    model, here, capfd, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(here))
    save = Experiment.save

    def full(self, stem):
        if "loopviz-rescued" not in str(stem):
            raise outputs.OutputError(f"{stem}.csv: cannot be written (No space left on device)")
        return save(self, stem)

    monkeypatch.setattr(Experiment, "save", full)
    monkeypatch.setattr(measure, "SAVE_EVERY", -1.0)  # also while it runs, where it must not end the work
    assert run("perplexity", "--model", model, *SMALL, "--loops", "1,2", "--paths", "full", "--out", "p") == 2
    out, err = capfd.readouterr()
    assert len(out.splitlines()) == 3
    assert err.splitlines()[-1].startswith("loopviz: --out p.csv: cannot be written (No space left on device)")
    place = err.splitlines()[-1].partition("and in ")[2].partition(".csv")[0]
    assert len(pd.read_csv(f"{place}.csv")) == 2


@pytest.mark.parametrize("error", [signals.Terminated(15), RuntimeError("not enough memory: you tried to allocate")])
def test_b9_whatever_ends_a_measurement_its_rows_are_printed_and_kept(model, here, capfd, monkeypatch, error):
    row = perplexity._row

    def stop(path, model, count, *rest):
        if count == 2:
            raise error
        return row(path, model, count, *rest)

    monkeypatch.setattr(perplexity, "_row", stop)
    code = run("perplexity", "--model", model, "--loops", "1,2", "--paths", "full", "--out", "part", *SMALL)
    assert code == (143 if isinstance(error, KeyboardInterrupt) else 2)
    out, err = capfd.readouterr()
    assert len(out.splitlines()) == 2
    assert len(pd.read_csv("part.csv")) == 1
    assert ("interrupted: 1 of 2 rows" in err) == isinstance(error, KeyboardInterrupt)
    assert ("loopviz: not enough memory" in err) != isinstance(error, KeyboardInterrupt)


def test_b5_a_task_of_ones_own_is_known_after_import(model, here, capfd):
    from loopviz.lab.task import TASKS
    from tests.lab.test_sweep import SLOW

    (here / "slow_task.py").write_text(SLOW)
    try:
        assert run("slow", "--model", model, "--text", "quick", "--import", "slow_task.py") == 0
        assert capfd.readouterr().out.split() == ["n", "5"]
        with pytest.raises(SystemExit):
            run("--import", "slow_task.py", "--help")
        assert "slow" in capfd.readouterr().out
    finally:
        TASKS.pop("slow", None)


@pytest.mark.parametrize(
    ("task", "loop", "idle"),
    [
        ("perplexity", ("--kl-threshold", "0.1"), "--kl-threshold: no effect without --loop-strategy dynamic_stop"),
        (
            "perplexity",
            ("--merge-strategy", "last"),
            "--merge-strategy: no effect without --kv-cache-mode merge_strategy",
        ),
        ("perplexity", ("--loop", '{"min_loop_count": 2}'), "--min-loop-count: no effect without --loop-strategy"),
        ("ablation", ("--layer-threshold", "0.5"), "--layer-threshold: no effect without --layer-chooser"),
        ("perplexity", ("--loop-damping", "0.5"), ""),
        ("ablation", ("--merge-ema-alpha", "0.5"), ""),
        ("exits", ("--min-loop-count", "1"), ""),
    ],
)
def test_c4_loop_fields_that_do_nothing_are_told(model, here, monkeypatch, capfd, task, loop, idle):
    """C4: an option that the configuration does not use was taken in silence."""
    monkeypatch.setattr(measure, "_finish", lambda experiment, out: 0)  # what is said before the work
    assert run(task, "--model", model, "--file", "t.txt", "--limit-tokens", 12, *loop) == 0
    said = [line for line in capfd.readouterr().err.splitlines() if "no effect" in line]
    assert len(said) == bool(idle)
    assert idle in "".join(said)


def test_the_tasks_stand_in_one_order_whatever_was_imported_first() -> None:
    """Who had compared before saw the Lab open on another measurement than the one it offers first."""
    said = "import loopviz.lab.tasks.quality, loopviz.lab.tasks.compare; from loopviz.lab import TASKS, TITLES; assert [*TASKS] == [*TITLES], [*TASKS]"
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_manifest_says_the_precision_and_repeats_in_it(model, here, capfd):
    assert run("perplexity", "--model", model, *SMALL, "--loops", "1,2", "--precision", "int8", "--out", "i") == 0
    manifest = json.loads((here / "i.json").read_text())
    assert manifest["model"]["dtype"] == "int8"
    first = pd.read_csv("i.csv").drop(columns="seconds")
    assert run("--from", "i.json", "--out", "again") == 0
    pd.testing.assert_frame_equal(pd.read_csv("again.csv").drop(columns="seconds"), first)
    assert run("perplexity", "--model", model, *SMALL, "--loops", "1,2", "--out", "e") == 0
    assert json.loads((here / "e.json").read_text())["model"]["digest"] != manifest["model"]["digest"]
    assert not pd.read_csv("e.csv")["nats"].equals(first["nats"])


def test_a_measurement_that_names_no_precision_is_exact_on_any_machine(model, here, monkeypatch):
    from loopviz.model.checkpoints import precision_choice

    monkeypatch.setattr(precision_choice, "times_of", lambda config: pytest.fail("measured"))
    monkeypatch.setattr(precision_choice, "SMALL", 0)
    assert run("perplexity", "--model", model, *SMALL, "--loops", "1,2", "--out", "e") == 0
    assert json.loads((here / "e.json").read_text())["model"]["dtype"] == "float32"


def test_a_manifest_says_the_quantization_and_repeats_in_it(model, here, capfd):
    pytest.importorskip("bitsandbytes", reason="optional: pip install 'loopviz[bnb]'")
    assert run("perplexity", "--model", model, *SMALL, "--loops", "1,2", "--quantization", "nf4", "--out", "i") == 0
    manifest = json.loads((here / "i.json").read_text())
    assert (manifest["model"]["dtype"], manifest["model"]["quantization"]) == ("float32", "nf4")
    first = pd.read_csv("i.csv").drop(columns="seconds")
    assert run("--from", "i.json", "--out", "again") == 0
    pd.testing.assert_frame_equal(pd.read_csv("again.csv").drop(columns="seconds"), first)
    assert repeat(manifest).subject.digest == manifest["model"]["digest"]


def test_a_ttt_model_is_not_packed(here, capfd):
    assert run("perplexity", "--model", "stories-ttt", *SMALL, "--quantization", "nf4") == 2
    assert "--quantization nf4: stories-ttt is a TTT model" in capfd.readouterr().err
