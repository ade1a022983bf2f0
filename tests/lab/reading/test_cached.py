"""Through the cache: batched windows give what each alone gives; serial with V >= N gives what a full pass gives."""

from __future__ import annotations

import pytest
import torch

from loopviz.lab.reading.cached import score_cached, through_cache
from loopviz.lab.reading.full_pass import fixed, score_full
from loopviz.model import LoopCache
from tests.model.tiny import MODES, build, ids

LOOP = {"loop_layers": (1, 2), "loop_count": 3}
DYNAMIC = {
    "loop_layers": (1, 2),
    "loop_strategy": "dynamic_stop",
    "min_loop_count": 3,
    "max_loop_count": 6,
    "convergence_criterion": "cosine",
    "cosine_threshold": 0.98,
}
LENGTHS = (9, 9, 6)  # the last window is ragged


def alone(model, row):
    """One window, one token at a time, by transformers' own call: losses `[T - 1]` and steps."""
    cache, losses, steps = LoopCache(model.config), [], []
    for t in range(len(row) - 1):
        with torch.no_grad():
            logits = model(row[None, t : t + 1], past_key_values=cache, use_cache=True).logits[0, -1]
        losses.append(-logits.log_softmax(-1)[row[t + 1]])
        steps.append([int(block) for block in model.last_pass.steps])
    return torch.stack(losses), steps, cache.occupancy().bytes_used


@pytest.mark.parametrize("mode", list(MODES))
@pytest.mark.parametrize("strategy", ["fixed_count", "dynamic_stop"])
def test_batched_windows_give_what_each_alone_gives(mode, strategy):
    loop = (LOOP if strategy == "fixed_count" else DYNAMIC) | MODES[mode]
    model = build(loop).double()
    windows = ids(9, rows=3)
    windows[2, LENGTHS[2] :] = 0
    scores = score_cached(model, windows)
    spread = set()
    for i, length in enumerate(LENGTHS):
        losses, steps, used = alone(model.with_loop(), windows[i, :length])
        torch.testing.assert_close(scores.nats[i, : length - 1], losses, atol=1e-9, rtol=1e-9)
        assert scores.loops[0][i, : length - 1].tolist() == [step[0] for step in steps]
        spread |= {step[0] for step in steps}
        if length == 9:
            assert scores.bytes_per_token == used / 8
    assert strategy == "fixed_count" or len(spread) > 1, "every pass stops alike, the test would prove nothing"


@pytest.mark.parametrize("slots", [3, 5])
def test_serial_with_enough_slots_is_the_full_pass(slots):
    """Fidelity 0 and the full pass's perplexity, to float error; with fewer slots neither."""
    loop = LOOP | {"virtual_attention_mode": "serial", "virtual_layer_count": slots}
    windows = ids(9, rows=2)
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.float64, 1e-7)):  # norms are float32 inside
        model = build(loop).to(dtype)
        scores = score_cached(model, windows, fidelity=True)
        full = score_full(model, windows, (1, 3))
        torch.testing.assert_close(scores.nats, full[3], atol=tolerance, rtol=0)
        torch.testing.assert_close(scores.full_nats, full[3], atol=tolerance, rtol=0)
        assert scores.kl.max() < tolerance**1.5
        assert scores.agree.all()
        assert not torch.allclose(full[1], full[3], atol=1e-2)
    starved = score_cached(model.with_loop(virtual_layer_count=2), windows, fidelity=True)
    assert starved.kl.mean() > 1e-3
    assert starved.kl[:, 0].max() < 1e-9  # nothing is in the cache yet
    assert not starved.agree.all()


def test_fidelity_is_the_kl_from_the_full_pass():
    model = build(LOOP | MODES["parallel"]).double()
    windows = ids(7, rows=2)
    scores = score_cached(model, windows, fidelity=True)
    with torch.no_grad():
        p = model(windows[:, :-1], use_cache=False).logits.log_softmax(-1)
    q = torch.cat([logits for _, logits in through_cache(model.with_loop(), windows[:, :-1])], dim=1).log_softmax(-1)
    kl = (p.exp() * (p - q)).sum(-1)
    assert kl[:, 1:].min() > 1e-6
    torch.testing.assert_close(scores.kl, kl, atol=1e-9, rtol=1e-7)
    assert scores.agree.tolist() == (p.argmax(-1) == q.argmax(-1)).tolist()


def test_a_chunk_is_a_chunked_prefill():
    model = build(LOOP | MODES["last"]).double()
    windows = ids(8, rows=2)
    whole = score_cached(model, windows, chunk=7)  # one pass: no earlier tokens, so no merged K/V are read
    torch.testing.assert_close(whole.nats, score_full(model, windows, (3,))[3], atol=1e-6, rtol=0)
    assert [t for t, _ in through_cache(model.with_loop(), windows, chunk=3)] == [0, 3, 6]
    half = score_cached(model, windows, chunk=4)
    assert (half.nats - whole.nats).abs()[:, :4].max() < 1e-6
    assert (half.nats - whole.nats).abs()[:, 4:].max() > 1e-3
    with pytest.raises(ValueError, match="chunk=0"):
        score_cached(model, windows, chunk=0)


def test_under_dynamic_stop_the_full_pass_decides_over_real_tokens():
    model = build(DYNAMIC | MODES["serial"] | {"cosine_threshold": 0.9875}).double()  # padding would tip the scales
    windows = ids(12, rows=2)
    short = windows[1:, :6].clone()
    windows[1, 6:] = 0
    mask = torch.ones(2, 11, dtype=torch.int64)
    mask[1, 5:] = 0
    expected = score_cached(model, short, fidelity=True).full_nats[0]
    torch.testing.assert_close(score_cached(model, windows, fidelity=True, mask=mask).full_nats[1, :5], expected)
    assert not torch.allclose(score_cached(model, windows, fidelity=True).full_nats[1, :5], expected, atol=1e-4)


@pytest.mark.parametrize("layers", [(1, 2), [(0, 0), (2, 3)], None])
def test_every_loop_count_of_a_full_pass_is_what_that_count_gives(layers):
    loop = {} if layers is None else {"loop_layers": layers, "loop_injection": "add"}
    model = build(loop).double()
    windows = ids(7, rows=2)
    found = score_full(model, windows, (1, 2, 12))
    assert list(found) == ([1] if layers is None else [1, 2, 12])
    for r, nats in found.items():
        with torch.no_grad():
            logits = fixed(model, r)(windows[:, :-1], use_cache=False).logits
        expected = -logits.log_softmax(-1).gather(-1, windows[:, 1:, None])[..., 0]
        torch.testing.assert_close(nats, expected, atol=1e-9, rtol=1e-9)
