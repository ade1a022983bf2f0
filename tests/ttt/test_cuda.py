"""On a GPU a TTT model computes what it computes on the CPU, in float64, by chunks and while it generates. Skipped where there is none."""

import copy
import functools
from collections.abc import Iterator

import pytest
import torch
from torch.nn import functional

from loopviz.ttt import TTTCache
from tests.model.tiny import precision

from .tiny import ALL_ON, build, close, ids


@pytest.fixture
def all_in_float64() -> Iterator[None]:
    """Each device would round transformers' float32 norms in its own way."""
    with precision(torch.float64):
        yield


pytestmark = [
    pytest.mark.usefixtures("no_gradients", "all_in_float64"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that CUDA reaches"),
]
FIELDS = [{}, {"ttt_layer_type": "mlp"}, ALL_ON, {"ttt_layer_type": "mlp", **ALL_ON}]


@pytest.mark.parametrize("fields", FIELDS)
def test_every_chunk_computes_there_what_it_computes_here(fields):
    here = build(dtype=torch.float64, **fields)
    there = copy.deepcopy(here).to("cuda")
    tokens, mine, theirs, at = ids(23, rows=3), TTTCache(here), TTTCache(there), 0
    for n in (6, 1, 1, 9, 2, 4):
        part, at = tokens[:, at : at + n], at + n
        one = here(part, past_key_values=mine).logits
        other = there(part.cuda(), past_key_values=theirs).logits
        assert other.device.type == "cuda"
        close(other.cpu(), one, 1e-9)


@pytest.mark.parametrize("fields", FIELDS)
@pytest.mark.parametrize("beams", [1, 3])
def test_generate_writes_the_same_text(fields, beams):
    here = build(dtype=torch.float64, **fields)
    there = copy.deepcopy(here).to("cuda")
    how = {"max_new_tokens": 14, "do_sample": False, "num_beams": beams}
    one = here.generate(ids(5, rows=2), attention_mask=torch.ones(2, 5, dtype=torch.long), **how)
    other = there.generate(ids(5, rows=2).cuda(), attention_mask=torch.ones(2, 5, dtype=torch.long).cuda(), **how)
    assert torch.equal(other.cpu(), one)


@pytest.mark.parametrize("fields", FIELDS)
def test_gradients_through_the_inner_steps_are_the_same(fields):
    here = build(dtype=torch.float64, **fields)
    there = copy.deepcopy(here).to("cuda")
    for model in (here, there):
        model.train()
        tokens = ids(11, rows=2).to(model.device)
        with torch.enable_grad():
            logits = model(tokens).logits[:, :-1]  # transformers' own loss is in float32
            functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
    theirs = dict(there.named_parameters())
    for name, value in here.named_parameters():
        if value.grad is not None:
            told = functools.partial("{}: {}".format, name)
            torch.testing.assert_close(theirs[name].grad.cpu(), value.grad, rtol=1e-7, atol=1e-9, msg=told)
