"""The Lab page: any measurement of `loopviz.lab`, its table and plot as they come, its files."""

from __future__ import annotations

import gradio as gr

from loopviz.app.controls.examples import samples
from loopviz.app.lab.service import Laboratory
from loopviz.app.lab.tool import tool
from loopviz.app.page import ScriptedPage, page_data
from loopviz.app.sessions.job import Jobs


class LabPage(ScriptedPage):
    """The Lab page."""

    name, title = "lab", "Lab"

    def __init__(self, demo: gr.Blocks, laboratory: Laboratory) -> None:
        super().__init__(demo, laboratory, page_data("lab", laboratory.room, samples=samples()))


def add(demo: gr.Blocks, jobs: Jobs) -> None:
    """The page, as one of the app's."""
    laboratory = Laboratory(jobs)
    jobs.tools.append(tool(laboratory))
    LabPage(demo, laboratory)
