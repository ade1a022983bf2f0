"""benchmarks/page.py ends, whatever it waits for, and says at what."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import page
from benchmarks.page_script import CLICK, limited
from scripts.serving import served


def test_what_fails_is_said_by_the_name_of_what_was_done(capsys: pytest.CaptureFixture[str]) -> None:
    error = pytest.importorskip("playwright.sync_api").Error
    with page.phase("9 clicks"):
        pass
    assert capsys.readouterr().err.startswith("9 clicks ... ")
    with pytest.raises(SystemExit, match="9 clicks: no end within 60 s"), page.phase("9 clicks"):
        raise error("no end within 60 s")


@pytest.mark.parametrize(("rate", "seconds"), [(20.0, page.LIMIT + 25), (None, page.LIMIT + 500 / page.SLOW)])
def test_a_run_has_the_time_of_its_tokens_besides(rate: float | None, seconds: float) -> None:
    assert page.longest(argparse.Namespace(rate=rate), 500) == seconds


def test_a_script_in_the_page_is_refused_after_a_while() -> None:
    found = limited(CLICK, 60)
    assert "no end within 60 s" in found
    assert "60000)" in found
    assert CLICK.strip() in found


def test_the_clocks_of_a_run_without_two_tokens_are_waited_for_and_no_longer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    now = iter(range(0, 100, 2))
    monkeypatch.setattr(page.time, "monotonic", lambda: next(now))
    with pytest.raises(SystemExit, match="made no two tokens"):
        page.read_clock(tmp_path / "engine.ms")
    (tmp_path / "engine.ms").write_text(json.dumps({"tokens": 3}))
    assert page.read_clock(tmp_path / "engine.ms") == {"tokens": 3}


@pytest.mark.parametrize("n", [0, 1, 3])
def test_the_servers_clocks_tell_of_a_run_of_two_tokens_or_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, n: int
) -> None:
    """A run that was stopped at once ended in an IndexError in the server."""
    import loopviz.engine
    from loopviz.app import main

    def stream(*_: Any) -> Any:
        yield {"phase": "prompt"}
        for _ in range(n):
            yield {"phase": "generated"}

    monkeypatch.setattr(loopviz.engine, "stream", stream)
    monkeypatch.setattr(main, "build", lambda model: None)
    monkeypatch.setattr(main, "launch", lambda built, port: None)
    told = tmp_path / "engine.ms"
    page.serve(argparse.Namespace(rate=None, serve=str(told), model="m", port=1))
    assert len(list(loopviz.engine.stream())) == n + 1
    assert told.is_file() == (n > 1)
    if n > 1:
        assert json.loads(told.read_text())["tokens"] == n - 1


def test_an_app_that_does_not_answer_is_not_waited_for_for_ever() -> None:
    with (
        pytest.raises(SystemExit, match="did not answer within 0 s"),
        served([sys.executable, "-c", "import time; time.sleep(60)"], within=0),
    ):
        pass
