"""The TTT page: its pictures' words, formulas and lines of code; what its script is told once."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import gradio as gr
from starlette.routing import Route

from loopviz.app.controls.examples import STORIES
from loopviz.app.page import ScriptedPage, locate, page_data
from loopviz.app.sessions.job import Jobs
from loopviz.app.sessions.models import ModelRoom
from loopviz.app.ttt.service import MOST_SCALE, PACES, TTT
from loopviz.engine.engine import CONTROL
from loopviz.panels.ttt import TTT_PANELS, attention, forgetting, rules
from loopviz.trace.schema import RULE_WORDS

WORDS = ("title", "question", "how", "source")


def entry(panel: ModuleType) -> dict[str, Any]:
    """A picture as the page's script takes it: its words, its formula as MathML, the lines of code that compute it."""
    from loopviz.export.report import formula

    places = [locate(reference) for reference in panel.CODE]
    return {
        "name": panel.NAME,
        "words": {lang: {key: said[key] for key in WORDS} for lang, said in panel.TEXTS.items()},
        "formulas": {lang: formula(said["formula"]) for lang, said in panel.TEXTS.items()},
        "code": [{"name": one.name, "at": f"{one.path}:{one.line}", "url": one.url} for one in places],
    }


def data(room: ModelRoom) -> dict[str, Any]:
    """What the page's script is told once."""
    shown: list[ModuleType] = []
    for panel in (*TTT_PANELS.values(), forgetting, rules):
        shown += [panel, attention] if panel.NAME == "dual" else [panel]
    panels = [entry(panel) for panel in shown]
    return page_data(
        "ttt",
        room,
        panels=panels,
        prompts=list(STORIES),
        called=room.default,
        control=CONTROL,
        rule_words=RULE_WORDS,
        most_new=room.profile.ttt_tokens,
        most_scale=MOST_SCALE,
        paces=list(PACES),
    )


class TTTPage(ScriptedPage):
    """The TTT page."""

    name, title = "ttt", "TTT"

    def __init__(self, demo: gr.Blocks, ttt: TTT) -> None:
        super().__init__(demo, ttt, data(ttt.room))


def add(demo: gr.Blocks, jobs: Jobs) -> list[Route]:
    """The page, as one of the app's; its routes beside Gradio's."""
    ttt = TTT(jobs)
    TTTPage(demo, ttt)
    return ttt.files.routes()
