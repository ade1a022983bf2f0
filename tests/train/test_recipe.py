"""Recipes: what is refused and how it is told, round trips, the recipes that come along, draws of loop counts."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopviz.model import LoopLlamaForCausalLM
from loopviz.train import recipe as recipes
from loopviz.train.data_tasks import BATCHES
from loopviz.train.loops import draw_loops
from loopviz.train.optim import decay_start, rate
from loopviz.train.recipe import Loops, Recipe, RecipeError, Schedule
from loopviz.train.trainer import build_config, new_model

MODEL = {"hidden_size": 32, "loop_layers": [0, 1], "loop_injection": "add"}
PLAIN = {"name": "x", "task": "text", "model": MODEL, "steps": 100, "batch": 2, "schedule": {"warmup": 5}}
TTT = {**PLAIN, "model_type": "ttt", "model": {"hidden_size": 32, "num_attention_heads": 4}, "loops": None}
ARROWS = {**PLAIN, "task": "arrows", "arrows": {}, "loops": {"sampler": "hops", "max": 11}}


@pytest.mark.parametrize(
    ("base", "changes", "told"),
    [
        (PLAIN, {"steps": 0}, "steps=0: must be >= 1"),
        (PLAIN, {"steps": 2.5}, "steps=2.5: must be a whole number"),
        (PLAIN, {"steps": True}, "steps=True: must be a whole number"),
        (PLAIN, {"dropout": float("nan")}, "dropout=nan: must be a finite number"),
        (PLAIN, {"precision": "int8"}, "precision='int8': must be one of 'float32', 'bfloat16'"),
        (PLAIN, {"optimizer.lr": "fast"}, "optimizer.lr='fast': must be a finite number"),
        (PLAIN, {"optimizer.lr": 0}, "optimizer.lr=0.0: must be > 0"),
        (PLAIN, {"optimizer.rate": 1}, "optimizer.rate=1: not a field"),
        (PLAIN, {"optimizer.betas": [0.9]}, "optimizer.betas=.*list of 2"),
        (PLAIN, {"arrows.nodes": 3}, "arrows.nodes=3: .*no section 'arrows'"),
        (PLAIN, {"loops.mean": 11}, "loops.mean=11.0: must be <= loops.max=10"),
        (PLAIN, {"loops.sampler": "fixed", "loops.mean": 2.5}, "loops.mean=2.5: must be a whole number"),
        (PLAIN, {"loops.later_from": 5, "loops.later_mean": 20}, "loops.mean=20.0: must be <= loops.max=16"),
        (PLAIN, {"loops.later_from": -1}, "loops.later_from=-1: must be >= 0"),
        (PLAIN, {"loops.sampler": "hops"}, "loops.sampler='hops'"),
        (PLAIN, {"schedule.warmup": 101}, "schedule.warmup=101: must be <= steps=100"),
        (PLAIN, {"evaluation.loops": [2, 1]}, r"evaluation.loops=\(2, 1\): must be ascending"),
        (PLAIN, {"model.loop_layers": None}, "a plain one must have loops=null"),
        (PLAIN, {"loops": None}, "loops=null, .*needs loops"),
        (PLAIN, {"model.loop_layers": [[0, 0], [1, 1]]}, "one block"),
        (PLAIN, {"model.loop_strategy": "dynamic_stop"}, "must be 'fixed_count'"),
        (PLAIN, {"model.loop_injection": "none", "backprop_steps": 4}, "backprop_steps=4: without injection"),
        (PLAIN, {"task": "chess"}, "task='chess': must be one of"),
        (PLAIN, {"arrows": {}}, "arrows settings belong"),
        (ARROWS, {"arrows.arrows": 15}, "arrows.arrows=15: must be in arrows.max_hops=8..arrows.nodes - 2=14"),
        (PLAIN, {"model_type": "rnn"}, "model_type='rnn': must be one of 'loop_llama', 'ttt'"),
        (PLAIN, {"model_type": "ttt"}, "model_type='ttt' has no loop; use null"),
        (TTT, {"use": {"loop_count": 2}}, "use.loop_count: model_type='ttt' has no loop fields"),
        (TTT, {"compile": True}, "compile=True: model_type='ttt' is not compiled"),
        (TTT, {"task": "arrows", "arrows": {}}, "task='arrows': model_type='ttt' is trained on text"),
        (TTT, {"evaluation.positions": [256, 64]}, r"evaluation.positions=\(256, 64\): must be ascending"),
        (PLAIN, {"evaluation.positions": [64]}, r"evaluation.positions=\[64\]: measured of text, without a loop"),
        (ARROWS, {"loops.max": 7}, "loops.max=7: must be >= arrows.max_hops=8"),
    ],
)
def test_refusals_name_field_value_and_rule(base, changes, told):
    with pytest.raises(RecipeError, match=told):
        Recipe.from_dict(base).with_values(changes)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model.hidden_sise": 32}, "model.hidden_sise=32: not a field"),
        ({"model.vocab_size": 99}, "model.vocab_size=99: the tokenizer decides"),
        ({"model.max_position_embeddings": 64}, "model.max_position_embeddings=64: must be >= 128"),
        ({"model.max_loop_count": 9}, "model.max_loop_count=9: must be >= 10, what loops may draw"),
        ({"model.max_loop_count": 12, "loops.later_from": 9}, "model.max_loop_count=12: must be >= 16"),
        ({"use": {"loop_count": 0}}, "loop_count=0"),
        ({"model.loop_damping": 2}, "loop_damping=2"),
    ],
)
def test_the_models_fields_are_checked_before_any_data(changes, told):
    with pytest.raises(ValueError, match=told):
        build_config(Recipe.from_dict(PLAIN).with_values(changes), finished=True)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model.loop_layers": None}, "model.loop_layers=None: not a field of TTTConfig"),
        ({"model.num_key_value_heads": 4}, "model.num_key_value_heads=4: not a field of TTTConfig"),
        ({"model.mini_batch_size": 0}, "mini_batch_size=0"),
        ({"model.num_attention_heads": 3}, "num_attention_heads=3"),
        ({"model.max_position_embeddings": 64}, "model.max_position_embeddings=64: must be >= 128"),
    ],
)
def test_a_ttt_models_fields_are_checked_before_any_data(changes, told):
    with pytest.raises(ValueError, match=told):
        build_config(Recipe.from_dict(TTT).with_values(changes), finished=True)


def test_stories_ttt_and_its_control_are_of_one_size_and_trained_alike():
    ours, control = Recipe.load("stories-ttt"), Recipe.load("stories-attention")
    configs = [build_config(recipe) for recipe in (ours, control)]
    for config, recipe in zip(configs, (ours, control), strict=True):
        config.vocab_size = recipe.vocab_size
    sizes = [new_model(config).num_parameters() for config in configs]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.005)
    assert control.loops is None
    assert "loop_layers" not in control.model
    one, other = ours.to_dict(), control.to_dict()
    for name in ("name", "notes", "model", "model_type"):
        del one[name], other[name]
    assert one == other, "another seed, order, schedule or number of tokens"


def test_a_missing_field_and_a_file_that_is_no_recipe(tmp_path):
    with pytest.raises(RecipeError, match="steps: is missing"):
        Recipe.from_dict({k: v for k, v in PLAIN.items() if k != "steps"})
    with pytest.raises(RecipeError, match=r"neither a file nor one of .*stories-loop"):
        Recipe.load("stories")
    for text, told in (("{", "not JSON"), ("[]", "must be a JSON object")):
        (tmp_path / "r.json").write_text(text)
        with pytest.raises(RecipeError, match=told):
            Recipe.load(tmp_path / "r.json")


@pytest.mark.parametrize("name", recipes.names())
def test_bundled_recipes_are_whole_and_survive_json(name):
    recipe = Recipe.load(name)
    assert recipe.name == name
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    build_config(recipe)


def test_the_control_has_as_many_parameters_and_the_deep_one_as_many_passes():
    recipe = Recipe.load("stories-loop")
    shapes = {name: build_config(Recipe.load(f"stories-{name}")) for name in ("loop", "noinject", "plain", "deep")}
    for config in shapes.values():
        config.vocab_size = 2048
    sizes = {name: LoopLlamaForCausalLM(config).num_parameters() for name, config in shapes.items()}
    assert sizes["plain"] == pytest.approx(sizes["loop"], rel=0.001)
    assert sizes["noinject"] == pytest.approx(sizes["loop"], rel=0.001)
    drawn = [
        draw_loops(recipe.loops.at(step), np.random.default_rng([recipe.seed, BATCHES, step]))
        for step in range(recipe.steps)
    ]
    passes = sum(drawn) / len(drawn) * shapes["loop"].num_hidden_layers
    assert shapes["deep"].num_hidden_layers == pytest.approx(passes, rel=0.05)
    for name in ("noinject", "plain", "deep"):  # the same tokens in the same order, as far as a run goes
        other = Recipe.load(f"stories-{name}")
        assert (other.batch, other.length, other.seed) == (recipe.batch, recipe.length, recipe.seed)
    assert Recipe.load("stories-plain").steps == recipe.steps
    assert Recipe.load("stories-noinject").loops == recipe.loops


SAMPLERS = st.sampled_from(["fixed", "poisson", "lognormal_poisson"])


@given(SAMPLERS, st.integers(1, 1000), st.integers(0, 500), st.floats(1e-3, 50), st.integers(0, 2**32))
def test_draws_stay_in_range(sampler, mean, above, sigma, seed):
    loops = Loops(sampler, mean, sigma, mean + above)
    rng = np.random.default_rng(seed)
    for _ in range(5):
        assert 1 <= draw_loops(loops, rng) <= loops.max


@pytest.mark.parametrize("sampler", ["poisson", "lognormal_poisson"])
def test_draws_have_the_mean_and_spread_of_their_distribution(sampler):
    """E = mean; Var of 1 + Poisson(L): E[L] + Var[L], with Var[lognormal] = (exp(sigma^2) - 1) E[L]^2."""
    loops, n = Loops(sampler, mean=5.0, sigma=0.5, max=10_000), 20_000
    rng = np.random.default_rng(0)
    drawn = np.array([draw_loops(loops, rng) for _ in range(n)])
    variance = 4 + ((math.exp(0.25) - 1) * 16 if sampler == "lognormal_poisson" else 0)
    assert drawn.mean() == pytest.approx(5, abs=5 * math.sqrt(variance / n))
    assert drawn.var() == pytest.approx(variance, rel=0.1)


def test_hops_draws_cover_hops_to_extra_more():
    loops, rng = Loops("hops", max=11, extra=3), np.random.default_rng(0)
    assert {draw_loops(loops, rng, hops=2) for _ in range(200)} == {2, 3, 4, 5}
    assert {draw_loops(loops, rng, hops=10) for _ in range(200)} == {10, 11}
    with pytest.raises(ValueError, match="hops=None"):
        draw_loops(loops, rng)


@settings(max_examples=50)
@given(
    st.sampled_from(["cosine", "trapezoid"]), st.integers(1, 300), st.floats(0, 1), st.floats(0.01, 1), st.floats(0, 1)
)
def test_schedules_rise_never_exceed_one_and_end_at_final(name, steps, warm, decay, final):
    schedule = Schedule(name, warmup=int(warm * (steps - 1)), decay=decay, final=final)
    rates = [rate(schedule, step, steps) for step in range(steps)]
    assert all(0 <= x <= 1 + 1e-12 for x in rates)
    if schedule.warmup < steps - 1:  # else the last step is the fall's as well: there is no top
        assert max(rates) == pytest.approx(rates[schedule.warmup])
    assert rates[: schedule.warmup] == sorted(rates[: schedule.warmup])
    after = rates[schedule.warmup :]
    assert all(b <= a + 1e-12 for a, b in pairwise(after))
    if len(after) >= 2 and (name == "cosine" or decay_start(schedule, steps) < steps - 1):
        assert rates[-1] == pytest.approx(final)
