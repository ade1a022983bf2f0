"""The reference itself: without loops it must be transformers' Llama, else no oracle below means anything."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from .reference import Reference, resolve


def test_reference_without_loops_is_transformers_llama():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=61,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=6,
        initializer_range=0.2,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
    )
    model = LlamaForCausalLM(config).eval()
    tokens = [5, 9, 60, 1, 2]
    expected = model(torch.tensor([tokens])).logits[0]
    slow = Reference(config, model.state_dict(), {})
    whole = slow(tokens)
    torch.testing.assert_close(whole.logits, expected, atol=1e-5, rtol=1e-5)
    first = slow(tokens[:2])
    second = slow(tokens[2:], first.cache)
    torch.testing.assert_close(torch.cat((first.logits, second.logits)), expected, atol=1e-5, rtol=1e-5)
    assert whole.cache.slots(0) == [5]
    assert first.cache.tokens == 2, "reading on changed the cache that was passed in"


def test_reference_of_an_uncached_serial_loop_is_an_unrolled_llama():
    torch.manual_seed(1)
    shape = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 40, "initializer_range": 0.2}
    deep = LlamaForCausalLM(LlamaConfig(num_hidden_layers=5, num_attention_heads=4, **shape)).eval()
    for twin, layer in ((3, 1), (4, 2)):
        deep.model.layers[twin].load_state_dict(deep.model.layers[layer].state_dict())
    # Layers 0, 1, 2, 1, 2: two steps of the block (1, 2) of a three-layer model.
    shallow = LlamaConfig(num_hidden_layers=3, num_attention_heads=4, **shape)
    loop = {"loop_layers": (1, 2), "loop_count": 2, "virtual_attention_mode": "serial"}
    tokens = [5, 9, 60, 1]
    result = Reference(shallow, deep.state_dict(), loop)(tokens)
    torch.testing.assert_close(result.logits, deep(torch.tensor([tokens])).logits[0], atol=1e-5, rtol=1e-5)
    assert result.steps == [2]
    assert result.reasons == ["count"]
    assert result.cache.slots(1) == [4, 4]


def test_resolve_reads_defaults_lists_and_the_floor():
    first, second = resolve({"loop_layers": [(0, 0), (2, 3)], "loop_count": [2, 4]})
    assert (first["a"], first["b"], first["loop_count"]) == (0, 0, 2)
    assert (second["a"], second["b"], second["loop_count"]) == (2, 3, 4)
    assert first["floor"] == 5
    merging = {"loop_layers": (0, 0), "kv_cache_mode": "merge_strategy"}
    assert resolve(merging)[0]["floor"] == 1
    assert resolve({**merging, "min_loop_count": 5})[0]["floor"] == 5
