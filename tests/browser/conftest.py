"""A served app with a tiny random model, and pages of a real Chromium that must not err or call anyone else."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect, sync_playwright

from loopviz.paths import WEB
from scripts.serving import served
from tests.conftest import make_llama

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60_000  # milliseconds; generous, the machine may be busy
VIEWPORT = {"width": 1280, "height": 900}

expect.set_options(timeout=PATIENCE)


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever is tested here drives a browser."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("browser")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def app_url(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> Iterator[str]:
    """The address of the app, started as a user starts it, with a random model of twelve layers."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    model = make_llama(num_hidden_layers=12, hidden_size=64, max_position_embeddings=1024)
    with torch.no_grad():
        model.lm_head.weight[1] = 0  # a logit of 0 is never the highest: the model does not end its text by itself
    model.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    port = _free_port()
    log = folder.parent / "app.log"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LOOPVIZ_MODEL": str(folder), "PYTHONUNBUFFERED": "1"}
    environment["LOOPVIZ_STORE"] = str(tmp_path_factory.mktemp("store"))
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "app.py"), "--port", str(port)],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=output,
        )
        url = f"http://127.0.0.1:{port}/"
        try:
            deadline = time.monotonic() + 120
            while True:
                try:
                    urllib.request.urlopen(url, timeout=5).read()
                    break
                except OSError:
                    assert process.poll() is None, log.read_text()[-3000:]
                    assert time.monotonic() < deadline, log.read_text()[-3000:]
                    time.sleep(0.2)
            yield url
        finally:
            process.terminate()
            process.wait(20)
    assert "Traceback" not in log.read_text(), log.read_text()[-5000:]


@pytest.fixture(scope="session")
def bundled_url() -> Iterator[str]:
    """The address of the app with the models it comes with."""
    with served([sys.executable, "app.py"], env={**os.environ, "OMP_NUM_THREADS": "1"}) as (url, _):
        yield url


# root in a container has no user namespaces for the sandbox
ARGUMENTS = ["--disable-gpu", *(["--no-sandbox"] if getattr(os, "geteuid", lambda: 1)() == 0 else [])]
STRICT = "window.loopvizStrict = true"  # a text that is missing is an error (`worded` of core/dom.js)


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="session")
def browser(playwright: Playwright, chromium_executable: str | None) -> Iterator[Browser]:
    """One Chromium for all tests that need contexts of their own."""
    launched = playwright.chromium.launch(executable_path=chromium_executable, args=ARGUMENTS)
    usual = launched.new_context

    def strict(**options: Any) -> BrowserContext:
        context = usual(**options)
        context.add_init_script(STRICT)
        return context

    launched.new_context = strict
    yield launched
    launched.close()


@pytest.fixture(scope="session")
def usual_context(
    playwright: Playwright, chromium_executable: str | None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BrowserContext]:
    """The context most visits share; every page is a visitor of its own to the server.

    It has a profile on disk, as a person's browser has: only such a one keeps what it has compiled of a page's scripts, which is
    a third of the work of opening it.
    """
    context = playwright.chromium.launch_persistent_context(
        tmp_path_factory.mktemp("profile"), executable_path=chromium_executable, args=ARGUMENTS, viewport=VIEWPORT
    )
    context.add_init_script(STRICT)
    yield context
    context.close()


def opened(context: BrowserContext, viewport: dict[str, int] | None = None, **media: Any) -> Page:
    """A new page of the usual context; `media`: `color_scheme`, `reduced_motion`. To be left by :func:`left`."""
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.set_viewport_size(viewport or VIEWPORT)
    if media:
        page.emulate_media(**media)
    return page


def left(page: Page) -> None:
    """Close a page of the usual context; nothing of it is any later test's: no clock, no language or look that was chosen."""
    own = page.evaluate("setTimeout.toString().includes('[native code]')")
    assert own, "a clock installed here would be every later test's clock: visit(apart=True)"
    if page.url.startswith("http"):
        page.evaluate("localStorage.clear()")
    page.close()


class Visits:
    """Pages of visitors: what they said that is an error, and whom they asked for something."""

    def __init__(self, browser: Browser, usual: BrowserContext, url: str) -> None:
        self.browser, self.usual, self.url = browser, usual, url
        self.there = set(usual.pages)  # the one a browser begins with, and those of a module
        self.contexts: list[BrowserContext] = []
        self.wrong: list[str] = []
        # pages on which Gradio has given up its own requests, as it does when a page is left or loaded anew
        self.given_up: set[Page] = set()
        self.kept: dict[tuple[Any, ...], Page] = {}

    def requested(self, request: Any) -> None:
        if not request.url.startswith((self.url, "data:", "blob:")):
            self.wrong.append(f"request to {request.url}")

    def said(self, page: Page, message: Any, refused: bool) -> None:
        if message.type != "error" or (refused and "responded with a status of 4" in message.text):
            return
        if message.text.startswith("AbortError: signal is aborted without reason"):
            self.given_up.add(page)
        elif not (page in self.given_up and "Connection errored out" in message.text):
            self.wrong.append(f"console: {message.text}")

    def open(
        self,
        query: str = "",
        *,
        at: str = "",
        apart: bool = False,
        refused: bool = False,
        height: int = 900,
        **options: Any,
    ) -> Page:
        """See :func:`visit`."""
        options = {"viewport": {"width": 1280, "height": height}, **options}
        if apart or not options.keys() <= {"viewport", "color_scheme", "reduced_motion"}:
            context = self.browser.new_context(**options)
            self.contexts.append(context)
            page = context.new_page()
            page.set_default_timeout(PATIENCE)
        else:
            page = opened(self.usual, **options)
        page.on("request", self.requested)
        page.on("pageerror", lambda error: self.wrong.append(f"page error: {error}"))
        page.on("console", lambda message: self.said(page, message, refused))
        page.goto(self.url + at + query)
        if at:
            page.wait_for_selector('.lv-page[data-ready="1"][data-model="ready"]')
            return page
        page.wait_for_selector('.lv[data-ready="1"][data-model="ready"]')
        # (a function: the page's policy lets no text be evaluated again and again)
        # the model's arrival settles the looped block: 4..5 of twelve layers
        page.wait_for_function("() => document.querySelector('#ctl-block_end input').value === '5'")
        return page

    def look(self, query: str = "", *, at: str = "", viewport: dict[str, int] | None = None, **options: Any) -> Page:
        """See :func:`look`."""
        key = (query, at, *sorted((name, repr(value)) for name, value in options.items()))
        if key not in self.kept:
            self.kept[key] = self.open(query, at=at, viewport=viewport or VIEWPORT, **options)
            self.there.add(self.kept[key])
        page = self.kept[key]
        page.set_viewport_size(viewport or VIEWPORT)
        page.evaluate("scrollTo(0, 0)")
        return page

    def leave(self) -> None:
        """Close the pages; they must have been free of errors and of requests to anyone but the app."""
        for page in self.usual.pages:  # also what a page has opened in a tab of its own
            if page not in self.there or page in self.kept.values():
                left(page)
        for context in self.contexts:
            context.close()
        assert self.wrong == []


@pytest.fixture
def visit(browser: Browser, usual_context: BrowserContext, app_url: str) -> Iterator[Callable[..., Page]]:
    """`visit(query="", at="", apart=False, refused=False, **options)`: another visitor's page, ready, its model loaded.

    `at`: the address of another page than Explore.
    `apart`: in a browser context of its own, as another person would be, or where a clock is installed. So is every visit with
    options of a context that a page cannot have by itself (all but `viewport`, `color_scheme` and `reduced_motion`).
    `refused`: the server will refuse something by its status, which Chromium itself writes to the console.
    At the end of the test every page must have been free of errors and of requests to anyone but the app.
    """
    visits = Visits(browser, usual_context, app_url)
    yield visits.open
    visits.leave()


@pytest.fixture(scope="module")
def lasting(browser: Browser, usual_context: BrowserContext, app_url: str) -> Iterator[Visits]:
    """Visits that end with the module."""
    visits = Visits(browser, usual_context, app_url)
    yield visits
    visits.leave()


@pytest.fixture
def look(lasting: Visits) -> Callable[..., Page]:
    """`look(query="", at="", viewport=None, **options)`: a page for all tests of a module that look at it and leave it as it was.

    As :func:`visit`, but a page of the same address and options is opened once (opening one is most of what such a test costs),
    has the asked viewport again, and is at its top. A test that runs anything takes :func:`page` or :func:`visit`.
    """
    return lasting.look


@pytest.fixture
def page(lasting: Visits) -> Iterator[Page]:
    """One visitor's page of Explore, on which a module's test after test runs something.

    A test on it sets what it needs (how many tokens, which prompt) and counts from where it began; what it chose beside that, it
    puts back. Each must leave the page free of errors, as :func:`visit` does.
    """
    page = lasting.look()
    page.bring_to_front()  # a page behind another's tab is given no frames
    yield page
    wrong, lasting.wrong[:] = [*lasting.wrong], []
    assert wrong == []


def narrow(page: Page) -> bool:
    """Whether the settings are a sheet, which a button opens once Gradio is there (as in `explore/settings_sheet.js`)."""
    return bool(page.evaluate("matchMedia('(max-width: 980px)').matches"))


def bare(browser: Browser, **options: Any) -> Page:
    """An empty page on which our scripts can be imported by their names: `import("/core/messages.js")`. No app is there."""
    context = browser.new_context(**options)
    where = "http://scripts.test"

    def serve(route: Any) -> None:
        path = WEB / route.request.url.removeprefix(where).lstrip("/")
        if path.is_file():
            route.fulfill(path=path, content_type="text/javascript")
        else:
            route.fulfill(body="<!doctype html><title>scripts</title>", content_type="text/html")

    context.route(f"{where}/**", serve)
    page = context.new_page()
    page.goto(where)
    return page


@pytest.fixture(scope="session")
def scripts(browser: Browser) -> Iterator[Page]:
    """One such page, for all tests that leave it as it was."""
    page = bare(browser)
    yield page
    page.context.close()
