"""What a recipe of teaching refuses, and what its loop looks like."""

from __future__ import annotations

import numpy as np
import pytest

from loopviz.train.loops import draw_loops
from loopviz.train.recipe import Loops, RecipeError
from loopviz.train.state import check_same
from loopviz.train.teach_recipe import Lora, TeachRecipe

LITTLE = {"base": "m", "loop": {"loop_layers": [1, 2]}, "loops": {"sampler": "uniform", "min": 2, "max": 5}}


def test_loops_are_drawn_from_the_range_each_equally_often():
    loops = TeachRecipe.from_dict(LITTLE).loops
    drawn = np.bincount([draw_loops(loops, np.random.default_rng(i)) for i in range(2000)])
    assert drawn[:2].sum() == 0
    assert len(drawn) == 6
    assert drawn[2:].min() > 420
    with pytest.raises(RecipeError, match=r"loops\.min=4: must be <= loops\.max=3"):
        Loops(sampler="uniform", min=4, max=3)
    with pytest.raises(RecipeError, match="knows no later"):
        Loops(sampler="uniform", later_from=3)


def test_every_count_has_keys_and_values_of_its_own_unless_it_is_said_otherwise():
    recipe = TeachRecipe.from_dict(LITTLE)
    assert recipe.fields["virtual_layer_count"] == 5
    assert recipe.fields["max_loop_count"] == 8, "the evaluation's largest"
    assert recipe.fields["loop_layers"] == (1, 2)
    other = recipe.with_values({"loop.virtual_layer_count": 2, "loop.loop_damping": 0.5})
    assert (other.fields["virtual_layer_count"], other.fields["loop_damping"]) == (2, 0.5)


def test_a_run_goes_on_under_its_own_settings_alone():
    recipe = TeachRecipe.from_dict(LITTLE)
    check_same(recipe.with_values({"threads": 2, "checkpoint_every": 9}), recipe.to_dict(), 20)
    for change in ({"lora.rank": 4}, {"base_sha256": "f"}, {"loops.max": 4}, {"backprop_steps": 1}):
        with pytest.raises(RecipeError, match=next(iter(change)).partition(".")[0]):
            check_same(recipe.with_values(change), recipe.to_dict(), 20)
    longer = recipe.with_values({"steps": 400})
    check_same(longer, recipe.to_dict(), 100)
    with pytest.raises(RecipeError, match="steps=400"):
        check_same(longer, recipe.to_dict(), 190)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lora.targets": []}, "lora.targets"),
        ({"lora.targets": ["q_proj", "q_proj"]}, "none twice"),
        ({"lora.alpha": 0}, "lora.alpha"),
        ({"lora.dropout": 1}, "lora.dropout"),
        ({"loop.loop_layers": None}, "one block"),
        ({"loop.loop_layers": [[0, 0], [2, 2]]}, "one block"),
        ({"loop.speed": 1}, "loop.speed=1: not a loop field"),
        ({"loop.layer_chooser": "influence"}, "use 'none'"),
        ({"loops.sampler": "hops"}, "only arrows problems"),
        ({"loops.max": 10**6}, "loop_count"),
        ({"evaluation.positions": [8]}, "evaluation.positions"),
        ({"schedule.warmup": 300}, "schedule.warmup"),
        ({"kind": "songs"}, "kind"),
    ],
)
def test_what_it_refuses(change, said):
    with pytest.raises(RecipeError, match=said):
        TeachRecipe.from_dict(LITTLE).with_values(change)


def test_the_adapter_is_the_articles():
    assert (Lora().rank, Lora().alpha, Lora().dropout) == (8, 8.0, 0.1)
    assert Lora().targets == ("q_proj", "k_proj", "v_proj", "o_proj")
