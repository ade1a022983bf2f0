"""The numbers of loops a model was trained at: as its recipe says, nothing where none does; and their place in a figure."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import plotly.graph_objects as go
import pytest

from loopviz.lab import TASKS
from loopviz.lab.kept import read_kept
from loopviz.lab.trained import mark, of_recipe, trained_loops
from loopviz.paths import ASSETS

LATER = {"sampler": "lognormal_poisson", "mean": 5.0, "max": 12, "later_from": 100, "later_mean": 8.0, "later_max": 16}


@pytest.mark.parametrize(
    ("recipe", "ends"),
    [
        ({"steps": 50, "loops": LATER}, (1, 12)),
        ({"steps": 200, "loops": LATER}, (1, 16)),
        ({"loops": {"sampler": "poisson", "mean": 4.0, "max": 10}}, (1, 10)),
        ({"loops": {"sampler": "fixed", "mean": 4.0, "max": 10}}, (4, 4)),
        ({"loops": {"sampler": "hops", "mean": 4.0, "max": 13}}, None),
        ({"loops": None}, None),
        ({"loops": {"sampler": "poisson", "max": "many"}}, None),
        ({"loops": {"sampler": "poisson", "max": True}}, None),
        ({}, None),
        ([], None),
        (None, None),
    ],
)
def test_b11_the_trained_range_is_what_the_recipe_says(recipe: Any, ends: tuple[int, int] | None) -> None:
    assert of_recipe(recipe) == ends


def test_b11_it_is_known_of_the_bundled_model_and_of_none_that_says_nothing(tmp_path) -> None:
    def of(name: str) -> Any:
        return trained_loops(SimpleNamespace(name=name))  # type: ignore[arg-type]

    assert of("stories-loop") == (1, 16)
    assert of("glassbox") is None
    assert of(str(tmp_path)) is None
    (tmp_path / "recipe.json").write_text("{", encoding="utf-8")
    assert of(str(tmp_path)) is None
    (tmp_path / "recipe.json").write_text('{"loops": {"sampler": "poisson", "max": 9}}', encoding="utf-8")
    assert of(str(tmp_path)) == (1, 9)


def test_b11_the_range_is_marked_as_far_as_the_axis_goes_and_not_where_it_is_unknown() -> None:
    figure = go.Figure(go.Scatter(x=[2, 4, 24], y=[3, 2, 2]))
    assert mark(go.Figure(figure), None, "en").layout.shapes == ()
    [shape] = mark(go.Figure(figure), (1, 16), "en").layout.shapes
    assert (shape.x0, shape.x1, shape.label.text) == (2, 16, "trained: 1 to 16 loops")
    [shape] = mark(go.Figure(figure), (1, 99), "zh").layout.shapes
    assert (shape.x0, shape.x1) == (2, 24)
    assert "99" in shape.label.text
    assert mark(go.Figure(), (1, 16), "en").layout.shapes == ()


def test_b11_tasks_that_say_their_axis_is_loops_have_whole_ticks_on_it() -> None:
    """A16, its kind: loops are whole numbers."""
    for task in TASKS.values():
        path = ASSETS / "runs" / f"lab-{task.name}.json"
        if not task.over_loops or not path.is_file():
            continue
        kept = read_kept(path, task)
        axis = task.plot(kept.frame, "en").layout.xaxis
        loops = sorted({row["loops"] for row in kept.rows})
        assert axis.tickvals is not None or axis.dtick == 1 or axis.tickformat == "d", task.name
        assert all(float(tick) in map(float, loops) for tick in axis.tickvals or ()), task.name
