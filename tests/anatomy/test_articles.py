"""Every number of the three source articles that can be computed, computed: a test a claim.

1. "Reproducing the LLAMA model"; 2. "LLaMA 2 and LLaMA, line by line"; 4. "LLaMa-1/2/3, principles and source".
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from loopviz.anatomy import families, parity, rope
from loopviz.anatomy.llama import (
    KVCache,
    LlamaForCausalLM,
    LlamaMLP,
    LlamaRMSNorm,
    repeat_kv,
    rotary_frequencies,
    visible,
)
from tests.anatomy.pairs import configuration, pair, tokens

SIZES = families.SIZES


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# -- 1: the reproduction -----------------------------------------------------------------------------------------------


def test_article_1_loss_and_logits_of_the_reproduction_equal_those_of_transformers():
    """On a smaller configuration of the same kind; `loopviz anatomy check` does it on the article's own."""
    small = {"vocab_size": 1283, "hidden_size": 64, "intermediate_size": 896}
    for row in parity.compare(parity.article(**small), torch.float32):
        assert row.logits == 4 * 125 * 1283
        assert row.agrees, row.why()
        assert row.max_delta_logit < 1e-5
        assert row.loss_ours == pytest.approx(row.loss_theirs, abs=1e-5)


def test_article_1_configuration_and_batch():
    subject = parity.article()
    config, batch = subject.config, subject.batch
    assert (config.vocab_size, config.hidden_size, config.intermediate_size) == (128256, 1024, 14336)
    assert (config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads) == (4, 32, 8)
    assert config.rope_parameters["rope_theta"] == 500000.0
    assert config.head_dim == 32
    assert batch.input_ids.shape == batch.labels.shape == (4, 125)
    assert batch.attention_mask[:, :120].all()
    assert not batch.attention_mask[:, 120:].any()
    assert 100 <= batch.input_ids.min() <= batch.input_ids.max() < 50000


def test_article_1_loss_of_11_98_is_that_of_a_new_model():
    """Logits of a new head have variance 0.02^2 x 1024, so its loss is ln V and half of that more: 11.97 at V = 128256."""
    small = parity.article(vocab_size=1283, intermediate_size=128, num_hidden_layers=1)
    expected = math.log(1283) + 0.02**2 * small.config.hidden_size / 2
    assert small.config.hidden_size == 1024
    for row in parity.compare(small, torch.float32):
        assert row.loss_ours == pytest.approx(expected, abs=0.08)  # of 496 labels; half of the variance is 0.2


def test_article_1_shapes_of_the_projections():
    with torch.device("meta"):
        model = LlamaForCausalLM(parity.article().config)
    layer = model.model.layers[0]
    shapes = {name: tuple(weight.shape) for name, weight in layer.named_parameters()}
    assert shapes["self_attn.q_proj.weight"] == shapes["self_attn.o_proj.weight"] == (1024, 1024)
    assert shapes["self_attn.k_proj.weight"] == shapes["self_attn.v_proj.weight"] == (256, 1024)
    assert shapes["mlp.gate_proj.weight"] == shapes["mlp.up_proj.weight"] == (14336, 1024)
    assert shapes["mlp.down_proj.weight"] == (1024, 14336)
    assert tuple(model.lm_head.weight.shape) == (128256, 1024)
    assert len(model.model.layers) == 4


def test_article_1_repeat_kv_by_repeat_is_ours():
    x = random(2, 8, 5, 32)
    theirs = x.unsqueeze(2).repeat(1, 1, 4, 1, 1).reshape(2, 32, 5, 32)
    assert torch.equal(repeat_kv(x, 4), theirs)


def test_article_1_frequencies_and_rotation():
    exponents = torch.arange(0, 32, 2) / 32
    by_article = 1.0 / (500000.0**exponents)
    assert by_article.shape == (16,)
    torch.testing.assert_close(rotary_frequencies(parity.article().config), by_article)
    x, places = random(1, 1, 7, 32), torch.arange(7)
    angles = torch.cat([places[:, None] * by_article] * 2, dim=-1)
    turned = torch.cat((-x[..., 16:], x[..., :16]), dim=-1)
    torch.testing.assert_close(rope.rotate_halves(x, by_article, places), x * angles.cos() + turned * angles.sin())


def test_article_1_causal_mask_hides_the_future_and_padding():
    mask = torch.ones(2, 6, dtype=torch.long)
    mask[1, 4:] = 0
    by_article = torch.full((6, 6), -1e15).triu(diagonal=1).repeat(2, 1, 1, 1)
    by_article = by_article.masked_fill(mask.reshape(2, 1, 1, 6) == 0, -1e15)
    assert torch.equal(visible(mask, 6), by_article == 0)


def test_article_1_rmsnorm_brings_rms_to_one():
    x = 5 + 3 * random(4, 125, 1024)
    made = LlamaRMSNorm(1024, 1e-5)(x)
    assert (made.pow(2).mean(-1).sqrt() - 1).abs().max() < 1e-4
    by_article = x * (x.pow(2).mean(2, keepdim=True) + 1e-5).rsqrt()
    assert torch.equal(made, by_article)


def test_article_1_silu_near_zero_for_small_and_the_input_for_large():
    """Of the model's own MLP."""
    small, large = swish(torch.tensor([-20.0, 20.0], dtype=torch.float64), 1.0).tolist()
    assert abs(small) < 1e-6
    assert large == pytest.approx(20.0)
    x = torch.linspace(-10, 10, 2001, dtype=torch.float64)
    assert float(swish(x, 1.0).min()) == pytest.approx(-0.2785, abs=1e-4), "and not monotonic: it dips below zero"


# -- 2: LLaMA 2 against LLaMA ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 2, 8])
def test_article_2_repeat_kv_equals_repeat_interleave(times):
    x = random(2, 3, 5, 4)
    assert torch.equal(repeat_kv(x, times), torch.repeat_interleave(x, times, dim=1))
    if times > 1:
        assert not torch.equal(repeat_kv(x, times), x.repeat(1, times, 1, 1)), "dealt out in turn it would be another"


def test_article_2_repeat_kv_in_metas_layout_is_the_same():
    """Meta keeps `[bs, slen, n_kv_heads, head_dim]` and repeats dimension 2."""
    x = random(2, 5, 3, 4)
    metas = x[:, :, :, None, :].expand(2, 5, 3, 2, 4).reshape(2, 5, 6, 4)
    assert torch.equal(metas, torch.repeat_interleave(x, dim=2, repeats=2))
    assert torch.equal(repeat_kv(x.transpose(1, 2), 2).transpose(1, 2), metas)


def test_article_2_last_position_and_all_positions_say_the_same_next_token():
    """`output(h[:, -1, :])` and `output(h)`: for the next token there is no difference."""
    _, ours = pair(configuration())
    with torch.no_grad():
        states = ours.model(tokens(2, 9))
        torch.testing.assert_close(ours.lm_head(states[:, -1]), ours.lm_head(states)[:, -1])


def test_article_2_last_position_costs_one_token_of_the_head():
    size = SIZES["Llama 2 7B"]
    assert families.logits_cost(size, 2048).bytes == 2048 * families.logits_cost(size, 1).bytes


# -- 4: sizes ----------------------------------------------------------------------------------------------------------


def test_article_4_llama_1_sizes():
    """7B, 13B, 32B, 65B; over 1T tokens."""
    sizes = [size for size in SIZES.values() if size.generation == 1]
    assert [int(families.parameters(size) / 1e9) for size in sizes] == [6, 13, 32, 65]  # "7B" has 6.7
    assert all(size.tokens >= 1e12 for size in sizes)


def test_article_4_llama_2_sizes_tokens_context_and_grouped_queries():
    """7B, 13B, 34B, 70B; 2T tokens; the context doubled from 2,048 to 4,096; GQA in 34B and 70B."""
    sizes = [size for size in SIZES.values() if size.generation == 2]
    assert [round(families.parameters(size) / 1e9) for size in sizes] == [7, 13, 34, 69]
    assert {size.tokens for size in sizes} == {2e12}
    assert {size.max_position_embeddings for size in SIZES.values() if size.generation == 1} == {2048}
    assert {size.max_position_embeddings for size in sizes} == {4096}
    grouped = [size.num_key_value_heads < size.num_attention_heads for size in sizes]
    assert grouped == [False, False, True, True]


def test_article_4_llama_3_sizes_tokens_context_and_vocabulary():
    """8B, 70B and 400B; 15T tokens, 7 times those of LLaMA 2 and more; 8K context; a vocabulary of 128K."""
    sizes = [size for size in SIZES.values() if size.generation == 3]
    assert [round(families.parameters(size) / 1e9) for size in sizes] == [8, 71, 406]
    assert all(size.tokens >= 15e12 and size.tokens / 2e12 > 7 for size in sizes)
    assert [size.max_position_embeddings for size in sizes[:2]] == [8192, 8192]
    assert {size.vocab_size // 1000 for size in sizes} == {128}


def test_article_4_in_70b_each_kv_head_serves_8_query_heads():
    for name in ("Llama 2 70B", "Llama 3 70B"):
        assert SIZES[name].num_key_value_heads == 8
        assert SIZES[name].num_attention_heads // SIZES[name].num_key_value_heads == 8


def test_article_4_printed_structure_of_7b():
    """Embedding(32000, 4096), 32 layers, q, k, v, o 4096 x 4096, gate and up 4096 to 11008, head 4096 to 32000."""
    with torch.device("meta"):
        model = LlamaForCausalLM(SimpleNamespace(**vars(SIZES["LLaMA 7B"]), rms_norm_eps=1e-6))
    assert (model.model.embed_tokens.num_embeddings, model.model.embed_tokens.embedding_dim) == (32000, 4096)
    assert len(model.model.layers) == 32
    layer = model.model.layers[31]
    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        assert tuple(getattr(layer.self_attn, name).weight.shape) == (4096, 4096)
    assert (layer.mlp.up_proj.in_features, layer.mlp.up_proj.out_features) == (4096, 11008)
    assert (layer.mlp.down_proj.in_features, layer.mlp.down_proj.out_features) == (11008, 4096)
    assert (model.lm_head.in_features, model.lm_head.out_features) == (4096, 32000)


def test_article_4_swiglu_from_5120_to_13696_is_two_thirds_of_four_times():
    assert families.swiglu_width(5120, 128) == 13696


# -- 4: norms ----------------------------------------------------------------------------------------------------------


def test_article_4_layernorm_has_mean_0_and_std_1_0541():
    """An RMSNorm of what has no mean is a LayerNorm. torch's std divides by n - 1: of 10 numbers whose variance is 1 it is
    sqrt(10 / 9)."""
    x = random(20, 5, 10)
    made = LlamaRMSNorm(10, 1e-5)(x - x.mean(-1, keepdim=True)).detach()
    torch.testing.assert_close(made, nn.LayerNorm(10)(x).detach())
    assert float(made[1, 4].mean()) == pytest.approx(0, abs=1e-6)
    assert float(made[1, 4].std()) == pytest.approx(1.0541, abs=1e-4)


def test_article_4_rmsnorm_has_std_1_0513_where_its_mean_is_minus_0_0725():
    """An RMS of 1 is variance and squared mean together, so the mean that is printed gives the std that is printed."""
    made = LlamaRMSNorm(10, 1e-8)(random(20, 5, 10)).detach()
    mean, std = made.mean(-1), made.std(-1)
    assert torch.allclose(std, (10 / 9 * (1 - mean**2)).sqrt(), atol=1e-6)
    assert mean.abs().max() > 0.1, "the mean is not taken away"
    x = random(10)
    x = (x - x.mean()) / x.std(correction=0)
    made = LlamaRMSNorm(10, 1e-8)(7 * (x * math.sqrt(1 - 0.0725**2) - 0.0725)).detach()
    assert float(made.mean()) == pytest.approx(-0.0725, abs=1e-5)
    assert float(made.std()) == pytest.approx(1.0513, abs=1e-4)


# -- 4: positions ------------------------------------------------------------------------------------------------------


def test_article_4_sinusoidal_table_of_10_positions_by_6():
    table = rope.sinusoidal(torch.arange(10), 6)
    assert table.shape == (10, 6)
    term = torch.exp(torch.arange(0, 6, 2).float() * (-math.log(10000.0) / 6))
    places = torch.arange(10).float()[:, None]
    torch.testing.assert_close(table[:, 0::2].float(), torch.sin(places * term))
    torch.testing.assert_close(table[:, 1::2].float(), torch.cos(places * term))


def test_article_4_rotary_table_of_10_positions_by_3_is_half_of_the_sinusoidal_one():
    frequencies = rotary_frequencies(configuration(head_dim=6))
    angles = rope.angles(frequencies, torch.arange(10))
    cis = torch.polar(torch.ones_like(angles), angles)
    assert cis.shape == (10, 3)
    assert 2 * cis.numel() == rope.sinusoidal(torch.arange(10), 6).numel()
    torch.testing.assert_close(
        torch.view_as_real(cis).flatten(1)[:, 0::2], rope.sinusoidal(torch.arange(10), 6)[:, 1::2].float()
    )


def test_article_4_complex_and_rotate_half_are_one_rotation():
    frequencies, x, places = rotary_frequencies(configuration(head_dim=6)), random(2, 4, 10, 6), torch.arange(10)
    order = rope.pairs_order(6)
    pairs = rope.rotate_pairs(x[..., order], frequencies, places)
    torch.testing.assert_close(rope.rotate_halves(x, frequencies, places)[..., order], pairs)


@pytest.mark.parametrize("turn", [rope.rotate_halves, rope.rotate_pairs])
def test_article_4_scores_depend_on_the_difference_of_positions_alone(turn):
    """m and n enter g(q, k, m - n) by their difference, in both forms."""
    frequencies, q, k = (
        rotary_frequencies(configuration(head_dim=6)).double(),
        random(6).double(),
        random(6, seed=1).double(),
    )

    def score(m: int, n: int) -> float:
        at = torch.tensor([m, n])
        return float((turn(q.expand(2, 6), frequencies, at)[0] * turn(k.expand(2, 6), frequencies, at)[1]).sum())

    for m, n in ((7, 3), (3, 7), (9, 9)):
        assert score(m, n) == pytest.approx(score(m + 20, n + 20), abs=1e-12)
    assert score(7, 3) != pytest.approx(score(8, 3), abs=1e-3), "and on nothing less"


# -- 4: SwiGLU ---------------------------------------------------------------------------------------------------------


def swish(x: torch.Tensor, beta: float) -> torch.Tensor:
    """x sigmoid(beta x) by the model's own MLP: gate beta x, up x / beta."""
    mlp = LlamaMLP(SimpleNamespace(hidden_size=1, intermediate_size=1)).double()
    for projection, weight in ((mlp.gate_proj, beta), (mlp.up_proj, 0.0), (mlp.down_proj, 1 / beta)):
        nn.init.constant_(projection.weight, weight)
    mlp.up_proj.bias = nn.Parameter(torch.ones(1, dtype=torch.float64))  # a factor of 1, so that the gate is seen alone
    with torch.no_grad():
        return mlp(x[:, None])[:, 0]


def test_article_4_swish_by_beta_is_linear_silu_and_relu():
    """Towards 0 a straight line (of slope 1/2; the article says y = x), at 1 SiLU, towards infinity ReLU."""
    x = torch.linspace(-3, 3, 61, dtype=torch.float64)
    torch.testing.assert_close(swish(x, 1e-6), x / 2, atol=1e-4, rtol=0)
    torch.testing.assert_close(swish(x, 1.0), F.silu(x))
    torch.testing.assert_close(swish(x, 1e3), x.relu(), atol=1e-3, rtol=0)
    for beta in (0.1, 1.0, 10.0):
        torch.testing.assert_close(swish(x, beta), x * torch.sigmoid(beta * x))


# -- 4: KV cache and grouped queries -----------------------------------------------------------------------------------


def test_article_4_kv_cache_holds_2_n_l_d_numbers():
    """Two times layers, length and width, where every head has its own keys and values."""
    config = configuration(num_key_value_heads=4)  # 3 layers, width 24
    _, ours = pair(config, torch.float32)
    past = KVCache()
    with torch.no_grad():
        ours(tokens(1, 17), past=past)
    assert sum(keys.numel() + values.numel() for keys, values in past.layers) == 2 * 3 * 17 * 24
    assert 17 * families.kv_bytes(config, itemsize=1) == 2 * 3 * 17 * 24


def test_article_4_cache_of_8_by_1024_by_32_by_128_is_that_of_a_7b_layer():
    size = SIZES["LLaMA 7B"]
    one = 8 * 1024 * 32 * 128  # keys of a layer, as the article's code reserves them
    assert 2 * size.num_hidden_layers * one * 2 == 8 * 1024 * families.kv_bytes(size, itemsize=2)


def test_article_4_the_last_query_and_all_keys_give_the_next_token():
    """With the cache a pass takes the one new token, and its logits are the last of the whole pass."""
    _, ours = pair(configuration())
    ids, past = tokens(1, 9), KVCache()
    with torch.no_grad():
        ours(ids[:, :8], past=past)
        _, new = ours(ids[:, 8:], past=past)
        _, whole = ours(ids)
    torch.testing.assert_close(new[:, -1], whole[:, -1])


def test_article_4_grouped_queries_cut_the_cache_by_the_group():
    many, grouped = configuration(num_key_value_heads=4), configuration(num_key_value_heads=2)
    one = configuration(num_key_value_heads=1)
    assert families.kv_bytes(many) == 2 * families.kv_bytes(grouped) == 4 * families.kv_bytes(one)


def test_article_4_multi_query_projection_of_768_by_960():
    """Wqkv of 768 and 8 heads: d_model + 2 head_dim = 960 rows, queries of 768, a key and a value of 96 for all."""
    config = configuration(
        hidden_size=768, num_attention_heads=8, num_key_value_heads=1, head_dim=None, num_hidden_layers=1
    )
    with torch.device("meta"):
        attention = LlamaForCausalLM(config).model.layers[0].self_attn
    rows = [getattr(attention, name).weight.shape for name in ("q_proj", "k_proj", "v_proj")]
    assert rows == [(768, 768), (96, 768), (96, 768)]
    assert sum(shape[0] for shape in rows) == 768 + 2 * 96 == 960


def test_article_4_nine_steps_read_45_tokens_without_a_cache_and_9_with_one():
    """[SOS] Love that can quickly seize the gentle heart: at step t a pass over t tokens, or over the newest alone."""
    _, ours = pair(configuration())
    ids, past, read = tokens(1, 9), KVCache(), {"anew": 0, "kept": 0}
    with torch.no_grad():
        for t in range(1, 10):
            _, whole = ours(ids[:, :t])
            _, new = ours(ids[:, t - 1 : t], past=past)
            read["anew"] += whole.shape[1]
            read["kept"] += new.shape[1]
            torch.testing.assert_close(new[:, -1], whole[:, -1])
    assert read == {"anew": 45, "kept": 9}


# -- 4: LoRA -----------------------------------------------------------------------------------------------------------


def test_article_4_lora_of_rank_5_on_100_by_500_is_6_percent():
    made = families.lora_parameters(100, 500, 5)
    assert made == 5 * 100 + 5 * 500 == 3000
    assert made / (100 * 500) == 0.06


def test_article_4_lora_of_rank_16_on_7b():
    """lora_A 4096 to 16 and lora_B 16 to 4096, at q, k, v and o of 32 layers."""
    assert families.lora_parameters(4096, 4096, 16) == 16 * 4096 + 4096 * 16
    assert families.lora_total(SIZES["LLaMA 7B"], 16) == 32 * 4 * 2 * 16 * 4096 == 16_777_216


def test_article_4_lora_of_rank_8_on_768_by_768():
    """W_A (768, 8) and W_B (8, 768): 12,288 numbers beside 589,824, and x W_A W_B has the shape of x W."""
    a, b, x = random(768, 8), random(8, 768, seed=1), random(3, 768, seed=2)
    assert families.lora_parameters(768, 768, 8) == a.numel() + b.numel() == 12_288
    assert (x @ (a @ b)).shape == (x @ torch.empty(768, 768)).shape
    torch.testing.assert_close(x @ (a @ b), (x @ a) @ b, rtol=1e-3, atol=1e-2)
