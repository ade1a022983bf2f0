"""`loopviz.explore(trace)` of a TTT run: its own panels, where it is looked at, and what there is not."""

from __future__ import annotations

import functools
import re

import pytest

import loopviz
from loopviz.export import report
from loopviz.panels.ttt import TTT_PANELS, TTTFocus
from loopviz.trace import Trace
from tests.engine.test_ttt_stream import made


@functools.cache
def run() -> Trace:
    return made()


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_ttt_run_is_explored_with_its_own_panels(lang: str) -> None:
    page = loopviz.explore(run(), layer=1, head=2, lang=lang).page
    assert re.findall(r"<article data-panel='(\w+)'", page) == list(TTT_PANELS)
    for panel in TTT_PANELS.values():
        assert report._escape(panel.TEXTS[lang]["title"]) in page
        assert report._escape(panel.summary(run(), TTTFocus(1, 2, None, lang))) in page
    assert "mini_batch" in page
    assert "{" not in re.sub(r"<(script|style).*?</\1>", "", page, flags=re.S)


def test_its_figures_fold_to_those_that_are_drawn() -> None:
    from loopviz.figures.edits import apply
    from tests.app.ttt.test_service import unpacked

    told = report._data(run(), TTTFocus(), report.panels_of(run()), True)
    for name, panel in told["panels"].items():
        figure = panel["empty"]
        for ops in panel["ops"]:
            apply(figure, unpacked(ops))
        assert figure == panel["figure"], name


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"panels": ["convergence"]}, "panels: 'convergence' is no panel; there are inner_loss"),
        ({"block": 0}, "focus.block: no part of where one looks in a TTT run"),
        ({"head": -1}, "focus.head=-1"),
        ({"layer": None}, "focus.layer=None"),
        ({"lang": "fr"}, "focus.lang='fr'"),
    ],
)
def test_what_there_is_not_is_refused_by_name(how: dict, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        loopviz.explore(run(), **how)
