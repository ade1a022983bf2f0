"""The Compare page: two to six configurations on the same prompt, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from loopviz.app.asked import CARD_GROUPS, LEAST, MOST, NAME_LIMIT, PLAIN
from loopviz.app.comparison import Comparisons
from loopviz.app.explore import RUNS_AT_ONCE
from loopviz.app.library import OFFERS, OWN
from loopviz.app.presets import PRESETS
from loopviz.app.shell import element, page_data
from loopviz.panels import theme

PATH = "/compare"
# Something to measure perplexity on, for the first prompt offered with a model.
CONTINUATIONS = {
    "stories": " girl named Lily. She liked to play outside in the sun. One day, she saw a big red ball under a tree.",
    "smollm2": " lived in a quiet workshop at the edge of the town. Every morning it swept the floor and watered the plants.",
}


def _continuation(name: str) -> str:
    return next((words for start, words in CONTINUATIONS.items() if name.startswith(start)), "")


def _functions(comparisons: Comparisons) -> list[Callable[[str], str]]:
    """What the page's script may ask. Gradio marks functions, which it cannot do to methods; the script knows the names."""

    def check(question: str) -> str:
        return comparisons.check(question)

    def look(question: str) -> str:
        return comparisons.look(question)

    def stop(question: str) -> str:
        return comparisons.stop(question)

    def download(question: str) -> str:
        return comparisons.download(question)

    def opening(question: str) -> str:
        return comparisons.opening(question)

    return [check, look, stop, download, opening]


def _data(default_model: str) -> dict[str, Any]:
    offers = {
        offer.name: {"examples": offer.examples, "continuation": _continuation(offer.name)} for offer in (*OFFERS, OWN)
    }
    return page_data(
        "compare",
        default_model,
        offers=offers,
        presets=[{"name": preset.name, "values": preset.values} for preset in PRESETS],
        plain=PLAIN,
        groups=CARD_GROUPS,
        limits={"least": LEAST, "most": MOST, "name": NAME_LIMIT},
        colours=theme.SETUP_COLOURS,
        dashes=theme.SETUP_DASHES,
        symbols=theme.SETUP_SYMBOLS,
    )


class ComparePage:
    """The page's component and its events, on a route of `demo`.

    Args:
        demo: the app.
        comparisons: what the page does.
    """

    def __init__(self, demo: gr.Blocks, comparisons: Comparisons) -> None:
        self.comparisons = comparisons
        with demo.route("Compare", PATH, show_in_navbar=False):
            self.live = element("compare.js", _data(comparisons.room.default), _functions(comparisons), "lv-compare")
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
        yield from self.comparisons.run(event._data, str(request.session_hash))

    def _leave(self, request: gr.Request) -> None:
        self.comparisons.forget(str(request.session_hash))
