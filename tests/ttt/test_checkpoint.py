"""TTT checkpoints by name and folder; the one that comes along knows stories, and needs its inner loop for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from loopviz.lab.reading.positions import evaluate_positions
from loopviz.model.checkpoints.errors import CheckpointError
from loopviz.model.checkpoints.find import APART, BUNDLED_FOLDER
from loopviz.model.checkpoints.load import known_models, load_checkpoint
from loopviz.paths import ASSETS
from loopviz.train.card import usage
from loopviz.train.recipe import Recipe
from loopviz.ttt import LoadedTTT, load_ttt
from tests.ttt.tiny import DATA

LARGEST = 12_000_000  # bytes of its folder
HELD_OUT = ASSETS / "texts" / "little-stories.txt"  # no text that it was trained on


@pytest.fixture(scope="module")
def stories() -> LoadedTTT:
    return load_ttt("stories-ttt", allow_paths=False)


@pytest.fixture(scope="module")
def tokens(stories: LoadedTTT) -> Tensor:
    return stories.tokenizer(HELD_OUT.read_text("utf-8"), return_tensors="pt").input_ids[:, :1024]


def loss(stories: LoadedTTT, tokens: Tensor, inner_lr_scale: float = 1.0) -> float:
    """Nats a token, from the second one on."""
    with torch.no_grad():
        return stories.model(tokens, labels=tokens, inner_lr_scale=inner_lr_scale).loss.item()


def test_the_one_that_comes_along_is_small_licensed_and_made_by_a_recipe_of_ours(stories: LoadedTTT) -> None:
    assert stories.path == BUNDLED_FOLDER / "stories-ttt"
    assert (stories.source, stories.license) == ("bundled with LoopViz", "MIT")
    assert sum(file.stat().st_size for file in stories.path.rglob("*")) < LARGEST
    assert 2e6 < stories.model.num_parameters() < 3e6
    assert stories.model.config.ttt_layer_type == "linear"
    recipe = Recipe.load("stories-ttt")
    assert Recipe.from_dict(json.loads((stories.path / "recipe.json").read_text("utf-8"))) == recipe
    card = (stories.path / "README.md").read_text("utf-8")
    for part in ("license: mit", "python -m loopviz train stories-ttt", "\n".join(usage(recipe)), "SHA-256"):
        assert part in card


def test_it_predicts_held_out_stories_better_than_any_counts_of_their_words(stories: LoadedTTT, tokens: Tensor) -> None:
    """A text's own token counts are the best that a model without context can be given for it."""
    share = torch.bincount(tokens[0, 1:]).double() / (tokens.shape[1] - 1)
    assert loss(stories, tokens) < torch.special.entr(share).sum().item()


def test_what_it_reads_is_learned_by_its_inner_loop(stories: LoadedTTT, tokens: Tensor) -> None:
    assert loss(stories, tokens) < loss(stories, tokens, inner_lr_scale=0.0) - 0.5


def test_four_times_as_far_as_it_was_trained_it_reads_on_and_its_control_does_not(
    stories: LoadedTTT, tokens: Tensor
) -> None:
    """What the card says of windows of 1,024: attention meets distances there that it never saw, TTT does not."""
    control = load_checkpoint("stories-attention", allow_paths=False).model
    near, far = (
        [evaluate_positions(model, tokens[0].numpy(), length, 4).mean for model in (stories.model, control)]
        for length in (255, 1023)
    )
    assert abs(far[0] - near[0]) < 0.15
    assert far[1] > near[1] + 0.3
    assert far[0] < far[1]


def test_it_writes_words(stories: LoadedTTT) -> None:
    text = "Once upon a time, there was a little"
    ids = stories.tokenizer(text, return_tensors="pt").input_ids
    said = stories.model.generate(ids, max_new_tokens=40, do_sample=False)[0, ids.shape[1] :]
    words = stories.tokenizer.decode(said).split()
    known = set(HELD_OUT.read_text("utf-8").split())
    assert len(words) >= 15
    assert sum(word in known for word in words) > len(words) / 2, words


def test_a_half_stored_model_computes_its_inner_loop_in_float32(stories: LoadedTTT) -> None:
    half = load_ttt("stories-ttt", dtype=torch.bfloat16).model
    assert half.model.ttt_layers[0].W1.dtype == torch.bfloat16
    assert half.model.ttt_layers[0].inner_dtype == torch.float32


def test_it_is_not_offered_where_loops_are_and_refused_there_by_name() -> None:
    assert not {model.name for model in APART} & set(known_models())
    with pytest.raises(CheckpointError, match=r"model_type='ttt' in stories-ttt/config.json: a TTT model.*load_ttt"):
        load_checkpoint("stories-ttt", allow_paths=False)


def test_its_control_is_a_plain_llama() -> None:
    control = load_checkpoint("stories-attention", allow_paths=False)
    assert control.license == "MIT"
    assert not control.model.config.loop_blocks()
    with pytest.raises(CheckpointError, match="model_type='loop_llama': a TTT model's configuration says 'ttt'"):
        load_ttt("stories-attention")


def test_a_folder_without_a_tokenizer_and_a_name_that_nobody_knows(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no tokenizer.json"):
        load_ttt(DATA / "linear")
    with pytest.raises(CheckpointError, match="no such file or folder"):
        load_ttt(tmp_path / "none")
    with pytest.raises(CheckpointError, match="files of this machine are not open here"):
        load_ttt(DATA / "linear", allow_paths=False)
