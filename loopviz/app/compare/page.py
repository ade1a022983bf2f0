"""The Compare page: two to six configurations on the same prompt, side by side."""

from __future__ import annotations

from typing import Any

import gradio as gr

from loopviz.app import controls as st
from loopviz.app.compare import recorded
from loopviz.app.compare.opening import continuation
from loopviz.app.compare.request import LEAST, MOST, NAME_LIMIT, SWEEP, SWEEP_LEAST, SWEEP_MOST
from loopviz.app.compare.service import Comparisons
from loopviz.app.compare.tool import tool
from loopviz.app.controls.examples import OFFERS, OWN
from loopviz.app.controls.presets import PRESETS
from loopviz.app.page import ScriptedPage, page_data
from loopviz.app.sessions.job import Jobs
from loopviz.app.sessions.models import ModelRoom
from loopviz.app.sessions.ttt_models import DEFAULT as OTHER
from loopviz.figures import theme


def _data(room: ModelRoom) -> dict[str, Any]:
    offers = {
        offer.name: {"examples": offer.examples, "continuation": continuation(offer.name)} for offer in (*OFFERS, OWN)
    }
    return page_data(
        "compare",
        room,
        offers=offers,
        presets=[{"name": preset.name, "values": preset.values} for preset in PRESETS],
        plain=st.NEUTRAL,
        groups=st.LOOP_GROUPS,
        limits={
            "least": LEAST,
            "most": MOST,
            "name": NAME_LIMIT,
            "sweep": SWEEP,
            "sweep_least": SWEEP_LEAST,
            "sweep_most": SWEEP_MOST,
        },
        other=OTHER,
        recorded=recorded.cards(),
        colours=theme.SETUP_COLOURS,
        dashes=theme.SETUP_DASHES,
        symbols=theme.SETUP_SYMBOLS,
    )


class ComparePage(ScriptedPage):
    """The Compare page."""

    name, title = "compare", "Compare"

    def __init__(self, demo: gr.Blocks, comparisons: Comparisons) -> None:
        super().__init__(demo, comparisons, _data(comparisons.room))


def add(demo: gr.Blocks, jobs: Jobs) -> None:
    """The page, as one of the app's."""
    comparisons = Comparisons(jobs)
    jobs.tools.append(tool(comparisons))
    ComparePage(demo, comparisons)
