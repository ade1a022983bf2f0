"""Oracles 2 and 3: a loop of fixed length is a Llama with its block repeated.

2: uncached, in serial and merge modes, bit for bit. 3: cached, serial with a slot for every step.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from .tiny import TOLERANCE, build, close, ids, precision, random_blocks, random_shapes, unrolled


@pytest.fixture(autouse=True, params=[False, True], ids=["no_grad", "autograd"])
def _gradients(request):
    with torch.set_grad_enabled(request.param):
        yield


UNCACHED = {
    "serial": {"virtual_attention_mode": "serial"},
    "serial_one_slot": {"virtual_attention_mode": "serial", "virtual_layer_count": 1},
    "ema": {"kv_cache_mode": "merge_strategy", "merge_strategy": "ema"},
    "average": {"kv_cache_mode": "merge_strategy", "merge_strategy": "average"},
    "last": {"kv_cache_mode": "merge_strategy", "merge_strategy": "last"},
}


@st.composite
def looped(draw, layers):
    """Where the blocks are and how often each runs."""
    where = draw(random_blocks(layers))
    if isinstance(where, tuple):
        return {"loop_layers": where, "loop_count": draw(st.integers(1, 5))}
    return {"loop_layers": where, "loop_count": [draw(st.integers(1, 4)), draw(st.integers(1, 4))]}


def counts(loop):
    return loop["loop_count"] if isinstance(loop["loop_count"], list) else [loop["loop_count"]]


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.data(), random_shapes(), st.sampled_from(list(UNCACHED)), st.sampled_from(["eager", "sdpa"]))
def test_uncached_loop_is_the_unrolled_llama_bit_for_bit(data, shape, mode, attention):
    loop = data.draw(looped(shape["num_hidden_layers"])) | UNCACHED[mode]
    model = build(loop, attn_implementation=attention, **shape)
    deep = unrolled(model, counts(loop))
    tokens = ids(7, rows=2)
    mask = torch.ones_like(tokens)
    mask[1, :3] = 0
    for given_mask in (None, mask):
        ours = model(tokens, attention_mask=given_mask, labels=tokens, use_cache=False)
        theirs = deep(tokens, attention_mask=given_mask, labels=tokens, use_cache=False)
        assert torch.equal(ours.logits, theirs.logits)
        assert torch.equal(ours.loss, theirs.loss)
    assert ours.past_key_values is None


@pytest.mark.parametrize("mode", list(UNCACHED))
def test_one_full_pass_with_a_cache_gives_the_uncached_result(mode):
    """In one pass these modes attend to the current step's own K/V only, whatever they keep."""
    model = build({"loop_layers": (1, 2), "loop_count": 4, **UNCACHED[mode]})
    tokens = ids(7)
    close(model(tokens, use_cache=True).logits, model(tokens, use_cache=False).logits, 1e-6)


def test_the_loop_changes_the_result():
    """The equalities above would hold for a model that ignored its loop fields, were unrolling without effect."""
    loop = {"loop_layers": (1, 2), "virtual_attention_mode": "serial"}
    tokens = ids(7)
    logits = [build({**loop, "loop_count": n})(tokens, use_cache=False).logits for n in (1, 2, 3)]
    assert (logits[0] - logits[1]).abs().max() > 0.1
    assert (logits[1] - logits[2]).abs().max() > 0.1


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    st.data(),
    random_shapes(),
    st.integers(0, 2),
    st.sampled_from(["eager", "sdpa"]),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_serial_with_enough_slots_decodes_as_the_unrolled_llama(data, shape, spare, attention, dtype):
    loop = data.draw(looped(shape["num_hidden_layers"]))
    loop |= {"virtual_attention_mode": "serial", "virtual_layer_count": max(counts(loop)) + spare}
    if dtype == torch.float64:
        attention = "sdpa"  # eager rounds its softmax to float32
    model = build(loop, attn_implementation=attention, **shape).to(dtype)
    deep = unrolled(model, counts(loop))
    tokens = ids(8, rows=2)
    with precision(dtype) as tolerance:
        ours = theirs = None
        for part in (tokens[:, :4], tokens[:, 4:6], tokens[:, 6:7], tokens[:, 7:]):
            mine = model(part, past_key_values=ours)
            other = deep(part, past_key_values=theirs)
            ours, theirs = mine.past_key_values, other.past_key_values
            close(mine.logits, other.logits, tolerance)
            assert ours.get_seq_length() == theirs.get_seq_length()


@pytest.mark.parametrize("rows", [1, 3])
def test_serial_greedy_decode_equals_the_unrolled_llama(rows):
    loop = {"loop_layers": [(0, 0), (2, 3)], "loop_count": [2, 3], "virtual_attention_mode": "serial"}
    model = build(loop, num_hidden_layers=5)
    deep = unrolled(model, [2, 3])
    tokens = ids(5, rows=rows)
    how = {"max_new_tokens": 20, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    ours = model.generate(tokens, attention_mask=torch.ones_like(tokens), **how)
    theirs = deep.generate(tokens, attention_mask=torch.ones_like(tokens), **how)
    assert torch.equal(ours.sequences, theirs.sequences)
    close(torch.stack(ours.logits), torch.stack(theirs.logits), TOLERANCE[torch.float32])


def test_serial_with_too_few_slots_is_not_the_unrolled_llama():
    """V < N reads the last step's K/V where the unrolled model reads the same step's: it must differ in decode."""
    loop = {"loop_layers": (1, 2), "loop_count": 3, "virtual_attention_mode": "serial", "virtual_layer_count": 2}
    model = build(loop)
    deep = unrolled(model, [3])
    tokens = ids(8)
    ours = model(tokens[:, 7:], past_key_values=model(tokens[:, :7]).past_key_values).logits
    theirs = deep(tokens[:, 7:], past_key_values=deep(tokens[:, :7]).past_key_values).logits
    assert (ours - theirs).abs().max() > 1e-3
