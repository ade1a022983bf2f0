"""The Learn page: a list of lessons, and the one that is open."""

from __future__ import annotations

from typing import Any

import gradio as gr
from starlette.routing import Route

from loopviz.app.learn.service import Lessons
from loopviz.app.page import ScriptedPage, page_data
from loopviz.app.sessions.job import Jobs
from loopviz.app.sessions.models import ModelRoom
from loopviz.figures import theme
from loopviz.lessons.bundled import bundled
from loopviz.lessons.measurements import MEASUREMENTS


def entries() -> list[dict[str, Any]]:
    """The lessons of the list, without their steps: a lesson is asked for when it is opened."""
    same = ("id", "title", "about", "minutes", "version")
    return [{**{name: lesson[name] for name in same}, "steps": len(lesson["steps"])} for lesson in bundled().values()]  # type: ignore[literal-required]


def data(room: ModelRoom) -> dict[str, Any]:
    """What the page's script is told once."""
    shown = {what: measurement.shown for what, measurement in MEASUREMENTS.items()}
    looks = {"colours": theme.SETUP_COLOURS, "dashes": theme.SETUP_DASHES}
    return page_data("learn", room, lessons=entries(), shown=shown, **looks)


class LearnPage(ScriptedPage):
    """The Learn page."""

    name, title = "learn", "Learn"
    element_id = "lv-lessons"  # Explore's place for tour and glossary has the page's own name

    def __init__(self, demo: gr.Blocks, lessons: Lessons) -> None:
        super().__init__(demo, lessons, data(lessons.room))


def add(demo: gr.Blocks, jobs: Jobs) -> list[Route]:
    """The page, as one of the app's; its routes beside Gradio's."""
    lessons = Lessons(jobs)
    LearnPage(demo, lessons)
    return lessons.handing.routes()
