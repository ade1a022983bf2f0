"""The model that is known exactly: measured rate, states and fixed point against the closed form."""

from __future__ import annotations

import math

import pytest
import torch

from loopviz.model import LoopLlamaForCausalLM
from loopviz.train import glassbox

RATES = [0.75, 0.5, 0.9, 0.123]


@pytest.mark.parametrize("rate", RATES)
def test_measured_equals_exact(rate):
    loops = min(16, int(math.log(3e-3) / math.log(rate)))
    check = glassbox.check(glassbox.build(rate), loops)
    assert check.rate == pytest.approx(rate)
    assert len(check.rates) == loops
    assert check.rate_error < 1e-4
    assert check.state_error < 1e-5
    assert check.fixed_point_error < 1e-5
    assert check.cosine_error < 1e-5


@pytest.mark.parametrize("rate", RATES)
def test_it_turns_to_the_next_symbol_when_the_formula_says(rate):
    """The direct lens changes its mind at the first r with rate^r < 1/2."""
    model, tokenizer = glassbox.build(rate), glassbox.make_tokenizer()
    text, following = "abyz059", "bczA160".lower()
    ids = tokenizer(text, return_tensors="pt").input_ids
    for r in range(1, 12):
        if rate**r == 0.5:
            continue  # a tie
        with torch.no_grad():
            said = tokenizer.decode(model.with_loop(loop_count=r)(ids).logits[0].argmax(-1))
        assert said == (following if rate**r < 0.5 else text)


def test_the_check_notices_a_model_that_is_not_the_formula():
    model = glassbox.build()
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.normal_(0, 0.05)
        model.model.layers[0].mlp.up_proj.weight.normal_()
        model.model.layers[0].mlp.gate_proj.weight.normal_()
    check = glassbox.check(model)
    assert check.state_error > 1e-3
    assert check.rate_error > 1e-3


def test_saved_it_is_the_same_and_its_cache_too(tmp_path):
    check = glassbox.save(tmp_path)
    assert max(check.rate_error, check.state_error, check.cosine_error) < 1e-4
    model = LoopLlamaForCausalLM.from_pretrained(str(tmp_path))
    tokenizer = glassbox.make_tokenizer()
    ids = tokenizer("xyz a!", return_tensors="pt").input_ids
    assert tokenizer.convert_ids_to_tokens(ids[0]) == ["x", "y", "z", "<unk>", "a", "<unk>"]
    out = model.generate(tokenizer("x", return_tensors="pt").input_ids, max_new_tokens=4, do_sample=False)
    assert tokenizer.decode(out[0]) == "xyzab"


def test_rates_that_do_not_contract_are_refused():
    for rate in (0.0, 1.0, -0.5):
        with pytest.raises(ValueError, match=f"rate={rate}: must be in"):
            glassbox.build(rate)
