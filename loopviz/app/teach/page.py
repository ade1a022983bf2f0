"""The Teach page: its form, and what its script is told once."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import gradio as gr
from starlette.routing import Route

from loopviz.app.contract import FILES
from loopviz.app.controls.examples import OFFERS, OWN, samples
from loopviz.app.page import ScriptedPage, page_data
from loopviz.app.sessions.job import Jobs
from loopviz.app.sessions.models import ModelRoom
from loopviz.app.teach.service import Teaching
from loopviz.paths import install_hint
from loopviz.train.teach_form import KINDS, NUMBERS, TEMPLATE_CHOICES


def data(room: ModelRoom) -> dict[str, Any]:
    """What the page's script is told once."""
    fields = [
        {
            "name": number.name,
            "kind": "whole" if number.whole else "number",
            "low": number.low,
            "high": number.high,
            "value": number.value,
        }
        for number in NUMBERS
    ]
    return page_data(
        "teach",
        room,
        teaches=room.profile.teaches,
        able=find_spec("peft") is not None,
        install=install_hint("teach"),
        fields=fields,
        kinds=list(KINDS),
        prompt_templates=list(TEMPLATE_CHOICES),
        samples=samples(),
        prompts={offer.name: offer.examples[0] for offer in (*OFFERS, OWN)},
        limit=room.profile.text_characters,
        file=f"{FILES}/teach/{{run}}/adapter",
    )


class TeachPage(ScriptedPage):
    """The Teach page."""

    name, title = "teach", "Teach"

    def __init__(self, demo: gr.Blocks, teaching: Teaching) -> None:
        super().__init__(demo, teaching, data(teaching.room))


def add(demo: gr.Blocks, jobs: Jobs) -> list[Route]:
    """The page, as one of the app's; its routes beside Gradio's."""
    teaching = Teaching(jobs)
    TeachPage(demo, teaching)
    return teaching.routes()
