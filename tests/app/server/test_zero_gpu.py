"""A Space on ZeroGPU hardware comes up, has its card lent for what it is for, and says so."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from loopviz.app import command, main
from loopviz.app.profile import PUBLIC, Profile, profile_of
from loopviz.app.server import limits, zero_gpu
from loopviz.app.sessions.models import ModelRoom
from loopviz.app.texts import LANGUAGES, text
from loopviz.engine import lent_card

SPACE = {"SPACE_ID": "someone/loopviz", "SPACES_ZERO_GPU": "true"}


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a stand-in for the package `spaces` was given to decorate."""
    given: list[Any] = []
    standing = ModuleType("spaces")

    def lend(task: Any = None, *, duration: int = 0) -> Any:
        return lend_to(task) if task is not None else lend_to

    def lend_to(task: Any) -> Any:
        given.append(task)
        return task

    standing.GPU = lend  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "spaces", standing)
    monkeypatch.setattr(lent_card, "_declared", None)
    return given


def on(chosen: str = "", **more: str) -> Profile:
    return profile_of("0.0.0.0", {**SPACE, "LOOPVIZ_ZERO_GPU": chosen, **more})


def test_a_card_is_for_large_models_for_all_or_for_none() -> None:
    assert [on(chosen).lend_from for chosen in ("", "all", "off")] == [500_000_000, 0, None]
    with pytest.raises(ValueError, match="LOOPVIZ_ZERO_GPU='some': must be one of off, all, or left out"):
        on("some")
    assert profile_of("0.0.0.0", {"SPACE_ID": "x", "LOOPVIZ_ZERO_GPU": "all"}).lend_from is None, "other hardware"


def test_the_function_that_makes_runs_is_declared(declared: list[Any]) -> None:
    said: list[str] = []
    assert zero_gpu.declare(on(), said.append).lend_from == 500_000_000
    assert declared == [lent_card.make_there]
    assert said == ["* ZeroGPU: a card is lent for runs of models from 500,000,000 parameters on"]
    card = lent_card.declared()
    assert card is not None
    assert [card.wants(n) for n in (499_999_999, 500_000_000)] == [False, True]


@pytest.mark.parametrize(
    "profile",
    [on("off"), dataclasses.replace(on(), engine="ray://auto/loopviz"), dataclasses.replace(on(), device="cuda:0")],
)
def test_one_function_is_declared_where_it_is_not_used(declared: list[Any], profile: Profile) -> None:
    """Without one Hugging Face takes the Space for broken."""
    said: list[str] = []
    assert zero_gpu.declare(profile, said.append).lend_from is None
    assert len(declared) == 1
    assert said == [zero_gpu.NOT_USED]
    assert lent_card.declared() is None
    with pytest.raises(RuntimeError):
        declared[0]()


def test_without_the_package_the_server_starts_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "spaces", None)
    said: list[str] = []
    assert zero_gpu.declare(on(), said.append).lend_from is None
    assert said == [zero_gpu.NOT_USED]
    assert "spaces" in caplog.text


def test_nor_does_a_package_end_it_that_fails_as_it_is_imported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It reads PyTorch's CUDA version, which a build for processors does not have."""
    (tmp_path / "spaces.py").write_text("None.startswith('12.')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "spaces", raising=False)
    assert zero_gpu.declare(on(), lambda said: None).lend_from is None
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
    assert opened["profile"].lend_from == (500_000_000 if there else None)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_page_says_what_the_card_is_for(lang: str) -> None:
    what = text(lang, "limits.zero_gpu")
    for chosen, words in (
        ("off", text(lang, "limits.zero_gpu.off")),
        ("", text(lang, "limits.zero_gpu.on", millions="500", seconds=60)),
        ("all", text(lang, "limits.zero_gpu.all", seconds=60)),
    ):
        assert dict(limits.told(on(chosen), lang))[what] == words
    assert what not in dict(limits.told(PUBLIC, lang))


def test_a_model_that_a_page_asks_for_is_one_whose_runs_the_card_makes(
    monkeypatch: pytest.MonkeyPatch, declared: list[Any]
) -> None:
    profile = zero_gpu.declare(on("all"), lambda said: None)
    room = ModelRoom("stories-loop", profile=profile)
    engine = room.get("stories-loop")
    assert isinstance(engine, lent_card.LentEngine)
    assert engine.card is lent_card.declared()
