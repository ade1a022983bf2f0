"""Metrics against slow references that share no code with them, and where a quantity is undefined."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loopviz.trace import metrics
from loopviz.trace.packed import encode_floats, encode_halves

unhurried = settings(deadline=None)  # no timings in tests
pairs = st.integers(1, 12).flatmap(
    lambda n: st.tuples(*(st.lists(st.floats(-30, 30, width=32), min_size=n, max_size=n) for _ in range(2)))
)


def softmax(values):
    top = max(values)
    weights = [math.exp(v - top) for v in values]
    return [w / math.fsum(weights) for w in weights]


def length(values):
    return math.sqrt(math.fsum(v * v for v in values))


@unhurried
@given(pairs)
def test_geometry(pair):
    a, b = pair
    new, old = torch.tensor(a), torch.tensor(b)
    # float32: below 1e-19 a square is no normal number any more, and below 1e-22 it is zero
    assert metrics.norm(new).item() == pytest.approx(length(a), rel=1e-5, abs=1e-18)
    if length(a) > 1e-3:
        expected = length([x - y for x, y in zip(a, b, strict=True)]) / length(a)
        assert metrics.rel_delta(new, old).item() == pytest.approx(expected, rel=1e-4, abs=1e-5)
        if length(b) > 1e-3:
            dot = math.fsum(x * y for x, y in zip(a, b, strict=True))
            assert metrics.cosine(new, old).item() == pytest.approx(dot / length(a) / length(b), abs=1e-5)


@unhurried
@given(pairs)
def test_distributions(pair):
    a, b = pair
    p, q = softmax(a), softmax(b)
    log_p, log_q = metrics.log_probs(torch.tensor(a)), metrics.log_probs(torch.tensor(b))
    reference_kl = math.fsum(x * math.log(x / y) for x, y in zip(p, q, strict=True) if x > 0)
    assert metrics.kl(log_p, log_q).item() == pytest.approx(reference_kl, rel=1e-4, abs=1e-5)
    reference_entropy = -math.fsum(x * math.log(x) for x in p if x > 0)
    assert metrics.entropy(log_p).item() == pytest.approx(reference_entropy, rel=1e-4, abs=1e-5)
    assert metrics.kl(log_p, log_q).item() >= 0
    assert metrics.entropy(log_p).item() >= 0


@unhurried
@given(pairs, st.integers(1, 14))
def test_rank_and_top_k(pair, k):
    logits = pair[0]
    log_p = metrics.log_probs(torch.tensor(logits))
    order = sorted(log_p.tolist(), reverse=True)
    for i in range(len(logits)):
        assert metrics.rank(log_p, torch.tensor(i)).item() == 1 + order.index(log_p[i].item())
    values, ids = metrics.top_k(log_p, k)
    assert values.tolist() == order[:k]
    assert log_p[ids].tolist() == values.tolist()


def test_kl_has_a_direction():
    p, q = torch.tensor([0.9, 0.1]).log(), torch.tensor([0.5, 0.5]).log()
    assert metrics.kl(p, q).item() == pytest.approx(0.9 * math.log(1.8) + 0.1 * math.log(0.2), rel=1e-5)
    assert metrics.kl(q, p).item() == pytest.approx(0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(5), rel=1e-5)


def test_batched_shapes_agree_with_one_at_a_time():
    generator = torch.Generator().manual_seed(0)
    new, old = torch.randn(3, 4, 7, generator=generator), torch.randn(3, 4, 7, generator=generator)
    log_p, log_q, token = metrics.log_probs(new), metrics.log_probs(old), torch.randint(7, (3, 4), generator=generator)
    for i, j in np.ndindex(3, 4):
        for batched, single in [
            (metrics.cosine(new, old), metrics.cosine(new[i, j], old[i, j])),
            (metrics.rel_delta(new, old), metrics.rel_delta(new[i, j], old[i, j])),
            (metrics.kl(log_p, log_q), metrics.kl(log_p[i, j], log_q[i, j])),
            (metrics.entropy(log_p), metrics.entropy(log_p[i, j])),
            (metrics.rank(log_p, token), metrics.rank(log_p[i, j], token[i, j])),
        ]:
            assert batched.shape == (3, 4)
            assert batched[i, j].item() == pytest.approx(single.item(), rel=1e-6, abs=1e-7)


def test_where_a_quantity_is_undefined_or_extreme():
    zero, one = torch.zeros(4), torch.ones(4)
    assert math.isnan(metrics.cosine(zero, one))
    assert math.isnan(metrics.cosine(one, zero))
    assert math.isnan(metrics.rel_delta(zero, one))
    assert math.isnan(metrics.rel_delta(zero, zero))
    assert metrics.rel_delta(one, one).item() == 0
    assert metrics.cosine(one, one).item() == pytest.approx(1, abs=1e-6)
    assert metrics.cosine(one * 1e15, one * 1e-15).item() == pytest.approx(1, abs=1e-6)
    log_p = metrics.log_probs(torch.tensor([0.0, 0.0, -torch.inf]))
    log_q = metrics.log_probs(torch.tensor([0.0, -torch.inf, 0.0]))
    assert metrics.entropy(log_p).item() == pytest.approx(math.log(2))
    assert metrics.kl(log_p, log_p).item() == 0
    assert metrics.kl(log_p, log_q).item() == math.inf
    assert metrics.rank(log_p, torch.tensor(2)).item() == 3
    assert metrics.rank(log_p, torch.tensor(1)).item() == 1


def test_half_precision_logits_are_widened_first():
    logits = torch.randn(500, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    assert metrics.log_probs(logits).dtype == torch.float32
    assert metrics.log_probs(logits).exp().sum().item() == pytest.approx(1, abs=1e-5)
    assert metrics.log_probs(logits.double()).dtype == torch.float64


@pytest.mark.parametrize("shape", [(5, 1, 1000), (2, 3, 7), (1, 4)])
def test_rank_counts_what_scores_higher(shape):
    generator = torch.Generator().manual_seed(2)
    scores = torch.randint(0, 20, shape, generator=generator).float()  # many ties
    token = torch.randint(shape[-1], shape[:-1], generator=generator)
    for at in np.ndindex(*shape[:-1]):
        own = scores[at][token[at]].item()
        assert metrics.rank(scores, token)[at].item() == 1 + sum(score > own for score in scores[at].tolist())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_halves_are_packed_as_the_floats_they_are_made_of(dtype):
    """To the last bit: ties, what is too small or too large for float16, and what is no number."""
    edges = [
        torch.nan,
        torch.inf,
        -torch.inf,
        65504,
        65519.9,
        65520,
        1e30,
        -1e30,
        0.0,
        -0.0,
        2.0**-24,
        2.0**-25,
        2.0**-26,
    ]
    edges += [1 + 2.0**-11, 1 + 3 * 2.0**-11, 2.0**-14, 2.0**-14 - 2.0**-25, 5e-8]
    drawn = torch.randn(4096, generator=torch.Generator().manual_seed(0)) * 10.0 ** torch.arange(-8, 8).repeat(256)
    values = torch.cat((torch.tensor(edges), drawn[: 4096 - len(edges)])).view(-1, 32).to(dtype)
    found = metrics.halves(values)
    assert found.dtype == np.float16
    assert encode_halves(found) == encode_floats(values.float().numpy())
    assert encode_halves(found.T[3:]) == encode_floats(values.float().numpy().T[3:]), "of a part, in another order"
