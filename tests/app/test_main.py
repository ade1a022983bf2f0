"""What the server is started with."""

from __future__ import annotations

from dataclasses import replace

import httpx
import pytest

from loopviz.app.main import build, launch, threads
from loopviz.app.profile import LOCAL, PROFILES


@pytest.mark.parametrize("waiting", [*(profile.queue for profile in PROFILES.values()), 0, 1, 6, 1000])
def test_h3_runs_that_wait_leave_threads_for_short_events_and_those_of_the_pages(waiting: int) -> None:
    """Forty runs in the line held the forty threads from which `/` was served too."""
    assert threads(waiting, 2) >= waiting + 2 + LOCAL.short_events
    assert threads(waiting, 2) != 40, "Gradio takes this for: no pool of its own"


def test_pages_that_are_opened_again_and_again_are_remembered_up_to_a_number() -> None:
    """Gradio remembers a form of 140 kB and more of each page, of ten thousand: one short question makes one."""
    page = build(profile=replace(LOCAL, sessions=3))
    launch(page, wait=False)
    asked = {"data": "{}", "fn_name": "resync", "component_id": page.live._id}
    try:
        with httpx.Client(base_url=page.demo.local_url, timeout=60) as client:
            answers = [
                client.post("gradio_api/component_server", json={**asked, "session_hash": f"visitor{n}"}).text
                for n in (*range(9), 0)
            ]
        held = page.demo.app.state_holder
        assert list(held.session_data) == ["visitor7", "visitor8", "visitor0"]
        assert set(held.time_last_used) == set(held.session_data)
        assert len(set(answers)) == 1, "one that was forgotten is answered as before"
    finally:
        page.demo.close()
