"""A server that goes away while a page is open, and comes back: the page says so and goes on, without being loaded anew."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from loopviz.app.texts import table
from tests.browser.conftest import PATIENCE, ROOT, _free_port
from tests.browser.test_explore import settle

WORDS = table("zh")


class Restarted:
    """A server that is killed and started on the same port."""

    def __init__(self, folder: Path) -> None:
        self.port, self.folder = _free_port(), folder
        self.url = f"http://127.0.0.1:{self.port}/"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Serve; returns when it answers."""
        own = {"OMP_NUM_THREADS": "1", "LOOPVIZ_STORE": str(self.folder / "store")}
        command = [sys.executable, str(ROOT / "app.py"), "--port", str(self.port), "--profile", "class"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **own}, stdout=log, stderr=log)
        until = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(self.url, timeout=5).read()
                return
            except OSError:
                assert time.monotonic() < until, (self.folder / "log").read_text()[-3000:]
                time.sleep(0.2)

    def kill(self) -> None:
        """End it at once, as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Restarted]:
    made = Restarted(tmp_path)
    made.start()
    yield made
    made.kill()


def inside(page: Page, expression: str) -> Any:
    return page.evaluate(f"document.querySelector('.lv').page.{expression}")


def test_a_page_outlives_its_server(browser: Browser, server: Restarted) -> None:
    """m1: a toast in English, and as the server was back the page loaded itself anew: prompt, settings and text were gone."""
    page = browser.new_context(locale="zh-CN").new_page()
    page.set_default_timeout(PATIENCE)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(server.url)
    page.wait_for_selector('.lv[data-ready="1"][data-model="ready"]')
    page.evaluate("window.same = true")
    banner, status = page.locator(".lv-away span"), page.locator(".lv-status")
    expect(banner).to_have_text("")
    page.locator("#ctl-prompt textarea").fill("Lily had a small boat")
    settle(page, "sampling", "max_new_tokens", 230)
    page.click("#lv-run")
    page.wait_for_function("() => Number(document.querySelector('.lv').dataset.t) > 8")
    text, before = inside(page, "text.textContent"), inside(page, "share.ticket")

    server.kill()  # in mid-run
    expect(banner).to_contain_text(WORDS["page.server.away"])
    expect(status).to_have_text(WORDS["page.server.cut"])
    assert inside(page, "starts.state") == "idle"
    assert inside(page, "text.textContent").startswith(text[:40]), "what was made can still be read"
    page.locator("#ctl-prompt textarea").fill("Lily had a big boat")  # typed, and set, while nobody is there
    settle(page, "sampling", "max_new_tokens", 40)
    page.click("#lv-run")
    expect(status).to_have_text(WORDS["live.state.starting"])

    server.start()
    expect(banner).to_contain_text(WORDS["page.server.back"])
    page.wait_for_function(
        "() => document.querySelector('.lv').dataset.end && document.querySelector('.lv').page.starts.state === 'idle'"
    )
    assert "big boat" in inside(page, "text.textContent"), "the run that was asked for meanwhile has begun by itself"
    assert page.evaluate("window.same"), "it was loaded anew"
    assert page.locator("#ctl-prompt textarea").input_value() == "Lily had a big boat"
    assert page.locator("#ctl-max_new_tokens input[type=number]").input_value() == "40"
    assert inside(page, "tokens.filter((row) => !row[3]).length") < 60
    page.click("#lv-run")  # and once more, by hand
    page.wait_for_function("() => document.querySelector('.lv').page.starts.state !== 'starting'")
    expect(status).not_to_have_class("lv-bad")
    with urllib.request.urlopen(server.url + "loopviz-health") as answer:
        assert answer.status == 200
    ticket = inside(page, "share.ticket")
    assert ticket != before, "a ticket of this server, to open files with"
    assert errors == []
    page.context.close()
