"""The table of benchmarks/page.py: what a page costs, in bare draws and in tokens of a small model."""

from __future__ import annotations

from benchmarks.page import growth
from benchmarks.page_rows import multiples, rows

NAMES = ("bytes", "rebuilt", "lag", "growth", "idle", "once", "after_stop", "stop", "rate")


def run(**values: float) -> dict[str, float]:
    usual = {"behind": 400, "answered": 50, "selected": 200, "lag": 500, "cpu": 2.0, "react": 50.0}
    return dict.fromkeys(NAMES, 1.0) | usual | values


def shown(found: list[tuple[str, str, str]], beginning: str) -> tuple[str, str]:
    ((_, value, aim),) = [row for row in found if row[0].startswith(beginning)]
    return value, aim


def test_each_run_is_told_in_its_own_draws() -> None:
    """A machine that is twice as slow for one run is no slower in draws."""
    found = multiples(
        [run(), run(behind=800, answered=100, lag=1000, react=100.0), run(behind=600)], [40.0, 50.0, 60.0]
    )
    draws = ", draws of the convergence panel"
    assert shown(found, f"the longest a panel on screen was behind{draws}") == ("8.0x", "<= 8x")
    assert shown(found, f"from a click on a word to the answer{draws}") == ("1.0x", "<= 1.5x")
    assert shown(found, f"from the last token until every panel, off screen too, shows it{draws}") == (
        "10.0x",
        "<= 14x",
    )
    assert shown(found, "one bare `Plotly.react`")[0] == "50.0 ms"
    assert shown(found, "one token of `stories-loop`")[0] == "50.00 ms"
    assert shown(found, "server CPU a token added by streaming, of that") == ("4.0 %", "<= 5 %")


def test_without_that_panel_nothing_is_said_in_draws() -> None:
    found = multiples([run(react=float("nan"))], [40.0])
    assert [row for row in found if "draw" in row[0] or "react" in row[0]] == []
    assert len(found) == 2


def test_a_run_in_which_it_was_not_drawn_does_not_count() -> None:
    found = multiples([run(), run(react=float("nan"), behind=90_000)], [40.0])
    assert shown(found, "the longest a panel on screen was behind, draws")[0] == "8.0x"


def test_the_last_row_is_the_rate_which_a_paced_run_leaves_out() -> None:
    found = rows([run(rate=100.0), run(rate=120.0)], [{"rate": 200.0, "building": 0.5}] * 2, [40.0])
    assert found[-1][:2] == ("tokens/s with the page open / the engine alone", "0.55x (110.0 / 200.0)")
    assert all(len(row) == 3 for row in found)


def test_growth_compares_the_last_fifth_with_the_second() -> None:
    draws = {"a": [(10, 99.0), (25, 10.0), (90, 20.0)], "early only": [(25, 1000.0)]}
    assert growth(draws, 100) == 2.0
    assert growth({}, 100) != growth({}, 100)  # no number
