"""A stop ends work in the middle of a pass, leaves nothing behind, and changes no value of what is not stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from loopviz.model import Interrupted, LoopCache, LoopLlamaForCausalLM, interrupt, interruptible
from tests.engine import tiny

NEVER = threading.Event()
LOOPS: dict[str, dict[str, Any]] = {
    "plain": {},
    "serial": {"loop_layers": (1, 2), "loop_count": 3, "virtual_layer_count": 2, "virtual_attention_mode": "serial"},
    "parallel": {"loop_layers": (1, 2), "loop_count": 3, "virtual_layer_count": 2},
    "merged": {"loop_layers": (1, 2), "loop_count": 3, "kv_cache_mode": "merge_strategy"},
    "dynamic": {"loop_layers": (1, 2), "loop_strategy": "dynamic_stop", "cosine_threshold": 0.97, "kl_threshold": 0.02},
    "layers by influence": {"loop_layers": (1, 3), "layer_chooser": "influence", "layer_threshold": 0.25},
    "two blocks": {"loop_layers": [(0, 1), (3, 4)], "loop_count": [2, 3]},
}
IDS = torch.arange(1, 25).view(2, 12)  # two rows of twelve tokens


class StopAt:
    """A stop that is set from the nth time on that it is looked at."""

    def __init__(self, n: int) -> None:
        self.n, self.looks = n, 0

    def is_set(self) -> bool:
        self.looks += 1
        return self.looks >= self.n


def count_layers(model: LoopLlamaForCausalLM, then: Callable[[int], None] = lambda n: None) -> list[int]:
    """The layers that run, as they begin; `then` is told how many have."""
    ran: list[int] = []

    def begin(layer: nn.Module, given: Any) -> None:
        ran.append(layer.self_attn.layer_idx)
        then(len(ran))

    for layer in model.model.layers:
        layer.register_forward_pre_hook(begin)
    return ran


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every operation is looked at, and nearly every one is done in pieces, as those of thousands of tokens are."""
    monkeypatch.setattr(interrupt, "MANY", 1)
    monkeypatch.setattr(interrupt, "PIECE", 500)


@pytest.mark.parametrize("kind", LOOPS)
@torch.no_grad()
def test_no_layer_begins_after_a_stop(kind):
    model, stop = tiny.model(**LOOPS[kind]), threading.Event()
    ran = count_layers(model, lambda n: stop.set() if n == 4 else None)
    with interruptible(stop), pytest.raises(Interrupted):
        model.model(IDS)
    assert len(ran) == 4, "the layer in which the stop came was the last"


@pytest.mark.parametrize("kind", LOOPS)
@torch.no_grad()
def test_a_cache_is_after_an_interrupted_pass_as_before_it(kind):
    model, stop = tiny.model(**LOOPS[kind]), threading.Event()
    cache, other = LoopCache(model.config), LoopCache(model.config)
    for each in (cache, other):
        model.model(IDS[:, :5], past_key_values=each, use_cache=True)
    before = cache.occupancy()
    ran = count_layers(model, lambda n: stop.set() if n == 4 else None)
    with interruptible(stop), pytest.raises(Interrupted):
        model.model(IDS[:, 5:], past_key_values=cache, use_cache=True)
    assert len(ran) == 4
    assert cache.get_seq_length() == 5
    assert cache.occupancy() == before
    again, plain = (model.model(IDS[:, 5:], past_key_values=each, use_cache=True)[0] for each in (cache, other))
    assert torch.equal(again, plain)


@torch.no_grad()
def test_an_interrupt_is_of_who_calls_and_not_of_the_weights():
    """A pass of another thread over the same weights, in the middle of which the stop is set, goes on to its end."""
    model, stop = tiny.model(**LOOPS["parallel"]), threading.Event()
    expected = model.with_loop().model(IDS)[0]
    inside, go_on, found = threading.Event(), threading.Event(), []
    other = model.with_loop()

    def hold(event: Any) -> None:
        inside.set()
        assert go_on.wait(60)

    other.register_loop_hook(hold)

    @torch.no_grad()
    def work() -> None:
        found.append(other.model(IDS)[0])

    thread = threading.Thread(target=work)
    thread.start()
    assert inside.wait(60)
    stop.set()
    with interruptible(stop), pytest.raises(Interrupted):
        model.model(IDS)
    go_on.set()
    thread.join(60)
    assert torch.equal(found[0], expected)
    assert torch.equal(model.model(IDS)[0], expected), "outside of the block nothing is looked at"


@torch.no_grad()
def test_the_outer_of_two_stops_ends_the_inner_work():
    model, outer = tiny.model(), threading.Event()
    outer.set()
    with interruptible(outer), interruptible(NEVER), pytest.raises(Interrupted):
        model.model(IDS)
    model.model(IDS)


@torch.no_grad()
def test_the_exit_lens_is_interrupted_before_its_next_layer():
    model, stop = tiny.model(**LOOPS["serial"]), threading.Event()
    states = torch.randn(3, 1, 7, 32)
    ran = count_layers(model, lambda n: stop.set())
    with interruptible(stop), pytest.raises(Interrupted):
        model.exit_states(states)
    assert ran == [3]


@torch.no_grad()
def test_generate_is_interrupted():
    model, stop = tiny.model(**LOOPS["serial"]), threading.Event()
    ran = count_layers(model, lambda n: stop.set() if n == 30 else None)
    with interruptible(stop), pytest.raises(Interrupted):
        model.generate(IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=50, do_sample=False, pad_token_id=0)
    assert len(ran) == 30


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", LOOPS)
@torch.no_grad()
def test_a_pass_in_pieces_has_the_values_of_one_that_cannot_be_stopped(kind, attention):
    model = tiny.model(**LOOPS[kind]).double()  # these weights make much of float32's last bit
    model.set_attn_implementation(attention)
    padded = torch.ones_like(IDS)
    padded[1, 9:] = 0
    for mask in (None, padded):
        plain, cut = LoopCache(model.config), LoopCache(model.config)
        for part in (slice(0, 7), slice(7, 12)):
            seen = None if mask is None else mask[:, : part.stop]
            expected = model.model(IDS[:, part], attention_mask=seen, past_key_values=plain, use_cache=True)[0]
            with interruptible(NEVER):
                found = model.model(IDS[:, part], attention_mask=seen, past_key_values=cut, use_cache=True)[0]
            real = torch.ones(2, 12).bool() if mask is None else mask.bool()
            torch.testing.assert_close(found[real[:, part]], expected[real[:, part]], atol=1e-9, rtol=1e-9)


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("n", [5, 60, 150])
@torch.no_grad()
def test_a_stop_acts_inside_a_layer_too(n):
    model = tiny.model(**LOOPS["serial"])
    whole = StopAt(10**9)
    with interruptible(whole):
        model.model(IDS)
    layers = sum(1 for _ in range(2 * 3 + 3))
    assert whole.looks > 10 * layers, "far more looks than layers"
    stop = StopAt(n)
    with interruptible(stop), pytest.raises(Interrupted):
        model.model(IDS)
    assert stop.looks == n, "nothing more is looked at, for nothing more is done"


@torch.inference_mode()
def test_products_and_attention_in_pieces_are_what_they_are_whole(monkeypatch):
    torch.manual_seed(0)
    x, w, bias = torch.randn(2, 9, 8), torch.randn(12, 8), torch.randn(12)
    q, k, v = torch.randn(2, 4, 9, 8), torch.randn(2, 4, 13, 8), torch.randn(2, 4, 13, 6)
    mask = torch.rand(2, 1, 9, 13) > 0.3
    mask[..., 0] = True
    work = {
        "linear": lambda: F.linear(x, w),
        "linear, bias": lambda: F.linear(x, w, bias),
        "linear, two dimensions": lambda: F.linear(x[0], w, bias),
        "matmul": lambda: torch.matmul(x, w.T),
        "operator": lambda: q @ k.transpose(-1, -2),
        "one matrix for all": lambda: q[0] @ torch.randn(8, 5, generator=torch.Generator().manual_seed(1)),
        "all for one matrix": lambda: w @ x.transpose(-1, -2),
        "bmm": lambda: torch.bmm(x, x.transpose(1, 2)),
        "masked": lambda: F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.3),
        "one mask for all queries": lambda: F.scaled_dot_product_attention(q, k, v, attn_mask=mask[..., :1, :]),
        "additive": lambda: F.scaled_dot_product_attention(q, k, v, attn_mask=torch.zeros(9, 13).masked_fill(~mask[0, 0], -9)),
        "causal": lambda: F.scaled_dot_product_attention(q, k[:, :, :9], v[:, :, :9], is_causal=True),
        "causal, more keys": lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        "shared keys": lambda: F.scaled_dot_product_attention(q, k[:, :2], v[:, :2], enable_gqa=True),
    }  # fmt: skip
    for name, made in work.items():
        looks = []
        for piece in (10**9, 100):
            monkeypatch.setattr(interrupt, "PIECE", piece)
            looks.append(StopAt(10**9))
            with interruptible(looks[-1]), interrupt.within_operations(10**6):
                found = made()
            torch.testing.assert_close(found, made(), atol=1e-6, rtol=1e-6, msg=name)
        assert looks[1].looks > looks[0].looks, f"{name} was done whole"


def test_gradients_are_left_alone():
    """Training looks at no stop by itself; where it is asked to, nothing is cut, and gradients are what they are."""
    model = tiny.model(**LOOPS["serial"])
    model.model(IDS)[0].sum().backward()
    expected = model.model.layers[1].mlp.up_proj.weight.grad.clone()
    model.zero_grad()
    with interruptible(NEVER):
        model.model(IDS)[0].sum().backward()
    assert torch.equal(model.model.layers[1].mlp.up_proj.weight.grad, expected)


def test_until_ends_a_generator_and_closes_it():
    stop, closed = threading.Event(), []

    def steps():
        try:
            for n in range(10):
                interrupt.check()
                yield n
            return "whole"
        finally:
            closed.append(True)

    found = []
    for n in interrupt.until(stop, steps()):
        found.append(n)
        if n == 3:
            stop.set()
    assert (found, closed) == ([0, 1, 2, 3], [True])

    def result(stop):
        returned.append((yield from interrupt.until(stop, steps())))

    returned: list[Any] = []
    assert list(result(NEVER)) == list(range(10))
    assert returned == ["whole"]
    assert list(result(StopAt(4)))
    assert returned == ["whole", None]


def test_until_leaves_its_consumer_alone():
    """Between two steps of a stopped generator the consumer's own work is not interrupted."""
    stop = threading.Event()
    steps = interrupt.until(stop, (n for n in range(3)))
    next(steps)
    stop.set()
    interrupt.check()
    assert list(steps) == []
