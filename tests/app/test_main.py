"""What the server is started with."""

from __future__ import annotations

import pytest

from loopviz.app.main import SHORT, threads
from loopviz.app.profile import PROFILES


@pytest.mark.parametrize("waiting", [*(profile.queue for profile in PROFILES.values()), 0, 1, 6, 1000])
def test_h3_runs_that_wait_leave_threads_for_short_events_and_those_of_the_pages(waiting: int) -> None:
    """Forty runs in the line held the forty threads from which `/` was served too."""
    assert threads(waiting, 2) >= waiting + 2 + SHORT
    assert threads(waiting, 2) != 40, "Gradio takes this for: no pool of its own"
