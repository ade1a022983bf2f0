"""Measured once, kept, and measured again where what is kept is nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loopviz.model.checkpoints import kept_measurement
from loopviz.model.checkpoints.kept_measurement import kept


def whole(value: Any) -> int | None:
    return value if type(value) is int else None


def test_what_was_measured_is_kept_beside_what_was_there(own_cache: Path) -> None:
    assert [kept("a.json", of, lambda: 7, whole) for of in ("one", "two", "one")] == [7, 7, 7]
    assert kept("a.json", "one", lambda: pytest.fail("measured again"), whole) == 7
    held = json.loads((own_cache / "a.json").read_text())
    assert sorted(held.values()) == [7, 7]
    (own_cache / "a.json").write_text(json.dumps(dict.fromkeys(held, "odd")))
    assert kept("a.json", "one", lambda: 8, whole) == 8
    (own_cache / "a.json").write_text("[" * 100_000)
    assert kept("a.json", "one", lambda: 9, whole) == 9


def test_threads_are_part_of_a_machine(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kept("a.json", "one", lambda: 1, whole) == 1
    monkeypatch.setattr(kept_measurement.torch, "get_num_threads", lambda: 77)
    assert kept("a.json", "one", lambda: 2, whole) == 2


def test_a_cache_that_cannot_be_had_costs_a_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LOOPVIZ_CACHE", str(tmp_path / "file" / "cache"))
    assert [kept("a.json", "one", lambda: 1, whole) for _ in range(2)] == [1, 1]

    def nobody() -> Path:
        raise RuntimeError("no home")

    monkeypatch.setattr(kept_measurement, "cache_dir", nobody)
    assert kept("a.json", "one", lambda: 1, whole) == 1
