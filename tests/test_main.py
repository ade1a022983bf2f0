"""The command `loopviz`: the app without a command, everything else as `python -m loopviz` does it."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest

from loopviz import __main__
from loopviz.app import command
from loopviz.cli import main


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Who was called: "app" or "cli"."""
    made: list[Any] = []
    monkeypatch.setattr(command, "serve", lambda **options: made.append("app"))
    monkeypatch.setattr(__main__, "main", lambda: made.append("cli") or 2)
    return made


@pytest.mark.parametrize(
    ("arguments", "who", "code"),
    [
        ([], "app", 0),
        (["--port", "7870"], "app", 0),
        (["--help"], "app", 0),
        (["run", "--prompt", "a"], "cli", 2),
        (["nonsense"], "cli", 2),
        (["--version"], "cli", 2),
    ],
    ids=str,
)
def test_without_a_command_the_app_opens(
    called: list[Any], monkeypatch: pytest.MonkeyPatch, arguments: list[str], who: str, code: int
) -> None:
    monkeypatch.setattr(sys, "argv", ["loopviz", *arguments])
    assert __main__.loopviz() == code
    assert called == [who]


def test_every_command_is_named_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main.main(["nonsense"])
    choices = re.search(r"choose from (.*)\)", capsys.readouterr().err)
    assert choices is not None
    assert set(re.findall(r"\w+", choices[1])) == set(main.COMMANDS)


def test_python_m_without_a_command_still_asks_for_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main([])
    assert ended.value.code == 2
    assert "required: command" in capsys.readouterr().err
