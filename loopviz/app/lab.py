"""The Lab page: any measurement of `loopviz.lab`, its table and plot as they come, its files."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import gradio as gr

from loopviz.app.explore import RUNS_AT_ONCE
from loopviz.app.laboratory import Laboratory
from loopviz.app.shell import element, page_data

PATH = "/lab"


def _functions(laboratory: Laboratory) -> list[Callable[[str], str]]:
    """What the page's script may ask. Gradio marks functions, which it cannot do to methods; the script knows the names."""

    def tasks(question: str) -> str:
        return laboratory.tasks(question)

    def model(question: str) -> str:
        return laboratory.model(question)

    def look(question: str) -> str:
        return laboratory.look(question)

    def link(question: str) -> str:
        return laboratory.link(question)

    def stop(question: str) -> str:
        return laboratory.stop(question)

    def download(question: str) -> str:
        return laboratory.download(question)

    return [tasks, model, look, link, stop, download]


class LabPage:
    """The page's component and its events, on a route of `demo`.

    Args:
        demo: the app.
        laboratory: what the page does.
    """

    def __init__(self, demo: gr.Blocks, laboratory: Laboratory) -> None:
        self.laboratory = laboratory
        with demo.route("Lab", PATH, show_in_navbar=False):
            self.live = element("lab.js", page_data("lab", laboratory.room.default), _functions(laboratory), "lv-lab")
            self.live.begin(
                self._run,
                None,
                self.live,
                concurrency_limit=RUNS_AT_ONCE,
                concurrency_id="run",
                trigger_mode="multiple",
                api_visibility="private",
                show_progress="hidden",
            )
            demo.unload(self._leave)

    def _run(self, request: gr.Request, event: gr.EventData) -> Iterator[str]:
        yield from self.laboratory.run(event._data, str(request.session_hash))

    def _leave(self, request: gr.Request) -> None:
        self.laboratory.forget(str(request.session_hash))
