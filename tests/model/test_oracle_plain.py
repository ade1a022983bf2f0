"""Oracle 1: without looped layers LoopLlama is transformers' Llama, bit for bit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.llama import modeling_llama

from .tiny import build, ids, plain_twin, random_shapes


@settings(max_examples=15, deadline=None, derandomize=True)
@given(random_shapes(), st.sampled_from(["eager", "sdpa"]), st.sampled_from([torch.float32, torch.float64]))
def test_logits_and_loss_are_equal_bit_for_bit(shape, attention, dtype):
    model = build(attn_implementation=attention, **shape).to(dtype)
    twin = plain_twin(model)
    tokens = ids(9, rows=2)
    labels = tokens.clone()
    labels[0, :3] = -100
    ours, theirs = model(tokens, labels=labels), twin(tokens, labels=labels)
    assert torch.equal(ours.logits, theirs.logits)
    assert torch.equal(ours.loss, theirs.loss)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_batch_is_equal_bit_for_bit(side, attention):
    model = build(attn_implementation=attention)
    twin = plain_twin(model)
    tokens = ids(8, rows=3)
    mask = torch.ones_like(tokens)
    for row, pads in enumerate((0, 3, 6)):
        mask[row, slice(0, pads) if side == "left" else slice(8 - pads, 8)] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    for given_positions in (None, positions):
        ours = model(tokens, attention_mask=mask, position_ids=given_positions).logits
        theirs = twin(tokens, attention_mask=mask, position_ids=given_positions).logits
        assert torch.equal(ours, theirs)
    unmasked = twin(tokens, position_ids=positions).logits
    assert not torch.allclose(ours[1], unmasked[1]), "the mask makes no difference here: the test would prove nothing"


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_cached_steps_are_equal_bit_for_bit(attention):
    model = build(attn_implementation=attention)
    twin = plain_twin(model)
    tokens = ids(10, rows=2)
    ours = theirs = None
    for part in (tokens[:, :5], tokens[:, 5:8], tokens[:, 8:9], tokens[:, 9:]):
        mine = model(part, past_key_values=ours)
        other = twin(part, past_key_values=theirs)
        ours, theirs = mine.past_key_values, other.past_key_values
        assert torch.equal(mine.logits, other.logits)
        assert ours.get_seq_length() == theirs.get_seq_length()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2)])
@pytest.mark.parametrize("head_dim", [6, 8])  # 6: rows of a strided view would not even begin at a vector's edge
def test_every_length_is_equal_bit_for_bit_with_a_cache(head_dim, heads, kv_heads, attention):
    """case_plain_bits: K/V in another memory layout took another BLAS path (seen with AVX-512, lengths 8 to 11)."""
    shape = {"num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": head_dim}
    model = build(attn_implementation=attention, **shape)
    twin = plain_twin(model)
    with torch.no_grad():
        for length in range(1, 34):
            tokens = ids(length + 2, seed=length, rows=2)
            ours = theirs = None
            for part in (tokens[:, :length], tokens[:, length : length + 1], tokens[:, length + 1 :]):
                mine, other = model(part, past_key_values=ours), twin(part, past_key_values=theirs)
                ours, theirs = mine.past_key_values, other.past_key_values
                assert torch.equal(mine.logits, other.logits), (length, part.shape)


@pytest.mark.parametrize("heads", [2, 4])
def test_attention_is_given_keys_as_a_dynamic_cache_lays_them_out(heads):
    """What bit equality rests on, seen on any processor: the same strides as transformers' own cache gives."""
    model = build(attn_implementation="eager", num_key_value_heads=heads)
    twin = plain_twin(model)
    seen: list[list[tuple]] = []
    tokens = ids(9, rows=2)
    with pytest.MonkeyPatch.context() as patch:
        plain = modeling_llama.eager_attention_forward

        def noting(module, query, key, value, *args, **kwargs):
            seen[-1].append((key.shape, key.stride(), value.shape, value.stride()))
            return plain(module, query, key, value, *args, **kwargs)

        patch.setattr(modeling_llama, "eager_attention_forward", noting)
        for one in (model, twin):
            seen.append([])
            cache = None
            for part in (tokens[:, :6], tokens[:, 6:8], tokens[:, 8:]):
                with torch.no_grad():
                    cache = one(part, past_key_values=cache).past_key_values
    assert seen[0] == seen[1]
    assert len(seen[0]) == 3 * model.config.num_hidden_layers


@pytest.mark.parametrize(
    "how",
    [
        {"do_sample": False},
        {"do_sample": False, "use_cache": False},
        {"do_sample": True, "temperature": 0.9, "top_k": 20},
        {"num_beams": 3, "num_return_sequences": 2, "do_sample": False},
    ],
    ids=lambda how: "-".join(f"{k}={v}" for k, v in how.items()),
)
def test_generate_is_equal(how):
    model = build()
    twin = plain_twin(model)
    tokens = ids(6, rows=2)
    mask = torch.ones_like(tokens)
    mask[1, :2] = 0
    results = []
    for one in (model, twin):
        torch.manual_seed(3)
        results.append(one.generate(tokens, attention_mask=mask, max_new_tokens=8, pad_token_id=0, **how))
    assert torch.equal(*results)


def test_hidden_states_and_attentions_are_equal():
    model = build(attn_implementation="eager")
    twin = plain_twin(model)
    ours = model(ids(5), output_hidden_states=True, output_attentions=True)
    theirs = twin(ids(5), output_hidden_states=True, output_attentions=True)
    assert len(ours.hidden_states) == len(theirs.hidden_states)
    assert all(torch.equal(a, b) for a, b in zip(ours.hidden_states, theirs.hidden_states, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(ours.attentions, theirs.attentions, strict=True))


def test_inputs_embeds_and_logits_to_keep():
    model = build()
    tokens = ids(6)
    whole = model(tokens).logits
    assert torch.equal(model(inputs_embeds=model.get_input_embeddings()(tokens)).logits, whole)
    kept = model(tokens, logits_to_keep=2).logits
    assert kept.shape[1] == 2
    torch.testing.assert_close(kept, whole[:, -2:], atol=1e-6, rtol=1e-6)
