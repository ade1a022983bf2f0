"""A server that goes away while a page is open, and comes back: the page says so and goes on, without being loaded anew."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from loopviz.app.texts import table
from tests.browser.conftest import PATIENCE, ROOT, _free_port, bare
from tests.browser.test_explore import settle

WORDS = table("zh")


class Restarted:
    """A server that is killed and started on the same port."""

    def __init__(self, folder: Path) -> None:
        self.port, self.folder = _free_port(), folder
        self.url = f"http://127.0.0.1:{self.port}/"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Serve, if it does not; returns when it answers."""
        if self._process is not None and self._process.poll() is None:
            return
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


@pytest.fixture(scope="module")
def port_of_one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Restarted]:
    made = Restarted(tmp_path_factory.mktemp("restarted"))
    yield made
    made.kill()


@pytest.fixture
def server(port_of_one: Restarted) -> Restarted:
    """It serves: the one a test before left behind, which it had started anew, or one begun now."""
    port_of_one.start()
    return port_of_one


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
    page.wait_for_function(
        "() => (({ page }) => page.starts.state === 'running' && page.seq > 8)(document.querySelector('.lv'))"
    )
    text, before = inside(page, "text.textContent"), inside(page, "share.ticket")

    server.kill()  # in mid-run
    expect(banner).to_contain_text(WORDS["page.server.away"])
    expect(banner).to_be_visible()
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


def test_nothing_waits_for_another_version_and_what_was_typed_outlives_the_reload(
    browser: Browser, server: Restarted
) -> None:
    """The status promised that a start begins by itself, which it never did; and reloading lost the prompt."""
    page = browser.new_context(locale="zh-CN").new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(server.url)
    page.wait_for_selector('.lv[data-ready="1"][data-model="ready"]')
    page.locator("#ctl-prompt textarea").fill("Lily had a red boat")
    settle(page, "sampling", "max_new_tokens", 40)
    newer = {"server": "another", "pages": "newer"}
    page.route("**/loopviz-health", lambda route: route.fulfill(json=newer))
    page.route("**/gradio_api/queue/join**", lambda route: route.abort())
    page.click("#lv-run")  # it meets a server that is away, and another version after it
    banner, status = page.locator(".lv-away span"), page.locator(".lv-status")
    expect(banner).to_have_text(WORDS["page.server.kept"])
    expect(status).to_have_text(WORDS["page.server.old"])
    assert inside(page, "starts.state") == "idle", "nothing waits"
    page.click("#lv-run")  # nor does what is asked for later
    expect(status).to_have_text(WORDS["page.server.old"])
    assert inside(page, "starts.state") == "idle"
    page.locator("#ctl-prompt textarea").fill("Lily had a green boat")

    page.unroute("**/loopviz-health")
    page.unroute("**/gradio_api/queue/join**")
    page.locator(".lv-away button").click()
    page.wait_for_selector('.lv[data-ready="1"][data-model="ready"]')
    expect(page.locator("#ctl-prompt textarea")).to_have_value("Lily had a green boat")
    page.click("#lv-group-sampling .label-wrap")
    expect(page.locator("#ctl-max_new_tokens input[type=number]")).to_have_value("40")
    page.reload()
    page.wait_for_selector('.lv[data-ready="1"][data-model="ready"]')
    expect(page.locator("#ctl-prompt textarea")).not_to_have_value("Lily had a green boat")

    page.goto(server.url + "compare")  # every other page says the same of what it was to begin
    run = page.locator(".lv-go").first
    expect(run).to_be_enabled()
    page.route("**/loopviz-health", lambda route: route.fulfill(json=newer))
    page.route("**/gradio_api/queue/join**", lambda route: route.abort())
    run.click()
    expect(banner).to_have_text(WORDS["page.server.changed"])
    expect(page.get_by_text(WORDS["page.server.old"])).to_be_visible()
    page.context.close()


STORY = "Once upon a time there was a little dog who wanted to see the sea. "
RUNNING = '.lv-page[data-state="running"]'
DONE = '.lv-page[data-state="idle"]:is([data-end="done"], [data-end="length"])'


def field(page: Page, name: str) -> Locator:
    return page.locator(f'[data-field="{name}"] :is(input, textarea, select)')


def filled(page: Page, **values: str) -> None:
    for name, value in values.items():
        field(page, name).fill(value)


def long_ttt(page: Page) -> None:
    """A run of TTT that goes on for a minute, and has begun."""
    filled(page, prompt=STORY, max_new_tokens="256")
    field(page, "pace").select_option("4")
    page.locator(".lv-go").click()
    page.wait_for_selector('.lv-page[data-end=""] [data-i="3"]', state="attached")  # and not of the recorded run


def long_measurement(page: Page) -> None:
    """A measurement of sixteen rows, of which one is there."""
    page.locator('.lv-task[data-task="perplexity"]').click()
    page.locator(".lv-asking > details > summary").click()
    filled(page, text=STORY * 400, paths="cache", loops=", ".join(map(str, range(1, 17))), limit_tokens="400")
    page.locator(".lv-as-set").click()
    page.wait_for_function("() => +document.querySelector('.lv-page').dataset.rows >= 1")


def long_comparison(page: Page) -> None:
    """A comparison of three cards, of which the first has words."""
    page.locator(".lv-asking > details > summary").click()
    filled(page, prompt="Lily had a small boat", max_new_tokens="230")
    page.locator(".lv-go").click()
    page.wait_for_selector(f'{RUNNING}:not([data-run=""])')
    expect(page.locator(".lv-setup .lv-card-text span").nth(3)).to_be_attached()


# By page: what is begun, what is counted of it as it stands there, what is begun instead of it, and what begins that.
PAGES: dict[str, tuple[Callable[[Page], None], str, dict[str, str], str]] = {
    "ttt": (long_ttt, ".lv-words [data-i]", {"max_new_tokens": "5"}, ".lv-go"),
    "lab": (long_measurement, ".lv-table tbody tr", {"loops": "1, 2", "limit_tokens": "64"}, ".lv-as-set"),
    "compare": (long_comparison, ".lv-setup .lv-card-text span", {"max_new_tokens": "4"}, ".lv-go"),
}


@pytest.mark.parametrize("name", PAGES)
def test_every_page_that_makes_something_outlives_its_server(browser: Browser, server: Restarted, name: str) -> None:
    """Explore alone was tried (m1); TTT, the Lab and Compare have a head that is to do the same, in mid-run too."""
    begin, made, instead, go = PAGES[name]
    page, errors = browser.new_context(locale="zh-CN").new_page(), []
    page.set_default_timeout(PATIENCE)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(server.url + name)
    page.wait_for_selector('.lv-page[data-ready="1"][data-model="ready"]')
    page.evaluate("window.same = true")
    begin(page)
    assert page.locator(RUNNING).count(), "it had ended before the server went"

    server.kill()
    expect(page.locator(".lv-away span")).to_contain_text(WORDS["page.server.away"])
    expect(page.get_by_text(WORDS["page.server.cut"])).to_be_visible()
    expect(page.locator('.lv-page[data-state="idle"]')).to_be_attached()
    assert page.locator(made).count(), "what was made can still be seen"
    filled(page, **instead)  # something else is asked for while nobody is there
    page.locator(go).click()
    expect(page.get_by_text(WORDS["page.server.waits"])).to_be_visible()

    server.start()
    expect(page.locator(DONE)).to_be_attached()
    assert page.evaluate("window.same"), "it was loaded anew"
    assert {key: field(page, key).input_value() for key in instead} == instead
    expect(page.locator(".lv-bad")).to_have_count(0)
    if name == "lab":
        expect(page.locator(made)).to_have_count(2)
    assert errors == []
    page.context.close()


def test_a_stream_cut_off_in_the_middle_of_a_line_is_whole_lines_and_its_end(browser: Browser) -> None:
    """Half a line and what ends the stream were one line, which is no JSON: the event never ended."""
    page = bare(browser)
    words = '{"msg": "process_generating", "event_id": "a", "output": {"data": ["process_completed"]}}'
    page.route("**/queue/join**", lambda route: route.fulfill(json={"event_id": "a"}))
    cut = f'data: {words}\n\ndata: {{"msg": "process_gen'
    page.route("**/queue/data**", lambda route: route.fulfill(body=cut, content_type="text/event-stream"))
    page.add_script_tag(url="/core/gradio_connection.js")
    lines = page.evaluate("""async () => {
      await fetch("/gradio_api/queue/join", { method: "POST" });
      return (await (await fetch("/gradio_api/queue/data")).text()).split("\\n");
    }""")
    said = [json.loads(line.removeprefix("data: ")) for line in lines if line]
    assert said[0] == json.loads(words)
    assert [(one["msg"], one["event_id"]) for one in said[1:]] == [("process_completed", "a"), ("close_stream", None)]
    page.context.close()
