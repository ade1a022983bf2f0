"""A mini-batch in its two forms, whole and in parts: all the same numbers."""

from itertools import pairwise

import pytest
import torch

from loopviz.ttt.inner_model import NAMES, gradients, read, shapes
from loopviz.ttt.inner_step import (
    Carry,
    MiniBatch,
    dual,
    dual_part,
    primal,
    step,
    sums_by_token,
    weights_by_token,
)
from loopviz.ttt.norm_loss import HeadNorm, loss

from .tiny import build, ids

N, M, D = 3, 6, 4
EXACT = {"rtol": 0, "atol": 1e-11}


def given(kind: str):
    torch.manual_seed(2)
    theta = tuple(torch.randn(shape, dtype=torch.double) for shape in shapes(kind, N, D).values())
    query, keys, target = torch.randn(3, N, M, D, dtype=torch.double)
    gain, bias = torch.randn(2, N, 1, D, dtype=torch.double)
    lr, scale = 0.3 * torch.rand(N, M, 1, dtype=torch.double), torch.rand(1, M, 1, dtype=torch.double)
    return theta, query, keys, target, HeadNorm(gain, bias), lr, scale


def part(given, start: int, stop: int, closing) -> MiniBatch:
    _, query, keys, target, norm, lr, scale = given
    q, k, p, rate, s = (each[:, start:stop] for each in (query, keys, norm.pull(target), lr, scale))
    last = scale[0, -1, 0]
    return MiniBatch(q, k, p, rate, s, closing, dual_part(q, k, rate, s, last), last)


def one_by_one(given):
    """Outputs, and the weights after the last token, by autograd."""
    theta, query, keys, target, norm, lr, scale = given
    sums, out = [torch.zeros_like(each) for each in theta], []
    for i in range(M):
        leaves = [each.clone().requires_grad_() for each in theta]
        at = slice(i, i + 1)
        found = torch.autograd.grad(loss(read(leaves, keys[:, at]), target[:, at], norm).sum(), leaves)
        sums = [total + lr[:, at] * each for total, each in zip(sums, found, strict=True)]
        now = [each - scale[0, i] * total for each, total in zip(theta, sums, strict=True)]
        out.append(read(now, query[:, at]))
    return torch.cat(out, dim=1), now, sums


@pytest.mark.parametrize("form", [dual, primal])
@pytest.mark.parametrize("kind", NAMES)
def test_a_whole_mini_batch_is_its_tokens_one_by_one(kind, form):
    data = given(kind)
    expected, theta, _ = one_by_one(data)
    carry, out = form(Carry(data[0], None), part(data, 0, M, True), data[4].gain.square())
    torch.testing.assert_close(out, expected, **EXACT)
    assert carry.sums is None
    for mine, other in zip(carry.theta, theta, strict=True):
        torch.testing.assert_close(mine, other, **EXACT)


@pytest.mark.parametrize("cuts", [(0, 1, 6), (0, 4, 6), (0, 2, 3, 5, 6), tuple(range(7))])
@pytest.mark.parametrize("form", [dual, primal, step])
@pytest.mark.parametrize("kind", NAMES)
def test_parts_of_a_mini_batch_are_the_whole(kind, form, cuts):
    data = given(kind)
    expected, theta, _ = one_by_one(data)
    carry, out = Carry(data[0], None), []
    for start, stop in pairwise(cuts):
        carry, more = form(carry, part(data, start, stop, stop == M), data[4].gain.square())
        out.append(more)
    torch.testing.assert_close(torch.cat(out, dim=1), expected, **EXACT)
    for mine, other in zip(carry.theta, theta, strict=True):
        torch.testing.assert_close(mine, other, **EXACT)


@pytest.mark.parametrize("form", [dual, primal])
@pytest.mark.parametrize("kind", NAMES)
def test_rows_that_close_here_write_and_the_others_hand_on(kind, form):
    data = given(kind)
    _, theta, sums = one_by_one(data)
    closing = torch.tensor([1.0, 0.0, 1.0], dtype=torch.double)[:, None, None]
    carry, _ = form(Carry(data[0], None), part(data, 0, M, closing), data[4].gain.square())
    for index, start in enumerate(data[0]):
        torch.testing.assert_close(carry.theta[index][[0, 2]], theta[index][[0, 2]], **EXACT)
        torch.testing.assert_close(carry.theta[index][1], start[1], **EXACT)
        torch.testing.assert_close(carry.sums[index][1], sums[index][1], **EXACT)
        assert not carry.sums[index][[0, 2]].any()


@pytest.mark.parametrize("kind", NAMES)
def test_all_tokens_weights_at_once_are_those_of_the_primal_form(kind):
    data = given(kind)
    carry = primal(Carry(data[0], None), part(data, 0, 2, False), data[4].gain.square())[0]
    rest, square = part(data, 2, M, False), data[4].gain.square()
    found = gradients(carry.theta, rest.keys, rest.pull, square)
    theta = weights_by_token(carry, rest, sums_by_token(carry, rest, found))
    expected, last, _ = one_by_one(data)
    torch.testing.assert_close(read(theta, rest.query.unsqueeze(-2)).squeeze(-2), expected[:, 2:], **EXACT)
    for mine, other in zip(theta, last, strict=True):
        torch.testing.assert_close(mine[:, -1], other, **EXACT)


def test_one_token_takes_the_primal_form_and_several_the_dual(monkeypatch, no_gradients):
    from loopviz.ttt import inner_step

    model, taken = build(num_hidden_layers=1), []
    for name, function in (("dual", dual), ("primal", primal)):
        note = lambda *args, name=name, function=function: taken.append(name) or function(*args)  # noqa: E731
        monkeypatch.setattr(inner_step, name, note)
    for n, expected in ((1, ["primal"]), (2, ["dual"]), (4, ["dual"]), (5, ["dual", "primal"])):
        taken.clear()
        model(ids(n))
        assert taken == expected


def test_where_nobody_asks_what_comes_after_nothing_is_computed_for_it():
    data = given("linear")
    carry = Carry(data[0], None)
    assert step(carry, part(data, 0, M, None), data[4].gain.square())[0] is carry
