"""K/V in 8 bits: how far a number is off, and that every cache mode reads, moves, counts and refuses them as it should."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from loopviz.checks import FieldError
from loopviz.model import LoopCache, kept_kv
from loopviz.model.kept_kv import as_kept, restored, rounded

from .choosing import by_tokens_model, by_tokens_reference, registered
from .test_oracle_batches import assert_each_as_alone, prompts
from .test_oracle_cache_modes import compare, steady
from .tiny import LOOP, MODES, TWO, any_loop, build, close, ids, precision, random_shapes, record, reference

pytestmark = pytest.mark.usefixtures("no_gradients")

DTYPES = ("int8", "fp8")
LEAST = 448 * torch.finfo(torch.float32).tiny  # a head below this is kept as zeros
ULP = 2.0**-20  # of the scale, which is a float32, and of the arithmetic around it


@pytest.fixture(params=DTYPES)
def dtype(request) -> str:
    return request.param


def model(loop: dict[str, Any], **shape: Any) -> Any:
    """In float64: where a number lies between two steps is then the same however it was computed."""
    return build(loop, **shape).double()


def heads(power: int, seed: int, kind: torch.dtype) -> torch.Tensor:
    """Heads `[40, 6]` of numbers of all sizes up to some power of ten, one of them zeros."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(40, 6, generator=generator, dtype=torch.float64) * 10.0**power
    x *= 10.0 ** (-4 * torch.rand(40, 6, generator=generator, dtype=torch.float64))
    x[3] = 0
    return x.to(kind)


# -- a number ----------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(-44, 37), st.integers(0, 10**6), st.sampled_from([torch.float32, torch.float64]))
def test_int8_is_off_by_half_a_scale_at_most(power, seed, kind):
    x = heads(power, seed, kind)
    bits, scale = rounded(x, "int8")
    assert (bits.dtype, scale.dtype, scale.shape) == (torch.int8, torch.float32, (40, 1))
    off = (x.double() - restored(bits, scale, "int8", torch.float64)).abs()
    assert (off <= scale.double() * (0.5 + 127 * ULP) + LEAST).all()
    assert bits.abs().max() <= 127
    assert (bits[3] == 0).all()
    assert scale[3] == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(-44, 37), st.integers(0, 10**6), st.sampled_from([torch.float32, torch.float64]))
def test_fp8_is_off_by_a_sixteenth_or_by_its_smallest_step(power, seed, kind):
    x = heads(power, seed, kind)
    bits, scale = rounded(x, "fp8")
    assert (bits.dtype, scale.dtype) == (torch.int8, torch.float32)
    off = (x.double() - restored(bits, scale, "fp8", torch.float64)).abs()
    most = torch.maximum(x.double().abs() / 16, scale.double() / 1024)
    assert (off <= most * (1 + ULP) + LEAST).all()
    assert (restored(bits, scale, "fp8", torch.float64)[3] == 0).all()


def test_the_largest_of_a_head_is_kept_and_no_head_knows_of_another(dtype):
    x = heads(0, 7, torch.float64)
    y = as_kept(x, dtype)
    largest = x.abs().argmax(-1, keepdim=True)
    close(y.gather(-1, largest), x.gather(-1, largest), 1e-6)
    for i in range(len(x)):
        assert torch.equal(as_kept(x[i], dtype), y[i])
    assert torch.equal(as_kept(-x, dtype), -y)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_numbers_of_half_precision_come_back_in_it_and_finite(dtype, kind):
    x = torch.tensor([[torch.finfo(kind).max, 1.0, -3.0], [1e-4, -2e-5, 0.0]]).to(kind)
    y = as_kept(x, dtype)
    assert y.dtype == kind
    assert torch.isfinite(y).all()
    assert ((x.float() - y.float()).abs() <= x.float().abs().amax(-1, keepdim=True) * 0.02).all()


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_does_not_become_one(dtype, broken):
    y = as_kept(torch.tensor([[1.0, broken, 2.0], [1.0, 3.0, 2.0]]), dtype)
    assert not torch.isfinite(y[0]).any()
    assert torch.isfinite(y[1]).all()


# -- as the semantics have it ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunks", [[1, 1, 1, 1], [3, 1, 1], [2, 2, 1]], ids=str)
@pytest.mark.parametrize("mode", list(MODES))
def test_every_mode_is_the_references(mode, chunks, dtype):
    loop = {**LOOP, **MODES[mode], "kv_cache_dtype": dtype}
    own = model(loop)
    with precision(torch.float64) as tolerance:
        passes = compare(own, reference(own, loop), chunks, tolerance)
        exact = own.with_loop(kv_cache_dtype="exact")
        cache = LoopCache(exact.config)
        for part in ids(sum(chunks)).split(chunks, dim=1):
            logits = exact(part, past_key_values=cache).logits[0]
    assert (logits - passes[-1].logits).abs().max() > 1e-3, (
        "rounding changes nothing here: the test would prove nothing"
    )


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.data(), random_shapes(), st.sampled_from([[2, 1, 1], [1, 2], [3], [2, 2]]), st.integers(0, 5), st.booleans())
def test_any_configuration_is_the_references(data, shape, chunks, seed, chosen):
    loop = data.draw(any_loop(shape["num_hidden_layers"], kept=("exact", *DTYPES)))
    loop |= {"layer_chooser": "by_tokens"} if chosen else {}
    with registered("by_tokens", by_tokens_model), precision(torch.float64) as tolerance, torch.no_grad():
        own = model(loop, seed=seed, **shape)
        slow, cache, start = reference(own, loop, by_tokens_reference if chosen else None), None, 0
        for size in chunks:
            result = slow(ids(sum(chunks), seed)[0, start : start + size].tolist(), cache)
            assume(steady(result, slow))
            cache, start = result.cache, start + size
        compare(own, slow, chunks, tolerance, seed)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    st.data(),
    random_shapes(),
    st.lists(st.integers(1, 6), min_size=2, max_size=3),
    st.sampled_from(["left", "right"]),
    st.sampled_from([(1, 1), (2, 1)]),
)
def test_any_row_of_a_batch_is_as_alone(data, shape, lengths, side, chunks):
    own = model(data.draw(any_loop(shape["num_hidden_layers"], kept=DTYPES)), **shape)
    rows, after = prompts(lengths)
    with precision(torch.float64) as tolerance, torch.no_grad():
        assert_each_as_alone(own, rows, after, tolerance, side=side, chunks=chunks)


def test_a_prompt_in_any_chunks_is_decoding(dtype):
    """Where that is so without rounding: a prompt's tokens find the K/V before them as decoding does."""
    own, tokens = model({**LOOP, **MODES["serial"], "kv_cache_dtype": dtype}), ids(8)
    with precision(torch.float64) as tolerance:
        found = []
        for chunks in ([8], [1] * 8, [5, 3], [2, 1, 4, 1]):
            cache = LoopCache(own.config)
            found.append(torch.cat([own(x, past_key_values=cache).logits for x in tokens.split(chunks, dim=1)], dim=1))
        for other in found[1:]:
            close(other, found[0], tolerance)


def test_layers_outside_the_blocks_follow_the_one_before(dtype):
    own = model({**TWO, "loop_layers": [(1, 1), (3, 4)], "kv_cache_dtype": ["exact", dtype]}, num_hidden_layers=6)
    assert [layer.kept for layer in LoopCache(own.config).layers] == ["exact"] * 3 + [dtype] * 3
    own.set_loop(kv_cache_dtype=[dtype, "exact"])
    assert [layer.kept for layer in LoopCache(own.config).layers] == [dtype] * 3 + ["exact"] * 3


def test_a_plain_llama_keeps_its_keys_and_values_as_they_are(dtype):
    own, tokens = model({"loop_layers": None, "kv_cache_dtype": dtype}), ids(5)
    cache = LoopCache(own.config)
    plain = own.with_loop(kv_cache_dtype="exact")(tokens).logits
    assert torch.equal(own(tokens, past_key_values=cache).logits, plain)
    assert {layer.keys.dtype for layer in cache.layers} == {torch.float64}


@pytest.mark.parametrize("mode", ["serial", "parallel", "ema"])
def test_without_a_cache_nothing_is_rounded(mode, dtype):
    own = model({**LOOP, **MODES[mode], "kv_cache_dtype": dtype})
    exact = own.with_loop(kv_cache_dtype="exact")
    for gradients in (False, True):
        with torch.set_grad_enabled(gradients):
            assert torch.equal(own(ids(5), use_cache=False).logits, exact(ids(5), use_cache=False).logits)


# -- what is kept ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", list(MODES))
def test_what_is_kept_is_never_rounded_again(mode, dtype):
    """Bit for bit the same after every later pass, slots that open meanwhile included."""
    own, cache = model({**LOOP, **MODES[mode], "kv_cache_dtype": dtype}), None
    held: list[list[torch.Tensor]] = []
    for count, part in zip((2, 3, 5, 3), ids(8).split(2, dim=1), strict=True):
        own.set_loop(loop_count=count)
        cache = own(part, past_key_values=cache).past_key_values
        now = [[x[:, :, : cache.get_seq_length()].clone() for x in layer._buffers] for layer in cache.layers]
        for layer, before in zip(now, held, strict=False):
            assert [x.dtype for x in layer] == [torch.int8, torch.int8, torch.float32, torch.float32]
            for x, old in zip(layer, before, strict=True):
                tokens, slots = old.shape[2:4]
                assert torch.equal(x[:, :, :tokens, :slots], old)
                for slot in range(slots, x.shape[3]):  # opened since: the latest that there was
                    assert torch.equal(x[:, :, :tokens, slot], old[:, :, :, -1])
        held = now


@pytest.mark.parametrize("mode", ["serial_wrapping", "parallel", "average"])
def test_rows_are_picked_and_tokens_dropped_with_their_scales(mode, dtype):
    own = model({**LOOP, **MODES[mode], "kv_cache_dtype": dtype})
    tokens, after = ids(5, rows=3), ids(1, seed=3, rows=3)
    with precision(torch.float64) as tolerance:
        cache = own(tokens).past_key_values
        for pick, rows in (
            (lambda c: c.reorder_cache(torch.tensor([2, 0, 0])), [2, 0, 0]),
            (lambda c: c.batch_select_indices(torch.tensor([1])), [1]),
            (lambda c: c.batch_repeat_interleave(2), [0, 0, 1, 1, 2, 2]),
        ):
            picked, fresh = copy.deepcopy(cache), own(tokens[rows]).past_key_values
            pick(picked)
            part = after[0].expand(len(rows), 1)
            expected = own(part, past_key_values=fresh).logits
            close(own(part, past_key_values=picked).logits, expected, tolerance)
            assert picked.occupancy().bytes_used == fresh.occupancy().bytes_used
        fresh = copy.deepcopy(cache)
        own(after, past_key_values=cache)
        cache.crop(-1)
        assert torch.equal(own(after, past_key_values=cache).logits, own(after, past_key_values=fresh).logits)


@pytest.mark.parametrize("mode", ["serial", "parallel_wrapping", "ema"])
def test_a_beams_score_is_that_of_its_tokens(mode, dtype):
    own, tokens = model({**LOOP, **MODES[mode], "kv_cache_dtype": dtype}), ids(4)
    how = {"max_new_tokens": 4, "do_sample": False, "num_beams": 3, "length_penalty": 0.0, "output_scores": True}
    with precision(torch.float64):
        out = own.generate(tokens, attention_mask=torch.ones_like(tokens), return_dict_in_generate=True, **how)
        cache, part, total = None, tokens, 0.0
        for token in out.sequences[0, 4:]:
            step = own(part, past_key_values=cache)
            cache = step.past_key_values
            total += torch.log_softmax(step.logits[0, -1], dim=-1)[token]
            part = token[None, None]
    close(out.sequences_scores[0].double(), total, 1e-5)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_bytes_are_those_that_are_kept(dtype, kind):
    loop = {"loop_layers": (1, 2), "loop_count": 3, "virtual_layer_count": 3, "kv_cache_dtype": dtype}
    own = build(loop, head_dim=6).to(kind)
    cache = LoopCache(own.config)
    for size in (5, 1):
        own(ids(size, rows=2), past_key_values=cache)
    held = cache.occupancy()
    entry = 2 * 2 * (6 + 4)  # K and V of two heads: a byte a number, and a scale
    assert [record.entry for record in held.layers] == [2 * entry] * 4
    assert [record.bytes_used for record in held.layers] == [2 * entry * 6 * slots for slots in (1, 3, 3, 1)]
    buffers = [(one.keys, one.values, one.key_scales, one.value_scales) for one in cache.layers]
    assert [record.bytes_allocated for record in held.layers] == [sum(x.nbytes for x in four) for four in buffers]
    exact = 2 * 2 * 6 * kind.itemsize  # what a plain Llama would hold
    assert held.bytes_plain == 2 * exact * 6 * 4
    assert held.bytes_unrolled == 2 * exact * 6 * 8


@pytest.mark.parametrize("mode", ["serial", "parallel", "last"])
def test_hooks_see_what_attention_reads(mode, dtype):
    own, cache = model({**LOOP, **MODES[mode], "kv_cache_dtype": dtype}), None
    exact: dict[int, torch.Tensor] = {}
    own.model.layers[1].self_attn.v_proj.register_forward_hook(lambda _, given, made: exact.update({0: made}))
    seen = []

    def watch(event: Any) -> None:
        value = event.kv(1)[1]
        seen.append(
            torch.equal(value, as_kept(exact[0].unflatten(-1, (-1, own.config.head_dim)).transpose(1, 2), dtype))
        )

    own.register_loop_hook(watch)
    for part in ids(5).split((4, 1), dim=1):
        cache = own(part, past_key_values=cache).past_key_values
    assert seen == [True] * 6


@pytest.mark.parametrize("cached", [0, 4, 5])
def test_the_exit_lens_of_the_last_step_is_the_models_output(cached, dtype):
    own = model({**LOOP, "kv_cache_dtype": dtype}, num_hidden_layers=5)
    tokens, cache = ids(6, rows=2), LoopCache(own.config)
    with precision(torch.float64) as tolerance:
        if cached:
            own(tokens[:, :cached], past_key_values=cache)
        events, _ = record(own)
        out = own(tokens[:, cached:], past_key_values=cache)
        logits = own.exit_lens(torch.stack([event.state for event in events]), cache)
        close(logits[-1], out.logits, tolerance)
        with torch.enable_grad(), pytest.raises(FieldError, match="kv_cache_dtype"):
            own.exit_lens(torch.stack([event.state for event in events]), cache)


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_unknown_values_are_refused_by_name():
    with pytest.raises(FieldError, match="kv_cache_dtype='int4': must be one of"):
        build({**LOOP, "kv_cache_dtype": "int4"})


@pytest.mark.parametrize("mode", ["serial", "parallel"])
def test_gradients_are_refused_and_the_cache_stays_as_it_was(mode, dtype):
    own = build({**LOOP, **MODES[mode], "kv_cache_dtype": dtype})
    cache = own(ids(3)).past_key_values
    before = cache.occupancy()
    with torch.enable_grad(), pytest.raises(FieldError, match=f"kv_cache_dtype='{dtype}'.*no gradient") as refused:
        own(ids(1), past_key_values=cache)
    assert refused.value.field == "kv_cache_dtype"
    assert cache.occupancy() == before
    with torch.enable_grad():
        own(ids(3), labels=ids(3), use_cache=False).loss.backward()
    assert own.model.layers[1].self_attn.k_proj.weight.grad.abs().max() > 0


def test_a_device_that_knows_no_fp8_is_named(monkeypatch):
    monkeypatch.setattr(kept_kv, "_knows_fp8", lambda device: False)
    own = build({**LOOP, "kv_cache_dtype": "fp8"})
    cache = LoopCache(own.config)
    with pytest.raises(FieldError, match=r"kv_cache_dtype='fp8': torch .* has no float8_e4m3fn on cpu; set 'int8'"):
        own(ids(3), past_key_values=cache)
    assert cache.get_seq_length() == cache.occupancy().bytes_allocated == 0
    own.set_loop(kv_cache_dtype="int8")
    own(ids(3), past_key_values=cache)


def test_a_cache_of_another_precision_is_told_by_what_was_rounded(dtype):
    own = build({**LOOP, "kv_cache_dtype": dtype})
    cache = own(ids(4)).past_key_values
    with pytest.raises(ValueError, match=r"dtype = torch.float32, and this pass has dtype = torch.float64"):
        own.double()(ids(1), past_key_values=cache)


def test_a_cache_in_use_keeps_its_dtype(dtype):
    own = build({**LOOP, "kv_cache_dtype": dtype})
    cache = own(ids(4)).past_key_values
    expected = own(ids(1), past_key_values=copy.deepcopy(cache)).logits
    own.set_loop(kv_cache_dtype="exact")
    with pytest.raises(ValueError, match=f"kv_cache_dtype='{dtype}'"):
        own(ids(1), past_key_values=cache)
    own.set_loop(kv_cache_dtype=dtype)
    assert torch.equal(own(ids(1), past_key_values=cache).logits, expected)
    own.set_loop(kv_cache_dtype="exact")
    cache.crop(-5)
    assert own(ids(2), past_key_values=cache).past_key_values.layers[0].keys.dtype == torch.float32
