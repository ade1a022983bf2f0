"""What the tests of the pages share."""

from __future__ import annotations

import pytest

from loopviz.app.sessions import bounds
from tests.app.by_hand import ByHand


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> list[ByHand]:
    """The time limits of what runs meanwhile, which go off by hand."""
    monkeypatch.setattr(ByHand, "made", [])
    monkeypatch.setattr(bounds, "Timer", ByHand)
    return ByHand.made
