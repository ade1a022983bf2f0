"""Two sizes of Plotly.js: of one version, and the small one only where it is enough."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from plotly.offline import get_plotlyjs, get_plotlyjs_version

from loopviz.figures import plotlyjs
from loopviz.panels import PANELS, Focus
from loopviz.paths import WEB
from tests.trace.synthetic import random_trace


@pytest.fixture(autouse=True)
def afresh() -> Iterator[None]:
    plotlyjs.small.cache_clear()
    yield
    plotlyjs.small.cache_clear()


def test_the_whole_one_is_the_installed_package_s() -> None:
    assert plotlyjs.whole().decode() == get_plotlyjs()


def test_another_whole_one_is_told_apart_without_reading_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told = plotlyjs.whole_release()
    assert get_plotlyjs_version() in told
    assert str(plotlyjs.WHOLE.stat().st_size) in told
    for name, other in (("longer", plotlyjs.whole() + b"\n"), ("newer", b"/**\n* plotly.js v99.0.1\n*/")):
        (tmp_path / name).write_bytes(other)
        monkeypatch.setattr(plotlyjs, "WHOLE", tmp_path / name)
        assert plotlyjs.whole_release() != told


def test_the_small_one_is_of_the_installed_version() -> None:
    """It fails when the pinned plotly is raised: renew it as assets/vendor/README.md says."""
    assert plotlyjs.version(plotlyjs.SMALL.read_bytes()) == get_plotlyjs_version()
    assert len(plotlyjs.small()) < len(plotlyjs.whole()) / 3


@pytest.mark.parametrize("script", [b"/**\n* plotly.js (cartesian - minified) v0.0.1\n*/", None], ids=["older", "gone"])
def test_without_a_small_one_of_that_version_the_whole_one_serves(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: bytes | None
) -> None:
    if script is not None:
        (tmp_path / "small.js").write_bytes(script)
    monkeypatch.setattr(plotlyjs, "SMALL", tmp_path / "small.js")
    assert plotlyjs.small() == plotlyjs.whole()


def test_a_script_that_says_no_version_is_refused() -> None:
    with pytest.raises(ValueError, match="no version"):
        plotlyjs.version(b"alert(1)")


def test_small_is_enough_for_every_panel_but_states_in_three_dimensions() -> None:
    trace = random_trace(3, 12)
    for name, panel in PANELS.items():
        for dims in (2, 3):
            figure = panel.data(trace, Focus(dims=dims))
            assert plotlyjs.enough([figure]) == (name != "state_trajectory" or dims == 2), (name, dims)


def test_the_page_s_script_has_the_same_list() -> None:
    script = (WEB / "core" / "contract.js").read_text(encoding="utf-8")
    listed = re.search(r"SMALL_DRAWS = \[([^\]]*)\]", script)
    assert listed is not None
    assert set(re.findall(r'"(\w+)"', listed[1])) == plotlyjs.SMALL_DRAWS
