"""Oracle 4: every cache mode, strategy and loop option equals the slow reference, pass by pass, through the cache."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from .reference import RefPass
from .tiny import MODES, TOLERANCE, any_loop, build, close, ids, precision, random_shapes, reference

CHUNKS = [[1, 1, 1, 1, 1, 1], [4, 1, 1], [3, 2, 1], [6], [1, 5]]
"""How six tokens are fed: token by token, prefill and decode, chunked prefill, whole, decode into a longer pass."""


@pytest.fixture(autouse=True, params=[False, True], ids=["no_grad", "autograd"])
def _gradients(request):
    """Everything twice: K/V are kept in place, or out of place where autograd needs them."""
    with torch.set_grad_enabled(request.param):
        yield


def must(be_steady: bool) -> None:
    assert be_steady, "a metric too near its threshold: choose another seed"


def compare(model, slow, chunks, tolerance, seed=0, then=lambda expected: None, sure=must):
    """Feed the same chunks to both; compare logits, steps, reasons and the K/V each token left behind.

    `then` is called after each pass, with what the reference gave; `sure` before it is compared, with whether no rounding
    error could have changed where the loops stopped: hypothesis' `assume`, where examples are drawn.
    """
    tokens = ids(sum(chunks), seed)
    cache = slow_cache = None
    passes: list[RefPass] = []
    start = 0
    for size in chunks:
        part = tokens[:, start : start + size]
        out = model(part, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        expected = slow(part[0].tolist(), slow_cache)
        slow_cache = expected.cache
        passes.append(expected)
        sure(steady(expected, slow))
        assert [int(steps) for steps in model.last_pass.steps] == expected.steps
        for reasons, reason in zip(model.last_pass.reasons, expected.reasons, strict=True):
            assert agrees(reasons, reason)
        close(out.logits[0], expected.logits, tolerance)
        start += size
        assert cache.get_seq_length() == start
        held = [record.slots for record in cache.occupancy().layers]
        assert held == [slow_cache.slots(layer) for layer in range(slow.count)]
        then(expected)
    return passes


def agrees(reasons, expected):
    """`both` needs two measures: the semantics leave open which of them it is reported as."""
    return list(reasons) in ([[expected], ["cosine"], ["kl"]] if expected == "both" else [[expected]])


def steady(result: RefPass, slow) -> bool:
    """Whether no rounding error could have changed where the loops stopped."""
    for block, cosines, kls in zip(slow.blocks, result.cosine, result.kl, strict=True):
        if block["loop_strategy"] == "fixed_count":
            continue
        criterion = block["convergence_criterion"]
        if criterion != "kl" and any(abs(c - block["cosine_threshold"]) < 1e-6 for c in cosines):
            return False
        if criterion != "cosine" and any(abs(k - block["kl_threshold"]) < 1e-6 for k in kls):
            return False
    return True


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("chunks", CHUNKS, ids=str)
@pytest.mark.parametrize("mode", list(MODES))
def test_fixed_count(mode, chunks, dtype):
    loop = {"loop_layers": (1, 2), "loop_count": 3, **MODES[mode]}
    model = build(loop).to(dtype)
    with precision(dtype) as tolerance:
        compare(model, reference(model, loop), chunks, tolerance)


@pytest.mark.parametrize("mode", list(MODES))
def test_float32_at_the_usual_initialisation(mode):
    loop = {"loop_layers": (1, 2), "loop_count": 3, **MODES[mode]}
    model = build(loop, initializer_range=0.02)
    compare(model, reference(model, loop), [3, 1, 1], 1e-5)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("mode", list(MODES))
def test_attention_implementations(mode, attention):
    loop = {"loop_layers": (0, 1), "loop_count": 5, **MODES[mode]}
    model = build(loop, attn_implementation=attention, num_hidden_layers=3)
    compare(model, reference(model, loop), [3, 1, 1], TOLERANCE[torch.float32])


OPTIONS = {
    "damping": {"loop_damping": 0.4},
    "add": {"loop_injection": "add"},
    "linear": {"loop_injection": "linear"},
    "norm": {"loop_norm": True},
    "all": {"loop_damping": 0.6, "loop_injection": "linear", "loop_norm": True},
    "ema_weight": {"merge_ema_alpha": 0.2},
}


@pytest.mark.parametrize("option", list(OPTIONS))
@pytest.mark.parametrize("mode", ["serial", "parallel_wrapping", "ema"])
def test_damping_injection_and_norm(mode, option):
    loop = {"loop_layers": (1, 2), "loop_count": 3, **MODES[mode], **OPTIONS[option]}
    model = build(loop)
    slow = reference(model, loop)
    compare(model, slow, [4, 1, 1], TOLERANCE[torch.float32])
    if option != "ema_weight" or mode == "ema":
        plain = {name: value for name, value in loop.items() if name not in OPTIONS[option]}
        without = reference(model, {**plain})
        tokens = ids(6)[0].tolist()
        with_it = slow(tokens[4:], slow(tokens[:4]).cache).logits
        without_it = without(tokens[4:], without(tokens[:4]).cache).logits
        assert (with_it - without_it).abs().max() > 1e-3, "the option has no effect here: the test would prove nothing"


@pytest.mark.parametrize("criterion", ["cosine", "kl", "either", "both"])
@pytest.mark.parametrize(
    "mode", ["serial", "serial_wrapping", "parallel", "parallel_wrapping", "ema", "average", "last"]
)
def test_dynamic_stop(mode, criterion):
    """Thresholds are set between measured values, so that passes stop early, at different steps."""
    loop = {
        "loop_layers": (1, 2),
        "loop_strategy": "dynamic_stop",
        "convergence_criterion": criterion,
        "max_loop_count": 7,
        "loop_damping": 0.5,
        **MODES[mode],
    }
    if mode not in ("ema", "average", "last"):
        loop["min_loop_count"] = loop["virtual_layer_count"]
    # Nothing stops at these thresholds: they show the metrics at every step, to place the real ones among.
    never = {**loop, "cosine_threshold": 1.0, "kl_threshold": 0.0}
    model = build(never).double()
    with precision(torch.float64) as tolerance:
        measured = compare(model, reference(model, never), [4, 1, 1], tolerance)
        assert [p.steps for p in measured] == [[7]] * 3
        assert [p.reasons for p in measured] == [["max"]] * 3
        loop["cosine_threshold"] = sum(measured[1].cosine[0][4:6]) / 2
        loop["kl_threshold"] = sum(measured[1].kl[0][4:6]) / 2
        model.set_loop(cosine_threshold=loop["cosine_threshold"], kl_threshold=loop["kl_threshold"])
        stopped = compare(model, reference(model, loop), [4, 1, 1], tolerance)
    assert any(p.steps[0] < 7 for p in stopped), "nothing stopped early: the test would prove nothing"


def test_floor_holds_the_loop_back():
    """A criterion that would hold at step 1 is not asked before the floor."""
    easy = {"loop_layers": (1, 2), "loop_strategy": "dynamic_stop", "cosine_threshold": 1e-6, "loop_damping": 0.1}
    for fields, steps in (
        ({}, 5),
        ({"min_loop_count": 6}, 6),
        ({"kv_cache_mode": "merge_strategy"}, 1),
        ({"kv_cache_mode": "merge_strategy", "min_loop_count": 4}, 4),
    ):
        loop = {**easy, **fields}
        model = build(loop)
        passes = compare(model, reference(model, loop), [3, 1], TOLERANCE[torch.float32])
        assert [p.steps for p in passes] == [[steps]] * 2
        assert [p.reasons for p in passes] == [["cosine"]] * 2


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.data(), random_shapes(), st.sampled_from([[2, 1, 1], [1, 2], [3], [2, 2]]), st.integers(0, 5))
def test_any_configuration(data, shape, chunks, seed):
    loop = data.draw(any_loop(shape["num_hidden_layers"]))
    model = build(loop, seed=seed, **shape).double()
    with precision(torch.float64) as tolerance:
        compare(model, reference(model, loop), chunks, tolerance, seed, sure=assume)
