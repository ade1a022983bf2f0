"""A model's skeleton says of the model what the model says, weighs next to nothing, and computes nothing."""

from __future__ import annotations

import pytest
import torch

from loopviz.model.packed import quantization_of
from loopviz.model.precision import held_in, held_words, lower, weight_bytes, weight_count
from loopviz.model.skeleton import from_skeleton, skeleton_of
from tests.engine import tiny

LOOP = {"loop_layers": (1, 2), "loop_count": 3}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int8])
def test_it_is_told_of_as_the_model_is(dtype: torch.dtype) -> None:
    model = tiny.model(**LOOP, loop_norm=True, exit_selection="gate")
    model = model if dtype is torch.float32 else lower(model, dtype)
    found = from_skeleton(skeleton_of(model))
    assert {name: (value.shape, value.dtype) for name, value in found.state_dict().items()} == {
        name: (value.shape, value.dtype) for name, value in model.state_dict().items()
    }
    for tell in (weight_count, weight_bytes, held_in, held_words, quantization_of):
        assert tell(found) == tell(model)
    assert found.with_loop(loop_count=5).config.to_dict() == model.with_loop(loop_count=5).config.to_dict()
    with pytest.raises(ValueError, match="loop_count=0"):
        found.with_loop(loop_count=0)


def test_it_has_none_of_the_numbers_and_one_tensor_stays_one() -> None:
    model = tiny.model(**LOOP, tie_word_embeddings=True)
    found = from_skeleton(skeleton_of(model))
    assert all(value.is_meta for value in found.state_dict().values())
    assert found.lm_head.weight is found.model.embed_tokens.weight
    assert not found.training
    for p in model.parameters():
        p.data.fill_(0.123456)
    assert skeleton_of(model).count(torch.tensor(0.123456).numpy().tobytes()) == 0
    with pytest.raises((NotImplementedError, RuntimeError)):
        found(torch.tensor([[1, 2]])).logits.sum().item()
