"""scan: with checkpoints of any group size, any remainder, the numbers and gradients of the plain loop."""

import threading

import pytest
import torch

from loopviz.model.interrupt import Interrupted, interruptible
from loopviz.ttt.scan import scan

from .tiny import build, ids


def step(carry, item):
    carry = torch.tanh(carry * item)
    return carry, carry + item


@pytest.mark.parametrize("group", [0, 1, 2, 3, 5, 7, 100])
@pytest.mark.parametrize("n", [0, 1, 2, 5, 6, 7])
def test_any_group_size_and_remainder(n, group):
    torch.manual_seed(0)
    start, items = torch.rand(3).requires_grad_(), list(torch.rand(n, 3))
    carry, found = scan(step, start, items, group)
    plain, expected = start, []
    for item in items:
        plain, y = step(plain, item)
        expected.append(y)
    assert torch.equal(carry, plain)
    assert len(found) == n
    assert all(map(torch.equal, found, expected))
    total = carry.sum() + sum(each.sum() for each in found)
    other = plain.sum() + sum(each.sum() for each in expected)
    assert torch.equal(torch.autograd.grad(total, start)[0], torch.autograd.grad(other, start)[0])


def test_a_checkpointed_group_is_computed_again_and_only_then():
    calls = []

    def counted(carry, item):
        calls.append(item)
        return step(carry, item)

    items, start = list(torch.rand(5, 3)), torch.rand(3).requires_grad_()
    carry, _ = scan(counted, start, items, 2)
    assert len(calls) == 5
    carry.sum().backward()
    assert len(calls) == 10
    with torch.no_grad():
        scan(counted, start, items, 2)
    assert len(calls) == 15


@pytest.mark.parametrize("kind", ["linear", "mlp"])
@pytest.mark.parametrize("group", [1, 2, 3, 4])
def test_published_defect_group_size_with_a_remainder_or_fewer_mini_batches(group, kind):
    """There: `range() arg 3 must not be zero` with fewer mini-batches than groups, and for any remainder."""
    plain, grouped = build(ttt_layer_type=kind), build(ttt_layer_type=kind, scan_checkpoint_group_size=group)
    for n in (3, 4, 11, 14):
        tokens = ids(n, rows=2)
        one, other = plain(tokens, labels=tokens).loss, grouped(tokens, labels=tokens).loss
        assert torch.equal(one, other)
        pairs = zip(plain.parameters(), grouped.parameters(), strict=True)
        leaves = [(a, b) for a, b in pairs]
        ours = torch.autograd.grad(other, [b for _, b in leaves], allow_unused=True)
        theirs = torch.autograd.grad(one, [a for a, _ in leaves], allow_unused=True)
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b)


def test_gradient_checkpointing_of_blocks_gives_the_same_gradients():
    model, tokens = build(ttt_layer_type="mlp"), ids(11, rows=2)
    expected = torch.autograd.grad(model(tokens, labels=tokens).loss, list(model.parameters()))
    model.gradient_checkpointing_enable({"use_reentrant": False})  # by the name that all releases know
    model.train()
    found = torch.autograd.grad(model(tokens, labels=tokens).loss, list(model.parameters()))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_a_stop_ends_it_between_two_items():
    stop, seen = threading.Event(), []

    def one(carry, item):
        seen.append(item)
        if item == 2:
            stop.set()
        return carry, item

    with pytest.raises(Interrupted), interruptible(stop):
        scan(one, None, [0, 1, 2, 3, 4])
    assert seen == [0, 1, 2]
