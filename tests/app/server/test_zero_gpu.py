"""A Space on ZeroGPU hardware comes up, uses no card, and says so."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from loopviz.app import command, main
from loopviz.app.profile import PUBLIC, profile_of
from loopviz.app.server import limits, zero_gpu
from loopviz.app.texts import LANGUAGES, text


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a stand-in for the package `spaces` was given to decorate."""
    given: list[Any] = []
    standing = ModuleType("spaces")
    standing.GPU = lambda task: given.append(task) or task  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "spaces", standing)
    return given


def test_one_function_is_declared_and_asks_for_nothing(declared: list[Any]) -> None:
    """Without one Hugging Face takes the Space for broken."""
    said: list[str] = []
    assert zero_gpu.declare(said.append)
    assert len(declared) == 1
    assert said == [zero_gpu.SAID]
    with pytest.raises(RuntimeError):
        declared[0]()


def test_without_the_package_the_server_starts_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "spaces", None)
    assert not zero_gpu.declare(lambda said: None)
    assert "spaces" in caplog.text


def test_nor_does_a_package_end_it_that_fails_as_it_is_imported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It reads PyTorch's CUDA version, which a build for processors does not have."""
    (tmp_path / "spaces.py").write_text("None.startswith('12.')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "spaces", raising=False)
    assert not zero_gpu.declare(lambda said: None)
    assert "startswith" in caplog.text


@pytest.mark.parametrize(
    ("value", "there"), [("true", True), ("1", True), ("True", True), ("false", False), ("", False)]
)
def test_the_app_declares_it_on_that_hardware_alone(
    monkeypatch: pytest.MonkeyPatch, declared: list[Any], value: str, there: bool
) -> None:
    opened: dict[str, Any] = {}
    monkeypatch.setenv("SPACE_ID", "someone/loopviz")
    monkeypatch.setenv("SPACES_ZERO_GPU", value)
    monkeypatch.setattr(main, "build", lambda model, *, profile: opened.update(profile=profile))
    monkeypatch.setattr(main, "launch", lambda page, **options: None)
    monkeypatch.setattr(main, "spare_a_core", lambda: None)
    command.serve([])
    assert bool(declared) == opened["profile"].zero_gpu == there


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_page_says_that_the_card_is_not_used(lang: str) -> None:
    there = profile_of("0.0.0.0", {"SPACE_ID": "someone/loopviz", "SPACES_ZERO_GPU": "true"})
    what = text(lang, "limits.zero_gpu")
    assert dict(limits.told(there, lang))[what] == text(lang, "limits.zero_gpu.off")
    assert what not in dict(limits.told(PUBLIC, lang))
