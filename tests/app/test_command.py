"""The options that open the app: read before anything heavy is imported, and handed on as given."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from loopviz.app import command, main


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the app was opened with."""
    made: dict[str, Any] = {}
    monkeypatch.setattr(main, "build", lambda model, *, profile: made.update(model=model, profile=profile.name))
    monkeypatch.setattr(main, "launch", lambda page, **options: made.update(options))
    for name in ("GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT", "LOOPVIZ_MODEL", "LOOPVIZ_PROFILE", "SPACE_ID"):
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


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("GRADIO_SERVER_PORT", "many", "--port"),
        ("LOOPVIZ_PROFILE", "friends", "profile='friends'"),
        ("LOOPVIZ_FRAMES", "nonsense", "LOOPVIZ_FRAMES"),
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
