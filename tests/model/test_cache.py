"""LoopCache: exact occupancy, growth in place, lengths in tokens, and what beams and batches do to it."""

import copy
import itertools

import pytest
import torch
from transformers import DynamicCache

from loopviz.model import LoopCache

from .tiny import LOOP, MODES, TOLERANCE, build, close, ids, reference

pytestmark = pytest.mark.usefixtures("no_gradients")

WIDE = TOLERANCE[torch.float32]
TWO = {"loop_layers": [(0, 0), (2, 3)], "loop_count": [3, 2], "virtual_layer_count": [3, 1]}


@pytest.fixture(params=list(MODES))
def model(request):
    return build({"loop_layers": (1, 2), "loop_count": 3, **MODES[request.param]})


def layer_bytes(model, rows, slots):
    """Bytes by the formula: `2 * D * K * itemsize` for a token in a slot."""
    config = model.config
    itemsize = next(model.parameters()).element_size()
    return 2 * config.head_dim * config.num_key_value_heads * itemsize * rows * sum(slots)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize(
    ("loop", "slots"),
    [
        (None, [1, 1, 1, 1]),
        ({"loop_layers": (1, 2), "loop_count": 3, "virtual_layer_count": 3}, [1, 3, 3, 1]),
        ({"loop_layers": (1, 2), "loop_count": 3, "virtual_layer_count": 2}, [1, 2, 2, 1]),
        ({"loop_layers": (1, 2), "loop_count": 2, "virtual_layer_count": 5}, [1, 2, 2, 1]),
        ({"loop_layers": (0, 3), "loop_count": 4, "kv_cache_mode": "merge_strategy"}, [1, 1, 1, 1]),
        (TWO, [3, 1, 1, 1]),
    ],
    ids=str,
)
def test_occupancy_is_exact(loop, slots, rows, dtype):
    model = build(loop, num_key_value_heads=2, head_dim=6).to(dtype)
    cache = LoopCache(model.config)
    empty = cache.occupancy()
    assert (empty.bytes_used, empty.bytes_allocated, empty.bytes_plain, empty.bytes_unrolled) == (0, 0, 0, 0)
    model(ids(5, rows=rows), past_key_values=cache)
    model(ids(1, rows=rows), past_key_values=cache)
    held = cache.occupancy()
    assert [record.layer for record in held.layers] == [0, 1, 2, 3]
    assert [record.slots for record in held.layers] == [[6] * n for n in slots]
    assert [record.bytes_used for record in held.layers] == [layer_bytes(model, rows, [6] * n) for n in slots]
    assert held.bytes_used == sum(record.bytes_used for record in held.layers)
    buffers = [layer.keys.nbytes + layer.values.nbytes for layer in cache.layers]
    assert [record.bytes_allocated for record in held.layers] == buffers
    assert held.bytes_allocated == sum(buffers) >= held.bytes_used
    assert held.bytes_plain == layer_bytes(model, rows, [6] * 4)
    extra = sum((n - 1) * (b.b - b.a + 1) for b, n in zip(model.config.loop_blocks(), runs(model), strict=True))
    assert held.bytes_unrolled == layer_bytes(model, rows, [6] * (4 + extra))


def runs(model):
    return [int(steps[0]) for steps in model.last_pass.steps]


def test_unrolled_bytes_count_each_tokens_own_steps():
    """Under dynamic_stop every pass and row has its own N; what an unrolled model would hold follows them."""
    loop = {
        "loop_layers": (1, 2),
        "loop_strategy": "dynamic_stop",
        "kv_cache_mode": "merge_strategy",
        "convergence_criterion": "cosine",
        "cosine_threshold": 0.97,
        "loop_damping": 0.5,
    }
    model = build(loop)
    cache, token, per_row = LoopCache(model.config), layer_bytes(model, 1, [1]), [0, 0, 0]
    seen = set()
    for position, part in enumerate(ids(8, rows=3).split([3, 1, 1, 1, 1, 1], dim=1)):
        model(part, past_key_values=cache)
        steps = model.last_pass.steps[0].tolist()
        seen |= set(steps)
        per_row = [before + part.shape[1] * (4 + (n - 1) * 2) for before, n in zip(per_row, steps, strict=True)]
        assert cache.occupancy().bytes_unrolled == sum(per_row) * token, position
    assert len(seen) > 1, "every pass took the same steps: the test would prove nothing"
    before = cache.occupancy()
    for pick, rows in (
        (lambda c: c.reorder_cache(torch.tensor([2, 0, 0])), [2, 0, 0]),
        (lambda c: c.batch_select_indices(torch.tensor([1])), [1]),
        (lambda c: c.batch_repeat_interleave(2), [0, 0, 1, 1, 2, 2]),
    ):
        picked = copy.deepcopy(cache)
        pick(picked)
        expected = sum(per_row[row] for row in rows) * token
        if len(rows) < 4 or rows[0] != rows[1]:
            assert expected * 3 != len(rows) * before.bytes_unrolled, "all rows alike: the test would prove nothing"
        assert picked.occupancy().bytes_unrolled == expected
    model(ids(2, rows=3), past_key_values=cache)
    assert cache.occupancy().bytes_unrolled > before.bytes_unrolled
    cache.crop(-2)
    assert cache.occupancy() == before


def test_length_is_in_tokens_never_slots(model):
    cache = LoopCache(model.config)
    assert cache.get_seq_length() == 0
    read = 0
    for size in (4, 1, 2):
        model(ids(size), past_key_values=cache)
        read += size
        assert cache.get_seq_length() == read
        assert {cache.get_seq_length(layer) for layer in range(4)} == {read}
        assert cache.get_mask_sizes(3, 1) == (read + 3, 0)


def test_decoding_writes_in_place_and_grows_geometrically(model):
    cache = LoopCache(model.config)
    model(ids(5), past_key_values=cache)
    places, allocations, growths = None, [], 0
    for _ in range(160):
        before = places
        past = [layer.keys[:, :, : cache.get_seq_length()].clone() for layer in cache.layers]
        model(ids(1), past_key_values=cache)
        places = [(layer.keys.data_ptr(), layer.values.data_ptr()) for layer in cache.layers]
        allocations.append(cache.occupancy().bytes_allocated)
        for layer, old in zip(cache.layers, past, strict=True):
            assert torch.equal(layer.keys[:, :, : old.shape[2]], old), "a step changed the past"
        if before is not None and places != before:
            growths += 1
            assert allocations[-1] > allocations[-2], "the past was copied and no room was gained"
    used = cache.occupancy().bytes_used
    assert 1 <= growths <= 3
    sizes = sorted(set(allocations))
    assert all(larger >= 1.5 * smaller for smaller, larger in itertools.pairwise(sizes))
    assert sizes[-1] <= 2.5 * used


def test_reset_forgets_everything(model):
    cache = LoopCache(model.config)
    expected = model(ids(5), past_key_values=cache).logits
    model(ids(1), past_key_values=cache)
    cache.reset()
    assert cache.get_seq_length() == 0
    assert cache.occupancy().bytes_used == 0
    assert cache.occupancy().bytes_unrolled == 0
    assert cache.current_forward_loop_step == 0
    assert torch.equal(model(ids(5), past_key_values=cache).logits, expected)


def test_reorder_and_select_and_repeat_pick_rows(model):
    tokens, following = ids(5, rows=3), ids(1, seed=3, rows=3)
    cache = model(tokens).past_key_values
    for pick, rows in (
        (lambda c: c.reorder_cache(torch.tensor([2, 0, 0])), [2, 0, 0]),
        (lambda c: c.batch_select_indices(torch.tensor([1])), [1]),
        (lambda c: c.batch_repeat_interleave(2), [0, 0, 1, 1, 2, 2]),
    ):
        picked = copy.deepcopy(cache)
        pick(picked)
        own = model(tokens[rows]).past_key_values
        part = following[0].expand(len(rows), 1)
        close(
            model(part, past_key_values=picked).logits,
            model(part, past_key_values=own).logits,
            WIDE,
        )
        assert picked.occupancy().bytes_used == own.occupancy().bytes_used
        assert picked.occupancy().bytes_unrolled == own.occupancy().bytes_unrolled
        assert picked.occupancy().bytes_plain == own.occupancy().bytes_plain


@pytest.mark.parametrize("mode", ["serial", "parallel"])
@pytest.mark.parametrize("counts", [[2, 4, 4], [4, 2, 4], [1, 3, 5, 2], [3, 1, 6, 6]], ids=str)
def test_loop_count_changed_in_the_middle_of_a_run(mode, counts):
    """Raised: new slots hold the latest K/V of earlier tokens. Lowered: slots not reached get the pass's latest."""
    loop = {"loop_layers": (1, 2), "virtual_layer_count": 5, "virtual_attention_mode": mode}
    model = build({**loop, "loop_count": counts[0]})
    cache = slow_cache = None
    for index, (count, part) in enumerate(zip(counts, ids(2 * len(counts)).split(2, dim=1), strict=True)):
        model.set_loop(loop_count=count)
        slow = reference(model, {**loop, "loop_count": count})
        out = model(part, past_key_values=cache)
        expected = slow(part[0].tolist(), slow_cache)
        cache, slow_cache = out.past_key_values, expected.cache
        close(out.logits[0], expected.logits, WIDE)
        assert [record.slots for record in cache.occupancy().layers] == [slow_cache.slots(n) for n in range(4)]
        assert cache.occupancy().layers[1].slots == [2 * (index + 1)] * min(5, max(counts[: index + 1]))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"virtual_attention_mode": "serial"}, {"virtual_attention_mode": "parallel"}),
        ({"virtual_attention_mode": "parallel"}, {"virtual_attention_mode": "serial"}),
        (
            {"kv_cache_mode": "merge_strategy", "merge_strategy": "ema"},
            {"kv_cache_mode": "merge_strategy", "merge_strategy": "last"},
        ),
        ({"loop_count": 2}, {"loop_strategy": "dynamic_stop", "cosine_threshold": 0.99}),
    ],
    ids=str,
)
def test_settings_that_keep_the_layout_may_change_with_a_cache_in_use(first, second):
    loop = {"loop_layers": (1, 2), "virtual_layer_count": 3, "min_loop_count": 3, **first}
    model = build(loop)
    before = reference(model, loop)(ids(4)[0].tolist())
    cache = model(ids(4)).past_key_values
    model.set_loop(**second)
    after = reference(model, {**loop, **second})(ids(2)[0].tolist(), before.cache)
    close(model(ids(2), past_key_values=cache).logits[0], after.logits, WIDE)


def test_cache_holds_exactly_the_references_keys_and_values(model):
    """Not only the results: the K/V of every token, slot by slot."""
    loop = {name: getattr(model.config, name) for name in ("loop_layers", "loop_count", "virtual_layer_count")}
    for name in ("kv_cache_mode", "virtual_attention_mode", "merge_strategy"):
        loop[name] = getattr(model.config, name)
    slow = reference(model, loop)
    cache, slow_cache = LoopCache(model.config), None
    for part in ids(6).split([4, 1, 1], dim=1):
        model(part, past_key_values=cache)
        slow_cache = slow(part[0].tolist(), slow_cache).cache
    for layer, held in zip(cache.layers, slow_cache.layers, strict=True):
        for position, slots in enumerate(held):
            for slot, (key, value) in slots.items():
                close(layer.keys[0, :, position, slot], key, WIDE)
                close(layer.values[0, :, position, slot], value, WIDE)


def test_frozen_rows_keep_their_keys_and_values():
    """A row that stopped early holds the same K/V as when it is alone, though its neighbours went on."""
    loop = {
        "loop_layers": (1, 2),
        "loop_strategy": "dynamic_stop",
        "convergence_criterion": "cosine",
        "loop_damping": 0.5,
        "min_loop_count": 2,
        "virtual_layer_count": 2,
        "cosine_threshold": 0.95,
    }
    tokens = ids(5, rows=4)
    for mode in ({}, {"virtual_attention_mode": "serial"}, {"kv_cache_mode": "merge_strategy"}):
        model = build({**loop, **mode})
        cache = model(tokens).past_key_values
        steps = model.last_pass.steps[0].tolist()
        assert len(set(steps)) > 1, f"{steps}: all rows stop together, the test would prove nothing"
        for row in range(4):
            alone = model(tokens[row : row + 1]).past_key_values
            for ours, own in zip(cache.layers, alone.layers, strict=True):
                close(ours.keys[row, :, :5], own.keys[0, :, :5], WIDE)
                close(ours.values[row, :, :5], own.values[0, :, :5], WIDE)


def test_crop_refuses_and_clips(model):
    cache = model(ids(4)).past_key_values
    with pytest.raises(ValueError, match="tokens_to_remove"):
        cache.crop(2)
    assert cache.get_seq_length() == 4
    cache.crop(0)
    assert cache.get_seq_length() == 4
    cache.crop(-9)
    assert cache.get_seq_length() == 0
    assert cache.occupancy().bytes_unrolled == 0


def test_rows_picked_under_inference_mode_go_on_outside_of_it():
    model = build({"loop_layers": (1, 2), "loop_count": 2})
    with torch.inference_mode():
        cache = model(ids(4, rows=2)).past_key_values
        cache.reorder_cache(torch.tensor([1, 0]))
        cache.batch_repeat_interleave(2)
    with torch.no_grad():
        assert torch.isfinite(model(ids(1, rows=4), past_key_values=cache).logits).all()


def _misfits():
    """A cache of something else, by name: made by the first model, given to the second with this many rows."""
    two = build(LOOP)
    yield "rows", two, two, 1, 2
    yield "rows", two, two, 2, 1
    yield "KV heads", two, build(LOOP, num_key_value_heads=4), 1, 1
    yield "numbers a head", two, build(LOOP, head_dim=16), 1, 1
    yield "dtype", two, build(LOOP).double(), 1, 1
    yield "layers", two, build(LOOP, num_hidden_layers=5), 1, 1
    yield "rows", build(), build(), 1, 3
    yield "dtype", build(), build().to(torch.bfloat16), 1, 1


@pytest.mark.parametrize("case", range(8))
@pytest.mark.parametrize("gradients", [False, True])
def test_a_cache_of_something_else_is_refused_by_name_and_stays_as_it_was(case, gradients):
    """numerics D8: torch's own RuntimeError, where ValueError is promised."""
    name, first, second, held, asked = list(_misfits())[case]
    with torch.set_grad_enabled(gradients):
        cache = first(ids(4, rows=held), use_cache=True).past_key_values
        before = [(layer.length, layer.keys[:, :, :4].clone()) for layer in cache.layers]
        with pytest.raises(ValueError, match=f"past_key_values.*{name}"):
            second(ids(2, rows=asked), past_key_values=cache)
    for layer, (length, keys) in zip(cache.layers, before, strict=True):
        assert layer.length == length
        assert torch.equal(layer.keys[:, :, :4], keys)


def test_a_dynamic_cache_of_another_batch_is_refused_by_a_plain_llama():
    plain, cache = build(), DynamicCache()
    plain(ids(4), past_key_values=cache)
    with pytest.raises(ValueError, match=r"past_key_values.*rows = 1.*rows = 2"):
        plain(ids(2, rows=2), past_key_values=cache)


def test_a_cache_cropped_to_nothing_takes_another_batch():
    model = build(LOOP)
    with torch.no_grad():
        cache = model(ids(4, rows=2)).past_key_values
        cache.crop(-4)
        assert torch.equal(model(ids(5), past_key_values=cache).logits, model(ids(5)).logits)


def test_autocast_decides_the_caches_dtype():
    model = build(LOOP)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        cache = model(ids(4)).past_key_values
        assert model(ids(1), past_key_values=cache).logits.isfinite().all()


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"input_ids": torch.tensor([1, 2, 3])}, "input_ids"),
        ({"input_ids": torch.zeros(1, 0, dtype=torch.long)}, "input_ids"),
        ({"inputs_embeds": torch.zeros(3, 32)}, "inputs_embeds"),
        ({"input_ids": torch.ones(2, 3, dtype=torch.long), "attention_mask": torch.ones(1, 3)}, "attention_mask"),
        ({"input_ids": torch.ones(2, 3, dtype=torch.long), "attention_mask": torch.ones(2, 2)}, "attention_mask"),
    ],
)
def test_inputs_of_another_shape_are_refused_by_name(given, name):
    with pytest.raises(ValueError, match=name):
        build(LOOP)(**given)
