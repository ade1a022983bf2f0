"""The models in the box: whole, small, licensed, and doing what the page says they do."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from loopviz.engine import StreamSettings, run
from loopviz.model import model_card
from loopviz.model.checkpoints.find import APART, BUNDLED, BUNDLED_FOLDER
from loopviz.model.checkpoints.load import LoadedCheckpoint, load_checkpoint
from loopviz.train import glassbox
from loopviz.train.arrows import example
from loopviz.train.card import ask_lines
from loopviz.train.evaluate import evaluate_arrows
from loopviz.train.recipe import Recipe

LARGEST = 40_000_000  # bytes of all of them, as a visitor's clone should stay small
STORY = "Once upon a time, there was a little girl named Lily. She loved to play in the park with her"


@pytest.fixture(scope="module", params=BUNDLED, ids=lambda model: model.name)
def bundled(request: pytest.FixtureRequest) -> LoadedCheckpoint:
    return load_checkpoint(request.param.name, allow_paths=False)


def test_they_are_small_together() -> None:
    folders = [BUNDLED_FOLDER / model.name for model in (*BUNDLED, *APART)]
    assert sorted(path for path in BUNDLED_FOLDER.iterdir()) == sorted(folders), "a folder that is not offered"
    assert sum(file.stat().st_size for folder in folders for file in folder.rglob("*")) < LARGEST


def test_each_loads_by_name_with_card_and_licence(bundled: LoadedCheckpoint) -> None:
    card = (bundled.path / "README.md").read_text("utf-8")
    assert card.startswith("---\nlicense: mit\n")
    assert bundled.license == "MIT"
    assert f"python -m loopviz train {bundled.name}" in card
    assert "\n".join(model_card.usage(bundled.model.config)) in card
    assert "library_name: loopviz" in card, "a snippet for plain transformers would not run"
    assert bundled.source == "bundled with LoopViz"
    assert bundled.stored == "F16"
    assert bundled.model.config.loop_blocks()
    assert not (bundled.path / "run").exists(), "a run's checkpoints belong to nobody else"


def test_each_was_made_by_a_recipe_of_ours(bundled: LoadedCheckpoint) -> None:
    stored = json.loads((bundled.path / "recipe.json").read_text("utf-8"))
    if bundled.name == "glassbox":
        assert stored["task"] == "glassbox"
        return
    assert Recipe.from_dict(stored).with_values({"threads": None}) == Recipe.load(bundled.name)


def test_c7_the_card_of_the_arrows_shows_how_to_ask_and_the_model_answers_it() -> None:
    loaded = load_checkpoint("arrows-loop")
    recipe = Recipe.load("arrows-loop")
    card = (loaded.path / "README.md").read_text("utf-8")
    assert "\n".join(ask_lines(recipe)) in card
    prompt, answer = example(recipe.arrows)
    assert f"--prompt '{prompt}'" in card
    trace = run(loaded.model, loaded.tokenizer, prompt, StreamSettings(max_new_tokens=1))
    assert trace.frames[-1]["next_text"].strip() == answer


@torch.no_grad()
def gaps(name: str, loops: int) -> torch.Tensor:
    """1 - cos(s_r, s_{r-1}) of the last token of a story, by step, float64."""
    loaded, found = load_checkpoint(name), []
    view = loaded.model.with_loop(loop_strategy="fixed_count", loop_count=loops)
    view.register_loop_hook(
        lambda event: found.append(
            1 - torch.cosine_similarity(event.state[0, -1].double(), event.previous[0, -1].double(), dim=0)
        )
    )
    view(loaded.tokenizer(STORY, return_tensors="pt").input_ids, use_cache=False)
    return torch.stack(found)


def test_stories_loop_settles_geometrically_and_its_sister_does_not() -> None:
    settling = gaps("stories-loop", 16)
    rates = (settling[3:12] / settling[2:11]).tolist()
    assert all(rate < 0.9 for rate in rates), rates
    assert settling[11] < 1e-4
    assert gaps("stories-noinject", 24)[23] > 10 * gaps("stories-loop", 24)[23]


def test_arrows_answers_exactly_when_it_has_followed_enough() -> None:
    loaded, recipe = load_checkpoint("arrows-loop"), Recipe.load("arrows-loop")
    result = evaluate_arrows(loaded.model, recipe.arrows, (1, 4, 8, 16), 60, [7, 7, 7], dynamic=True)
    accuracy = np.array(result.accuracy)  # [hops, loops]
    for hops in range(1, 9):
        for column, loops in enumerate(result.loops):
            if loops >= hops:
                assert accuracy[hops - 1, column] >= 0.95
            elif loops <= hops - 2:
                assert accuracy[hops - 1, column] <= 0.4
    assert min(result.dynamic_accuracy) >= 0.95
    assert np.abs(np.array(result.dynamic_loops) - np.array(result.hops) - 1).max() < 0.5
    assert loaded.model.config.loop_strategy == "dynamic_stop"


def test_glassbox_is_as_exact_as_it_says() -> None:
    check = glassbox.check(load_checkpoint("glassbox").model)
    assert max(check.rate_error, check.state_error, check.fixed_point_error, check.cosine_error) < 1e-4
