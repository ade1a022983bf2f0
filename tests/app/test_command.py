"""The options that open the app: read before anything heavy is imported, and handed on as given."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from loopviz.app import command, main
from loopviz.model import devices
from loopviz.paths import PACKAGE


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the app was opened with."""
    made: dict[str, Any] = {}
    monkeypatch.setattr(main, "build", lambda model, *, profile: made.update(model=model, profile=profile.name))
    monkeypatch.setattr(main, "launch", lambda page, **options: made.update(options))
    monkeypatch.setattr(main, "spare_a_core", lambda: None)
    for name in (
        "GRADIO_SERVER_NAME",
        "GRADIO_SERVER_PORT",
        "LOOPVIZ_MODEL",
        "LOOPVIZ_PROFILE",
        "LOOPVIZ_IMPORT",
        "LOOPVIZ_PRECISION",
        "LOOPVIZ_DEVICE",
        "SPACE_ID",
    ):
        monkeypatch.delenv(name, raising=False)
    return made


def test_without_options_the_app_is_for_this_machine(opened: dict[str, Any]) -> None:
    command.serve([])
    usual = {"host": "127.0.0.1", "port": None, "browser": False}
    assert opened == {"model": main.DEFAULT_MODEL, "profile": "local", **usual}


def test_options_reach_the_app(opened: dict[str, Any]) -> None:
    command.serve(["--port", "81", "--model", "glassbox", "--profile", "public", "--open"])
    given = {"host": "127.0.0.1", "port": 81, "browser": True}
    assert opened == {"model": "glassbox", "profile": "public", **given}


def test_the_environment_stands_in_for_options(opened: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_SERVER_PORT", "82")
    monkeypatch.setenv("LOOPVIZ_MODEL", "arrows-loop")
    command.serve([])
    assert (opened["port"], opened["model"]) == (82, "arrows-loop")
    command.serve(["--port", "83", "--model", "glassbox"])
    assert (opened["port"], opened["model"]) == (83, "glassbox")


@pytest.mark.usefixtures("opened")
def test_what_weights_are_held_in_reaches_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = []
    monkeypatch.setattr(main, "build", lambda model, *, profile: found.append(profile.precision))
    command.serve([])
    command.serve(["--precision", "half"])
    monkeypatch.setenv("LOOPVIZ_PRECISION", "int8")
    command.serve([])
    command.serve(["--precision", "exact"])
    assert found == ["auto", "half", "int8", "exact"]


@pytest.mark.usefixtures("opened")
def test_where_models_are_computed_reaches_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU's is the command line's alone; the app's models were computed on the processor of a machine that had one."""
    found: list[tuple[str, str]] = []
    monkeypatch.setattr(main, "build", lambda model, *, profile: found.append((profile.device, profile.precision)))
    command.serve([])
    monkeypatch.setattr(
        devices, "resolve_device", lambda name: torch.device("cuda:0" if name in ("auto", "cuda") else "cpu")
    )
    command.serve(["--device", "auto"])
    command.serve(["--device", "cuda", "--precision", "exact"])
    monkeypatch.setenv("LOOPVIZ_DEVICE", "cuda")
    command.serve([])
    command.serve(["--device", "cpu"])
    assert found == [("cpu", "auto"), *[("cuda:0", "exact")] * 3, ("cpu", "auto")]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--device", "tpu"], "device='tpu': must be auto, cpu, cuda"),
        (["--device", "cuda:0x"], "device='cuda:0x': must be"),
        (["--device", "cuda", "--precision", "int8"], "precision='int8': half and int8 are measured"),
        (["--device", "cuda", "--precision", "auto"], "precision='auto': half and int8 are measured"),
    ],
)
def test_a_device_that_is_none_and_a_precision_that_it_has_not_are_named(
    opened: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    right = devices.resolve_device
    there = lambda name: torch.device("cuda:0") if name == "cuda" else right(name)  # noqa: E731
    monkeypatch.setattr(devices, "resolve_device", there)
    with pytest.raises(SystemExit) as ended:
        command.serve(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
    assert not opened


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("GRADIO_SERVER_PORT", "many", "--port"),
        ("LOOPVIZ_PROFILE", "friends", "profile='friends'"),
        ("LOOPVIZ_FRAMES", "nonsense", "LOOPVIZ_FRAMES"),
        ("LOOPVIZ_PRECISION", "quarter", "LOOPVIZ_PRECISION='quarter'"),
        ("LOOPVIZ_DEVICE", "abacus", "device='abacus'"),
    ],
)
def test_what_the_environment_says_wrongly_is_named(
    opened: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    value: str,
    said: str,
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        command.serve([])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
    assert not opened


def test_help_does_not_wait_for_gradio() -> None:
    code = (
        "import sys\nfrom loopviz.app.command import serve\ntry: serve(['--help'])\nexcept SystemExit: pass\n"
        "sys.exit(', '.join({'gradio', 'torch', 'transformers'} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--profile" in done.stdout


MINE = """
import torch
from loopviz.model import register_criterion, register_layer_chooser, register_merge

@register_criterion("my_criterion")
def criterion(ctx):
    return ctx.cosine_holds()

@register_merge("my_merge")
def merge(merged, new, step, alpha):
    return new

@register_layer_chooser("my_chooser")
def chooser(ctx):
    return ctx.all_layers()
"""
LISTED = """
import sys
from loopviz.app import command, main
from loopviz.paths import PACKAGE
from loopviz.app.page import page_data
from loopviz.lab import TASKS
from loopviz.app.lab.form import fields_of

def launch(page, **options):
    offered = {name: [value for _, value in page.parts.controls[name].choices] for name in NAMES}
    told = {entry["name"]: list(entry["choices"]) for entry in page_data("compare", page.service.room)["controls"]}
    for name, mine in NAMES.items():
        assert offered[name][-1] == told[name][-1] == mine, (name, offered[name], told[name])
    modes = next(entry for entry in fields_of(TASKS["ablation"]) if entry["name"] == "modes")
    assert "my_merge" in modes["choices"]
    print("listed")

NAMES = {"convergence_criterion": "my_criterion", "merge_strategy": "my_merge", "layer_chooser": "my_chooser"}
main.launch = launch
command.serve(sys.argv[1:])
"""


def test_names_that_a_module_of_ones_own_registers_are_in_every_list(tmp_path: Path) -> None:
    """The app had no `--import`: what somebody registers could be chosen in scripts alone."""
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", LISTED, "--import", "mine.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
    )
    assert done.stdout.endswith("listed\n"), done.stderr


def test_the_environment_names_modules_too(opened: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(command.imports, "load", asked.append)
    monkeypatch.setenv("LOOPVIZ_IMPORT", "one, two.py,")
    command.serve([])
    command.serve(["--import", "three"])
    assert asked == [["one", "two.py"], ["one", "two.py", "three"]]


def test_a_module_that_cannot_be_imported_is_named(opened: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.serve(["--import", "no_such_module_of_mine"])
    assert ended.value.code == 2
    assert "--import no_such_module_of_mine: there is no such module" in capsys.readouterr().err
    assert not opened
