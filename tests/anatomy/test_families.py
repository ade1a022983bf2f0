"""The published sizes are those that were published, and what they cost is what a model of that shape costs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from loopviz.anatomy import families
from loopviz.anatomy.llama import KVCache, LlamaForCausalLM
from tests.anatomy.pairs import configuration, pair, random_configuration, tokens

# Numbers in the released files.
RELEASED = {
    "LLaMA 7B": 6_738_415_616,
    "LLaMA 13B": 13_015_864_320,
    "LLaMA 33B": 32_528_943_616,
    "LLaMA 65B": 65_285_660_672,
    "Llama 2 7B": 6_738_415_616,
    "Llama 2 13B": 13_015_864_320,
    "Llama 2 34B": 33_743_970_304,  # of Code Llama 34B
    "Llama 2 70B": 68_976_648_192,
    "Llama 3 8B": 8_030_261_248,
    "Llama 3 70B": 70_553_706_496,
    "Llama 3.1 405B": 405_853_388_800,
}


@pytest.mark.parametrize("name", families.SIZES)
def test_parameters_are_those_of_the_released_files(name):
    assert families.parameters(families.SIZES[name]) == RELEASED[name]


@pytest.mark.parametrize("name", families.SIZES)
def test_parameters_are_those_of_a_model_of_that_shape(name):
    size = families.SIZES[name]
    with torch.device("meta"):
        model = LlamaForCausalLM(SimpleNamespace(**vars(size), rms_norm_eps=1e-5))
    assert families.parameters(size) == sum(weight.numel() for weight in model.parameters())


def test_every_size_says_where_its_numbers_stand_and_has_whole_heads():
    for size in families.SIZES.values():
        assert "arXiv:" in size.source
        assert size.hidden_size % size.num_attention_heads == 0
        assert size.num_attention_heads % size.num_key_value_heads == 0
        assert size.generation in (1, 2, 3)


def test_sources_say_which_number_stands_where():
    """Table 2 of LLaMA has no context, and Code Llama's theta is another; "over 15 T" is no paper's figure."""
    sources = {name: size.source for name, size in families.SIZES.items()}
    assert "context, ff and theta: the released code (max_seq_len" in sources["LLaMA 7B"]
    assert "section 2.2 (vocabulary)" in sources["Llama 2 7B"]
    assert "whose theta of 1,000,000 is not taken" in sources["Llama 2 34B"]
    assert families.SIZES["Llama 2 34B"].rope_theta == 10_000
    for name in ("Llama 3 8B", "Llama 3 70B"):
        assert "(over 15 T): the model card" in sources[name]
        assert families.SIZES[name].tokens_or_more
    assert "15.6 T tokens" in sources["Llama 3.1 405B"]
    assert "131,072: config.json" in sources["Llama 3.1 405B"]
    assert not families.SIZES["Llama 3.1 405B"].tokens_or_more


@pytest.mark.parametrize("left_out", [True, False], ids=["left out", "None"])
def test_a_configuration_without_key_value_heads_has_one_for_every_query(left_out):
    """As `llama.py` reads it; and no bias and no tie where nothing is said of them."""
    fields = {
        "vocab_size": 67,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "rms_norm_eps": 1e-6,
    }
    config = SimpleNamespace(**fields, **({} if left_out else {"num_key_value_heads": None}))
    whole = configuration(num_key_value_heads=4)
    weights = LlamaForCausalLM(config).state_dict().values()
    assert families.parameters(config) == families.parameters(whole) == sum(weight.numel() for weight in weights)
    assert families.kv_bytes(config) == families.kv_bytes(whole)
    assert families.flops(config, 5) == families.flops(whole, 5)
    assert families.lora_total(config, 2) == families.lora_total(whole, 2)


def test_the_training_of_405b_costs_what_its_paper_says():
    """3.8e25 FLOPs, by the paper's own count of 6 a parameter and token: shape and tokens fit together."""
    size = families.SIZES["Llama 3.1 405B"]
    assert 6 * families.parameters(size) * size.tokens == pytest.approx(3.8e25, rel=0.01)


@pytest.mark.parametrize("seed", range(6))
def test_kv_bytes_are_what_the_cache_holds(seed):
    config = random_configuration(seed)
    _, ours = pair(config, torch.float32)
    past = KVCache()
    with torch.no_grad():
        ours(tokens(1, 7), past=past)
    held = sum(keys.nbytes + values.nbytes for keys, values in past.layers)
    assert 7 * families.kv_bytes(config, itemsize=4) == held


@pytest.mark.parametrize("seed", range(6))
def test_flops_of_a_token_are_what_torch_counts(seed):
    """torch counts the products of matrices that are really done, in a step with a full cache."""
    from torch.utils.flop_counter import FlopCounterMode

    config = random_configuration(seed)
    _, ours = pair(config, torch.float32)
    past = KVCache()
    with torch.no_grad():
        ours(tokens(1, 7), past=past)
        with FlopCounterMode(display=False) as counted:
            ours(tokens(1, 1), past=past)
    assert families.flops(config, context=8) == counted.get_total_flops()


def test_logits_of_the_last_place_cost_a_prompt_of_them_less():
    """LLaMA's forward answers for the last token, Llama 2's for all: the head's work and bytes grow with the prompt."""
    size = families.SIZES["Llama 2 7B"]
    last, every = families.logits_cost(size, 1), families.logits_cost(size, 4096)
    assert last == families.LogitsCost(2 * 32000 * 4096, 4 * 32000)
    assert every.bytes == 4096 * last.bytes == 524_288_000
    assert every.flops == 4096 * last.flops


def test_widths_of_the_mlp_follow_the_published_rule():
    """`multiple_of` and `ffn_dim_multiplier` of the released params.json."""
    rules = {
        "LLaMA 7B": (256, 1.0),
        "LLaMA 13B": (256, 1.0),
        "LLaMA 33B": (256, 1.0),
        "LLaMA 65B": (256, 1.0),
        "Llama 2 70B": (4096, 1.3),
        "Llama 3 8B": (1024, 1.3),
        "Llama 3 70B": (4096, 1.3),
        "Llama 3.1 405B": (4096, 1.2),
    }
    for name, (multiple, more) in rules.items():
        size = families.SIZES[name]
        assert families.swiglu_width(size.hidden_size, multiple, more) == size.intermediate_size, name


def test_lora_counts_two_thin_matrices_a_projection():
    assert families.lora_parameters(3, 5, 2) == 2 * 3 + 5 * 2
    config = configuration(head_dim=10, num_key_value_heads=1)  # q 24 x 40, k and v 24 x 10, o 40 x 24
    assert families.lora_total(config, 2) == 3 * 2 * ((24 + 40) + 2 * (24 + 10) + (40 + 24))
