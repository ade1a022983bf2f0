"""Both forms of rotary positions turn alike, the permutation leads from one to the other, and only distance counts."""

from __future__ import annotations

import math

import pytest
import torch

from loopviz.anatomy import rope
from loopviz.anatomy.llama import rotary_frequencies, rotate, rotation
from tests.anatomy.pairs import LLAMA_3, configuration

WIDTH = 8
PLACES = torch.tensor([0, 1, 5, 1000])


@pytest.fixture(params=["default", "llama3"])
def frequencies(request) -> torch.Tensor:
    rule = LLAMA_3 if request.param == "llama3" else {"rope_type": "default", "rope_theta": 10000.0}
    return rotary_frequencies(configuration(head_dim=WIDTH, rope_parameters=dict(rule))).double()


@pytest.fixture
def heads() -> torch.Tensor:
    return torch.randn(2, 3, len(PLACES), WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_pairs_and_halves_agree_after_the_permutation(frequencies, heads):
    order = rope.pairs_order(WIDTH)
    halves = rope.rotate_halves(heads, frequencies, PLACES)
    pairs = rope.rotate_pairs(heads[..., order], frequencies, PLACES)
    assert (halves[..., order] - pairs).abs().max() < 1e-12
    assert (halves - rope.rotate_pairs(heads, frequencies, PLACES)).abs().max() > 0.1, "and not without it"


def test_the_permutation_and_its_way_back():
    assert rope.pairs_order(8).tolist() == [0, 4, 1, 5, 2, 6, 3, 7]
    assert rope.halves_order(8).tolist() == [0, 2, 4, 6, 1, 3, 5, 7]
    assert torch.equal(rope.pairs_order(8)[rope.halves_order(8)], torch.arange(8))


@pytest.mark.parametrize("width", [0, 7])
def test_a_width_without_pairs_is_refused(width):
    with pytest.raises(ValueError, match=f"width={width}: must be even"):
        rope.pairs_order(width)


@pytest.mark.parametrize("bias", [False, True])
def test_a_projection_is_permuted_within_each_head_and_back(frequencies, bias):
    random = torch.Generator().manual_seed(0)
    weight = torch.randn((3 * WIDTH, *(() if bias else (5,))), dtype=torch.float64, generator=random)
    metas = rope.projection_to_pairs(weight, 3)
    for head in range(3):
        rows = slice(head * WIDTH, (head + 1) * WIDTH)
        assert torch.equal(metas[rows], weight[rows][rope.pairs_order(WIDTH)])
    assert torch.equal(rope.projection_to_halves(metas, 3), weight)


@pytest.mark.parametrize("turn", [rope.rotate_halves, rope.rotate_pairs])
def test_a_score_depends_on_the_distance_alone(frequencies, turn):
    random = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, WIDTH, dtype=torch.float64, generator=random) for _ in range(2))

    def score(query: int, key: int) -> float:
        one, other = (turn(x, frequencies, torch.tensor([place])) for x, place in ((q, query), (k, key)))
        return float((one * other).sum())

    for distance in (0, 1, 7):
        at = [score(start + distance, start) for start in (0, 3, 500, 4000)]
        assert max(at) - min(at) < 1e-11
    assert abs(score(1, 0) - score(7, 0)) > 1e-3, "but on that it does"
    assert score(0, 0) == pytest.approx(float((q * k).sum()))


def test_sinusoidal_positions_depend_on_more_than_distance():
    random = torch.Generator().manual_seed(0)
    x, y = (torch.randn(WIDTH, dtype=torch.float64, generator=random) for _ in range(2))

    def score(query: int, key: int) -> float:
        one, other = rope.sinusoidal(torch.tensor([query, key]), WIDTH)
        return float((x + one) @ (y + other))

    assert abs(score(5, 4) - score(105, 104)) > 1e-3
    one, other = rope.sinusoidal(torch.tensor([105, 104]), WIDTH), rope.sinusoidal(torch.tensor([5, 4]), WIDTH)
    assert float(one[0] @ one[1]) == pytest.approx(float(other[0] @ other[1])), "among themselves they do not"


def test_sinusoidal_positions_by_hand():
    made = rope.sinusoidal(torch.arange(4), 6)
    for place in range(4):
        for pair in range(3):
            angle = place / 10000 ** (2 * pair / 6)
            assert made[place, 2 * pair] == pytest.approx(math.sin(angle))
            assert made[place, 2 * pair + 1] == pytest.approx(math.cos(angle))
    assert rope.sinusoidal(torch.arange(2), 5).shape == (2, 5)


def test_the_model_turns_as_this_file_does(frequencies, heads):
    """`llama.py` takes its angles in float32, and rotates by the same halves."""
    made = rotate(heads.float(), *rotation(frequencies.float(), PLACES))
    torch.testing.assert_close(made, rope.rotate_halves(heads.float(), frequencies.float(), PLACES))
    assert (made - rope.rotate_halves(heads, frequencies, PLACES)).abs().max() < 1e-3


def test_a_rotation_keeps_lengths(frequencies, heads):
    for turn in (rope.rotate_halves, rope.rotate_pairs):
        torch.testing.assert_close(turn(heads, frequencies, PLACES).norm(dim=-1), heads.norm(dim=-1))
