"""What the tests of the pages share."""

from __future__ import annotations

from typing import Any

import pytest

from loopviz.app.sessions import bounds
from loopviz.engine.local import LocalEngine
from tests.app.by_hand import ByHand
from tests.conftest import make_llama


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> list[ByHand]:
    """The time limits of what runs meanwhile, which go off by hand."""
    monkeypatch.setattr(ByHand, "made", [])
    monkeypatch.setattr(bounds, "Timer", ByHand)
    return ByHand.made


@pytest.fixture(scope="session")
def endless(tiny_tokenizer: Any) -> LocalEngine:
    """A tiny random model of three layers that never ends its text by itself."""
    from loopviz.model.checkpoints.load import as_loop_llama

    model = as_loop_llama(make_llama(eos_token_id=None)).eval()
    model.generation_config.eos_token_id = None
    return LocalEngine("tiny", model, tiny_tokenizer, "made here")
