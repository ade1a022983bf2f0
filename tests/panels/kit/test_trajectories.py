"""A token's path: its axes against an independent computation, its ending on sequences whose ending is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from loopviz.panels.kit import trajectories

relaxed = settings(max_examples=60, deadline=None)
numbers = st.floats(-100, 100, width=32)
some_states = st.tuples(st.integers(1, 20), st.integers(1, 9)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=numbers)
)


# --- axes


def test_axes_are_the_principal_components_of_the_directions():
    states = np.random.default_rng(0).normal(size=(40, 7)) * np.arange(1, 8) + 3
    unit = np.array([row / math.sqrt(sum(x * x for x in row)) for row in states])
    covariance = np.cov(unit.T, bias=True)
    variances = np.sort(np.linalg.eigvalsh(covariance))[::-1]
    basis = trajectories.fit(states)
    assert basis.mean == pytest.approx(unit.mean(axis=0))
    assert basis.shares == pytest.approx(variances[:3] / variances.sum())
    for axis, variance in zip(basis.axes, variances, strict=False):
        assert covariance @ axis == pytest.approx(variance * axis, abs=1e-12)
        assert np.linalg.norm(axis) == pytest.approx(1)
        assert axis[np.argmax(np.abs(axis))] > 0
    points = basis.project(states)
    assert points.mean(axis=0) == pytest.approx(0, abs=1e-12)
    assert points.var(axis=0) == pytest.approx(variances[:3])


def test_the_length_of_a_state_is_not_in_the_picture():
    rng = np.random.default_rng(1)
    states, lengths = rng.normal(size=(20, 5)), rng.uniform(1e-3, 1e3, size=(20, 1))
    basis = trajectories.fit(states)
    assert basis.project(states * lengths) == pytest.approx(basis.project(states))
    assert trajectories.fit(states * lengths).axes == pytest.approx(basis.axes)


@relaxed
@given(some_states)
def test_a_picture_never_puts_states_further_apart_than_they_are(states):
    basis = trajectories.fit(states)
    points, unit = basis.project(states), trajectories.directions(states)
    assert np.isfinite(points).all()
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1)
    assert (apart <= np.linalg.norm(unit[:, None] - unit[None], axis=-1) + 1e-9).all()
    inner = basis.axes @ basis.axes.T
    kept = np.diag(inner) > 0.5
    assert inner == pytest.approx(np.diag(kept.astype(float)), abs=1e-6)
    assert basis.shares is None or 0 < sum(basis.shares) <= 1 + 1e-9


@pytest.mark.parametrize("hidden", [1, 2])
def test_fewer_dimensions_than_axes_leave_axes_empty(hidden):
    basis = trajectories.fit(np.random.default_rng(2).normal(size=(9, hidden)))
    assert not basis.axes[hidden:].any()
    assert sum(basis.shares) == pytest.approx(1)


def test_states_that_do_not_vary_have_no_shares():
    basis = trajectories.fit(np.ones((5, 4)))
    assert basis.shares is None
    assert not basis.project(np.ones((2, 4))).any()


def test_a_basis_refuses_axes_that_do_not_fit_its_mean():
    with pytest.raises(ValueError, match="belong together"):
        trajectories.Basis(np.zeros(4), np.zeros((3, 5)), None)


@pytest.mark.parametrize(("tokens", "rows", "every"), [(3, 5, 1), (51, 5, 1), (52, 5, 2), (200, 5, 4), (2, 300, 2)])
def test_axes_are_fitted_on_every_kth_token(tokens, rows, every):
    states = [np.full((rows, 2), float(t)) for t in range(tokens)]
    thinned = trajectories.thin(states)
    assert thinned[:, 0].tolist() == [float(t) for t in range(0, tokens, every) for _ in range(rows)]


# --- endings


def geometric(rate, steps, hidden=8, start=1.0):
    """s_r = s_* + rate^r (s_0 - s_*)."""
    fixed, away = np.zeros(hidden), np.zeros(hidden)
    fixed[0], away[1] = 10.0, start
    return np.array([fixed + rate**r * away for r in range(steps + 1)])


def rotation(degrees, steps, hidden=8, radius=1.0, centre=0.0):
    angles = np.radians(degrees) * np.arange(steps + 1)
    states = np.zeros((steps + 1, hidden))
    states[:, 0], states[:, 1], states[:, 2] = radius * np.cos(angles), radius * np.sin(angles), centre
    return states


def walk(step, steps, hidden=8):
    states = np.zeros((steps + 1, hidden))
    states[:, 0], states[:, 1] = 1.0, step * np.arange(steps + 1)
    return states


def kind(states):
    return trajectories.ending(states).kind


@pytest.mark.parametrize("steps", [4, 8, 16])
@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, -0.5])
def test_a_contraction_that_has_arrived_is_a_fixed_point(rate, steps):
    assert kind(geometric(rate, steps)) == "fixed"


def test_what_is_left_of_a_contraction_decides_whether_it_has_arrived():
    """|s_*| = 10, s_0 is 8 away, rate 3/4: 8 * 0.75^r is left after r steps, and 0.05 * 10 is allowed."""
    for steps in range(4, 20):
        states = geometric(0.75, steps, start=8.0)
        left = 8 * 0.75**steps
        assert kind(states) == ("fixed" if left <= 0.05 * np.linalg.norm(states[-1]) else "settling"), steps


@pytest.mark.parametrize("steps", [4, 10])
def test_a_state_that_rests_is_a_fixed_point(steps):
    assert kind(np.ones((steps + 1, 4))) == "fixed"


@pytest.mark.parametrize(
    ("degrees", "period"), [(180, 2), (120, 3), (90, 4), (72, 5), (60, 6), (50, 7), (100, 4), (45, 8)]
)
@pytest.mark.parametrize("centre", [0.0, 3.0])
def test_a_rotation_is_an_orbit_of_as_many_steps_as_a_turn_takes(degrees, period, centre):
    ending = trajectories.ending(rotation(degrees, 16, centre=centre))
    assert (ending.kind, ending.period) == ("orbit", period)


def test_a_rotation_that_has_not_come_round_is_not_called_an_orbit():
    assert kind(rotation(30, 8)) == "drift"
    assert kind(rotation(30, 13)) == "orbit"


@relaxed
@given(step=st.floats(0.01, 10), steps=st.integers(4, 20))
def test_a_straight_walk_is_drift_however_small_its_steps(step, steps):
    assert kind(walk(step, steps)) == "drift"


@relaxed
@given(st.integers(4, 20))
def test_a_state_that_only_grows_longer_drifts_though_its_direction_rests(steps):
    ending = trajectories.ending(np.outer(np.arange(1.0, steps + 2), np.ones(4)))
    assert ending.kind == "drift"
    assert ending.turned == pytest.approx(0, abs=1e-6)
    assert ending.moved == pytest.approx(1 / (steps + 1))


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_few_steps_do_not_tell(steps):
    for states in (geometric(0.1, steps), rotation(180, steps), walk(1, steps)):
        assert kind(states) == "few"


def test_the_last_step_is_told_in_parts_of_the_state_and_in_degrees():
    ending = trajectories.ending(rotation(30, 8, radius=5))
    assert ending.turned == pytest.approx(30)
    assert ending.moved == pytest.approx(2 * math.sin(math.radians(15)))
    tiny = np.array([[1.0, 0.0], [1.0, 1e-9]])
    assert trajectories.ending(tiny).turned == pytest.approx(math.degrees(1e-9), rel=1e-6)


def test_a_zero_state_has_no_direction_and_nothing_to_compare_a_step_with():
    ending = trajectories.ending(np.array([[1.0, 0.0]] * 5 + [[0.0, 0.0]]))
    assert (ending.moved, ending.turned) == (None, None)


@relaxed
@given(
    st.integers(1, 9).flatmap(
        lambda h: arrays(np.float64, st.tuples(st.integers(1, 12), st.just(h)), elements=numbers)
    ),
    st.sampled_from([0.25, 8.0]),
    st.randoms(use_true_random=False),
)
def test_neither_units_nor_the_order_of_dimensions_matter(states, scale, rng):
    order = list(range(states.shape[1]))
    rng.shuffle(order)
    one, other = (
        trajectories.ending(states),
        trajectories.ending(scale * states[:, order] * [rng.choice([-1, 1]) for _ in order]),
    )
    assert one.kind in trajectories.KINDS
    for value, same in ((one.moved, other.moved), (one.turned, other.turned)):
        assert (value is None and same is None) or value == pytest.approx(same, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("states", [geometric(0.5, 8), rotation(72, 9), walk(0.1, 9), geometric(0.75, 6, start=8.0)])
def test_what_float16_keeps_of_the_states_is_enough(states):
    assert kind(states.astype(np.float16)) == kind(states)


# --- how far from where it ended


def test_b7_the_distance_to_the_last_state_by_hand():
    away = trajectories.to_last(np.array([[3.0, 4.0, 0.0], [0.0, 4.0, 3.0], [0.0, 4.0, 0.0]]))
    assert away == [pytest.approx(3 / 4), pytest.approx(3 / 4)]
    assert trajectories.to_last(np.array([[1.0, 2.0]])) == []
    assert trajectories.to_last(np.array([[1.0, 2.0], [0.0, 0.0]])) == [None], "of no length nothing is a part"


@pytest.mark.parametrize("rate", [0.25, 0.5, 0.9])
def test_b7_a_path_that_comes_to_rest_at_a_steady_rate_falls_at_that_rate(rate):
    end, way = np.array([1.0, 2.0, -1.0, 0.5]), np.array([0.3, 0.0, 0.4, -0.2])
    away = trajectories.to_last(np.array([end + way * rate**r for r in range(60)]))
    assert away[:6] == pytest.approx([rate**r * away[0] for r in range(6)], rel=0.02)
