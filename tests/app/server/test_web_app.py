"""Gradio's web app is made when the pages are served, and not once a page before."""

from __future__ import annotations

import threading

import gradio as gr
import pytest
from gradio.routes import App

from loopviz.app.server.web_app import made_later


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[App]:
    """The web apps that are made."""
    found: list[App] = []
    init = App.__init__

    def noted(self: App, *args: object, **kwargs: object) -> None:
        found.append(self)
        init(self, *args, **kwargs)

    monkeypatch.setattr(App, "__init__", noted)
    return found


def test_pages_are_put_together_without_a_web_app(made: list[App]) -> None:
    with made_later():
        with gr.Blocks(analytics_enabled=False) as demo:
            gr.HTML("one")
        with demo.route("two"):
            gr.HTML("two")
        demo.queue()
    assert made == []
    assert demo.config == {}, "told anew of all components at the end of each page"
    assert {page[0] for page in demo.pages} == {"", "two"}
    told = demo.get_config_file()  # as launching does
    assert [part["type"] for part in told["components"]].count("html") == 2
    app = App.create_app(demo)  # as launching does
    assert made == [app]
    paths = {getattr(route, "path", "") for route in app.routes}
    assert any(path.startswith("/gradio_api") for path in paths)


def test_another_thread_and_what_comes_after_make_theirs(made: list[App]) -> None:
    def elsewhere() -> None:
        with gr.Blocks(analytics_enabled=False):
            pass

    with made_later(), made_later():
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join(60)
    usual = len(made)  # Gradio makes one, or two, for a Blocks
    assert usual >= 1
    elsewhere()
    assert len(made) == 2 * usual


def test_after_a_fault_it_is_as_before(made: list[App]) -> None:
    with pytest.raises(ZeroDivisionError), made_later():
        raise ZeroDivisionError
    with gr.Blocks(analytics_enabled=False):
        pass
    assert len(made) >= 1
