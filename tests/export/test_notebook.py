"""``loopviz.explore``: a page in a frame that cannot touch the notebook, made without torch or a server."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from typing import Any

import pytest

import loopviz
from loopviz.export import report
from loopviz.panels import PANELS, Focus
from tests.export.test_report import hostile
from tests.trace.synthetic import random_trace


class Frame(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_a_notebook_shows_the_report_in_a_sandboxed_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "_plotly", lambda small: "")
    trace = hostile()
    shown = loopviz.explore(trace, token=2, lang="zh", height=500)
    ((tag, attributes),) = Frame(shown._repr_html_()).found
    assert tag == "iframe"
    assert attributes["srcdoc"] == shown.page == report.to_html(trace, Focus(token=2, lang="zh"))
    assert attributes["sandbox"].split() == ["allow-scripts", "allow-downloads"], "not of the notebook's origin"
    assert attributes["height"] == "500"


def test_panels_and_saving(tmp_path: Any) -> None:
    trace = random_trace(1, 3)
    shown = loopviz.explore(trace, panels=["convergence"], metric="kl", replay=False)
    assert "Explorer(Trace" in repr(shown)
    shown.save(tmp_path / "r.html")
    report.save(trace, tmp_path / "s.html", Focus(metric="kl"), panels=["convergence"], replay=False)
    assert (tmp_path / "r.html").read_bytes() == (tmp_path / "s.html").read_bytes()
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert [name for name in PANELS if f"data-panel='{name}'" in page] == ["convergence"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"panels": ["speed"]}, "'speed' is no panel"),
        ({"colour": "red"}, "unknown keys colour"),
        ({"metric": "speed"}, "focus.metric='speed'"),
        ({"height": "tall"}, "height='tall'"),
        ({"height": 3}, "height=3"),
    ],
)
def test_what_cannot_be_shown_is_refused_at_once_by_name(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        loopviz.explore(random_trace(1, 2), **given)


def test_a_path_is_no_trace() -> None:
    with pytest.raises(ValueError, match=r"str where a loopviz\.trace\.Trace belongs"):
        loopviz.explore("run.loopviz")


def test_importing_loopviz_stays_light_and_exploring_needs_no_torch() -> None:
    code = (
        "import sys, loopviz\n"
        "heavy = {'torch', 'pandas', 'plotly', 'gradio', 'numpy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert 'explore' in dir(loopviz) and not hasattr(loopviz, 'nothing')\n"
        "assert loopviz.explore.__module__ == 'loopviz.export.notebook'\n"
        "assert not {'torch', 'gradio', 'transformers'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
