"""B8: every option of every command is given bad and odd values; each ends in a refusal of one line, or in work.

The options are found by walking over the parsers, so that a new one is tried the day it is added. Models are not loaded, and
nothing is trained: what is tried is the parsing, and every check before the work.
"""

from __future__ import annotations

import argparse
import functools
import traceback
from collections.abc import Iterator

import pytest

from loopviz.cli import anatomy, anatomy_stages, gate, lesson, main, teach
from loopviz.cli import measure as measuring
from loopviz.cli import train as training
from loopviz.lab import catalogue, sweep
from loopviz.train import trainer
from tests.lab.small import save

REACHED = "everything was checked"
VALUES = [
    *("", " ", "-", "--", "=", ":", ",", "%s", "{0}", "~", "*", "."),
    *("-1", "0", "1", "007", "1.5", "5e-4", "1e400", "-0", "nan", "inf", "-inf", "9" * 25, "1" + "0" * 400, "9" * 5000),
    *("1,2", "1,,2", "2,1", "0-1", "1-0", "0-1,1-2", "5:loop_count=2", "5:loop_count=x", "0:loop_layers=0-1"),
    *("text", "yes", "None", "null", "true", "[", "[1]", "{}", '{"loop_count": 0}', '{"a": 1}', "[" * 5000, '["a", 1]'),
    *(
        "é文🙂",
        "\udcff",
        "a\0b",
        "a\nb",
        "\x1b[31m",
        "x" * 5000,
        "/dev/null/x",
        "x/",
        "x.csv",
        "x.json",
    ),
]
FEW = ["", "--", "-1", "0", "nan", "1e400", "9" * 25, "text", "[", "[1]", "{}", "[" * 5000, "é文🙂", "\udcff", "a\0b"]


def options_of(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Those that take a value, positional ones too."""
    for action in parser._actions:
        if not isinstance(action, argparse._SubParsersAction) and action.nargs != 0:
            yield action


def commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    return next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction)).choices


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return save(tmp_path_factory.mktemp("tiny model"), loop_count=2)


@pytest.fixture(scope="module")
def parsers():
    """Of `eval` and of the whole: made once."""
    return measuring._task_parser(), main._parser()


@pytest.fixture
def made_once(monkeypatch, parsers):
    """No value changes what is the slow part of a command: its parsers, and the list of measurements they name."""
    of_eval, whole = parsers
    monkeypatch.setattr(measuring, "_task_parser", lambda: of_eval)
    monkeypatch.setattr(main, "_parser", lambda: whole)
    monkeypatch.setattr(catalogue, "_entry", functools.cache(catalogue._entry))


@pytest.fixture
def nothing_runs(monkeypatch, tmp_path, made_once):
    """A working directory with a few files, and commands that go no further than their checks."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("Once upon a time.\n")
    (tmp_path / "grid.yaml").write_text("task: perplexity\nmodels: [m]\nparams: {text: Once upon a time}\n")

    def reached(*args, **options):
        raise ValueError(REACHED)

    for module in (anatomy, anatomy_stages, gate, lesson, main, measuring, teach, training):
        monkeypatch.setattr(module, "load", reached)
    monkeypatch.setattr(trainer.Trainer, "__init__", reached)
    monkeypatch.setattr(sweep, "Workers", reached)
    # No usage shown: it is slow too.
    monkeypatch.setattr(argparse.ArgumentParser, "format_usage", lambda parser: "usage: ...\n")
    return [*VALUES, "folder", "file", "file/x"]


def outcome(arguments: list[str], capfd) -> str:
    """What is wrong with how a command ended; "" if nothing is."""
    try:
        code = main.main(arguments)
    except SystemExit as ended:
        code = ended.code
    except BaseException as error:  # a traceback, where a line belongs
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {str(error)[:200]} ({where.filename}:{where.lineno})"
    told = capfd.readouterr().err
    if code not in ((0, 1, 2) if arguments[:2] == ["lesson", "check"] else (0, 2)):  # 1: it is no lesson
        return f"exit code {code}: {told[-200:]}"
    if "Traceback" in told or (code == 2 and told.startswith("loopviz: ") and told.count("\n") != 1):
        return told[-300:]
    return ""


def tried(command: list[str], action: argparse.Action, values: list[str], capfd) -> list[str]:
    """Give every value to one option (or in one place); what went wrong."""
    wrong = []
    for value in values:
        if action.option_strings:
            name = action.option_strings[-1]
            given = [name, "steps", value] if action.nargs == 2 else [f"{name}={value}"]
            arguments = [*command, *given]
        else:
            arguments = [value if part is PLACE else part for part in command]
        if (what := outcome([part for part in arguments if part is not PLACE], capfd)) != "":
            wrong.append(f"{' '.join(arguments)[:150]!r}: {what}")
    return wrong


SLOW = ("data_note", "license", "beside", "held_out", "data")
PLACE = str(b"stands where the positional argument goes")
REQUIRED = {
    "run": ["run", "--prompt", "x", "--model", "m"],
    "export": ["export", "file", "--json", "out.json"],
    "train": ["train", "arrows-loop", "--out", "new"],
    "evaluate": ["evaluate", "m", "--data", "file"],
    "teach": ["teach", "--model", "m", "--loop-layers", "1-1", "--data", "file", "--out", "new"],
    "merge": ["merge", "folder", "new"],
    "sweep": ["sweep", "grid.yaml", "--out", "new"],
    "precision": ["precision", "--model", "m", "--file", "file"],
    "gate": ["gate", "m", "--data", "file", "--out", "new"],
    "anatomy check": ["anatomy", "check", "--only", "model"],
    "anatomy families": ["anatomy", "families"],
    "anatomy stages": ["anatomy", "stages", "file"],
    "lesson check": ["lesson", "check", "file"],
    "lesson schema": ["lesson", "schema"],
    "store list": ["store", "list", "--folder", "folder"],
    "store feature": ["store", "feature", "x", "--folder", "folder"],
    "store unfeature": ["store", "unfeature", "x", "--folder", "folder"],
    "store delete": ["store", "delete", "x", "--folder", "folder"],
    "store class": ["store", "class", "x", "--folder", "folder"],
    "store classes": ["store", "classes", "--folder", "folder"],
    "store answers": ["store", "answers", "x", "--folder", "folder"],
    "store delete-answer": ["store", "delete-answer", "x", "y", "--folder", "folder"],
    "store delete-class": ["store", "delete-class", "x", "--folder", "folder"],
}


def parser_of(name: str) -> argparse.ArgumentParser:
    """Of a command, or of a command's part."""
    parser = main._parser()
    for word in name.split():
        parser = commands_of(parser)[word]
    return parser


@pytest.mark.parametrize("name", list(REQUIRED))
def test_b8_no_value_of_any_option_ends_in_a_traceback(name, nothing_runs, capfd):
    parser, command = parser_of(name), REQUIRED[name]
    wrong = []
    for action in options_of(parser):
        values = [*FEW, "folder", "file/x"] if action.dest in SLOW else nothing_runs
        if action.option_strings:
            wrong += tried(command, action, values, capfd)
        else:
            parts = len(name.split())
            wrong += tried([*command[:parts], PLACE, *command[parts + 1 :]], action, values, capfd)
    assert wrong == []


def test_every_command_is_tried():
    assert set(commands_of(main._parser())) == {*(name.split()[0] for name in REQUIRED), "eval"}
    for command in ("anatomy", "lesson", "store"):
        assert {f"{command} {part}" for part in commands_of(parser_of(command))} <= set(REQUIRED)


def test_b8_no_value_of_any_parameter_of_eval_ends_in_a_traceback(nothing_runs, capfd):
    """What is the same for several tasks is tried with the first."""
    wrong, seen = [], set()
    for name, parser in commands_of(measuring._task_parser()).items():
        for action in options_of(parser):
            if (action.dest, action.help) not in seen:
                seen.add((action.dest, action.help))
                values = nothing_runs if action.dest == "out" else [*FEW, "folder", "file/x"]
                text = (
                    [] if action.dest in ("param_text", "param_file", "param_pairs") else ["--text", "Once upon a time"]
                )
                if not any(other.dest == "param_text" for other in parser._actions):
                    text = []
                wrong += tried(["eval", name, "--model", "m", *text], action, values, capfd)
    for action in options_of(measuring._repeat_parser()):
        wrong += tried(["eval", "--from", "file"], action, nothing_runs, capfd)
    for value in nothing_runs:
        wrong += [f"eval {value[:50]!r}: {what}" for what in [outcome(["eval", value], capfd)] if what]
    assert wrong == []


SOME = [
    "0",
    "-1",
    "1",
    "nan",
    "inf",
    "1e400",
    "9" * 25,
    "é文🙂",
    "0-1",
    "1-2",
    "2-1",
    "cosine",
    "last",
    "serial",
    "yes",
]


def test_b8_no_loop_option_of_a_real_run_ends_in_a_traceback(model, made_once, monkeypatch, tmp_path, capfd):
    """What only the loaded model can refuse."""
    monkeypatch.chdir(tmp_path)
    loaded = main.load(model, __import__("torch").float32, {})

    def load(name, dtype, loop, device="cpu", adapter=None, **how):
        from dataclasses import replace

        return replace(loaded, model=loaded.model.with_loop(**loop))

    monkeypatch.setattr(main, "load", load)
    skipped = {"prompt", "model", "threads", "save", "imports", "device", "dtype", "precision"}
    wrong = []
    for action in options_of(commands_of(main._parser())["run"]):
        if action.dest not in skipped:
            command = ["run", "--prompt", "a dog", "--model", model, "--max-new-tokens", "2"]
            values = [f"5:{value}" for value in ("loop_count=0", "loop_norm=yes", "loop_count=9")] + SOME
            wrong += tried(command, action, values if action.dest == "change" else SOME, capfd)
            command += ["--loop-strategy", "dynamic_stop", "--sample", "--max-loop-count", "6"]
            wrong += tried(command, action, SOME, capfd)
    assert wrong == []


def test_b8_no_parameter_of_a_real_measurement_ends_in_a_traceback(model, made_once, monkeypatch, tmp_path, capfd):
    monkeypatch.chdir(tmp_path)
    loaded = measuring.load(model, __import__("torch").float32, {})
    monkeypatch.setattr(measuring, "load", lambda name, dtype, loop, device="cpu", adapter=None, **how: loaded)
    wrong = []
    for action in options_of(commands_of(measuring._task_parser())["perplexity"]):
        if action.dest.startswith(("param_", "loop_field_")) and action.dest != "param_file":
            command = ["eval", "perplexity", "--model", model, "--text", "a dog and a cat"]
            command += ["--limit-tokens", "4", "--window", "4", "--loops", "1,2", "--draws", "3"]
            values = [value for value in SOME if not (action.dest == "param_draws" and value == "9" * 25)]
            wrong += tried(command, action, values, capfd)
    assert wrong == []


@pytest.mark.parametrize(
    "field",
    [
        *(
            "model.num_attention_heads=3",
            "model.num_key_value_heads=3",
            "model.num_hidden_layers=0",
            "model.head_dim=7",
        ),
        *("model.hidden_size=0", "model.hidden_size=1000000000000", "model.num_hidden_layers=1000000000", "steps=1e9"),
        *("model.hidden_act=foo", 'model.rope_parameters={"rope_type": "foo"}', "model.hidden_size=many", "model=3"),
        *(
            "optimizer=3",
            "loops.max=0",
            "a.b.c=1",
            "=",
            "steps=",
            "seed=-1",
            "threads=100000",
            "model.loop_layers=[0,99]",
        ),
    ],
)
def test_b8_a_recipe_that_no_model_can_be_built_of_is_refused_in_one_line(field, nothing_runs, capfd):
    """`--set model.num_attention_heads=3` ended in a traceback of transformers' own."""
    assert outcome(["train", "arrows-loop", "--out", "new", "--set", field], capfd) == ""
    assert main.main(["train", "arrows-loop", "--out", "new", "--set", field]) == 2
    assert REACHED not in capfd.readouterr().err
