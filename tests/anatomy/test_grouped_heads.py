"""Other numbers of K/V heads: more change nothing, fewer are the means, and the cache shrinks as it should."""

from __future__ import annotations

import pytest
import torch

from loopviz.anatomy import families
from loopviz.anatomy.grouped_heads import head_counts, with_kv_heads
from loopviz.checks import FieldError
from loopviz.model import LoopCache
from tests.model import tiny

IDS = torch.tensor([[5, 17, 3, 60, 22, 9]])
SHAPES = [
    {"num_attention_heads": 4, "num_key_value_heads": 2},
    {"num_attention_heads": 4, "num_key_value_heads": 4, "attention_bias": True},
    {"num_attention_heads": 6, "num_key_value_heads": 3, "hidden_size": 48, "head_dim": 10},
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mode", ["serial", "parallel", "ema"])
def test_more_heads_give_the_same_logits_and_fewer_the_mean(shape, mode):
    model = tiny.build({**tiny.LOOP, **tiny.MODES[mode]}, **shape).double()
    own, config = shape["num_key_value_heads"], model.config
    with torch.no_grad():
        before = model(IDS).logits
        for n_heads in head_counts(config):
            view = with_kv_heads(model, n_heads)
            cache = LoopCache(view.config)
            logits = torch.cat(
                [view(ids, past_key_values=cache, use_cache=True).logits for ids in (IDS[:, :4], IDS[:, 4:])], 1
            )
            assert cache.layers[1].keys.shape[1] == n_heads
            full = view(IDS, use_cache=False).logits
            if n_heads >= own:
                torch.testing.assert_close(full, before, rtol=1e-9, atol=1e-9)
            else:
                assert (full - before).abs().max() > 1e-3
            if mode == "serial":
                torch.testing.assert_close(logits, full, rtol=1e-9, atol=1e-9)
            wide = view.model.layers[0].self_attn.k_proj.weight
            if n_heads == 1:
                heads = model.model.layers[0].self_attn.k_proj.weight.unflatten(0, (own, -1))
                torch.testing.assert_close(wide, sum(heads) / own)
        assert torch.equal(model(IDS).logits, before)  # whose weights are as they were


def test_bytes_of_the_cache_follow():
    model = tiny.build(tiny.LOOP)
    whole = families.kv_bytes(model.config, 4)
    assert (
        families.kv_bytes(with_kv_heads(model, 1).config, 4) * 2
        == whole
        == families.kv_bytes(with_kv_heads(model, 4).config, 4) // 2
    )


@pytest.mark.parametrize("n_heads", [0, 3, 8])
def test_a_number_that_does_not_divide_is_refused(n_heads):
    model = tiny.build({})
    assert head_counts(model.config) == [1, 2, 4]
    with pytest.raises(FieldError, match="heads"):
        with_kv_heads(model, n_heads)


@pytest.mark.parametrize("place", ["layer", "attention"])
def test_a_compiled_layer_does_not_run_with_the_heads_it_was_compiled_with(place):
    model = tiny.build({})
    wanted = with_kv_heads(model, 1)(IDS, use_cache=False).logits
    for layer in model.model.layers:
        module = layer if place == "layer" else layer.self_attn
        module.compile(backend="eager")
    before = [layer._compiled_call_impl for layer in model.model.layers]
    assert torch.equal(with_kv_heads(model, 1)(IDS, use_cache=False).logits, wanted)
    assert [layer._compiled_call_impl for layer in model.model.layers] == before
