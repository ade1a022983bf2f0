"""Putting the app together: models, runs, page; and starting it."""

from __future__ import annotations

import os
import tempfile
from importlib import import_module

import gradio as gr
from starlette.routing import Route

from loopviz import outputs
from loopviz.app.contract import PAGES
from loopviz.app.explore import event_stream
from loopviz.app.explore.page import ExplorePage
from loopviz.app.explore.run import Registry
from loopviz.app.explore.service import Service
from loopviz.app.explore.tool import opening, tool
from loopviz.app.profile import LOCAL, Profile
from loopviz.app.server import api, assets, mcp_tools, metrics
from loopviz.app.server.request_guard import rules_of
from loopviz.app.server.theme import theme
from loopviz.app.server.web_app import made_later
from loopviz.app.sessions.mailbox import keep_mail
from loopviz.app.sessions.models import ModelRoom

DEFAULT_MODEL = "stories-loop"
OPENING = "explore"  # the page at the app's root, which makes the app
WARM_AFTER = 15.0  # seconds until the model is loaded although nobody has opened the page
WARM_SOON = 0.3  # ... and from the first page that is sent: by then all that it draws with is on its way


def build(model: str = DEFAULT_MODEL, *, profile: Profile = LOCAL) -> ExplorePage:
    """The pages, not yet served and nothing loaded; the first of them.

    Args:
        model: loaded when the app starts.
        profile: what visitors may do.
    """
    service = Service(ModelRoom(model, profile=profile), Registry())
    with made_later():
        page = ExplorePage(service)
        service.tools += [tool(service), opening(service, page.sharing.stored)]
        for name in PAGES:
            if name != OPENING:  # each by its name alone: a page more is no arrow more
                page.beside += import_module(f"loopviz.app.{name}.page").add(page.demo, service) or []
        page.beside += _for_programs(page.demo, service)
    return page


def _for_programs(demo: gr.Blocks, service: Service) -> list[Route]:
    """What the pages do, as tools for programs, by MCP too."""
    desk = api.Desk(service.tools, service.room.profile)
    api.offer(demo, desk)
    return [*api.routes(desk), *mcp_tools.routes(desk)]


def _poll_less(demo: gr.Blocks) -> None:
    """Leave the processor to the model: Gradio looks at its queue a thousand times a second, also when nobody is there.

    That is some 8 % of a core. Every 5 ms costs a fifth of that, and nobody notices these before the first word of a run;
    progress bars, looked at ten times a second, are not used here.
    """
    for name, seconds in (("sleep_when_free", 0.005), ("progress_update_sleep_when_free", 1.0)):
        if hasattr(demo._queue, name):
            setattr(demo._queue, name, seconds)


def threads(waiting: int, running: int, short: int = LOCAL.short_events) -> int:
    """Threads for the pages' events: a run holds one while it waits and is made, and no short event may wait for runs.

    Gradio has a pool of its own made only for a number that is not its usual one; else Starlette's is used, which the
    pages themselves are served from.

    Args:
        waiting, running: runs that may wait, and be made, at a time.
        short: events answered at a time that no run holds up: questions, changes of the form, Stop.
    """
    usual, wanted = 40, waiting + running + short
    return wanted + (wanted == usual)


def spare_a_core() -> None:
    """Before PyTorch is imported, which reads it then: leave a core to the server and, at home, to the browser.

    With every core taken, each matrix product waits for its slowest thread, and two threads hardly beat one on a small model
    anyway.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 2) - 1)))


def launch(
    page: ExplorePage, *, host: str = "127.0.0.1", port: int | None = None, browser: bool = False, wait: bool = True
) -> gr.Blocks:
    """Serve the page, and load its model in the background: the page is seen before PyTorch is imported.

    Args:
        port: None takes the first free one from 7860.
        wait: return only when the server has ended.
    """
    spare_a_core()
    outputs.sweep(tempfile.gettempdir())  # texts of visitors that a killed server left
    page.service.room.warm_when_asked(latest=WARM_AFTER)
    profile = page.service.room.profile
    rules = rules_of(host, os.environ, profile)
    with made_later():
        page.demo.queue(default_concurrency_limit=profile.events_at_once, max_size=profile.queue, api_open=False)
    keep_mail(page.demo._queue)
    # else, on a Space, Gradio's script asks others for fonts and about the Space
    page.demo.space_id = None
    _poll_less(page.demo)
    page.demo.launch(
        server_name=host,
        server_port=port,
        inbrowser=browser,
        prevent_thread_lock=not wait,
        state_session_capacity=profile.sessions,
        max_threads=threads(profile.queue, page.service.places.most, profile.short_events),
        theme=theme(),
        **assets.launch_options(
            page.demo,
            rules,
            event_stream.route(page.service.registry),
            *page.sharing.routes(),
            *page.beside,
            *metrics.routes(page.service, os.environ, assets.version_of(page.demo)),
            runs=page.sharing.stored.cards,
            sent=lambda: page.service.room.expect(WARM_SOON),
        ),
    )
    return page.demo
