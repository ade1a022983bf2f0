"""Loop hooks: what they are told, that they cost and change nothing, and what an exception in one leaves behind."""

import dataclasses

import pytest
import torch

from loopviz.model import LoopCache, LoopStep

from .tiny import DYNAMIC, LOOP, MODES, TWO, WIDE, build, close, ids, record, reference

pytestmark = pytest.mark.usefixtures("no_gradients")


def test_fields_of_a_loop_step():
    names = [field.name for field in dataclasses.fields(LoopStep)]
    assert names[:8] == ["block", "layers", "step", "previous", "state", "frozen", "real", "seconds"]
    events, _ = record(model := build(LOOP))
    model(ids(4))
    with pytest.raises(dataclasses.FrozenInstanceError):
        events[0].step = 7


def test_events_come_in_order_with_the_references_states():
    model = build(TWO)
    events, _ = record(model)
    model(ids(5))
    expected = reference(model, TWO)(ids(5)[0].tolist())
    assert [(e.block, e.layers, e.step) for e in events] == [
        (0, (0, 0), 1),
        (0, (0, 0), 2),
        (1, (2, 3), 1),
        (1, (2, 3), 2),
        (1, (2, 3), 3),
    ]
    for event in events:
        close(event.previous[0], expected.states[event.block][event.step - 1], WIDE)
        close(event.state[0], expected.states[event.block][event.step], WIDE)
        assert event.real is None
        assert event.frozen.tolist() == [False]
        assert event.seconds > 0


def test_frozen_rows_say_so_and_keep_their_state():
    model = build(DYNAMIC)
    events, _ = record(model)
    model(ids(5, rows=4))
    steps = model.last_pass.steps[0].tolist()
    assert len(set(steps)) > 1, f"{steps}: all rows stop together, the test would prove nothing"
    assert [e.step for e in events] == list(range(1, max(steps) + 1))
    for event in events:
        for row, n in enumerate(steps):
            assert bool(event.frozen[row]) == (n < event.step)
            assert torch.equal(event.state[row], event.previous[row]) == (n < event.step)


@pytest.mark.parametrize("side", ["left", "right"])
def test_real_tokens(side):
    model = build(LOOP)
    events, _ = record(model)
    mask = torch.ones(2, 5, dtype=torch.long)
    mask[1, slice(0, 2) if side == "left" else slice(3, 5)] = 0
    out = model(ids(5, rows=2), attention_mask=mask)
    assert events
    assert all(torch.equal(e.real, mask.bool()) for e in events)
    events.clear()
    longer = torch.cat((mask, torch.ones(2, 1, dtype=torch.long)), dim=1)
    model(ids(1, rows=2), attention_mask=longer, past_key_values=out.past_key_values)
    assert events
    assert all(e.real is None or bool(e.real.all()) for e in events)


@pytest.mark.parametrize("mode", list(MODES))
def test_kv_is_a_view_of_the_caches_own_memory(mode):
    model = build({**LOOP, **MODES[mode]})
    cache = LoopCache(model.config)
    seen = []

    def look(event):
        for layer in (1, 2):
            k, v = event.kv(layer)
            held = cache.layers[layer]
            assert k.untyped_storage().data_ptr() == held.keys.untyped_storage().data_ptr()
            assert v.untyped_storage().data_ptr() == held.values.untyped_storage().data_ptr()
            seen.append((event.step, layer, k.clone(), v.clone()))
        with pytest.raises(ValueError, match="layer"):
            event.kv(0)

    model(ids(4), past_key_values=cache)
    model.register_loop_hook(look)
    model(ids(2, seed=1), past_key_values=cache)
    assert len(seen) == 6
    assert all(k.shape == v.shape == (1, 2, 2, 8) for _, _, k, v in seen)
    assert not torch.equal(seen[0][2], seen[2][2]), "step 2 shows the K of step 1"
    if "kv_cache_mode" not in MODES[mode]:
        slots = MODES[mode]["virtual_layer_count"]
        for step, layer, k, v in seen[-2 * slots :]:
            assert torch.equal(cache.layers[layer].keys[:, :, 4:6, (step - 1) % slots], k)
            assert torch.equal(cache.layers[layer].values[:, :, 4:6, (step - 1) % slots], v)
    if mode == "last":
        assert torch.equal(cache.layers[2].keys[:, :, 4:6, 0], seen[-1][2])


def test_kv_is_none_without_a_cache():
    model = build({**LOOP, "virtual_attention_mode": "serial"})
    events, _ = record(model)
    model(ids(3), use_cache=False)
    assert [event.kv(1) for event in events] == [None] * 3


def test_hooks_change_nothing_and_removal_ends_them():
    model = build(LOOP)
    expected = model(ids(4)).logits
    events, handle = record(model)
    others, other = record(model)
    assert torch.equal(model(ids(4)).logits, expected)
    assert len(events) == len(others) == 3
    handle.remove()
    handle.remove()  # twice is harmless
    model(ids(4))
    assert (len(events), len(others)) == (3, 6)
    other.remove()
    assert torch.equal(model(ids(4)).logits, expected)
    assert len(others) == 6


def test_no_hook_no_event_is_made(monkeypatch):
    import loopviz.model.modeling as modeling

    made = []

    class Counted(LoopStep):
        def __init__(self, *args, **kwargs):
            made.append(1)
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(modeling, "LoopStep", Counted)
    model = build(LOOP)
    model(ids(4))
    assert made == []
    _, handle = record(model)
    model(ids(4))
    assert len(made) == 3, "the count would not have noticed"
    handle.remove()
    model(ids(4))
    assert len(made) == 3


@pytest.mark.parametrize("mode", list(MODES))
@pytest.mark.parametrize("at", [1, 2, 3])
def test_an_exception_in_a_hook_leaves_the_cache_as_before(mode, at):
    model = build({**TWO, "loop_count": 3, **MODES[mode]})
    cache = model(ids(4)).past_key_values
    report = model.last_pass
    before = cache.occupancy()

    def fail(event):
        if event.block == 1 and event.step == at:
            raise RuntimeError("enough")

    handle = model.register_loop_hook(fail)
    with pytest.raises(RuntimeError, match="enough"):
        model(ids(2, seed=1), past_key_values=cache)
    assert cache.get_seq_length() == 4
    assert {cache.get_seq_length(layer) for layer in range(4)} == {4}
    assert cache.occupancy() == before
    assert model.last_pass is report
    handle.remove()
    fresh = model(ids(4)).past_key_values
    for part in (ids(2, seed=2), ids(1, seed=3)):
        assert torch.equal(model(part, past_key_values=cache).logits, model(part, past_key_values=fresh).logits)
    assert cache.occupancy() == fresh.occupancy()


def test_an_exception_in_the_first_pass_leaves_an_empty_cache_usable():
    """Also for a batch of another size: nothing was kept."""
    model = build(LOOP)
    cache = LoopCache(model.config)

    def fail(event):
        raise RuntimeError("enough")

    handle = model.register_loop_hook(fail)
    with pytest.raises(RuntimeError, match="enough"):
        model(ids(4), past_key_values=cache)
    handle.remove()
    assert cache.get_seq_length() == 0
    expected = model(ids(4, rows=3)).logits
    assert torch.equal(model(ids(4, rows=3), past_key_values=cache).logits, expected)


def test_an_exception_while_slots_grow_leaves_the_cache_as_before():
    model = build({**LOOP, "loop_count": 2})
    cache = model(ids(4)).past_key_values
    before = cache.occupancy()
    model.set_loop(loop_count=4)

    def fail(event):
        raise RuntimeError("enough")

    model.register_loop_hook(fail)
    with pytest.raises(RuntimeError, match="enough"):
        model(ids(1), past_key_values=cache)
    after = cache.occupancy()
    assert [record.slots for record in after.layers] == [record.slots for record in before.layers]
    assert after.bytes_used == before.bytes_used
