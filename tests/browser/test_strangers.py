"""In a real browser: a model that is fetched for a visitor, who presses Stop, or closes the page."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from loopviz.app.profile import MIB
from loopviz.app.sessions.models import LINGER
from scripts.serving import served
from tests.browser.conftest import PATIENCE
from tests.hub import StandIn, llama_config, stand_in

NAME = "slow/slow"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[StandIn]:
    with stand_in(tmp_path / "unused") as found:
        found.pause = 0.02
        found.add(NAME, {"config.json": llama_config(), "model.safetensors": 400 * MIB, "tokenizer.json": 10})
        yield found


@pytest.fixture
def page(hub: StandIn, browser: Browser, tmp_path: Path) -> Iterator[Page]:
    environ = {**os.environ, "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    with served([sys.executable, "app.py"], env=environ) as (url, _):
        page = browser.new_page()
        page.goto(url)
        page.wait_for_selector('[data-ready="1"][data-model="ready"]', timeout=PATIENCE)
        yield page
        page.close()


def _choose(page: Page) -> None:
    page.fill("#ctl-model input", NAME)
    page.press("#ctl-model input", "Enter")
    expect(page.locator(".lv-model")).to_contain_text("downloading", timeout=PATIENCE)


def _nothing_comes(hub: StandIn) -> bool:
    """Whether no more of the model is sent, soon."""
    for _ in range(100):
        before = hub.sent
        time.sleep(0.5)
        if hub.sent == before:
            return True
    return False


@pytest.mark.parametrize("how", ["stop", "close"])
def test_c3_a_download_ends_with_stop_and_with_the_page(page: Page, hub: StandIn, how: str) -> None:
    """It went on after the visitor had left, and could not be cancelled."""
    _choose(page)
    assert _until(lambda: hub.sent > 0)
    page.wait_for_timeout(2 * LINGER * 1000)  # the page looks, and so it goes on
    before = hub.sent
    assert _until(lambda: hub.sent > before)
    if how == "close":
        page.close()
    else:
        page.click("#lv-run")
        expect(page.locator("#lv-stop")).to_be_enabled()
        page.click("#lv-stop")
        expect(page.locator(".lv-model")).to_contain_text("is not loaded yet", timeout=PATIENCE)
    assert _nothing_comes(hub)
    if how == "stop":
        sent = hub.sent
        page.click("#lv-run")
        assert _until(lambda: hub.sent > sent), "Run wants it again"


def _until(holds: Callable[[], Any]) -> bool:
    for _ in range(1_500):
        if holds():
            return True
        time.sleep(0.02)
    return False
