"""Loss by place in the context: against a pass a window, what is refused, an inner loop that is switched off."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from loopviz.lab.reading.positions import evaluate_positions, groups
from loopviz.model import LoopLlamaConfig, LoopLlamaForCausalLM
from loopviz.ttt import TTTConfig, TTTForCausalLM

SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "bos_token_id": None,
    "eos_token_id": None,
}
IDS = np.random.default_rng(0).integers(0, 40, 200)


@pytest.fixture
def models():
    torch.manual_seed(0)
    learns = TTTForCausalLM(TTTConfig(**SIZES, mini_batch_size=4, initializer_range=0.5))
    attends = LoopLlamaForCausalLM(LoopLlamaConfig(**SIZES, initializer_range=0.5, max_position_embeddings=32))
    return {"ttt": learns.eval(), "attention": attends.eval()}


def test_groups_double_and_end_with_the_window():
    assert groups(256) == (16, 32, 64, 128, 256)
    assert groups(40) == (16, 32, 40)
    assert groups(16) == (16,)
    assert groups(5) == (5,)


@pytest.mark.parametrize("kind", ["ttt", "attention"])
@torch.no_grad()
def test_losses_are_those_of_a_pass_a_window(kind, models):
    model, length = models[kind], 48  # longer than the attention's own context: it is measured there too
    found = evaluate_positions(model, IDS, length, batch=1)
    losses = []
    for start in range(0, 192, length):
        tokens = torch.from_numpy(IDS[start : start + length + 1])[None]
        losses.append(F.cross_entropy(model(tokens[:, :-1]).logits[0], tokens[0, 1:], reduction="none"))
    by_place = torch.stack(losses).double().mean(0)
    assert (found.length, found.until) == (48, (16, 32, 48))
    assert found.tokens == (4 * 16, 4 * 16, 4 * 16)
    expected = [by_place[a:b].mean().item() for a, b in ((0, 16), (16, 32), (32, 48))]
    assert found.loss == pytest.approx(expected, abs=1e-5)
    assert found.mean == pytest.approx(by_place.mean().item(), abs=1e-5)
    assert found.inner_lr_scale == (1 if kind == "ttt" else None)


def test_without_learning_nothing_of_the_context_is_used(models):
    """No convolution, no inner step: what was read before changes nothing, so every token's loss follows from itself."""
    off = evaluate_positions(models["ttt"], IDS, 48, batch=4, inner_lr_scale=0.0)
    apart = evaluate_positions(models["ttt"], IDS[:193], 4, batch=4, inner_lr_scale=0.0)
    assert off.inner_lr_scale == 0
    assert off.mean == pytest.approx(apart.mean, abs=1e-5)
    assert evaluate_positions(models["ttt"], IDS, 48, batch=4).mean != pytest.approx(off.mean, abs=1e-3)


def test_what_cannot_be_measured_is_refused_by_name(models):
    with pytest.raises(ValueError, match="length=200: the text has only 200 tokens, and one window needs 201"):
        evaluate_positions(models["ttt"], IDS, 200, batch=1)
    with pytest.raises(ValueError, match=r"inner_lr_scale=0\.5: only a TTT model"):
        evaluate_positions(models["attention"], IDS, 16, batch=1, inner_lr_scale=0.5)
