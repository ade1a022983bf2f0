"""Putting the app together: models, runs, page; and starting it."""

from __future__ import annotations

import os

import gradio as gr

from loopviz.app import server
from loopviz.app.explore import ExplorePage
from loopviz.app.live import Registry
from loopviz.app.models import ModelRoom
from loopviz.app.service import Service
from loopviz.app.theme import theme

DEFAULT_MODEL = "smollm2-135m-instruct"


def build(model: str = DEFAULT_MODEL, *, local: bool = True) -> ExplorePage:
    """The page, not yet served and nothing loaded.

    Args:
        model: loaded when the app starts.
        local: whether visitors may name folders and files of this machine.
    """
    return ExplorePage(Service(ModelRoom(model, local=local), Registry()))


def launch(
    page: ExplorePage, *, host: str = "127.0.0.1", port: int | None = None, browser: bool = False, wait: bool = True
) -> gr.Blocks:
    """Serve the page, and load its model in the background: the page can be seen before PyTorch is imported.

    Args:
        port: None takes the first free one from 7860.
        wait: return only when the server has ended.
    """
    # Read by PyTorch when it is imported. A core is left to the server and, at home, to the browser: with every core
    # taken, each matrix product waits for its slowest thread, and two threads hardly beat one on a small model anyway.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 2) - 1)))
    page.service.room.warm()
    page.demo.queue(default_concurrency_limit=4)
    # Gradio looks at its queue a thousand times a second, also when nobody is there: some 8 % of a core, taken from the
    # model. Fifty times a second starts a run as promptly as anyone can notice.
    if hasattr(page.demo._queue, "sleep_when_free"):
        page.demo._queue.sleep_when_free = 0.02
    page.demo.launch(
        server_name=host,
        server_port=port,
        inbrowser=browser,
        prevent_thread_lock=not wait,
        theme=theme(),
        **server.launch_options(),
    )
    return page.demo
