"""`python -m loopviz train` and `evaluate`: a model out of a text, its card, and refusals in one line."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import loopviz
from loopviz import text_file
from loopviz.cli import main
from loopviz.model.checkpoints.load import load_checkpoint
from loopviz.train.state import load_state
from loopviz.ttt import load_ttt
from tests.train.small import arrows_recipe, story, text_recipe, ttt_recipe

PLAIN = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
PLAIN |= {"num_key_value_heads": 2, "max_position_embeddings": 32}


@pytest.fixture
def recipe_file(tmp_path):
    def write(recipe):
        path = tmp_path / f"{recipe.name}.json"
        path.write_text(json.dumps(recipe.to_dict()), "utf-8")
        return path

    return write


def run(*arguments) -> int:
    return main.main([str(argument) for argument in arguments])


# What ends a training from outside, each in a process of its own: forks of one that has imported torch once, as that is what
# takes the time. It has no thread but its first.
ENDING = """
import importlib, json, os, pkgutil, resource, signal, sys, traceback
import loopviz.train
for module in pkgutil.iter_modules(loopviz.train.__path__):
    importlib.import_module('loopviz.train.' + module.name)
of_the_page = [m for m in ('gradio', 'plotly', 'loopviz.app', 'loopviz.panels') if m in sys.modules]

from loopviz.cli import main as cli
from loopviz.train.trainer import Trainer
step, save = Trainer._step, Trainer.checkpoint

def interrupted():
    def stop(self):
        if self.progress.step == 4: os.kill(os.getpid(), signal.SIGINT)
        return step(self)
    Trainer._step = stop

def full():
    def limited(self):
        if self.progress.step == 4: resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
        save(self)
    Trainer.checkpoint = limited

def told_to_end():
    def stop(self):
        if self.progress.step == 2: [os.kill(os.getpid(), signal.SIGTERM) for _ in range(2)]
        return step(self)
    Trainer._step = stop

def train(ending, arguments):
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(ending.__name__ + '.err', os.O_WRONLY | os.O_CREAT), 2)
        ending()
        sys.exit(cli.main(arguments))
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)

asked = json.loads(sys.argv[1])
codes = {ending.__name__: train(ending, asked[ending.__name__]) for ending in (interrupted, full, told_to_end)}
print(json.dumps({'of_the_page': of_the_page, 'codes': codes}))
"""


@dataclass(frozen=True)
class Ended:
    """A training that was ended: its command, its exit code and what it said."""

    command: list[str]
    code: int
    stderr: str
    out: Path


@pytest.fixture(scope="module")
def endings(tmp_path_factory):
    """`Ended` by what ended it, and `of_the_page`: what training alone had imported of the page."""
    folder = tmp_path_factory.mktemp("endings")
    data = story(folder / "t.txt")
    commands = {}
    for name, recipe in (("interrupted", text_recipe()), ("full", arrows_recipe()), ("told_to_end", arrows_recipe())):
        path, out = folder / f"{name}.json", folder / name
        path.write_text(json.dumps(recipe.to_dict()), "utf-8")
        commands[name] = [
            "train",
            str(path),
            *(["--data", str(data)] if name == "interrupted" else []),
            "--out",
            str(out),
        ]
    alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    root = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", ENDING, json.dumps(commands)],
        cwd=folder,
        env={**os.environ, **alone, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    found = {
        name: Ended(command, said["codes"][name], (folder / f"{name}.err").read_text("utf-8"), folder / name)
        for name, command in commands.items()
    }
    return {**found, "of_the_page": said["of_the_page"]}


def test_a_finished_run_resumed_is_saved_anew_as_it_is_to_be_used(tmp_path, recipe_file, capfd):
    """What a model is used with can be settled after training, and so can the card's words."""
    out, recipe = tmp_path / "model", arrows_recipe()
    assert run("train", recipe_file(recipe), "--out", out, "--threads", 1) == 0
    before = load_checkpoint(out).model
    use = {"loop_strategy": "dynamic_stop", "max_loop_count": 9}
    changed = recipe_file(recipe.with_values({"use": use, "notes": "Another word."}))
    assert run("train", changed, "--out", out, "--threads", 1, "--resume") == 0
    after = load_checkpoint(out).model
    assert (after.config.loop_strategy, after.config.max_loop_count) == ("dynamic_stop", 9)
    assert before.config.loop_strategy == "fixed_count"
    for name, weight in before.state_dict().items():
        assert torch.equal(weight, after.state_dict()[name])
    assert "Another word." in (out / "README.md").read_text("utf-8")
    wrong = recipe_file(recipe.with_values({"use": {"hidden_size": 8}}))
    assert run("train", wrong, "--out", out, "--resume") == 2
    assert "use.hidden_size=8: not a loop field" in capfd.readouterr().err


def test_train_makes_a_folder_that_loads_and_evaluate_says_what_the_card_says(tmp_path, recipe_file, capfd):
    recipe, data = recipe_file(text_recipe()), story(tmp_path / "t.txt")
    held = story(tmp_path / "h.txt", seed=5, documents=8)  # read whole for each table, by every number of loops
    out = tmp_path / "deep" / "model"
    arguments = ["train", recipe, "--data", data, "--held-out", held, "--out", out, "--threads", 1]
    assert run(*arguments, "--set", "save_dtype=float16", "--data-note", "Made up; CC0-1.0.", "--license", "MIT") == 0
    table = capfd.readouterr().out
    loaded = load_checkpoint(out)
    assert loaded.stored == "F16"
    assert loaded.model.config.loop_count == 3, "the last draw of training was saved instead of the recipe's count"
    assert loaded.model.config.loop_layers == (0, 1)
    assert loaded.model.generation_config.eos_token_id == loaded.tokenizer.eos_token_id == 0
    card, results = (out / "README.md").read_text("utf-8"), json.loads((out / "results.json").read_text("utf-8"))
    assert table.strip() in card
    for part in (
        "--set save_dtype=float16",
        "--data t.txt --held-out h.txt",
        "Made up; CC0-1.0.",
        "9 steps, 144 tokens",
    ):
        assert part in card
    assert card.startswith("---\nlicense: mit\n")
    assert "licence of these weights: MIT" in card
    assert str(tmp_path) not in card
    assert [moment["step"] for moment in results["history"]] == [3, 6, 9]
    with (out / "run" / "train.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert results["history"][1]["train_loss"] == pytest.approx(sum(losses[:6]) / 6)
    with (out / "run" / "evaluation.csv").open() as file:
        last = [float(row["value"]) for row in csv.DictReader(file) if row["step"] == "9" and row["metric"] == "loss"]
    assert results["history"][-1]["held_out"] == min(last)
    assert results["parameters"] == sum(p.numel() for p in loaded.model.parameters())
    assert results["result"]["loops"] == [1, 2, 4]
    assert run("evaluate", out, "--data", held, "--json", tmp_path / "e.json") == 0
    assert capfd.readouterr().out == table
    assert json.loads((tmp_path / "e.json").read_text("utf-8")) == results["result"]
    assert run(*arguments, "--resume", "--set", "save_dtype=float16", "--beside", out) == 0
    again = (out / "README.md").read_text("utf-8")
    assert again.count(table.strip()) == 2, "a model beside itself has the same table twice"
    assert "### Beside it: small" in again
    capfd.readouterr()
    assert run(*arguments, "--resume", "--beside", tmp_path) == 2
    assert "not a finished model of train" in capfd.readouterr().err
    assert run("evaluate", out, "--data", held, "--loops", "1,3", "--length", 4) == 0
    assert "| loops | 1 | 3 |" in capfd.readouterr().out
    assert run(*arguments) == 2
    assert "a run is in this folder already" in capfd.readouterr().err


def test_a_ttt_model_and_what_it_makes_of_its_context(tmp_path, recipe_file, capfd):
    """Its card says what `evaluate` says, by place in the context, with and without its inner loop; and so beside another."""
    data, held, out, plain = (tmp_path / name for name in ("t.txt", "h.txt", "model", "plain"))
    story(data)
    story(held, seed=5, documents=8)
    where = ["--data", data, "--held-out", held, "--threads", 1]
    control = ttt_recipe().with_values({"name": "control", "model_type": "loop_llama", "model": PLAIN})
    assert run("train", recipe_file(control), *where, "--out", plain) == 0
    assert run("train", recipe_file(ttt_recipe()), *where, "--out", out, "--beside", plain) == 0
    said, card = capfd.readouterr().out, (out / "README.md").read_text("utf-8")
    assert isinstance(load_ttt(out).model.config.mini_batch_size, int)
    for part in ("import loopviz.ttt", "  - ttt\n", "By place in the context:", "### Beside it: control"):
        assert part in card
    assert card.count("| tokens read |") == 2, "its own table and the control's"
    assert run("evaluate", out, "--data", held) == 0
    assert capfd.readouterr().out in said
    assert run("evaluate", out, "--data", held, "--by-position", "8,40", "--json", tmp_path / "e.json") == 0
    rows = capfd.readouterr().out.splitlines()
    assert [row for row in rows if row.startswith("|") and row not in said.splitlines()] == []
    results = json.loads((out / "results.json").read_text("utf-8"))
    assert results["positions"][:2] == json.loads((tmp_path / "e.json").read_text("utf-8"))["positions"]
    off = ["--by-position", "8", "--inner-lr", 0, "--json", tmp_path / "e.json"]
    assert run("evaluate", out, "--data", held, *off) == 0
    assert "windows of 8, inner learning rate × 0" in capfd.readouterr().out
    assert results["positions"][2:] == json.loads((tmp_path / "e.json").read_text("utf-8"))["positions"]
    assert run("evaluate", plain, "--data", held, "--by-position", "40") == 0, "beyond its context of 32"
    assert "windows of 40" in capfd.readouterr().out
    assert run("evaluate", out, "--data", held, "--length", "64") == 0, "a TTT model has no longest context"
    assert "looking back at 32 to 64 tokens" in capfd.readouterr().out
    assert run("eval", "perplexity", "--model", out, "--text", "the cat sat", "--out", tmp_path / "rows") == 2
    assert "a TTT model, and this measures loops" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--by-position", "8,4"], "--by-position 8,4: must be ascending"),
        (["--by-position", "8", "--loops", "2"], "--loops: --by-position names its windows"),
        (["--by-position", "8", "--length", "16"], "--length: --by-position names its windows"),
        (["--inner-lr", "0"], "--inner-lr 0.0: is measured by place"),
        (["--by-position", "8", "--inner-lr", "-1"], "--inner-lr=-1.0"),
        (["--by-position", "8", "--inner-lr", "0.5"], "only a TTT model has an inner learning rate"),
    ],
)
def test_options_by_place_that_do_not_go_together(options, told, tmp_path, capfd):
    assert run("evaluate", "stories-loop", "--data", story(tmp_path / "t.txt"), *options) == 2
    assert told in capfd.readouterr().err


def test_a_task_without_a_text_has_no_place_in_a_context(capfd):
    assert run("evaluate", "arrows-loop", "--by-position", "8") == 2
    assert "--by-position: this model's task is 'arrows'" in capfd.readouterr().err


def test_an_interrupted_run_is_resumed_by_the_same_command(tmp_path, endings):
    torn = endings["interrupted"]
    assert torn.code == 130, torn.stderr
    assert not (torn.out / "README.md").exists()
    assert run(*torn.command, "--resume") == 0
    assert run(*torn.command[:-1], tmp_path / "whole") == 0
    one, other = load_checkpoint(torn.out).model, load_checkpoint(tmp_path / "whole").model
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_arrows(tmp_path, recipe_file, capfd):
    out = tmp_path / "m"
    assert run("train", recipe_file(arrows_recipe()), "--out", out) == 0
    table = capfd.readouterr().out
    assert "dynamic stop: mean loops" in table
    assert table.strip() in (out / "README.md").read_text("utf-8")
    assert run("evaluate", out) == 0
    assert capfd.readouterr().out == table
    assert load_checkpoint(out).tokenizer("a>b a? b").input_ids[-1] == 3


def test_glassbox(tmp_path, capfd):
    out = tmp_path / "g"
    assert run("train", "glassbox", "--out", out) == 0
    table = capfd.readouterr().out
    assert "| rate | 0.75 |" in table
    assert run("evaluate", out) == 0
    assert capfd.readouterr().out == table
    assert table.strip() in (out / "README.md").read_text("utf-8")


BUNDLED = Path(loopviz.__file__).parents[1] / "assets" / "models"


@pytest.mark.parametrize(
    ("name", "more"),
    [("stories-loop", ["--data", "held.txt", "--loops", "1,2"]), ("glassbox", ["--loops", "2"])],
)
def test_a_bundled_name_is_measured_as_its_folder_is(name, more, tmp_path, monkeypatch, capfd):
    """The recipe's windows too: a name was measured with half the look-back of its folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "held.txt").write_text("Once upon a time there was a little dog. She ran to the park. " * 30, "utf-8")
    assert run("evaluate", BUNDLED / name, *more) == 0
    table = capfd.readouterr().out
    assert run("evaluate", name, *more) == 0
    assert capfd.readouterr().out == table
    if name == "stories-loop":
        assert "looking back at 128 to 256 tokens" in table


def test_a_bundled_name_whose_task_makes_its_own_data_needs_none(capfd):
    assert run("evaluate", "arrows-loop", "--data", "x") == 2
    assert "this model's task is 'arrows'" in capfd.readouterr().err


def test_a_held_out_text_from_stdin_is_measured_as_the_file_is(tmp_path, capfd, monkeypatch):
    text = b"Once upon a time there was a little dog.\r\n<|endoftext|>\r\nShe ran to the park.\r\n"
    (tmp_path / "held.txt").write_bytes(b"\xef\xbb\xbf" + text)
    assert run("evaluate", "stories-loop", "--data", tmp_path / "held.txt", "--loops", "1") == 0
    table = capfd.readouterr().out
    text_file._stdin.cache_clear()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
    assert run("evaluate", "stories-loop", "--data", "-", "--loops", "1") == 0
    assert capfd.readouterr().out == table
    text_file._stdin.cache_clear()


def test_a_window_longer_than_the_context_is_refused(tmp_path, capfd):
    (tmp_path / "held.txt").write_text("Once upon a time there was a dog.", "utf-8")
    assert run("evaluate", "stories-loop", "--data", tmp_path / "held.txt", "--length", 257) == 2
    assert "--length 257: the model's context is 256 tokens; give a shorter one" in capfd.readouterr().err


@pytest.mark.parametrize("more", [["--data", "x"], []])
def test_a_model_that_is_not_there_is_what_is_refused(more, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert run("evaluate", "nowhere", *more) == 2
    assert "'nowhere': no such file or folder" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["train", "stories-loop", "--out", "o"], "--data: recipe 'stories-loop' needs a text file"),
        (["train", "nothing", "--out", "o"], "recipe='nothing': neither a file nor one of"),
        (["train", "arrows-loop", "--out", "o", "--data", "x"], "--data: recipe 'arrows-loop' makes its own data"),
        (["train", "stories-loop", "--out", "o", "--data", "x"], "x: there is no such file"),
        (["train", "stories-loop", "--out", "o", "--data", "-"], "--data -: training reads its text more than once"),
        (
            ["train", "stories-loop", "--out", "o", "--data", __file__, "--held-out", "-"],
            "--held-out -: training reads",
        ),
        (["train", "arrows-loop", "--out", "o", "--set", "batch"], "--set batch: write FIELD=VALUE"),
        (["train", "arrows-loop", "--out", "o", "--set", "batch=0"], "batch=0: must be >= 1"),
        (["train", "arrows-loop", "--out", "o", "--set", "model.hidden=1"], "model.hidden=1: not a field"),
        (["train", "glassbox", "--out", "o", "--resume"], "--resume: glassbox is built, not trained"),
        (["evaluate", "."], "--data: give a held-out text"),
        (["evaluate", ".", "--data", "x", "--loops", "3,1"], "--loops 3,1: must be ascending"),
    ],
)
def test_refusals_are_one_line_and_leave_nothing(arguments, told, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    error = capfd.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_help_and_refusals_need_no_heavy_import():
    code = (
        "import sys; from loopviz.cli import main as cli\n"
        "cli.main(['train', 'nothing', '--out', 'o'])\n"
        "cli._parser().format_help()\n"
        "print([m for m in ('torch', 'transformers', 'numpy', 'gradio', 'plotly', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_training_never_imports_the_page(endings):
    assert endings["of_the_page"] == []


# -- issue 10 ----------------------------------------------------------------------------------------------------------


def test_b7_a_folder_that_holds_something_else_is_not_trained_over(tmp_path, recipe_file, capfd):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "README.md").write_text("mine")
    (tmp_path / "file").write_text("")
    recipe = recipe_file(arrows_recipe())
    for out, says in (
        ("notes", "README.md is there already"),
        ("file", "is a file; name a folder"),
        ("file/x", "no folder"),
    ):
        assert run("train", recipe, "--out", tmp_path / out) == 2
        assert says in capfd.readouterr().err
    assert run("train", "glassbox", "--out", tmp_path / "notes") == 2
    assert (tmp_path / "notes" / "README.md").read_text() == "mine"
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["README.md"]
    assert run("evaluate", "glassbox", "--json", tmp_path / "no" / "x") == 2
    assert "--json" in capfd.readouterr().err


def test_b8_a_full_disk_ends_training_in_one_line_and_leaves_the_last_whole_checkpoint(endings):
    """The system's own limit on a file's size stands for a full disk."""
    done = endings["full"]
    assert done.code == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("loopviz: ")
    assert "checkpoint.pt: cannot be written (File too large)" in done.stderr
    assert "Traceback" not in done.stderr
    assert load_state(done.out / "run" / "checkpoint.pt")["progress"]["step"] == 2
    assert not list(done.out.rglob("*.part"))


def test_b9_sigterm_keeps_the_run_and_exits_143(endings):
    done = endings["told_to_end"]
    assert done.code == 143, done.stderr
    assert load_state(done.out / "run" / "checkpoint.pt")["progress"]["step"] == 3


def test_a_finished_run_is_prolonged_only_where_that_is_what_a_longer_run_had_been(tmp_path, recipe_file, capfd):
    """A rate that does not fall does not know how long the run will be."""
    data = story(tmp_path / "t.txt")
    constant = text_recipe(**{"schedule.final": 1.0, "steps": 6})
    ends = {}
    for name, steps in (("short", 6), ("long", 9)):
        recipe = recipe_file(constant.with_values({"steps": steps}))
        assert run("train", recipe, "--data", data, "--out", tmp_path / name) == 0
    short = recipe_file(constant)
    assert run("train", short, "--data", data, "--out", tmp_path / "short", "--set", "steps=9", "--resume") == 0
    ends = [load_checkpoint(tmp_path / name).model.state_dict() for name in ("short", "long")]
    assert all(torch.equal(weight, ends[1][name]) for name, weight in ends[0].items())

    capfd.readouterr()
    assert run("train", short, "--data", data, "--out", tmp_path / "short", "--set", "steps=5", "--resume") == 2
    assert "steps=5: the run in this folder has steps=9 and has done 9" in capfd.readouterr().err
    falling = recipe_file(text_recipe())
    assert run("train", falling, "--data", data, "--out", tmp_path / "falls") == 0
    capfd.readouterr()
    assert run("train", falling, "--data", data, "--out", tmp_path / "falls", "--set", "steps=12", "--resume") == 2
    told = capfd.readouterr().err
    assert "the learning rate (trapezoid) of the 9 steps done depends on that" in told
    assert "train into another folder with steps=12" in told


def test_l16_a_second_training_in_one_folder_is_told_in_words(tmp_path, recipe_file, capfd):
    from loopviz import outputs

    recipe, out = recipe_file(arrows_recipe()), tmp_path / "m"
    with outputs.alone(out / "run" / "checkpoint.pt", "--out", "training"):
        assert run("train", recipe, "--out", out) == 2
    error = capfd.readouterr().err
    assert "another training is writing there (process" in error
    assert error.count("\n") == 1
    assert list(tmp_path.rglob("*checkpoint*")) == []
    assert not out.exists()
